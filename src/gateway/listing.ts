/**
 * The keys of a bucket in S3's order, by pages: prefixes, delimiters of any string, and places to go on from. It reads
 * listings of the store and keeps nothing between pages; where a page ends is told by its last item alone.
 *
 * The sort keys of a store (`a/b`, and `a/b/` for a directory) are S3's keys, so entries come in the order of keys.
 * With the delimiter "/" one directory is listed and no more; with another, or none, all that lies under the longest
 * directory of the prefix. In a recursive listing a directory is empty when the next entry does not lie in it, which is
 * how one that is an object for its emptiness is known without a further call.
 */
import { compareUtf8 } from '#store/path.ts'
import { isSpecial, sortKey, type Entry } from '#store/store.ts'

import { isNothingThere } from './errors.ts'
import { isMarked, objectOf, type ObjectTree, type StoredObject } from './object-tree.ts'
import { checkPath } from '#store/path.ts'
import { isOperationError } from '#base/errors.ts'

/** Where a page begins. */
export interface ListFrom {
  /** Only keys after this one. */
  readonly after: string
  /** `after` is a common prefix that has been listed: nothing under it is listed again. */
  readonly skipUnder: boolean
}

export interface ListRequest {
  readonly prefix: string
  /** Empty: none. */
  readonly delimiter: string
  readonly from: ListFrom | undefined
  readonly itemsMax: number
}

export type ListItem =
  | { readonly kind: 'object'; readonly key: string; readonly object: StoredObject }
  | { readonly kind: 'prefix'; readonly key: string }

export interface ListPage {
  readonly items: readonly ListItem[]
  /** Where the next page begins; undefined where this is the last. */
  readonly next: ListFrom | undefined
}

/** Before an entry's facts are known: a listing need not tell them. */
type Found =
  | { readonly kind: 'object'; readonly key: string; readonly entry: Entry }
  | { readonly kind: 'prefix'; readonly key: string }

/** Stats for entries whose listing told no attributes, at a time. */
const PARALLEL = 16

/** One page of the keys of a bucket. */
export async function listPage(
  tree: ObjectTree,
  bucket: string,
  request: ListRequest,
  signal: AbortSignal,
): Promise<ListPage> {
  const found: Found[] = []
  let next: ListFrom | undefined
  if (request.itemsMax > 0) {
    for await (const item of walk(tree, bucket, request, signal)) {
      if (found.length === request.itemsMax) {
        const last = found[found.length - 1]
        if (last !== undefined) next = { after: last.key, skipUnder: last.kind === 'prefix' }
        break
      }
      found.push(item)
    }
  }
  const items: (ListItem | undefined)[] = []
  for (let start = 0; start < found.length; start += PARALLEL) {
    items.push(
      ...(await Promise.all(found.slice(start, start + PARALLEL).map((item) => withFacts(tree, item, signal)))),
    )
  }
  return { items: items.filter((item) => item !== undefined), next }
}

async function withFacts(tree: ObjectTree, item: Found, signal: AbortSignal): Promise<ListItem | undefined> {
  if (item.kind === 'prefix') return item
  const { key, entry } = item
  if (entry.attributes !== undefined) return { kind: 'object', key, object: objectOf(key, entry) }
  try {
    return { kind: 'object', key, object: objectOf(key, await tree.store.stat(entry.path, { signal })) }
  } catch (error) {
    // Removed since it was listed.
    if (isNothingThere(error)) return undefined
    throw error
  }
}

/** The directory that all keys of the prefix lie in, with a slash at its end (or empty), and the rest of the prefix. */
function splitPrefix(prefix: string): { directory: string; rest: string } {
  const end = prefix.lastIndexOf('/') + 1
  return { directory: prefix.slice(0, end), rest: prefix.slice(end) }
}

async function* walk(
  tree: ObjectTree,
  bucket: string,
  request: ListRequest,
  signal: AbortSignal,
): AsyncGenerator<Found> {
  const { prefix, delimiter, from } = request
  const { directory, rest } = splitPrefix(prefix)
  if (!canBePath(directory)) return
  const path = directory === '' ? bucket : `${bucket}/${directory.slice(0, -1)}`
  // All keys here begin with `directory`: a start before them is none, one after them leaves nothing.
  let after: string | undefined
  if (from !== undefined && from.after.startsWith(directory)) after = from.after.slice(directory.length)
  else if (from !== undefined && compareUtf8(from.after, directory) > 0) return
  const scope: Scope = {
    tree,
    path,
    directory,
    rest,
    after,
    skipUnder: from?.skipUnder === true,
    pageEntries: request.itemsMax + 2,
    signal,
  }
  try {
    if (delimiter === '/') yield* walkShallow(scope)
    else if (delimiter === '') yield* walkDeep(scope)
    else yield* grouped(walkDeep(scope), prefix, delimiter, from)
  } catch (error) {
    if (!isNothingThere(error)) throw error
  }
}

/** What is walked: the directory `path`, whose keys begin with `directory`, for names that begin with `rest`. */
interface Scope {
  readonly tree: ObjectTree
  readonly path: string
  readonly directory: string
  readonly rest: string
  /** Relative to the directory; undefined from its beginning, the directory itself included. */
  readonly after: string | undefined
  readonly skipUnder: boolean
  readonly pageEntries: number
  readonly signal: AbortSignal
}

function canBePath(directory: string): boolean {
  if (directory === '') return true
  try {
    checkPath(directory.slice(0, -1))
    return directory !== '/'
  } catch (error) {
    if (isOperationError(error)) return false
    throw error
  }
}

/** The directory itself, where its key is asked for. */
async function* walkSelf(scope: Scope): AsyncGenerator<Found> {
  const { tree, path, directory, rest, after, signal } = scope
  if (directory === '' || rest !== '' || after !== undefined) return
  const entry = await tree.store.stat(path, { signal })
  if (entry.kind !== 'directory') return
  if (isMarked(entry) || (await tree.isEmpty(path, signal))) yield { kind: 'object', key: directory, entry }
}

async function* walkShallow(scope: Scope): AsyncGenerator<Found> {
  const { tree, path, directory, rest, after = '', pageEntries, signal } = scope
  yield* walkSelf(scope)
  // A start in the middle of a subdirectory sorts after the subdirectory, which is to be listed all the same if
  // anything in it comes after the start.
  const slash = after.indexOf('/')
  if (slash !== -1 && !scope.skipUnder && after.startsWith(rest)) {
    const sub = after.slice(0, slash + 1)
    const inner: Scope = {
      ...scope,
      path: `${path}/${sub.slice(0, -1)}`,
      directory: directory + sub,
      rest: '',
      after: after.slice(slash + 1),
    }
    if (await hasAny(inner)) yield { kind: 'prefix', key: directory + sub }
  }
  for await (const page of tree.store.list(path, { prefix: rest, after, pageEntries, signal })) {
    for (const entry of page) {
      if (isSpecial(entry.kind)) continue
      const name = sortKey(entry).slice(path.length + 1)
      yield entry.kind === 'directory'
        ? { kind: 'prefix', key: directory + name }
        : { kind: 'object', key: directory + name, entry }
    }
  }
}

async function hasAny(scope: Scope): Promise<boolean> {
  try {
    for await (const _ of walkDeep({ ...scope, pageEntries: 2 })) return true
  } catch (error) {
    if (!isNothingThere(error)) throw error
  }
  return false
}

async function* walkDeep(scope: Scope): AsyncGenerator<Found> {
  const { tree, path, directory, rest, after = '', pageEntries, signal } = scope
  yield* walkSelf(scope)
  let held: Entry | undefined
  const keyOf = (entry: Entry): string => directory + sortKey(entry).slice(path.length + 1)
  for await (const page of tree.store.list(path, { recursive: true, prefix: rest, after, pageEntries, signal })) {
    for (const entry of page) {
      if (held !== undefined) {
        const lies = sortKey(entry).startsWith(sortKey(held))
        if (!lies || (await isObject(tree, held, signal))) yield { kind: 'object', key: keyOf(held), entry: held }
      }
      held = undefined
      if (entry.kind === 'directory') held = entry
      else if (!isSpecial(entry.kind)) yield { kind: 'object', key: keyOf(entry), entry }
    }
  }
  if (held !== undefined) yield { kind: 'object', key: keyOf(held), entry: held }
}

async function isObject(tree: ObjectTree, directory: Entry, signal: AbortSignal): Promise<boolean> {
  if (directory.attributes !== undefined) return isMarked(directory)
  return isMarked(await tree.store.stat(directory.path, { signal }))
}

/** Rolls keys up that have the delimiter after the prefix. */
async function* grouped(
  source: AsyncGenerator<Found>,
  prefix: string,
  delimiter: string,
  from: ListFrom | undefined,
): AsyncGenerator<Found> {
  let group = from?.skipUnder === true ? from.after : undefined
  for await (const item of source) {
    if (group !== undefined && item.key.startsWith(group)) continue
    const at = item.key.indexOf(delimiter, prefix.length)
    if (at === -1) {
      yield item
    } else {
      group = item.key.slice(0, at + delimiter.length)
      yield { kind: 'prefix', key: group }
    }
  }
}
