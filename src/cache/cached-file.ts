/**
 * One version in the disk cache: its blocks, its data file, and how they are read, kept and checked. Shared by all who
 * hold the version. Not here: which versions there are, and what is written to the index (disk-cache.ts).
 *
 * - A block is given out only after its checksum held once in this process. Bytes are written before the table says that
 *   they are here, and the table is written to the index after that: what a crash leaves is missing or found corrupt.
 * - Reads of what is in memory answer at once, by preadv2(RWF_NOWAIT); anything else goes to the thread pool, since a disk
 *   may keep it waiting, and the kernel's other requests with it. Measured on two idle cores, in memory, in GB/s: 5.1 by
 *   128 KiB and 5.3 by 1 MiB, where readSync into new buffers has 5.3 and 5.3, and into one buffer 8.9; by the thread pool a
 *   read of 128 KiB costs a multiple. The first read of a block, with its checksum: 1.5.
 * - Whoever reads by the thread pool uses a data file that may be taken away meanwhile, and then written to: what it has
 *   read is given out only if the data file is still this one's.
 */
import { read, write } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { promisify } from 'node:util'

import { logger } from '#base/log.ts'
import { readCached } from '#os/file-range.ts'
import { statusOf } from '#os/status.ts'

import { checksumsOfFile } from './adopting.ts'
import { alignToBlocks, BLOCK_BYTES, blockCount, checksumOf, rangeOfBlocks, type Range } from './blocks.ts'
import { BlockTable } from './block-table.ts'
import type { DataId, FileRecord, IndexKey, Place } from './cache-index.ts'
import type { DataFile, DataFiles } from './data-files.ts'
import type { Room } from './room.ts'

/** What a cached file needs of the cache that it belongs to. */
export interface CacheHost {
  readonly data: DataFiles
  readonly room: Room
  /** Whole files that were checked in this process, by data file. */
  readonly seals: Seals
  storedSums(id: DataId, segment: number): Uint32Array | undefined
  /** Its first bytes are about to be kept. */
  created(file: CachedFile): void
  /** Something that the index has of it has changed. */
  changed(file: CachedFile): void
  /** It has let go of its data file, which stood at that place of the index. */
  lost(file: CachedFile, place: Place | undefined, id: DataId, allocated: number): void
  /** Blocks were found corrupt. */
  corrupt(file: CachedFile, blocks: number, error?: unknown): void
  /** Bytes could not be kept: for want of room, or by an error. */
  notKept(error?: unknown): void
  /** Asks for the whole file to be checked when there is time. */
  checkLater(file: CachedFile): void
}

/** When a whole checked file was changed last; another time tells that somebody has changed it since. */
export type Seal = string
export interface Seals {
  get(id: DataId): Seal | undefined
  set(id: DataId, seal: Seal): void
  delete(id: DataId): void
}

interface Run {
  readonly first: number
  /** Not included. */
  readonly end: number
}

/** A whole file up to this is checked when it is asked for: 1.5 ms for what is in memory. */
const CHECK_HERE_BYTES_MAX = 4 << 20
/** Read at once at most, and checked between two turns of the event loop: 0.3 ms. */
const SLICE_BYTES = 1 << 20
const SLICE_BLOCKS = SLICE_BYTES / BLOCK_BYTES
const EMPTY = Buffer.alloc(0)
const log = logger('cache')
const readAsync = promisify(read)
const writeAsync = promisify(write)

export class CachedFile {
  /** Changes when the file is moved. */
  key: IndexKey
  readonly size: number
  usedAt = 0
  /** Where the index has it. */
  stored: Place | undefined
  /** It is held, and stays in memory, while there are any. */
  holders = 0
  readonly #host: CacheHost
  #id: DataId | undefined
  #allocated = 0
  #table: BlockTable
  #data: DataFile | undefined
  /** Replaced by ones that can be written to; whoever has got them as `backing` may still use them. */
  readonly #retired: DataFile[] = []
  readonly #writing = new Set<number>()

  constructor(host: CacheHost, key: IndexKey, size: number, record?: FileRecord) {
    this.#host = host
    this.key = key
    this.size = size
    this.#table = this.#newTable(record)
    if (record === undefined) return
    this.#id = record.id
    this.#allocated = record.allocated
    this.usedAt = record.usedAt
    this.stored = { key, usedAt: record.usedAt, id: record.id }
    if (this.#table.isComplete && host.seals.get(record.id) !== undefined) this.#table.markAllChecked()
  }

  /** For the index; undefined where nothing of it is here. */
  get record(): FileRecord | undefined {
    if (this.#id === undefined) return undefined
    const { size, usedAt } = this
    return { id: this.#id, size, usedAt, allocated: this.#allocated, present: this.#table.present }
  }
  get isWhole(): boolean {
    return this.#table.blocks > 0 && this.#table.isChecked
  }
  get isComplete(): boolean {
    return this.#table.blocks > 0 && this.#table.isComplete
  }

  /** Its data file was looked at: it takes what the record says. */
  correct({ id, allocated }: FileRecord): void {
    if (id === this.#id) this.#allocated = allocated
  }

  takeChanges(): ReturnType<BlockTable['takeChanges']> {
    return this.#table.takeChanges()
  }

  changeAll(): void {
    this.#table.changeAll()
  }

  read(offset: number, length: number, into?: Buffer): Buffer | undefined | Promise<Buffer | undefined> {
    const end = Math.min(offset + length, this.size)
    if (end <= offset) return EMPTY
    const first = Math.floor(offset / BLOCK_BYTES)
    const last = Math.floor((end - 1) / BLOCK_BYTES)
    if (!this.#table.hasAll(first, last)) return undefined
    const data = this.#open()
    if (data === undefined || !this.#table.hasAll(first, last)) return undefined
    if (this.#table.wereChecked(first, last)) return this.#fill(data, offset, end - offset, into)
    const whole = rangeOfBlocks(first, last + 1, this.size)
    const filled = this.#fill(data, whole.offset, whole.length, into)
    const give = (bytes: Buffer | undefined): Buffer | undefined => {
      if (bytes === undefined || !this.#check(bytes, first, last)) return undefined
      const wanted = bytes.subarray(offset - whole.offset, end - whole.offset)
      // A few bytes must not keep a whole block in memory.
      return bytes.buffer !== into?.buffer && wanted.length < whole.length / 2 ? Buffer.from(wanted) : wanted
    }
    return filled instanceof Promise ? filled.then(give) : give(filled)
  }

  missing(offset: number, length: number): Range | undefined {
    const range = alignToBlocks(offset, length, this.size)
    if (range.length === 0 || this.#table.isComplete) return undefined
    const end = blockCount(range.offset + range.length)
    let first = range.offset / BLOCK_BYTES
    while (first < end && this.#table.has(first)) first++
    if (first === end) return undefined
    let after = first + 1
    while (after < end && !this.#table.has(after)) after++
    return rangeOfBlocks(first, after, this.size)
  }

  async keep(offset: number, bytes: Uint8Array): Promise<void> {
    const runs = this.#claim(offset, bytes.length)
    for (const run of runs) {
      try {
        await this.#keepRun(run, offset, bytes)
      } catch (error) {
        this.#host.notKept(error)
      } finally {
        for (let block = run.first; block < run.end; block++) this.#writing.delete(block)
      }
    }
    // A file of nothing but a failed attempt is not to be remembered.
    if (runs.length > 0 && this.#id !== undefined && this.#table.present === 0 && this.#writing.size === 0) this.#lose()
  }

  backing(): number | undefined {
    if (!this.isComplete) return undefined
    const data = this.#open()
    if (data === undefined || !this.isComplete) return undefined
    if (this.#table.isChecked && this.#host.seals.get(data.id) !== sealOf(data.fd)) this.#table.forgetChecks()
    if (!this.#table.isChecked) {
      if (this.size > CHECK_HERE_BYTES_MAX || !this.#checkHere(data)) this.#host.checkLater(this)
    }
    return this.isWhole ? data.fd : undefined
  }

  /** See `CachedVersion.verify`. */
  async verify(fd: number): Promise<boolean> {
    const id = this.#id
    const sums = await checksumsOfFile(fd, this.size).catch((error: unknown) => {
      log.warn({ err: error }, 'a cached file cannot be read')
      return undefined
    })
    if (this.#id !== id || !this.isComplete) return false
    if (sums?.every((sum, block) => sum === this.#table.sumOf(block)) === true) return true
    // Its own file may be right, and only the copy is not: the next look at it tells.
    this.#table.forgetChecks()
    this.#host.seals.delete(id ?? '')
    return false
  }

  /** Gives the whole checked file away by `give`, and has nothing more. */
  take(give: (data: DataFile) => number): number | undefined {
    if (this.backing() === undefined || this.#data === undefined) return undefined
    const fd = give(this.#data)
    this.#lose()
    return fd
  }

  /** Checks what was not yet, a slice at a time; ends early when the file is let go of, or `isOver`. */
  async checkAll(isOver: () => boolean): Promise<void> {
    const data = this.#open()
    if (data === undefined) return
    data.use()
    try {
      for (let first = 0; first < this.#table.blocks;) {
        if (this.#table.wasChecked(first) || !this.#table.has(first)) {
          first++
          continue
        }
        const end = Math.min(first + SLICE_BLOCKS, this.#table.blocks)
        const range = rangeOfBlocks(first, end, this.size)
        const bytes = await this.#readRest(data, Buffer.allocUnsafe(range.length), range.offset, 0)
        if (isOver() || this.#data !== data) return
        if (bytes !== undefined) this.#check(bytes, first, end - 1)
        first = end
      }
    } finally {
      data.done()
    }
  }

  /** Takes a complete data file, with these checksums, for its own in place of what it has. */
  adopt(data: DataFile, sums: Uint32Array, allocated: number): void {
    if (this.#id !== undefined) this.#lose()
    this.#id = data.id
    this.#data = data
    this.#host.created(this)
    for (const [block, sum] of sums.entries()) this.#table.put(block, sum)
    this.#seal(data)
    this.#account(allocated)
    if (this.holders === 0) this.close()
  }

  /** Lets go of its data file for good: nothing is here any more. */
  #lose(): void {
    const id = this.#id
    if (id === undefined) return
    this.#host.seals.delete(id)
    this.close()
    this.#id = undefined
    const place = this.stored
    this.stored = undefined
    const allocated = this.#allocated
    this.#allocated = 0
    this.#table = this.#newTable(undefined)
    this.#host.lost(this, place, id, allocated)
  }

  /** Closes what is open, for nobody holds it. */
  close(): void {
    // What was written may have taken its room, and some more for the list of its places, only since.
    if (this.#data?.isWritable === true) {
      const { allocated } = statusOf(this.#data.fd)
      if (allocated !== this.#allocated) this.#account(allocated)
    }
    for (const data of this.#retired.splice(0)) data.done()
    this.#data?.done()
    this.#data = undefined
  }

  #newTable(record: FileRecord | undefined): BlockTable {
    const load = (segment: number): Uint32Array | undefined =>
      record === undefined ? undefined : this.#host.storedSums(record.id, segment)
    return new BlockTable(blockCount(this.size), record?.present ?? 0, load)
  }

  #open(): DataFile | undefined {
    if (this.#data !== undefined || this.#id === undefined) return this.#data
    try {
      const data = this.#host.data.open(this.#id, !this.#table.isComplete)
      this.#data = data
      if (statusOf(data.fd).size !== this.size) {
        this.#host.corrupt(this, this.#table.present)
        this.#lose()
      } else if (this.#table.isChecked && this.#host.seals.get(data.id) !== sealOf(data.fd)) {
        this.#table.forgetChecks()
      }
    } catch (error) {
      // Only what is gone for sure is given up: there may be too many open files.
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') this.#lose()
      else this.#host.notKept(error)
    }
    return this.#data
  }

  #openForWriting(): DataFile {
    if (this.#data?.isWritable === true) return this.#data
    if (this.#id === undefined) {
      const data = this.#host.data.create(this.size)
      this.#id = data.id
      this.#data = data
      this.#host.created(this)
      return data
    }
    const data = this.#host.data.open(this.#id, true)
    if (this.#data !== undefined) this.#retired.push(this.#data)
    this.#data = data
    return data
  }

  /** A buffer filled from the data file: at once where the bytes are in memory, and then `into` where it is large enough. */
  #fill(
    data: DataFile,
    offset: number,
    length: number,
    into?: Buffer,
  ): Buffer | undefined | Promise<Buffer | undefined> {
    const lent = into !== undefined && into.length >= length
    const buffer = lent ? into.subarray(0, length) : Buffer.allocUnsafe(length)
    const got = length <= SLICE_BYTES + 2 * BLOCK_BYTES ? readCached(data.fd, buffer, offset) : 0
    if (got === length) return buffer
    return this.#readRest(data, lent ? Buffer.allocUnsafe(length) : buffer, offset, lent ? 0 : got)
  }

  async #readRest(data: DataFile, buffer: Buffer, offset: number, from: number): Promise<Buffer | undefined> {
    let done = from
    data.use()
    try {
      while (done < buffer.length) {
        const { bytesRead } = await readAsync(data.fd, buffer, done, buffer.length - done, offset + done)
        if (bytesRead === 0) throw new Error(`the data file ends at ${offset + done} bytes`)
        done += bytesRead
      }
    } catch (error) {
      if (this.#data === data) this.#dropBlocks(offset + done, error)
      return undefined
    } finally {
      data.done()
    }
    return this.#data === data ? buffer : undefined
  }

  /** What cannot be read there is dropped: the block, which is fetched and written anew. */
  #dropBlocks(offset: number, error: unknown): void {
    this.#host.corrupt(this, 1, error)
    this.#host.seals.delete(this.#id ?? '')
    this.#table.drop(Math.floor(offset / BLOCK_BYTES))
    this.#host.changed(this)
  }

  /** Whether all of the blocks, which are `bytes`, are as they were kept; those that are not are dropped. */
  #check(bytes: Buffer, first: number, last: number): boolean {
    const wasChecked = this.#table.isChecked
    let bad = 0
    for (let block = first; block <= last; block++) {
      if (this.#table.wasChecked(block)) continue
      const at = (block - first) * BLOCK_BYTES
      if (checksumOf(bytes.subarray(at, at + BLOCK_BYTES)) === this.#table.sumOf(block)) {
        this.#table.markChecked(block)
      } else if (this.#table.has(block)) {
        bad++
        this.#table.drop(block)
      }
    }
    if (bad > 0) {
      this.#host.corrupt(this, bad)
      this.#host.changed(this)
    } else if (!wasChecked && this.#table.isChecked && this.#data !== undefined) this.#seal(this.#data)
    return bad === 0 && this.#table.hasAll(first, last)
  }

  /** Checks the whole file now; false where not all of it is in memory. */
  #checkHere(data: DataFile): boolean {
    for (let first = 0; first < this.#table.blocks; first += SLICE_BLOCKS) {
      const end = Math.min(first + SLICE_BLOCKS, this.#table.blocks)
      const range = rangeOfBlocks(first, end, this.size)
      const buffer = Buffer.allocUnsafe(range.length)
      if (readCached(data.fd, buffer, range.offset) !== range.length) return false
      this.#check(buffer, first, end - 1)
    }
    return true
  }

  #seal(data: DataFile): void {
    this.#host.seals.set(data.id, sealOf(data.fd))
  }

  /** The blocks of a range that are whole in it, not here, and not being written; they are being written from now on. */
  #claim(offset: number, length: number): readonly Run[] {
    const from = Math.ceil(offset / BLOCK_BYTES)
    const end = offset + length >= this.size ? this.#table.blocks : Math.floor((offset + length) / BLOCK_BYTES)
    const runs: Run[] = []
    let first = -1
    for (let block = from; block <= end; block++) {
      const wanted = block < end && !this.#table.has(block) && !this.#writing.has(block)
      if (wanted) {
        this.#writing.add(block)
        if (first === -1) first = block
      } else if (first !== -1) {
        runs.push({ first, end: block })
        first = -1
      }
    }
    return runs
  }

  async #keepRun({ first, end }: Run, offset: number, bytes: Uint8Array): Promise<void> {
    const range = rangeOfBlocks(first, end, this.size)
    const { room } = this.#host
    if (!(await room.reserve(range.length))) {
      this.#host.notKept()
      return
    }
    let data: DataFile | undefined
    try {
      const chunk = bytes.subarray(range.offset - offset, range.offset - offset + range.length)
      const sums = await checksumsOf(chunk)
      // A whole file may have been adopted meanwhile, and then been taken: no byte may be written to it any more.
      if (this.#table.has(first)) return
      data = this.#openForWriting()
      data.use()
      let done = 0
      while (done < chunk.length) {
        if (this.#id !== data.id) return
        const { bytesWritten } = await writeAsync(data.fd, chunk, done, chunk.length - done, range.offset + done)
        done += bytesWritten
      }
      if (this.#id === data.id) for (const [index, sum] of sums.entries()) this.#table.put(first + index, sum)
      if (this.#id === data.id && this.#table.isChecked) this.#seal(data)
    } finally {
      // What a failed write has left takes room too.
      if (data !== undefined && this.#id === data.id) this.#account(statusOf(data.fd).allocated)
      data?.done()
      room.settle(range.length)
    }
  }

  #account(allocated: number): void {
    this.#host.room.add(allocated - this.#allocated)
    this.#allocated = allocated
    this.#host.changed(this)
  }
}

/** The checksums of the blocks of `bytes`; others get their turn between two slices. */
async function checksumsOf(bytes: Uint8Array): Promise<number[]> {
  const sums: number[] = []
  for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
    if (at > 0 && at % (2 * SLICE_BYTES) === 0) await setImmediate()
    sums.push(checksumOf(bytes.subarray(at, at + BLOCK_BYTES)))
  }
  return sums
}

function sealOf(fd: number): Seal {
  const { mtime, ctime, size } = statusOf(fd)
  return `${mtime.seconds}.${mtime.nanoseconds} ${ctime.seconds}.${ctime.nanoseconds} ${size}`
}
