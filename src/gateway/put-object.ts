/**
 * PutObject: a body to a file of the store, all or nothing. A small body is taken into memory, checked, and then put in
 * one write; a larger one streams, and the store drops what it had taken when a check at the end fails.
 */
import { isOperationError } from '#base/errors.ts'
import { compareTimestamps, timestamp, timestampNow, type Timestamp } from '#base/time.ts'
import { ANY, ifVersion, type Attributes, type Entry, type Guard, type Source } from '#store/store.ts'

import type { Body, Checksum } from './body.ts'
import type { ByteFacts } from './object-metadata.ts'
import { checksumHeaders, describeObject, encodeMetadata, METADATA_XATTR, type Description } from './object-metadata.ts'
import { underCondition, writeCondition } from './conditions.ts'
import { S3Error } from './errors.ts'
import { EMPTY_MD5, MD5_BYTES_MAX, randomEtag } from './etag.ts'
import { isMarked, objectOf, type ObjectTree, type StoredObject } from './object-tree.ts'
import { refuseUnsupported, type Operation, type Request } from './operation.ts'

/** Bodies up to here are taken into memory before the store hears of them. */
const BUFFER_BYTES_MAX = 256 * 1024
/** All such bodies together; beyond it even small ones stream. */
const BUFFERED_BYTES_MAX = 64 * 1024 * 1024
/** How often a directory that changes all the time is marked anew before its client is asked to try again. */
const MARK_ATTEMPTS = 8

let bufferedBytes = 0

export const putObject: Operation = {
  name: 'PutObject',
  takesBody: true,
  async run(request) {
    const { exchange, tree } = request
    const { bucket, key, signal } = exchange
    refuseUnsupported(exchange)
    const description = describeObject(exchange)
    const condition = writeCondition(exchange)
    const body = request.openBody()
    tree.pathOf(bucket, key)
    await tree.requireBucket(bucket, signal)
    const stored = await underCondition(tree, bucket, key, condition, signal, (guard) =>
      key.endsWith('/')
        ? putDirectory(request, body, description, condition.ifNoneMatch)
        : putFile(request, body, description, guard),
    )
    exchange.answer(200, ['ETag', `"${stored.etag}"`, ...checksumHeaders(stored)])
  },
}

async function putFile(request: Request, body: Body, description: Description, guard: Guard): Promise<StoredObject> {
  const { tree, exchange } = request
  const { bucket, key, signal } = exchange
  const path = tree.pathOf(bucket, key)
  const withMd5 = body.size <= MD5_BYTES_MAX
  const modified = uniqueNow()
  let random: string | undefined
  // A store that asks for the attributes after it has read the bytes gets what was computed from them; one that asks
  // before gets what is known by then, which is as true and says less.
  const attributes: Attributes = {
    mtime: modified,
    get xattrs() {
      const etag = body.md5 ?? body.md5Expected ?? (random ??= randomEtag())
      const facts = factsOf(etag, body.checksum ?? body.checksumExpected)
      return attributeOf(description, facts, body.size, modified)
    },
  }
  try {
    const entry = await withBuffer(body, withMd5, (source) =>
      tree.store.put(path, source, { guard, attributes, signal }),
    )
    return objectOf(key, entry)
  } catch (error) {
    // The store may have wrapped what the body said in words of its own.
    if (body.failure !== undefined) throw body.failure
    // Another process removed the directory as the file was to go into it: the client's next attempt makes it again.
    if (isOperationError(error, 'STORE_NOT_FOUND')) throw new S3Error('ServiceUnavailable', undefined, { cause: error })
    throw error
  }
}

type PutSource = Buffer | Extract<Source, { kind: 'stream' }>

async function withBuffer(body: Body, withMd5: boolean, put: (source: PutSource) => Promise<Entry>): Promise<Entry> {
  const { size } = body
  if (size > BUFFER_BYTES_MAX || bufferedBytes + size > BUFFERED_BYTES_MAX) {
    return put({ kind: 'stream', stream: body.stream(withMd5), size, release: body.release })
  }
  bufferedBytes += size
  try {
    return await put(await body.bytes(BUFFER_BYTES_MAX, withMd5))
  } finally {
    bufferedBytes -= size
  }
}

let lastTime = timestamp(0)

/**
 * The modification time of a new object: now, to a nanosecond that this process gives once. A store may tell versions
 * of a file apart by it, and the clock ticks in milliseconds.
 */
export function uniqueNow(): Timestamp {
  const now = timestampNow()
  const { seconds, nanoseconds } = lastTime
  if (compareTimestamps(now, lastTime) > 0) lastTime = now
  else lastTime = nanoseconds === 999_999_999 ? timestamp(seconds + 1) : timestamp(seconds, nanoseconds + 1)
  return lastTime
}

/** What is known of bytes that were put at once. */
export function factsOf(etag: string, checksum: Checksum | undefined): ByteFacts {
  const checksums = checksum === undefined ? {} : { [checksum.algorithm]: checksum.value }
  return { etag, checksums, checksumType: 'FULL_OBJECT', parts: undefined }
}

/** The extended attributes of a new entry. */
export function attributeOf(
  description: Description,
  facts: ByteFacts,
  size: number,
  modified: Timestamp,
): ReadonlyMap<string, Uint8Array> {
  const { contentType, content, user } = description
  const { etag, checksums, checksumType, parts } = facts
  const metadata = { contentType, content, user, etag, checksums, checksumType, parts, size, modified }
  return new Map([[METADATA_XATTR, encodeMetadata(metadata)]])
}

async function putDirectory(
  request: Request,
  body: Body,
  description: Description,
  absent: boolean,
): Promise<StoredObject> {
  if (body.size > 0) {
    throw new S3Error('InvalidArgument', 'A key that ends in "/" is a directory here and cannot hold bytes')
  }
  await body.bytes(0)
  const { tree, exchange } = request
  const facts = factsOf(EMPTY_MD5, body.checksum)
  const entry = await markDirectory(tree, exchange.bucket, exchange.key, description, facts, absent, exchange.signal)
  return objectOf(exchange.key, entry)
}

/** Makes a directory an object, keeping the attributes that others gave it. */
export async function markDirectory(
  tree: ObjectTree,
  bucket: string,
  key: string,
  description: Description,
  facts: ByteFacts,
  absent: boolean,
  signal: AbortSignal,
): Promise<Entry> {
  const path = tree.pathOf(bucket, key)
  return tree.lockDirectory(path, async () => {
    for (let attempt = 0; attempt < MARK_ATTEMPTS; attempt++) {
      const own = attributeOf(description, facts, 0, uniqueNow())
      const found = await tree.find(bucket, key, signal)
      if (absent && found !== undefined) throw new S3Error('PreconditionFailed')
      const made = await tree.store.makeDirectory(path, { guard: ANY, signal })
      if (absent && isMarked(made)) continue
      const xattrs = new Map([...(made.attributes?.xattrs ?? []), ...own])
      try {
        return await tree.store.setAttributes(path, { xattrs }, { guard: ifVersion(made.version), signal })
      } catch (error) {
        // An entry that came or went in it may have made a new version of it.
        if (!isOperationError(error, 'STORE_CONFLICT', 'STORE_NOT_FOUND')) throw error
      }
    }
    throw new S3Error('OperationAborted')
  })
}
