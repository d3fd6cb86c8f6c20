/** Reading: what is cached against the cache's own disk, what is far away against the peers. */
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { BenchRow } from '#bench/table.ts'
import { ALL, countsText, type Measured, openAlone, type Run, rowOf, type Scenario, withMount, work } from './run.ts'

const MIB = 2 ** 20
const LARGE_BYTES = 1024 * MIB
const CACHED_BYTES = 512 * MIB
const RANDOM_READS = 200
const RANDOM_BYTES = 128 * 1024
const ROUNDS = 3
const FILLS = 3

async function cachedRead(run: Run): Promise<BenchRow[]> {
  run.bucket.lay('cached', CACHED_BYTES)
  const rows: BenchRow[] = []
  for (const [name, more, target] of [
    ['with passthrough', [], 0.9],
    ['without passthrough', ['--no-passthrough'], 0.3],
  ] as const) {
    const figures = await withMount(run, 'eider', { cache: true, eider: more }, async ({ directory, scratch }) => {
      const file = join(directory, 'cached')
      // What was not kept at once, as it came faster than the disk takes it, is fetched again; and the first open after that may
      // still be checking. From then on the mode is settled.
      for (let fills = 0; fills < FILLS; fills++) await work('sequential', file, MIB)
      const copy = await cacheFile(join(scratch, 'cache'), CACHED_BYTES)
      await work('sequential', file, MIB)
      const rate = async (path: string): Promise<number> =>
        (CACHED_BYTES / 1e6 / (await work('sequential', path, MIB))) * 1000
      let [eider, limit] = [0, 0]
      for (let round = 0; round < ROUNDS; round++) {
        eider = Math.max(eider, await rate(file))
        limit = Math.max(limit, await rate(copy))
      }
      return { eider, limit }
    })
    rows.push(
      rowOf({
        name: `cached read ${name}`,
        ...{ unit: 'MB/s', eider: figures?.eider, limit: figures?.limit, against: 'limit', better: 'more', target },
      }),
    )
  }
  return rows
}

/** The file of the cache that holds `bytes`; waits until it is there whole. */
async function cacheFile(directory: string, bytes: number): Promise<string> {
  for (let tries = 0; tries < 200; tries++) {
    for (const name of readdirSync(directory, { recursive: true, encoding: 'utf8' })) {
      const path = join(directory, name)
      const found = statSync(path, { throwIfNoEntry: false })
      if (found?.isFile() === true && found.size === bytes && found.blocks * 512 >= bytes) return path
    }
    await delay(50)
  }
  throw new Error('no file of the cache has all of it')
}

async function coldRead(run: Run): Promise<BenchRow[]> {
  run.bucket.lay('large', LARGE_BYTES)
  const found: Partial<Record<(typeof ALL)[number], Measured | undefined>> = {}
  for (const name of ALL) {
    found[name] = await withMount(run, name, {}, ({ directory }, count) =>
      count(() => work('sequential', join(directory, 'large'), MIB)),
    )
  }
  const rate = (measured: Measured | undefined): number | undefined =>
    measured && (LARGE_BYTES / 1e6 / measured.ms) * 1000
  const alone = (LARGE_BYTES / 1e6 / (await downloadAlone(run))) * 1000
  const common = { eider: rate(found.eider), unit: 'MB/s', better: 'more' } as const
  return [
    rowOf({
      name: 'cold sequential read of 1 GiB',
      ...common,
      ...{ s3fs: rate(found.s3fs), rclone: rate(found.rclone), against: 'peers', target: 3 },
      requests: found.eider && countsText(found.eider.byKind),
    }),
    rowOf({ name: 'cold read against the store client alone', ...common, limit: alone, against: 'limit', target: 0.8 }),
  ]
}

/** What the store's client takes to read the same, with nobody who looks at the bytes. */
async function downloadAlone(run: Run): Promise<number> {
  const store = await openAlone(run)
  try {
    const begin = performance.now()
    const { body } = await store.read('large')
    let bytes = 0
    for await (const chunk of body) bytes += chunk.length
    if (bytes !== LARGE_BYTES) throw new Error(`${bytes} bytes came`)
    return performance.now() - begin
  } finally {
    await store.close()
  }
}

async function randomRead(run: Run): Promise<BenchRow[]> {
  run.bucket.lay('large', LARGE_BYTES)
  const found: Partial<Record<(typeof ALL)[number], Measured | undefined>> = {}
  for (const name of ALL) {
    found[name] = await withMount(run, name, {}, ({ directory }, count) =>
      count(() => work('random', join(directory, 'large'), RANDOM_BYTES, RANDOM_READS, 7)),
    )
  }
  const each = (measured: Measured | undefined): number | undefined => measured && measured.ms / RANDOM_READS
  const gets = found.eider?.byKind['get'] ?? Number.NaN
  return [
    rowOf({
      name: 'cold random read of 128 KiB',
      unit: 'ms',
      ...{ eider: each(found.eider), s3fs: each(found.s3fs), rclone: each(found.rclone) },
      ...{ against: 'peers', better: 'less', target: 5 },
      requests: `${(gets / RANDOM_READS).toFixed(2)} GETs a read (1.3)`,
    }),
  ]
}

export const READING: readonly Scenario[] = [
  { name: 'cached', run: cachedRead },
  { name: 'sequential', run: coldRead },
  { name: 'random', run: randomRead },
]
