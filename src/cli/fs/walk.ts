/** Trees of the cluster, entry by entry in the order of names, each directory before what lies in it; some directories are listed ahead. */
import { isOperationError } from '#base/errors.ts'
import type { ClusterClient, Listed } from '#cluster/client/cluster-client.ts'
import { type InodeId, inodeType } from '#cluster/inode-id.ts'

import { below } from './place.ts'

/** Directories whose first page is asked for before it is their turn, of each directory on the way. */
const AHEAD = 16
/** Requests about single inodes that are under way at a time. */
export const AT_ONCE = 64

export interface Walked {
  readonly path: string
  readonly entry: Listed
  /** 1 for what lies in the directory that the walk began at. */
  readonly depth: number
}

type Lister = Pick<ClusterClient, 'list'>

export interface WalkOptions {
  readonly withStatus?: boolean
  readonly asOf?: number | undefined
  readonly signal?: AbortSignal
}

/** All below a directory. A status is missing where the inode is served by another process, and of times past. */
export async function* walk(
  client: Lister,
  path: string,
  directory: InodeId,
  options: WalkOptions,
): AsyncGenerator<Walked, void, undefined> {
  // Not by calling itself: a tree may be deeper than a stack.
  const levels: Level[] = [new Level(path, new Pages(client, directory, options))]
  for (let level = levels.at(-1); level !== undefined; level = levels.at(-1)) {
    const entry = await level.next().catch((error: unknown) => {
      // Somebody has removed it since it was listed, so there is nothing in it.
      const isGone = levels.length > 1 && isOperationError(error, 'DIRECTORY_REMOVED', 'INODE_NOT_FOUND')
      if (!isGone) throw error
    })
    if (entry === undefined) {
      levels.pop()
      continue
    }
    const at = below(level.path, entry.name)
    yield { path: at, entry, depth: levels.length }
    if (inodeType(entry.inode) === 'directory') levels.push(new Level(at, level.pagesOf(client, entry, options)))
  }
}

/** A directory on the way, and how far the walk is in it. */
class Level {
  readonly path: string
  readonly #pages: Pages
  #page: readonly Listed[] = []
  #at = 0
  /** Of the page; the first of them are being listed already. */
  #directories: readonly Listed[] = []
  #started: Pages[] = []

  constructor(path: string, pages: Pages) {
    this.path = path
    this.#pages = pages
  }

  async next(): Promise<Listed | undefined> {
    while (this.#at === this.#page.length) {
      const page = await this.#pages.next()
      if (page === undefined) return undefined
      this.#page = page
      this.#at = 0
      this.#directories = page.filter(({ inode }) => inodeType(inode) === 'directory')
      this.#started = []
    }
    return this.#page[this.#at++]
  }

  /** What is in the directory that came last; those after it are begun with. */
  pagesOf(client: Lister, entry: Listed, options: WalkOptions): Pages {
    const ahead = this.#directories.slice(0, AHEAD - this.#started.length)
    this.#directories = this.#directories.slice(ahead.length)
    this.#started.push(...ahead.map(({ inode }) => new Pages(client, inode, options)))
    return this.#started.shift() ?? new Pages(client, entry.inode, options)
  }
}

/** The pages of one directory; the first is on its way from the start. */
class Pages {
  readonly #pages: AsyncGenerator<readonly Listed[], void, undefined>
  #first: Promise<IteratorResult<readonly Listed[], void>> | undefined

  constructor(client: Lister, directory: InodeId, options: WalkOptions) {
    this.#pages = client.list(directory, options)
    this.#first = this.#pages.next()
    // It is waited for when it is its turn; where that never comes, its failure does not matter.
    this.#first.catch(() => undefined)
  }

  async next(): Promise<readonly Listed[] | undefined> {
    const next = await (this.#first ?? this.#pages.next())
    this.#first = undefined
    return next.done === true ? undefined : next.value
  }
}

/** The results of `work` on each item, in order, with so many under way at a time. */
export async function* mapAhead<T, R>(
  items: AsyncIterable<T>,
  atOnce: number,
  work: (item: T) => Promise<R>,
): AsyncGenerator<R, void, undefined> {
  const started: Promise<R>[] = []
  for await (const item of items) {
    const result = work(item)
    // It is waited for below; until then its failure must not count as one that nobody heard of.
    result.catch(() => undefined)
    started.push(result)
    if (started.length < atOnce) continue
    const first = started.shift()
    if (first !== undefined) yield await first
  }
  for (const each of started) yield await each
}
