/**
 * What became of a rename whose answer was lost, as the store tells it when it is asked about both names. It tells of a file
 * that has moved where the new name has it and the old one has not; where both have it, a copy was made and its original is
 * still there (S3), and that is removed. Of a directory the names tell, and where both are there, as in the middle of a move
 * by copies, each file that is open is looked for on its own: it goes on where its version is.
 *
 * What is at neither name is somebody else's by now: `superseded`, with what is ahead of the store kept by the policy.
 */
import { isOperationError } from '#base/errors.ts'
import { joinPath } from '#store/path.ts'
import { ifVersion, IMPLICIT_VERSION, type CallOptions, type Entry, type Version } from '#store/store.ts'
import { timestampNow } from '#base/time.ts'

import type { MountState } from './mount-state.ts'
import type { Namespace } from './namespace.ts'
import { stateOf } from './node-table.ts'
import type { Node, Place } from './node.ts'
import { isSameFile, isUntouched, look, storedOf, type Stored } from './unanswered.ts'

/** What a move made of the version of a file. */
export interface VersionChange {
  readonly before: Version
  readonly after: Version
}

/** A rename, as it was when the store was asked for it. */
export interface Move {
  readonly from: Place
  readonly to: Place
  readonly source: Node
  readonly target: Node | undefined
  readonly targetVersion: Version | undefined
  /** Of the source, and of what is open below it. */
  readonly stored: ReadonlyMap<Node, Stored>
}

/**
 * To be called when nothing of the source is ahead of the store any more, as far as it is to be published. What is ahead all the
 * same, by a put that lost its answer or a write just now, costs a request, since what is known of it here is not what is stored.
 */
export async function moveOf(
  state: MountState,
  from: Place,
  to: Place,
  source: Node,
  target: Node | undefined,
): Promise<Move> {
  const stored = new Map<Node, Stored>()
  for (const node of [source, ...state.table.below(source)]) {
    if (node !== source && node.file === undefined) continue
    stored.set(node, node.isAhead && node.version !== undefined ? await askedOf(state, node) : storedOf(node))
  }
  return { from, to, source, target, targetVersion: target?.version, stored }
}

async function askedOf({ store, table, signal }: MountState, node: Node): Promise<Stored> {
  const found = await look(store, table.pathOf(node), { signal })
  return found !== undefined && found.version === node.version ? found : storedOf(node)
}

export class FoundMoves {
  readonly #state: MountState
  readonly #namespace: Namespace

  constructor(state: MountState, namespace: Namespace) {
    this.#state = state
    this.#namespace = namespace
  }

  /** The entry under the new name, where the file has moved. Two requests, and one where its original has to be removed. */
  async file(move: Move, options: CallOptions): Promise<Entry | undefined> {
    const { source } = move
    const stored = move.stored.get(source) ?? storedOf(source)
    const { store } = this.#state
    for (let isLast = false; ; isLast = true) {
      const [path, newPath] = this.#paths(move)
      const [atNew, atOld] = [await look(store, newPath, options), await look(store, path, options)]
      const isThere = atOld?.version === stored.version
      const isOther = atNew?.version !== move.targetVersion
      if (atNew !== undefined && (isOther ? isSameFile(stored, atNew) : isUntouched(stored, atNew))) {
        if (!isThere) return atNew
        if (isOther && stored.version !== undefined) {
          await this.#removeOriginal(path, stored.version, options)
          return atNew
        }
      }
      // It may have moved between the two looks.
      if (!isThere && !isLast) continue
      this.#letGo(move, atNew)
      if (!isThere && source.detached === undefined) this.#state.table.supersede(source)
      return undefined
    }
  }

  async #removeOriginal(path: string, version: Version, options: CallOptions): Promise<void> {
    try {
      await this.#state.store.remove(path, { ...options, guard: ifVersion(version) })
    } catch (error) {
      // Somebody else has written there since, or it has gone at last.
      if (!isOperationError(error, 'STORE_CONFLICT', 'STORE_NOT_FOUND')) throw error
    }
  }

  /** The target of a move that was not made, where the store has something else by now. */
  #letGo({ target, targetVersion }: Move, atNew: Entry | undefined): void {
    if (target === undefined || target.detached !== undefined) return
    const isThere = target.kind === 'directory' ? atNew?.kind === 'directory' : atNew?.version === targetVersion
    if (!isThere) this.#state.table.supersede(target)
  }

  #paths({ from, to }: Move): [string, string] {
    const { table } = this.#state
    return [joinPath(table.pathOf(from.parent), from.name), joinPath(table.pathOf(to.parent), to.name)]
  }

  /** As `file`, of a directory; notes in `changes` the versions of what is open in it. Two requests, and one for each open file. */
  async directory(move: Move, changes: Map<string, VersionChange>, options: CallOptions): Promise<Entry | undefined> {
    const { source } = move
    const { store, table } = this.#state
    const [path, newPath] = this.#paths(move)
    const [atNew, atOld] = [await look(store, newPath, options), await look(store, path, options)]
    const isMoved = atNew?.kind === 'directory' && atOld?.kind !== 'directory'
    if (isMoved) await this.#noteVersions(move, changes, options)
    else if (atNew?.kind === 'directory' && atOld?.kind === 'directory') await this.#goApart(move, options)
    else {
      this.#letGo(move, atNew)
      if (atOld?.kind !== 'directory' && source.detached === undefined) table.supersede(source)
    }
    return isMoved ? atNew : undefined
  }

  /** What is open in a directory that is elsewhere now. */
  async #noteVersions(move: Move, changes: Map<string, VersionChange>, options: CallOptions): Promise<void> {
    for (const [node, stored, rest] of this.#openIn(move)) {
      const path = this.#paths(move)[1] + rest
      const found = await look(this.#state.store, path, options)
      const isOther = isSameFile(stored, found) && found.version !== stored.version
      if (isOther && node.version === stored.version && node.version !== undefined) {
        changes.set(path, { before: node.version, after: found.version })
      }
    }
  }

  /** A move that is half done, or has not begun: what is open goes to where it is. */
  async #goApart(move: Move, options: CallOptions): Promise<void> {
    const { store, table } = this.#state
    const found: [Node, Entry, string][] = []
    for (const [node, stored, rest] of this.#openIn(move)) {
      const [path, newPath] = this.#paths(move)
      const atOld = await look(store, path + rest, options)
      if (atOld?.version === stored.version) continue
      const atNew = await look(store, newPath + rest, options)
      if (isSameFile(stored, atNew) && node.version === stored.version) found.push([node, atNew, rest])
    }
    for (const [node, entry, rest] of found) {
      if (node.detached !== undefined) continue
      const names = rest.split('/').slice(1)
      const name = names.pop() ?? node.name
      const parent = this.#directoryAt(move.to, names)
      if (parent === undefined) continue
      const other = table.childOf(parent, name)
      if (other !== undefined) table.supersede(other)
      table.move(node, parent, name)
      if (node.cachedVersion === node.version) node.cachedVersion = entry.version
      node.version = entry.version
    }
    table.epoch++
    for (const node of [move.source, ...table.below(move.source)]) this.#namespace.expire(node)
    for (const node of move.target === undefined ? [] : [move.target]) this.#namespace.expire(node)
  }

  /** The directory there, known or not; undefined where something else is known of it. */
  #directoryAt({ parent, name }: Place, names: readonly string[]): Node | undefined {
    const { table } = this.#state
    let at = parent
    for (const each of [name, ...names]) {
      const known = table.childOf(at, each)
      if (known !== undefined && known.directory === undefined) return undefined
      stateOf(at).absences.delete(each)
      stateOf(at).completeAt = -Infinity
      at =
        known ??
        table.add(at, each, {
          ...{ kind: 'directory', version: IMPLICIT_VERSION, size: 0, modified: timestampNow(), attributes: undefined },
          ...{ validatedAt: -Infinity, changedAt: 0 },
        })
    }
    return at
  }

  /** What the store has of what is open below the source, and what follows the path of that. */
  *#openIn({ source, stored }: Move): Generator<[Node, Stored, string]> {
    const { table } = this.#state
    const start = table.pathOf(source).length
    for (const node of [...table.below(source)]) {
      if (node.file === undefined || node.version === undefined || node.detached !== undefined) continue
      yield [node, stored.get(node) ?? storedOf(node), table.pathOf(node).slice(start)]
    }
  }
}
