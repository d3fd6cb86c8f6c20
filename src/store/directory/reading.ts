/**
 * Reading one version from an open file. A version that is replaced lives on in its inode for as long as it is open
 * here; one that another program changes in place is noticed by its size and modification time at the end, and is an
 * error rather than a mixture.
 */
import { closeSync } from 'node:fs'

import { assert } from '#base/assert.ts'
import { OperationError } from '#base/errors.ts'
import { readCached } from '#os/file-range.ts'
import { statusOf, type Status } from '#os/status.ts'
import { checkAborted } from '#store/abort.ts'
import { readAt } from '#store/file-segments.ts'
import type { Entry, Reading } from '#store/store.ts'

import { sameBytes } from './entry.ts'
import { failure } from './failure.ts'

/** Read at once, before anybody asks for the body: no descriptor is kept, and no hop is made where it is in memory. */
const AT_ONCE_BYTES_MAX = 256 << 10
const CHUNK_BYTES = 1 << 20
/** To one call of `bytes()`; a signal is looked at between them. */
const SLICE_BYTES = 8 << 20

/** Begins to read; `fd` is this reading's from now on, also where it fails. */
export async function readFrom(
  fd: number,
  status: Status,
  entry: Entry,
  offset: number,
  length: number,
  signal: AbortSignal | undefined,
): Promise<Reading> {
  if (length > AT_ONCE_BYTES_MAX) return new FileReading(fd, status, entry, offset, length, signal)
  try {
    const bytes = Buffer.allocUnsafeSlow(length)
    await fill(fd, bytes, offset, entry.path)
    checkUnchanged(fd, status, entry.path)
    return new MemoryReading(entry, bytes, signal)
  } catch (error) {
    throw failure(error, `read "${entry.path}"`)
  } finally {
    closeSync(fd)
  }
}

/** A body that is in memory already. */
export class MemoryReading implements Reading {
  readonly entry: Entry
  readonly length: number
  readonly #bytes: Buffer
  readonly #signal: AbortSignal | undefined

  constructor(entry: Entry, bytes: Buffer, signal: AbortSignal | undefined) {
    this.entry = entry
    this.length = bytes.length
    this.#bytes = bytes
    this.#signal = signal
  }

  get body(): AsyncIterable<Uint8Array> {
    return this.#chunks()
  }

  async *#chunks(): AsyncGenerator<Uint8Array> {
    checkAborted(`read "${this.entry.path}"`, this.#signal)
    if (this.length > 0) yield this.#bytes
  }

  async bytes(): Promise<Buffer> {
    checkAborted(`read "${this.entry.path}"`, this.#signal)
    return this.#bytes
  }

  cancel(): void {}
}

class FileReading implements Reading {
  readonly entry: Entry
  readonly length: number
  readonly #fd: number
  readonly #status: Status
  readonly #offset: number
  readonly #signal: AbortSignal | undefined
  readonly #onAbort = (): void => this.#end()
  #taken = false
  /** Reads on the thread pool: the descriptor is not closed under them, since its number may be somebody else's then. */
  #underWay = 0
  #ended = false
  #closed = false

  constructor(
    fd: number,
    status: Status,
    entry: Entry,
    offset: number,
    length: number,
    signal: AbortSignal | undefined,
  ) {
    this.#fd = fd
    this.#status = status
    this.entry = entry
    this.#offset = offset
    this.length = length
    this.#signal = signal
    signal?.addEventListener('abort', this.#onAbort, { once: true })
  }

  get body(): AsyncIterable<Uint8Array> {
    return this.#chunks()
  }

  async bytes(): Promise<Buffer> {
    this.#take()
    try {
      const buffer = Buffer.allocUnsafeSlow(this.length)
      for (let at = 0; at < this.length; at += SLICE_BYTES) {
        await this.#read(buffer.subarray(at, at + SLICE_BYTES), at)
      }
      this.#checkEnd()
      return buffer
    } finally {
      this.#end()
    }
  }

  cancel(): void {
    this.#end()
  }

  async *#chunks(): AsyncGenerator<Uint8Array> {
    this.#take()
    try {
      let ahead = this.#chunkAt(0)
      for (let at = 0; at < this.length; at += CHUNK_BYTES) {
        const chunk = await ahead
        ahead = this.#chunkAt(at + CHUNK_BYTES)
        // The last chunk is given only when all of them are known to be of one version.
        if (at + CHUNK_BYTES >= this.length) this.#checkEnd()
        yield chunk
      }
    } finally {
      this.#end()
    }
  }

  #take(): void {
    assert(!this.#taken, 'the body of a reading is taken once')
    this.#taken = true
  }

  #chunkAt(at: number): Promise<Buffer> {
    const size = Math.min(CHUNK_BYTES, this.length - at)
    if (size <= 0) return Promise.resolve(Buffer.alloc(0))
    const chunk = Buffer.allocUnsafeSlow(size)
    const read = this.#read(chunk, at).then(() => chunk)
    // Awaited with the next chunk, or by nobody where the body is left.
    read.catch(() => undefined)
    return read
  }

  async #read(buffer: Buffer, at: number): Promise<void> {
    const action = `read "${this.entry.path}"`
    checkAborted(action, this.#signal)
    if (this.#ended) throw new OperationError('ABORTED', `Cannot ${action}: the reading was cancelled`)
    this.#underWay++
    try {
      await fill(this.#fd, buffer, this.#offset + at, this.entry.path)
    } catch (error) {
      throw failure(error, action)
    } finally {
      this.#underWay--
      if (this.#ended) this.#close()
    }
    checkAborted(action, this.#signal)
  }

  #checkEnd(): void {
    if (!this.#closed) checkUnchanged(this.#fd, this.#status, this.entry.path)
  }

  #end(): void {
    this.#ended = true
    this.#close()
  }

  #close(): void {
    if (this.#closed || this.#underWay > 0) return
    this.#closed = true
    this.#signal?.removeEventListener('abort', this.#onAbort)
    closeSync(this.#fd)
  }
}

/** Fills the buffer, from memory where the bytes are there, else on the thread pool. */
async function fill(fd: number, buffer: Buffer, position: number, path: string): Promise<void> {
  let done = 0
  if (buffer.length <= AT_ONCE_BYTES_MAX) done = readCached(fd, buffer, position)
  if (done < buffer.length) done += await readAt(fd, buffer.subarray(done), position + done)
  if (done < buffer.length) {
    throw new OperationError(
      'STORE_CORRUPT',
      `Cannot read "${path}": it was cut while it was read, ${buffer.length - done} bytes are missing`,
    )
  }
}

function checkUnchanged(fd: number, status: Status, path: string): void {
  if (sameBytes(statusOf(fd), status)) return
  throw new OperationError('STORE_CONFLICT', `Cannot read "${path}": it was changed in place while it was read`)
}
