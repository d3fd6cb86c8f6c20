/**
 * Error answers. The hard part is a body that has not been read: closing a connection into which the client still
 * writes makes its system drop the answer unread. So a short rest is read and dropped and the connection kept; with a
 * long one the answer says that the connection will close, and what comes is dropped for a moment before it does.
 */
import type { S3Error } from './errors.ts'
import type { Exchange } from './exchange.ts'

/** Rests of bodies up to here are worth a connection. */
const SHORT_BYTES = 256 * 1024
const SHORT_MS = 1000
const LINGER_MS = 2000
const LINGER_BYTES = 64 * 1024 * 1024

/** Answers with the error's document. */
export async function refuse(exchange: Exchange, error: S3Error): Promise<void> {
  const { req, res } = exchange
  const document = exchange.method === 'HEAD' || error.status === 304 ? '' : exchange.errorDocument(error)
  const headers = [
    'Content-Type',
    'application/xml',
    'Content-Length',
    String(Buffer.byteLength(document)),
    ...error.headers,
  ]
  const unread = !req.complete
  // A client that waits for "100 Continue" has sent nothing and, told no, sends nothing.
  const waiting = unread && req.headers.expect !== undefined && req.readableFlowing === null
  if (unread && !waiting && isShort(exchange)) await drain(exchange, SHORT_MS, SHORT_BYTES)
  if (req.complete) {
    exchange.head(error.status, headers)
    res.end(document)
    return
  }
  exchange.head(error.status, [...headers, 'Connection', 'close'])
  if (waiting) {
    res.end(document)
    return
  }
  // All of the announced length, so that the client has the answer whole while its rest is drained.
  res.write(document)
  await drain(exchange, LINGER_MS, LINGER_BYTES)
  res.end()
}

function isShort({ req }: Exchange): boolean {
  const length = req.headers['content-length']
  return length !== undefined && Number(length) <= SHORT_BYTES
}

/** Reads and drops what comes, until it ends or a bound is met. */
async function drain({ req }: Exchange, ms: number, bytesMax: number): Promise<void> {
  if (req.complete || req.destroyed) return
  let bytes = 0
  await new Promise<void>((resolve) => {
    const settle = (): void => {
      clearTimeout(timer)
      req.off('data', onData).off('end', settle).off('close', settle)
      req.pause()
      resolve()
    }
    const onData = (chunk: Buffer): void => {
      bytes += chunk.length
      if (bytes > bytesMax) settle()
    }
    const timer = setTimeout(settle, ms)
    req.on('data', onData).on('end', settle).on('close', settle)
    req.resume()
  })
}
