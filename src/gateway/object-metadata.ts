/**
 * What an object has beyond its bytes: content headers, user metadata, entity tag and checksums, kept in one extended
 * attribute of its entry as compact JSON, and taken from and given to requests as headers.
 *
 * The tag and the checksums are of bytes, which others may change without us; so the attribute also has the size and
 * modification time that the gateway gave the file, and the two are trusted only while the entry still has them.
 */
import { timestamp, type Timestamp } from '#base/time.ts'
import type { Entry } from '#store/store.ts'

import type { ChecksumAlgorithm, ChecksumType } from './checksum.ts'
import { CHECKSUM_ALGORITHMS, checksumHeader } from './checksum.ts'
import { S3Error } from './errors.ts'
import type { Exchange, FlatHeaders } from './exchange.ts'

/** The extended attribute that an object's metadata lies in. */
export const METADATA_XATTR = 'user.eider.s3'
/** Names and values of user metadata, bytes, as in S3. */
const USER_BYTES_MAX = 2048
/** With the rest of the attribute this fits the 4 KiB that ext4 has for all attributes of a file. */
const CONTENT_BYTES_MAX = 1024

/** Headers that are kept as they came, other than Content-Type. */
const CONTENT_HEADERS = [
  'Cache-Control',
  'Content-Disposition',
  'Content-Encoding',
  'Content-Language',
  'Expires',
] as const

/** What a request says of an object: independent of its bytes. */
export interface Description {
  readonly contentType: string | undefined
  /** By the header's usual spelling. */
  readonly content: Readonly<Record<string, string>>
  /** By name without `x-amz-meta-`; values as they came (Latin-1 for bytes). */
  readonly user: Readonly<Record<string, string>>
}

export const NO_DESCRIPTION: Description = { contentType: undefined, content: {}, user: {} }

/** What was found out about an object's bytes. */
export interface ByteFacts {
  readonly etag: string
  readonly checksums: Readonly<Partial<Record<ChecksumAlgorithm, string>>>
  readonly checksumType: ChecksumType
  /** Of an object of parts that have one size (but the last). */
  readonly parts: { readonly count: number; readonly bytes: number } | undefined
}

export interface ObjectMetadata extends Description, ByteFacts {
  readonly size: number
  readonly modified: Timestamp
}

/** The attribute's JSON; short names, as every object has one. */
interface Stored {
  readonly e: string
  readonly s: number
  readonly m: readonly [seconds: number, nanoseconds: number]
  readonly t?: string
  readonly h?: Record<string, string>
  readonly u?: Record<string, string>
  readonly c?: Partial<Record<ChecksumAlgorithm, string>>
  /** 1: the checksums are composite. */
  readonly k?: 1
  readonly p?: readonly [count: number, bytes: number]
}

/** The attribute's value. */
export function encodeMetadata(metadata: ObjectMetadata): Buffer {
  const { contentType, content, user, checksums, parts } = metadata
  const stored: Stored = {
    e: metadata.etag,
    s: metadata.size,
    m: [metadata.modified.seconds, metadata.modified.nanoseconds],
    ...(contentType === undefined ? {} : { t: contentType }),
    ...(isEmpty(content) ? {} : { h: content }),
    ...(isEmpty(user) ? {} : { u: user }),
    ...(isEmpty(checksums) ? {} : { c: checksums }),
    ...(metadata.checksumType === 'COMPOSITE' ? { k: 1 } : {}),
    ...(parts === undefined ? {} : { p: [parts.count, parts.bytes] }),
  }
  return Buffer.from(JSON.stringify(stored))
}

function isEmpty(record: object): boolean {
  for (const _ in record) return false
  return true
}

/** The metadata in an entry's attributes; undefined where it has none that can be read. */
export function decodeMetadata(entry: Entry): ObjectMetadata | undefined {
  const bytes = entry.attributes?.xattrs?.get(METADATA_XATTR)
  if (bytes === undefined) return undefined
  let stored: unknown
  try {
    stored = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString())
  } catch {
    // Whoever may write the file may write its attributes; an unreadable one is as good as none.
    return undefined
  }
  if (!isStored(stored)) return undefined
  return {
    etag: stored.e,
    size: stored.s,
    modified: timestamp(stored.m[0], stored.m[1]),
    contentType: stored.t,
    content: stored.h ?? {},
    user: stored.u ?? {},
    checksums: stored.c ?? {},
    checksumType: stored.k === 1 ? 'COMPOSITE' : 'FULL_OBJECT',
    parts: stored.p === undefined ? undefined : { count: stored.p[0], bytes: stored.p[1] },
  }
}

/** Attributes can be written by others than us; and their values end up in response headers. */
function isStored(value: unknown): value is Stored {
  if (typeof value !== 'object' || value === null) return false
  const { e, s, m, t, h, u, c, p } = value as Partial<Record<keyof Stored, unknown>>
  return (
    typeof e === 'string' &&
    /^[0-9a-f]{32}(-\d{1,5})?$/.test(e) &&
    Number.isSafeInteger(s) &&
    isPair(m) &&
    m[1] >= 0 &&
    m[1] < 1_000_000_000 &&
    (t === undefined || isHeaderValue(t)) &&
    (p === undefined || isPair(p)) &&
    [h, u, c].every(isHeaderRecord)
  )
}

function isPair(value: unknown): value is [number, number] {
  return Array.isArray(value) && value.length === 2 && value.every((item) => Number.isSafeInteger(item))
}

function isHeaderRecord(value: unknown): boolean {
  if (value === undefined) return true
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false
  return Object.entries(value).every(
    ([name, text]) => /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name) && isHeaderValue(text),
  )
}

function isHeaderValue(value: unknown): boolean {
  // oxlint-disable-next-line no-control-regex -- control characters would end a header
  return typeof value === 'string' && /^[\t\u0020-\u007e\u0080-\u00ff]*$/.test(value)
}

/** Whether the bytes are still those that the metadata tells of. */
export function tellsOfBytes(metadata: ObjectMetadata, entry: Entry): boolean {
  // A directory has no bytes, and its time changes with every entry in it.
  if (entry.kind === 'directory') return true
  const mtime = entry.attributes?.mtime
  if (metadata.size !== entry.size || mtime === undefined) return false
  // Under a microsecond: a store may keep times as doubles.
  const ns = (mtime.seconds - metadata.modified.seconds) * 1e9 + mtime.nanoseconds - metadata.modified.nanoseconds
  return Math.abs(ns) < 1000
}

/** What a request's headers say of the object that it makes. @throws S3Error `MetadataTooLarge`. */
export function describeObject(exchange: Exchange): Description {
  const { headers } = exchange
  const content: Record<string, string> = {}
  const user: Record<string, string> = {}
  let contentBytes = 0
  let userBytes = 0
  for (const name of CONTENT_HEADERS) {
    let value = exchange.header(name.toLowerCase())
    if (value === undefined) continue
    // aws-chunked is how the body came, not what the object is.
    if (name === 'Content-Encoding') value = withoutChunked(value)
    if (value === '') continue
    content[name] = value
    contentBytes += value.length
  }
  for (const name in headers) {
    if (!name.startsWith('x-amz-meta-')) continue
    const value = exchange.header(name) ?? ''
    const short = name.slice(11)
    user[short] = value
    userBytes += short.length + value.length
  }
  const contentType = headers['content-type']
  if (userBytes > USER_BYTES_MAX || contentBytes + (contentType?.length ?? 0) > CONTENT_BYTES_MAX) {
    throw new S3Error('MetadataTooLarge')
  }
  return { contentType, content, user }
}

function withoutChunked(encoding: string): string {
  return encoding
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part.toLowerCase() !== 'aws-chunked')
    .join(',')
}

/** The headers that describe an object; content headers can be overridden by the query of a GET. */
export function descriptionHeaders(description: Description, query: ReadonlyMap<string, string>): FlatHeaders {
  const flat: FlatHeaders = [
    'Content-Type',
    override(query, 'Content-Type') ?? description.contentType ?? 'binary/octet-stream',
  ]
  for (const name of CONTENT_HEADERS) {
    const value = override(query, name) ?? description.content[name]
    if (value !== undefined) flat.push(name, value)
  }
  for (const name in description.user) flat.push(`x-amz-meta-${name}`, description.user[name] ?? '')
  return flat
}

function override(query: ReadonlyMap<string, string>, name: string): string | undefined {
  if (query.size === 0) return undefined
  const value = query.get(`response-${name.toLowerCase()}`)
  if (value === undefined || isHeaderValue(value)) return value
  throw new S3Error('InvalidArgument', `response-${name.toLowerCase()} cannot be sent as a header`)
}

/** The headers of the checksums that are kept. */
export function checksumHeaders(facts: Pick<ByteFacts, 'checksums' | 'checksumType'>): FlatHeaders {
  const flat: FlatHeaders = []
  for (const algorithm of CHECKSUM_ALGORITHMS) {
    const value = facts.checksums[algorithm]
    if (value !== undefined) flat.push(checksumHeader(algorithm), value)
  }
  if (flat.length > 0) flat.push('x-amz-checksum-type', facts.checksumType)
  return flat
}
