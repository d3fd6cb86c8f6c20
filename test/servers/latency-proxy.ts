/**
 * A proxy before an S3 server that is as far away as a real one: it holds back the first byte of each answer by the kind of
 * request, lets each connection carry so many bytes a second each way, and counts requests by kind. It looks at the head of a
 * request only; all else goes through as it comes, so that it costs little beside the server. Clients must not pipeline.
 *
 *   as a program: latency-proxy.ts TARGET_PORT [none|puts]     prints its port, answers GET /.counts there, ends with its stdin
 */
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { fileURLToPath } from 'node:url'

/** Kinds of requests by what they take and cost. */
export type RequestKind = 'get' | 'head' | 'list' | 'put' | 'part' | 'copy' | 'post' | 'delete' | 'deletes' | 'other'

export interface Distance {
  /** From the last byte of the request to the first of the answer, in ms, beyond what the server takes. */
  readonly firstByteMs: number
  readonly listMs: number
  readonly putMs: number
  /** Of one connection, each way; Infinity for no bound. */
  readonly bytesPerSecond: number
}

/** A bucket in the same region, as published figures of peers imply it. */
export const SAME_REGION: Distance = { firstByteMs: 15, listMs: 60, putMs: 25, bytesPerSecond: 90e6 }
export const NO_DISTANCE: Distance = { firstByteMs: 0, listMs: 0, putMs: 0, bytesPerSecond: Number.POSITIVE_INFINITY }

/** Only what writes waits, so that nothing but the number of requests at once decides. */
const ONLY_PUTS: Distance = { ...NO_DISTANCE, putMs: SAME_REGION.putMs }

export interface LatencyProxy {
  readonly port: number
  /** Requests by kind since the last `reset`. */
  readonly counts: ReadonlyMap<RequestKind, number>
  reset(): void
  close(): Promise<void>
}

/** Starts a proxy before a server on this machine. */
export async function startLatencyProxy(targetPort: number, distance: Distance): Promise<LatencyProxy> {
  const counts = new Map<RequestKind, number>()
  const connections = new Set<Connection>()
  const server = createServer({ noDelay: true }, (client) => {
    const connection = new Connection(client, targetPort, distance, (kind) => {
      counts.set(kind, (counts.get(kind) ?? 0) + 1)
      return kind
    })
    connection.counts = (): string => JSON.stringify(Object.fromEntries(counts))
    connection.reset = (): void => counts.clear()
    connections.add(connection)
    client.on('close', () => connections.delete(connection))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    counts,
    reset: () => counts.clear(),
    close: async () => {
      for (const connection of connections) connection.end()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}

/** Pauses a socket for as long as what came through takes on a line of so many bytes a second. */
class Shaper {
  readonly #bytesPerMs: number
  /** When the line is free again. */
  #freeAt = 0

  constructor(bytesPerSecond: number) {
    this.#bytesPerMs = bytesPerSecond / 1000
  }

  passed(socket: Socket, bytes: number): void {
    if (this.#bytesPerMs === Number.POSITIVE_INFINITY) return
    const now = performance.now()
    this.#freeAt = Math.max(now, this.#freeAt) + bytes / this.#bytesPerMs
    // Timers are of a millisecond: shorter pauses are saved up, so that the rate is right over a few of them.
    if (this.#freeAt - now < PAUSE_MS_MIN) return
    socket.pause()
    setTimeout(() => socket.resume(), this.#freeAt - now)
  }
}

const PAUSE_MS_MIN = 2
const COUNTS_PATH = '/.counts'
const RESET_PATH = '/.reset'

class Connection {
  counts: () => string = () => '{}'
  reset: () => void = () => undefined
  readonly #client: Socket
  readonly #server: Socket
  readonly #distance: Distance
  readonly #note: (kind: RequestKind) => RequestKind
  readonly #up: Shaper
  readonly #down: Shaper
  /** Of the request under way; undefined between an answer and the next request. */
  #kind: RequestKind | undefined
  #lastByteAt = 0
  /** The answer's first bytes have been let through. */
  #answering = false
  /** What has come of the answer before its time. */
  #held: Buffer[] = []

  constructor(client: Socket, targetPort: number, distance: Distance, note: (kind: RequestKind) => RequestKind) {
    this.#client = client
    this.#distance = distance
    this.#note = note
    this.#up = new Shaper(distance.bytesPerSecond)
    this.#down = new Shaper(distance.bytesPerSecond)
    this.#server = connect({ port: targetPort, host: '127.0.0.1', noDelay: true })
    client.on('data', (chunk: Buffer) => this.#fromClient(chunk))
    this.#server.on('data', (chunk: Buffer) => this.#fromServer(chunk))
    client.on('drain', () => this.#server.resume())
    this.#server.on('drain', () => client.resume())
    for (const socket of [client, this.#server]) {
      socket.on('error', () => this.end())
      socket.on('close', () => this.end())
    }
  }

  end(): void {
    this.#client.destroy()
    this.#server.destroy()
  }

  #fromClient(chunk: Buffer): void {
    if (this.#kind === undefined || this.#answering) {
      const head = chunk.toString('latin1', 0, Math.min(chunk.length, 8192))
      const url = head.slice(head.indexOf(' ') + 1, head.indexOf(' HTTP/'))
      if (url === COUNTS_PATH || url === RESET_PATH) return this.#tell(url)
      this.#kind = this.#note(kindOf(head, url))
      this.#answering = false
    }
    this.#lastByteAt = performance.now()
    if (!this.#server.write(chunk)) this.#client.pause()
    else this.#up.passed(this.#client, chunk.length)
  }

  #tell(url: string): void {
    const body = this.counts()
    if (url === RESET_PATH) this.reset()
    this.#client.end(`HTTP/1.1 200 OK\r\ncontent-length: ${body.length}\r\nconnection: close\r\n\r\n${body}`)
  }

  #fromServer(chunk: Buffer): void {
    if (this.#answering) return this.#pass(chunk)
    // "Go on" is said by the machine that is asked, not by what it looks up: it waits for nothing.
    if (chunk.length < 64 && chunk.toString('latin1', 0, 12) === 'HTTP/1.1 100') return this.#pass(chunk)
    this.#held.push(chunk)
    if (this.#held.length > 1) return
    const wait = this.#lastByteAt + this.#delayMs() - performance.now()
    if (wait <= 0) this.#release()
    else setTimeout(() => this.#release(), wait)
  }

  #release(): void {
    this.#answering = true
    for (const chunk of this.#held.splice(0)) this.#pass(chunk)
  }

  #pass(chunk: Buffer): void {
    if (this.#client.destroyed) return
    if (!this.#client.write(chunk)) this.#server.pause()
    else this.#down.passed(this.#server, chunk.length)
  }

  #delayMs(): number {
    const { firstByteMs, listMs, putMs } = this.#distance
    switch (this.#kind) {
      case 'list':
        return listMs
      case 'put':
      case 'part':
      case 'copy':
      case 'post':
      case 'deletes':
        return putMs
      default:
        return firstByteMs
    }
  }
}

function kindOf(head: string, url: string): RequestKind {
  const [path = '', query = ''] = url.split('?')
  const method = head.slice(0, head.indexOf(' '))
  switch (method) {
    case 'GET':
      // The bucket alone in the path: whatever is asked of it is a listing, or as dear as one.
      return path.split('/').filter((part) => part !== '').length < 2 ? 'list' : 'get'
    case 'HEAD':
      return 'head'
    case 'PUT':
      if (/^x-amz-copy-source:/im.test(head)) return 'copy'
      return query.includes('partNumber=') ? 'part' : 'put'
    case 'POST':
      return /(?:^|&)delete(?:=|&|$)/.test(query) ? 'deletes' : 'post'
    case 'DELETE':
      return 'delete'
    default:
      return 'other'
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [, , targetPort, how = ''] = process.argv
  const DISTANCES: ReadonlyMap<string, Distance> = new Map([
    ['none', NO_DISTANCE],
    ['puts', ONLY_PUTS],
  ])
  const { port } = await startLatencyProxy(Number(targetPort), DISTANCES.get(how) ?? SAME_REGION)
  process.stdout.write(`${port}\n`)
  process.stdin.resume()
  process.stdin.on('end', () => process.exit(0))
}
