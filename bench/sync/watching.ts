/**
 * What a sync that watches takes: from the close of a file until the target has it, a burst of files, and more changes than the
 * kernel's queue holds while the sync stands still.
 */
import { mkdirSync, rmSync, watch, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { isOperationError } from '#base/errors.ts'
import { FarBucket, KEYS } from '#bench/mount/far-bucket.ts'
import type { BenchRow } from '#bench/table.ts'
import { openS3Store } from '#store/s3/s3-store.ts'
import { bucketUrl, startLsyncd, startSync, timed, type Watching } from './programs.ts'
import { inTurns, median, quantile, type Run, rowOf, type Scenario } from './row.ts'
import { isThere, layTree, untilFiles } from './trees.ts'
import { differences } from './unchanged.ts'

const FILES_ONE_BY_ONE = 200
const LATENCY_BYTES = 1024
const LATENCY_MS_MAX = 10
const BURST_FILES = 5000
const BURST_DIRECTORIES = 50
const BURST_BYTES = 1024
const BURST_MS_MAX = 2000
const BURST_ROUNDS = 3
const EVENTS = 40_000
const EVENT_DIRECTORIES = 40
const EVENT_BYTES = 64
const OVERFLOW_MS_MAX = 5000
const OVERFLOW_ROUNDS = 2
const PATIENCE_MS = 120_000
/** A peer that takes longer has lost some. */
const PEER_PATIENCE_MS = 60_000

interface Pair {
  readonly source: string
  readonly target: string
  readonly home: string
  readonly state: string
}

/** Two empty directories and what a program needs beside them. */
function pair(scratch: string, name: string): Pair {
  const at = (what: string): string => join(scratch, `${name}-${what}`)
  const found = { source: at('source'), target: at('target'), home: at('home'), state: at('state') }
  mkdirSync(found.source)
  mkdirSync(found.target)
  return found
}

const syncPair = ({ source, target, state, home }: Pair): Promise<Watching> =>
  startSync([source, `--to=${target}`, `--state=${state}`], home)

const lsyncdPair = ({ source, target, home }: Pair): Promise<Watching | undefined> => startLsyncd(source, target, home)

/** Milliseconds from each close to its file in the target, with pauses between that fit no interval of a program. */
async function oneByOne(source: string, visible: (name: string) => Promise<unknown>): Promise<number[]> {
  const bytes = Buffer.alloc(LATENCY_BYTES, 'x')
  const found: number[] = []
  for (let index = 0; index < FILES_ONE_BY_ONE; index++) {
    await delay(5 + ((index * 7) % 23))
    const name = `file-${index}`
    const until = visible(name)
    writeFileSync(join(source, name), bytes)
    const begin = performance.now()
    await until
    found.push(performance.now() - begin)
  }
  return found
}

/** Told by the kernel as soon as it has its name, and by a look now and then, should that be lost. */
function visibleIn(target: string): (name: string) => Promise<unknown> {
  return (name) => {
    const path = join(target, name)
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const look = (): void => {
      if (!isThere(path, LATENCY_BYTES)) return
      clearInterval(timer)
      clearTimeout(late)
      watcher.close()
      resolve()
    }
    const watcher = watch(target, look)
    const timer = setInterval(look, 100)
    const late = setTimeout(() => reject(new Error(`"${name}" does not come`)), PATIENCE_MS)
    return promise
  }
}

async function latency({ scratch }: Run): Promise<BenchRow[]> {
  const rows: BenchRow[] = []
  const local = pair(scratch, 'eider')
  const ours = await syncPair(local)
  const direct = await oneByOne(local.source, visibleIn(local.target))
  await ours.stop()
  const theirs = pair(scratch, 'lsyncd')
  const lsyncd = await lsyncdPair(theirs)
  const compared = lsyncd === undefined ? undefined : await oneByOne(theirs.source, visibleIn(theirs.target))
  await lsyncd?.stop()
  const kind = ours.told?.watcher?.kind ?? ''
  rows.push(...latencyRows('close to visible, local', direct, kind))
  rows.push(
    rowOf({
      ...{ name: 'close to visible, local, median', unit: 'ms', eider: median(direct) ?? Number.NaN, better: 'less' },
      ...{ other: median(compared), otherName: 'lsyncd, no delay' },
    }),
  )
  rows.push(...latencyRows('close to visible, S3', await latencyOfBucket(scratch), kind))
  return rows
}

function latencyRows(name: string, figures: readonly number[], kind: string): BenchRow[] {
  const limit = { unit: 'ms', other: LATENCY_MS_MAX, otherName: 'limit', better: 'less', target: 1 } as const
  return [
    rowOf({ ...limit, name: `${name}, median`, eider: median(figures) ?? Number.NaN, note: kind }),
    rowOf({
      ...{ name: `${name}, 95 of 100 within`, unit: 'ms', eider: quantile(figures, 0.95) ?? Number.NaN },
      ...{ other: LATENCY_MS_MAX, otherName: 'limit', better: 'less' },
    }),
  ]
}

async function latencyOfBucket(scratch: string): Promise<number[]> {
  const far = await FarBucket.start('none')
  const source = join(scratch, 'source')
  mkdirSync(source)
  const store = await openS3Store(`s3://${far.name}/latency`, {
    endpoint: far.near,
    credentials: { accessKeyId: KEYS.accessKey, secretAccessKey: KEYS.secretKey },
    ...{ region: 'us-east-1', style: 'path' },
  })
  const sync = await startSync(
    [source, `--to=${bucketUrl(far, far.near, 'latency')}`, `--state=${join(scratch, 'state')}`],
    join(scratch, 'home'),
  )
  try {
    return await oneByOne(source, untilStored)
  } finally {
    await sync.stop()
    await store.close()
    far.stop()
  }

  async function untilStored(name: string): Promise<void> {
    const deadline = performance.now() + PATIENCE_MS
    const isStored = (): Promise<boolean> =>
      store.stat(name, { expected: 'file' }).then(
        () => true,
        (error: unknown) => {
          if (isOperationError(error, 'STORE_NOT_FOUND')) return false
          throw error
        },
      )
    while (!(await isStored())) {
      if (performance.now() > deadline) throw new Error(`"${name}" does not come`)
      await delay(1)
    }
  }
}

/** A program that follows a source; undefined where it is not installed. */
type Start = (place: Pair) => Promise<Watching | undefined>

/** What runs of programs that follow a source have come to. */
class Followed {
  lost = 0
  overflows = 0
  /** Of the peer: why it has no figure. */
  failure = ''
  readonly #scratch: string
  readonly #files: number
  #runs = 0

  constructor(scratch: string, files: number) {
    this.#scratch = scratch
    this.#files = files
  }

  /** Milliseconds from what `begin` gives until all files are in the target. `lay` makes what lies in the source before. */
  async run(
    start: Start,
    isOurs: boolean,
    lay: (source: string) => void,
    change: (source: string, program: Watching) => Promise<number>,
  ): Promise<number | undefined> {
    const place = pair(this.#scratch, `followed-${++this.#runs}`)
    lay(place.source)
    const program = await start(place)
    if (program === undefined) return undefined
    try {
      const end = untilFiles(place.target, this.#files, isOurs ? PATIENCE_MS : PEER_PATIENCE_MS)
      const [begin, endedAt] = await Promise.all([change(place.source, program), end])
      const different = differences(place.source, place.target) ?? 0
      await program.stop()
      if (isOurs) {
        this.lost += different
        this.overflows += program.told?.watcher?.overflows ?? 0
      }
      return endedAt - begin
    } catch (error) {
      if (isOurs) throw error
      await program.stop()
      this.failure = error instanceof Error ? error.message : String(error)
      return undefined
    } finally {
      for (const directory of [place.source, place.target]) rmSync(directory, { recursive: true })
    }
  }

  /** Against the limit, and against lsyncd. */
  rows(
    name: string,
    limitMs: number,
    note: string,
    found: Partial<Record<'eider' | 'lsyncd', readonly number[]>>,
  ): BenchRow[] {
    const common = { name, unit: 'ms', eider: median(found.eider) ?? Number.NaN, better: 'less' } as const
    return [
      rowOf({ ...common, other: limitMs, otherName: 'limit', target: 1, note }),
      rowOf({
        ...{ ...common, other: median(found.lsyncd), otherName: 'lsyncd, no delay' },
        ...(this.failure === '' ? {} : { note: this.failure, missing: 'failed' }),
      }),
    ]
  }
}

async function burst({ scratch }: Run): Promise<BenchRow[]> {
  const files = join(scratch, 'files')
  layTree(files, BURST_FILES, BURST_DIRECTORIES, BURST_BYTES)
  const followed = new Followed(scratch, BURST_FILES)
  // Into directories that are there: in new ones lsyncd loses files.
  const lay = (source: string): void => layTree(source, 0, BURST_DIRECTORIES, 0)
  const copy = async (source: string): Promise<number> => {
    const begin = performance.now()
    await timed('cp', ['-r', `${files}/.`, source], join(scratch, 'home'))
    return begin
  }
  const found = await inTurns(BURST_ROUNDS, {
    eider: () => followed.run(syncPair, true, lay, copy),
    lsyncd: () => followed.run(lsyncdPair, false, lay, copy),
  })
  const note = `from the start of a cp -r; ${followed.lost} lost`
  return followed.rows(`a burst of ${BURST_FILES} files of 1 KiB, local`, BURST_MS_MAX, note, found)
}

async function overflow({ scratch }: Run): Promise<BenchRow[]> {
  const followed = new Followed(scratch, EVENTS)
  const lay = (source: string): void => layTree(source, 0, EVENT_DIRECTORIES, 0)
  const whileStopped = (source: string, { pid }: Watching): Promise<number> => {
    process.kill(pid, 'SIGSTOP')
    layTree(source, EVENTS, EVENT_DIRECTORIES, EVENT_BYTES)
    const begin = performance.now()
    process.kill(pid, 'SIGCONT')
    return Promise.resolve(begin)
  }
  const found = await inTurns(OVERFLOW_ROUNDS, {
    eider: () => followed.run(syncPair, true, lay, whileStopped),
    lsyncd: () => followed.run(lsyncdPair, false, lay, whileStopped),
  })
  // Each file is an event at least; without an overflow it would be another race.
  if (followed.overflows < OVERFLOW_ROUNDS) throw new Error(`only ${followed.overflows} runs overflowed the queue`)
  const note = `${followed.overflows} overflows in ${OVERFLOW_ROUNDS} runs; ${followed.lost} lost`
  return followed.rows(`${EVENTS} files made while it was stopped, local`, OVERFLOW_MS_MAX, note, found)
}

export const WATCHING: readonly Scenario[] = [
  { name: 'latency', run: latency },
  { name: 'burst', run: burst },
  { name: 'overflow', run: overflow },
]
