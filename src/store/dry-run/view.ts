/**
 * What a dry run shows at a path: what its own tree has there, or what the store within has at the place that shows through.
 * Asked within a step (`facts.ts`); nothing here changes anything.
 */
import { isOperationError } from '#base/errors.ts'
import { timestampFromMs } from '#base/time.ts'
import { checkGuard, isDirectory, notDirectory, notFound } from '#store/refusals.ts'
import { IMPLICIT_VERSION, type Entry, type Guard } from '#store/store.ts'

import type { Facts } from './facts.ts'
import { movedEntry } from './listing.ts'
import { leafEntry, ownEntry, REMOVED, type Directory, type Overlay } from './overlay.ts'

export class View {
  readonly #overlay: Overlay

  constructor(overlay: Overlay) {
    this.#overlay = overlay
  }

  /** What is at the path; undefined also under what is no directory. */
  find(path: string, facts: Facts): Entry | undefined {
    const found = this.#overlay.find(path)
    if (found.at === 'nowhere' || found.at === 'leaf') return undefined
    if (found.at === 'inner') {
      const entry = facts.entry(found.path)
      return isOperationError(entry) ? undefined : movedEntry(entry, found.path, path)
    }
    return found.node.type === 'leaf' ? leafEntry(path, found.node) : this.directoryEntry(path, found.node, facts)
  }

  /** @throws OperationError `STORE_NOT_FOUND`, `STORE_NOT_DIRECTORY`. */
  require(action: string, path: string, facts: Facts): Entry {
    const found = this.find(path, facts)
    if (found !== undefined) return found
    this.checkParents(action, path, facts)
    throw notFound(action, path)
  }

  /** The entry of a directory of the tree, which shows at the path. */
  directoryEntry(path: string, { base, own }: Directory, facts: Facts): Entry {
    if (own !== undefined) return ownEntry(path, own)
    const entry = base === undefined ? undefined : facts.entry(base)
    if (base !== undefined && entry !== undefined && !isOperationError(entry)) return movedEntry(entry, base, path)
    // It came into being here, with what lies in it.
    return ownEntry(path, { version: IMPLICIT_VERSION, modified: timestampFromMs(0), attributes: {} })
  }

  /** Throws where a parent of the path, at which nothing is, is no directory. */
  checkParents(action: string, path: string, facts: Facts): void {
    const found = this.#overlay.find(path)
    if (found.at === 'leaf') throw notDirectory(action, path, found.path)
    if (found.at !== 'inner') return
    const entry = facts.entry(found.path)
    if (isOperationError(entry, 'STORE_NOT_DIRECTORY')) throw entry
  }

  /** Throws where what is no directory cannot be put at the path under the guard. */
  checkPlace(action: string, path: string, guard: Guard, facts: Facts): void {
    const found = this.find(path, facts)
    checkGuard(action, path, found, guard)
    if (found?.kind === 'directory') throw isDirectory(action, path)
    if (found === undefined) this.checkParents(action, path, facts)
  }

  /** Whether anything lies in the directory at the path. */
  hasEntries(path: string, facts: Facts): boolean {
    const found = this.#overlay.find(path)
    if (found.at === 'inner') return facts.names(found.path, 1).length > 0
    if (found.at !== 'node' || found.node.type === 'leaf') return false
    const { base, children } = found.node
    for (const child of children.values()) if (child !== REMOVED) return true
    // Of so many names at least one shows through, if there are so many.
    return base !== undefined && facts.names(base, children.size + 1).some((name) => !children.has(name))
  }
}
