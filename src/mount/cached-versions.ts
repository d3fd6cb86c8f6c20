/**
 * What this mount has in the disk cache: an open file holds its version there, a rename or a change of attributes takes
 * along what is cached, and what was written here is taken in when nobody has it open any more, in place of being dropped:
 * so what is written here is read from here. Without a cache all of this does nothing.
 */
import { logger } from '#base/log.ts'
import type { CacheKey, FileCache, FileCacheStatus } from '#cache/file-cache.ts'

import type { NodeTable } from './node-table.ts'
import type { Node } from './node.ts'
import type { StagedFile } from './staged-file.ts'

const log = logger('mount')

export class CachedVersions {
  readonly #cache: FileCache | undefined
  readonly #table: NodeTable
  /** Those under way. */
  readonly #adoptions = new Set<Promise<void>>()

  constructor(cache: FileCache | undefined, table: NodeTable) {
    this.#cache = cache
    this.#table = table
  }

  /** Undefined without a cache. */
  get status(): FileCacheStatus | undefined {
    return this.#cache?.status
  }

  /** What the version of `node` is called in the cache; undefined for what is no file in the store, or without a cache. */
  keyOf(node: Node): CacheKey | undefined {
    const { version, size } = node
    if (this.#cache === undefined || node.kind !== 'file' || version === undefined) return undefined
    if (node.detached !== undefined || node.file?.dirty === true) return undefined
    return { path: this.#table.pathOf(node), version, size }
  }

  /** Has an open file hold the version of its node, cached or not, until `drop`. */
  hold(node: Node): void {
    const { file } = node
    if (file === undefined || file.cached !== undefined) return
    const key = this.keyOf(node)
    if (key !== undefined) file.cached = this.#cache?.hold(key)
  }

  /** To be called at the last release, and when the version of the node is another. */
  drop({ file }: Node): void {
    file?.cached?.release()
    if (file !== undefined) file.cached = undefined
  }

  /** As `keyOf`, of a node, or of it and all that is known below: for `follow`, after their names or versions have changed. */
  keysOf(node: Node, withBelow: boolean): ReadonlyMap<Node, CacheKey> {
    const keys = new Map<Node, CacheKey>()
    if (this.#cache === undefined) return keys
    const note = (each: Node): void => {
      const key = this.keyOf(each)
      if (key !== undefined) keys.set(each, key)
    }
    note(node)
    if (withBelow) for (const below of this.#table.below(node)) note(below)
    return keys
  }

  /** After the same bytes got another path or version: takes along what is cached of them. */
  follow(before: ReadonlyMap<Node, CacheKey>): void {
    for (const [node, from] of before) {
      const to = this.keyOf(node)
      if (to === undefined || (to.path === from.path && to.version === from.version)) continue
      this.#cache?.moved(from, to)
      if (node.file === undefined || node.file.handles === 0 || node.file.staged !== undefined) continue
      this.drop(node)
      this.hold(node)
    }
  }

  /** Takes in the bytes of a node that nobody has open any more. Its staged file stays the caller's, and must not be written to. */
  adopt(node: Node, staged: StagedFile): void {
    const key = this.keyOf(node)
    if (this.#cache === undefined || key === undefined) return
    if (!staged.isComplete || staged.size !== node.size || node.size === 0) return
    // Nothing was written: it is there.
    if (node.file?.cached?.isWhole === true) return
    staged.hold()
    const adoption = this.#cache
      .adopt(key, staged.fd)
      .then(
        () => undefined,
        (error: unknown) => log.error({ err: error, path: key.path }, `Cannot cache "${key.path}"`),
      )
      .finally(() => {
        this.#adoptions.delete(adoption)
        staged.close()
      })
    this.#adoptions.add(adoption)
  }

  /** Resolves when nothing is being taken in any more: before the cache is closed. */
  async settled(): Promise<void> {
    await Promise.all(this.#adoptions)
  }
}
