/**
 * What each running `eider sync` tells of itself to `eider sync status`: a file of JSON in the user's runtime directory, replaced
 * whole, at most once a second and at each change of phase, and removed at an orderly end. A record without its process is of a
 * sync that was killed; it is told of once and cleared, or replaced when the sync with its state directory starts again.
 *
 * A record that cannot be written does not stop a sync: the log says so once.
 */
import { randomBytes } from 'node:crypto'
import { renameSync, rmSync, writeFileSync } from 'node:fs'
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
  end(): void
}

/** Keeps the record of this process's sync until its end. */
export function keepSyncRecord(facts: SyncFacts, snapshot: SyncSnapshot): KeptRecord {
  try {
    return new RecordKeeper(syncsDirectory(), facts, snapshot)
  } catch (error) {
    cannotTell(error)
    return { tell: () => {}, end: () => {} }
  }
}

class RecordKeeper implements KeptRecord {
  readonly #file: string
  readonly #fixed: Omit<SyncRecord, 'toldAt' | 'snapshot' | 'bytesPerSecond' | 'filesPerSecond'>
  readonly #meter = new RateMeter()
  #snapshot: SyncSnapshot
  #phaseWritten: SyncSnapshot['phase'] | undefined
  #writtenAtMs = Number.NEGATIVE_INFINITY
  #later: NodeJS.Timeout | undefined
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
    this.#write()
  }

  tell(snapshot: SyncSnapshot): void {
    if (this.#isOver) return
    this.#snapshot = snapshot
    const wait = this.#writtenAtMs + WRITE_MS_MIN - performance.now()
    if (snapshot.phase !== this.#phaseWritten || wait <= 0) this.#write()
    // What is told last is written too, though nothing may be told after it for hours.
    else this.#later ??= setTimeout(() => this.#write(), wait).unref()
  }

  end(): void {
    this.#isOver = true
    clearTimeout(this.#later)
    remove(this.#file)
  }

  #write(): void {
    clearTimeout(this.#later)
    this.#later = undefined
    this.#writtenAtMs = performance.now()
    this.#phaseWritten = this.#snapshot.phase
    const { bytesPerSecond, filesPerSecond } = this.#meter.rates(this.#snapshot, this.#writtenAtMs)
    const snapshot = bounded(this.#snapshot)
    const told = { toldAt: new Date().toISOString(), snapshot, bytesPerSecond, filesPerSecond }
    try {
      writeFileSync(partOf(this.#file), JSON.stringify({ ...this.#fixed, ...told }), { mode: 0o600 })
      renameSync(partOf(this.#file), this.#file)
    } catch (error) {
      cannotTell(error)
    }
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
