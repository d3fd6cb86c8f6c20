/**
 * The registry for people and their tools, by HTTP: the page, the JSON of `http-routes.ts`, events and metrics. It has no port of its own: the
 * network of the cluster hands it the connections that begin with other bytes than its frames do.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

import { ERRORS, isOperationError, OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { gauge, registry as metrics } from '#base/metrics.ts'
import type { Cancel, Clock } from '#cluster/surroundings.ts'

import { EventStreams } from './event-streams.ts'
import { objectionTo } from './http-guard.ts'
import { EVENTS_PATH, METRICS_PATH, OPENAPI_PATH, ROUTES, routesOf } from './http-routes.ts'
import { openApi } from './openapi.ts'
import { PAGE, PAGE_POLICY } from './page.ts'
import type { RegistryServer } from './registry-server.ts'
import { shownHealth } from './registry-status.ts'

const log = logger('cluster/registry')

const CONNECTIONS_MAX = 256
/** Without a byte in either direction; streams of events have none. */
const IDLE_MS = 30_000
/** For a whole request to come, from the connection on, or from the answer to the one before. Node looks after that only where it listens itself. */
const REQUEST_MS = 10_000
/** Requests have no body that matters. */
const BODY_BYTES_MAX = 1024

const HEADERS: Readonly<Record<string, string>> = {
  'cache-control': 'no-store',
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
}

export interface RegistryHttpOptions {
  readonly server: RegistryServer
  readonly clock: Clock
  /** The secret of the cluster, where it has one. */
  readonly secret: Buffer | undefined
}

export class RegistryHttp {
  readonly #registry: RegistryServer
  readonly #secret: Buffer | undefined
  readonly #http: Server
  readonly #streams: EventStreams
  readonly #clock: Clock
  /** Of each connection that a request is waited for on: what ends the wait. */
  readonly #waits = new Map<Socket, Cancel>()
  readonly #sockets = new Set<Socket>()

  constructor({ server, clock, secret }: RegistryHttpOptions) {
    this.#registry = server
    this.#clock = clock
    this.#secret = secret
    this.#streams = new EventStreams(server.cluster, server.view, clock)
    this.#http = createServer({ maxHeaderSize: 16_384 }, (request, response) => {
      // It is not the request's any more when the answer has gone.
      const { socket } = request
      response.once('close', () => this.#await(socket))
      this.#take(request, response).catch((error: unknown) => this.#fail(response, error))
    })
    this.#http.timeout = IDLE_MS
  }

  /** For `TcpNetworkOptions.foreign`. */
  readonly handle = (socket: Socket): void => {
    if (this.#sockets.size >= CONNECTIONS_MAX) {
      socket.destroy()
      return
    }
    this.#sockets.add(socket)
    socket.once('close', () => {
      this.#sockets.delete(socket)
      this.#arrived(socket)
    })
    this.#await(socket)
    this.#http.emit('connection', socket)
  }

  close(): void {
    this.#streams.close()
    for (const socket of this.#sockets) socket.destroy()
  }

  /** The next request has its time from now on. */
  #await(socket: Socket): void {
    if (socket.destroyed) return
    this.#arrived(socket)
    this.#waits.set(
      socket,
      this.#clock.after(REQUEST_MS, () => socket.destroy()),
    )
  }

  #arrived(socket: Socket): void {
    this.#waits.get(socket)?.()
    this.#waits.delete(socket)
  }

  async #take(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const objection = objectionTo(request, this.#secret)
    if (objection !== undefined) {
      request.resume()
      return sendError(response, objection.status, objection.error, objection.headers)
    }
    await readAway(request)
    this.#arrived(request.socket)
    const path = (request.url ?? '/').split('?')[0] ?? '/'
    const method = request.method === 'HEAD' ? 'get' : (request.method ?? '').toLowerCase()
    const special = SPECIAL.get(path)
    const { routes, id } = routesOf(path)
    const allowed: readonly string[] = special === undefined ? routes.map((route) => route.method) : ['get']
    if (allowed.length === 0) {
      const error = new OperationError('INPUT_INVALID', `Cannot answer: there is nothing at ${path}`)
      return sendError(response, 404, error)
    }
    if (!allowed.includes(method)) {
      const allow = allowed.includes('get') ? 'GET, HEAD' : 'POST'
      const error = new OperationError('INPUT_INVALID', `Cannot answer: ${path} takes ${allow}`)
      return sendError(response, 405, error, { allow })
    }
    if (special !== undefined) return special(this.#registry, this.#streams, response)
    const route = routes.find((each) => each.method === method)
    sendJson(response, 200, await route?.run(this.#registry, id))
  }

  #fail(response: ServerResponse, error: unknown): void {
    if (response.destroyed) {
      log.debug({ err: error }, 'who asked by HTTP is gone')
      return
    }
    if (isOperationError(error) && !response.headersSent) {
      return sendError(response, ERRORS[error.code].status, error)
    }
    log.error({ err: error }, 'a request by HTTP was not answered')
    response.destroy()
  }
}

type Special = (registry: RegistryServer, streams: EventStreams, response: ServerResponse) => void | Promise<void>

const SPECIAL = new Map<string, Special>(
  Object.entries({
    '/': (_, __, response) => {
      const headers = { 'content-type': 'text/html; charset=utf-8', 'content-security-policy': PAGE_POLICY }
      response.writeHead(200, { ...HEADERS, ...headers }).end(PAGE)
    },
    [OPENAPI_PATH]: (_, __, response) => sendJson(response, 200, openApi()),
    [EVENTS_PATH]: (_, streams, response) => {
      if (streams.isFull) {
        throw new OperationError('CLUSTER_BUSY', 'Cannot tell of changes: so many are told already as can be')
      }
      // Of a HEAD there is nothing to follow.
      if (response.req.method === 'HEAD')
        response.writeHead(200, { ...HEADERS, 'content-type': 'text/event-stream' }).end()
      else streams.add(response, HEADERS)
    },
    [METRICS_PATH]: async ({ view }, _, response) => {
      const { state, disks, capacityBytes, usedBytes, freeBytes } = shownHealth(view)
      gauge('eider_cluster_health').set({ down: 0, degraded: 1, good: 2 }[state])
      gauge('eider_cluster_disks').set(disks)
      gauge('eider_cluster_disks_writable').set(view.writableRooms().length)
      gauge('eider_cluster_capacity_bytes').set(capacityBytes)
      gauge('eider_cluster_used_bytes').set(usedBytes)
      gauge('eider_cluster_free_bytes').set(freeBytes)
      response.writeHead(200, { ...HEADERS, 'content-type': metrics.contentType }).end(await metrics.metrics())
    },
  } satisfies Record<string, Special>),
)

/** All paths there are, for the description. */
export const PATHS: readonly string[] = [...SPECIAL.keys(), ...ROUTES.map(({ path }) => path)]

function sendJson(response: ServerResponse, status: number, body: unknown, headers = {}): void {
  // Who asked may be gone by now.
  if (response.destroyed) return
  const text = `${JSON.stringify(body)}\n`
  response.writeHead(status, { ...HEADERS, ...headers, 'content-type': 'application/json' }).end(text)
}

function sendError(
  response: ServerResponse,
  status: number,
  { code, message, hint }: OperationError,
  headers = {},
): void {
  sendJson(response, status, { code, message, hint }, headers)
}

/** @throws OperationError `INPUT_INVALID` for a long one */
async function readAway(request: IncomingMessage): Promise<void> {
  let bytes = 0
  for await (const chunk of request) {
    bytes += (chunk as Buffer).length
    if (bytes > BODY_BYTES_MAX) {
      throw new OperationError(
        'INPUT_INVALID',
        `Cannot take the request: its body is longer than ${BODY_BYTES_MAX} bytes`,
      )
    }
  }
}
