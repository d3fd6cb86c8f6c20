/**
 * Listings of a dry run: of each directory that was touched, its own names and those that show through, merged in order;
 * of what was not touched, the inner store's own listing, with paths moved to where they show.
 */
import { isOperationError } from '#base/errors.ts'
import { checkAborted } from '#store/abort.ts'
import { compareUtf8, joinPath, nameOf } from '#store/path.ts'
import { sortKey, type CallOptions, type Entry, type ListOptions, type Store } from '#store/store.ts'

import { leafEntry, ownEntry, REMOVED, type Directory, type Node } from './overlay.ts'

const PAGE_ENTRIES = 1000

/** What is listed of one directory: `prefix` and `after` are relative to it. */
interface Scope {
  readonly path: string
  readonly prefix: string
  readonly after: string
}

/** Lists touched directories; `directoryEntry` gives that of one which shows its inner one's attributes. */
export class OverlayListing {
  readonly #inner: Store
  readonly #options: ListOptions
  readonly #call: CallOptions
  readonly #directoryEntry: (path: string, directory: Directory, options: CallOptions) => Promise<Entry>

  constructor(
    inner: Store,
    options: ListOptions,
    directoryEntry: (path: string, directory: Directory, options: CallOptions) => Promise<Entry>,
  ) {
    this.#inner = inner
    this.#options = options
    this.#call = options.signal === undefined ? {} : { signal: options.signal }
    this.#directoryEntry = directoryEntry
  }

  /** Pages of what lies in the directory, which shows at `path`. */
  async *pages(path: string, directory: Directory): AsyncGenerator<readonly Entry[]> {
    const { prefix = '', after = '', pageEntries = PAGE_ENTRIES, signal } = this.#options
    let page: Entry[] = []
    for await (const entry of this.#walk(directory, { path, prefix, after })) {
      page.push(entry)
      if (page.length < pageEntries) continue
      yield page
      page = []
      checkAborted(`list "${path}"`, signal)
    }
    if (page.length > 0) yield page
  }

  async *#walk(directory: Directory, scope: Scope): AsyncGenerator<Entry> {
    const { recursive = false } = this.#options
    const { path, prefix, after } = scope
    const slash = prefix.indexOf('/')
    if (slash !== -1 && slash < prefix.length - 1) {
      // All that is asked for lies in one directory of this one.
      const head = prefix.slice(0, slash + 1)
      if (!recursive || (!after.startsWith(head) && compareUtf8(after, head) > 0)) return
      yield* this.#enter(directory, path, head, prefix, after)
      return
    }
    const resumed = recursive ? after.indexOf('/') : -1
    if (resumed !== -1 && after.startsWith(prefix)) {
      yield* this.#enter(directory, path, after.slice(0, resumed + 1), prefix, after)
    }
    for await (const entry of this.#children(directory, scope)) {
      yield entry
      if (recursive && entry.kind === 'directory') yield* this.#enter(directory, path, `${nameOf(entry.path)}/`, '', '')
    }
  }

  /** What lies in the directory of that key, if there is one; `prefix` and `after` are relative to its parent. */
  async *#enter(parent: Directory, path: string, key: string, prefix: string, after: string): AsyncGenerator<Entry> {
    const name = key.slice(0, -1)
    const scope: Scope = {
      path: joinPath(path, name),
      prefix: prefix.startsWith(key) ? prefix.slice(key.length) : '',
      after: after.startsWith(key) ? after.slice(key.length) : '',
    }
    const child = parent.children.get(name)
    if (child === REMOVED || child?.type === 'leaf') return
    if (child !== undefined) yield* this.#walk(child, scope)
    else if (parent.base !== undefined) yield* this.#throughInner(joinPath(parent.base, name), scope)
  }

  /** The directory's own entries, in order. */
  async *#children(directory: Directory, scope: Scope): AsyncGenerator<Entry> {
    const { path, prefix, after } = scope
    const own = [...directory.children]
      .flatMap(([name, child]) => (child === REMOVED ? [] : [keyOf(name, child)]))
      .filter((key) => key.startsWith(prefix) && compareUtf8(key, after) > 0)
      .toSorted(compareUtf8)
    let next = 0
    const inner = directory.base === undefined ? [] : this.#throughInner(directory.base, scope, false)
    for await (const entry of inner) {
      const name = nameOf(entry.path)
      const key = sortKey(entry).slice(path === '' ? 0 : path.length + 1)
      for (; next < own.length && compareUtf8(own[next] ?? '', key) < 0; next++) {
        yield* this.#ownEntry(directory, path, own[next] ?? '')
      }
      // Asked now, since the tree may have changed while the page was fetched.
      const child = directory.children.get(name)
      if (child === undefined) {
        yield entry
      } else if (own[next] === key && isShownBy(child, directory, name)) {
        yield entry
        next++
      }
    }
    for (; next < own.length; next++) yield* this.#ownEntry(directory, path, own[next] ?? '')
  }

  async *#ownEntry(directory: Directory, path: string, key: string): AsyncGenerator<Entry> {
    const name = key.endsWith('/') ? key.slice(0, -1) : key
    const child = directory.children.get(name)
    // Gone, or become another kind, since its name was taken: it would be out of order.
    if (child === undefined || child === REMOVED || keyOf(name, child) !== key) return
    const childPath = joinPath(path, name)
    if (child.type === 'leaf') yield leafEntry(childPath, child)
    else if (child.own !== undefined) yield ownEntry(childPath, child.own)
    else yield await this.#directoryEntry(childPath, child, this.#call)
  }

  async *#throughInner(base: string, scope: Scope, recursive = true): AsyncGenerator<Entry> {
    const { path, prefix, after } = scope
    const { pageEntries } = this.#options
    const size = pageEntries === undefined ? {} : { pageEntries }
    const more = { ...this.#call, ...size, ...movedHidden(this.#options, base, path) }
    try {
      for await (const page of this.#inner.list(base, { ...more, recursive, prefix, after })) {
        for (const entry of page) yield movedEntry(entry, base, path)
      }
    } catch (error) {
      // It came into being here only.
      if (!isOperationError(error, 'STORE_NOT_FOUND', 'STORE_NOT_DIRECTORY')) throw error
    }
  }
}

/** An entry of the inner store at the path that it shows at: what lies in `from` there lies in `to` here. */
export function movedEntry(entry: Entry, from: string, to: string): Entry {
  if (from === to) return entry
  if (entry.path === from) return { ...entry, path: to }
  return { ...entry, path: joinPath(to, from === '' ? entry.path : entry.path.slice(from.length + 1)) }
}

/** What the inner store hides in `from` is told of where it would show: in `to`. */
export function movedHidden({ onHidden }: ListOptions, from: string, to: string): Pick<ListOptions, 'onHidden'> {
  if (onHidden === undefined) return {}
  return {
    onHidden: ({ path, detail }) =>
      onHidden({ path: joinPath(to, from === '' ? path : path.slice(from.length + 1)), detail }),
  }
}

function keyOf(name: string, node: Node): string {
  return node.type === 'directory' ? `${name}/` : name
}

/** Whether the inner store's entry of that name is the node's. */
function isShownBy(child: Node | typeof REMOVED, parent: Directory, name: string): boolean {
  if (child === REMOVED || child.type === 'leaf' || child.own !== undefined) return false
  return parent.base !== undefined && child.base === joinPath(parent.base, name)
}
