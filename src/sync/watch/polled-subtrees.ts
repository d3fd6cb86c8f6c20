/** The subtrees that a watcher polls, because the kernel does not tell of them: by their paths, which follow renames. */
import { logger } from '#base/log.ts'
import { isWithin } from '#store/path.ts'
import type { Outbox } from './outbox.ts'
import { PolledTree } from './polled-tree.ts'
import type { Root } from './root.ts'
import type { Degraded } from './watcher.ts'

const log = logger('sync')

export interface Polled {
  readonly tree: PolledTree
  readonly why: string
}

export class PolledSubtrees {
  readonly #root: Root
  readonly #outbox: Outbox
  readonly #byPath = new Map<string, Polled>()

  constructor(root: Root, outbox: Outbox) {
    this.#root = root
    this.#outbox = outbox
  }

  get degraded(): Degraded[] {
    return [...this.#byPath].map(([path, { why }]) => ({ path, why }))
  }

  has(path: string): boolean {
    if (this.#byPath.size === 0) return false
    for (const polled of this.#byPath.keys()) if (isWithin(path, polled)) return true
    return false
  }

  /** Polls the subtree from now on, on from `before` where that is of the same; resolves after a first look. */
  async add(path: string, why: string, tells: boolean, before?: Polled): Promise<void> {
    if (before?.tree.path === path) {
      this.#byPath.set(path, before)
      return
    }
    log.warn({ path, why }, 'a subtree is polled, since the kernel does not tell of it')
    const polled = { tree: new PolledTree(this.#root, path), why }
    this.#byPath.set(path, polled)
    await polled.tree.poll(this.#outbox)
    // What happened before that first look is found by who scans it now.
    if (tells) this.#outbox.subtree(path)
  }

  /** Ends polling below `path`. */
  forget(path: string): void {
    for (const polled of [...this.#byPath.keys()]) if (isWithin(polled, path)) this.#byPath.delete(polled)
  }

  moved(from: string, to: string): void {
    for (const [path, polled] of [...this.#byPath]) {
      if (!isWithin(path, from)) continue
      this.#byPath.delete(path)
      polled.tree.path = to + path.slice(from.length)
      this.#byPath.set(polled.tree.path, polled)
    }
  }

  /** Polls each, after `retry` has tried whether it is to be: that adds it again where it is. */
  async poll(retry?: (path: string, polled: Polled) => Promise<unknown>): Promise<void> {
    for (const [path, polled] of [...this.#byPath]) {
      if (this.#byPath.get(path) !== polled) continue
      if (retry !== undefined) {
        this.#byPath.delete(path)
        await retry(path, polled)
      }
      if (this.#byPath.get(path) === polled) await polled.tree.poll(this.#outbox)
      else log.info({ path }, 'a subtree is watched again')
    }
  }
}
