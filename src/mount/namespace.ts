/**
 * Names: directories, symlinks and empty files made, names removed. Every change goes to the store under a guard before
 * the inode table shows it. A guard that does not hold makes what was believed of the name stale: the kernel, at ESTALE,
 * looks it up again and tries once more, so that `rm` of what somebody has just replaced works.
 */
import { isOperationError, OperationError } from '#base/errors.ts'
import type { Caller } from '#fuse/file-system.ts'
import { checkName, joinPath } from '#store/path.ts'
import {
  ABSENT,
  ANY,
  ifVersion,
  IMPLICIT_VERSION,
  type CallOptions,
  type Entry,
  type PutOptions,
  type SpecialKind,
} from '#store/store.ts'

import type { MountState } from './mount-state.ts'
import { newAttributes } from './node-attributes.ts'
import { stateOf } from './node-table.ts'
import { factsOf, type Node } from './node.ts'
import type { Publisher } from './publisher.ts'
import { checkPlace } from './refusals.ts'
import { Removals } from './removals.ts'
import type { Resolver } from './resolver.ts'
import { look, mayHaveHappened } from './unanswered.ts'

export class Namespace {
  readonly #state: MountState
  readonly #resolver: Resolver
  readonly #publisher: Publisher
  readonly #removals: Removals

  constructor(state: MountState, resolver: Resolver, publisher: Publisher) {
    this.#state = state
    this.#resolver = resolver
    this.#publisher = publisher
    this.#removals = new Removals(state, (directory) => this.#keep(directory, 0))
  }

  /** Removals that are acknowledged and not yet in the store. */
  get removalsLeft(): number {
    return this.#removals.size
  }

  /** Resolves when the store has all that was removed here until now. */
  flushRemovals(): Promise<void> {
    return this.#removals.flush()
  }

  /** Gives up, at the end of a mount, what could not be removed; gives its paths. */
  giveUpRemovals(): readonly string[] {
    return this.#removals.giveUp()
  }

  makeDirectory(parent: Node, name: string, mode: number, caller: Caller): Promise<Node> {
    const { store, signal, owner } = this.#state
    const attributes = newAttributes(parent, 'directory', mode, caller, owner)
    return this.#make(parent, name, (path, seen) =>
      store.makeDirectory(path, { guard: ABSENT, attributes, signal, ...seen }),
    )
  }

  symlink(parent: Node, name: string, target: string, caller: Caller): Promise<Node> {
    const { store, signal, owner } = this.#state
    const attributes = newAttributes(parent, 'symlink', 0o777, caller, owner)
    return this.#make(parent, name, (path, seen) =>
      store.symlink(path, target, { guard: ABSENT, attributes, signal, ...seen }),
    )
  }

  /** An empty file, in the store when it resolves: there is no handle whose close could publish it. */
  makeFile(parent: Node, name: string, mode: number, caller: Caller): Promise<Node> {
    const { store, signal, owner } = this.#state
    const attributes = newAttributes(parent, 'file', mode, caller, owner)
    const nothing = new Uint8Array(0)
    return this.#make(parent, name, (path) => store.put(path, nothing, { guard: ABSENT, attributes, signal }))
  }

  /** A fifo or a socket: the kernel itself makes of it what its readers and writers use. */
  makeSpecial(parent: Node, name: string, kind: SpecialKind, mode: number, caller: Caller): Promise<Node> {
    const { store, signal, owner } = this.#state
    const attributes = newAttributes(parent, kind, mode, caller, owner)
    return this.#make(parent, name, (path, seen) =>
      store.makeSpecial(path, kind, { guard: ABSENT, attributes, signal, ...seen }),
    )
  }

  #make(
    parent: Node,
    name: string,
    make: (path: string, seen: Pick<PutOptions, 'seenAbsent'>) => Promise<Entry>,
  ): Promise<Node> {
    checkName(name)
    const { table, tree } = this.#state
    return tree.shared([parent], async () => {
      checkPlace(this.#state, parent, name)
      await stateOf(parent).removing.get(name)?.sent()
      await this.#state.unanswered.settled(parent, name)
      const path = joinPath(table.pathOf(parent), name)
      // The guard would find what is in the store, but not what is here only.
      const known = table.childOf(parent, name)
      if (known !== undefined && (known.isAhead || this.#state.validFor(known) > 0)) throw existsError(path)
      // The kernel has looked the name up just before, so this is nearly always known.
      const seen = { seenAbsent: this.#resolver.isSeenAbsent(parent, name) }
      try {
        return await table.changing([{ parent, name }], async () => this.#made(parent, name, await make(path, seen)))
      } catch (error) {
        // Taken by somebody else, or made with its answer lost: the next look asks the store.
        if (isOperationError(error, 'STORE_CONFLICT')) throw existsError(path, error)
        throw error
      }
    })
  }

  #made(parent: Node, name: string, entry: Entry): Node {
    const { table } = this.#state
    const now = this.#state.now()
    const stale = table.childOf(parent, name)
    if (stale !== undefined) table.detach(stale, 'superseded')
    const node = table.add(parent, name, factsOf(entry, now))
    node.modifiedGuessed = true
    stateOf(parent).absences.delete(name)
    // Made this moment, so whatever it has was made after this.
    if (node.directory !== undefined) node.directory.completeAt = now
    this.#state.entriesChanged(parent)
    return node
  }

  async unlink(parent: Node, name: string, { pid }: Caller): Promise<void> {
    const { table, tree } = this.#state
    const inBulk = this.#removals.begin(pid)
    await tree.shared([parent], async () => {
      const node = await this.#resolver.require(parent, name)
      if (node.kind === 'directory') {
        throw new OperationError('STORE_IS_DIRECTORY', `Cannot unlink "${table.pathOf(node)}": it is a directory`)
      }
      await node.lock.run(() => this.leaving(node, () => this.#unlink(parent, name, node, inBulk)))
      this.#publisher.release(node)
    })
    this.#removals.end(pid)
  }

  /** Runs what takes the name off `node`, in its lock; who opens it meanwhile waits. */
  async leaving<T>(node: Node, work: () => Promise<T>): Promise<T> {
    // It was lost while this waited for the lock: at ESTALE the kernel looks the name up anew, and tries once more.
    if (node.detached !== undefined) throw this.#publisher.stale(node)
    const { promise, resolve } = Promise.withResolvers<void>()
    node.leaving = promise
    try {
      return await work()
    } finally {
      node.leaving = undefined
      resolve()
    }
  }

  async #unlink(parent: Node, name: string, node: Node, inBulk: boolean): Promise<void> {
    const { store, table, signal } = this.#state
    await this.#publisher.keepReadable(node)
    await this.#publisher.learnStored(node)
    // What is ahead of the store could not be had back where a removal that was acknowledged is refused.
    if (node.version !== undefined && inBulk && node.file?.dirty !== true) {
      await this.#queue(parent, name, node)
    } else if (node.version !== undefined) {
      await this.keepDirectory(parent)
      const guard = ifVersion(node.version)
      await this.#remove(parent, name, node, (path) => store.remove(path, { guard, signal }))
    } else if (node.detached === undefined) {
      table.detach(node, 'removed')
    }
    this.#forgetDirt(node)
    this.#state.entriesChanged(parent)
  }

  async #queue(parent: Node, name: string, node: Node): Promise<void> {
    // Asked for now: when the queue is sent, a move of the directory may have it to itself, and no question would be answered.
    await this.#knowItself(parent)
    if (node.detached !== undefined) throw this.#publisher.stale(node)
    await this.#removals.add(parent, name, node)
  }

  /** What is removed needs no publishing. */
  #forgetDirt(node: Node): void {
    if (node.file === undefined) return
    node.file.dirty = false
    node.file.attributesDirty = false
    this.#state.countDirty(node)
  }

  /** Detaches what a rename has just replaced in the store. */
  replaced(node: Node): void {
    if (node.detached === undefined) this.#state.table.detach(node, 'removed')
    this.#forgetDirt(node)
    this.#publisher.release(node)
  }

  async removeDirectory(parent: Node, name: string, { pid }: Caller): Promise<void> {
    const { store, table, tree, signal } = this.#state
    const inBulk = this.#removals.begin(pid)
    await tree.shared([parent], async () => {
      const node = await this.#resolver.require(parent, name)
      if (node.directory === undefined) {
        throw new OperationError('STORE_NOT_DIRECTORY', `Cannot remove "${table.pathOf(node)}": it is not a directory`)
      }
      await this.#state.unanswered.settledIn(node)
      this.checkNothingUnpublished(node)
      if (inBulk && (await this.#resolver.learn(node)) && node.detached === undefined) {
        // The store is not asked whether it is empty, so it must be known.
        const { children, ownSeenAt, completeAt } = node.directory
        if (children.size > 0 || ownSeenAt >= completeAt) throw notEmptyError(table.pathOf(node))
        await this.#queue(parent, name, node)
      } else {
        if (node.directory.removing.size > 0) await this.#removals.flush()
        await this.keepDirectory(parent)
        await this.#remove(parent, name, node, (path) => store.removeDirectory(path, { signal }))
      }
      this.#state.entriesChanged(parent)
    })
    this.#removals.end(pid)
  }

  /** @throws OperationError `STORE_NOT_EMPTY` for files that only this mount knows of. */
  checkNothingUnpublished(directory: Node): void {
    for (const child of stateOf(directory).children.values()) {
      if (child.version !== undefined) continue
      const path = this.#state.table.pathOf(directory)
      throw new OperationError('STORE_NOT_EMPTY', `Cannot remove "${path}": "${child.name}" is being written in it`)
    }
  }

  /** Runs a removal; what was gone already is as good, and a lost race makes the next look ask the store. */
  async #remove(parent: Node, name: string, node: Node, remove: (path: string) => Promise<void>): Promise<void> {
    const { table, unanswered } = this.#state
    const places = [{ parent, name }]
    const { version } = node
    const removed = (): void => {
      this.#state.attributeIndex?.forget(joinPath(table.pathOf(parent), name))
      const known = table.childOf(parent, name)
      if (known !== undefined) table.detach(known, 'removed')
    }
    const ask = async (options: CallOptions): Promise<true | undefined> => {
      const found = await look(this.#state.store, joinPath(table.pathOf(parent), name), options)
      unanswered.underway.delete(node)
      if (found === undefined) return true
      // Somebody else has made it since; who has ours open goes on as if they had replaced it.
      const isOther = node.kind === 'directory' ? found.kind !== 'directory' : found.version !== version
      if (isOther && node.detached === undefined) table.supersede(node)
      return undefined
    }
    const late = (): void => {
      removed()
      this.#forgetDirt(node)
      this.#publisher.releaseLater(node)
    }
    await table.changing(places, async () => {
      unanswered.underway.set(node, { to: undefined, stored: new Map() })
      try {
        await remove(joinPath(table.pathOf(parent), name))
      } catch (error) {
        if (mayHaveHappened(error)) await unanswered.resultOf(places, error, ask, late)
        else {
          unanswered.underway.delete(node)
          if (!isOperationError(error, 'STORE_NOT_FOUND')) throw error
        }
      }
      unanswered.underway.delete(node)
      removed()
    })
  }

  /** Has the next look at `node` ask the store. */
  expire(node: Node): void {
    node.validatedAt = -Infinity
    if (node.parent !== undefined) stateOf(node.parent).completeAt = -Infinity
  }

  /**
   * Before an entry goes: makes a directory that is there only because of its entries stay without them (once). One whose
   * fresh listing shows other entries needs nothing yet.
   */
  async keepDirectory(directory: Node): Promise<void> {
    await this.#knowItself(directory)
    await this.#keep(directory, 1)
  }

  /** A listing tells of a directory that it is there, and not whether it would stay without entries. */
  async #knowItself(directory: Node): Promise<void> {
    if (directory.parent !== undefined && directory.attributes === undefined) await this.#resolver.revalidate(directory)
  }

  /** As `keepDirectory`, where `going` entries that are known of are about to go. */
  async #keep(directory: Node, going: number): Promise<void> {
    if (directory.parent === undefined || directory.directory === undefined) return
    if (directory.version !== IMPLICIT_VERSION || directory.detached !== undefined) return
    if (this.#state.listingValidFor(directory) > 0) {
      let published = 0
      for (const child of directory.directory.children.values()) if (child.version !== undefined) published++
      if (published > going) return
    }
    const { store, table, signal } = this.#state
    const entry = await store.makeDirectory(table.pathOf(directory), { guard: ANY, signal })
    directory.version = entry.version
    table.touch(directory)
  }
}

function notEmptyError(path: string): OperationError {
  return new OperationError('STORE_NOT_EMPTY', `Cannot remove "${path}": it has entries`)
}

function existsError(path: string, cause?: unknown): OperationError {
  return new OperationError('FILE_EXISTS', `Cannot make "${path}": it exists`, { cause })
}
