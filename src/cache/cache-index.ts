/**
 * The index of the disk cache: which versions have which data file, the checksums of their blocks, and the order of their
 * last use. Not here: what of it is in memory and not yet written (disk-cache.ts).
 *
 * Four databases in one file; docs/formats/cache.md has the encodings. All changes of one batch are committed at once, so
 * that each file has its record, its place in the order, and the checksums of its blocks. Every read may find damage:
 * then the index gives nothing more, and removes its file, so that the next opening begins anew.
 */
import { hash } from 'node:crypto'
import { readFileSync } from 'node:fs'

import { logger } from '#base/log.ts'

import type { CacheKey } from './file-cache.ts'
import {
  closeLmdbFile,
  type BytesDatabase,
  commitBatch,
  type LmdbFile,
  openBytesDatabase,
  openLmdbFile,
  queued,
  removeLmdbFile,
} from './lmdb-file.ts'

/** Names a version of a path of a store: 32 bytes, as characters below 256; the first 16 name the path. */
export type IndexKey = string
/** Names a data file: 16 hexadecimal digits, never used twice. */
export type DataId = string

/** What the index holds of a version, but for its checksums. */
export interface FileRecord {
  readonly id: DataId
  readonly size: number
  /** When it was used last: milliseconds since the epoch, no two alike; 0 where something newer has taken its place. */
  readonly usedAt: number
  /** Of the disk. */
  readonly allocated: number
  /** How many of its blocks are here. */
  readonly present: number
}

/** The last totals, as they were at a clean end. */
export interface Totals {
  readonly files: number
  readonly bytes: number
}

/** Where a version stands in the index: its record is under `key`, its place in the order by `usedAt` and `id`. */
export interface Place {
  readonly key: IndexKey
  readonly usedAt: number
  readonly id: DataId
}

const RECORD_FORMAT = 1
const RECORD_BYTES = 31
const PATH_KEY_BYTES = 16
/** Checksums of so many blocks are one value, which then fits a page of lmdb: 126 MiB of a file. */
export const SEGMENT_BLOCKS = 1008
const TOTALS = Buffer.from('totals')

const log = logger('cache')

/** The key of a version in the index of a store. */
export function indexKeyOf(storeUrl: string, { path, version, size }: CacheKey): IndexKey {
  return (
    hash('sha256', `${storeUrl}\0${path}`, 'binary').slice(0, PATH_KEY_BYTES) +
    hash('sha256', `${version}\0${size}`, 'binary').slice(0, PATH_KEY_BYTES)
  )
}

/** The part of a key that all versions of a path have in common. */
export function pathPartOf(key: IndexKey): string {
  return key.slice(0, PATH_KEY_BYTES)
}

export class CacheIndex {
  readonly #path: string
  readonly #file: LmdbFile
  readonly #records: BytesDatabase
  readonly #sums: BytesDatabase
  readonly #order: BytesDatabase
  readonly #notes: BytesDatabase
  #isBroken = false

  private constructor(path: string, file: LmdbFile) {
    this.#path = path
    this.#file = file
    this.#records = openBytesDatabase(file, 'records')
    this.#sums = openBytesDatabase(file, 'sums')
    this.#order = openBytesDatabase(file, 'order')
    this.#notes = openBytesDatabase(file, 'notes')
  }

  static open(path: string): Promise<CacheIndex> {
    return openLmdbFile(path, (file) => new CacheIndex(path, file))
  }

  /** Damage was found: it gives and takes nothing more. */
  get isBroken(): boolean {
    return this.#isBroken
  }

  find(key: IndexKey): FileRecord | undefined {
    return this.#guard(undefined, () => {
      const value = this.#records.get(keyBytes(key))
      return value === undefined ? undefined : decodeRecord(value)
    })
  }

  /** The other versions of the path of `key`. */
  otherVersions(key: IndexKey): readonly IndexKey[] {
    return this.#guard([], () => {
      const start = Buffer.alloc(keyBytes(key).length)
      keyBytes(key).copy(start, 0, 0, PATH_KEY_BYTES)
      const found: IndexKey[] = []
      for (const other of this.#records.getKeys({ start })) {
        const name = other.toString('latin1')
        if (pathPartOf(name) !== pathPartOf(key)) break
        if (name !== key) found.push(name)
      }
      return found
    })
  }

  /** The checksums of segment `index`, to be changed as the caller likes; undefined where none of its blocks is here. */
  sums(id: DataId, index: number): Uint32Array | undefined {
    return this.#guard(undefined, () => {
      const value = this.#sums.get(sumsKey(id, index))
      if (value === undefined || value.length % 4 !== 0) return undefined
      const sums = new Uint32Array(value.length / 4)
      Buffer.from(sums.buffer).set(value)
      return sums
    })
  }

  /** Whether some version has that data file. */
  hasData(id: DataId): boolean {
    return this.#guard(true, () => this.#sums.doesExist(sumsKey(id, 0)))
  }

  /** The next places in the order of last use, after `after`; at most `count`. */
  leastRecent(after: Place | undefined, count: number): readonly Place[] {
    return this.#guard([], () => {
      const places: Place[] = []
      const start = after === undefined ? Buffer.alloc(14) : orderKey(after)
      for (const { key, value } of this.#order.getRange({ start, limit: count + 1 })) {
        const place = { key: value.toString('latin1'), usedAt: key.readUIntBE(0, 6), id: key.toString('hex', 6) }
        if (place.id !== after?.id) places.push(place)
      }
      return places.slice(0, count)
    })
  }

  /** The next records in the order of keys, after `after`; at most `count`. */
  recordsAfter(after: IndexKey | undefined, count: number): readonly (readonly [IndexKey, FileRecord | undefined])[] {
    return this.#guard([], () => {
      const found: (readonly [IndexKey, FileRecord | undefined])[] = []
      const start = after === undefined ? Buffer.alloc(1) : keyBytes(after)
      for (const { key, value } of this.#records.getRange({ start, limit: count + 1 })) {
        const name = key.toString('latin1')
        if (name !== after) found.push([name, decodeRecord(value)])
      }
      return found.slice(0, count)
    })
  }

  /** Queues what `changes` does by the methods below, to be committed as one; resolves when it is. */
  async commit(changes: () => void): Promise<void> {
    if (this.#isBroken) return
    await commitBatch(this.#file, changes)
  }

  /** Within a commit: a version's record and its place in the order; `before` is where it stood. */
  place(key: IndexKey, record: FileRecord, before: Place | undefined): void {
    if (before !== undefined) {
      if (before.key !== key) queued(this.#records.remove(keyBytes(before.key)))
      if (before.usedAt !== record.usedAt) queued(this.#order.remove(orderKey(before)))
    }
    queued(this.#records.put(keyBytes(key), encodeRecord(record)))
    if (before?.usedAt !== record.usedAt || before.key !== key) {
      queued(this.#order.put(orderKey({ key, usedAt: record.usedAt, id: record.id }), Buffer.from(key, 'latin1')))
    }
  }

  /** Within a commit: the checksums of a segment. */
  placeSums(id: DataId, index: number, sums: Uint32Array): void {
    queued(this.#sums.put(sumsKey(id, index), Buffer.from(sums.slice().buffer)))
  }

  /** Within a commit: removes a version, whose file has that many segments. */
  remove(place: Place, segments: number): void {
    queued(this.#records.remove(keyBytes(place.key)))
    queued(this.#order.remove(orderKey(place)))
    for (let index = 0; index < segments; index++) queued(this.#sums.remove(sumsKey(place.id, index)))
  }

  /** Within a commit: removes what stands at a place of the order alone. */
  removePlace(place: Place): void {
    queued(this.#order.remove(orderKey(place)))
  }

  /**
   * The totals of the last clean end; undefined where the end was not clean, or the machine was started since: what was
   * committed last may have been lost with that.
   */
  totals(): Totals | undefined {
    return this.#guard(undefined, () => {
      const value = this.#notes.get(TOTALS)
      if (value === undefined || value.toString('latin1', 12) !== bootId()) return undefined
      return { files: value.readUIntBE(0, 6), bytes: value.readUIntBE(6, 6) }
    })
  }

  /** Notes the totals of a clean end, or, with undefined, that the end is to come. */
  async noteTotals(totals: Totals | undefined): Promise<void> {
    const value = Buffer.from(`${' '.repeat(12)}${bootId()}`)
    value.writeUIntBE(totals?.files ?? 0, 0, 6)
    value.writeUIntBE(totals?.bytes ?? 0, 6, 6)
    await this.commit(() => {
      if (totals === undefined) queued(this.#notes.remove(TOTALS))
      else queued(this.#notes.put(TOTALS, value))
    })
  }

  async close(): Promise<void> {
    await closeLmdbFile(this.#file)
  }

  #guard<T>(otherwise: T, look: () => T): T {
    if (this.#isBroken) return otherwise
    try {
      return look()
    } catch (error) {
      this.#isBroken = true
      log.error(
        { err: error, path: this.#path },
        'The index of the cache is damaged: nothing is cached until the next start',
      )
      removeLmdbFile(this.#path)
      return otherwise
    }
  }
}

/** Another one after each start of the machine. */
function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()
}

/** lmdb copies a key during the call, so one buffer of each length serves all; it keeps a value until it is committed. */
const KEY = Buffer.alloc(2 * PATH_KEY_BYTES)
function keyBytes(key: IndexKey): Buffer {
  KEY.write(key, 0, 'latin1')
  return KEY
}

const SUMS_KEY = Buffer.alloc(12)
function sumsKey(id: DataId, index: number): Buffer {
  SUMS_KEY.write(id, 0, 'hex')
  SUMS_KEY.writeUInt32BE(index, 8)
  return SUMS_KEY
}

const ORDER_KEY = Buffer.alloc(14)
function orderKey(place: Place): Buffer {
  ORDER_KEY.writeUIntBE(place.usedAt, 0, 6)
  ORDER_KEY.write(place.id, 6, 'hex')
  return ORDER_KEY
}

function encodeRecord(record: FileRecord): Buffer {
  const value = Buffer.allocUnsafe(RECORD_BYTES)
  value[0] = RECORD_FORMAT
  value.write(record.id, 1, 'hex')
  value.writeUIntBE(record.size, 9, 6)
  value.writeUIntBE(record.usedAt, 15, 6)
  value.writeUIntBE(record.allocated, 21, 6)
  value.writeUInt32BE(record.present, 27)
  return value
}

/** Undefined for what another version of the program wrote. */
function decodeRecord(value: Buffer): FileRecord | undefined {
  if (value.length !== RECORD_BYTES || value[0] !== RECORD_FORMAT) return undefined
  return {
    id: value.toString('hex', 1, 9),
    size: value.readUIntBE(9, 6),
    usedAt: value.readUIntBE(15, 6),
    allocated: value.readUIntBE(21, 6),
    present: value.readUInt32BE(27),
  }
}
