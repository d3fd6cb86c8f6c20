/**
 * The body of a request, read once, through bounded memory, and held to everything that its head said of it: its
 * length, SHA-256, chunk and trailer signatures, Content-MD5 and checksum. Whoever takes the bytes must not act on them
 * before the stream has ended without an error: only then has everything been checked.
 *
 * The client is asked for its body (100 Continue) when the first byte is wanted, which is after authentication and all
 * checks of the head; a client that then sends nothing for `idleMs` is cut off.
 */
import { createHash, type Hash } from 'node:crypto'
import type { IncomingMessage } from 'node:http'

import { OperationError } from '#base/errors.ts'
import { counter } from '#base/metrics.ts'
import { UNSIGNED_PAYLOAD } from '#store/s3/sigv4.ts'

import type { Signed } from './authenticate.ts'
import {
  CHECKSUM_ALGORITHMS,
  checksumAlgorithmOf,
  checksumHeader,
  createChecksumHasher,
  isChecksumValue,
  type ChecksumAlgorithm,
  type ChecksumHasher,
} from './checksum.ts'
import { ChunkedDecoder } from './chunked.ts'
import { S3Error } from './errors.ts'
import type { Exchange } from './exchange.ts'

/** Bytes of a body that may wait in memory before its socket is paused, and below which it is resumed. */
const QUEUE_BYTES_HIGH = 1 << 20
const QUEUE_BYTES_LOW = 1 << 18
/** Largest object of one put: S3's is 5 GiB. Parts are bounded by the same. */
export const PUT_BYTES_MAX = 5 * 1024 ** 3

const STREAMING = /^STREAMING-(AWS4-HMAC-SHA256-PAYLOAD|UNSIGNED-PAYLOAD)(-TRAILER)?$/
const receivedBytes = counter('eider_gateway_received_bytes_total')

/** What the head says of the body. */
interface Expectations {
  readonly size: number
  /** Undefined: the bytes come as they are. */
  readonly chunked: { readonly signed: boolean; readonly trailers: boolean } | undefined
  readonly sha256: string | undefined
  readonly md5: string | undefined
  readonly checksum: { readonly algorithm: ChecksumAlgorithm; readonly value: string | undefined } | undefined
}

/** A checksum that was verified, to be kept with the object. */
export interface Checksum {
  readonly algorithm: ChecksumAlgorithm
  readonly value: string
}

export interface BodyOptions {
  /** The checksum headers are of something else than this body: those of a completed upload are of the object. */
  readonly checksumElsewhere?: boolean
}

/** The body of one request. */
export class Body {
  /** Bytes of the payload, as the head says and the end has verified. */
  readonly size: number
  /** Content-MD5 in hex where the head has one: what MD5 will be if the body is right. */
  readonly md5Expected: string | undefined
  /** The checksum that the head has; a trailer's is known when the body has ended. */
  readonly checksumExpected: Checksum | undefined
  readonly #exchange: Exchange
  readonly #signed: Signed
  readonly #expected: Expectations
  #ended = false
  #md5: string | undefined
  #checksum: Checksum | undefined
  #failure: Error | undefined
  /** By the memory of a chunk as it came: how many bytes of payload in it are still in use. */
  readonly #inUse = new WeakMap<ArrayBufferLike, number>()

  /** @throws S3Error where the head contradicts itself or lacks a length. */
  constructor(exchange: Exchange, signed: Signed, options: BodyOptions = {}) {
    this.#exchange = exchange
    this.#signed = signed
    this.#expected = expectationsOf(exchange, signed, options)
    this.size = this.#expected.size
    this.md5Expected = this.#expected.md5
    const { checksum } = this.#expected
    this.checksumExpected =
      checksum?.value === undefined ? undefined : { algorithm: checksum.algorithm, value: checksum.value }
  }

  /** The algorithm of the checksum that comes with the body, in its head or its trailer. */
  get checksumAlgorithm(): ChecksumAlgorithm | undefined {
    return this.#expected.checksum?.algorithm
  }
  /** Whether all bytes have come and all checks have held. */
  get ended(): boolean {
    return this.#ended
  }
  /** MD5 in hex, where it was computed; known once the body has ended. */
  get md5(): string | undefined {
    return this.#md5
  }
  /** The checksum that was verified; known once the body has ended. */
  get checksum(): Checksum | undefined {
    return this.#checksum
  }
  /** What ended the body early: a store may have wrapped it in words of its own. */
  get failure(): Error | undefined {
    return this.#failure
  }

  /** The whole payload in one buffer. @throws S3Error `MaxMessageLengthExceeded` above `bytesMax`. */
  async bytes(bytesMax: number, withMd5 = false): Promise<Buffer> {
    if (this.size > bytesMax) throw new S3Error('MaxMessageLengthExceeded')
    const pieces: Buffer[] = []
    for await (const piece of this.stream(withMd5)) pieces.push(piece)
    const [only] = pieces
    return pieces.length === 1 && only !== undefined ? only : Buffer.concat(pieces, this.size)
  }

  /** The payload in pieces. Throws before its end where anything does not hold. `withMd5` computes the MD5 in any case. */
  async *stream(withMd5: boolean): AsyncGenerator<Buffer> {
    const { size, chunked, sha256, md5, checksum } = this.#expected
    const sha256Hash = sha256 === undefined ? undefined : createHash('sha256')
    const md5Hash = withMd5 || md5 !== undefined ? createHash('md5') : undefined
    const hasher = checksum === undefined ? undefined : await createChecksumHasher(checksum.algorithm)
    const decoder =
      chunked === undefined
        ? undefined
        : new ChunkedDecoder({ signed: chunked.signed ? this.#signed : undefined, trailers: chunked.trailers })
    let pieces: Buffer[] = []
    const take = (piece: Buffer): void => void pieces.push(piece)
    let count = 0
    try {
      for await (const raw of rawChunks(this.#exchange)) {
        receivedBytes.inc(raw.length)
        pieces = []
        if (decoder === undefined) pieces.push(raw)
        else decoder.push(raw, take)
        // Small buffers are slices of memory that others use as well.
        if (raw.length === raw.buffer.byteLength) this.#inUse.set(raw.buffer, sizeOfAll(pieces))
        for (const piece of pieces) {
          count += piece.length
          if (count > size) throw new S3Error('IncompleteBody', 'The body has more bytes than its length says')
          sha256Hash?.update(piece)
          md5Hash?.update(piece)
          hasher?.update(piece)
          yield piece
        }
      }
      decoder?.end()
      if (count < size) throw new S3Error('IncompleteBody')
      this.#verify(sha256Hash, md5Hash, hasher, decoder?.trailers)
    } catch (error) {
      hasher?.cancel()
      this.#failure = error instanceof Error ? error : new Error(String(error))
      throw error
    }
    this.#ended = true
  }

  /** Frees the memory of a piece that nobody needs any more, once that holds for all that share it. */
  readonly release = (piece: Uint8Array): void => {
    const { buffer } = piece
    const left = (this.#inUse.get(buffer) ?? Number.NaN) - piece.length
    if (left > 0) this.#inUse.set(buffer, left)
    else if (left === 0 && buffer instanceof ArrayBuffer) buffer.transfer(0)
  }

  #verify(
    sha256Hash: Hash | undefined,
    md5Hash: Hash | undefined,
    hasher: ChecksumHasher | undefined,
    trailers: ReadonlyMap<string, string> | undefined,
  ): void {
    const { sha256, md5, checksum } = this.#expected
    if (sha256Hash !== undefined && sha256Hash.digest('hex') !== sha256) throw new S3Error('XAmzContentSHA256Mismatch')
    this.#md5 = md5Hash?.digest('hex')
    if (md5 !== undefined && this.#md5 !== md5) throw new S3Error('BadDigest')
    if (checksum === undefined || hasher === undefined) return
    const { algorithm } = checksum
    const claimed = checksum.value ?? trailers?.get(checksumHeader(algorithm))
    if (claimed === undefined) {
      throw new S3Error('InvalidRequest', `The trailer ${checksumHeader(algorithm)} was announced and did not come`)
    }
    const value = hasher.digest().toString('base64')
    if (value !== claimed) throw new S3Error('BadDigest', `The ${algorithm} you specified did not match what we got`)
    this.#checksum = { algorithm, value }
  }
}

function sizeOfAll(pieces: readonly Uint8Array[]): number {
  return pieces.reduce((sum, piece) => sum + piece.length, 0)
}

function expectationsOf(exchange: Exchange, signed: Signed, options: BodyOptions): Expectations {
  const { payloadHash } = signed
  const streaming = STREAMING.exec(payloadHash)
  const chunked =
    streaming === null
      ? undefined
      : { signed: streaming[1] !== 'UNSIGNED-PAYLOAD', trailers: streaming[2] !== undefined }
  if (chunked !== undefined && !chunked.signed && !chunked.trailers) throw unknownPayload(payloadHash)
  const literal = chunked === undefined && payloadHash !== UNSIGNED_PAYLOAD
  if (literal && !/^[0-9a-f]{64}$/.test(payloadHash)) throw unknownPayload(payloadHash)
  return {
    size: sizeOf(exchange, chunked !== undefined),
    chunked,
    sha256: literal ? payloadHash : undefined,
    md5: md5Of(exchange.header('content-md5')),
    checksum: options.checksumElsewhere === true ? undefined : checksumOf(exchange, chunked?.trailers === true),
  }
}

function unknownPayload(payloadHash: string): S3Error {
  return new S3Error('InvalidArgument', `x-amz-content-sha256 cannot be "${payloadHash.slice(0, 100)}"`)
}

function sizeOf(exchange: Exchange, chunked: boolean): number {
  const header = exchange.header(chunked ? 'x-amz-decoded-content-length' : 'content-length')
  if (header === undefined) {
    const hasBody = exchange.headers['transfer-encoding'] !== undefined || chunked
    if (hasBody || exchange.method === 'PUT') throw new S3Error('MissingContentLength')
    return 0
  }
  if (!/^\d{1,15}$/.test(header)) throw new S3Error('InvalidArgument', `The length "${header}" is not a number`)
  const size = Number(header)
  if (size > PUT_BYTES_MAX) throw new S3Error('EntityTooLarge')
  return size
}

function md5Of(header: string | undefined): string | undefined {
  if (header === undefined) return undefined
  const bytes = Buffer.from(header, 'base64')
  if (bytes.length !== 16 || bytes.toString('base64') !== header.trim()) throw new S3Error('InvalidDigest')
  return bytes.toString('hex')
}

function checksumOf(exchange: Exchange, trailers: boolean): Expectations['checksum'] {
  let found: Expectations['checksum']
  for (const algorithm of CHECKSUM_ALGORITHMS) {
    const value = exchange.header(checksumHeader(algorithm))
    if (value === undefined) continue
    if (found !== undefined) throw new S3Error('InvalidRequest', 'Expecting a single x-amz-checksum- header')
    if (!isChecksumValue(algorithm, value)) {
      throw new S3Error('InvalidRequest', `Value for ${checksumHeader(algorithm)} header is invalid`)
    }
    found = { algorithm, value }
  }
  const trailer = exchange.header('x-amz-trailer')?.trim().toLowerCase()
  if (trailer === undefined || trailer === '') return found
  const algorithm = trailer.startsWith('x-amz-checksum-') ? checksumAlgorithmOf(trailer.slice(15)) : undefined
  if (algorithm === undefined || !trailers || found !== undefined) {
    throw new S3Error('InvalidRequest', `The x-amz-trailer "${trailer}" is not supported with this body`)
  }
  return { algorithm, value: undefined }
}

/** The bytes of a request as they come, pausing its socket while too many wait. */
async function* rawChunks(exchange: Exchange): AsyncGenerator<Buffer> {
  const { req, res } = exchange
  if (req.complete && req.readableLength === 0) return
  if (req.headers.expect !== undefined && !res.headersSent) res.writeContinue()
  const queue = new BodyQueue(req, exchange.idleMs)
  try {
    for (;;) {
      const chunk = queue.shift()
      if (chunk !== undefined) yield chunk
      else if (queue.ended) return
      else await queue.more()
    }
  } finally {
    queue.close()
  }
}

/** Chunks of a request that wait to be taken. */
class BodyQueue {
  readonly #req: IncomingMessage
  readonly #idleMs: number
  readonly #chunks: Buffer[] = []
  #bytes = 0
  #ended = false
  #failure: Error | undefined
  #wake: (() => void) | undefined
  readonly #onData = (chunk: Buffer): void => {
    this.#chunks.push(chunk)
    this.#bytes += chunk.length
    if (this.#bytes >= QUEUE_BYTES_HIGH) this.#req.pause()
    this.#wakeUp()
  }
  readonly #onEnd = (): void => {
    this.#ended = true
    this.#wakeUp()
  }
  readonly #onError = (error: unknown): void => {
    // A request closes after its end as well.
    if (this.#ended) return
    this.#failure ??= new OperationError('ABORTED', 'Cannot read the body: its sender has gone', { cause: error })
    this.#wakeUp()
  }
  readonly #onTimeout = (): void => {
    // A socket that is paused is idle by our own doing.
    if (this.#req.isPaused()) return
    this.#failure ??= new S3Error('RequestTimeout')
    this.#wakeUp()
  }

  constructor(req: IncomingMessage, idleMs: number) {
    this.#req = req
    this.#idleMs = idleMs
    req.on('data', this.#onData)
    req.on('end', this.#onEnd)
    req.on('error', this.#onError)
    req.on('close', this.#onError)
    req.on('timeout', this.#onTimeout)
    req.socket.setTimeout(idleMs)
  }

  get ended(): boolean {
    return this.#ended
  }

  shift(): Buffer | undefined {
    const chunk = this.#chunks.shift()
    if (chunk === undefined) return undefined
    this.#bytes -= chunk.length
    if (this.#bytes < QUEUE_BYTES_LOW && this.#req.isPaused()) {
      this.#req.resume()
      // The timer does not start again by itself if it ran out while the socket was paused.
      this.#req.socket.setTimeout(this.#idleMs)
    }
    return chunk
  }

  /** Resolves when there is something to take, or the end. */
  async more(): Promise<void> {
    if (this.#failure === undefined && !this.#ended) await new Promise<void>((resolve) => (this.#wake = resolve))
    if (this.#failure !== undefined && this.#chunks.length === 0) throw this.#failure
  }

  close(): void {
    const { socket } = this.#req
    this.#req.off('data', this.#onData).off('end', this.#onEnd).off('close', this.#onError)
    this.#req.off('timeout', this.#onTimeout)
    // Whoever answers decides about what is left of the body; until then it must not fill the memory.
    if (!this.#ended) this.#req.pause()
    socket?.setTimeout(0)
  }

  #wakeUp(): void {
    const wake = this.#wake
    this.#wake = undefined
    wake?.()
  }
}
