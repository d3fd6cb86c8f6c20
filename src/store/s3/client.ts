/**
 * Sends S3 requests: signs them, retries what can be retried within the shared budget, follows a bucket to its region once,
 * and turns refusals into errors. Knows no operation by itself; those are in `operations.ts`.
 *
 * A request is sent again only where that cannot do harm by itself: every operation of this store is idempotent or guarded. Whoever
 * sends is asked before each attempt (`before`), and told whether an earlier one may have taken effect: its answer was lost.
 */
import { performance } from 'node:perf_hooks'
import type { Pool } from 'undici'

import type { OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { counter, histogram } from '#base/metrics.ts'
import { credentialSource, type CredentialSource } from './credentials.ts'
import { endpointOf, requestPath, type Endpoint, type S3Location } from './endpoint.ts'
import { canRetry, connectionError, isOutage, mayHaveActed, refusalOf, S3Error, s3ErrorOf } from './errors.ts'
import { Outage } from './outage.ts'
import { longestPauseMs, pause, pauseMs, RetryBudget } from './retry.ts'
import { Signer, type Header } from './signer.ts'
import { exchange, openPool, type Answer, type Sink } from './transport.ts'

export interface S3Request {
  /** As S3 calls it, for metrics. */
  readonly operation: string
  readonly method: 'GET' | 'HEAD' | 'PUT' | 'POST' | 'DELETE'
  /** Absent for a request to the bucket. */
  readonly key?: string | undefined
  /** Encoded and sorted. */
  readonly query?: string
  /** Beside those that every request has; a function is asked before each attempt. */
  readonly headers?: readonly Header[] | (() => readonly Header[])
  /** A function is asked before each attempt. */
  readonly body?: Uint8Array | (() => Uint8Array) | undefined
  /**
   * Runs before each attempt, from 1, and ends the request where it rejects: what only the sender can check must hold when it is
   * sent, not minutes before. `unanswered` says that an earlier attempt may have taken effect.
   */
  readonly before?: BeforeAttempt | undefined
  readonly sink?: Sink
  /** Statuses of 300 and more that are answers rather than errors. */
  readonly accept?: readonly number[]
  /** A 200 may have an error document for its body. */
  readonly errorIn200?: boolean
  /** What the server moves before it answers; it gets more time for it. */
  readonly workBytes?: number
  readonly signal?: AbortSignal | undefined
}

export type BeforeAttempt = (attempt: number, unanswered: boolean) => Promise<void>

/** An S3 listing of 1,000 keys of 1,024 bytes, each encoded in three, is 4 MB. */
const BODY_BYTES_MAX = 16 * 1024 * 1024
const CONNECTIONS = 64
const ATTEMPTS_MAX = 6
const BACKOFF_MS = 100
const TIMEOUT_MS = 30_000
/** A server or a network that is not back by then has to be seen to by somebody. */
const IO_TIMEOUT_MS = 5 * 60_000
/** A server of ours or a load balancer is back within some seconds of a restart. */
const HURRY_MS = 20_000
/** The slowest that a server is taken to copy: 10 MB a second. */
const SERVER_BYTES_PER_MS = 10_000

const log = logger('store/s3')
const sentBytes = counter('eider_s3_sent_bytes_total')

/** What one operation counts. */
interface OperationMetrics {
  readonly operation: string
  readonly outcomes: Map<string, { inc(): void }>
  readonly retries: { inc(): void }
  readonly seconds: { observe(value: number): void }
}

/** How an attempt ended: with an answer, or with an error that may be worth another. */
type Attempt<T> = { readonly value: T } | { readonly error: OperationError }

export class S3Client {
  readonly location: S3Location
  #endpoint: Endpoint
  #pool: Pool
  readonly #credentials: CredentialSource
  readonly #signer = new Signer()
  readonly #budget = new RetryBudget()
  readonly #outage = new Outage()
  /** What the endpoint last said of its time, and when that came. */
  #date: { readonly text: string; readonly at: number } | undefined
  readonly #metrics = new Map<string, OperationMetrics>()
  readonly #fixedHeaders: readonly Header[]
  readonly #timeoutMs: number
  readonly #backoffMs: number
  #followed = false
  #closed = false
  /** Times that a request is sent where time does not decide; fewer while the store is being opened. */
  attemptsMax: number
  /** How long an outage is waited out; 0, so that attempts are counted, while the store is being opened. */
  ioTimeoutMs: number
  /** Whether bodies are sent with a checksum: until the endpoint says that it knows of none. */
  checksums = true

  constructor(location: S3Location, region: string) {
    const { options, bucket } = location
    this.location = location
    this.#backoffMs = options.backoffMs ?? BACKOFF_MS
    this.attemptsMax = options.attemptsMax ?? ATTEMPTS_MAX
    this.ioTimeoutMs = options.ioTimeoutMs ?? IO_TIMEOUT_MS
    // One attempt must not last longer than all of them together.
    this.#timeoutMs = options.timeoutMs ?? Math.min(TIMEOUT_MS, options.ioTimeoutMs || TIMEOUT_MS)
    this.#credentials = credentialSource(options)
    this.#endpoint = endpointOf(bucket, region, options)
    this.#pool = this.#openPool()
    const fixed: Header[] = []
    if (options.requesterPays === true) fixed.push(['x-amz-request-payer', 'requester'])
    if (options.bucketOwner !== undefined) fixed.push(['x-amz-expected-bucket-owner', options.bucketOwner])
    this.#fixedHeaders = fixed
  }

  get endpoint(): Endpoint {
    return this.#endpoint
  }

  /** Waits outages out for as long as a server takes to restart, and no longer. */
  hurry(ms = HURRY_MS): void {
    this.ioTimeoutMs = Math.min(this.ioTimeoutMs, ms)
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.#pool.destroy()
  }

  /** The earliest that it can have been by the endpoint's clock at a moment of `performance.now()`; at most a second after that. */
  serverMs(at: number): number | undefined {
    const date = this.#date
    const ms = Date.parse(date?.text ?? '')
    return date === undefined || Number.isNaN(ms) ? undefined : ms + at - date.at
  }

  /** Sends a request until `read` makes something of its answer; an error of `read` that can be retried is. */
  async send<T>(request: S3Request, read: (answer: Answer) => T): Promise<T> {
    let unanswered = false
    let failures = 0
    let progress = 0
    const begin = performance.now()
    for (let attempts = 1; ; attempts++) {
      await request.before?.(attempts, unanswered)
      const outcome = await this.#attempt(request, read)
      if ('value' in outcome) return outcome.value
      const { error } = outcome
      if (this.#follow(error)) continue
      unanswered ||= mayHaveActed(error)
      // A body that breaks again and again gets there in the end, as long as each attempt brings some of it.
      const before = progress
      progress = request.sink?.taken ?? 0
      failures = progress > before ? 1 : failures + 1
      if (!canRetry(error) || this.#closed) throw error
      // An outage is waited out; what is wrong in another way is counted.
      const timed = this.ioTimeoutMs > 0 && isOutage(error)
      const leftMs = this.ioTimeoutMs - (performance.now() - begin)
      if (timed ? leftMs <= 0 : failures >= this.attemptsMax) throw error
      const paid = this.#budget.take()
      if (!timed && !paid) throw error
      this.#metricsOf(request.operation).retries.inc()
      log.debug({ operation: request.operation, attempts, err: error }, 'sends a request again')
      // Whoever waits while the budget is used up asks as seldom as anybody does.
      const ms = paid ? pauseMs(this.#backoffMs, failures) : longestPauseMs()
      await pause(this.action(request), timed ? Math.min(ms, leftMs) : ms, request.signal)
    }
  }

  /** Completes "Cannot ..." for a request. */
  action(request: Pick<S3Request, 'operation' | 'key'>): string {
    const what = request.key === undefined ? `bucket "${this.location.bucket}"` : `"${request.key}"`
    return `do ${request.operation} of ${what} at ${this.#endpoint.origin}`
  }

  async #attempt<T>(request: S3Request, read: (answer: Answer) => T): Promise<Attempt<T>> {
    const metrics = this.#metricsOf(request.operation)
    try {
      const answer = await this.#exchange(request, metrics)
      if (answer.status >= 300 && request.accept?.includes(answer.status) !== true) throw this.#refusal(request, answer)
      if (request.errorIn200 === true && answer.body.includes('<Error>')) throw this.#refusal(request, answer)
      const value = read(answer)
      this.#budget.give()
      this.#outage.ended()
      count(metrics, 'ok')
      return { value }
    } catch (cause) {
      const error = connectionError(this.action(request), cause)
      if (isOutage(error)) this.#outage.seen(error, this.location.bucket, performance.now())
      count(metrics, error.code)
      return { error }
    }
  }

  async #exchange(request: S3Request, metrics: OperationMetrics): Promise<Answer> {
    const found = this.#credentials()
    const credentials = found instanceof Promise ? await found : found
    const endpoint = this.#endpoint
    const extra = typeof request.headers === 'function' ? request.headers() : (request.headers ?? [])
    const { method, query = '' } = request
    const body = typeof request.body === 'function' ? request.body() : request.body
    const path = requestPath(endpoint, request.key)
    const headers = this.#signer.sign(
      { method, path, query, headers: [...this.#fixedHeaders, ...extra], body },
      endpoint,
      credentials,
      Date.now(),
    )
    if (body !== undefined) sentBytes.inc(body.length)
    const startMs = performance.now()
    const answer = await exchange(this.#pool, {
      action: this.action(request),
      method,
      path: query === '' ? path : `${path}?${query}`,
      headers,
      body,
      timeoutMs: this.#timeoutMs + Math.ceil((request.workBytes ?? 0) / SERVER_BYTES_PER_MS),
      signal: request.signal,
      sink: request.sink,
      bodyBytesMax: BODY_BYTES_MAX,
    })
    const endMs = performance.now()
    metrics.seconds.observe((endMs - startMs) / 1000)
    const date = headerOf(answer, 'date')
    if (date !== undefined) this.#date = { text: date, at: endMs }
    return answer
  }

  #refusal(request: S3Request, answer: Answer): S3Error {
    const header = (name: string): string | undefined => headerOf(answer, name)
    return s3ErrorOf(this.action(request), refusalOf(answer.status, header, answer.body))
  }

  /** Moves to the region that a refusal names; once, so that two endpoints cannot send us to and fro. */
  #follow(error: OperationError): boolean {
    if (!(error instanceof S3Error) || error.region === undefined || this.#followed) return false
    if (error.region === this.#endpoint.region) return false
    const malformed = error.s3Code === 'AuthorizationHeaderMalformed' || error.httpStatus === 400
    if (!malformed && !(this.#endpoint.regional && error.code === 'REGION_WRONG')) return false
    this.#followed = true
    const { bucket, options } = this.location
    log.info({ bucket, region: error.region, asked: this.#endpoint.region }, 'the bucket is in another region')
    const old = this.#pool
    this.#endpoint = endpointOf(bucket, error.region, options)
    this.#pool = this.#openPool()
    old.close().catch((cause: unknown) => log.debug({ err: cause }, 'cannot close connections'))
    return true
  }

  #openPool(): Pool {
    return openPool(this.#endpoint.origin, this.location.options.connections ?? CONNECTIONS, this.#timeoutMs)
  }

  #metricsOf(operation: string): OperationMetrics {
    let found = this.#metrics.get(operation)
    if (found === undefined) {
      const retries = counter('eider_s3_retries_total', operation)
      found = { operation, outcomes: new Map(), retries, seconds: histogram('eider_s3_request_seconds', operation) }
      this.#metrics.set(operation, found)
    }
    return found
  }
}

function count(metrics: OperationMetrics, outcome: string): void {
  let found = metrics.outcomes.get(outcome)
  if (found === undefined) {
    found = counter('eider_s3_requests_total', metrics.operation, outcome)
    metrics.outcomes.set(outcome, found)
  }
  found.inc()
}

/** A header of an answer that has it once. */
export function headerOf(answer: Pick<Answer, 'headers'>, name: string): string | undefined {
  const value = answer.headers[name]
  return typeof value === 'string' ? value : value?.[0]
}
