/** Requests signed by hand, byte by byte as a test wants them: what no well-behaved client would send among them. */
import {
  ALGORITHM,
  UNSIGNED_PAYLOAD,
  amzDateOf,
  canonicalHeaderValue,
  canonicalPath,
  canonicalQuery,
  canonicalRequest,
  credentialScope,
  parseQuery,
  sha256Hex,
  sign,
  signingKey,
  stringToSign,
} from '#store/s3/sigv4.ts'

export interface Keys {
  readonly accessKey: string
  readonly secretKey: string
}

export interface ToSign {
  readonly method: string
  /** `/bucket/key?query`, as it goes over the wire. */
  readonly target: string
  /** `127.0.0.1:9000` */
  readonly host: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Uint8Array | string
  /** Instead of the SHA-256 of the body. */
  readonly payloadHash?: string
  readonly timeMs?: number
  readonly region?: string
}

/** The headers of a request, signed in the Authorization header; and what chunks of its body are chained to. */
export function signedHeaders(
  request: ToSign,
  keys: Keys,
): { headers: Record<string, string>; signature: string; amzDate: string; scope: string; key: Buffer } {
  const { method, target, host, body = '', timeMs = Date.now(), region = 'us-east-1' } = request
  const amzDate = amzDateOf(timeMs)
  const payloadHash = request.payloadHash ?? sha256Hex(body)
  const [rawPath = '', rawQuery = ''] = target.split(/\?(.*)/s)
  const headers: Record<string, string> = {
    host,
    'x-amz-content-sha256': payloadHash,
    'x-amz-date': amzDate,
    ...request.headers,
  }
  const signed = Object.entries(headers)
    .map(([name, value]) => [name.toLowerCase(), canonicalHeaderValue(value)] as const)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
  const scope = credentialScope(amzDate.slice(0, 8), region)
  const key = signingKey(keys.secretKey, amzDate.slice(0, 8), region)
  const canonical = canonicalRequest({
    method,
    path: canonicalPath(rawPath),
    query: canonicalQuery(parseQuery(rawQuery)),
    headers: signed,
    payloadHash,
  })
  const signature = sign(key, stringToSign(amzDate, scope, canonical))
  const names = signed.map(([name]) => name).join(';')
  headers['authorization'] =
    `${ALGORITHM} Credential=${keys.accessKey}/${scope}, SignedHeaders=${names}, Signature=${signature}`
  return { headers, signature, amzDate, scope, key }
}

/** The target of a request, signed in its query. */
export function presigned(request: ToSign & { readonly expires?: number | string }, keys: Keys): string {
  const { method, target, host, timeMs = Date.now(), region = 'us-east-1', expires = 900 } = request
  const amzDate = amzDateOf(timeMs)
  const scope = credentialScope(amzDate.slice(0, 8), region)
  const [rawPath = '', rawQuery = ''] = target.split(/\?(.*)/s)
  const query = canonicalQuery([
    ...parseQuery(rawQuery),
    ['X-Amz-Algorithm', ALGORITHM],
    ['X-Amz-Credential', `${keys.accessKey}/${scope}`],
    ['X-Amz-Date', amzDate],
    ['X-Amz-Expires', String(expires)],
    ['X-Amz-SignedHeaders', 'host'],
  ])
  const canonical = canonicalRequest({
    method,
    path: canonicalPath(rawPath),
    query,
    headers: [['host', host]],
    payloadHash: UNSIGNED_PAYLOAD,
  })
  const key = signingKey(keys.secretKey, amzDate.slice(0, 8), region)
  return `${rawPath}?${query}&X-Amz-Signature=${sign(key, stringToSign(amzDate, scope, canonical))}`
}

/** A request as it goes over the wire, in HTTP/1.1. */
export function wireRequest(
  method: string,
  target: string,
  headers: Readonly<Record<string, string>>,
  body: Uint8Array | string = '',
): Buffer {
  const lines = [`${method} ${target} HTTP/1.1`, ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`)]
  return Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), Buffer.from(body)])
}
