/**
 * GetObject and HeadObject: conditions, one byte range, overrides of content headers, and the bytes, streamed as fast
 * as the client takes them and no faster. All bytes of an answer are of one version of the file.
 */
import { assert } from '#base/assert.ts'
import { isOperationError } from '#base/errors.ts'
import { counter } from '#base/metrics.ts'
import { timestampToMs } from '#base/time.ts'
import type { Reading, ReadOptions } from '#store/store.ts'

import { isNotModified } from './conditions.ts'
import { isNothingThere, S3Error } from './errors.ts'
import { unquoteEtag } from './etag.ts'
import type { Exchange, FlatHeaders } from './exchange.ts'
import { freeChunk } from './free-chunk.ts'
import { checksumHeaders, descriptionHeaders } from './object-metadata.ts'
import { objectOf, type ObjectTree, type StoredObject } from './object-tree.ts'
import type { Operation } from './operation.ts'

/** Bodies up to here are answered in one write together with the head. */
const AT_ONCE_BYTES_MAX = 64 * 1024
/** How often a read begins anew because the file was replaced between looking at it and opening it. */
const READ_ATTEMPTS = 4

const sentBytes = counter('eider_gateway_sent_bytes_total')

/** What a request wants of an object; `last` is inclusive. */
type Range =
  | { readonly kind: 'whole' }
  | { readonly kind: 'from'; readonly first: number; readonly last: number | undefined }
  | { readonly kind: 'suffix'; readonly length: number }

/** A range within an object of known size. */
interface Extent {
  readonly offset: number
  readonly length: number
  readonly partial: boolean
}

export const headObject: Operation = {
  name: 'HeadObject',
  takesBody: false,
  async run({ exchange, tree }) {
    const { bucket, key, signal } = exchange
    checkVersionId(exchange)
    const object = await tree.require(bucket, key, signal)
    if (isNotModified(exchange, object)) answerNotModified(exchange, object)
    else answerHead(exchange, object, extentOf(exchange, object))
  },
}

export const getObject: Operation = {
  name: 'GetObject',
  takesBody: false,
  async run({ exchange, tree }) {
    const { bucket, key, signal } = exchange
    checkVersionId(exchange)
    if (key.endsWith('/')) {
      await getDirectory(exchange, tree)
      return
    }
    const reading = await beginRead(exchange, tree)
    if (reading === undefined) throw await tree.missing(bucket, key, signal)
    const { object, extent } = reading
    try {
      if (extent === undefined) answerNotModified(exchange, object)
      else await answerBody(exchange, object, extent, reading.reading)
    } finally {
      reading.reading.cancel()
    }
  },
}

/** One version is kept, and S3 calls the version of an object that was never versioned "null". */
function checkVersionId(exchange: Exchange): void {
  const versionId = exchange.query.get('versionId')
  if (versionId !== undefined && versionId !== 'null') throw new S3Error('NoSuchVersion')
}

async function getDirectory(exchange: Exchange, tree: ObjectTree): Promise<void> {
  const object = await tree.require(exchange.bucket, exchange.key, exchange.signal)
  if (isNotModified(exchange, object)) answerNotModified(exchange, object)
  else answerHead(exchange, object, extentOf(exchange, object))
}

interface BegunRead {
  readonly object: StoredObject
  /** Undefined: not modified. */
  readonly extent: Extent | undefined
  readonly reading: Reading
}

/** Opens the file at the place that the request wants, in one call of the store wherever the size need not be known. */
async function beginRead(exchange: Exchange, tree: ObjectTree): Promise<BegunRead | undefined> {
  const { bucket, key, signal } = exchange
  const path = tree.pathSought(bucket, key)
  if (path === undefined) return undefined
  const range = rangeOf(exchange)
  const lookFirst = range.kind === 'suffix' || needsObjectFirst(exchange)
  for (let attempt = 1; ; attempt++) {
    let options: ReadOptions = { signal }
    if (lookFirst) {
      const known = await tree.find(bucket, key, signal)
      if (known === undefined) return undefined
      const { offset, length } = extentOf(exchange, known)
      options = { signal, offset, length, version: known.entry.version }
    } else if (range.kind === 'from') {
      const length = range.last === undefined ? {} : { length: range.last - range.first + 1 }
      options = { signal, offset: range.first, ...length }
    }
    let reading: Reading
    try {
      reading = await tree.store.read(path, options)
    } catch (error) {
      // A fifo or socket is no valid input to a read, and no object.
      if (isNothingThere(error) || isOperationError(error, 'STORE_IS_DIRECTORY', 'INPUT_INVALID')) return undefined
      // Replaced since it was looked at; a file that is replaced all the time is not waited for.
      if (isOperationError(error, 'STORE_CONFLICT') && attempt < READ_ATTEMPTS) continue
      throw error
    }
    return begun(exchange, key, reading)
  }
}

function begun(exchange: Exchange, key: string, reading: Reading): BegunRead {
  try {
    const object = objectOf(key, reading.entry)
    const extent = isNotModified(exchange, object) ? undefined : extentOf(exchange, object)
    return { object, extent, reading }
  } catch (error) {
    reading.cancel()
    throw error
  }
}

/** Where the range is not to be used unless the object is what the client thinks, or is a part of the object. */
function needsObjectFirst(exchange: Exchange): boolean {
  return exchange.headers['if-range'] !== undefined || exchange.query.has('partNumber')
}

function rangeOf(exchange: Exchange): Range {
  const header = exchange.header('range')
  // Several ranges are answered with the whole, as S3 does and RFC 9110 allows.
  const match = header === undefined ? null : /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header.trim())
  const [, first = '', last = ''] = match ?? []
  if (first === '' && last === '') return { kind: 'whole' }
  if (first === '') return { kind: 'suffix', length: Number(last) }
  // A range that ends before it begins is not a range.
  if (last !== '' && Number(last) < Number(first)) return { kind: 'whole' }
  return { kind: 'from', first: Number(first), last: last === '' ? undefined : Number(last) }
}

function extentOf(exchange: Exchange, object: StoredObject): Extent {
  const { size } = object
  const part = exchange.query.get('partNumber')
  if (part !== undefined) return partExtent(part, object)
  const ifRange = exchange.header('if-range')
  const range = rangeOf(exchange)
  if (range.kind === 'whole' || (ifRange !== undefined && !holdsIfRange(ifRange, object))) {
    return { offset: 0, length: size, partial: false }
  }
  const offset = range.kind === 'suffix' ? Math.max(0, size - range.length) : range.first
  const end = range.kind === 'suffix' ? size : Math.min(size, (range.last ?? size - 1) + 1)
  if (offset >= size || (range.kind === 'suffix' && range.length === 0)) {
    throw new S3Error('InvalidRange', undefined, {
      details: [['ActualObjectSize', String(size)]],
      headers: ['Content-Range', `bytes */${size}`],
    })
  }
  return { offset, length: end - offset, partial: true }
}

function holdsIfRange(ifRange: string, object: StoredObject): boolean {
  const ms = Date.parse(ifRange)
  if (ifRange.startsWith('"') || Number.isNaN(ms)) return unquoteEtag(ifRange) === object.etag
  return Math.floor(timestampToMs(object.modified) / 1000) * 1000 === ms
}

function partExtent(text: string, object: StoredObject): Extent {
  const number = /^\d{1,5}$/.test(text) ? Number(text) : 0
  if (number < 1 || number > 10_000) throw new S3Error('InvalidArgument', 'Part number must be 1 to 10000')
  const { size, parts } = object
  const count = parts?.count ?? Number(/-(\d+)$/.exec(object.etag)?.[1] ?? 1)
  if (number > count) throw new S3Error('InvalidPartNumber')
  if (parts === undefined) {
    if (count > 1)
      throw new S3Error('NotImplemented', 'The parts of this object have several sizes, which are not kept')
    return { offset: 0, length: size, partial: size > 0 }
  }
  const offset = (number - 1) * parts.bytes
  return { offset, length: Math.min(parts.bytes, size - offset), partial: true }
}

function objectHeaders(exchange: Exchange, object: StoredObject, extent: Extent): FlatHeaders {
  const headers = descriptionHeaders(object, exchange.query)
  headers.push('ETag', `"${object.etag}"`, 'Last-Modified', httpDate(object), 'Accept-Ranges', 'bytes')
  headers.push('Content-Length', String(extent.length))
  if (extent.partial) {
    headers.push('Content-Range', `bytes ${extent.offset}-${extent.offset + extent.length - 1}/${object.size}`)
  }
  // The checksum is of the whole, and a client would hold a part to it.
  const whole = extent.length === object.size
  if (whole && exchange.header('x-amz-checksum-mode')?.toUpperCase() === 'ENABLED') {
    headers.push(...checksumHeaders(object))
  }
  if (exchange.query.has('partNumber') && object.parts !== undefined) {
    headers.push('x-amz-mp-parts-count', String(object.parts.count))
  }
  return headers
}

function httpDate(object: StoredObject): string {
  return new Date(timestampToMs(object.modified)).toUTCString()
}

function answerNotModified(exchange: Exchange, object: StoredObject): void {
  exchange.answer(304, ['ETag', `"${object.etag}"`, 'Last-Modified', httpDate(object)])
}

function answerHead(exchange: Exchange, object: StoredObject, extent: Extent): void {
  exchange.head(extent.partial ? 206 : 200, objectHeaders(exchange, object, extent))
  exchange.res.end()
}

async function answerBody(exchange: Exchange, object: StoredObject, extent: Extent, reading: Reading): Promise<void> {
  const { res } = exchange
  const headers = objectHeaders(exchange, object, extent)
  const status = extent.partial ? 206 : 200
  assert(reading.length === extent.length, 'a reading has the bytes that the answer announces')
  if (extent.length <= AT_ONCE_BYTES_MAX) {
    const bytes = await reading.bytes()
    exchange.head(status, headers)
    res.end(bytes)
    sentBytes.inc(bytes.length)
    return
  }
  // A client that takes nothing for that long is cut off: node:http closes a socket that times out unheard.
  res.socket?.setTimeout(exchange.idleMs)
  exchange.head(status, headers)
  for await (const chunk of reading.body) {
    sentBytes.inc(chunk.length)
    if (!res.write(chunk, () => freeChunk(chunk))) await drained(exchange)
  }
  res.end()
}

/** Waits until the client has taken what was written, or has gone. */
async function drained(exchange: Exchange): Promise<void> {
  const { res, signal } = exchange
  await new Promise<void>((resolve, reject) => {
    const settle = (): void => {
      res.off('drain', settle)
      res.off('close', settle)
      if (signal.aborted) reject(signal.reason instanceof Error ? signal.reason : new Error('The client has gone'))
      else resolve()
    }
    res.on('drain', settle)
    res.on('close', settle)
  })
}
