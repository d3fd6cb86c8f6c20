/**
 * What a sync remembers between its runs, in one lmdb file: of each entry that it made equal what it was then (`known`), what
 * it still means to do (`intents`), and which roots it has worked with (`facts`). All of it can be found out again, dearly: a
 * file that is damaged is begun anew, and the next comparison asks the target for more.
 *
 * Writes are gathered and committed together, some twenty times a second; `flushed` waits for those so far. Reads see them at
 * once. After SIGKILL the last of them may be missing: then an entry is compared, or sent, once more.
 */
import { createHash } from 'node:crypto'
import { join } from 'node:path'

import { assert } from '#base/assert.ts'
import { OperationError } from '#base/errors.ts'
import {
  type BytesDatabase,
  closeLmdbFile,
  commitBatch,
  type LmdbFile,
  openBytesDatabase,
  openLmdbFile,
  queued,
  removeLmdbFile,
} from '#cache/lmdb-file.ts'
import { makeDirectories } from '#os/make-directories.ts'
import { compareUtf8, parentOf } from '#store/path.ts'
import type { Slice } from '#store/directory/listing.ts'

import { decodeKnown, encodeKnown, entryOfKnown, type Known } from './state-record.ts'
import type { TreeEntry } from './tree.ts'

const FILE = 'state.lmdb'
const FLUSH_MS = 50
/** Committed at once when there are so many: what is gathered stays small. */
const FLUSH_WRITES = 2000
const PAGE_ENTRIES = 1000
/** Of what may be there or not: nothing that is there has it. */
export const NO_SIZE = -1
const SLASH = 0x2f
/** The first byte of a value that begins with its path. No format of records has this number. */
const LONG = 0xff
/** lmdb's own bound is 1,978 bytes with pages of 4 KiB. A longer path is kept by its beginning and its hash. */
const KEY_BYTES_MAX = 1900

/** What is still to be done about one path. */
export interface Intent {
  readonly path: string
  /** Milliseconds since the epoch. */
  readonly since: number
  /** Why it was not done yet, where it was tried. */
  readonly failure?: string
}

export class SyncState {
  readonly directory: string
  readonly #file: LmdbFile
  readonly #known: BytesDatabase
  readonly #intents: BytesDatabase
  readonly #facts: BytesDatabase
  /** Not yet committed, by database and key; null removes. */
  #pending = new Map<string, Buffer | null>()
  #pendingIntents = new Map<string, Buffer | null>()
  #committing: Promise<void> = Promise.resolve()
  #underWay = new Map<string, Buffer | null>()
  #timer: NodeJS.Timeout | undefined
  #failure: Error | undefined
  readonly #doubted = new Set<string>()
  readonly #written = new Set<string>()

  private constructor(directory: string, file: LmdbFile) {
    this.directory = directory
    this.#file = file
    this.#known = openBytesDatabase(file, 'known')
    this.#intents = openBytesDatabase(file, 'intents')
    this.#facts = openBytesDatabase(file, 'facts')
  }

  /** Opens or makes the state in `directory`. @throws OperationError `LOCAL_FAILED` */
  static async open(directory: string): Promise<SyncState> {
    makeDirectories(directory, 0o700)
    return openLmdbFile(join(directory, FILE), (file) => new SyncState(directory, file))
  }

  /** Of the entry with this sort key. */
  known(key: string): Known | undefined {
    const pending = this.#pending.get(key) ?? (this.#pending.has(key) ? null : this.#underWay.get(key))
    if (pending === null) return undefined
    const value = pending ?? this.#sound(() => this.#known.get(keyOf(key)))
    return value === undefined ? undefined : recordIn(value).known
  }

  remember(key: string, known: Known): void {
    this.#doubted.delete(key)
    const record = encodeKnown(known)
    this.#write(this.#pending, key, record === undefined ? null : valueOf(key, record))
  }

  /**
   * The directories above a path, which a target makes for it. `NO_SIZE` where they are there by what lies in them alone, and
   * go with it. Gives how many were not known before.
   */
  rememberAbove(path: string, lookedAt: Known['lookedAt'], size = 0): number {
    let count = 0
    for (let above = parentOf(path); above !== ''; above = parentOf(above)) {
      if (this.known(`${above}/`) !== undefined) break
      // Without its identity: nothing was done about its attributes.
      this.remember(`${above}/`, { kind: 'directory', size, mtime: lookedAt, lookedAt })
      count++
    }
    return count
  }

  forget(key: string): void {
    this.#doubted.delete(key)
    this.#write(this.#pending, key, null)
  }

  /**
   * All that is known under the directory `under` (all for the empty path, else the directory itself, too), as a listing of the
   * target. What is written meanwhile may be in it or not.
   */
  async *listing(under: string, slice: Slice): AsyncGenerator<readonly TreeEntry[], void, undefined> {
    await this.flushed()
    let page: TreeEntry[] = []
    for (const { key, known } of this.#range(under)) {
      page.push(entryOfKnown(key.endsWith('/') ? key.slice(0, -1) : key, known))
      if (page.length < PAGE_ENTRIES) continue
      yield page
      page = []
      if (slice.over()) await slice.next()
    }
    if (page.length > 0) yield page
  }

  /** What is known under the directory `from` may be under `to` as well: remembered there as equal to nothing. */
  async doubtAll(from: string, to: string): Promise<void> {
    await this.flushed()
    for (const { key, known } of [...this.#range(from)]) {
      const copy = to + key.slice(from.length)
      if (this.known(copy) !== undefined) continue
      const { kind, mtime, lookedAt } = known
      this.remember(copy, { kind, size: NO_SIZE, mtime, lookedAt })
    }
  }

  /** How many entries are known at the path, or under it. */
  countAt(path: string): number {
    let count = this.known(path) === undefined ? 0 : 1
    for (const _ of this.#range(path)) count++
    return count
  }

  /** A device, not one of those, that something known under the directory was on; undefined where there is none. */
  otherDeviceUnder(under: string, devices: ReadonlySet<number>): number | undefined {
    for (const { known } of this.#range(under)) {
      const device = known.identity?.device
      if (device !== undefined && !devices.has(device)) return device
    }
    return undefined
  }

  /** Whether anything is known under the directory `under`. */
  holdsUnder(under: string): boolean {
    const prefix = `${under}/`
    const removed = new Set<string>()
    for (const [key, value] of new Map([...this.#underWay, ...this.#pending])) {
      if (!key.startsWith(prefix)) continue
      if (value !== null) return true
      removed.add(key)
    }
    for (const { key } of this.#range(under)) if (!removed.has(key)) return true
    return false
  }

  /** Of the directory `under` and all that lies in it. */
  forgetUnder(under: string): void {
    const prefix = `${under}/`
    const pending = [...this.#underWay.keys(), ...this.#pending.keys()].filter((key) => key.startsWith(prefix))
    for (const key of pending) this.forget(key)
    for (const { key } of [...this.#range(under)]) this.forget(key)
  }

  /** Whether somebody had the file open for writing when its bytes were read: they may be others by now, under the same times. */
  written(path: string, isWritten: boolean): void {
    if (isWritten) this.#written.add(path)
    else this.#written.delete(path)
  }

  get holdsWritten(): boolean {
    return this.#written.size > 0
  }

  /** Something of a path may be in the target though it is not known, until more is: in memory alone. */
  doubt(path: string): void {
    this.#doubted.add(path)
  }

  isDoubted(path: string): boolean {
    return this.#doubted.has(path)
  }

  /** Gives all that is known of the directory `from`, and under it, to `to`. */
  async moveKnown(from: string, to: string, each: (key: string, known: Known) => Known): Promise<void> {
    // A comparison may remember something under it meanwhile: what is moved is what is committed.
    do await this.flushed()
    while (this.#pending.size > 0 || this.#underWay.size > 0)
    for (const { key, known } of [...this.#range(from)]) {
      this.forget(key)
      const moved = to + key.slice(from.length)
      this.remember(moved, each(moved, known))
    }
  }

  /** In order of sort keys. */
  *#range(under: string): Generator<{ readonly key: string; readonly known: Known }, void, undefined> {
    const prefix = under === '' ? '' : `${under}/`
    const start = Buffer.from(prefix === '' ? '\0' : prefix).subarray(0, KEY_BYTES_MAX)
    /** Long ones that begin alike lie in the order of their hashes. */
    let long: { readonly key: string; readonly known: Known }[] = []
    let common: Buffer | undefined
    for (const { key, value } of this.#eachSound(() => this.#known.getRange({ start }))) {
      if (prefix !== '' && !key.subarray(0, start.length).equals(start)) break
      // The root is no entry.
      if (key[0] === SLASH) continue
      if (common !== undefined && !key.subarray(0, KEY_BYTES_MAX).equals(common)) {
        yield* long.sort((a, b) => compareUtf8(a.key, b.key))
        long = []
        common = undefined
      }
      const { path = key.toString(), known } = recordIn(value)
      if (known === undefined || !path.startsWith(prefix)) continue
      if (key.length <= KEY_BYTES_MAX) yield { key: path, known }
      else {
        common = Buffer.from(key.subarray(0, KEY_BYTES_MAX))
        long.push({ key: path, known })
      }
    }
    yield* long.sort((a, b) => compareUtf8(a.key, b.key))
  }

  intend(intent: Intent): void {
    this.#write(this.#pendingIntents, intent.path, Buffer.from(JSON.stringify(intent)))
  }

  fulfilled(path: string): void {
    this.#write(this.#pendingIntents, path, null)
  }

  /** What an earlier run meant to do, and did not come to. */
  intents(): Intent[] {
    const found: Intent[] = []
    for (const { value } of this.#eachSound(() => this.#intents.getRange({})))
      found.push(JSON.parse(value.toString()) as Intent)
    return found
  }

  fact(name: string): string | undefined {
    return this.#sound(() => this.#facts.get(Buffer.from(name)))?.toString()
  }

  /** Committed when it resolves. */
  async setFact(name: string, value: string): Promise<void> {
    await commitBatch(this.#file, () => queued(this.#facts.put(Buffer.from(name), Buffer.from(value))))
  }

  /** Resolves when all that was written so far is committed. @throws OperationError `LOCAL_FAILED` */
  async flushed(): Promise<void> {
    this.#flush()
    await this.#committing
    this.#checkWritten()
  }

  async close(): Promise<void> {
    try {
      await this.flushed()
    } finally {
      await closeLmdbFile(this.#file)
    }
  }

  *#eachSound<T>(read: () => Iterable<T>): Generator<T, void, undefined> {
    const iterator = this.#sound(() => read()[Symbol.iterator]())
    try {
      for (;;) {
        const next = this.#sound(() => iterator.next())
        if (next.done === true) return
        yield next.value
      }
    } finally {
      // Its cursor is lmdb's to close.
      iterator.return?.()
    }
  }

  /** lmdb finds damage when it comes to it: then the file is taken away, and the next run begins anew. */
  #sound<T>(read: () => T): T {
    try {
      return read()
    } catch (error) {
      removeLmdbFile(join(this.directory, FILE))
      throw new OperationError('LOCAL_FAILED', `Cannot read the state in "${this.directory}": it is damaged`, {
        cause: error,
        hint: 'The damaged file was taken away: start the sync again, and it compares all anew.',
      })
    }
  }

  #write(pending: Map<string, Buffer | null>, key: string, value: Buffer | null): void {
    this.#checkWritten()
    pending.set(key, value)
    if (this.#pending.size + this.#pendingIntents.size >= FLUSH_WRITES) this.#flush()
    else this.#timer ??= setTimeout(() => this.#flush(), FLUSH_MS)
  }

  /** One batch after another: a later write of a key must not be committed before an earlier one. */
  #flush(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#pending.size === 0 && this.#pendingIntents.size === 0) return
    const known = this.#pending
    const intents = this.#pendingIntents
    const before = this.#committing
    const merged = this.#underWay.size === 0 ? known : new Map([...this.#underWay, ...known])
    this.#underWay = merged
    this.#pending = new Map()
    this.#pendingIntents = new Map()
    this.#committing = before
      .then(() =>
        commitBatch(this.#file, () => {
          for (const [key, value] of known) put(this.#known, key, value)
          for (const [key, value] of intents) put(this.#intents, key, value)
        }),
      )
      .catch((error: unknown) => {
        this.#failure ??= error instanceof Error ? error : new Error(String(error))
      })
      .then(() => {
        if (this.#underWay === merged) this.#underWay = new Map()
      })
  }

  #checkWritten(): void {
    if (this.#failure !== undefined) throw this.#failure
  }
}

function put(database: BytesDatabase, key: string, value: Buffer | null): void {
  queued(value === null ? database.remove(keyOf(key)) : database.put(keyOf(key), value))
}

/** What the database holds under a key: of a long one the path, too, which its key does not tell. */
function valueOf(path: string, record: Buffer): Buffer {
  const bytes = Buffer.from(path)
  if (bytes.length <= KEY_BYTES_MAX) return record
  const head = Buffer.from([LONG, bytes.length >> 8, bytes.length & 0xff])
  return Buffer.concat([head, bytes, record])
}

function recordIn(value: Buffer): { readonly path?: string; readonly known: Known | undefined } {
  if (value[0] !== LONG || value.length < 3) return { known: decodeKnown(value) }
  const end = 3 + value.readUInt16BE(1)
  return { path: value.toString('utf8', 3, end), known: decodeKnown(value.subarray(end)) }
}

function keyOf(path: string): Buffer {
  assert(path !== '', 'the root itself is not kept')
  const bytes = Buffer.from(path)
  if (bytes.length <= KEY_BYTES_MAX) return bytes
  return Buffer.concat([bytes.subarray(0, KEY_BYTES_MAX), createHash('sha256').update(bytes).digest()])
}
