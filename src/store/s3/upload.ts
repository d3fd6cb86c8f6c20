/**
 * Writing objects: in one request what is small, in parts what is large, under a guard either way. A write whose answer was
 * lost and whose guard then fails is looked at: where what is stored is what was sent, it has succeeded.
 */
import { createHash } from 'node:crypto'
import { crc32 } from 'node:zlib'

import { OperationError } from '#base/errors.ts'
import type { Attributes, Entry, Guard, Kind } from '#store/store.ts'
import type { BodyReader } from './body.ts'
import { crc32Base64 } from './checksum.ts'
import type { S3Context } from './context.ts'
import { newHeaders, writtenEntry } from './entries.ts'
import { S3Error } from './errors.ts'
import { conditions, guardedWrite } from './guards.ts'
import {
  abortUpload,
  completeUpload,
  growingPartBytes,
  partBytesFor,
  PARTS_MAX,
  PART_BYTES_MAX,
  uploadParts,
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

/** Puts all that a reader gives. One request up to two parts' size, one more where the guard has to be looked at. */
export async function putFrom(context: S3Context, request: PutRequest, reader: BodyReader): Promise<Entry> {
  const { putBytesMax, putPartBytes: partBytes } = context.limits
  const { length } = reader
  if (length !== undefined && length > PARTS_MAX * PART_BYTES_MAX) {
    throw new OperationError('STORE_FILE_TOO_LARGE', `Cannot put "${request.path}": it has ${length} bytes`)
  }
  if (length !== undefined && length > putBytesMax) {
    const size = partBytesFor(length, partBytes)
    return putParts(context, request, reader, [], () => size)
  }
  const body = await reader.next(putBytesMax)
  // A source of a length has no more than that; one of none may go on.
  const more = body.length === putBytesMax || length === body.length ? await reader.next(1) : body.subarray(0, 0)
  if (more.length === 0) return putWhole(context, request, body)
  const begun = [body.subarray(0, partBytes), body.subarray(partBytes), more]
  return putParts(context, request, reader, begun, (number) => growingPartBytes(number, partBytes))
}

/** Puts a body in one request. */
export async function putWhole(context: S3Context, request: PutRequest, body: Buffer): Promise<Entry> {
  const { path, key, kind, attributes, guard, signal } = request
  const { client } = context
  const headers = newHeaders(context, path, kind, body.length, attributes)
  const written = await guardedWrite(
    'put',
    path,
    guard,
    async () => {
      const guards = await conditions(client, context.honoured, 'put', key, guard, signal)
      return putObject(client, key, body, [...headers, ...guards], signal)
    },
    {
      look: () => headObject(client, key, signal, [['x-amz-checksum-mode', 'ENABLED']]),
      take: (head) => (holds(head, body, headers) ? writtenAt(head) : undefined),
    },
  )
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
  return { version: head.version, modified: head.modified, attempts: 1 }
}

async function putParts(
  context: S3Context,
  request: PutRequest,
  reader: BodyReader,
  begun: readonly Buffer[],
  partBytes: (number: number) => number,
): Promise<Entry> {
  const { path, key, kind, attributes, guard, signal } = request
  const headers = newHeaders(context, path, kind, reader.length, attributes)
  for (let redone = false; ; redone = true) {
    const source = partsOf(reader, redone ? [] : begun, partBytes)
    const upload = await uploadParts(context.client, key, headers, source, signal)
    try {
      const written = await finishUpload(context, path, key, upload, guard, signal)
      return writtenEntry(context, { path, kind, size: upload.bytes, attributes }, written)
    } catch (error) {
      // S3 lets go of an upload whose completion raced with another write: it has to be sent again.
      if (!isLostUpload(error) || redone || !reader.repeatable) throw error
      reader.rewind()
    }
  }
}

function isLostUpload(error: unknown): boolean {
  const cause = error instanceof OperationError && !(error instanceof S3Error) ? error.cause : error
  return cause instanceof S3Error && (cause.s3Code === 'NoSuchUpload' || cause.s3Code === 'ConditionalRequestConflict')
}

function partsOf(reader: BodyReader, begun: readonly Buffer[], partBytes: (number: number) => number): PartSource {
  // The last piece is one byte that was read ahead, and begins the part after the others.
  const whole = begun.slice(0, -1)
  let ahead = begun.at(-1) ?? Buffer.alloc(0)
  return {
    next: async (number) => {
      const ready = whole[number - 1]
      if (ready !== undefined) return { body: ready }
      const rest = await reader.next(partBytes(number) - ahead.length)
      const body = ahead.length === 0 ? rest : Buffer.concat([ahead, rest])
      ahead = Buffer.alloc(0)
      return body.length === 0 ? undefined : { body }
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
  const { client } = context
  const take = (head: ObjectHead): Written | undefined => {
    const { checksum } = upload
    // Under KMS an etag does not follow from those of the parts, but the checksum of the whole still tells.
    const same = checksum !== undefined && head.header('x-amz-checksum-crc32') === checksum
    const ours = head.size === upload.bytes && (same || head.version === upload.versionExpected)
    return ours ? writtenAt(head) : undefined
  }
  const look = (): Promise<ObjectHead | undefined> =>
    headObject(client, key, signal, [['x-amz-checksum-mode', 'ENABLED']])
  try {
    const written = await guardedWrite(
      'put',
      path,
      guard,
      async () => {
        const guards = await conditions(client, context.honoured, 'complete', key, guard, signal)
        return completeUpload(client, key, upload, guards, signal)
      },
      { look, take },
    )
    if (written.version !== '') return written
    // Some servers tell no etag of what was completed.
    const head = await look()
    return head === undefined ? written : writtenAt(head)
  } catch (error) {
    if (isNoUpload(error)) {
      // An earlier attempt completed it, and its answer was lost.
      const head = await look()
      const taken = head === undefined ? undefined : take(head)
      if (taken !== undefined) return taken
    } else {
      await abortUpload(client, key, upload.id)
    }
    throw error
  }
}

function isNoUpload(error: unknown): boolean {
  return error instanceof S3Error && error.s3Code === 'NoSuchUpload'
}
