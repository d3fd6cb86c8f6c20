/**
 * A store as what is synced. It tells of no changes, so it is listed at intervals. A listing that does not tell times leaves it to
 * versions what is the same; only what is sent is asked for its attributes.
 */
import { isOperationError, OperationError } from '#base/errors.ts'
import { timestampNow } from '#base/time.ts'
import { compareUtf8, isWithin, joinPath, OWN_NAME } from '#store/path.ts'
import { sortKey, type Attributes, type CallOptions, type Entry, type Source, type Store } from '#store/store.ts'

import { callOptions } from './call-options.ts'
import { Doubtful } from './doubtful.ts'
import type { Filter, TreeFilter } from './filters.ts'
import type { Looked, OpenSource, SourceListing, SourceListOptions, SyncSource } from './source.ts'
import { treeEntry } from './store-entry.ts'
import type { Skipped, TreeEntry } from './tree.ts'

/** Who merges is at one page and has asked for the next. */
const RECENT_PAGES = 2

export interface StoreSourceOptions {
  readonly store: Store
  readonly filter: Filter
  /** Where in the target its content goes; empty for the root. */
  readonly target: string
}

export class StoreSource implements SyncSource {
  readonly names: readonly string[]
  readonly roots: readonly string[]
  readonly isLocal = false
  /** Versions decide. */
  readonly granularityNs = 0
  readonly isFiltered: boolean
  readonly #store: Store
  readonly #filter: TreeFilter
  readonly #target: string

  constructor({ store, filter, target }: StoreSourceOptions) {
    this.#store = store
    this.#filter = filter.at('/')
    this.isFiltered = !filter.isEmpty
    this.#target = target
    this.names = [store.url]
    this.roots = [target]
  }

  list(under: string, options: SourceListOptions): SourceListing {
    const doubtful = new Doubtful()
    const recent: (readonly TreeEntry[])[] = []
    const listing = this.#pages(under, options, doubtful, recent)
    return {
      // A directory that nobody made is in no listing, and there by what lies in it.
      provesAbsence: (path) => doubtful.provesAbsence(path) && !recent.some((page) => liesIn(page, path)),
      [Symbol.asyncIterator]: () => listing,
    }
  }

  admits(path: string, isDirectory: boolean): boolean {
    if (!isWithin(path, this.#target)) return false
    return path === this.#target || this.#filter.reaches(this.#below(path), isDirectory)
  }

  otherNames(): readonly string[] {
    return []
  }

  async look(path: string, call: CallOptions): Promise<Looked> {
    let entry: Entry
    try {
      entry = await this.#store.stat(this.#below(path), call)
    } catch (error) {
      if (isOperationError(error, 'STORE_NOT_FOUND', 'STORE_NOT_DIRECTORY')) return { is: 'absent' }
      throw error
    }
    if (!this.admits(path, entry.kind === 'directory')) return { is: 'left-out' }
    if (entry.kind === 'fifo' || entry.kind === 'socket') {
      return { is: 'skipped', skipped: { path, reason: 'special', detail: `a ${entry.kind}` } }
    }
    return { is: 'entry', entry: treeEntry(entry, path) }
  }

  async open(entry: TreeEntry, call: CallOptions): Promise<OpenSource> {
    const pinned = entry.version === undefined ? call : { ...call, version: entry.version }
    const reading = await this.#store.read(this.#below(entry.path), pinned)
    const now = treeEntry(reading.entry, entry.path)
    // A store that was never told a time has the one of its storing.
    const mtime = now.mtime ?? reading.entry.modified
    let isTaken = false
    const body = (): AsyncIterable<Uint8Array> => {
      if (isTaken) throw new OperationError('FILE_STALE', `Cannot send "${entry.path}": it is read once`)
      isTaken = true
      return reading.body
    }
    return {
      entry: { ...now, mtime, attributes: { ...now.attributes, mtime } },
      lookedAt: timestampNow(),
      isWritten: false,
      bytes: { stream: body, source: (): Source => ({ kind: 'stream', stream: body(), size: reading.length }) },
      whole: async (bytesMax) => {
        if (reading.length > bytesMax) return undefined
        isTaken = true
        return reading.bytes()
      },
      close: () => {
        if (!isTaken) reading.cancel()
      },
    }
  }

  async isEmpty(path: string, call: CallOptions): Promise<boolean> {
    const listed = this.#store.list(this.#below(path), { pageEntries: 1, ...call })
    for await (const page of listed) if (page.length > 0) return false
    return true
  }

  async readLink(path: string, call: CallOptions): Promise<string> {
    return this.#store.readLink(this.#below(path), call)
  }

  async attributesOf(path: string, call: CallOptions): Promise<Attributes> {
    const entry = await this.#store.stat(this.#below(path), call)
    const { atime: _atime, ctime: _ctime, ...kept } = entry.attributes ?? {}
    return kept
  }

  async close(): Promise<void> {
    await this.#store.close()
  }

  async *#pages(
    under: string,
    options: SourceListOptions,
    doubtful: Doubtful,
    recent: (readonly TreeEntry[])[],
  ): AsyncGenerator<readonly TreeEntry[], void, undefined> {
    const { onSkipped } = options
    const below = this.#below(under)
    const skip = (path: string, reason: Skipped['reason'], detail: string): void => {
      doubtful.add(path)
      onSkipped?.({ path, reason, detail })
    }
    const listed = this.#store.list(below, {
      recursive: true,
      ...callOptions(options),
      onHidden: ({ path, detail }) => {
        if (this.#takesPart(path, path.endsWith('/'))) skip(joinPath(this.#target, path), 'invalid-name', detail)
      },
    })
    for await (const page of listed) {
      const entries: TreeEntry[] = []
      for (const entry of page) {
        const path = joinPath(this.#target, entry.path)
        if (!this.#takesPart(entry.path, entry.kind === 'directory')) continue
        if (entry.kind === 'fifo' || entry.kind === 'socket') skip(path, 'special', `a ${entry.kind}`)
        else entries.push(treeEntry(entry, path))
      }
      recent.push(entries)
      if (recent.length > RECENT_PAGES) recent.shift()
      yield entries
    }
  }

  /** Of a path in the store: it is not the store's own, and the filter does not leave it out. */
  #takesPart(path: string, isDirectory: boolean): boolean {
    return !isWithin(path, OWN_NAME) && this.#filter.reaches(path, isDirectory)
  }

  #below(path: string): string {
    if (this.#target === '') return path
    return path === this.#target ? '' : path.slice(this.#target.length + 1)
  }
}

/** Whether an entry of the page, which is in order of sort keys, lies in the directory. */
function liesIn(page: readonly TreeEntry[], directory: string): boolean {
  const start = `${directory}/`
  let [low, high] = [0, page.length]
  while (low < high) {
    const middle = (low + high) >> 1
    const entry = page[middle]
    if (entry !== undefined && compareUtf8(sortKey(entry), start) < 0) low = middle + 1
    else high = middle
  }
  return page[low]?.path.startsWith(start) === true
}
