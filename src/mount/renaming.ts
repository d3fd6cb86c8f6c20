/**
 * Rename, as POSIX says, of files, symlinks and directories. What is dirty is published first, under the old name; what was
 * never published only changes its name here. A file that is replaced while it is open has its bytes brought here before, so
 * that it stays readable and writable. The move of a directory has its subtree to itself (see `locks.ts`).
 */
import { isOperationError, OperationError } from '#base/errors.ts'
import type { CacheKey } from '#cache/file-cache.ts'
import { checkName, joinPath } from '#store/path.ts'
import { ABSENT, ANY, ifVersion, type Entry, type Guard, type RenameOptions, type Version } from '#store/store.ts'

import { FoundMoves, moveOf, type Move, type VersionChange } from './found-moves.ts'
import type { MountState } from './mount-state.ts'
import type { Namespace } from './namespace.ts'
import { stateOf } from './node-table.ts'
import type { Node, Place } from './node.ts'
import type { Publisher } from './publisher.ts'
import { checkPlace } from './refusals.ts'
import type { Resolver } from './resolver.ts'
import { mayHaveHappened, type Ask } from './unanswered.ts'

const RENAME_NOREPLACE = 1

export class Renaming {
  readonly #state: MountState
  readonly #resolver: Resolver
  readonly #publisher: Publisher
  readonly #namespace: Namespace
  readonly #found: FoundMoves

  constructor(state: MountState, resolver: Resolver, publisher: Publisher, namespace: Namespace) {
    this.#state = state
    this.#resolver = resolver
    this.#publisher = publisher
    this.#namespace = namespace
    this.#found = new FoundMoves(state, namespace)
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
    await stateOf(to.parent).removing.get(to.name)?.sent()
    const source = await this.#resolver.require(from.parent, from.name)
    const target = await this.#resolver.lookup(to.parent, to.name)
    if (target === source) return
    checkPlace(this.#state, to.parent, to.name)
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
    const move = (): Promise<void> =>
      target === undefined
        ? this.#moveLocked(from, to, source, target)
        : this.#namespace.leaving(target, () => this.#moveLocked(from, to, source, target))
    await first?.lock.run(() => (second === undefined ? move() : second.lock.run(move)))
    this.#publisher.release(source)
    if (target !== undefined) this.#publisher.release(target)
  }

  async #moveLocked(from: Place, to: Place, source: Node, target: Node | undefined): Promise<void> {
    const { table, signal } = this.#state
    this.#checkPlace(from, source)
    if (target !== undefined) await this.#publisher.keepReadable(target)
    await this.#publisher.learnStored(source)
    if (target !== undefined) await this.#publisher.learnStored(target)
    this.#checkPlace(from, source)
    // Somebody else has replaced, removed or made the target, as was just found out: likewise.
    const found = table.childOf(to.parent, to.name)
    if (found !== target) throw this.#publisher.stale(found ?? source)
    if (source.version === undefined) {
      // Never published: it will be, under the new name, in place of what has that name now.
      if (target !== undefined) {
        source.version = target.version
        this.#state.journals?.takeOver(source, target)
        this.#namespace.replaced(target)
      }
      table.move(source, to.parent, to.name)
      await this.#state.journals?.renamed(source)
      return
    }
    await this.#namespace.keepDirectory(from.parent)
    const guard = ifVersion(source.version)
    const targetGuard: Guard = target?.version === undefined ? ABSENT : ifVersion(target.version)
    const move = await moveOf(this.#state, from, to, source, target)
    await this.#rename(
      move,
      { guard, targetGuard, signal },
      (options) => this.#found.file(move, options),
      () => undefined,
    )
    // What was closed meanwhile was journaled under the name that it had.
    await this.#state.journals?.renamed(source)
  }

  /** It was lost while this waited for its lock: at ESTALE the kernel looks it up anew, and tries once more. */
  #checkPlace({ parent, name }: Place, node: Node): void {
    if (node.detached !== undefined || node.parent !== parent || node.name !== name) throw this.#publisher.stale(node)
  }

  /** Moves the names in the store, then here. A lost race has the kernel's second try ask what is there. */
  async #rename(move: Move, options: RenameOptions, ask: Ask<Entry>, moved: () => void): Promise<void> {
    const { store, table, unanswered } = this.#state
    const { from, to, source, target } = move
    const path = joinPath(table.pathOf(from.parent), from.name)
    const newPath = joinPath(table.pathOf(to.parent), to.name)
    const cachedAs = this.#state.cached.keysOf(source, true)
    const places = [from, to]
    const { underway } = unanswered
    const asked: Ask<Entry> = async (about) => {
      const entry = await ask(about)
      underway.delete(source)
      return entry
    }
    const answerOf = (error: unknown): Promise<Entry> => {
      // Of a directory that is moved by copies, what others have changed meanwhile stays, and the rest is moved.
      const isPart = source.kind === 'directory' && !store.capabilities.renameAtomic
      if (mayHaveHappened(error) || (isPart && isOperationError(error, 'STORE_CONFLICT'))) {
        return unanswered.findOut(places, error, asked, late)
      }
      underway.delete(source)
      throw error
    }
    const late = (entry: Entry): void => {
      this.#moved(move, entry, cachedAs, moved)
      // Not before: who holds its lock may be the one who has asked.
      for (const node of target === undefined ? [source] : [source, target]) this.#publisher.releaseLater(node)
      for (const node of [source, ...table.below(source)]) {
        void this.#state.journals?.renamed(node)
      }
    }
    await table.changing(places, async () => {
      underway.set(source, { to, stored: move.stored })
      const entry = await store.rename(path, newPath, { ...options, expected: source.kind }).catch(answerOf)
      underway.delete(source)
      this.#moved(move, entry, cachedAs, moved)
    })
  }

  /** Takes in that the store has moved it. */
  #moved(
    { from, to, source, target }: Move,
    entry: Entry,
    cachedAs: ReadonlyMap<Node, CacheKey>,
    moved: () => void,
  ): void {
    const { table } = this.#state
    if (target !== undefined) this.#namespace.replaced(target)
    // Whoever had one of the names lost it meanwhile, by a lost race or for lack of room: the next look asks.
    const other = table.childOf(to.parent, to.name)
    if (other !== undefined) this.#namespace.replaced(other)
    if (source.detached === undefined) {
      table.move(source, to.parent, to.name)
      this.#publisher.published(source, entry)
      moved()
      this.#state.cached.follow(cachedAs)
      return
    }
    const left = table.childOf(from.parent, from.name)
    if (left !== undefined) table.supersede(left)
    stateOf(to.parent).completeAt = -Infinity
    stateOf(to.parent).absences.delete(to.name)
  }

  async #moveDirectory(from: Place, to: Place, source: Node, target: Node | undefined): Promise<void> {
    const { table, signal, unanswered } = this.#state
    if (target !== undefined) this.#namespace.checkNothingUnpublished(target)
    // What was removed below has to go under the names that it had, and what is in question be asked for by them.
    await this.#namespace.flushRemovals()
    await unanswered.settleAll()
    await publishBelow(this.#state, this.#publisher, source)
    await this.#namespace.keepDirectory(from.parent)
    this.#checkPlace(from, source)
    const targetGuard = target === undefined ? ABSENT : ANY
    const changes = new Map<string, VersionChange>()
    const onVersionChanged = (path: string, before: Version, after: Version): void => {
      changes.set(path, { before, after })
    }
    const move = await moveOf(this.#state, from, to, source, target)
    try {
      await this.#rename(
        move,
        { guard: ANY, targetGuard, signal, onVersionChanged },
        (options) => this.#found.directory(move, changes, options),
        () => {
          table.epoch++
          followVersions(this.#state, this.#namespace, source, changes)
        },
      )
    } catch (error) {
      table.epoch++
      for (const node of table.below(source)) this.#namespace.expire(node)
      throw error
    }
    // What was closed meanwhile was journaled under the name that it had.
    for (const node of [...table.below(source)]) await this.#state.journals?.renamed(node)
  }
}

/** Publishes what lies under a directory and is ahead of the store, before its names change. What was never published stays. */
export async function publishBelow(state: MountState, publisher: Publisher, directory: Node): Promise<void> {
  for (const node of [...state.table.below(directory)]) {
    const isClosed = node.version !== undefined || node.file?.journaled !== undefined
    if (isClosed && node.isAhead) await publisher.publishClaimed(node)
  }
}

/**
 * After the move of a directory the versions of what lies in it may be others (S3 copies objects). What is open goes on
 * with the version that its own was copied to; a file that somebody else had replaced before the move is superseded.
 */
export function followVersions(
  { table }: MountState,
  namespace: Namespace,
  directory: Node,
  changes: ReadonlyMap<string, VersionChange>,
): void {
  stateOf(directory).completeAt = -Infinity
  for (const node of [...table.below(directory)]) {
    if (node.detached !== undefined) continue
    const change = node.version === undefined ? undefined : changes.get(table.pathOf(node))
    if (change !== undefined && change.before === node.version) {
      if (node.cachedVersion === node.version) node.cachedVersion = change.after
      node.version = change.after
    } else if (change !== undefined && node.file !== undefined && !node.isAhead) {
      table.supersede(node)
      continue
    }
    table.touch(node)
    namespace.expire(node)
    if (node.directory !== undefined) node.directory.completeAt = -Infinity
  }
}

/** Whether `node` is `directory` or lies under it. */
export function isInside(node: Node, directory: Node): boolean {
  for (let at: Node | undefined = node; at !== undefined; at = at.parent) if (at === directory) return true
  return false
}
