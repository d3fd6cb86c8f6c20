/**
 * The bytes of a put as pieces of a chosen size, one after another, from memory, files or a stream; holds the source to its
 * word about its length.
 */
import { localSegments, readAt, segmentError } from '#store/file-segments.ts'
import { untilAborted } from '#store/abort.ts'
import { lengthError, sourceLength, streamError } from '#store/source.ts'
import type { FileSegment, Source } from '#store/store.ts'

/** What a stream of unknown length gets room for at first. */
const FIRST_BYTES = 64 * 1024

export interface BodyReader {
  /** What the source says. */
  readonly length: number | undefined
  /** Whether it can be read again from its start. */
  readonly repeatable: boolean
  /** Whether its bytes are in memory before they are asked for. */
  readonly inMemory: boolean
  /** The next `size` bytes, fewer only at the end. @throws OperationError `INPUT_INVALID`. */
  next(size: number): Promise<Buffer>
  /** Starts again, where it is repeatable, once what is being read has been. */
  rewind(): Promise<void>
  /** Frees what it holds; to be called however the put ends. */
  close(): void
}

/** A reader of a source without stored segments; `path` is for messages. The bytes of a buffer are those at the time of this call. */
export function readerOf(path: string, source: Source, signal: AbortSignal | undefined): BodyReader {
  if (source instanceof Uint8Array) return new MemoryReader(Buffer.from(source))
  if (source.kind === 'file')
    return new FileReader(path, localSegments(path, source.segments), sourceLength(source) ?? 0, source.check)
  return new StreamReader(path, source.stream, source.size, signal)
}

class MemoryReader implements BodyReader {
  readonly length: number
  readonly repeatable = true
  readonly inMemory = true
  readonly #bytes: Buffer
  #at = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
    this.length = bytes.length
  }

  next(size: number): Promise<Buffer> {
    const piece = this.#bytes.subarray(this.#at, this.#at + size)
    this.#at += piece.length
    return Promise.resolve(piece)
  }

  async rewind(): Promise<void> {
    this.#at = 0
  }

  close(): void {}
}

class FileReader implements BodyReader {
  readonly length: number
  readonly repeatable = true
  readonly inMemory = false
  readonly #path: string
  readonly #segments: readonly FileSegment[]
  readonly #check: (() => void) | undefined
  #isChecked = false
  #index = 0
  #offset = 0
  #at = 0
  #reading: Promise<unknown> = Promise.resolve()

  constructor(path: string, segments: readonly FileSegment[], length: number, check: (() => void) | undefined) {
    this.#path = path
    this.#segments = segments
    this.#check = check
    this.length = length
  }

  next(size: number): Promise<Buffer> {
    const reading = this.#read(size)
    this.#reading = reading
    return reading
  }

  async #read(size: number): Promise<Buffer> {
    const piece = Buffer.allocUnsafeSlow(Math.min(size, this.length - this.#at))
    let done = 0
    while (done < piece.length) {
      const segment = this.#segments[this.#index]
      if (segment === undefined) break
      const want = Math.min(segment.length - this.#offset, piece.length - done)
      const found = await readAt(segment.fd, piece.subarray(done, done + want), segment.offset + this.#offset)
      if (found < want) throw segmentError(this.#path, segment, this.#offset + found)
      done += want
      this.#offset += want
      if (this.#offset === segment.length) {
        this.#index++
        this.#offset = 0
      }
    }
    this.#at += piece.length
    if (this.#at === this.length && !this.#isChecked) {
      this.#isChecked = true
      this.#check?.()
    }
    return piece
  }

  async rewind(): Promise<void> {
    await Promise.allSettled([this.#reading])
    this.#isChecked = false
    this.#index = 0
    this.#offset = 0
    this.#at = 0
  }

  close(): void {}
}

class StreamReader implements BodyReader {
  readonly length: number | undefined
  readonly repeatable = false
  readonly inMemory = false
  readonly #path: string
  readonly #iterator: AsyncIterator<Uint8Array>
  readonly #signal: AbortSignal | undefined
  /** Of the last chunk, what no piece has taken yet. */
  #rest: Uint8Array = new Uint8Array(0)
  #at = 0
  #given = 0
  #ended = false

  constructor(
    path: string,
    stream: AsyncIterable<Uint8Array>,
    length: number | undefined,
    signal: AbortSignal | undefined,
  ) {
    this.#path = path
    this.#iterator = stream[Symbol.asyncIterator]()
    this.length = length
    this.#signal = signal
  }

  async next(size: number): Promise<Buffer> {
    const expected = this.length === undefined ? FIRST_BYTES : this.length - this.#given
    let piece = Buffer.allocUnsafeSlow(Math.max(1, Math.min(size, expected)))
    let done = 0
    while (done < size) {
      if (this.#rest.length === 0 && !(await this.#advance())) break
      const chunk = this.#rest.subarray(0, size - done)
      if (done + chunk.length > piece.length) {
        const larger = Buffer.allocUnsafeSlow(Math.min(size, Math.max(2 * piece.length, done + chunk.length)))
        piece.copy(larger, 0, 0, done)
        piece = larger
      }
      // Copied before the stream goes on: it may use its buffers again.
      piece.set(chunk, done)
      done += chunk.length
      this.#rest = this.#rest.subarray(chunk.length)
    }
    this.#given += done
    return piece.subarray(0, done)
  }

  rewind(): Promise<void> {
    throw new Error('A stream cannot be read again')
  }

  close(): void {
    if (this.#ended) return
    this.#ended = true
    // Not awaited: a stream that hangs would keep the put from ending.
    this.#iterator.return?.().catch(() => undefined)
  }

  async #advance(): Promise<boolean> {
    if (this.#ended) return false
    let next: IteratorResult<Uint8Array>
    try {
      next = await untilAborted(`put "${this.#path}"`, this.#iterator.next(), this.#signal)
    } catch (error) {
      throw streamError(this.#path, error)
    }
    if (next.done === true) {
      this.#ended = true
      if (this.length !== undefined && this.#at < this.length) {
        throw lengthError(this.#path, this.length, `ended after ${this.#at}`)
      }
      return false
    }
    this.#at += next.value.length
    if (this.length !== undefined && this.#at > this.length) throw lengthError(this.#path, this.length, 'has more')
    this.#rest = next.value
    return true
  }
}
