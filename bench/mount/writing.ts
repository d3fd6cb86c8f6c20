/** Writing and names: small files, a tree of them, its removal, one large file, and a large listing. */
import { closeSync, mkdirSync, openSync, readdirSync, rmSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { BenchRow } from '#bench/table.ts'
import { ANY } from '#store/store.ts'
import type { ContenderName } from './contenders.ts'
import { noise } from './far-bucket.ts'
import {
  ALL,
  countsText,
  openAlone,
  type Measured,
  type Run,
  rowOf,
  type Scenario,
  timed,
  untilStored,
  withMount,
  work,
} from './run.ts'

const MIB = 2 ** 20
/** A second, as is the default, is over before the work is; the peers trust what they know for minutes. */
const KNOWN = ['--validity=60s']
const LARGE_BYTES = 1024 * MIB
const LISTED = 10_000
const SMALL_FILES = 100
const TREE_FILES = 6400
const TREE_DIRECTORIES = 1024
const WRITERS = 16

type Found = Partial<Record<ContenderName, Measured | undefined>>

async function listing(run: Run): Promise<BenchRow[]> {
  // Written by another tool: nothing says who owns them.
  for (let index = 0; index < LISTED; index++) run.bucket.lay(`listed/object-${index}`, 16)
  const first: Found = {}
  const again: Found = {}
  for (const name of ALL) {
    await withMount(run, name, { eider: KNOWN }, async ({ directory }, count) => {
      const list = (): Promise<number> => timed('ls', ['-l', join(directory, 'listed')])
      first[name] = await count(list)
      again[name] = await count(list)
    })
  }
  const row = (title: string, found: Found): BenchRow =>
    rowOf({
      name: title,
      unit: 'ms',
      ...{ eider: found.eider?.ms, s3fs: found.s3fs?.ms, rclone: found.rclone?.ms },
      ...{ against: 'peers', better: 'less', target: 3, requests: found.eider && countsText(found.eider.byKind) },
    })
  const trusted = await withMount(run, 'eider', { eider: [...KNOWN, '--trust-listing'] }, ({ directory }, count) =>
    count(() => timed('ls', ['-l', join(directory, 'listed')])),
  )
  return [
    row(`ls -l of ${LISTED} foreign objects`, first),
    row('again within the validity', again),
    row('with --trust-listing', { ...first, eider: trusted }),
  ]
}

async function smallFile(run: Run): Promise<BenchRow[]> {
  const found: Found = {}
  for (const name of ALL) {
    const folder = `small-${name}`
    run.bucket.lay(`${folder}/known`, 1)
    found[name] = await withMount(run, name, { writes: true, eider: KNOWN }, async ({ directory }, count) => {
      await timed('ls', ['-l', join(directory, folder)])
      return count(async () => {
        const begin = performance.now()
        await work('create', join(directory, folder), SMALL_FILES, 1000)
        await untilStored(join(run.bucket.directory, folder), SMALL_FILES + 1, SMALL_FILES * 1000)
        return performance.now() - begin
      })
    })
  }
  const each = (measured: Measured | undefined): number | undefined => measured && measured.ms / SMALL_FILES
  return [
    rowOf({
      name: 'create, write, close of 1 kB',
      unit: 'ms',
      ...{ eider: each(found.eider), s3fs: each(found.s3fs), rclone: each(found.rclone) },
      ...{ against: 'peers', better: 'less', target: 1 },
      requests: `${((found.eider?.requests ?? Number.NaN) / SMALL_FILES).toFixed(2)} a file (1)`,
    }),
  ]
}

async function tree(run: Run): Promise<BenchRow[]> {
  const source = join(run.scratch, 'tree')
  const bytes = await layTree(source)
  const copied: Found = {}
  const removed: Found = {}
  const copy = (name: ContenderName, options: readonly string[]): Promise<Measured | undefined> =>
    withMount(run, name, { writes: true, eider: options }, async ({ directory }, count) => {
      const target = join(directory, `tree-${name}`)
      await timed('mkdir', [target])
      return count(async () => {
        const begin = performance.now()
        const shares = readdirSync(source).map((share) => timed('cp', ['-r', join(source, share), target]))
        await Promise.all(shares)
        await untilStored(join(run.bucket.directory, `tree-${name}`), TREE_FILES, bytes)
        return performance.now() - begin
      })
    })
  const remove = (name: ContenderName): void =>
    rmSync(join(run.bucket.directory, `tree-${name}`), { recursive: true, force: true })
  const writtenBack = await copy('eider', [...KNOWN, '--write-back'])
  remove('eider')
  for (const name of ALL) {
    copied[name] = await copy(name, KNOWN)
    await withMount(run, name, { writes: true, eider: KNOWN }, async ({ directory }, count) => {
      removed[name] = await count(() => timed('rm', ['-r', join(directory, `tree-${name}`)]))
    })
    remove(name)
  }
  const row = (title: string, found: Found): BenchRow =>
    rowOf({
      name: title,
      unit: 's',
      eider: found.eider && found.eider.ms / 1000,
      s3fs: found.s3fs && found.s3fs.ms / 1000,
      rclone: found.rclone && found.rclone.ms / 1000,
      ...{ against: 'peers', better: 'less', target: 3, requests: found.eider && countsText(found.eider.byKind) },
    })
  return [
    row(`cp -r of ${TREE_FILES} files in ${TREE_DIRECTORIES} directories, ${WRITERS} writers`, copied),
    row('the same with --write-back, as rclone does', { ...copied, eider: writtenBack }),
    row('rm -r of them', removed),
  ]
}

/** Sizes from 0.5 to 300 KB, as many small as large by their logarithm; one directory a writer, the others below. */
async function layTree(source: string): Promise<number> {
  rmSync(source, { recursive: true, force: true })
  let state = 42
  let bytes = 0
  const random = (): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 2 ** 32
  }
  const content = noise(300_000)
  const directories = Array.from({ length: TREE_DIRECTORIES }, (_, index) =>
    join(source, `share-${index % WRITERS}`, `directory-${index}`),
  )
  for (const directory of directories) mkdirSync(directory, { recursive: true })
  for (let index = 0; index < TREE_FILES; index++) {
    const size = Math.round(500 * 600 ** random())
    bytes += size
    await writeFile(join(directories[index % directories.length] ?? source, `file-${index}`), content.subarray(0, size))
  }
  return bytes
}

async function largeWrite(run: Run): Promise<BenchRow[]> {
  const found: Found = {}
  for (const name of ALL) {
    const stored = join(run.bucket.directory, `written-${name}`)
    found[name] = await withMount(run, name, { writes: true }, async ({ directory }, count) => {
      await timed('mkdir', [join(directory, `written-${name}`)])
      return count(async () => {
        const begin = performance.now()
        await work('write', join(directory, `written-${name}`, 'large'), LARGE_BYTES)
        await untilStored(stored, 1, LARGE_BYTES)
        return performance.now() - begin
      })
    }).finally(() => rmSync(join(stored, 'large'), { force: true }))
  }
  const rate = (measured: Measured | undefined): number | undefined =>
    measured && (LARGE_BYTES / 1e6 / measured.ms) * 1000
  const alone = (LARGE_BYTES / 1e6 / (await uploadAlone(run))) * 1000
  const common = { eider: rate(found.eider), unit: 'MB/s', better: 'more' } as const
  return [
    rowOf({
      name: 'sequential write of 1 GiB',
      ...common,
      ...{ s3fs: rate(found.s3fs), rclone: rate(found.rclone), against: 'peers', target: 1 },
      requests: found.eider && countsText(found.eider.byKind),
    }),
    rowOf({ name: 'write against the store client alone', ...common, limit: alone, against: 'limit', target: 0.8 }),
  ]
}

/** What the store's client takes for the same bytes, from a file, with nothing before it. */
async function uploadAlone(run: Run): Promise<number> {
  const { bucket, scratch } = run
  const source = join(scratch, 'upload-alone')
  await work('write', source, LARGE_BYTES)
  const store = await openAlone(run)
  const fd = openSync(source, 'r')
  try {
    const begin = performance.now()
    const segments = [{ fd, offset: 0, length: LARGE_BYTES }]
    await store.put('upload-alone', { kind: 'file', segments }, { guard: ANY })
    return performance.now() - begin
  } finally {
    closeSync(fd)
    await store.close()
    rmSync(source)
    rmSync(join(bucket.directory, 'upload-alone'), { force: true })
  }
}

export const WRITING: readonly Scenario[] = [
  { name: 'listing', run: listing },
  { name: 'small', run: smallFile },
  { name: 'tree', run: tree },
  { name: 'write', run: largeWrite },
]
