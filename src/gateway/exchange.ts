/**
 * One request and its answer, as the operations see it: what was asked of which bucket and key, and the ways to
 * answer. Parsing here is of the head only, and nothing of the path is normalised: a key is the bytes between the
 * bucket and the question mark, percent-decoded once.
 */
import { randomBytes } from 'node:crypto'
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'

import { decodePercent, parseQuery } from '#store/s3/sigv4.ts'
import { writeXml, type XmlNode } from '#store/s3/xml.ts'

import { S3Error } from './errors.ts'

/** Headers in the flat form that node:http writes without looking: name, value, name, value. */
export type FlatHeaders = string[]

const requestIdPrefix = randomBytes(5).toString('hex').toUpperCase()
let requestCount = 0

/** 16 hex digits: of this process, then a count. */
function nextRequestId(): string {
  requestCount = (requestCount + 1) % 0x1000000
  return requestIdPrefix + requestCount.toString(16).toUpperCase().padStart(6, '0')
}

/** Where a request points: the parts of its target, and the bucket and key that they and the host name. */
export interface Target {
  readonly rawPath: string
  readonly rawQuery: string
  /** Empty where the service itself is meant. */
  readonly bucket: string
  /** Empty where the bucket itself is meant. */
  readonly key: string
}

/** Takes a request's target apart; `domains` are the suffixes below which a host name is a bucket's. */
export function targetOf(url: string, host: string | undefined, domains: readonly string[]): Target {
  // A proxy's client may send the absolute form; what is signed is its path.
  const absolute = /^https?:\/\/[^/?]*/i.exec(url)
  const relative = absolute === null ? url : url.slice(absolute[0].length)
  const question = relative.indexOf('?')
  const rawPath = question === -1 ? relative : relative.slice(0, question)
  const rawQuery = question === -1 ? '' : relative.slice(question + 1)
  if (!rawPath.startsWith('/') && rawPath !== '') throw new S3Error('InvalidURI')
  const virtual = virtualBucket(host, domains)
  if (virtual !== undefined) return { rawPath, rawQuery, bucket: virtual, key: decodeText(rawPath.slice(1)) }
  const slash = rawPath.indexOf('/', 1)
  const bucket = decodeText(slash === -1 ? rawPath.slice(1) : rawPath.slice(1, slash))
  return { rawPath, rawQuery, bucket, key: slash === -1 ? '' : decodeText(rawPath.slice(slash + 1)) }
}

function virtualBucket(host: string | undefined, domains: readonly string[]): string | undefined {
  if (host === undefined) return undefined
  const name = host.replace(/:\d*$/, '').toLowerCase()
  for (const domain of domains) {
    if (name.length > domain.length + 1 && name.endsWith(domain) && name[name.length - domain.length - 1] === '.') {
      return name.slice(0, name.length - domain.length - 1)
    }
  }
  return undefined
}

/** Percent-decoded text. @throws S3Error `InvalidURI` where the bytes are not UTF-8: a name is refused, never altered. */
export function decodeText(raw: string): string {
  const bytes = decodePercent(raw)
  const text = bytes.toString()
  if (text.includes('\ufffd') && !Buffer.from(text).equals(bytes)) {
    throw new S3Error('InvalidURI', 'The key is not UTF-8')
  }
  return text
}

/** A request that is being answered. */
export class Exchange {
  readonly req: IncomingMessage
  readonly res: ServerResponse
  readonly requestId = nextRequestId()
  /** Fires when the client has gone. */
  readonly signal: AbortSignal
  readonly target: Target
  /** How long a client may neither send nor take anything in the middle of a body. */
  readonly idleMs: number
  readonly query: ReadonlyMap<string, string>
  /** For logs and metrics; set by the router. */
  operation = 'Unknown'

  constructor(req: IncomingMessage, res: ServerResponse, signal: AbortSignal, target: Target, idleMs: number) {
    this.req = req
    this.res = res
    this.signal = signal
    this.target = target
    this.idleMs = idleMs
    this.query = new Map(target.rawQuery === '' ? [] : parseQuery(target.rawQuery))
  }

  get method(): string {
    return this.req.method ?? ''
  }
  get headers(): IncomingHttpHeaders {
    return this.req.headers
  }
  get bucket(): string {
    return this.target.bucket
  }
  get key(): string {
    return this.target.key
  }

  /** A header that has one value, or is absent. */
  header(name: string): string | undefined {
    const value = this.req.headers[name]
    return typeof value === 'string' ? value : value?.join(',')
  }

  /** Answers with a head and, where given, a body that is at hand. */
  answer(status: number, headers: FlatHeaders = [], body?: string | Uint8Array): void {
    const length = body === undefined ? 0 : typeof body === 'string' ? Buffer.byteLength(body) : body.length
    this.head(status, status === 204 || status === 304 ? headers : [...headers, 'Content-Length', String(length)])
    if (body === undefined || this.method === 'HEAD') this.res.end()
    else this.res.end(body)
  }

  /** Writes the head of an answer whose body follows by other means. */
  head(status: number, headers: FlatHeaders): void {
    this.res.writeHead(status, ['x-amz-request-id', this.requestId, 'Server', 'Eider', ...headers])
  }

  /** Answers with a document. */
  answerXml(root: string, content: readonly XmlNode[], headers: FlatHeaders = []): void {
    this.answer(200, ['Content-Type', 'application/xml', ...headers], writeXml(root, content))
  }

  /** The document that says what went wrong. */
  errorDocument(error: S3Error): string {
    return writeXml(
      'Error',
      [
        ['Code', error.code],
        ['Message', error.message],
        ...error.details,
        ['Resource', this.target.rawPath.slice(0, 2048)],
        ['RequestId', this.requestId],
      ],
      '',
    )
  }
}
