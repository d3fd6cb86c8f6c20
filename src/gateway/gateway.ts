/**
 * The S3 gateway: the S3 API over any store. This file puts the parts together and takes each request through its life:
 * head -> authenticated -> routed -> run -> answered, logged and counted. An error at any point becomes S3's error
 * document if the head of the answer has not gone out, and else cuts the connection, so that the client sees it.
 */
import { createHash } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'

import { isOperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { counter, histogram } from '#base/metrics.ts'
import type { Store } from '#store/store.ts'

import { Authenticator, type Signed } from './authenticate.ts'
import { Body } from './body.ts'
import { S3Error, s3ErrorOf } from './errors.ts'
import { Exchange, targetOf, type Target } from './exchange.ts'
import { HTTP_LIMITS, HttpServer, type HttpLimits } from './http-server.ts'
import { ObjectTree } from './object-tree.ts'
import type { Request, Service } from './operation.ts'
import { refuse } from './refuse.ts'
import { routeOf } from './route.ts'
import { UploadStaging } from './upload-staging.ts'

const UPLOAD_IDLE_MS = 7 * 24 * 3600 * 1000
const SWEEP_MS = 24 * 3600 * 1000
const BODY_IDLE_MS = 30_000
/** A body that nobody asked for is read and checked up to here, and refused beyond. */
const UNWANTED_BYTES_MAX = 64 * 1024

/** Of a request that cannot be read so far. */
const NO_TARGET: Target = { rawPath: '', rawQuery: '', bucket: '', key: '' }

const log = logger('gateway')

export interface GatewayOptions {
  readonly store: Store
  readonly host: string
  /** 0: any that is free. */
  readonly port: number
  readonly accessKey: string
  readonly secretKey: string
  /** The region that requests must be signed for; undefined: any. */
  readonly region?: string
  /** Where parts of uploads wait; of this gateway alone, on a disk with room for the uploads under way. */
  readonly stagingDirectory: string
  /** Host names below which a name is a bucket's: `BUCKET.DOMAIN`. Where absent: localhost, and `host`. */
  readonly domains?: readonly string[]
  readonly limits?: Partial<HttpLimits>
  /** How long a client may neither send nor take anything in the middle of a body. */
  readonly bodyIdleMs?: number
  /** The time that signatures are held to; for tests. */
  readonly nowMs?: () => number
}

export interface Gateway {
  readonly address: { readonly host: string; readonly port: number }
  /** Ends what is under way, or cuts it after some seconds; the store stays open. */
  close(): Promise<void>
}

/** Starts a gateway. @throws OperationError where the staging directory cannot be used, or the error of listening. */
export async function startGateway(options: GatewayOptions): Promise<Gateway> {
  const uploads = await UploadStaging.open(options.stagingDirectory)
  const sweep = (): Promise<void> => uploads.removeIdle(Date.now() - UPLOAD_IDLE_MS)
  await sweep()
  const timer = setInterval(() => {
    sweep().catch((error: unknown) => log.error({ err: error }, 'cannot remove idle uploads'))
  }, SWEEP_MS)
  timer.unref()
  const running = new RunningGateway(options, uploads)
  try {
    const address = await running.server.listen(options.host, options.port)
    return {
      address,
      close: async () => {
        clearInterval(timer)
        await running.server.close()
      },
    }
  } catch (error) {
    clearInterval(timer)
    throw error
  }
}

class RunningGateway {
  readonly server: HttpServer
  readonly #service: Service
  readonly #authenticator: Authenticator
  readonly #domains: readonly string[]
  readonly #bodyIdleMs: number
  readonly #nowMs: () => number

  constructor(options: GatewayOptions, uploads: UploadStaging) {
    const { accessKey, secretKey, region } = options
    this.#authenticator = new Authenticator({ accessKey, secretKey, region })
    this.#service = {
      tree: new ObjectTree(options.store),
      uploads,
      region,
      owner: { id: createHash('sha256').update(accessKey).digest('hex'), name: 'eider' },
    }
    this.#domains = options.domains ?? ['localhost', options.host.toLowerCase()]
    this.#bodyIdleMs = options.bodyIdleMs ?? BODY_IDLE_MS
    this.#nowMs = options.nowMs ?? Date.now
    this.server = new HttpServer({ ...HTTP_LIMITS, ...options.limits }, (req, res, signal) =>
      this.#serve(req, res, signal),
    )
  }

  async #serve(req: IncomingMessage, res: ServerResponse, signal: AbortSignal): Promise<void> {
    const start = performance.now()
    let failure: S3Error | undefined
    let exchange: Exchange | undefined
    try {
      this.server.checkHead(req)
      const target = targetOf(req.url ?? '', req.headers.host, this.#domains)
      exchange = new Exchange(req, res, signal, target, this.#bodyIdleMs)
      await this.#run(exchange)
    } catch (error) {
      exchange ??= new Exchange(req, res, signal, NO_TARGET, this.#bodyIdleMs)
      failure = await this.#fail(exchange, error)
    }
    record(exchange, failure, performance.now() - start)
  }

  async #run(exchange: Exchange): Promise<void> {
    const { req, target } = exchange
    const signed = this.#authenticator.verify(
      {
        method: exchange.method,
        rawPath: target.rawPath,
        rawQuery: target.rawQuery,
        headers: req.headers,
        rawHeaders: req.rawHeaders,
      },
      this.#nowMs(),
    )
    const expectedOwner = exchange.header('x-amz-expected-bucket-owner')
    if (expectedOwner !== undefined && expectedOwner !== this.#service.owner.id) throw new S3Error('AccessDenied')
    const operation = routeOf(exchange)
    exchange.operation = operation.name
    const request: Request = {
      ...this.#service,
      exchange,
      openBody: (options) => new Body(exchange, signed, options),
    }
    if (!operation.takesBody && hasBody(req)) await dropBody(exchange, signed)
    await operation.run(request)
  }

  async #fail(exchange: Exchange, error: unknown): Promise<S3Error> {
    const { res, signal } = exchange
    const answer = s3ErrorOf(error)
    if (answer.code === 'InternalError' && !signal.aborted && !isOperationError(error, 'ABORTED')) {
      log.error({ err: error, requestId: exchange.requestId, operation: exchange.operation }, 'a request failed')
    }
    // What has gone out cannot be taken back: a cut connection is the only way left to say that it is not whole.
    if (signal.aborted || res.headersSent) res.destroy()
    else await refuse(exchange, answer)
    return answer
  }
}

function hasBody(req: IncomingMessage): boolean {
  const length = req.headers['content-length']
  return (length !== undefined && length !== '0') || req.headers['transfer-encoding'] !== undefined
}

async function dropBody(exchange: Exchange, signed: Signed): Promise<void> {
  await new Body(exchange, signed, { checksumElsewhere: true }).bytes(UNWANTED_BYTES_MAX)
}

type Counter = ReturnType<typeof counter>
type Histogram = ReturnType<typeof histogram>
const counters = new Map<string, Counter>()
const histograms = new Map<string, Histogram>()

function record(exchange: Exchange, failure: S3Error | undefined, ms: number): void {
  const { operation, res, requestId } = exchange
  // 499: the client went away before it was told anything.
  const status = String(exchange.signal.aborted && !res.headersSent ? 499 : res.statusCode)
  const name = `${operation} ${status}`
  let count = counters.get(name)
  if (count === undefined) {
    count = counter('eider_gateway_requests_total', operation, status)
    counters.set(name, count)
  }
  count.inc()
  let seconds = histograms.get(operation)
  if (seconds === undefined) {
    seconds = histogram('eider_gateway_request_seconds', operation)
    histograms.set(operation, seconds)
  }
  seconds.observe(ms / 1000)
  if (!log.isLevelEnabled('debug')) return
  const { bucket, key } = exchange
  const error = failure === undefined ? {} : { error: failure.code, reason: failure.message }
  log.debug({ requestId, operation, bucket, key, status, ms: Math.round(ms * 100) / 100, ...error }, 'request')
}
