/**
 * A proxy before an S3 server that notes every request and does harm where a test asks for it: answers of its own, answers
 * lost after the server has acted, bodies cut, altered or late. The Host header goes through as it is, so signatures hold.
 */
import { createServer, request as httpRequest, type IncomingHttpHeaders, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** A request that came by. */
export interface Noted {
  readonly method: string
  /** As it was sent, with the query. */
  readonly url: string
  readonly headers: IncomingHttpHeaders
}

/** What the server answered, for a fault to alter. */
export interface Upstream {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
}

export type Fault =
  /** Answers by itself; the server hears nothing. */
  | { readonly kind: 'answer'; readonly status: number; readonly body?: string; readonly headers?: IncomingHttpHeaders }
  /** The server acts, and its answer is lost. */
  | { readonly kind: 'lose' }
  /** The connection breaks before the server hears anything. */
  | { readonly kind: 'refuse' }
  /** The answer breaks after so many bytes of its body. */
  | { readonly kind: 'cut'; readonly bytes: number }
  /** The server hears of it once something else has been done. */
  | { readonly kind: 'wait'; readonly until: () => Promise<unknown> }
  /** No answer comes. */
  | { readonly kind: 'hang' }
  /** The answer is another. */
  | { readonly kind: 'alter'; readonly alter: (upstream: Upstream) => Upstream }

export interface FaultProxy {
  readonly endpoint: string
  /** All requests since the last `clear`. */
  readonly noted: readonly Noted[]
  clear(): void
  /** The next `times` requests that match meet the fault. */
  fault(match: (request: Noted) => boolean, fault: Fault, times?: number): void
  /** Resolves when the server has acted on all that came by, whoever waits for its answer. */
  settled(): Promise<void>
  close(): Promise<void>
}

interface Armed {
  readonly match: (request: Noted) => boolean
  readonly fault: Fault
  left: number
}

/** An S3 error document. */
export function errorDocument(code: string, more = ''): string {
  return `<?xml version="1.0"?><Error><Code>${code}</Code><Message>made up</Message>${more}</Error>`
}

/** Starts a proxy before `target` on a free port. */
export async function startFaultProxy(target: string): Promise<FaultProxy> {
  const noted: Noted[] = []
  const armed: Armed[] = []
  const pending = new Set<Promise<unknown>>()
  const server = createServer((incoming, response) => {
    const chunks: Buffer[] = []
    // A client that breaks off is what some tests are about.
    incoming.on('error', () => response.destroy())
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk))
    incoming.on('end', () => {
      const request: Noted = { method: incoming.method ?? '', url: incoming.url ?? '', headers: incoming.headers }
      noted.push(request)
      const found = armed.find((each) => each.left > 0 && each.match(request))
      if (found !== undefined) found.left--
      const serving = serve(target, request, Buffer.concat(chunks), response, found?.fault)
        .catch(() => response.destroy())
        .finally(() => pending.delete(serving))
      pending.add(serving)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    endpoint: `http://127.0.0.1:${port}`,
    noted,
    clear: () => {
      noted.length = 0
      armed.length = 0
    },
    fault: (match, fault, times = 1) => armed.push({ match, fault, left: times }),
    settled: async () => {
      while (pending.size > 0) await Promise.allSettled(pending)
    },
    close: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

async function serve(
  target: string,
  request: Noted,
  body: Buffer,
  response: ServerResponse,
  fault: Fault | undefined,
): Promise<void> {
  switch (fault?.kind) {
    case 'answer':
      response.writeHead(fault.status, fault.headers ?? {}).end(request.method === 'HEAD' ? undefined : fault.body)
      return
    case 'refuse':
      response.destroy()
      return
    case 'hang':
      return
    case 'wait':
      await fault.until()
      break
    default:
  }
  const upstream = await forward(target, request, body)
  if (fault?.kind === 'lose') {
    response.destroy()
    return
  }
  const { status, headers, body: answer } = fault?.kind === 'alter' ? fault.alter(upstream) : upstream
  const { 'transfer-encoding': chunked, connection: _connection, ...kept } = headers
  if (chunked !== undefined) kept['content-length'] = String(answer.length)
  response.writeHead(status, kept)
  if (fault?.kind === 'cut') response.write(answer.subarray(0, fault.bytes), () => response.destroy())
  else response.end(answer)
}

function forward(target: string, request: Noted, body: Buffer): Promise<Upstream> {
  const { hostname, port } = new URL(target)
  return new Promise((resolve, reject) => {
    const { method, url: path, headers } = request
    const outgoing = httpRequest({ hostname, port, method, path, headers, setHost: false }, (answer) => {
      const chunks: Buffer[] = []
      answer.on('data', (chunk: Buffer) => chunks.push(chunk))
      answer.on('error', reject)
      answer.on('end', () =>
        resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body: Buffer.concat(chunks) }),
      )
    })
    outgoing.on('error', reject)
    outgoing.end(body)
  })
}
