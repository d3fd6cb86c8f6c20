/**
 * Writing objects: in one request what is small, in parts what is large, under a guard either way. A write whose answer was
 * lost and whose guard then fails is looked at: where what is stored is what was sent, it has succeeded.
 */
import { createHash } from 'node:crypto'
import { crc32 } from 'node:zlib'

import { OperationError } from '#base/errors.ts'
import type { Share } from '#base/memory-budget.ts'
import type { Attributes, Entry, Guard, Kind } from '#store/store.ts'
import type { BodyReader } from './body.ts'
import { crc32Base64 } from './checksum.ts'
import type { S3Context } from './context.ts'
import { newHeaders, writtenEntry } from './entries.ts'
import { S3Error } from './errors.ts'
import { conflict, guardedWrite, isTellable } from './guards.ts'
import {
  abortUpload,
  completeUpload,
  growingPartBytes,
  partBytesFor,
  PARTS_MAX,
  PART_BYTES_MAX,
  uploadParts,
  type PartBody,
  type PartSource,
  type Upload,
} from './multipart.ts'
import { headObject, putObject, type ObjectHead, type Written } from './objects.ts'
import type { Header } from './signer.ts'

export interface PutRequest {
  readonly path: string
  readonly key: string
  readonly kind: Kind
  readonly attributes: Attributes
  readonly guard: Guard
  readonly signal: AbortSignal | undefined
}

/**
 * Puts all that a reader gives. One request up to two parts' size, one more where the guard has to be looked at. What is in memory
 * at a time is taken from the store's budget, a part at a time, but for bytes that the caller holds anyway.
 */
export async function putFrom(context: S3Context, request: PutRequest, reader: BodyReader): Promise<Entry> {
  const { putBytesMax, putPartBytes: partBytes } = context.limits
  const { length } = reader
  if (length !== undefined) checkSize(request.path, length)
  if (length !== undefined && length > putBytesMax) {
    const size = partBytesFor(length, partBytes)
    return putParts(context, request, reader, [], () => size)
  }
  const share = await reserve(context, reader, length ?? putBytesMax, request.signal)
  try {
    const body = await reader.next(putBytesMax)
    // A source of a length has no more than that; one of none may go on.
    const more = body.length === putBytesMax || length === body.length ? await reader.next(1) : body.subarray(0, 0)
    if (more.length === 0) return await putWhole(context, request, body)
    const release = share === undefined ? undefined : releaseAtLast(share, 2)
    const begun = [
      { body: body.subarray(0, partBytes), release },
      { body: body.subarray(partBytes), release },
    ]
    return await putParts(context, request, reader, [...begun, { body: more }], (number) =>
      growingPartBytes(number, partBytes),
    )
  } finally {
    share?.release()
  }
}

/** @throws OperationError `STORE_FILE_TOO_LARGE`. */
export function checkSize(path: string, bytes: number): void {
  if (bytes <= PARTS_MAX * PART_BYTES_MAX) return
  throw new OperationError('STORE_FILE_TOO_LARGE', `Cannot put "${path}": it has ${bytes} bytes`)
}

/** Room for bytes that a reader is going to read; undefined where they take none. */
async function reserve(
  context: S3Context,
  reader: BodyReader,
  bytes: number,
  signal: AbortSignal | undefined,
): Promise<Once | undefined> {
  const { memory } = context.options
  if (memory === undefined || reader.inMemory || bytes === 0) return undefined
  return onlyOnce(await memory.reserve(bytes, signal))
}

/** A share that may be given back again and again. */
interface Once {
  release(): void
}

function onlyOnce(share: Share): Once {
  let lent = true
  return {
    release: () => {
      if (lent) share.release()
      lent = false
    },
  }
}

/** Gives back what so many use. */
function releaseAtLast(share: Once, users: number): () => void {
  let left = users
  return () => {
    if (--left === 0) share.release()
  }
}

/** Puts a body in one request. */
export async function putWhole(
  context: S3Context,
  request: PutRequest,
  body: Buffer,
  headers: readonly Header[] = newHeaders(context, request.path, request.kind, body.length, request.attributes),
): Promise<Entry> {
  const { path, key, kind, attributes, guard, signal } = request
  const { client } = context
  const written = await guardedWrite(context, {
    ...{ action: 'put', path, write: 'put', key, guard, signal },
    send: (conditions, before) => putObject(client, key, body, [...headers, ...conditions], signal, before),
    look: () => headObject(client, key, signal, [['x-amz-checksum-mode', 'ENABLED']]),
    take: (head) => (isTellable(context, guard) && holds(head, body, headers) ? writtenAt(head) : undefined),
  })
  return writtenEntry(context, { path, kind, size: body.length, attributes }, written)
}

/** Whether an object is what was sent: by size, digest and attributes. */
function holds(head: ObjectHead, body: Buffer, headers: readonly Header[]): boolean {
  if (head.size !== body.length) return false
  const metadata = (name: string): boolean => head.header(name) === headers.find(([sent]) => sent === name)?.[1]
  if (!metadata('x-amz-meta-attr') || !metadata('x-amz-meta-xattr')) return false
  if (head.version === createHash('md5').update(body).digest('hex')) return true
  return head.header('x-amz-checksum-crc32') === crc32Base64(crc32(body))
}

function writtenAt(head: ObjectHead): Written {
  return { version: head.version, modified: head.modified }
}

async function putParts(
  context: S3Context,
  request: PutRequest,
  reader: BodyReader,
  begun: readonly PartBody[],
  partBytes: (number: number) => number,
): Promise<Entry> {
  const { path, key, kind, attributes, guard, signal } = request
  const headers = newHeaders(context, path, kind, reader.length, attributes)
  for (let redone = false; ; redone = true) {
    const source = partsOf(context, reader, redone ? [] : begun, partBytes)
    try {
      const upload = await uploadParts(context.client, key, headers, source, signal, context.notes)
      const written = await finishUpload(context, path, key, upload, guard, signal)
      return writtenEntry(context, { path, kind, size: upload.bytes, attributes }, written)
    } catch (error) {
      // S3 lets go of an upload whose completion raced with another write, and another process may have aborted it.
      if (!isLostUpload(error) || redone || !reader.repeatable) throw error
      await reader.rewind()
    }
  }
}

/** Whether an upload is no more, and everything has to be sent again. */
export function isLostUpload(error: unknown): boolean {
  const cause = error instanceof OperationError && !(error instanceof S3Error) ? error.cause : error
  return cause instanceof S3Error && (cause.s3Code === 'NoSuchUpload' || cause.s3Code === 'ConditionalRequestConflict')
}

function partsOf(
  context: S3Context,
  reader: BodyReader,
  begun: readonly PartBody[],
  partBytes: (number: number) => number,
): PartSource {
  // The last piece is one byte that was read ahead, and begins the part after the others.
  const whole = begun.slice(0, -1)
  let ahead = begun.at(-1)?.body ?? Buffer.alloc(0)
  let given = 0
  return {
    next: async (number, signal) => {
      const ready = whole[number - 1]
      if (ready !== undefined) {
        given += ready.body.length
        return ready
      }
      // At the end of what the source says nothing is read but for the proof.
      const left = reader.length === undefined ? partBytes(number) : Math.min(partBytes(number), reader.length - given)
      const share = await reserve(context, reader, left, signal)
      try {
        const rest = await reader.next(Math.max(1, left - ahead.length))
        const body = ahead.length === 0 ? rest : Buffer.concat([ahead, rest])
        ahead = Buffer.alloc(0)
        given += body.length
        if (body.length > 0) return { body, release: () => share?.release() }
        share?.release()
        return undefined
      } catch (error) {
        share?.release()
        throw error
      }
    },
  }
}

/** Completes an upload under a guard; aborts it where that fails. */
export async function finishUpload(
  context: S3Context,
  path: string,
  key: string,
  upload: Upload,
  guard: Guard,
  signal: AbortSignal | undefined,
): Promise<Written> {
  try {
    return await completeGuarded(context, path, key, upload, guard, signal)
  } catch (error) {
    if (isNoUpload(error)) upload.note?.end()
    else await abortUpload(context.client, key, upload)
    throw error
  }
}

/** Completes an upload under a guard; where that fails the upload stays open, if it is not lost. */
export async function completeGuarded(
  context: S3Context,
  path: string,
  key: string,
  upload: Upload,
  guard: Guard,
  signal: AbortSignal | undefined,
): Promise<Written> {
  const { client } = context
  const take = (head: ObjectHead): Written | undefined => {
    const { checksum } = upload
    // Under KMS an etag does not follow from those of the parts, but the checksum of the whole still tells.
    const same = checksum !== undefined && head.header('x-amz-checksum-crc32') === checksum
    const ours = head.size === upload.bytes && (same || head.version === upload.versionExpected)
    return ours && isTellable(context, guard) ? writtenAt(head) : undefined
  }
  const look = (): Promise<ObjectHead | undefined> =>
    headObject(client, key, signal, [['x-amz-checksum-mode', 'ENABLED']])
  try {
    const written = await guardedWrite(context, {
      ...{ action: 'put', path, write: 'complete', key, guard, signal },
      send: (conditions, before) => completeUpload(client, key, upload, conditions, signal, before),
      ...{ look, take },
    })
    upload.note?.end()
    if (written.version !== '') return written
    // Some servers tell no etag of what was completed.
    const head = await look()
    return head === undefined ? written : writtenAt(head)
  } catch (error) {
    if (!isNoUpload(error)) throw error
    // An earlier attempt may have completed it, and its answer was lost.
    const head = await look()
    if (head !== undefined && !isTellable(context, guard)) throw conflict('put', path, error)
    const taken = head === undefined ? undefined : take(head)
    if (taken === undefined) throw error
    upload.note?.end()
    return taken
  }
}

function isNoUpload(error: unknown): boolean {
  return error instanceof S3Error && error.s3Code === 'NoSuchUpload'
}
