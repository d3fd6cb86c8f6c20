/**
 * Where other programs of this machine tell that a file has changed: `POST /any/path` is answered with 201 once that absolute
 * path is queued. It listens on the loopback address alone, and refuses what a web page could have a browser send: a request
 * with an Origin, or one that was sent to another host name than this machine's (DNS rebinding). Nothing but the path is taken
 * from a request, and its body is only read to its end.
 */
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { logger } from '#base/log.ts'

const log = logger('sync/listener')

const HOST = '127.0.0.1'
/** As Linux allows for a path, without the byte that ends it. */
const PATH_BYTES_MAX = 4095
/** A body has no meaning, so a form or a line of a program that always sends one is enough. */
const BODY_BYTES_MAX = 64 * 1024
/** For a whole request; those of a client on this machine take milliseconds. */
const REQUEST_MS_MAX = 10_000
const CONNECTIONS_MAX = 256

export interface ListenerOptions {
  /** 0 takes any that is free. */
  readonly port: number
  /** Queues what is at that absolute path; false where it lies in nothing that is synced. */
  readonly queue: (absolutePath: string) => boolean | Promise<boolean>
}

export interface Listener {
  readonly port: number
  /** Lets requests under way end. */
  close(): Promise<void>
}

/** Listens until it is closed. @throws the error of `listen`, with its `code`. */
export async function startListener({ port, queue }: ListenerOptions): Promise<Listener> {
  const server: Server = createServer((request, response) => {
    answer(request, queue).then(
      (told) => send(request, response, told),
      (error: unknown) => {
        // A client that went away before its request was whole has told nothing.
        if (!request.complete) {
          log.debug({ err: error }, 'a request broke off')
          return
        }
        log.error({ err: error }, 'cannot queue what was told of')
        const text = 'The path could not be queued; the log of the sync has the reason.'
        send(request, response, { status: 500, text })
      },
    )
  })
  server.requestTimeout = REQUEST_MS_MAX
  server.headersTimeout = REQUEST_MS_MAX
  server.maxConnections = CONNECTIONS_MAX
  server.listen(port, HOST)
  await once(server, 'listening')
  server.on('error', (error) => log.warn({ err: error }, 'the listener is in trouble'))
  const address = server.address()
  return {
    port: typeof address === 'object' && address !== null ? address.port : port,
    close: async () => {
      const closed = once(server, 'close')
      server.close()
      server.closeIdleConnections()
      // A client that sends the rest of its request never is not waited for.
      const patience = setTimeout(() => server.closeAllConnections(), REQUEST_MS_MAX)
      await closed
      clearTimeout(patience)
    },
  }
}

interface Answer {
  readonly status: number
  readonly text: string
  readonly headers?: Readonly<Record<string, string>>
}

async function answer(request: IncomingMessage, queue: ListenerOptions['queue']): Promise<Answer> {
  const refused = refusal(request)
  if (refused !== undefined) return refused
  const path = pathOf(request.url ?? '')
  if (typeof path !== 'string') return path
  if (!(await bodyEnds(request))) {
    return { status: 413, text: `The body is longer than ${BODY_BYTES_MAX} bytes; it needs none.` }
  }
  if (await queue(path)) return { status: 201, text: 'Queued.' }
  return { status: 404, text: 'The path lies in nothing that this sync sends.' }
}

/** For what a browser or a mistaken program sends. */
function refusal({ headers, method }: IncomingMessage): Answer | undefined {
  if (!isLoopback(headers.host ?? '')) {
    return { status: 403, text: 'Requests are taken for 127.0.0.1, [::1] and localhost alone: another Host was named.' }
  }
  if (headers.origin !== undefined)
    return { status: 403, text: 'Requests of web pages are not taken: there is an Origin.' }
  if (method === 'POST') return undefined
  return { status: 405, text: 'POST the path of a file that has changed.', headers: { allow: 'POST' } }
}

function isLoopback(host: string): boolean {
  return /^(?:localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\])(?::\d{1,5})?$/i.test(host)
}

/** The absolute path that the target of a request names. */
function pathOf(target: string): string | Answer {
  const bad = (text: string): Answer => ({ status: 400, text })
  if (!target.startsWith('/')) return bad('The target of the request must be an absolute path.')
  if (/[?#]/.test(target)) return bad('A path has no query: a ? in a name is written %3F, a # is written %23.')
  let decoded: string
  try {
    // Bytes beyond ASCII that are not encoded have been refused by the parser.
    decoded = decodeURIComponent(target)
  } catch {
    return bad('The path must be UTF-8, percent-encoded: a % in a name is written %25.')
  }
  if (decoded.includes('\0')) return bad('The path must not hold a null byte.')
  if (Buffer.byteLength(decoded) > PATH_BYTES_MAX) return bad(`The path is longer than ${PATH_BYTES_MAX} bytes.`)
  const names = decoded.split('/').filter((name) => name !== '')
  if (names.some((name) => name === '.' || name === '..')) return bad('The path must not hold . or .. as a name.')
  return `/${names.join('/')}`
}

/** Reads the body to its end; false where it is too long. */
async function bodyEnds(request: IncomingMessage): Promise<boolean> {
  if (Number(request.headers['content-length'] ?? 0) > BODY_BYTES_MAX) return false
  let size = 0
  // Given up early, it must not take the connection along, on which the answer goes.
  for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > BODY_BYTES_MAX) return false
  }
  return true
}

function send(request: IncomingMessage, response: ServerResponse, { status, text, headers = {} }: Answer): void {
  response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', ...headers }).end(`${text}\n`)
  // A client that is still sending would not see the answer if the rest met a closed connection.
  request.resume()
}
