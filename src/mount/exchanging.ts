/**
 * RENAME_EXCHANGE: two entries of any kind get each other's name, in one step for every program on this mount. What is not
 * yet in the store is published first, under the name that it has; open files go on under their new names. On a store whose
 * exchange copies, a move of directories has all that lies under them to itself, as in `renaming.ts`.
 */
import { OperationError } from '#base/errors.ts'
import { checkName, joinPath } from '#store/path.ts'
import { ANY, ifVersion, type CallOptions, type ExchangeOptions, type Guard, type Version } from '#store/store.ts'

import type { MountState } from './mount-state.ts'
import type { Namespace } from './namespace.ts'
import type { Node, Place } from './node.ts'
import type { Publisher } from './publisher.ts'
import { checkPlace } from './refusals.ts'
import type { VersionChange } from './found-moves.ts'
import { followVersions, isInside, publishBelow } from './renaming.ts'
import type { Resolver } from './resolver.ts'
import { isSameFile, isUntouched, look, storedOf, type Stored } from './unanswered.ts'

/** Two entries and their places, as they were when the store was asked to exchange them. */
interface Swap {
  readonly a: Place
  readonly b: Place
  readonly one: Node
  readonly other: Node
  readonly stored: readonly [Stored, Stored]
}

export class Exchanging {
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

  /** @throws OperationError `STORE_NOT_FOUND` where one is missing, `INPUT_INVALID` where one lies in the other. */
  async exchange(a: Place, b: Place): Promise<void> {
    checkName(a.name)
    checkName(b.name)
    const { tree } = this.#state
    const one = await this.#resolver.require(a.parent, a.name)
    const other = await this.#resolver.require(b.parent, b.name)
    if (one === other) return
    if (isInside(b.parent, one) || isInside(a.parent, other)) {
      throw new OperationError('INPUT_INVALID', `Cannot exchange "${a.name}": one of the two lies in the other`)
    }
    const wholes = [one, other].filter(({ kind }) => kind === 'directory')
    const parents = [a.parent, b.parent]
    const work = (): Promise<void> => this.#exchange(a, b)
    await (wholes.length === 0 ? tree.shared(parents, work) : tree.exclusive(wholes, parents, work))
    this.#state.entriesChanged(a.parent)
    this.#state.entriesChanged(b.parent)
  }

  async #exchange(a: Place, b: Place): Promise<void> {
    const one = await this.#resolver.require(a.parent, a.name)
    const other = await this.#resolver.require(b.parent, b.name)
    if (one === other) return
    checkPlace(this.#state, a.parent, a.name)
    checkPlace(this.#state, b.parent, b.name)
    // What was removed below has to go under the names that it had.
    await this.#namespace.flushRemovals()
    for (const node of [one, other]) {
      if (node.kind === 'directory') await publishBelow(this.#state, this.#publisher, node)
      else await this.#publisher.publishClaimed(node)
    }
    const [first, second] = one.id < other.id ? [one, other] : [other, one]
    await first.lock.run(() => second.lock.run(() => this.#exchangeLocked(a, b, one, other)))
    this.#publisher.release(one)
    this.#publisher.release(other)
  }

  async #exchangeLocked(a: Place, b: Place, one: Node, other: Node): Promise<void> {
    const { store, table, signal } = this.#state
    for (const node of [one, other]) {
      await this.#publisher.learnStored(node)
      // It was lost, or not stored at all, while this waited for its lock: at ESTALE the kernel looks, and tries once more.
      const { parent, name } = node === one ? a : b
      const isThere = node.detached === undefined && node.parent === parent && node.name === name
      if (!isThere || node.version === undefined) throw this.#publisher.stale(node)
    }
    const changes = new Map<string, VersionChange>()
    const options: ExchangeOptions = {
      guard: guardOf(one),
      otherGuard: guardOf(other),
      signal,
      onVersionChanged: (path: string, before: Version, after: Version) => changes.set(path, { before, after }),
    }
    const path = joinPath(table.pathOf(a.parent), a.name)
    const otherPath = joinPath(table.pathOf(b.parent), b.name)
    const { cached } = this.#state
    const cachedAs = new Map([...cached.keysOf(one, true), ...cached.keysOf(other, true)])
    const places = [a, b]
    const swap: Swap = { a, b, one, other, stored: [storedOf(one), storedOf(other)] }
    const exchanged = (): void => {
      if (one.detached === undefined && other.detached === undefined) table.exchange(one, other)
      else for (const node of [one, other]) if (node.detached === undefined) table.supersede(node)
    }
    const moved = (): void => {
      for (const node of [one, other]) if (node.detached === undefined) this.#moved(node, changes)
      cached.follow(cachedAs)
    }
    const late = (): void => {
      exchanged()
      moved()
    }
    const ask = (asked: CallOptions): Promise<true | undefined> => this.#ask(swap, changes, asked)
    try {
      await table.changing(places, async () => {
        try {
          await store.exchange(path, otherPath, options)
        } catch (error) {
          await this.#state.unanswered.resultOf(places, error, ask, late)
        }
        exchanged()
      })
    } catch (error) {
      for (const node of [one, other]) this.#unsure(node)
      throw error
    }
    moved()
  }

  /**
   * What became of an exchange whose answer was lost: whether both have each other's name. A file that is under neither name is
   * superseded, and what is ahead of the store of it is kept by the policy. Two requests.
   */
  async #ask(
    { a, b, one, other, stored: [storedOne, storedOther] }: Swap,
    changes: Map<string, VersionChange>,
    options: CallOptions,
  ): Promise<true | undefined> {
    const { store, table } = this.#state
    const [path, otherPath] = [a, b].map(({ parent, name }) => joinPath(table.pathOf(parent), name))
    const [atA, atB] = [await look(store, path ?? '', options), await look(store, otherPath ?? '', options)]
    const isAtA = isUntouched(storedOne, atA)
    const isAtB = isUntouched(storedOther, atB)
    if (isAtA && isAtB) return undefined
    // What is written in a directory changes its time, so of two kinds the kind tells.
    const isByKind = one.kind !== other.kind && atA?.kind === other.kind && atB?.kind === one.kind
    if (isByKind || (isSameFile(storedOther, atA) && isSameFile(storedOne, atB))) {
      for (const [node, at, found] of [
        [one, otherPath, atB],
        [other, path, atA],
      ] as const) {
        if (node.version === undefined || found === undefined || at === undefined) continue
        if (node.kind !== 'directory' && found.version !== node.version) {
          changes.set(at, { before: node.version, after: found.version })
        }
      }
      return true
    }
    if (!isAtA && one.kind !== 'directory' && one.detached === undefined) table.supersede(one)
    if (!isAtB && other.kind !== 'directory' && other.detached === undefined) table.supersede(other)
    return undefined
  }

  #moved(node: Node, changes: ReadonlyMap<string, VersionChange>): void {
    if (node.kind === 'directory') {
      this.#state.table.epoch++
      followVersions(this.#state, this.#namespace, node, changes)
      node.validatedAt = -Infinity
      return
    }
    const change = changes.get(this.#state.table.pathOf(node))
    if (change === undefined) return
    if (node.cachedVersion === node.version) node.cachedVersion = change.after
    node.version = change.after
    node.modifiedGuessed = true
  }

  #unsure(node: Node): void {
    if (node.kind === 'directory') this.#state.table.epoch++
    for (const below of this.#state.table.below(node)) this.#namespace.expire(below)
    if (node.detached === undefined) this.#namespace.expire(node)
  }
}

/** A directory's version comes from wherever it was last seen, and may be that of one made only by its entries. */
function guardOf(node: Node): Guard {
  return node.kind === 'directory' || node.version === undefined ? ANY : ifVersion(node.version)
}
