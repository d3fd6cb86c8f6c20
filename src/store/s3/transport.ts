/**
 * One HTTP exchange with a bounded body, over undici's dispatcher: no streams, no URLs, so that the path goes out as it
 * is given and a small request costs little. Knows nothing of S3 but that answers to HEAD have no body.
 *
 * A body is collected into one buffer: the caller's where it gives one, else one of the announced length. An exchange
 * ends by its answer, by an error, by its deadlines or by its signal, whichever comes first.
 */
import { lookup as dnsLookup, type LookupAddress, type LookupOptions } from 'node:dns'
import type { IncomingHttpHeaders } from 'node:http'
import { Pool, type Dispatcher } from 'undici'

import { OperationError } from '#base/errors.ts'
import { abortedError } from '#store/abort.ts'

export interface Exchange {
  /** Completes "Cannot ...", for errors. */
  readonly action: string
  readonly method: string
  /** Encoded, with the query. */
  readonly path: string
  /** Names and values by turns. */
  readonly headers: string[]
  readonly body: Uint8Array | undefined
  readonly timeoutMs: number
  readonly signal: AbortSignal | undefined
  /** Where the body of a 2xx goes. */
  readonly sink: Sink | undefined
  /** Most bytes of a body that has no sink. */
  readonly bodyBytesMax: number
}

/** Takes the body of a 2xx as it arrives, and survives an exchange that breaks: what came before stays counted. */
export interface Sink {
  /** Looks at the head before any byte is taken; throws to refuse the body. */
  begin(status: number, headers: IncomingHttpHeaders): void
  /** Takes bytes; false when it wants no more: the exchange then ends well, and its connection is dropped. */
  take(chunk: Buffer): boolean
  /** Bytes so far. */
  readonly taken: number
}

export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  /** Empty where a sink took it. */
  readonly body: Buffer
}

const NO_BYTES = Buffer.alloc(0)
/** The uplink that a body's deadline allows for: 64 KiB a second. */
const SLOWEST_BYTES_PER_MS = 64

/** Node's pool, of which a buffer may be a part, gives out no larger ones: what is larger has its memory to itself. */
const OWN_BYTES_MIN = Buffer.poolSize / 2
/** What was taken of the memory that sockets read into. */
const taken: ArrayBufferLike[] = []

/**
 * Gives the memory of a chunk back once the parser is done with it. V8 counts what lies outside of its heap, and collects all of
 * the heap for every few dozen MiB of it: else collections take a third of the processor time of a large download.
 */
function freeLater({ buffer }: Buffer): void {
  if (taken.push(buffer) === 1) setImmediate(freeTaken)
}

function freeTaken(): void {
  for (const buffer of taken) if (buffer instanceof ArrayBuffer) buffer.transfer(0)
  taken.length = 0
}

/** The connections to one origin: kept alive, one request at a time on each. */
export function openPool(origin: string, connections: number, timeoutMs: number): Pool {
  return new Pool(origin, {
    connections,
    pipelining: 1,
    keepAliveTimeout: 15_000,
    connect: { timeout: Math.min(timeoutMs, 10_000), lookup },
  })
}

/** Names under `localhost` are this machine (RFC 6761), which not every resolver knows: for buckets in host names. */
function lookup(
  name: string,
  options: LookupOptions,
  done: (error: NodeJS.ErrnoException | null, address: string | LookupAddress[], family?: number) => void,
): void {
  if (!name.endsWith('.localhost')) dnsLookup(name, options, done)
  else if (options.all === true) done(null, [{ address: '127.0.0.1', family: 4 }])
  else done(null, '127.0.0.1', 4)
}

/** Sends a request and takes its whole answer. */
export function exchange(pool: Pool, request: Exchange): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const { signal, body } = request
    if (signal?.aborted === true) {
      reject(abortedError(request.action, signal))
      return
    }
    const handler = new ExchangeHandler(request, resolve, reject)
    pool.dispatch(
      {
        method: request.method,
        path: request.path,
        headers: request.headers,
        body: body ?? null,
        headersTimeout: request.timeoutMs + (body === undefined ? 0 : Math.ceil(body.length / SLOWEST_BYTES_PER_MS)),
        bodyTimeout: request.timeoutMs,
        // undici closes the connection after a HEAD unless it is told that the server can be trusted.
        reset: false,
      },
      handler,
    )
  })
}

class ExchangeHandler implements Dispatcher.DispatchHandler {
  readonly #request: Exchange
  readonly #resolve: (answer: Answer) => void
  readonly #reject: (error: Error) => void
  readonly #onAbort: (() => void) | undefined
  #controller: Dispatcher.DispatchController | undefined
  #ended = false
  #status = 0
  #headers: IncomingHttpHeaders = {}
  #sink: Sink | undefined
  #body: Buffer = NO_BYTES
  #bodyLength = 0

  constructor(request: Exchange, resolve: (answer: Answer) => void, reject: (error: Error) => void) {
    this.#request = request
    this.#resolve = resolve
    this.#reject = reject
    const { signal } = request
    if (signal !== undefined) {
      this.#onAbort = () => this.#drop(abortedError(request.action, signal))
      signal.addEventListener('abort', this.#onAbort, { once: true })
    }
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller
    // Given up while it waited for a connection.
    if (this.#ended) controller.abort(new Error('given up'))
  }

  onResponseStart(_controller: Dispatcher.DispatchController, status: number, headers: IncomingHttpHeaders): void {
    if (status < 200 || this.#ended) return
    this.#status = status
    this.#headers = headers
    const length = Number(headers['content-length'] ?? 0)
    try {
      if (status < 300 && this.#request.sink !== undefined) {
        this.#sink = this.#request.sink
        this.#sink.begin(status, headers)
      } else if (this.#request.method !== 'HEAD' && length > 0) {
        this.#body = Buffer.allocUnsafe(Math.min(length, this.#request.bodyBytesMax))
      }
    } catch (error) {
      this.#drop(error as Error)
    }
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#ended) return
    if (this.#sink === undefined) this.#collect(chunk)
    else if (!this.#sink.take(chunk)) {
      this.#end()
      this.#resolve({ status: this.#status, headers: this.#headers, body: NO_BYTES })
      this.#controller?.abort(new Error('enough'))
    }
    if (chunk.length >= OWN_BYTES_MIN) freeLater(chunk)
  }

  onResponseEnd(): void {
    if (this.#ended) return
    this.#end()
    const body = this.#body.length === this.#bodyLength ? this.#body : this.#body.subarray(0, this.#bodyLength)
    this.#resolve({ status: this.#status, headers: this.#headers, body })
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    if (this.#ended) return
    this.#end()
    this.#reject(error)
  }

  #collect(chunk: Buffer): void {
    const length = this.#bodyLength + chunk.length
    if (length > this.#request.bodyBytesMax) {
      const detail = `the answer is longer than ${this.#request.bodyBytesMax} bytes`
      this.#drop(new OperationError('STORE_PROTOCOL', `Cannot ${this.#request.action}: ${detail}`))
      return
    }
    if (length > this.#body.length) {
      const larger = Buffer.allocUnsafe(Math.max(length, 2 * this.#body.length))
      this.#body.copy(larger, 0, 0, this.#bodyLength)
      this.#body = larger
    }
    chunk.copy(this.#body, this.#bodyLength)
    this.#bodyLength = length
  }

  /** Ends with an error, and drops the connection, on which more of this answer may come. */
  #drop(error: Error): void {
    if (this.#ended) return
    this.#end()
    this.#reject(error)
    this.#controller?.abort(error)
  }

  #end(): void {
    this.#ended = true
    if (this.#onAbort !== undefined) this.#request.signal?.removeEventListener('abort', this.#onAbort)
  }
}
