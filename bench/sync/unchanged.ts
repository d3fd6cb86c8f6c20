/** A tree of 100,000 small files in 1,000 directories of which nothing changed: how long it takes to find that out, and with how much memory. */
import { spawnSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { FarBucket } from '#bench/mount/far-bucket.ts'
import type { BenchRow } from '#bench/table.ts'
import { bucketUrl, installed, peerRun, rcloneHome, syncOnce, timed } from './programs.ts'
import { inTurns, median, type Run, rowOf, type Scenario } from './row.ts'
import { layTree } from './trees.ts'

const FILES = 100_000
const DIRECTORIES = 1000
const BYTES = 64
const LOCAL_ROUNDS = 7
const BUCKET_ROUNDS = 3
const MEMORY_MB_MAX = 150

/** Runs that must find nothing to do. @throws Error where one does something: then it was not this that was measured */
class Unchanged {
  memoryBytes = 0
  readonly #args: readonly string[]
  readonly #home: string

  constructor(args: readonly string[], home: string) {
    this.#args = args
    this.#home = home
  }

  async run(): Promise<number> {
    const { ms, memoryBytes, done } = await syncOnce(this.#args, this.#home)
    const did = (done.sent ?? 0) + (done.removed ?? 0) + (done.attributesSet ?? 0)
    if (did > 0 || (done.same ?? 0) < FILES) throw new Error(`something had changed: ${JSON.stringify(done)}`)
    this.memoryBytes = Math.max(this.memoryBytes, memoryBytes)
    return ms
  }

  memoryRow(name: string): BenchRow {
    return rowOf({
      ...{ name: `${name}: most memory resident`, unit: 'MB', eider: this.memoryBytes / 1e6 },
      ...{ other: MEMORY_MB_MAX, otherName: 'limit', better: 'less', target: 1 },
    })
  }
}

async function local({ scratch }: Run): Promise<BenchRow[]> {
  const source = join(scratch, 'source')
  layTree(source, FILES, DIRECTORIES, BYTES)
  const plain = await unchanged(scratch, source, 'plain', [])
  const whole = await unchanged(scratch, source, 'whole', ['--metadata'])
  const copy = join(scratch, 'rsync')
  const rsync = peerRun('rsync', ['-a', `${source}/`, `${copy}/`], join(scratch, 'home'))
  await rsync?.()
  // The first of each finds out what no run before it has kept.
  await plain.run()
  await whole.run()
  const found = await inTurns(LOCAL_ROUNDS, {
    eider: () => plain.run(),
    'eider --metadata': () => whole.run(),
    ...(rsync === undefined ? {} : { rsync }),
  })
  const name = `${FILES} files unchanged, local`
  const against = { other: median(found.rsync), otherName: 'rsync -a', unit: 'ms', better: 'less', target: 1 } as const
  return [
    rowOf({ ...against, name, eider: median(found.eider) ?? Number.NaN, note: 'sizes and times' }),
    plain.memoryRow(name),
    rowOf({
      ...{ ...against, name: `${name}, --metadata`, eider: median(found['eider --metadata']) ?? Number.NaN },
      note: 'modes and owners, too, as rsync -a',
    }),
    whole.memoryRow(`${name}, --metadata`),
  ]
}

async function unchanged(
  scratch: string,
  source: string,
  name: string,
  options: readonly string[],
): Promise<Unchanged> {
  const target = join(scratch, name)
  mkdirSync(target)
  const args = [source, `--to=${target}`, `--state=${join(scratch, `${name}-state`)}`, ...options]
  const home = join(scratch, `${name}-home`)
  await syncOnce(args, home)
  return new Unchanged(args, home)
}

async function bucket({ scratch }: Run): Promise<BenchRow[]> {
  const far = await FarBucket.start('none')
  try {
    const source = join(scratch, 'source')
    layTree(source, FILES, DIRECTORIES, BYTES)
    const args = [source, `--to=${bucketUrl(far, far.near, 'eider')}`, `--state=${join(scratch, 'state')}`]
    const home = join(scratch, 'home')
    await syncOnce(args, home)
    const ours = new Unchanged(args, home)
    await ours.run()
    const rclone = installed('rclone')
    const rcloneIn = rcloneHome(scratch, far.near)
    const sync = ['sync', source, `far:${far.name}/rclone`]
    if (rclone !== undefined) await timed(rclone, [...sync, '--transfers=32', '--no-traverse'], rcloneIn)
    const peer = peerRun('rclone', sync, rcloneIn)
    const found = await inTurns(BUCKET_ROUNDS, {
      eider: () => ours.run(),
      ...(peer === undefined ? {} : { rclone: peer }),
    })
    const name = `${FILES} files unchanged, to S3`
    return [
      rowOf({
        ...{ name, unit: 'ms', eider: median(found.eider) ?? Number.NaN, better: 'less', target: 1 },
        ...{ other: median(found.rclone), otherName: 'rclone sync' },
        note: 'rclone asks for the time of each object by a HEAD',
      }),
      ours.memoryRow(name),
    ]
  } finally {
    far.stop()
  }
}

/** For scenarios that look behind the programs: whether rsync finds the trees equal, by their bytes. Undefined where there is no rsync. */
export function differences(source: string, target: string): number | undefined {
  const rsync = installed('rsync')
  if (rsync === undefined) return undefined
  const args = ['-ani', '--delete', '--checksum', '--exclude=/.eider', `${source}/`, `${target}/`]
  const { status, stdout, stderr } = spawnSync(rsync, args, { encoding: 'utf8', maxBuffer: 1 << 28 })
  if (status !== 0) throw new Error(`rsync cannot compare: ${stderr}`)
  // What differs in its attributes alone, as directories do without --metadata, begins with a dot.
  return stdout.split('\n').filter((line) => line !== '' && !line.startsWith('.')).length
}

export const UNCHANGED: readonly Scenario[] = [
  { name: 'unchanged', run: local },
  { name: 'unchanged-s3', run: bucket },
]
