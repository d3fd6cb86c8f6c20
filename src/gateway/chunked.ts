/**
 * The aws-chunked encoding: a body in chunks, each with its length and, where the body is signed, its signature, then
 * trailers. A decoder takes the bytes as they come, in pieces of any size, and gives the payload on without copying;
 * a signature is checked when its chunk has passed, so the receiver must not act on anything until `end` has.
 *
 *   head -> data -> dataEnd -> head ... -> (length 0) trailer -> done
 *
 * Source: "Signature Calculations: Transferring Payload in Multiple Chunks" of the S3 API reference.
 */
import { createHash, type Hash } from 'node:crypto'

import { ALGORITHM, EMPTY_SHA256, sign, trailerStringToSign } from '#store/s3/sigv4.ts'

import { equalSignatures, type Signed } from './authenticate.ts'
import { S3Error } from './errors.ts'

/** `hex;chunk-signature=` and 64 hex digits fit twice. */
const HEAD_BYTES_MAX = 256
/** Trailers are a checksum and a signature. */
const TRAILER_BYTES_MAX = 8192
const SIGNATURE_PREFIX = 'chunk-signature='
const TRAILER_SIGNATURE = 'x-amz-trailer-signature'

type State = 'head' | 'data' | 'dataEnd' | 'trailer' | 'done'

export interface ChunkedOptions {
  /** Where chunks are signed: what their signatures are chained to. */
  readonly signed: Signed | undefined
  /** Whether trailers may follow, which are then signed where chunks are. */
  readonly trailers: boolean
}

/** Decodes one body. */
export class ChunkedDecoder {
  /** By lower-case name; complete once `end` has returned. */
  readonly trailers = new Map<string, string>()
  readonly #options: ChunkedOptions
  #state: State = 'head'
  /** The beginning of a line whose end has not come yet. */
  #line = ''
  #left = 0
  #hash: Hash | undefined
  #claimed = ''
  #previous: string
  #trailerText = ''
  #trailerBytes = 0
  #trailerSignature: string | undefined

  constructor(options: ChunkedOptions) {
    this.#options = options
    this.#previous = options.signed?.signature ?? ''
  }

  /** Takes the next bytes and gives the payload in them to `emit`. @throws S3Error where they are not as they must be. */
  push(bytes: Buffer, emit: (payload: Buffer) => void): void {
    let at = 0
    while (at < bytes.length) {
      if (this.#state === 'data') {
        const piece = bytes.subarray(at, at + this.#left)
        at += piece.length
        this.#left -= piece.length
        this.#hash?.update(piece)
        emit(piece)
        if (this.#left === 0) this.#endChunk()
      } else if (this.#state === 'done') {
        throw incomplete('there are bytes after its end')
      } else {
        const end = bytes.indexOf(10, at)
        const stop = end === -1 ? bytes.length : end + 1
        this.#line += bytes.toString('latin1', at, stop)
        at = stop
        this.#checkLine()
        if (end !== -1) this.#takeLine()
      }
    }
  }

  /** Says that no more bytes follow. @throws S3Error where the body is not complete. */
  end(): void {
    // Some senders leave the empty line after the last chunk out.
    if (this.#state === 'trailer' && this.#line === '') this.#finish()
    if (this.#state !== 'done') throw incomplete('it was cut')
  }

  #checkLine(): void {
    const bound = this.#state === 'trailer' ? TRAILER_BYTES_MAX : HEAD_BYTES_MAX
    if (this.#line.length > bound) throw incomplete('a line in it is too long')
  }

  #takeLine(): void {
    const line = this.#line.endsWith('\r\n') ? this.#line.slice(0, -2) : this.#line.slice(0, -1)
    this.#line = ''
    if (this.#state === 'head') this.#takeHead(line)
    else if (this.#state === 'trailer') this.#takeTrailer(line)
    else if (line === '') this.#state = 'head'
    else throw incomplete('a chunk is longer than it says')
  }

  #takeHead(line: string): void {
    const [length = '', ...extensions] = line.split(';')
    if (!/^[0-9a-fA-F]{1,12}$/.test(length)) throw incomplete('a chunk has no length')
    this.#left = Number.parseInt(length, 16)
    if (this.#options.signed !== undefined) {
      const extension = extensions.find((text) => text.startsWith(SIGNATURE_PREFIX))
      if (extension === undefined) throw new S3Error('SignatureDoesNotMatch', 'A chunk of the body is not signed')
      this.#claimed = extension.slice(SIGNATURE_PREFIX.length)
      this.#hash = createHash('sha256')
    }
    if (this.#left > 0) {
      this.#state = 'data'
      return
    }
    this.#checkChunk()
    this.#state = 'trailer'
  }

  #endChunk(): void {
    this.#checkChunk()
    this.#state = 'dataEnd'
  }

  #checkChunk(): void {
    const { signed } = this.#options
    if (signed === undefined || this.#hash === undefined) return
    // Built here from the running hash, since the chunk as a whole is never in memory.
    const hash = this.#hash.digest('hex')
    const text = `${ALGORITHM}-PAYLOAD\n${signed.amzDate}\n${signed.scope}\n${this.#previous}\n${EMPTY_SHA256}\n${hash}`
    const expected = sign(signed.key, text)
    if (!equalSignatures(expected, this.#claimed)) {
      throw new S3Error('SignatureDoesNotMatch', 'The signature of a chunk of the body does not match')
    }
    this.#previous = expected
    this.#hash = undefined
  }

  #takeTrailer(line: string): void {
    if (line === '') {
      this.#finish()
      return
    }
    this.#trailerBytes += line.length
    const colon = line.indexOf(':')
    if (!this.#options.trailers || colon < 1 || this.#trailerBytes > TRAILER_BYTES_MAX) {
      throw incomplete('what follows its last chunk is no trailer')
    }
    const name = line.slice(0, colon).trim().toLowerCase()
    const value = line.slice(colon + 1).trim()
    if (name === TRAILER_SIGNATURE) {
      this.#trailerSignature = value
    } else {
      this.trailers.set(name, value)
      this.#trailerText += `${name}:${value}\n`
    }
  }

  #finish(): void {
    this.#state = 'done'
    const { signed, trailers } = this.#options
    if (signed === undefined || !trailers) return
    const text = trailerStringToSign(signed.amzDate, signed.scope, this.#previous, this.#trailerText)
    if (!equalSignatures(sign(signed.key, text), this.#trailerSignature ?? '')) {
      throw new S3Error('SignatureDoesNotMatch', 'The signature of the trailer of the body does not match')
    }
  }
}

function incomplete(detail: string): S3Error {
  return new S3Error('IncompleteBody', `The aws-chunked body cannot be read: ${detail}`)
}
