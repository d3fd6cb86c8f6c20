/** Trees of the cluster, entry by entry in the order of names, each directory before what lies in it; some directories are listed ahead. */
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

export interface WalkOptions {
  readonly withStatus?: boolean
  readonly asOf?: number | undefined
  readonly signal?: AbortSignal
}

/** All below a directory. A status is missing where the inode is served by another process, and of times past. */
export async function* walk(
  client: ClusterClient,
  path: string,
  directory: InodeId,
  options: WalkOptions,
): AsyncGenerator<Walked, void, undefined> {
  yield* walkPages(client, path, new Pages(client, directory, options), options, 1)
}

async function* walkPages(
  client: ClusterClient,
  path: string,
  pages: Pages,
  options: WalkOptions,
  depth: number,
): AsyncGenerator<Walked, void, undefined> {
  for (let page = await pages.next(); page !== undefined; page = await pages.next()) {
    const directories = page.filter(({ inode }) => inodeType(inode) === 'directory')
    const started: Pages[] = []
    let next = 0
    for (const entry of page) {
      const at = below(path, entry.name)
      yield { path: at, entry, depth }
      if (inodeType(entry.inode) !== 'directory') continue
      while (started.length < AHEAD && next < directories.length) {
        const { inode } = directories[next++] ?? entry
        started.push(new Pages(client, inode, options))
      }
      const own = started.shift()
      if (own !== undefined) yield* walkPages(client, at, own, options, depth + 1)
    }
  }
}

/** The pages of one directory; the first is on its way from the start. */
class Pages {
  readonly #pages: AsyncGenerator<readonly Listed[], void, undefined>
  #first: Promise<IteratorResult<readonly Listed[], void>> | undefined

  constructor(client: ClusterClient, directory: InodeId, options: WalkOptions) {
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
