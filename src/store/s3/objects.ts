/**
 * The S3 operations on single objects: what each sends and what its answer says. Guards are passed on as conditions;
 * whether the server honours them is for `guards.ts` to know.
 */
import { OperationError } from '#base/errors.ts'
import { timestamp, type Timestamp } from '#base/time.ts'
import type { Guard, Version } from '#store/store.ts'
import { crc32Header } from './checksum.ts'
import { headerOf, type BeforeAttempt, type S3Client } from './client.ts'
import { copySource } from './endpoint.ts'
import type { Header } from './signer.ts'
import type { Answer } from './transport.ts'
import { parseXml, textOf, type XmlElement } from './xml.ts'

/** What a HEAD or GET says about an object. */
export interface ObjectHead {
  readonly size: number
  readonly version: Version
  readonly modified: Timestamp
  readonly header: (name: string) => string | undefined
  readonly answer: Answer
}

/** The value of an etag header or element without its quotes. */
export function versionOf(etag: string | undefined): Version {
  return (etag ?? '').replace(/^(?:W\/)?"?|"?$/g, '') as Version
}

/** The conditions on the key that is written. */
export function guardHeaders(guard: Guard): Header[] {
  if (guard.kind === 'absent') return [['if-none-match', '*']]
  return guard.kind === 'version' ? [['if-match', `"${guard.version}"`]] : []
}

/** A date of a header or a document, to the second as headers have it; the epoch where there is none. */
export function httpDate(text: string | undefined): Timestamp {
  const ms = Date.parse(text ?? '')
  return Number.isNaN(ms) ? timestamp(0) : timestamp(Math.floor(ms / 1000))
}

/** @throws OperationError `STORE_PROTOCOL` where the answer lacks what everything else is built on. */
export function headOf(answer: Answer): ObjectHead {
  const header = (name: string): string | undefined => headerOf(answer, name)
  const total = answer.status === 206 ? /\/(\d+)$/.exec(header('content-range') ?? '')?.[1] : header('content-length')
  const version = versionOf(header('etag'))
  // Taken for an empty object, or one without a version, it would make wrong data of a right answer.
  if (total === undefined || version === '') {
    throw new OperationError('STORE_PROTOCOL', 'Cannot use the answer of the store: it has no size or no etag')
  }
  return { size: Number(total), version, modified: httpDate(header('last-modified')), header, answer }
}

/** HEAD; undefined where there is no such object. One request. */
export function headObject(
  client: S3Client,
  key: string,
  signal: AbortSignal | undefined,
  headers: readonly Header[] = [],
): Promise<ObjectHead | undefined> {
  return client.send({ operation: 'HeadObject', method: 'HEAD', key, headers, signal, accept: [404] }, (answer) =>
    answer.status === 404 ? undefined : headOf(answer),
  )
}

export interface Written {
  readonly version: Version
  readonly modified: Timestamp
}

/** PUT of a whole body. One request. */
export async function putObject(
  client: S3Client,
  key: string,
  body: Uint8Array,
  headers: readonly Header[],
  signal: AbortSignal | undefined,
  before?: BeforeAttempt,
): Promise<Written> {
  return withChecksum(client, (checksums) => {
    const crc = checksums ? [crc32Header(body)] : []
    return client.send(
      { operation: 'PutObject', method: 'PUT', key, headers: [...headers, ...crc], body, before, signal },
      writtenOf,
    )
  })
}

function writtenOf(answer: Answer): Written {
  const modified = httpDate(headerOf(answer, 'date'))
  return { version: versionOf(headerOf(answer, 'etag')), modified }
}

/** Sends with a checksum, or without for ever where the endpoint says that it knows of none. */
export async function withChecksum<T>(client: S3Client, send: (checksums: boolean) => Promise<T>): Promise<T> {
  if (!client.checksums) return send(false)
  try {
    return await send(true)
  } catch (error) {
    if (!refusesChecksum(error)) throw error
    client.checksums = false
    return send(false)
  }
}

function refusesChecksum(error: unknown): boolean {
  if (!(error instanceof OperationError) || !('s3Code' in error) || !('httpStatus' in error)) return false
  const known = ['BadDigest', 'XAmzContentChecksumMismatch'].includes(String(error.s3Code))
  return !known && [400, 501].includes(Number(error.httpStatus)) && /checksum|crc32/i.test(error.message)
}

/** DELETE; succeeds where there is no such object. One request. */
export function deleteObject(
  client: S3Client,
  key: string,
  headers: readonly Header[],
  signal: AbortSignal | undefined,
  before?: BeforeAttempt,
): Promise<void> {
  return client.send({ operation: 'DeleteObject', method: 'DELETE', key, headers, before, signal }, () => undefined)
}

/** CopyObject of at most 5 GiB. One request. */
export function copyObject(
  client: S3Client,
  from: string,
  fromVersion: Version,
  to: string,
  headers: readonly Header[],
  workBytes: number,
  signal: AbortSignal | undefined,
  before?: BeforeAttempt,
): Promise<Written> {
  const source: Header[] = [['x-amz-copy-source', copySource(client.endpoint, from)]]
  source.push(['x-amz-copy-source-if-match', `"${fromVersion}"`])
  return client.send(
    {
      operation: 'CopyObject',
      method: 'PUT',
      key: to,
      headers: [...source, ...headers],
      body: new Uint8Array(0),
      errorIn200: true,
      workBytes,
      before,
      signal,
    },
    (answer) => {
      const root = readXml(client.action({ operation: 'CopyObject', key: to }), answer, 'CopyObjectResult')
      const modified = httpDate(textOf(root, 'LastModified') ?? headerOf(answer, 'date'))
      return { version: versionOf(textOf(root, 'ETag')), modified }
    },
  )
}

/** The document of an answer. @throws OperationError `STORE_CORRUPT` where it is none or another. */
export function readXml(action: string, answer: Pick<Answer, 'body'>, root: string): XmlElement {
  let found: XmlElement
  try {
    found = parseXml(answer.body.toString())
  } catch (cause) {
    throw new OperationError('STORE_CORRUPT', `Cannot ${action}: the answer is not XML`, { cause })
  }
  if (found.name === root) return found
  throw new OperationError('STORE_CORRUPT', `Cannot ${action}: the answer is a ${found.name}, not a ${root}`)
}
