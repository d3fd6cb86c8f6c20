/**
 * Entries of the store from what S3 says about objects, and the headers that an entry's object is written with. The
 * representation is described in `metadata.ts` and `keys.ts`.
 */
import { nameOf } from '#store/path.ts'
import { IMPLICIT_VERSION, isSpecial, type Attributes, type Entry, type Kind } from '#store/store.ts'
import { contentTypeOf, DIRECTORY_TYPE, SPECIAL_TYPES, SYMLINK_TYPE } from './content-type.ts'
import type { S3Context } from './context.ts'
import { decodeMetadata, encodeMetadata, type StoredMetadata } from './metadata.ts'
import { headObject, type ObjectHead, type Written } from './objects.ts'
import { listPage } from './listing.ts'
import { tellShadowed } from './shadowed.ts'
import type { Header } from './signer.ts'

const ATTR = 'x-amz-meta-attr'
const XATTR = 'x-amz-meta-xattr'
const USER_METADATA = 'x-amz-meta-'
/** What an object keeps when its metadata is replaced. */
const CONTENT_HEADERS = ['cache-control', 'content-disposition', 'content-encoding', 'content-language', 'expires']

/** The user metadata of an object, as far as this store looks at it. */
function metadataOf(context: S3Context, head: ObjectHead): StoredMetadata {
  return decodeMetadata(
    context.metadata ? head.header(ATTR) : undefined,
    context.metadata ? head.header(XATTR) : undefined,
  )
}

/** The entry of whatever is no directory. */
export function fileEntry(context: S3Context, path: string, head: ObjectHead): Entry {
  const { attributes, kind } = metadataOf(context, head)
  const { size, version, modified } = head
  return { path, kind: kindOf(context, head, kind), size, version, modified, attributes }
}

/** The type bits go before the Content-Type, which other tools may have guessed. */
function kindOf(context: S3Context, head: ObjectHead, bits: Kind | undefined): Kind {
  // Listings, which are all that is looked at then, do not tell.
  if (context.trustListing === true) return 'file'
  if (bits === 'symlink' || head.header('content-type') === SYMLINK_TYPE) return 'symlink'
  // An object with bytes is a file whatever it says: they would be out of reach.
  return bits !== undefined && isSpecial(bits) && head.size === 0 ? bits : 'file'
}

/** The entry of a directory that was made. */
function directoryEntry(context: S3Context, path: string, head: ObjectHead): Entry {
  // Where listings have to do, which know no directory's own version, nothing else may name one either.
  const version = context.trustListing === true ? IMPLICIT_VERSION : head.version
  const { attributes } = metadataOf(context, head)
  return { path, kind: 'directory', size: 0, version, modified: head.modified, attributes }
}

/** The entry of a directory that exists because something lies under it. */
export function implicitEntry(context: S3Context, path: string): Entry {
  return { path, kind: 'directory', size: 0, version: IMPLICIT_VERSION, modified: context.opened, attributes: {} }
}

/** The entry of what has just been written. */
export function writtenEntry(
  context: S3Context,
  entry: Pick<Entry, 'path' | 'kind' | 'size'> & { readonly attributes: Attributes },
  written: Written,
): Entry {
  const { modified } = written
  const version = context.trustListing === true && entry.kind === 'directory' ? IMPLICIT_VERSION : written.version
  return { ...entry, version, modified, attributes: context.metadata ? entry.attributes : {} }
}

/** The headers of a new object: its type, its attributes, and what the options ask for. */
export function newHeaders(
  context: S3Context,
  path: string,
  kind: Kind,
  size: number | undefined,
  attributes: Attributes | undefined,
): Header[] {
  const { storageClass } = context.options
  const headers: Header[] = [['content-type', typeOf(path, kind)], ...encryptionHeaders(context)]
  if (storageClass !== undefined && kind === 'file') headers.push(['x-amz-storage-class', storageClass])
  return [...headers, ...attributeHeaders(context, path, kind, size, attributes ?? {}, undefined)]
}

function typeOf(path: string, kind: Kind): string {
  if (kind === 'directory') return DIRECTORY_TYPE
  if (isSpecial(kind)) return SPECIAL_TYPES[kind]
  return kind === 'symlink' ? SYMLINK_TYPE : contentTypeOf(nameOf(path))
}

/** The headers of an object that takes another's place with other attributes: all that it had is sent again. */
export function replacedHeaders(
  context: S3Context,
  path: string,
  kind: Kind,
  head: ObjectHead,
  attributes: Attributes,
): Header[] {
  const headers: Header[] = [['content-type', head.header('content-type') ?? typeOf(path, kind)]]
  for (const name of CONTENT_HEADERS) {
    const value = head.header(name)
    if (value !== undefined) headers.push([name, value])
  }
  for (const name of Object.keys(head.answer.headers)) {
    const value = head.header(name)
    if (!name.startsWith(USER_METADATA) || value === undefined) continue
    if (!context.metadata || (name !== ATTR && name !== XATTR)) headers.push([name, value])
  }
  const { foreign } = metadataOf(context, head)
  const ours = attributeHeaders(context, path, kind, head.size, attributes, foreign)
  return [...headers, ...ours, ...keptHeaders(context, head)]
}

/** What a copy would lose of how the object is stored. */
export function keptHeaders(context: S3Context, head: ObjectHead): Header[] {
  const headers = encryptionHeaders(context)
  if (headers.length === 0) {
    const sse = head.header('x-amz-server-side-encryption')
    const kmsKey = head.header('x-amz-server-side-encryption-aws-kms-key-id')
    if (sse !== undefined) headers.push(['x-amz-server-side-encryption', sse])
    if (sse !== undefined && kmsKey !== undefined) headers.push(['x-amz-server-side-encryption-aws-kms-key-id', kmsKey])
  }
  const storageClass = head.header('x-amz-storage-class')
  if (storageClass !== undefined && storageClass !== 'STANDARD') headers.push(['x-amz-storage-class', storageClass])
  return headers
}

function encryptionHeaders(context: S3Context): Header[] {
  const { sse, kmsKeyId } = context.options
  const headers: Header[] = []
  const kms = kmsKeyId === undefined ? undefined : 'aws:kms'
  const algorithm = sse ?? kms
  if (algorithm !== undefined) headers.push(['x-amz-server-side-encryption', algorithm])
  if (kmsKeyId !== undefined) headers.push(['x-amz-server-side-encryption-aws-kms-key-id', kmsKeyId])
  return headers
}

function attributeHeaders(
  context: S3Context,
  path: string,
  kind: Kind,
  size: number | undefined,
  attributes: Attributes,
  foreign: ReadonlyMap<string, string> | undefined,
): Header[] {
  if (!context.metadata) return []
  const { attr, xattr } = encodeMetadata(path, kind, size, attributes, foreign)
  const headers: Header[] = []
  if (attr !== undefined) headers.push([ATTR, attr])
  if (xattr !== undefined) headers.push([XATTR, xattr])
  return headers
}

/** What lies at a path, with the object that says so (none for an implicit directory). */
export interface Found {
  readonly entry: Entry
  readonly key: string
  readonly head: ObjectHead | undefined
}

/**
 * Looks a path up; where it is a file and a directory, it is the directory. Two requests at once for a file, a directory that
 * nobody made, or nothing, and one more for a directory that was made. One for the root, and for what is there as `expected`:
 * a file that is expected to be one is not asked about what lies under it.
 */
export async function find(
  context: S3Context,
  path: string,
  signal?: AbortSignal,
  expected?: Kind,
): Promise<Found | undefined> {
  if (path === '') return findDirectory(context, path, signal)
  const key = context.keys.file(path)
  const canBeDirectory = context.keys.directoryFits(path)
  if (expected === 'directory' && canBeDirectory) {
    const directoryKey = context.keys.directory(path)
    const marker = await headObject(context.client, directoryKey, signal)
    if (marker !== undefined) return { entry: directoryEntry(context, path, marker), key: directoryKey, head: marker }
  } else if (expected !== undefined || !canBeDirectory) {
    const head = await headObject(context.client, key, signal)
    if (head !== undefined) return { entry: fileEntry(context, path, head), key, head }
    return findDirectory(context, path, signal)
  }
  const query = { prefix: context.keys.under(path), delimited: false, keysMax: 1, signal }
  const [head, { items }] = await Promise.all([
    headObject(context.client, key, signal),
    listPage(context.client, query),
  ])
  const [first] = items
  if (first === undefined) return head === undefined ? undefined : { entry: fileEntry(context, path, head), key, head }
  if (head !== undefined) tellShadowed(context, key)
  const directoryKey = context.keys.directory(path)
  const isMade = expected !== 'directory' && 'key' in first && first.key === directoryKey
  const marker = isMade ? await headObject(context.client, directoryKey, signal) : undefined
  const entry = marker === undefined ? implicitEntry(context, path) : directoryEntry(context, path, marker)
  return { entry, key: directoryKey, head: marker }
}

/** Looks a directory up. Two requests at once; one for the root, which always exists. */
export async function findDirectory(
  context: S3Context,
  path: string,
  signal?: AbortSignal,
): Promise<Found | undefined> {
  if (!context.keys.directoryFits(path)) return undefined
  const key = context.keys.directory(path)
  const [head, listed] = await Promise.all([
    headObject(context.client, key, signal),
    path === '' ? true : hasKeys(context, path, signal),
  ])
  if (head !== undefined) return { entry: directoryEntry(context, path, head), key, head }
  return listed ? { entry: implicitEntry(context, path), key, head: undefined } : undefined
}

/** Whether any key lies under a directory, its own among them. One request. */
export async function hasKeys(context: S3Context, path: string, signal?: AbortSignal): Promise<boolean> {
  const query = { prefix: context.keys.under(path), delimited: false, keysMax: 1, signal }
  return (await listPage(context.client, query)).items.length > 0
}
