/**
 * ListObjectsV2 as pages of keys and common prefixes merged into one order, the next page asked for as soon as its token
 * is known. Knows keys, not entries.
 */
import { isUtf8 } from 'node:buffer'

import { OperationError } from '#base/errors.ts'
import type { Timestamp } from '#base/time.ts'
import { compareUtf8 } from '#store/path.ts'
import type { Version } from '#store/store.ts'
import type { S3Client } from './client.ts'
import { httpDate, readXml, versionOf } from './objects.ts'
import { canonicalQuery, decodePercent } from './sigv4.ts'
import { childrenOf, textOf, type XmlElement } from './xml.ts'

export interface ListedObject {
  readonly key: string
  readonly size: number
  readonly version: Version
  readonly modified: Timestamp
}

/** A key, or a common prefix: all keys under one `/`. */
export type Listed = ListedObject | { readonly prefix: string }

export interface ListPage {
  /** In order of UTF-8 bytes. */
  readonly items: readonly Listed[]
  readonly token: string | undefined
}

export interface ListQuery {
  readonly prefix: string
  readonly delimited: boolean
  readonly after?: string
  readonly keysMax?: number
  readonly signal?: AbortSignal | undefined
}

/** One page. One request. */
export function listPage(client: S3Client, query: ListQuery, token?: string): Promise<ListPage> {
  const pairs: [string, string][] = [
    ['list-type', '2'],
    ['encoding-type', 'url'],
    ['prefix', query.prefix],
  ]
  if (query.delimited) pairs.push(['delimiter', '/'])
  if (query.keysMax !== undefined) pairs.push(['max-keys', String(query.keysMax)])
  if (token !== undefined) pairs.push(['continuation-token', token])
  else if (query.after !== undefined && query.after !== '') pairs.push(['start-after', query.after])
  const request = { operation: 'ListObjectsV2', method: 'GET', query: canonicalQuery(pairs) } as const
  return client.send({ ...request, signal: query.signal }, (answer) => {
    const page = pageOf(readXml(client.action(request), answer, 'ListBucketResult'))
    if (page !== undefined) return page
    throw new OperationError(
      'STORE_CORRUPT',
      `Cannot ${client.action(request)}: the answer lacks a key, a size or a token`,
    )
  })
}

/** Undefined where something is missing without which entries would be left out or wrong. */
function pageOf(root: XmlElement): ListPage | undefined {
  const decode = textOf(root, 'EncodingType') === 'url' ? decodeKey : (text: string): string => text
  const objects: ListedObject[] = childrenOf(root, 'Contents').map((element) => ({
    key: decode(textOf(element, 'Key') ?? ''),
    size: Number(textOf(element, 'Size') ?? Number.NaN),
    version: versionOf(textOf(element, 'ETag')),
    modified: httpDate(textOf(element, 'LastModified')),
  }))
  const prefixes = childrenOf(root, 'CommonPrefixes').map((element) => decode(textOf(element, 'Prefix') ?? ''))
  const truncated = textOf(root, 'IsTruncated') === 'true'
  const token = truncated ? textOf(root, 'NextContinuationToken') : undefined
  if (truncated && token === undefined) return undefined
  if (objects.some(({ key, size }) => key === '' || !Number.isSafeInteger(size))) return undefined
  return { items: merged(objects, prefixes), token }
}

/**
 * Keys come percent-encoded, with a plus for a space. One that is not UTF-8 keeps its other bytes, as lone surrogates: decoded to
 * what stands for any such byte it would be the name of another key.
 */
function decodeKey(text: string): string {
  const bytes = decodePercent(text.replaceAll('+', ' '))
  const key = bytes.toString()
  if (!key.includes('\uFFFD') || isUtf8(bytes)) return key
  return Array.from(bytes.toString('latin1'), (byte) => (byte < '\x80' ? byte : loneSurrogate(byte))).join('')
}

function loneSurrogate(byte: string): string {
  return String.fromCharCode(0xdc00 + byte.charCodeAt(0))
}

/** Each list is in order by itself. */
function merged(objects: readonly ListedObject[], prefixes: readonly string[]): Listed[] {
  if (prefixes.length === 0) return [...objects]
  const items: Listed[] = []
  let next = 0
  for (const object of objects) {
    for (let prefix = prefixes[next]; prefix !== undefined && compareUtf8(prefix, object.key) < 0;) {
      items.push({ prefix })
      prefix = prefixes[++next]
    }
    items.push(object)
  }
  for (const prefix of prefixes.slice(next)) items.push({ prefix })
  return items
}

/** Empty pages with a token, one after another: some servers leave out what was removed, and none has a million of that in a row. */
const EMPTY_PAGES_MAX = 1000

/** Finds a server that gives the same again and again, which would never end. */
class Progress {
  readonly #action: string
  #end: string | undefined
  #token: string | undefined
  #empty = 0

  constructor(action: string) {
    this.#action = action
  }

  /** @throws OperationError `STORE_PROTOCOL` unless a page goes further than those before it. */
  check({ items, token }: ListPage): void {
    const last = items.at(-1)
    const end = last === undefined ? undefined : 'key' in last ? last.key : last.prefix
    if (end !== undefined && this.#end !== undefined && compareUtf8(end, this.#end) <= 0) {
      throw this.#stuck('a page does not go on from the one before it')
    }
    if (token !== undefined && token === this.#token) throw this.#stuck('the store repeats a continuation token')
    this.#empty = end === undefined ? this.#empty + 1 : 0
    if (this.#empty > EMPTY_PAGES_MAX) throw this.#stuck(`${EMPTY_PAGES_MAX} pages have nothing in them`)
    this.#end = end ?? this.#end
    this.#token = token
  }

  #stuck(detail: string): OperationError {
    return new OperationError('STORE_PROTOCOL', `Cannot ${this.#action}: ${detail}`)
  }
}

/** All pages; the next is under way while one is worked on. */
export async function* listPages(client: S3Client, query: ListQuery): AsyncGenerator<ListPage> {
  // What is under way when the listing is left is given up.
  const left = new AbortController()
  const signal = query.signal === undefined ? left.signal : AbortSignal.any([query.signal, left.signal])
  const progress = new Progress(client.action({ operation: 'ListObjectsV2' }))
  let pending: Promise<ListPage> | undefined = listPage(client, { ...query, signal })
  try {
    while (pending !== undefined) {
      const page: ListPage = await pending
      progress.check(page)
      pending = page.token === undefined ? undefined : listPage(client, { ...query, signal }, page.token)
      // Waited for above, or given up below.
      pending?.catch(() => undefined)
      yield page
    }
  } finally {
    left.abort()
  }
}
