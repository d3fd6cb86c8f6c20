/**
 * Listings of the store: keys and common prefixes as entries in sort-key order. The object of the directory itself is no
 * entry of it, nor is what is under `.eider/`; keys that can be no path are hidden (`hidden-keys.ts`); a key that is a file and
 * also has keys under it shows as the directory.
 *
 * Between a file `a` and the directory `a/` come all names that go on from `a` with a character below `/`, so whether `a` is
 * shown is known only later. What is not known at the end of a page is held back for one more page, and asked for by itself
 * after that: at most two pages are held.
 */
import { directoriesEntered } from '#store/directories-entered.ts'
import { joinPath } from '#store/path.ts'
import type { Entry, ListOptions, TreeOptions, TreePage } from '#store/store.ts'
import type { S3Context } from './context.ts'
import { implicitEntry } from './entries.ts'
import { HiddenKeys, isAsked, isOwn, isPath, type Listing } from './hidden-keys.ts'
import { listPage, listPages, type Listed } from './listing.ts'

/** Pages of entries; where there is no key at all, `empty` is called before the end, and may throw. */
export async function* entryPages(
  context: S3Context,
  path: string,
  options: ListOptions,
  empty: () => Promise<void>,
): AsyncGenerator<readonly Entry[]> {
  const { prefix = '', after = '', recursive = false, pageEntries, signal, onHidden } = options
  const base = context.keys.under(path)
  const filter = { base, path, prefix, after, recursive }
  const query = {
    prefix: base + prefix,
    // A prefix that reaches beyond a directory leaves only that directory to be shown.
    delimited: !recursive,
    after: after === '' ? '' : base + after,
    signal,
    ...(pageEntries === undefined ? {} : { keysMax: Math.min(1000, Math.max(1, pageEntries)) }),
  }
  const hidden = new HiddenKeys(context, filter, onHidden)
  if (!recursive && prefix.includes('/')) {
    yield* oneDirectory(context, filter, hidden, empty, signal)
    return
  }
  const shadows = new Shadows(context, hidden, signal)
  let first = true
  for await (const page of listPages(context.client, query)) {
    if (first && page.items.length === 0 && page.token === undefined) await empty()
    first = false
    const items = await shadows.settle(page.items, page.token === undefined)
    const entries: Entry[] = []
    for (const item of items) {
      const entry = entryOf(context, filter, item, hidden)
      if (entry !== undefined) entries.push(entry)
    }
    if (entries.length > 0) yield entries
  }
  hidden.end()
}

/**
 * One page of all keys under a directory, as entries, with the directories that have no object of their own: they are known
 * for what they are, for an object of theirs would have come first. One request.
 */
export async function treePage(context: S3Context, path: string, options: TreeOptions): Promise<TreePage> {
  const { after = '', pageEntries, signal } = options
  const { client, keys } = context
  const base = keys.under(path)
  const filter = { base, path, prefix: '', after, recursive: true }
  const keysMax = pageEntries === undefined ? {} : { keysMax: Math.min(1000, Math.max(1, pageEntries)) }
  const query = { prefix: base, delimited: false, after: after === '' ? '' : base + after, signal, ...keysMax }
  const page = await listPage(client, query)
  const isLast = page.token === undefined
  const hidden = new HiddenKeys(context, filter, undefined)
  const entries: Entry[] = []
  let shown = after.slice(0, after.lastIndexOf('/') + 1)
  for (const item of await new Shadows(context, hidden, signal).settle(page.items, isLast)) {
    const key = keyOf(item)
    const relative = key.slice(base.length)
    if (relative === '' || isOwn(context, key)) continue
    for (const directory of directoriesEntered(relative, shown)) {
      // What lies in a directory whose name is none is hidden with it, and the directories above are there by it.
      if (directory !== relative && isPath(directory, true)) {
        entries.push(implicitEntry(context, joinPath(path, directory.slice(0, -1))))
      }
      shown = directory
    }
    const entry = entryOf(context, filter, item, hidden)
    if (entry !== undefined) entries.push(entry)
  }
  hidden.end()
  return { entries, isLast }
}

interface Filter extends Listing {
  readonly recursive: boolean
}

async function* oneDirectory(
  context: S3Context,
  filter: Filter,
  hidden: HiddenKeys,
  empty: () => Promise<void>,
  signal: AbortSignal | undefined,
): AsyncGenerator<readonly Entry[]> {
  const { base, prefix } = filter
  const only = prefix.indexOf('/') === prefix.length - 1
  const query = { prefix: base + prefix, delimited: false, keysMax: 1, signal }
  const page = only ? await listPage(context.client, query) : undefined
  if (page === undefined || page.items.length === 0) await empty()
  else {
    const entry = entryOf(context, filter, { prefix: base + prefix }, hidden)
    if (entry !== undefined) yield [entry]
  }
}

function entryOf(context: S3Context, filter: Filter, item: Listed, hidden: HiddenKeys): Entry | undefined {
  const key = 'key' in item ? item.key : item.prefix
  const relative = key.slice(filter.base.length)
  // The directory's own object, the root's, and what this program keeps for itself.
  if (relative === '' || isOwn(context, key)) return undefined
  if (!isPath(relative, filter.recursive)) {
    hidden.nameless(relative)
    return undefined
  }
  const directory = relative.endsWith('/')
  const name = directory ? relative.slice(0, -1) : relative
  const path = filter.path === '' ? name : `${filter.path}/${name}`
  const complete = context.trustListing === true
  const attributes = complete ? {} : undefined
  const entry: Entry =
    'key' in item && !directory
      ? { path, kind: 'file', size: item.size, version: item.version, modified: item.modified, attributes }
      : { ...implicitEntry(context, path), ...('key' in item && !complete ? versionAndTime(item) : {}), attributes }
  return isAsked(filter, relative) ? entry : undefined
}

function versionAndTime(item: Extract<Listed, { key: string }>): Pick<Entry, 'version' | 'modified'> {
  return { version: item.version, modified: item.modified }
}

/** Leaves out files that something lies under. */
class Shadows {
  readonly #context: S3Context
  readonly #hidden: HiddenKeys
  readonly #signal: AbortSignal | undefined
  /** In order, from the first file of which it is not known; all of one page. */
  #held: Listed[] = []

  constructor(context: S3Context, hidden: HiddenKeys, signal: AbortSignal | undefined) {
    this.#context = context
    this.#hidden = hidden
    this.#signal = signal
  }

  /** The items of which all is known, in order. */
  async settle(page: readonly Listed[], last: boolean): Promise<readonly Listed[]> {
    const heldCount = this.#held.length
    const items = heldCount === 0 ? page : [...this.#held, ...page]
    this.#held = []
    const hidden = new Set<number>()
    const open: number[] = []
    items.forEach((item, index) => {
      const key = 'key' in item ? item.key : item.prefix
      // A file stays open while the keys that follow begin with its own.
      for (let top = open.at(-1); top !== undefined; top = open.at(-1)) {
        const file = keyOf(items[top])
        if (key.startsWith(`${file}/`)) hidden.add(top)
        else if (key.startsWith(file) && key.charCodeAt(file.length) < SLASH) break
        open.pop()
      }
      if ('key' in item && !key.endsWith('/')) open.push(index)
    })
    if (!last && open.length > 0) {
      for (const index of open.filter((each) => each < heldCount)) {
        if (await this.#isDirectory(keyOf(items[index]))) hidden.add(index)
      }
      const from = open.find((each) => each >= heldCount) ?? items.length
      this.#held = items.slice(from)
      this.#tell(items, hidden)
      return items.slice(0, from).filter((_, index) => !hidden.has(index))
    }
    this.#tell(items, hidden)
    return hidden.size === 0 ? items : items.filter((_, index) => !hidden.has(index))
  }

  #tell(items: readonly Listed[], hidden: ReadonlySet<number>): void {
    for (const index of hidden) this.#hidden.shadowed(keyOf(items[index]))
  }

  async #isDirectory(key: string): Promise<boolean> {
    const query = { prefix: `${key}/`, delimited: false, keysMax: 1, signal: this.#signal }
    return (await listPage(this.#context.client, query)).items.length > 0
  }
}

const SLASH = 47

function keyOf(item: Listed | undefined): string {
  if (item === undefined) return ''
  return 'key' in item ? item.key : item.prefix
}
