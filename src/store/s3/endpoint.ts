/**
 * Where a bucket is: the URL and options it is opened by, and the origin, paths and copy sources that requests name.
 * Knows nothing of requests themselves.
 *
 * URLs are `s3://BUCKET/PREFIX?OPTION=VALUE&…`. The prefix keeps its case and is percent-decoded once as UTF-8, so `?`,
 * `#` and `%` in it are written `%3F`, `%23` and `%25`; a `+` is a plus. It holds to the rules of paths (no empty part, no
 * `.` or `..`); slashes at its ends do not count. Options are read as a query string is, where a `+` is a space.
 */
import { isIPv4 } from 'node:net'

import { OperationError } from '#base/errors.ts'
import type { MemoryBudget } from '#base/memory-budget.ts'
import { checkPath } from '#store/path.ts'
import { decodePercent, encodePath } from './sigv4.ts'

/** How a bucket is opened. What is absent is found out, or left to the server. */
export interface S3Options {
  /** `http://host:port` of an S3 server; Amazon's where absent (or AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL). */
  readonly endpoint?: string
  readonly region?: string
  /** `path`: the bucket is the first part of the path. `virtual`: it is part of the host name. */
  readonly style?: 'path' | 'virtual'
  readonly profile?: string
  /** Instead of what the environment and the machine give. */
  readonly credentials?: {
    readonly accessKeyId: string
    readonly secretAccessKey: string
    readonly sessionToken?: string
  }
  readonly anonymous?: boolean
  readonly requesterPays?: boolean
  /** The account that the bucket must belong to. */
  readonly bucketOwner?: string
  readonly sse?: 'AES256' | 'aws:kms' | 'aws:kms:dsse'
  readonly kmsKeyId?: string
  readonly storageClass?: string
  /** Whether attributes are kept in user metadata; true where absent. */
  readonly metadata?: boolean
  /** Takes what listings say for all there is, so that no entry costs a request: no attributes, no symlinks. */
  readonly trustListing?: boolean
  /** Whether to find out at the start which guards the endpoint honours; where not, none is taken to be. */
  readonly probe?: boolean
  readonly readOnly?: boolean
  /** Most connections at a time. */
  readonly connections?: number
  /** Bytes of a part of a large upload or download. */
  readonly partBytes?: number
  /**
   * Bounds what is in memory of files on their way up: each part takes its bytes from it before it is read, and gives them back
   * after its answer. A put of bytes that the caller holds takes none, and a read none: who reads has seen to that.
   */
  readonly memory?: MemoryBudget
  /** Times a request is sent, the first included, where time does not decide. */
  readonly attemptsMax?: number
  /** Longest pause before the second attempt; it doubles with each. */
  readonly backoffMs?: number
  /**
   * How long an operation goes on, with pauses, while the endpoint cannot be reached, is slow, or answers that it is in trouble;
   * 0: as often as `attemptsMax` says.
   */
  readonly ioTimeoutMs?: number
  /** How long an answer's head, and then each next piece of its body, may take. */
  readonly timeoutMs?: number
  /** Of the opening itself. */
  readonly signal?: AbortSignal
}

export interface S3Location {
  readonly bucket: string
  /** Without slashes at its ends; empty for the whole bucket. */
  readonly prefix: string
  readonly options: S3Options
}

const SSE = ['AES256', 'aws:kms', 'aws:kms:dsse'] as const
/** Those that users are told of; `probe` is for tests. */
const QUERY_NAMES =
  'endpoint, region, style, profile, requesterPays, bucketOwner, sse, kmsKeyId, storageClass, anonymous, metadata, trustListing'

/** Reads an `s3://` URL; its options stand where `options` has none. @throws OperationError `INPUT_INVALID`. */
export function parseS3Url(url: string, options: S3Options = {}): S3Location {
  const invalid = (detail: string): OperationError =>
    new OperationError('INPUT_INVALID', `Cannot open "${url}": ${detail}`)
  if (!url.startsWith('s3://')) throw invalid('it is not s3://BUCKET/PREFIX')
  const mark = url.indexOf('?')
  const path = url.slice(5, mark === -1 ? url.length : mark)
  const slash = path.indexOf('/')
  const bucket = slash === -1 ? path : path.slice(0, slash)
  if (bucket === '') throw invalid('it names no bucket')
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$/.test(bucket)) throw invalid(`"${bucket}" cannot be the name of a bucket`)
  const bytes = decodePercent(slash === -1 ? '' : path.slice(slash + 1))
  const prefix = bytes.toString().replace(/^\/+|\/+$/g, '')
  try {
    checkPath(prefix)
  } catch (cause) {
    throw new OperationError('INPUT_INVALID', `Cannot open "${url}": its prefix cannot be a path`, { cause })
  }
  return { bucket, prefix, options: { ...queryOptions(mark === -1 ? '' : url.slice(mark + 1), invalid), ...options } }
}

function queryOptions(query: string, invalid: (detail: string) => OperationError): S3Options {
  const options: { -readonly [K in keyof S3Options]: S3Options[K] } = {}
  for (const [name, value] of new URLSearchParams(query)) {
    switch (name) {
      case 'endpoint':
      case 'region':
      case 'profile':
      case 'bucketOwner':
      case 'kmsKeyId':
      case 'storageClass':
        if (value === '') throw invalid(`its option ${name} is empty`)
        options[name] = value
        break
      case 'style':
        if (value !== 'path' && value !== 'virtual') throw invalid('its option style is neither "path" nor "virtual"')
        options.style = value
        break
      case 'sse': {
        const sse = SSE.find((known) => known === value)
        if (sse === undefined) throw invalid(`its option sse is none of ${SSE.join(', ')}`)
        options.sse = sse
        break
      }
      case 'requesterPays':
      case 'anonymous':
      case 'metadata':
      case 'trustListing':
      case 'probe':
        if (value !== 'true' && value !== 'false') throw invalid(`its option ${name} is neither "true" nor "false"`)
        options[name] = value === 'true'
        break
      default:
        throw invalid(`it has the unknown option "${name}"; known are ${QUERY_NAMES}`)
    }
  }
  return options
}

/** Where requests go and how they name keys. */
export interface Endpoint {
  /** `https://host` or with a port. */
  readonly origin: string
  readonly host: string
  readonly region: string
  /** Whether the host follows from the region, so that another region is another host. */
  readonly regional: boolean
  /** Whether a body is safe from others on its way: encrypted, or never leaving this machine. */
  readonly private: boolean
  /** Before an encoded key: `/` or `/bucket/`. */
  readonly base: string
  /** Before an encoded key in a copy source. */
  readonly copyBase: string
}

/** The endpoint of a bucket in a region. @throws OperationError `INPUT_INVALID`. */
export function endpointOf(bucket: string, region: string, options: S3Options): Endpoint {
  const custom = options.endpoint ?? process.env['AWS_ENDPOINT_URL_S3'] ?? process.env['AWS_ENDPOINT_URL']
  // A name with dots matches no wildcard certificate, and a name with capitals no host name.
  const hostable = /^[a-z0-9-]+$/.test(bucket)
  const style = options.style ?? (custom === undefined && hostable ? 'virtual' : 'path')
  const domain = region.startsWith('cn-') ? 'amazonaws.com.cn' : 'amazonaws.com'
  const url = parseEndpoint(custom ?? `https://s3.${region}.${domain}`)
  const host = style === 'virtual' ? `${bucket}.${url.host}` : url.host
  const folder = url.pathname.replace(/\/+$/, '')
  const loopback = isIPv4(url.hostname) && url.hostname.startsWith('127.')
  const local = url.hostname === 'localhost' || url.hostname === '[::1]' || loopback
  return {
    origin: `${url.protocol}//${host}`,
    host,
    region,
    regional: custom === undefined,
    private: url.protocol === 'https:' || local,
    base: style === 'virtual' ? `${folder}/` : `${folder}/${bucket}/`,
    copyBase: `/${bucket}/`,
  }
}

function parseEndpoint(text: string): URL {
  const url = URL.parse(text)
  const known = url !== null && (url.protocol === 'http:' || url.protocol === 'https:')
  if (!known || url.search !== '' || url.hash !== '' || url.username !== '' || url.password !== '') {
    // Without what may be a password.
    const shown = text.replace(/[^/]*@/, '…@').replace(/[?#].*$/s, '?…')
    const message = `Cannot use the endpoint "${shown}": it is not http://HOST:PORT or https://HOST:PORT alone`
    throw new OperationError('INPUT_INVALID', message)
  }
  return url
}

/** The raw path of a request for a key, or for the bucket itself. Nothing is normalised: S3 keys are bytes. */
export function requestPath(endpoint: Endpoint, key: string | undefined): string {
  if (key !== undefined) return endpoint.base + encodePath(key)
  return endpoint.base === '/' ? '/' : endpoint.base.slice(0, -1)
}

/** The value of `x-amz-copy-source`. */
export function copySource(endpoint: Endpoint, key: string): string {
  return endpoint.copyBase + encodePath(key)
}
