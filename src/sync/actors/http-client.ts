/**
 * Requests of actors that speak HTTP: a path that goes out as it is given, a body that is made anew for each sending, an answer of
 * bounded length, and one reading of what went wrong. Nothing is sent again here: that is for the sync, which knows what else waits.
 *
 * A file's body is guarded: its last bytes leave only once its stream has ended well and has had the length that was announced.
 * So a server never gets a whole request for a file that was changed meanwhile.
 */
import type { IncomingHttpHeaders } from 'node:http'
import { Agent } from 'undici'

import { OperationError, type ErrorCode } from '#base/errors.ts'
import { abortedError, checkAborted } from '#store/abort.ts'
import { connectionError } from '#store/s3/errors.ts'
import { lengthError } from '#store/source.ts'

import type { FileToSend } from '#sync/actor.ts'

/** For an answer to begin once a request is sent, and for each pause in it. */
const TIMEOUT_MS = 60_000
const CONNECT_MS = 10_000
/** A listing of 10,000 entries has some 3 MB. */
const ANSWER_BYTES_MAX = 64 * 2 ** 20
/** What a refusal says of itself is shown so far. */
const SHOWN_CHARACTERS = 200

export interface HttpRequest {
  /** Completes "Cannot ...", for errors: without secrets. */
  readonly action: string
  readonly method: string
  readonly origin: string
  /** Encoded, with the query. */
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly body?: Uint8Array | AsyncIterable<Uint8Array>
  readonly timeoutMs?: number
  readonly signal?: AbortSignal | undefined
}

export interface HttpAnswer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
}

export class HttpClient {
  readonly #agent: Agent

  /** `connections`: requests under way at most. */
  constructor(connections: number) {
    this.#agent = new Agent({ connections, pipelining: 1, connect: { timeout: CONNECT_MS } })
  }

  /**
   * Sends a request and takes its whole answer, whatever its status.
   * @throws OperationError `ABORTED`, `STORE_TIMEOUT`, `STORE_UNAVAILABLE`, `STORE_PROTOCOL`; and whatever the body throws.
   */
  async request(request: HttpRequest): Promise<HttpAnswer> {
    const body = new Body(request.action)
    const { status, headers } = await this.#exchange(request, () => body)
    return { status, headers, body: body.whole() }
  }

  /** The same, with the body of a good answer given to `take` as it comes. */
  async receive(request: HttpRequest, take: (chunk: Buffer) => void): Promise<HttpAnswer> {
    const body = new Body(request.action)
    const { status, headers } = await this.#exchange(request, (good) => (good ? { take } : body))
    return { status, headers, body: body.whole() }
  }

  async close(): Promise<void> {
    // Whoever waits for calls under way has done so; what is left has nobody to take it.
    await this.#agent.destroy()
  }

  async #exchange(
    request: HttpRequest,
    sinkOf: (isGood: boolean) => Pick<Body, 'take'>,
  ): Promise<Omit<HttpAnswer, 'body'>> {
    const { action, method, origin, path, headers, body, timeoutMs = TIMEOUT_MS, signal } = request
    checkAborted(action, signal)
    try {
      const answer = await this.#agent.request({
        origin,
        path,
        method,
        headers: { ...headers },
        body: body === undefined ? null : body instanceof Uint8Array ? body : asBody(body),
        headersTimeout: timeoutMs,
        bodyTimeout: timeoutMs,
        signal: signal ?? null,
      })
      const sink = sinkOf(answer.statusCode >= 200 && answer.statusCode < 300)
      for await (const chunk of answer.body) sink.take(chunk as Buffer)
      return { status: answer.statusCode, headers: answer.headers }
    } catch (error) {
      if (signal?.aborted === true) throw abortedError(action, signal)
      throw connectionError(action, error)
    }
  }
}

/** The whole of an answer, of bounded length. */
class Body {
  readonly #action: string
  readonly #chunks: Buffer[] = []
  #bytes = 0

  constructor(action: string) {
    this.#action = action
  }

  take(chunk: Buffer): void {
    this.#bytes += chunk.length
    if (this.#bytes > ANSWER_BYTES_MAX) {
      const detail = `the answer is longer than ${ANSWER_BYTES_MAX} bytes`
      throw new OperationError('STORE_PROTOCOL', `Cannot ${this.#action}: ${detail}`, { hint: SERVER_HINT })
    }
    this.#chunks.push(chunk)
  }

  whole(): Buffer {
    return Buffer.concat(this.#chunks)
  }
}

/** undici takes any iterable of bytes, and its types only streams. */
function asBody(body: AsyncIterable<Uint8Array>): Uint8Array {
  return body as unknown as Uint8Array
}

const SERVER_HINT = 'Check that the URL is that of the service that was meant.'

/**
 * The bytes of a file, told to `each` on their way. The last of them are held back until the stream has ended.
 * @throws OperationError `INPUT_INVALID` where it has another length than was said.
 */
export async function* guardedStream(
  file: Pick<FileToSend, 'path' | 'size' | 'stream'>,
  each: (chunk: Uint8Array) => void,
): AsyncGenerator<Uint8Array, void, undefined> {
  let held: Uint8Array | undefined
  let bytes = 0
  for await (const chunk of file.stream()) {
    if (chunk.length === 0) continue
    bytes += chunk.length
    if (bytes > file.size) throw lengthError(file.path, file.size, 'it has more')
    each(chunk)
    if (held !== undefined) yield held
    held = chunk
  }
  if (bytes < file.size) throw lengthError(file.path, file.size, `it has ${bytes}`)
  if (held !== undefined) yield held
}

/** The whole of a small file, under the same guard. */
export async function wholeOf(file: Pick<FileToSend, 'path' | 'size' | 'stream'>): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  for await (const chunk of guardedStream(file, () => undefined)) chunks.push(chunk)
  return Buffer.concat(chunks, file.size)
}

/** What an HTTP status is called here. */
function codeOf(status: number): ErrorCode {
  if (status === 401 || status === 403) return 'STORE_DENIED'
  if (status === 404) return 'STORE_NOT_FOUND'
  if (status === 405 || status === 501) return 'STORE_UNSUPPORTED'
  if (status === 408 || status === 504) return 'STORE_TIMEOUT'
  if (status === 409 || status === 412) return 'STORE_CONFLICT'
  if (status === 413) return 'STORE_FILE_TOO_LARGE'
  if (status === 414) return 'STORE_NAME_TOO_LONG'
  if (status === 422) return 'STORE_CORRUPT'
  // Swift's own of a rate limit is 498.
  if (status === 429 || status === 498 || status === 503) return 'STORE_THROTTLED'
  if (status === 507) return 'STORE_NO_SPACE'
  if (status >= 500) return 'STORE_UNAVAILABLE'
  return 'STORE_PROTOCOL'
}

/** The error for a refusal, with some of what it says; `action` completes "Cannot ...". */
export function refusal(
  action: string,
  { status, body }: Pick<HttpAnswer, 'status' | 'body'>,
  hint?: string,
): OperationError {
  const code = codeOf(status)
  const text = body
    .toString('utf8', 0, 4 * SHOWN_CHARACTERS)
    .replace(/<[^>]*>/g, ' ')
    .replace(/[\p{Cc}\s]+/gu, ' ')
    .trim()
    .slice(0, SHOWN_CHARACTERS)
  const detail = text === '' ? '' : `, ${text.replace(/\.$/, '')}`
  const help = hint ?? (code === 'STORE_PROTOCOL' ? SERVER_HINT : undefined)
  return new OperationError(code, `Cannot ${action}: the server answers ${status}${detail}`, {
    ...(help === undefined ? {} : { hint: help }),
  })
}

/** The one value of a header. */
export function headerOf(headers: IncomingHttpHeaders, name: string): string | undefined {
  const value = headers[name]
  return Array.isArray(value) ? value[0] : value
}
