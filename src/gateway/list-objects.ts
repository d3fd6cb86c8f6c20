/**
 * ListObjectsV2 and ListObjects (the first version): their parameters, and their documents from a page of `listing.ts`.
 * A continuation token is opaque to clients and is all that is remembered: it names the last item given.
 */
import { timestampToMs, type Timestamp } from '#base/time.ts'
import { encodePath } from '#store/s3/sigv4.ts'
import type { XmlNode } from '#store/s3/xml.ts'

import { S3Error } from './errors.ts'
import type { Exchange } from './exchange.ts'
import { listPage, type ListFrom, type ListItem } from './listing.ts'
import type { Operation, Request } from './operation.ts'

const ITEMS_MAX = 1000

interface Common {
  readonly prefix: string
  readonly delimiter: string
  readonly itemsMax: number
  readonly encode: (text: string) => string
  readonly encoding: string | undefined
}

export const listObjectsV2: Operation = {
  name: 'ListObjectsV2',
  takesBody: false,
  async run(request) {
    const { exchange, tree } = request
    const { bucket, query, signal } = exchange
    const common = commonOf(exchange)
    const token = query.get('continuation-token')
    const startAfter = query.get('start-after')
    const from = token === undefined ? fromOf(startAfter, false) : decodeToken(token)
    await tree.requireBucket(bucket, signal)
    const page = await listPage(tree, bucket, { ...common, from }, signal)
    const owner = query.get('fetch-owner') === 'true'
    exchange.answerXml('ListBucketResult', [
      ['Name', bucket],
      ['Prefix', common.encode(common.prefix)],
      ['StartAfter', startAfter === undefined ? undefined : common.encode(startAfter)],
      ['ContinuationToken', token],
      ['NextContinuationToken', page.next === undefined ? undefined : encodeToken(page.next)],
      ['KeyCount', page.items.length],
      ['MaxKeys', common.itemsMax],
      ['Delimiter', common.delimiter === '' ? undefined : common.encode(common.delimiter)],
      ['EncodingType', common.encoding],
      ['IsTruncated', page.next !== undefined],
      ...contents(request, page.items, common, owner),
    ])
  },
}

export const listObjects: Operation = {
  name: 'ListObjects',
  takesBody: false,
  async run(request) {
    const { exchange, tree } = request
    const { bucket, query, signal } = exchange
    const common = commonOf(exchange)
    const { delimiter, encode } = common
    const marker = query.get('marker') ?? ''
    // The marker that a page named is its last item; one that ends with the delimiter is a common prefix that was given.
    const from = fromOf(marker, delimiter !== '' && marker.length > common.prefix.length && marker.endsWith(delimiter))
    await tree.requireBucket(bucket, signal)
    const page = await listPage(tree, bucket, { ...common, from }, signal)
    exchange.answerXml('ListBucketResult', [
      ['Name', bucket],
      ['Prefix', encode(common.prefix)],
      ['Marker', encode(marker)],
      ['NextMarker', page.next === undefined || delimiter === '' ? undefined : encode(page.next.after)],
      ['MaxKeys', common.itemsMax],
      ['Delimiter', delimiter === '' ? undefined : encode(delimiter)],
      ['EncodingType', common.encoding],
      ['IsTruncated', page.next !== undefined],
      ...contents(request, page.items, common, true),
    ])
  },
}

function commonOf(exchange: Exchange): Common {
  const { query } = exchange
  const encoding = encodingOf(query)
  return {
    prefix: query.get('prefix') ?? '',
    delimiter: query.get('delimiter') ?? '',
    itemsMax: itemsMaxOf(query.get('max-keys'), 'max-keys'),
    encode: encoding === undefined ? (text) => text : encodePath,
    encoding,
  }
}

/** The encoding that a listing's client asks for: without one, control characters in keys are character references. */
export function encodingOf(query: ReadonlyMap<string, string>): string | undefined {
  const encoding = query.get('encoding-type')
  if (encoding !== undefined && encoding !== 'url') {
    throw new S3Error('InvalidArgument', 'Invalid Encoding Method specified in Request')
  }
  return encoding
}

/** How many items a page may have. */
export function itemsMaxOf(text: string | undefined, name: string): number {
  if (text === undefined || text === '') return ITEMS_MAX
  if (!/^\d{1,10}$/.test(text) || Number(text) > 0x7fffffff) {
    throw new S3Error('InvalidArgument', `Argument ${name} must be an integer between 0 and 2147483647`)
  }
  return Math.min(Number(text), ITEMS_MAX)
}

function fromOf(after: string | undefined, skipUnder: boolean): ListFrom | undefined {
  return after === undefined || after === '' ? undefined : { after, skipUnder }
}

function encodeToken(from: ListFrom): string {
  return Buffer.from((from.skipUnder ? 'p' : 'k') + from.after).toString('base64url')
}

function decodeToken(token: string): ListFrom {
  const text = Buffer.from(token, 'base64url').toString()
  const from = { after: text.slice(1), skipUnder: text.startsWith('p') }
  if (!/^[pk]./s.test(text) || encodeToken(from) !== token) {
    throw new S3Error('InvalidArgument', 'The continuation token provided is incorrect')
  }
  return from
}

function contents(request: Request, items: readonly ListItem[], common: Common, withOwner: boolean): XmlNode[] {
  const { owner } = request
  const objects: XmlNode[] = []
  const prefixes: XmlNode[] = []
  for (const item of items) {
    if (item.kind === 'prefix') {
      prefixes.push(['CommonPrefixes', [['Prefix', common.encode(item.key)]]])
      continue
    }
    const { object } = item
    const [algorithm] = Object.keys(object.checksums)
    objects.push([
      'Contents',
      [
        ['Key', common.encode(item.key)],
        ['LastModified', isoDate(object.modified)],
        ['ETag', `"${object.etag}"`],
        ['ChecksumAlgorithm', algorithm],
        ['ChecksumType', algorithm === undefined ? undefined : object.checksumType],
        ['Size', object.size],
        ['Owner', withOwner ? ownerNodes(owner) : undefined],
        ['StorageClass', 'STANDARD'],
      ],
    ])
  }
  return [...objects, ...prefixes]
}

/** The elements of an Owner. */
export function ownerNodes(owner: Request['owner']): XmlNode[] {
  return [
    ['ID', owner.id],
    ['DisplayName', owner.name],
  ]
}

/** A time as documents have it: whole seconds, as in headers, so that the two never differ. */
export function isoDate(time: Timestamp): string {
  return new Date(Math.floor(timestampToMs(time) / 1000) * 1000).toISOString()
}
