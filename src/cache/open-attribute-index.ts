/**
 * The attribute index on disk: entries by store and path, in an lmdb file that several processes may share. Two generations
 * bound it: notes go to the young one, and what is used of the old one is noted again; when the young one has half of what
 * is allowed, the old one is emptied and they change places. What nobody asked for during a whole generation is so forgotten.
 */
import { hash } from 'node:crypto'
import { join } from 'node:path'

import { assert } from '#base/assert.ts'
import { OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { makeDirectories, whyNotMade } from '#os/make-directories.ts'
import { IMPLICIT_VERSION, type Entry } from '#store/store.ts'

import type { AttributeIndex } from './attribute-index.ts'
import { decodeAttributes, encodeAttributes } from './attribute-record.ts'
import {
  closeLmdbFile,
  type BytesDatabase,
  commitBatch,
  committed,
  type LmdbFile,
  openBytesDatabase,
  openLmdbFile,
  queued,
  removeLmdbFile,
} from './lmdb-file.ts'

export interface AttributeIndexOptions {
  readonly directory: string
  /** Whose entries they are: several stores may share a directory. */
  readonly storeUrl: string
  /** How many entries are kept at most, 5 million where absent: some 1.1 GB. */
  readonly entriesMax?: number
}

const ENTRIES_MAX = 5_000_000
/** A key of lmdb has at most 1,978 bytes; longer paths are asked for each time. */
const PATH_BYTES_MAX = 1900
const STORE_KEY_BYTES = 8
/** So much may be lost when the process ends at once, in time and in entries. */
const COMMIT_MS = 1000
const UNCOMMITTED_MAX = 4096
/** Queued between two turns of the event loop: some 1.5 ms. */
const COMMIT_ENTRIES = 400
const YOUNG = Buffer.from('young')

const log = logger('cache')

/**
 * Opens the index in `directory`, making it where it is missing.
 * @throws OperationError `LOCAL_FAILED` where the directory cannot be used.
 */
export async function openAttributeIndex(options: AttributeIndexOptions): Promise<AttributeIndex> {
  const path = join(options.directory, 'attributes')
  try {
    makeDirectories(options.directory, 0o700)
  } catch (error) {
    const message = `Cannot keep attributes in "${options.directory}": ${whyNotMade(options.directory, error)}`
    throw new OperationError('LOCAL_FAILED', message, { cause: error })
  }
  return openLmdbFile(path, (file) => new StoredAttributeIndex(options, path, file))
}

class StoredAttributeIndex implements AttributeIndex {
  readonly #path: string
  readonly #file: LmdbFile
  readonly #notes: BytesDatabase
  readonly #generationMax: number
  /** Holds the key that is being looked up; begins with the store's part. */
  readonly #key = Buffer.alloc(STORE_KEY_BYTES + PATH_BYTES_MAX)
  #young: BytesDatabase
  #old: BytesDatabase
  /** Not yet committed: records by path, undefined for what is forgotten; and what is just being committed. */
  readonly #news = new Map<string, Buffer | undefined>()
  readonly #committing = new Map<string, Buffer | undefined>()
  #commit: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined
  #youngName = 'a'
  #isBroken = false
  #isClosed = false

  constructor(options: AttributeIndexOptions, path: string, file: LmdbFile) {
    this.#path = path
    this.#file = file
    this.#generationMax = Math.ceil((options.entriesMax ?? ENTRIES_MAX) / 2)
    hash('sha256', options.storeUrl, 'buffer').copy(this.#key, 0, 0, STORE_KEY_BYTES)
    this.#notes = openBytesDatabase(file, 'notes')
    this.#young = openBytesDatabase(file, 'a')
    this.#old = openBytesDatabase(file, 'b')
    if (this.#notes.get(YOUNG)?.toString() === 'b') this.#changePlaces()
  }

  known(listed: Entry): Entry | undefined {
    if (listed.version === IMPLICIT_VERSION) return undefined
    const record = this.#find(listed.path)
    const known = record === undefined ? undefined : decodeAttributes(record, listed)
    return known === undefined ? undefined : { ...listed, ...known }
  }

  note(entry: Entry): void {
    assert(!this.#isClosed, 'an index is used while it is open')
    if (entry.attributes === undefined || entry.version === IMPLICIT_VERSION || this.#isBroken) return
    const record = encodeAttributes(entry, entry.attributes)
    if (record !== undefined && this.#setKey(entry.path) !== undefined) this.#change(entry.path, record)
  }

  forget(path: string): void {
    assert(!this.#isClosed, 'an index is used while it is open')
    if (!this.#isBroken && this.#setKey(path) !== undefined) this.#change(path, undefined)
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    clearTimeout(this.#timer)
    await this.#commit
    await this.#commitNow()
    await closeLmdbFile(this.#file)
  }

  #find(path: string): Buffer | undefined {
    for (const changes of [this.#news, this.#committing]) {
      const record = changes.get(path)
      if (record !== undefined || changes.has(path)) return record
    }
    const key = this.#setKey(path)
    if (key === undefined) return undefined
    const young = this.#guard(() => this.#young.get(key))
    if (young !== undefined) return young
    const old = this.#guard(() => this.#old.get(key))
    if (old !== undefined && !this.#isClosed) this.#change(path, old)
    return old
  }

  /** The key of a path, valid until the next call; undefined where it has none. */
  #setKey(path: string): Buffer | undefined {
    const room = this.#key.length - STORE_KEY_BYTES
    // Each character takes at most three bytes.
    if (path.length * 3 > room && Buffer.byteLength(path) > room) return undefined
    return this.#key.subarray(0, STORE_KEY_BYTES + this.#key.write(path, STORE_KEY_BYTES))
  }

  #change(path: string, record: Buffer | undefined): void {
    this.#news.set(path, record)
    if (this.#news.size >= UNCOMMITTED_MAX) this.#commitSoon(0)
    else this.#commitSoon(COMMIT_MS)
  }

  #commitSoon(ms: number): void {
    if (this.#isClosed || this.#commit !== undefined || (this.#timer !== undefined && ms > 0)) return
    clearTimeout(this.#timer)
    const start = (): void => {
      this.#timer = undefined
      this.#commit = this.#commitNow().finally(() => {
        this.#commit = undefined
        if (this.#news.size > 0) this.#commitSoon(COMMIT_MS)
      })
    }
    if (ms === 0) start()
    else this.#timer = setTimeout(start, ms).unref()
  }

  /** Writes all news, in slices; never rejects: what cannot be written is asked for again. */
  async #commitNow(): Promise<void> {
    try {
      while (this.#news.size > 0 && !this.#isBroken) {
        for (const [path, record] of this.#news) {
          if (this.#committing.size === COMMIT_ENTRIES) break
          this.#committing.set(path, record)
          this.#news.delete(path)
        }
        await this.#renewGenerations()
        await commitBatch(this.#file, () => this.#queue(this.#committing))
        this.#committing.clear()
      }
    } catch (error) {
      // What was to be forgotten may still be there: none of it may be believed.
      log.warn({ err: error, path: this.#path }, 'Cannot note attributes: they are asked for anew')
      this.#breakOff()
    } finally {
      this.#committing.clear()
    }
  }

  #queue(records: ReadonlyMap<string, Buffer | undefined>): void {
    for (const [path, record] of records) {
      const key = this.#setKey(path)
      if (key === undefined) continue
      if (record === undefined) {
        queued(this.#young.remove(key))
        queued(this.#old.remove(key))
      } else queued(this.#young.put(key, record))
    }
  }

  async #renewGenerations(): Promise<void> {
    const { entryCount } = this.#young.getStats() as { entryCount: number }
    if (entryCount < this.#generationMax) return
    await committed(this.#old.clearAsync())
    this.#changePlaces()
    await commitBatch(this.#file, () => queued(this.#notes.put(YOUNG, Buffer.from(this.#youngName))))
  }

  #changePlaces(): void {
    const young = this.#old
    this.#old = this.#young
    this.#young = young
    this.#youngName = this.#youngName === 'a' ? 'b' : 'a'
  }

  #guard<T>(look: () => T): T | undefined {
    if (this.#isBroken) return undefined
    try {
      return look()
    } catch (error) {
      log.warn(
        { err: error, path: this.#path },
        'The index of attributes is damaged: it is begun anew at the next start',
      )
      this.#breakOff()
      return undefined
    }
  }

  #breakOff(): void {
    this.#isBroken = true
    removeLmdbFile(this.#path)
  }
}
