/**
 * Uploads in parts, several under way at a time, each in memory once: from a reader of bytes, or by ranges of an object that is
 * already there. An upload that fails or is given up is aborted, so that its parts do not stay and cost; one whose process dies
 * is found by its note (`upload-notes.ts`).
 *
 * Checksums: an upload is begun with the CRC-32 of the whole (FULL_OBJECT) where the endpoint knows that. It then tells the CRC of
 * a part that it copies as well, and the whole follows from those of all parts; where it tells none, the whole is not checked.
 */
import { createHash } from 'node:crypto'
import { crc32 } from 'node:zlib'

import { OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { untilAborted } from '#store/abort.ts'
import type { Version } from '#store/store.ts'
import { combineCrc32, crc32Base64, crc32OfBase64 } from './checksum.ts'
import { headerOf, type BeforeAttempt, type S3Client } from './client.ts'
import { copySource } from './endpoint.ts'
import { httpDate, readXml, versionOf, withChecksum, type Written } from './objects.ts'
import type { Header } from './signer.ts'
import { canonicalQuery } from './sigv4.ts'
import type { UploadNote, UploadNotes } from './upload-notes.ts'
import { textOf, writeXml } from './xml.ts'

/** S3's bounds. */
export const PARTS_MAX = 10_000
export const PART_BYTES_MAX = 5 * 2 ** 30
const MIB = 2 ** 20
/** Least size of every part but the last. */
export const PART_BYTES_MIN = 5 * 2 ** 20
/** Of one upload: with parts of 8 MiB, 64 MiB of memory. */
export const PARTS_AT_ONCE = 8
/** Parts of a stream of unknown length double after so many, so that 10,000 reach 80 TiB. */
export const PARTS_OF_ONE_SIZE = 1000
/** How long giving an upload up may take. */
const ABORT_MS = 30_000

const log = logger('store/s3')

/** The size of all parts but the last, so that so many hold `length` bytes. */
export function partBytesFor(length: number, partBytes: number): number {
  const least = Math.ceil(length / PARTS_MAX / MIB) * MIB
  return Math.max(partBytes, least)
}

/** The size of one part of a body of unknown length; `number` counts from 1. */
export function growingPartBytes(number: number, partBytes: number): number {
  return Math.min(PART_BYTES_MAX, partBytes * 2 ** Math.floor((number - 1) / PARTS_OF_ONE_SIZE))
}

/** A part that the server has. */
export interface Part {
  readonly number: number
  readonly version: Version
  readonly bytes: number
  readonly crc: number | undefined
}

/** What goes up in parts. */
export interface PartSource {
  /** Takes the next part and says how it is sent; undefined at the end. Called once at a time, in order. */
  next(number: number, signal: AbortSignal): Promise<PartToSend | undefined>
}
export type PartToSend =
  | PartBody
  /** Read when its turn has come, several at a time. */
  | { readonly load: (signal: AbortSignal) => Promise<PartBody> }
  | { readonly copy: string; readonly version: Version; readonly start: number; readonly bytes: number }
/** Bytes of a part; `release` is told once they are of no more use. */
export interface PartBody {
  readonly body: Buffer
  readonly release?: (() => void) | undefined
}

/** An upload whose parts are there; completing it is the caller's. */
export interface Upload {
  readonly id: string
  readonly parts: readonly Part[]
  readonly bytes: number
  /** CRC-32 of the whole, where the server keeps that. */
  readonly checksum: string | undefined
  /** The etag that S3 gives to an object of these parts. */
  readonly versionExpected: Version
  readonly note: UploadNote | undefined
}

/**
 * Sends all parts; on any failure the upload is aborted. Requests: 1 and one for each part, and up to two that note the upload
 * where `notes` are kept.
 */
export async function uploadParts(
  client: S3Client,
  key: string,
  headers: readonly Header[],
  source: PartSource,
  signal: AbortSignal | undefined,
  notes?: UploadNotes,
): Promise<Upload> {
  const begun = await beginUpload(client, key, headers, signal, notes)
  try {
    return uploadOf(begun, await sendParts(client, key, begun, source, signal))
  } catch (error) {
    await abortUpload(client, key, begun)
    throw error
  }
}

/** What is completed, of the parts that the server has, in order. */
export function uploadOf(begun: Begun, parts: readonly Part[]): Upload {
  const digests = createHash('md5')
  for (const part of parts) digests.update(Buffer.from(part.version, 'hex'))
  const bytes = parts.reduce((sum, part) => sum + part.bytes, 0)
  const versionExpected = `${digests.digest('hex')}-${parts.length}` as Version
  const checksum = begun.wholeChecksum ? checksumOf(parts) : undefined
  return { id: begun.id, note: begun.note, parts, bytes, checksum, versionExpected }
}

/** The CRC-32 of all parts as S3 writes it; undefined where that of a part is not known. */
function checksumOf(parts: readonly Part[]): string | undefined {
  let whole = 0
  for (const { crc, bytes } of parts) {
    if (crc === undefined) return undefined
    whole = combineCrc32(whole, crc, bytes)
  }
  return crc32Base64(whole)
}

/** An upload that the server knows. */
export interface Begun {
  readonly id: string
  readonly checksums: boolean
  readonly wholeChecksum: boolean
  readonly note: UploadNote | undefined
}

/**
 * Begins an upload. Noted before and after, so that it is found whenever this process dies. One request, and up to two for
 * the notes.
 */
export async function beginUpload(
  client: S3Client,
  key: string,
  headers: readonly Header[],
  signal: AbortSignal | undefined,
  notes: UploadNotes | undefined,
): Promise<Begun> {
  const note = await notes?.announce(key, signal)
  // Not given up with its caller: the answer has the only name by which the upload can be aborted.
  const creating = withChecksum(client, (checksums) => createUpload(client, key, headers, checksums))
  try {
    const begun = await untilAborted(`put "${key}"`, creating, signal)
    await note?.identify(begun.id, signal)
    return { ...begun, note }
  } catch (error) {
    const forgotten = creating.then(
      (begun) => abortUpload(client, key, { id: begun.id, note }),
      () => note?.end(),
    )
    if (signal?.aborted !== true) await forgotten
    throw error
  }
}

function createUpload(
  client: S3Client,
  key: string,
  headers: readonly Header[],
  checksums: boolean,
): Promise<Omit<Begun, 'note'>> {
  const request = { operation: 'CreateMultipartUpload', method: 'POST', key, query: 'uploads=' } as const
  const extra: Header[] = checksums
    ? [
        ['x-amz-checksum-algorithm', 'CRC32'],
        ['x-amz-checksum-type', 'FULL_OBJECT'],
      ]
    : []
  return client.send({ ...request, headers: [...headers, ...extra], body: new Uint8Array(0) }, (answer) => {
    const id = textOf(readXml(client.action(request), answer, 'InitiateMultipartUploadResult'), 'UploadId')
    if (id === undefined || id === '') {
      throw new OperationError('STORE_CORRUPT', `Cannot ${client.action(request)}: the answer has no upload id`)
    }
    const wholeChecksum = checksums && headerOf(answer, 'x-amz-checksum-type') === 'FULL_OBJECT'
    // A server that says nothing of checksums keeps none of the parts either; it still checks them if it can.
    return { id, checksums, wholeChecksum }
  })
}

async function sendParts(
  client: S3Client,
  key: string,
  begun: Begun,
  source: PartSource,
  signal: AbortSignal | undefined,
): Promise<Part[]> {
  const parts: Part[] = []
  const left = new AbortController()
  const both = signal === undefined ? left.signal : AbortSignal.any([signal, left.signal])
  let number = 0
  let ended = false
  let taking: Promise<unknown> = Promise.resolve()
  const take = (): Promise<[number, PartToSend] | undefined> => {
    const taken = taking.then(async (): Promise<[number, PartToSend] | undefined> => {
      if (ended || left.signal.aborted) return undefined
      const part = await source.next(number + 1, both)
      if (part === undefined) {
        ended = true
        return undefined
      }
      number++
      if (number <= PARTS_MAX) return [number, part]
      if ('body' in part) part.release?.()
      throw new OperationError('STORE_FILE_TOO_LARGE', `Cannot put "${key}": it takes more than ${PARTS_MAX} parts`)
    })
    taking = taken.catch(() => undefined)
    return taken
  }
  const work = async (): Promise<void> => {
    for (;;) {
      const taken = await take()
      if (taken === undefined) return
      const [place, toSend] = taken
      const part = 'load' in toSend ? await toSend.load(both) : toSend
      try {
        parts[place - 1] = await sendPart(client, key, begun, place, part, both)
      } finally {
        if ('body' in part) part.release?.()
      }
    }
  }
  try {
    await Promise.all(Array.from({ length: PARTS_AT_ONCE }, work))
  } catch (error) {
    left.abort(error)
    throw error
  }
  return parts
}

/** Sends one part, or has it copied. One request. */
export async function sendPart(
  client: S3Client,
  key: string,
  begun: Begun,
  number: number,
  part: Exclude<PartToSend, { readonly load: unknown }>,
  signal: AbortSignal,
): Promise<Part> {
  const query = canonicalQuery([
    ['partNumber', String(number)],
    ['uploadId', begun.id],
  ])
  if ('body' in part) {
    const { body } = part
    const crc = begun.checksums ? crc32(body) : undefined
    const headers: Header[] = crc === undefined ? [] : [['x-amz-checksum-crc32', crc32Base64(crc)]]
    const request = { operation: 'UploadPart', method: 'PUT', key, query, headers, body, signal } as const
    const version = await client.send(request, (answer) => versionOf(headerOf(answer, 'etag')))
    return { number, version, bytes: body.length, crc }
  }
  const headers: Header[] = [
    ['x-amz-copy-source', copySource(client.endpoint, part.copy)],
    ['x-amz-copy-source-if-match', `"${part.version}"`],
    ['x-amz-copy-source-range', `bytes=${part.start}-${part.start + part.bytes - 1}`],
  ]
  const request = { operation: 'UploadPartCopy', method: 'PUT', key, query, headers, signal } as const
  const body = new Uint8Array(0)
  return client.send({ ...request, body, errorIn200: true, workBytes: part.bytes }, (answer) => {
    const result = readXml(client.action(request), answer, 'CopyPartResult')
    const crc = begun.wholeChecksum ? crc32OfBase64(textOf(result, 'ChecksumCRC32')) : undefined
    return { number, version: versionOf(textOf(result, 'ETag')), bytes: part.bytes, crc }
  })
}

/** Makes the object of the parts. One request; the version may come back empty from servers that tell none. */
export function completeUpload(
  client: S3Client,
  key: string,
  upload: Upload,
  conditions: readonly Header[],
  signal: AbortSignal | undefined,
  before?: BeforeAttempt,
): Promise<Written> {
  const request = { operation: 'CompleteMultipartUpload', method: 'POST', key } as const
  const headers: Header[] = [...conditions, ['content-type', 'application/xml']]
  if (upload.checksum !== undefined) {
    headers.push(['x-amz-checksum-crc32', upload.checksum], ['x-amz-checksum-type', 'FULL_OBJECT'])
  }
  const document = writeXml(
    'CompleteMultipartUpload',
    upload.parts.map((part) => [
      'Part',
      [
        ['PartNumber', part.number],
        ['ETag', `"${part.version}"`],
        ['ChecksumCRC32', part.crc === undefined ? undefined : crc32Base64(part.crc)],
      ],
    ]),
  )
  const query = canonicalQuery([['uploadId', upload.id]])
  const body = Buffer.from(document)
  return client.send(
    { ...request, query, headers, body, errorIn200: true, workBytes: upload.bytes, before, signal },
    (answer) => {
      const root = readXml(client.action(request), answer, 'CompleteMultipartUploadResult')
      const modified = httpDate(headerOf(answer, 'date'))
      return { version: versionOf(textOf(root, 'ETag')), modified }
    },
  )
}

/** Gives an upload up. It must not hide why, so its own failure is only told in the log. */
export async function abortUpload(
  client: S3Client,
  key: string,
  { id, note }: { readonly id: string; readonly note?: UploadNote | undefined },
): Promise<void> {
  const query = canonicalQuery([['uploadId', id]])
  const signal = AbortSignal.timeout(ABORT_MS)
  const request = { operation: 'AbortMultipartUpload', method: 'DELETE', key, query, signal } as const
  try {
    await client.send({ ...request, accept: [404] }, () => undefined)
    note?.end()
  } catch (error) {
    log.warn(
      { err: error, key, uploadId: id },
      'cannot abort an upload; its parts stay until the store is opened anew, or a lifecycle rule removes them',
    )
  }
}
