/**
 * Changes of names whose answer was lost: the store has made them or not. Who made one asks the store at once what it has,
 * so that a change which took effect is no error. Where that finds no answer either, the caller gets the error, and the names
 * are in question: nothing is believed or stored under them, nor below them, until the store has been asked again. Whoever
 * needs one of them asks, and fails where that fails. So a file that is open or ahead of the store goes to where it is before
 * anything is put, and no second one comes to be under the name that it had.
 *
 *     change --answered--> done
 *        '--answer lost--> asked --told--> done, or the error of the change
 *                            '--not told--> in question --asked by who needs it: told--> as it is found
 *
 * An answer is taken into the table by who made the change: this only keeps the questions. It holds no lock while it asks, for
 * it is asked by those who hold one. Who holds the lock of a node or has claimed the tree begins nothing before this has told.
 */
import { isOperationError, type OperationError } from '#base/errors.ts'
import { compareTimestamps, type Timestamp } from '#base/time.ts'
import { joinPath } from '#store/path.ts'
import type { Attributes, CallOptions, Entry, Kind, Store, Version } from '#store/store.ts'

import type { MountState } from './mount-state.ts'
import { stateOf } from './node-table.ts'
import type { Node, Place } from './node.ts'

/** So long a call that has lost its answer waits for another one: it has been patient already. */
const ASK_MS = 3000

/** What became of a change: its result, or undefined where it has not been made. Takes into the table what else it finds. */
export type Ask<T> = (options: CallOptions) => Promise<T | undefined>

/** Names of which nobody knows what became of them. */
export interface Question {
  /** Asks the store; joined by who asks meanwhile. Rejects where it does not tell. */
  settle(): Promise<void>
}

/** A move or removal whose end nobody knows yet. */
interface Underway {
  /** Undefined: nowhere, it is removed. */
  readonly to: Place | undefined
  readonly stored: ReadonlyMap<Node, Stored>
}

/** Where else a file may be that is being moved, or has been and nobody knows; `path` undefined: it may be gone. */
export interface Elsewhere {
  readonly path: string | undefined
  readonly size: number | undefined
  readonly mtime: Timestamp | undefined
}

/** Whether a change that failed so may have been made all the same. */
export function mayHaveHappened(error: unknown): error is OperationError {
  return (
    isOperationError(error) && (error.retry !== 'never' || error.code === 'ABORTED' || error.code === 'STORE_PROTOCOL')
  )
}

export class Unanswered {
  readonly #state: MountState
  readonly #open = new Set<Question>()
  /** What is leaving its name, or has perhaps left it: what is written to it meanwhile, the journal has with where else it may be. */
  readonly underway = new Map<Node, Underway>()

  constructor(state: MountState) {
    this.#state = state
  }

  /**
   * The result of a change that failed by `error`, where it was made all the same. For who runs `table.changing` of `places`.
   * `late` takes in a result that is found only after this has failed.
   * @throws the error, where the change was not made, or nobody can tell.
   */
  async resultOf<T>(places: readonly Place[], error: unknown, ask: Ask<T>, late: (found: T) => void): Promise<T> {
    if (!mayHaveHappened(error)) throw error
    return this.findOut(places, error, ask, late)
  }

  /** As `resultOf`, also of an error that is told of a change which was made in part. */
  async findOut<T>(places: readonly Place[], error: unknown, ask: Ask<T>, late: (found: T) => void): Promise<T> {
    try {
      const found = await this.#ask(ask, AbortSignal.any([this.#state.signal, AbortSignal.timeout(ASK_MS)]))
      if (found !== undefined) return found
    } catch (unanswered) {
      if (!isOperationError(unanswered)) throw unanswered
      this.put(places, ask, late)
      const names = places.map(({ name }) => name)
      this.#state.log.warn({ err: unanswered, names }, 'nobody knows what became of a change; it is asked for later')
    }
    throw error
  }

  async #ask<T>(ask: Ask<T>, signal: AbortSignal): Promise<T | undefined> {
    // What names have while a move is half done tells nothing of what they will have.
    await this.#state.store.finishMoves?.({ signal })
    return ask({ signal })
  }

  /** Where else the file may be by now. */
  elsewhereOf(node: Node): Elsewhere | undefined {
    if (this.underway.size === 0) return undefined
    const { table } = this.#state
    for (let at: Node | undefined = node; at !== undefined; at = at.parent) {
      const underway = this.underway.get(at)
      if (underway === undefined || node.detached !== undefined) continue
      const { size, attributes } = underway.stored.get(node) ?? storedOf(node)
      const { to } = underway
      const rest = table.pathOf(node).slice(table.pathOf(at).length)
      const path = to && joinPath(table.pathOf(to.parent), to.name) + rest
      return { path, size, mtime: attributes?.mtime }
    }
    return undefined
  }

  /** Puts names in question, until the store has told what became of the change. */
  put<T>(places: readonly Place[], ask: Ask<T>, late: (found: T) => void): void {
    const { table, signal } = this.#state
    let asking: Promise<void> | undefined
    const askOnce = async (): Promise<void> => {
      // What lay in a directory that is gone went with it.
      if (places.every(({ parent }) => parent.detached === undefined)) {
        await table.changing(places, async () => {
          const found = await this.#ask(ask, signal)
          if (found !== undefined) late(found)
        })
      }
      this.#open.delete(question)
      for (const { parent, name } of places) {
        const { unanswered } = stateOf(parent)
        if (unanswered.get(name) === question) unanswered.delete(name)
        table.settle(parent)
      }
    }
    const question: Question = {
      settle: () => {
        asking ??= askOnce().finally(() => {
          asking = undefined
        })
        return asking
      },
    }
    this.#open.add(question)
    for (const { parent, name } of places) stateOf(parent).unanswered.set(name, question)
  }

  /** A promise to wait for before `node`, or a `name` in it, is used; undefined where nothing is in question there. */
  settled(node: Node, name?: string): Promise<void> | undefined {
    if (this.#open.size === 0) return undefined
    const question = this.#above(node, name)
    return question?.settle().then(() => this.settled(node, name))
  }

  #above(node: Node, name: string | undefined): Question | undefined {
    if (name !== undefined) {
      const question = stateOf(node).unanswered.get(name)
      if (question !== undefined) return question
    }
    for (let at = node; at.parent !== undefined; at = at.parent) {
      const question = stateOf(at.parent).unanswered.get(at.name)
      if (question !== undefined) return question
    }
    return undefined
  }

  /** As `settled`, for all names of a directory. */
  settledIn(directory: Node): Promise<void> | undefined {
    if (this.#open.size === 0) return undefined
    const [question] = stateOf(directory).unanswered.values()
    if (question === undefined) return this.settled(directory)
    return question.settle().then(() => this.settledIn(directory))
  }

  /** Asks about all: before a directory is moved. */
  async settleAll(): Promise<void> {
    for (const question of [...this.#open]) await question.settle()
  }
}

/** What the store has under a path; undefined: nothing. */
export async function look(store: Store, path: string, options: CallOptions): Promise<Entry | undefined> {
  try {
    return await store.stat(path, options)
  } catch (error) {
    if (isOperationError(error, 'STORE_NOT_FOUND', 'STORE_NOT_DIRECTORY')) return undefined
    throw error
  }
}

/**
 * Asks what became of a change of attributes of a file, which may have given it another version: whether that has all that was
 * given, but for what a local disk does not let be set, and else is what it was.
 */
export function askChanged(state: MountState, node: Node, changes: Attributes): Ask<Entry> {
  const { store, table } = state
  const stored = { kind: node.kind, size: node.size, mtime: changes.mtime ?? node.attributes?.mtime }
  return async (options) => {
    if (node.detached !== undefined) return undefined
    const found = await look(store, table.pathOf(node), options)
    if (found === undefined || found.kind !== stored.kind) return undefined
    const isSame =
      stored.kind === 'directory' || (found.size === stored.size && isAt(found.attributes?.mtime, stored.mtime))
    return isSame && hasAll(found.attributes ?? {}, changes) ? found : undefined
  }
}

function hasAll(found: Attributes, { mode, uid, gid, atime, mtime, xattrs }: Attributes): boolean {
  if (mtime !== undefined && !isAt(found.mtime, mtime)) return false
  if (atime !== undefined && !isAt(found.atime, atime)) return false
  for (const [is, wanted] of [
    [found.mode, mode],
    [found.uid, uid],
    [found.gid, gid],
  ]) {
    if (wanted !== undefined && is !== wanted) return false
  }
  if (xattrs === undefined) return true
  if ((found.xattrs?.size ?? 0) !== xattrs.size) return false
  return [...xattrs].every(([name, value]) => isEqual(found.xattrs?.get(name), value))
}

function isEqual(found: Uint8Array | undefined, value: Uint8Array): boolean {
  return found !== undefined && Buffer.from(found).equals(value)
}

function isAt(found: Timestamp | undefined, time: Timestamp | undefined): boolean {
  return found !== undefined && time !== undefined && compareTimestamps(found, time) === 0
}

/** What the store had of a file before it was moved. */
export interface Stored {
  readonly kind: Kind
  readonly version: Version | undefined
  /** Undefined where they were changed here since. */
  readonly size: number | undefined
  readonly attributes: Attributes | undefined
}

/** What the store has of `node`, as far as that is known here. */
export function storedOf(node: Node): Stored {
  const { kind, version, size, attributes } = node
  return node.isAhead ? { kind, version, size: undefined, attributes: undefined } : { kind, version, size, attributes }
}

/**
 * Whether `entry` is that file, and nothing has become of it. Objects of directories have no bytes, so on S3 all are of one
 * version: of those the time tells, where it is known.
 */
export function isUntouched({ kind, version, attributes }: Stored, entry: Entry | undefined): boolean {
  if (entry === undefined || entry.kind !== kind || entry.version !== version) return false
  const [mtime, found] = [attributes?.mtime, entry.attributes?.mtime]
  return kind !== 'directory' || mtime === undefined || found === undefined || isAt(found, mtime)
}

/**
 * Whether `entry`, which has come to a name, is that file: by its version, or where a move has given it another one, by its size
 * and time. Not by its ctime: directories have a local disk's, which a move changes.
 */
export function isSameFile(stored: Stored, entry: Entry | undefined): entry is Entry {
  if (isUntouched(stored, entry)) return true
  const { kind, size, attributes } = stored
  if (entry === undefined || entry.kind !== kind || entry.size !== size) return false
  return isAt(entry.attributes?.mtime, attributes?.mtime)
}
