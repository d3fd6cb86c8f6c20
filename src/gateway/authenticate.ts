/**
 * Who sent a request: Signature Version 4 verified in the Authorization header and in the query (presigned URLs), over
 * the raw request target as it came. It answers for the head of a request only; what it returns is what `body.ts`
 * needs to hold the body to the same signature. Nothing is read from or written to a request before this has passed.
 *
 * One key pair, its owner may do everything. With a region configured, a scope of another region is refused with the
 * right one named, from which clients correct themselves; with none configured any region is accepted, since a
 * gateway is nowhere in particular and its clients have all kinds of defaults.
 */
import { createSecretKey, hash, timingSafeEqual, type KeyObject } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'

import {
  ALGORITHM,
  UNSIGNED_PAYLOAD,
  amzDateOf,
  canonicalHeaderValue,
  canonicalPath,
  canonicalQuery,
  canonicalRequest,
  parseQuery,
  sign,
  signingKey,
  stringToSign,
} from '#store/s3/sigv4.ts'

import { S3Error } from './errors.ts'

/** How far a request's clock may be from ours, as in S3. */
const SKEW_MS_MAX = 15 * 60 * 1000
/** Longest life of a presigned URL, seconds: a week, as in S3. */
const EXPIRES_SECONDS_MAX = 604_800
/** Signing keys kept: by day and region, so a handful; a client that makes regions up only costs itself. */
const KEYS_MAX = 64

export interface Credentials {
  readonly accessKey: string
  readonly secretKey: string
  /** Undefined: any region is accepted. */
  readonly region: string | undefined
}

/** The head of a request, as far as it is signed. */
export interface RequestHead {
  readonly method: string
  /** As it came, percent-encoded, without the query. */
  readonly rawPath: string
  /** Without the question mark. */
  readonly rawQuery: string
  readonly headers: IncomingHttpHeaders
  readonly rawHeaders: readonly string[]
}

/** What was verified, and what a body that is signed in chunks is verified by. */
export interface Signed {
  /** The value of x-amz-content-sha256, or the word that stands for it. */
  readonly payloadHash: string
  readonly amzDate: string
  readonly scope: string
  readonly key: KeyObject
  /** Of the head; the first chunk's signature is chained to it. */
  readonly signature: string
}

/** What a request says of its signature, from wherever it says it. */
interface Claim {
  readonly accessKey: string
  readonly date: string
  readonly region: string
  readonly scope: string
  readonly signedHeaders: readonly string[]
  readonly signature: string
  readonly amzDate: string
  readonly payloadHash: string
  readonly query: readonly (readonly [string, string])[]
}

/** Verifies requests against one key pair. */
export class Authenticator {
  readonly #credentials: Credentials
  readonly #accessKeyHash: Buffer
  readonly #keys = new Map<string, KeyObject>()
  #dateLast = ''
  #timeLast = 0

  constructor(credentials: Credentials) {
    this.#credentials = credentials
    this.#accessKeyHash = hash('sha256', credentials.accessKey, 'buffer')
  }

  /** @throws S3Error where the request is unsigned, wrongly signed, too old, or not well formed. */
  verify(head: RequestHead, nowMs: number): Signed {
    const { authorization } = head.headers
    const query = parseQuery(head.rawQuery)
    const presigned = query.some(([name]) => name === 'X-Amz-Algorithm' || name === 'X-Amz-Signature')
    if (head.headers['x-amz-security-token'] !== undefined || query.some(([name]) => name === 'X-Amz-Security-Token')) {
      throw new S3Error('InvalidToken', 'This gateway has one lasting key pair and gives no session tokens')
    }
    if (authorization !== undefined && presigned) {
      throw new S3Error('InvalidArgument', 'Only one auth mechanism is allowed: the header or the query')
    }
    let claim: Claim
    if (authorization !== undefined) claim = claimOfHeader(head, authorization, query)
    else if (presigned) claim = claimOfQuery(head, query)
    else if (query.some(([name]) => name === 'AWSAccessKeyId')) throw unsupportedAlgorithm()
    else throw new S3Error('AccessDenied')
    this.#checkScope(claim, presigned)
    const timeMs = this.#timeOf(claim.amzDate)
    if (presigned) checkLife(query, timeMs, nowMs)
    else checkSkew(claim.amzDate, timeMs, nowMs)
    checkSignedHeaders(head, claim.signedHeaders)
    return this.#checkSignature(head, claim)
  }

  #checkScope(claim: Claim, presigned: boolean): void {
    // Hashed first, so that the time of the comparison tells nothing of where two keys begin to differ.
    if (!timingSafeEqual(hash('sha256', claim.accessKey, 'buffer'), this.#accessKeyHash))
      throw new S3Error('InvalidAccessKeyId')
    const malformed = presigned ? 'AuthorizationQueryParametersError' : 'AuthorizationHeaderMalformed'
    if (claim.date !== claim.amzDate.slice(0, 8)) {
      throw new S3Error(malformed, `Invalid credential date "${claim.date}": it is not that of the request`)
    }
    const { region } = this.#credentials
    if (region !== undefined && claim.region !== region) {
      throw new S3Error(malformed, `The region "${claim.region}" is wrong; expecting "${region}"`, {
        details: [['Region', region]],
      })
    }
  }

  #checkSignature(head: RequestHead, claim: Claim): Signed {
    const canonical = canonicalRequest({
      method: head.method,
      path: canonicalPath(head.rawPath),
      query: canonicalQuery(claim.query),
      headers: claim.signedHeaders.map((name) => [name, signedValue(head, name)]),
      payloadHash: claim.payloadHash,
    })
    const text = stringToSign(claim.amzDate, claim.scope, canonical)
    const key = this.#key(claim.date, claim.region)
    const expected = sign(key, text)
    if (!equalSignatures(expected, claim.signature)) {
      throw new S3Error('SignatureDoesNotMatch', undefined, {
        // As S3 does: neither tells of the key, and both tell at once what a client signed differently.
        details: [
          ['AWSAccessKeyId', claim.accessKey],
          ['StringToSign', text],
          ['SignatureProvided', claim.signature],
          ['CanonicalRequest', canonical],
        ],
      })
    }
    const { payloadHash, amzDate, scope } = claim
    return { payloadHash, amzDate, scope, key, signature: expected }
  }

  /** Requests come many a second, and parsing a date costs as much as signing. */
  #timeOf(amzDate: string): number {
    if (amzDate !== this.#dateLast) {
      this.#timeLast = timeOf(amzDate)
      this.#dateLast = amzDate
    }
    return this.#timeLast
  }

  #key(date: string, region: string): KeyObject {
    const name = `${date}/${region}`
    let key = this.#keys.get(name)
    if (key === undefined) {
      if (this.#keys.size >= KEYS_MAX) this.#keys.clear()
      key = createSecretKey(signingKey(this.#credentials.secretKey, date, region))
      this.#keys.set(name, key)
    }
    return key
  }
}

/** Whether two signatures are equal, in a time that does not depend on where they differ. */
export function equalSignatures(expected: string, given: string): boolean {
  const a = Buffer.from(expected, 'latin1')
  const b = Buffer.from(given, 'latin1')
  return a.length === b.length && timingSafeEqual(a, b)
}

function claimOfHeader(head: RequestHead, authorization: string, query: Claim['query']): Claim {
  if (!authorization.startsWith(`${ALGORITHM} `)) throw unsupportedAlgorithm()
  let credential = ''
  let signedHeaders = ''
  let signature = ''
  for (const part of authorization.slice(ALGORITHM.length + 1).split(',')) {
    const equals = part.indexOf('=')
    const name = part.slice(0, equals).trim()
    const value = part.slice(equals + 1).trim()
    if (name === 'Credential') credential = value
    else if (name === 'SignedHeaders') signedHeaders = value
    else if (name === 'Signature') signature = value
  }
  const malformed = (detail: string): S3Error => new S3Error('AuthorizationHeaderMalformed', detail)
  if (signedHeaders === '' || signature === '') throw malformed('It needs Credential, SignedHeaders and Signature')
  const payloadHash = head.headers['x-amz-content-sha256']
  if (typeof payloadHash !== 'string') {
    throw new S3Error('InvalidRequest', 'Missing required header for this request: x-amz-content-sha256')
  }
  return {
    ...scopeOf(credential, malformed),
    signedHeaders: signedHeaders.split(';'),
    signature,
    amzDate: dateOf(head.headers),
    payloadHash,
    query,
  }
}

function claimOfQuery(head: RequestHead, query: Claim['query']): Claim {
  const values = new Map<string, string>()
  for (const [name, value] of query) {
    if (!name.startsWith('X-Amz-')) continue
    if (values.has(name)) throw new S3Error('AuthorizationQueryParametersError', `${name} is given twice`)
    values.set(name, value)
  }
  const need = (name: string): string => {
    const value = values.get(name)
    if (value === undefined || value === '') {
      throw new S3Error('AuthorizationQueryParametersError', `Query-string authentication needs ${name}`)
    }
    return value
  }
  if (need('X-Amz-Algorithm') !== ALGORITHM) throw unsupportedAlgorithm()
  const header = head.headers['x-amz-content-sha256']
  return {
    ...scopeOf(need('X-Amz-Credential'), (detail) => new S3Error('AuthorizationQueryParametersError', detail)),
    signedHeaders: need('X-Amz-SignedHeaders').split(';'),
    signature: need('X-Amz-Signature'),
    amzDate: need('X-Amz-Date'),
    payloadHash: typeof header === 'string' ? header : (values.get('X-Amz-Content-Sha256') ?? UNSIGNED_PAYLOAD),
    query: query.filter(([name]) => name !== 'X-Amz-Signature'),
  }
}

type ScopeClaim = Pick<Claim, 'accessKey' | 'date' | 'region' | 'scope'>

/** `KEY/20261121/REGION/s3/aws4_request`; the key itself may have slashes in it. */
function scopeOf(credential: string, malformed: (detail: string) => S3Error): ScopeClaim {
  const parts = credential.split('/')
  const [date, region, service, terminator] = parts.slice(-4)
  const accessKey = parts.slice(0, -4).join('/')
  if (accessKey === '' || date === undefined || region === undefined || region === '') {
    throw malformed('The Credential is to be KEY/DATE/REGION/s3/aws4_request')
  }
  if (service !== 's3' || terminator !== 'aws4_request') {
    throw malformed(`The Credential is for "${service}/${terminator}"; expecting "s3/aws4_request"`)
  }
  return { accessKey, date, region, scope: `${date}/${region}/s3/aws4_request` }
}

/** x-amz-date, or the Date header in the same form. */
function dateOf(headers: IncomingHttpHeaders): string {
  const amzDate = headers['x-amz-date']
  if (typeof amzDate === 'string') return amzDate
  const ms = headers.date === undefined ? Number.NaN : Date.parse(headers.date)
  if (Number.isNaN(ms))
    throw new S3Error('AccessDenied', 'AWS authentication requires a valid Date or x-amz-date header')
  return amzDateOf(ms)
}

function timeOf(amzDate: string): number {
  const match = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(amzDate)
  const [year, month, day, hour, minute, second] = (match ?? []).slice(1).map(Number)
  const ms = Date.UTC(year ?? Number.NaN, (month ?? 0) - 1, day, hour, minute, second)
  if (Number.isNaN(ms) || amzDateOf(ms) !== amzDate) {
    throw new S3Error('AccessDenied', 'AWS authentication requires a valid date in the form 20261121T013700Z')
  }
  return ms
}

function checkSkew(amzDate: string, timeMs: number, nowMs: number): void {
  if (Math.abs(nowMs - timeMs) <= SKEW_MS_MAX) return
  throw new S3Error('RequestTimeTooSkewed', undefined, {
    details: [
      ['RequestTime', amzDate],
      ['ServerTime', new Date(nowMs).toISOString()],
      ['MaxAllowedSkewMilliseconds', String(SKEW_MS_MAX)],
    ],
  })
}

function checkLife(query: Claim['query'], timeMs: number, nowMs: number): void {
  const text = query.find(([name]) => name === 'X-Amz-Expires')?.[1] ?? ''
  const seconds = /^\d{1,7}$/.test(text) ? Number(text) : 0
  if (seconds < 1 || seconds > EXPIRES_SECONDS_MAX) {
    throw new S3Error('AuthorizationQueryParametersError', `X-Amz-Expires is to be 1 to ${EXPIRES_SECONDS_MAX} seconds`)
  }
  if (nowMs < timeMs - SKEW_MS_MAX) throw new S3Error('AccessDenied', 'Request is not yet valid')
  if (nowMs <= timeMs + seconds * 1000) return
  throw new S3Error('AccessDenied', 'Request has expired', {
    details: [
      ['X-Amz-Expires', text],
      ['Expires', new Date(timeMs + seconds * 1000).toISOString()],
      ['ServerTime', new Date(nowMs).toISOString()],
    ],
  })
}

/** An x-amz- header that is not signed could have been put there by anybody on the way. */
function checkSignedHeaders(head: RequestHead, signedHeaders: readonly string[]): void {
  if (!signedHeaders.includes('host') || head.headers.host === undefined) {
    throw new S3Error('AccessDenied', 'The Host header must be there and must be signed')
  }
  const unsigned = Object.keys(head.headers).filter(
    (name) => name.startsWith('x-amz-') && !signedHeaders.includes(name),
  )
  if (unsigned.length === 0) return
  throw new S3Error('AccessDenied', 'There were headers present in the request which were not signed', {
    details: [['HeadersNotSigned', unsigned.join(', ')]],
  })
}

/** A header's value as its sender signed it: several of one name joined by commas, bytes read as UTF-8 where they are. */
function signedValue(head: RequestHead, name: string): string {
  const value = head.headers[name]
  if (value === undefined) return ''
  const text = typeof value === 'string' ? value : value.join(',')
  // Node joins headers of one name by ", ", which a single value may have in it as well: only the raw ones tell.
  const exact = text.includes(', ') ? joinedRaw(head.rawHeaders, name) : text
  return canonicalHeaderValue(headerText(exact))
}

function joinedRaw(rawHeaders: readonly string[], name: string): string {
  const values: string[] = []
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    if (rawHeaders[i]?.toLowerCase() === name) values.push(canonicalHeaderValue(rawHeaders[i + 1] ?? ''))
  }
  return values.join(',')
}

/** Node gives header bytes as Latin-1; most senders mean UTF-8, and signed that. */
function headerText(value: string): string {
  // oxlint-disable-next-line no-control-regex -- anything that is not ASCII is what must be found
  if (!/[^\u0000-\u007f]/.test(value)) return value
  const text = Buffer.from(value, 'latin1').toString()
  return text.includes('\ufffd') ? value : text
}

function unsupportedAlgorithm(): S3Error {
  return new S3Error('InvalidRequest', `The authorization mechanism is not supported; please use ${ALGORITHM}`)
}
