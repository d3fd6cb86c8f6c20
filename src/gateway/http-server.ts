/**
 * The HTTP/1 server under the gateway: node:http with bounds on everything that a stranger can make it hold. Header
 * section and count, time to send a head, idle time, connections; requests that are pipelined on one connection are
 * answered one after another, since a later one may count on what an earlier one wrote.
 *
 * Everything before authentication happens here, so refusals here are cheap and tell nothing.
 */
import { readFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'

import { gauge } from '#base/metrics.ts'
import { writeXml } from '#store/s3/xml.ts'

import { S3Error } from './errors.ts'

export interface HttpLimits {
  /** Connections that are served; a quarter more are told to come back, beyond that they are closed. */
  readonly connectionsMax: number
  readonly headerBytesMax: number
  readonly headersMax: number
  /** From the first byte of a head, or from connecting, to its end. */
  readonly headerMs: number
  /** Between requests. */
  readonly keepAliveMs: number
}

export const HTTP_LIMITS: HttpLimits = {
  connectionsMax: 10_000,
  // S3 has 8 KiB; a presigned URL with a session token and 2 KiB of metadata fit in twice that.
  headerBytesMax: 16 * 1024,
  headersMax: 200,
  headerMs: 20_000,
  keepAliveMs: 65_000,
}

/** Requests on one connection that wait for an earlier one. */
const PIPELINED_MAX = 32
/** Descriptors that connections leave to files. */
const DESCRIPTORS_KEPT = 256
const CHECK_MS = 1000
/** How long a closing server waits for requests that are under way. */
const CLOSE_MS = 5000

type Handle = (req: IncomingMessage, res: ServerResponse, signal: AbortSignal) => Promise<void>

/** What is known of a connection. */
interface Connection {
  requests: number
  /** Fulfilled when the last request so far has been answered. */
  last: Promise<void> | undefined
}

/** Accepts connections and gives their requests to `handle`, which answers each and never rejects. */
export class HttpServer {
  readonly #limits: HttpLimits
  readonly #handle: Handle
  readonly #server: Server
  readonly #connections = new Map<Socket, Connection>()
  readonly #connectionsMax: number
  readonly #gauge = gauge('eider_gateway_connections')

  constructor(limits: HttpLimits, handle: Handle) {
    this.#limits = limits
    this.#handle = handle
    this.#connectionsMax = Math.min(limits.connectionsMax, connectionsPossible())
    this.#server = createServer({
      maxHeaderSize: limits.headerBytesMax,
      headersTimeout: limits.headerMs,
      // A body may take hours; what is bounded is how long nothing of it comes.
      requestTimeout: 0,
      keepAliveTimeout: limits.keepAliveMs,
      connectionsCheckingInterval: CHECK_MS,
      noDelay: true,
      // HTTP/1.0 has none; what must be there is decided by the signature.
      requireHostHeader: false,
    })
    // The bound of node:http drops headers silently, which a signature would not survive; ours refuses.
    this.#server.maxHeadersCount = 0
    this.#server.maxConnections = Math.ceil(this.#connectionsMax * 1.25)
    this.#server.on('connection', (socket) => this.#accept(socket))
    this.#server.on('request', (req, res) => this.#enqueue(req, res))
    // The answer 100 is given when the body is first asked for, which is after authentication.
    this.#server.on('checkContinue', (req: IncomingMessage, res: ServerResponse) => this.#enqueue(req, res))
    this.#server.on('clientError', (error: Error & { code?: string }, socket) =>
      this.#refuseClient(error, socket as Socket),
    )
  }

  async listen(host: string, port: number): Promise<{ host: string; port: number }> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject)
      this.#server.listen({ host, port, backlog: 4096 }, () => {
        this.#server.off('error', reject)
        resolve()
      })
    })
    const address = this.#server.address() as AddressInfo
    return { host: address.address, port: address.port }
  }

  /** Takes no more connections, lets what is under way end for some seconds, then cuts it. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()))
    this.#server.closeIdleConnections()
    const timer = setTimeout(() => this.#server.closeAllConnections(), CLOSE_MS)
    await closed
    clearTimeout(timer)
  }

  #accept(socket: Socket): void {
    if (this.#connections.size >= this.#connectionsMax) {
      socket.on('error', () => socket.destroy())
      socket.end(rawResponse(new S3Error('SlowDown', 'Too many connections')))
      return
    }
    this.#connections.set(socket, { requests: 0, last: undefined })
    this.#gauge.inc()
    socket.on('close', () => {
      this.#connections.delete(socket)
      this.#gauge.dec()
    })
  }

  #enqueue(req: IncomingMessage, res: ServerResponse): void {
    const connection = this.#connections.get(req.socket)
    if (connection === undefined || connection.requests >= PIPELINED_MAX) {
      req.socket.destroy()
      return
    }
    connection.requests++
    const run = async (): Promise<void> => {
      await this.#run(req, res)
      connection.requests--
    }
    const waits = connection.requests > 1
    connection.last = waits && connection.last !== undefined ? connection.last.then(run) : run()
  }

  async #run(req: IncomingMessage, res: ServerResponse): Promise<void> {
    if (req.socket.destroyed) return
    const controller = new AbortController()
    const onClose = (): void => {
      if (!res.writableFinished) controller.abort()
    }
    res.on('close', onClose)
    req.on('error', ignore)
    try {
      await this.#handle(req, res, controller.signal)
    } finally {
      // An answer under way on a connection that breaks later has nothing left to abort.
      res.off('close', onClose)
    }
  }

  #refuseClient(error: Error & { code?: string }, socket: Socket): void {
    const busy = (this.#connections.get(socket)?.requests ?? 0) > 0
    if (!socket.writable || busy || error.code === 'ECONNRESET') {
      socket.destroy()
      return
    }
    let answer = new S3Error('BadRequest')
    if (error.code === 'HPE_HEADER_OVERFLOW') answer = new S3Error('RequestHeaderSectionTooLarge')
    else if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT')
      answer = new S3Error('RequestTimeout', undefined, { status: 408 })
    socket.end(rawResponse(answer), () => socket.destroy())
  }

  /** @throws S3Error where a request has more headers than it may. */
  checkHead(req: IncomingMessage): void {
    if (req.rawHeaders.length > this.#limits.headersMax * 2) {
      throw new S3Error('BadRequest', `Your request has more than ${this.#limits.headersMax} headers`)
    }
  }
}

function ignore(): void {}

/** How many connections the descriptors of this process allow, with enough left for files. */
function connectionsPossible(): number {
  const match = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1'))
  const descriptors = Number(match?.[1] ?? 1024)
  return Math.max(16, Math.floor((descriptors - DESCRIPTORS_KEPT) * 0.75))
}

/** A whole response for a connection that has no request to answer. */
function rawResponse(error: S3Error): string {
  const body = writeXml(
    'Error',
    [
      ['Code', error.code],
      ['Message', error.message],
    ],
    '',
  )
  const head = [
    `HTTP/1.1 ${error.status} ${error.code}`,
    'Content-Type: application/xml',
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Connection: close',
  ]
  return `${head.join('\r\n')}\r\n\r\n${body}`
}
