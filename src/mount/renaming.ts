/**
 * Rename, as POSIX says, of files, symlinks and directories. What is dirty is published first, under the old name; what was
 * never published only changes its name here. A file that is replaced while it is open has its bytes brought here before, so
 * that it stays readable and writable. The move of a directory has its subtree to itself (see `locks.ts`).
 */
import { isOperationError, OperationError } from '#base/errors.ts'
import { checkName, joinPath } from '#store/path.ts'
import { ABSENT, ANY, ifVersion, type Guard } from '#store/store.ts'

import { checkPathLength } from './files.ts'
import type { MountState } from './mount-state.ts'
import type { Namespace } from './namespace.ts'
import type { Node } from './node.ts'
import type { Publisher } from './publisher.ts'
import type { Resolver } from './resolver.ts'

const RENAME_NOREPLACE = 1

export interface Place {
  readonly parent: Node
  readonly name: string
}

export class Renaming {
  readonly #state: MountState
  readonly #resolver: Resolver
  readonly #publisher: Publisher
  readonly #namespace: Namespace

  constructor(state: MountState, resolver: Resolver, publisher: Publisher, namespace: Namespace) {
    this.#state = state
    this.#resolver = resolver
    this.#publisher = publisher
    this.#namespace = namespace
  }

  async rename(from: Place, to: Place, flags: number): Promise<void> {
    if ((flags & ~RENAME_NOREPLACE) !== 0) {
      throw new OperationError('INPUT_INVALID', `Cannot rename "${from.name}": flags ${flags} are not supported`)
    }
    checkName(to.name)
    const source = await this.#resolver.require(from.parent, from.name)
    const parents = [from.parent, to.parent]
    if (source.kind !== 'directory') {
      await this.#state.tree.shared(parents, () => this.#move(from, to, flags))
      return
    }
    const target = await this.#resolver.lookup(to.parent, to.name)
    const wholes = target === undefined || target === source ? [source] : [source, target]
    if (isInside(to.parent, source)) {
      throw new OperationError('INPUT_INVALID', `Cannot rename "${from.name}": the new name lies in it`)
    }
    await this.#state.tree.exclusive(wholes, parents, () => this.#move(from, to, flags))
  }

  async #move(from: Place, to: Place, flags: number): Promise<void> {
    const { table } = this.#state
    const source = await this.#resolver.require(from.parent, from.name)
    const target = await this.#resolver.lookup(to.parent, to.name)
    if (target === source) return
    checkPathLength(this.#state, to.parent, to.name)
    if (target !== undefined) {
      const path = table.pathOf(target)
      if ((flags & RENAME_NOREPLACE) !== 0)
        throw new OperationError('FILE_EXISTS', `Cannot rename to "${path}": it exists`)
      if (target.kind === 'directory' && source.kind !== 'directory') {
        throw new OperationError('STORE_IS_DIRECTORY', `Cannot rename to "${path}": it is a directory`)
      }
      if (target.kind !== 'directory' && source.kind === 'directory') {
        throw new OperationError('STORE_NOT_DIRECTORY', `Cannot rename to "${path}": it is not a directory`)
      }
    }
    if (source.kind === 'directory') await this.#moveDirectory(from, to, source, target)
    else await this.#moveFile(from, to, source, target)
    this.#state.entriesChanged(from.parent)
    this.#state.entriesChanged(to.parent)
  }

  async #moveFile(from: Place, to: Place, source: Node, target: Node | undefined): Promise<void> {
    if (source.version !== undefined) await this.#publisher.publishClaimed(source)
    const locked = [source, ...(target === undefined ? [] : [target])].sort((a, b) => a.id - b.id)
    const [first, second] = locked
    const move = (): Promise<void> => this.#moveLocked(from, to, source, target)
    await first?.lock.run(() => (second === undefined ? move() : second.lock.run(move)))
    this.#publisher.release(source)
    if (target !== undefined) this.#publisher.release(target)
  }

  async #moveLocked(from: Place, to: Place, source: Node, target: Node | undefined): Promise<void> {
    const { store, table, signal } = this.#state
    if (target !== undefined) await this.#publisher.keepReadable(target)
    await this.#publisher.learnStored(source)
    if (target !== undefined) await this.#publisher.learnStored(target)
    if (source.version === undefined) {
      // Never published: it will be, under the new name, in place of what has that name now.
      if (target !== undefined) {
        source.version = target.version
        this.#namespace.replaced(target)
      }
      table.move(source, to.parent, to.name)
      return
    }
    await this.#namespace.keepDirectory(from.parent)
    const guard = ifVersion(source.version)
    const targetGuard: Guard = target?.version === undefined ? ABSENT : ifVersion(target.version)
    const path = joinPath(table.pathOf(to.parent), to.name)
    const entry = await this.#tried(
      () => store.rename(table.pathOf(source), path, { guard, targetGuard, signal }),
      source,
      target,
    )
    if (target !== undefined) this.#namespace.replaced(target)
    table.move(source, to.parent, to.name)
    this.#publisher.published(source, entry)
  }

  /** A lost race makes what was believed of both names stale, so that the kernel's second try sees what is there. */
  async #tried<T>(rename: () => Promise<T>, source: Node, target: Node | undefined): Promise<T> {
    try {
      return await rename()
    } catch (error) {
      this.#namespace.expire(source)
      if (target !== undefined) this.#namespace.expire(target)
      throw error
    }
  }

  async #moveDirectory(from: Place, to: Place, source: Node, target: Node | undefined): Promise<void> {
    const { store, table, signal } = this.#state
    if (target !== undefined) this.#namespace.checkNothingUnpublished(target)
    for (const node of [...table.below(source)]) {
      if (node.version !== undefined && node.isAhead) await this.#publisher.publishClaimed(node)
    }
    await this.#namespace.keepDirectory(from.parent)
    const targetGuard = target === undefined ? ABSENT : ANY
    const path = joinPath(table.pathOf(to.parent), to.name)
    const entry = await this.#tried(
      () => store.rename(table.pathOf(source), path, { guard: ANY, targetGuard, signal }),
      source,
      target,
    )
    if (target !== undefined) this.#namespace.replaced(target)
    table.move(source, to.parent, to.name)
    table.epoch++
    this.#publisher.published(source, entry)
    await this.#relearn(source)
  }

  /**
   * After the move of a directory the versions of what lies in it may be others (S3 copies objects): what is open goes on
   * with the version that it has now, the rest is asked for when it is looked at.
   */
  async #relearn(directory: Node): Promise<void> {
    const { store, table, signal } = this.#state
    for (const node of [...table.below(directory)]) {
      if (node.directory !== undefined) node.directory.completeAt = -Infinity
      if (node.isAhead) continue
      node.validatedAt = -Infinity
      if (node.file === undefined) continue
      try {
        const entry = await store.stat(table.pathOf(node), { signal })
        if (entry.kind === 'file' && entry.size === node.size) this.#publisher.published(node, entry)
      } catch (error) {
        if (!isOperationError(error, 'STORE_NOT_FOUND')) throw error
      }
    }
  }
}

function isInside(node: Node, directory: Node): boolean {
  for (let at: Node | undefined = node; at !== undefined; at = at.parent) if (at === directory) return true
  return false
}
