/**
 * Reading objects: one request for what is small, parallel ranges in a bounded window for what is large, all of one version.
 * A request that breaks goes on from where it broke. Bytes reach the caller only when they are whole: their count is that
 * of the announced range, their version the one that was begun, and where all of an object is read, its checksum right.
 */
import { assert } from '#base/assert.ts'
import { OperationError } from '#base/errors.ts'
import { counter } from '#base/metrics.ts'
import { checkAborted } from '#store/abort.ts'
import type { Version } from '#store/store.ts'
import { checkerFor, type Checker } from './checksum.ts'
import { headerOf, type S3Client } from './client.ts'
import { conflict } from './guards.ts'
import { headObject, headOf, versionOf, type ObjectHead } from './objects.ts'
import type { Header } from './signer.ts'
import type { Answer, Sink } from './transport.ts'

/** Ranges of one read that are under way at a time. */
const WINDOW = 8
/** Times that a whole object with a wrong checksum is fetched before it is given up. */
const CHECKED_ATTEMPTS = 3

const receivedBytes = counter('eider_s3_received_bytes_total')

export interface DownloadOptions {
  readonly version: Version | undefined
  readonly offset: number
  /** To the end where infinite. */
  readonly length: number
  readonly partBytes: number
  readonly signal: AbortSignal | undefined
}

/** A read whose first bytes have arrived: up to two parts, or one of more. */
export interface Download {
  readonly head: ObjectHead
  readonly length: number
  /** Parts in order, so many at a time: a bounded number of them is in memory, whatever the length. */
  chunks(): AsyncGenerator<Buffer>
  /** All in one buffer of `length` bytes, for which the caller has made room in its memory budget before it began to read. */
  bytes(): Promise<Buffer>
  cancel(): void
}

/** Begins to read; undefined where there is no such object. One request for up to two parts. */
export async function download(client: S3Client, key: string, options: DownloadOptions): Promise<Download | undefined> {
  // A read that is left gives up what is under way, whatever the caller's signal says.
  const left = new AbortController()
  const signal = options.signal === undefined ? left.signal : AbortSignal.any([options.signal, left.signal])
  for (let attempts = 1; ; attempts++) {
    const first = await fetchFirst(client, key, { ...options, signal })
    if (first === undefined) return undefined
    const { head, bytes } = first
    const length = Math.max(0, Math.min(options.length, head.size - options.offset))
    assert(bytes.length <= length, 'no more is fetched than is asked for')
    const checker = length === head.size && length > 0 ? await checkerFor(head.header) : undefined
    if (bytes.length === length && checker !== undefined && !isRight(checker, bytes)) {
      if (attempts < CHECKED_ATTEMPTS) continue
      throw wrongChecksum(key)
    }
    const rest = bytes.length === length ? undefined : checker
    return new RunningDownload(client, key, { ...options, signal }, { head, length, first: bytes, checker: rest, left })
  }
}

function isRight(checker: Checker, bytes: Buffer): boolean {
  checker.update(bytes)
  return checker.digest() === checker.expected
}

function wrongChecksum(key: string): OperationError {
  return new OperationError('STORE_CORRUPT', `Cannot read "${key}": its checksum is wrong`)
}

/**
 * Reads a range of one version straight into `target`, whole; undefined where there is no such object. One request.
 * @throws OperationError `STORE_CONFLICT` where the version is another, `INPUT_INVALID` where the object ends before.
 */
export function readInto(
  client: S3Client,
  key: string,
  version: Version,
  start: number,
  target: Buffer,
  signal: AbortSignal | undefined,
): Promise<ObjectHead | undefined> {
  const sink = new PartSink(key, version, start, target)
  const request = { operation: 'GetObject', method: 'GET', key, signal, sink, accept: [404, 412, 416] } as const
  return client.send({ ...request, headers: () => sink.headers() }, (answer) => {
    if (answer.status === 404) {
      noBucketIsAnError(answer)
      return undefined
    }
    if (answer.status === 412) throw conflict('read', key)
    const head = answer.status === 416 ? undefined : headOf(answer)
    if (head === undefined || start + target.length > head.size) {
      throw new OperationError('INPUT_INVALID', `Cannot read "${key}": it ends before ${start + target.length}`)
    }
    sink.checkWhole()
    return head
  })
}

interface First {
  readonly head: ObjectHead
  readonly bytes: Buffer
}

async function fetchFirst(client: S3Client, key: string, options: DownloadOptions): Promise<First | undefined> {
  const { version, offset, length, signal } = options
  if (length > 0) {
    const sink = new FirstSink(key, options)
    const request = { operation: 'GetObject', method: 'GET', key, signal, sink, accept: [404, 412, 416] } as const
    const status = await client.send({ ...request, headers: () => sink.headers() }, (answer) => {
      if (answer.status < 300) sink.checkWhole()
      else if (answer.status === 404 && headerOf(answer, 'etag') === undefined) noBucketIsAnError(answer)
      return answer.status
    })
    if (status === 404) return undefined
    if (status === 412) throw conflict('read', key)
    if (status < 300) return { head: sink.head(), bytes: sink.bytes() }
  }
  // Nothing to fetch: the caller asked for nothing, or from beyond the end.
  const head = await headObject(client, key, signal)
  if (head === undefined) return undefined
  if (version !== undefined && head.version !== version) throw conflict('read', key)
  // It grew in between; the caller reads nothing of the old one, which is what it was.
  const size = Math.min(head.size, length > 0 ? offset : head.size)
  return { head: { ...head, size }, bytes: Buffer.alloc(0) }
}

function noBucketIsAnError(answer: Answer): void {
  if (answer.body.includes('<Code>NoSuchBucket</Code>')) {
    throw new OperationError('BUCKET_NOT_FOUND', 'Cannot read: the bucket does not exist any more')
  }
}

/** Takes a range of one version into a buffer, over as many attempts as it needs. */
abstract class RangeSink implements Sink {
  readonly #key: string
  protected version: Version | undefined
  protected target: Buffer | undefined
  taken = 0

  constructor(key: string, version: Version | undefined) {
    this.#key = key
    this.version = version
  }

  /** Where the range begins and how long it is as far as is known. */
  protected abstract readonly start: number
  protected abstract readonly end: number

  headers(): Header[] {
    const from = this.start + this.taken
    const headers: Header[] = [['range', `bytes=${from}-${Number.isFinite(this.end) ? this.end - 1 : ''}`]]
    if (this.version !== undefined) headers.push(['if-match', `"${this.version}"`])
    return headers
  }

  begin(status: number, headers: Answer['headers']): void {
    const version = versionOf(headerOf({ headers }, 'etag'))
    if (this.version !== undefined && version !== this.version) throw this.corrupt('its version is another')
    const from = this.start + this.taken
    if (status === 206) {
      const match = /^bytes (\d+)-(\d+)\//.exec(headerOf({ headers }, 'content-range') ?? '')
      if (match === null || Number(match[1]) !== from) throw this.corrupt('the range is another')
    } else if (from !== 0) {
      throw this.corrupt('the whole was sent for a range')
    }
  }

  take(chunk: Buffer): boolean {
    const target = this.target
    assert(target !== undefined, 'a body begins before it is taken')
    receivedBytes.inc(chunk.length)
    this.taken += chunk.copy(target, this.taken)
    return this.taken < target.length || !this.dropsRest
  }

  /** Whether the connection is to be dropped once the buffer is full, as more would come. */
  protected dropsRest = false

  /** Throws `STORE_CORRUPT` unless every byte has come. */
  checkWhole(): void {
    const expected = this.target?.length ?? 0
    if (this.taken < expected) throw this.corrupt(`${expected - this.taken} bytes are missing`)
  }

  protected corrupt(detail: string): OperationError {
    return new OperationError('STORE_CORRUPT', `Cannot read "${this.#key}": ${detail}`)
  }
}

/** The first request: it learns the version and the size. */
class FirstSink extends RangeSink {
  protected readonly start: number
  readonly #options: DownloadOptions
  readonly #whole: boolean
  #head: ObjectHead | undefined

  constructor(key: string, options: DownloadOptions) {
    super(key, options.version)
    this.#options = options
    this.start = options.offset
    this.#whole = options.offset === 0 && !Number.isFinite(options.length)
  }

  protected get end(): number {
    if (this.target !== undefined) return this.start + this.target.length
    return this.start + this.#firstBytes(this.#options.length)
  }

  /** How much of so many bytes the first request takes: all, unless they are more than two parts. */
  #firstBytes(bytes: number): number {
    const { partBytes } = this.#options
    return bytes <= 2 * partBytes ? bytes : partBytes
  }

  override headers(): Header[] {
    // The whole is asked for without a range: an empty object has no range, and only the whole has a checksum.
    if (!this.#whole || this.taken > 0) return super.headers()
    const headers: Header[] = [['x-amz-checksum-mode', 'ENABLED']]
    if (this.version !== undefined) headers.push(['if-match', `"${this.version}"`])
    return headers
  }

  override begin(status: number, headers: Answer['headers']): void {
    super.begin(status, headers)
    if (this.#head === undefined) {
      const head = headOf({ status, headers, body: Buffer.alloc(0) })
      const { length } = this.#options
      const left = Math.min(length, head.size - this.start)
      // A range was chosen before the size was known, and brings no more than it asked for.
      const asked = this.#whole ? left : this.#firstBytes(length)
      this.target = Buffer.allocUnsafeSlow(Math.min(this.#firstBytes(left), asked))
      this.#head = head
      this.version = head.version
    }
    const room = (this.target?.length ?? 0) - this.taken
    this.dropsRest = Number(headerOf({ headers }, 'content-length') ?? room) > room
  }

  head(): ObjectHead {
    assert(this.#head !== undefined, 'an answer has a head')
    return this.#head
  }

  bytes(): Buffer {
    return this.target ?? Buffer.alloc(0)
  }
}

/** A range that is known beforehand. */
class PartSink extends RangeSink {
  protected readonly start: number
  protected readonly end: number

  constructor(key: string, version: Version, start: number, target: Buffer) {
    super(key, version)
    this.start = start
    this.end = start + target.length
    this.target = target
  }
}

class RunningDownload implements Download {
  readonly head: ObjectHead
  readonly length: number
  readonly #client: S3Client
  readonly #key: string
  readonly #options: DownloadOptions
  readonly #checker: Checker | undefined
  readonly #left: AbortController
  #first: Buffer | undefined

  constructor(
    client: S3Client,
    key: string,
    options: DownloadOptions,
    begun: { head: ObjectHead; length: number; first: Buffer; checker: Checker | undefined; left: AbortController },
  ) {
    this.#client = client
    this.#key = key
    this.#options = options
    this.head = begun.head
    this.length = begun.length
    this.#first = begun.first
    this.#checker = begun.checker
    this.#left = begun.left
  }

  async *chunks(): AsyncGenerator<Buffer> {
    const first = this.#takeFirst()
    const pending: Promise<Buffer>[] = []
    try {
      let next = first.length
      this.#checker?.update(first)
      if (first.length > 0) yield first
      for (;;) {
        checkAborted(`read "${this.#key}"`, this.#options.signal)
        while (pending.length < WINDOW && next < this.length) {
          const target = Buffer.allocUnsafeSlow(Math.min(this.#options.partBytes, this.length - next))
          const part = this.#fetch(next, target)
          // Waited for below, or given up with the rest.
          part.catch(() => undefined)
          pending.push(part)
          next += target.length
        }
        const part = pending.shift()
        if (part === undefined) return
        const bytes = await part
        this.#checker?.update(bytes)
        // The last bytes are held back until all are known to be right.
        if (pending.length === 0 && next === this.length) this.#checkAll()
        yield bytes
      }
    } finally {
      if (pending.length > 0) this.cancel()
    }
  }

  async bytes(): Promise<Buffer> {
    const first = this.#takeFirst()
    if (first.length === this.length) return first
    const whole = Buffer.allocUnsafeSlow(this.length)
    first.copy(whole)
    let next = first.length
    const work = async (): Promise<void> => {
      while (next < this.length) {
        const start = next
        next = Math.min(this.length, start + this.#options.partBytes)
        await this.#fetch(start, whole.subarray(start, next))
      }
    }
    try {
      await Promise.all(Array.from({ length: WINDOW }, work))
    } catch (error) {
      this.cancel()
      throw error
    }
    this.#checker?.update(whole)
    this.#checkAll()
    return whole
  }

  cancel(): void {
    this.#first = undefined
    this.#left.abort(new Error('the read was cancelled'))
  }

  #takeFirst(): Buffer {
    const first = this.#first
    assert(first !== undefined, 'the body of a read is taken once')
    this.#first = undefined
    return first
  }

  #checkAll(): void {
    if (this.#checker !== undefined && this.#checker.digest() !== this.#checker.expected) throw wrongChecksum(this.#key)
  }

  async #fetch(start: number, target: Buffer): Promise<Buffer> {
    const sink = new PartSink(this.#key, this.head.version, this.#options.offset + start, target)
    const { signal } = this.#options
    const request = { operation: 'GetObject', method: 'GET', key: this.#key, sink, signal, accept: [404, 412] } as const
    await this.#client.send({ ...request, headers: () => sink.headers() }, (answer) => {
      if (answer.status >= 300) throw conflict('go on reading', this.#key)
      sink.checkWhole()
    })
    return target
  }
}
