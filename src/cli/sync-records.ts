/**
 * What each running `eider sync` tells of itself to `eider sync status`: a file of JSON in the user's runtime directory, replaced
 * whole, at most once a second and at each change of phase, and removed at an orderly end. A record without its process is of a
 * sync that was killed; it is told of once and cleared, or replaced when the sync with its state directory starts again.
 *
 * A record that cannot be written does not stop a sync: the log says so once.
 */
import { randomBytes } from 'node:crypto'
import { renameSync, rmSync, writeFileSync } from 'node:fs'
import { rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as v from 'valibot'
import { logger } from '#base/log.ts'
import { FAILURES_KEPT, SYNC_PHASES, type SyncSnapshot } from '#sync/snapshot.ts'
import { SYNCS_NAME, syncsDirectory } from './places.ts'
import { identityOf, isRunning } from './process-identity.ts'
import { isAlone, namesIn, readRecordFile, type RecordFolder, recordFolders } from './record-folders.ts'
import { RateMeter } from './sync-rates.ts'

const log = logger('cli/sync')

const RECORD_NAME = /^[0-9a-f]{16}\.json$/
/** Frequent enough for who looks, and nothing beside the work of a sync. */
const WRITE_MS_MIN = 1000
const RECORD_MODE = { mode: 0o600 } as const

/** Subtrees without a watch can be many thousands. */
const DEGRADED_TOLD = 500

const count = v.pipe(v.number(), v.finite())

const SnapshotSchema = v.object({
  phase: v.picklist(SYNC_PHASES),
  listedSource: count,
  listedTarget: count,
  same: count,
  queued: count,
  inFlight: count,
  sent: count,
  sentBytes: count,
  queuedBytes: count,
  renamed: count,
  removed: count,
  keptBack: count,
  madeDirectories: count,
  attributesSet: count,
  skipped: count,
  skippedBy: v.exactOptional(v.record(v.string(), count)),
  failed: count,
  retried: count,
  startedAtMs: count,
  lastChangeAtMs: v.exactOptional(count),
  failures: v.array(v.object({ path: v.string(), code: v.string(), message: v.string() })),
  watcher: v.exactOptional(
    v.object({
      kind: v.string(),
      degraded: v.array(v.object({ path: v.string(), why: v.string() })),
      overflows: count,
    }),
  ),
}) satisfies v.GenericSchema<unknown, SyncSnapshot>

const RecordSchema = v.object({
  id: v.string(),
  process: v.object({ pid: v.number(), startTicks: v.number() }),
  sources: v.array(v.string()),
  /** URLs are without secrets. */
  target: v.string(),
  /** The directory of its state. */
  state: v.string(),
  /** ISO 8601, as the next. */
  startedAt: v.string(),
  /** When this was written. */
  toldAt: v.string(),
  /** Where its log goes; absent: its standard error. */
  log: v.exactOptional(v.string()),
  snapshot: SnapshotSchema,
  bytesPerSecond: count,
  filesPerSecond: count,
})
export interface SyncRecord extends Omit<v.InferOutput<typeof RecordSchema>, 'snapshot'> {
  readonly snapshot: SyncSnapshot
}

/** What of a record does not change while the sync runs. */
export type SyncFacts = Pick<SyncRecord, 'sources' | 'target' | 'state' | 'log'>

export interface KeptRecord {
  /** What the sync does now; called as often as one likes. */
  tell(snapshot: SyncSnapshot): void
  /** Removes the record: the sync has ended, and has said how. */
  end(): Promise<void>
}

/** Keeps the record of this process's sync until its end. */
export function keepSyncRecord(facts: SyncFacts, snapshot: SyncSnapshot): KeptRecord {
  try {
    return new RecordKeeper(syncsDirectory(), facts, snapshot)
  } catch (error) {
    cannotTell(error)
    return { tell: () => {}, end: async () => {} }
  }
}

class RecordKeeper implements KeptRecord {
  readonly #file: string
  readonly #fixed: Omit<SyncRecord, 'toldAt' | 'snapshot' | 'bytesPerSecond' | 'filesPerSecond'>
  readonly #meter = new RateMeter()
  #snapshot: SyncSnapshot
  #written: SyncSnapshot | undefined
  #writtenAtMs = Number.NEGATIVE_INFINITY
  #later: NodeJS.Timeout | undefined
  #writing: Promise<void> | undefined
  #isOver = false

  constructor(folder: string, facts: SyncFacts, snapshot: SyncSnapshot) {
    const id = randomBytes(8).toString('hex')
    this.#file = join(folder, `${id}.json`)
    this.#fixed = {
      id,
      process: identityOf(process.pid),
      ...facts,
      startedAt: new Date(snapshot.startedAtMs).toISOString(),
    }
    this.#snapshot = snapshot
    for (const each of syncRecordsIn({ path: folder, uid: process.getuid?.() ?? 0 })) {
      if (each.record.state === facts.state && !isRunning(each.record.process)) remove(each.file)
    }
    // Whoever sees the sync at work finds its record.
    writeFileSync(partOf(this.#file), this.#record(), RECORD_MODE)
    renameSync(partOf(this.#file), this.#file)
  }

  tell(snapshot: SyncSnapshot): void {
    if (this.#isOver) return
    this.#snapshot = snapshot
    const wait = this.#writtenAtMs + WRITE_MS_MIN - performance.now()
    if (snapshot.phase !== this.#written?.phase || wait <= 0) this.#write()
    // What is told last is written too, though nothing may be told after it for hours.
    else this.#later ??= setTimeout(() => this.#write(), Math.max(0, wait)).unref()
  }

  async end(): Promise<void> {
    this.#isOver = true
    clearTimeout(this.#later)
    await this.#writing
    remove(this.#file)
  }

  /** Beside the sync: where the runtime directory is on a disk, the rename waits for what others write there. */
  #write(): void {
    clearTimeout(this.#later)
    this.#later = undefined
    if (this.#isOver || this.#writing !== undefined) return
    this.#writing = this.#replace()
      .catch(cannotTell)
      .then(() => {
        this.#writing = undefined
        if (this.#snapshot !== this.#written) this.tell(this.#snapshot)
      })
  }

  async #replace(): Promise<void> {
    await writeFile(partOf(this.#file), this.#record(), RECORD_MODE)
    await rename(partOf(this.#file), this.#file)
  }

  #record(): string {
    this.#writtenAtMs = performance.now()
    this.#written = this.#snapshot
    const { bytesPerSecond, filesPerSecond } = this.#meter.rates(this.#snapshot, this.#writtenAtMs)
    const snapshot = bounded(this.#snapshot)
    const told = { toldAt: new Date().toISOString(), snapshot, bytesPerSecond, filesPerSecond }
    return JSON.stringify({ ...this.#fixed, ...told })
  }
}

/** Without what would make the record larger than its readers take. */
function bounded({ failures, watcher, ...rest }: SyncSnapshot): SyncSnapshot {
  const kept = { ...rest, failures: failures.slice(-FAILURES_KEPT) }
  if (watcher === undefined) return kept
  return { ...kept, watcher: { ...watcher, degraded: watcher.degraded.slice(0, DEGRADED_TOLD) } }
}

let hasComplained = false

function cannotTell(error: unknown): void {
  if (!hasComplained)
    log.warn({ err: error }, 'cannot keep the record that "eider sync status" reads; the sync goes on')
  hasComplained = true
}

/** Where a record is written before it has its name. */
function partOf(file: string): string {
  return `${file}.part`
}

function remove(file: string): void {
  rmSync(file, { force: true })
  rmSync(partOf(file), { force: true })
}

export interface SyncRecords {
  readonly running: readonly SyncRecord[]
  /** Whose process is gone without having removed them. */
  readonly dead: readonly SyncRecord[]
}

/** The records that this user may see: root sees those of all. Those of this user's dead syncs are cleared: they are told once. */
export function takeSyncRecords(): SyncRecords {
  const running: SyncRecord[] = []
  const dead: SyncRecord[] = []
  for (const { path, uid } of recordFolders()) {
    const folder = { path: join(path, SYNCS_NAME), uid }
    for (const { record, file } of syncRecordsIn(folder)) {
      if (isRunning(record.process)) {
        running.push(record)
        continue
      }
      dead.push(record)
      // In the folder of another user root removes nothing: what lies there may be exchanged meanwhile.
      if (uid === process.getuid?.()) remove(file)
    }
  }
  const byStart = (a: SyncRecord, b: SyncRecord): number => a.startedAt.localeCompare(b.startedAt)
  return { running: running.toSorted(byStart), dead: dead.toSorted(byStart) }
}

/** The records in one folder, and their files; none where others may write to it. */
export function syncRecordsIn(folder: RecordFolder): { file: string; record: SyncRecord }[] {
  if (!isAlone(folder)) return []
  return namesIn(folder.path)
    .filter((name) => RECORD_NAME.test(name))
    .flatMap((name) => {
      const file = join(folder.path, name)
      const read = v.safeParse(RecordSchema, readRecordFile(folder, file))
      return read.success && `${read.output.id}.json` === name ? [{ file, record: read.output }] : []
    })
}
