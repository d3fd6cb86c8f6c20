/**
 * A staged file: what programs write into one inode, on local disk until it is in the store. It lies over the bytes of a
 * stored version, its *base*: of those, some are here and some (of a large file that is edited: nearly all) are not.
 *
 *     0            baseEnd        size
 *     |---- of the base ----|---- zeros or written ----|
 *       here, missing or written
 *
 * Invariants: a byte that is missing is the base's, at its place there. A byte before `baseEnd` that was not written since
 * the base was stored is the base's, whether it is here or not. So `missing` lies before `baseEnd`, apart from `dirty`, and
 * what was cut off never comes back: a file that is cut and made longer again has zeros there, which are dirty.
 *
 * Writes and reads are synchronous: they go to the page cache, and an answer at once is cheaper than any promise.
 */
import { createHash } from 'node:crypto'
import { closeSync, ftruncateSync, readSync, renameSync, unlinkSync, write, writeSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { promisify } from 'node:util'

import { assert } from '#base/assert.ts'
import { OperationError } from '#base/errors.ts'
import { linkDescriptor } from '#os/at.ts'
import { allocateRange, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE } from '#os/fallocate.ts'
import { copyRangeHere, nextData, nextHole } from '#os/file-range.ts'

import { RangeSet, type Range } from './ranges.ts'

const DIGEST_BYTES = 1 << 20
const writeAsync = promisify(write)

/** What a put sends: the file as it was when the put began. */
export interface SentState {
  readonly size: number
  /** What was written since the base was stored. */
  readonly dirty: RangeSet
  readonly generation: number
}

/** One file being written. Not to be used after `close`. */
export class StagedFile {
  readonly fd: number
  /** Its name, where it could not be made without one. */
  #path: string | undefined
  #size = 0
  #baseEnd = 0
  /** Where the base of a put under way would end. */
  #sentEnd = 0
  #dirty = new RangeSet()
  readonly #missing = new RangeSet()
  #generation = 0
  #holders = 1

  constructor(fd: number, path?: string) {
    this.fd = fd
    this.#path = path
  }

  /**
   * Over a local file that has all `size` bytes of the base; the descriptor is from now on the staged file's, as is the
   * name, where there is one.
   */
  static whole(fd: number, size: number, path?: string): StagedFile {
    const staged = new StagedFile(fd, path)
    staged.#size = size
    staged.#baseEnd = size
    return staged
  }

  /** As it was before a restart; the descriptor is from now on the staged file's. */
  static restored(
    fd: number,
    size: number,
    { baseEnd, dirty, missing }: { readonly baseEnd: number; readonly dirty: RangeSet; readonly missing: RangeSet },
  ): StagedFile {
    const staged = new StagedFile(fd)
    staged.#resize(size)
    staged.#size = size
    staged.#baseEnd = Math.min(baseEnd, size)
    staged.#dirty.addAll(dirty)
    staged.#dirty.delete(size, Infinity)
    staged.#missing.addAll(missing)
    staged.#missing.delete(size, Infinity)
    return staged
  }

  get size(): number {
    return this.#size
  }

  /** So many bytes from the start are the base's, but for what is dirty. */
  get baseEnd(): number {
    return this.#baseEnd
  }

  get dirty(): RangeSet {
    return this.#dirty
  }

  get missing(): RangeSet {
    return this.#missing
  }

  get isComplete(): boolean {
    return this.#missing.isEmpty
  }

  /** Counts the changes, on through copies: of two equal numbers nothing lies between, and the higher one is the later. */
  get generation(): number {
    return this.#generation
  }

  /** Lays the new, empty file over `size` bytes of a base, none of which are here. */
  layOver(size: number): void {
    assert(this.#size === 0 && this.#generation === 0, 'only a new file is laid over a base')
    this.#resize(size)
    this.#size = size
    this.#baseEnd = size
    this.#missing.add(0, size)
  }

  /** Whether a read needs nothing that is missing. */
  holds(offset: number, size: number): boolean {
    return this.#missing.isEmpty || !this.#missing.meets(offset, Math.min(this.#size, offset + size))
  }

  /** @throws OperationError `STAGING_NO_SPACE`, and then nothing has been written. */
  write(offset: number, data: Uint8Array): number {
    let done = 0
    try {
      while (done < data.length) done += writeSync(this.fd, data, done, data.length - done, offset + done)
    } catch (error) {
      // What went in before the disk was full is written, as write(2) has it.
      if (done === 0) throw stagingError('write', error)
    }
    this.#written(offset, offset + done)
    return done
  }

  /** Notes that bytes are here, and not the base's. */
  #written(start: number, end: number): void {
    if (end <= start) return
    this.#generation++
    this.#missing.delete(start, end)
    if (start > this.#size) this.#dirty.add(this.#size, start)
    this.#dirty.add(start, end)
    if (end > this.#size) this.#size = end
  }

  /** Keeps fetched bytes of the base wherever they are still missing. @throws OperationError `STAGING_NO_SPACE` */
  bring(offset: number, bytes: Uint8Array): void {
    for (const { start, end } of [...this.#missing.within(offset, offset + bytes.length)]) {
      let at = start
      try {
        while (at < end) at += writeSync(this.fd, bytes, at - offset, end - at, at)
      } catch (error) {
        throw stagingError('fetch into', error)
      } finally {
        this.#missing.delete(start, at)
      }
    }
  }

  /** Fewer bytes than `size` only at the end. What is missing reads as zeros, for the caller to lay the base's over them. */
  read(offset: number, size: number): Buffer {
    const length = Math.max(0, Math.min(size, this.#size - offset))
    const buffer = Buffer.allocUnsafe(length)
    let done = 0
    while (done < length) {
      const got = readSync(this.fd, buffer, done, length - done, offset + done)
      if (got === 0) {
        throw new OperationError('LOCAL_FAILED', `Cannot read a staged file: it ends at ${offset + done} bytes`)
      }
      done += got
    }
    return buffer
  }

  /** SHA-256 of some ranges one after another, in hexadecimal digits; they are here, and nobody may write meanwhile. */
  async digest(ranges: Iterable<Range> = [{ start: 0, end: this.#size }]): Promise<string> {
    const hash = createHash('sha256')
    for (const { start, end } of ranges) {
      for (let offset = start; offset < end; offset += DIGEST_BYTES) {
        hash.update(this.read(offset, Math.min(DIGEST_BYTES, end - offset)))
        // Others get their turn between the slices of a large file.
        await setImmediate()
      }
    }
    return hash.digest('hex')
  }

  /** Cuts, or extends with zeros. */
  truncate(size: number): void {
    this.#resize(size)
    const before = this.#size
    this.#size = size
    this.#generation++
    if (size > before) {
      this.#dirty.add(before, size)
      return
    }
    this.#missing.delete(size, before)
    this.#dirty.delete(size, before)
    this.#baseEnd = Math.min(this.#baseEnd, size)
    this.#sentEnd = Math.min(this.#sentEnd, size)
  }

  #resize(size: number): void {
    try {
      ftruncateSync(this.fd, size)
    } catch (error) {
      throw stagingError('truncate', error)
    }
  }

  /** Takes room for a range, and makes the file longer where that is asked for. @throws OperationError `STAGING_NO_SPACE` */
  allocate(offset: number, length: number, keepSize: boolean): void {
    try {
      allocateRange(this.fd, keepSize ? FALLOC_FL_KEEP_SIZE : 0, offset, length)
    } catch (error) {
      throw stagingError('allocate room in', error)
    }
    const before = this.#size
    if (keepSize || offset + length <= before) return
    this.#generation++
    this.#size = offset + length
    this.#dirty.add(before, this.#size)
  }

  /** Makes a range zero, giving its room back (`punch`) or keeping it; the size grows only where `keepSize` is false. */
  zero(offset: number, length: number, punch: boolean, keepSize: boolean): void {
    const punched = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
    try {
      if (punch) {
        allocateRange(this.fd, punched, offset, length)
      } else {
        try {
          allocateRange(this.fd, FALLOC_FL_ZERO_RANGE | (keepSize ? FALLOC_FL_KEEP_SIZE : 0), offset, length)
        } catch (error) {
          // tmpfs knows no zeroed ranges: a hole that gets its room again is the same.
          if (!isUnsupported(error)) throw error
          allocateRange(this.fd, punched, offset, length)
          allocateRange(this.fd, keepSize ? FALLOC_FL_KEEP_SIZE : 0, offset, length)
        }
      }
    } catch (error) {
      throw stagingError('make zero a range of', error)
    }
    const end = keepSize ? Math.min(offset + length, this.#size) : offset + length
    this.#written(offset, end)
  }

  /** Where the next data at or after `offset` begin: what is missing counts as data. Undefined where there are none. */
  seekData(offset: number): number | undefined {
    if (offset >= this.#size) return undefined
    const here = nextData(this.fd, offset)
    const missing = this.#missing.first(offset)?.start
    if (here === undefined || here >= this.#size) return missing
    return missing === undefined ? here : Math.min(here, missing)
  }

  /** Where the next hole at or after `offset` begins; the end of the file is one. Undefined from there on. */
  seekHole(offset: number): number | undefined {
    if (offset >= this.#size) return undefined
    for (let at = offset; ;) {
      const hole = Math.min(nextHole(this.fd, at), this.#size)
      const missing = this.#missing.first(hole)
      if (missing === undefined || missing.start > hole || hole === this.#size) return hole
      at = missing.end
      if (at >= this.#size) return this.#size
    }
  }

  /**
   * Copies bytes that `from` holds, at most the 256 KiB that are quickly done; gives how many, or undefined where the two
   * files need another way.
   */
  copyFrom(from: StagedFile, offset: number, at: number, length: number): number | undefined {
    let copied: number
    try {
      copied = copyRangeHere(from.fd, offset, this.fd, at, length)
    } catch (error) {
      const { code = '' } = error as NodeJS.ErrnoException
      if (code === 'EXDEV' || code === 'EINVAL' || isUnsupported(error)) return undefined
      throw stagingError('copy into', error)
    }
    this.#written(at, at + copied)
    return copied
  }

  /** Notes that all of it may have been written by others than `write`, and has this size now. */
  writtenOutside(size: number): void {
    this.#generation++
    this.#size = size
    this.#baseEnd = 0
    this.#sentEnd = 0
    this.#missing.delete(0, Infinity)
    this.#dirty = new RangeSet([{ start: 0, end: size }])
  }

  /** Has nothing to do any more with the base that it lay over; all of its bytes are here, and stay as they are. */
  standAlone(): void {
    assert(this.isComplete, 'what stands alone has all its bytes')
    this.#baseEnd = 0
    this.#sentEnd = 0
    this.#dirty = new RangeSet([{ start: 0, end: this.#size }])
  }

  /** Writes the body of a base of which nothing is here yet, from its start, off the thread that answers the kernel. */
  async fill(body: AsyncIterable<Uint8Array>): Promise<void> {
    for await (const chunk of body) {
      let done = 0
      try {
        while (done < chunk.length) {
          const { bytesWritten } = await writeAsync(this.fd, chunk, done, chunk.length - done, this.#size + done)
          done += bytesWritten
        }
      } catch (error) {
        throw stagingError('fill', error)
      }
      this.#size += chunk.length
      this.#baseEnd = this.#size
    }
  }

  /** A put of what is here now begins; ended by `stored` or `notStored`. */
  sending(): SentState {
    const sent = { size: this.#size, dirty: this.#dirty, generation: this.#generation }
    this.#dirty = new RangeSet()
    this.#sentEnd = this.#size
    return sent
  }

  /** What was sent is the base now, but for what was written since. */
  stored(): void {
    this.#baseEnd = this.#sentEnd
  }

  notStored(sent: SentState): void {
    const { size } = this
    this.#dirty.addAll(sent.dirty)
    // It may have been cut since.
    this.#dirty.delete(size, Infinity)
  }

  /** Makes it an ordinary file with that name, which stays when this is closed; copies nothing. */
  giveName(path: string): void {
    if (this.#path === undefined) {
      linkDescriptor(this.fd, path)
    } else {
      renameSync(this.#path, path)
      this.#path = undefined
    }
  }

  /** Takes a name back that it was given, and moves it; where nobody has the file any more, the name goes. */
  takeName(from: string, to: string): void {
    if (this.#holders === 0 || this.#path !== undefined) {
      unlinkSync(from)
      return
    }
    renameSync(from, to)
    this.#path = to
  }

  /** Makes the new, empty file one of the first `size` bytes of `from`, all of which are here; it lies over nothing. */
  copyOf(from: StagedFile, size: number): void {
    for (let at = 0; at < size;) {
      const copied = this.copyFrom(from, at, at, size - at)
      if (copied === undefined || copied === 0) at += this.write(at, from.read(at, Math.min(DIGEST_BYTES, size - at)))
      else at += copied
    }
    this.#generation = from.generation + 1
  }

  /** One more who reads the descriptor, and closes this when that is done. */
  hold(): void {
    this.#holders++
  }

  /** To be called by whoever has it: the last one's closes the descriptor, whose number may then be another file's. */
  close(): void {
    assert(this.#holders > 0, 'a staged file is closed once by each holder')
    if (--this.#holders > 0) return
    closeSync(this.fd)
    if (this.#path !== undefined) unlinkSync(this.#path)
  }
}

/** Libuv, which names errnos here, knows EOPNOTSUPP by its other name. */
function isUnsupported(error: unknown): boolean {
  const { code = '' } = error as NodeJS.ErrnoException
  return code === 'ENOTSUP' || code === 'EOPNOTSUPP' || code === 'ENOSYS'
}

/** What a failure of the staging disk is to a program. */
export function stagingError(action: string, error: unknown): unknown {
  if (error instanceof OperationError) return error
  const code = (error as NodeJS.ErrnoException | undefined)?.code
  const options = { cause: error }
  const message = error instanceof Error ? error.message : String(error)
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new OperationError('STAGING_NO_SPACE', `Cannot ${action} a staged file: no space is left`, options)
  }
  if (code === 'EFBIG' || code === 'EINVAL') {
    return new OperationError('STORE_FILE_TOO_LARGE', `Cannot ${action} a staged file: ${message}`, options)
  }
  if (isUnsupported(error)) {
    return new OperationError('STORE_UNSUPPORTED', `Cannot ${action} a staged file: the staging disk cannot`, options)
  }
  return new OperationError('LOCAL_FAILED', `Cannot ${action} a staged file: ${message}`, options)
}
