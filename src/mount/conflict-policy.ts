/**
 * What a mount does with a file that somebody else has changed or removed since it was opened here.
 *
 *     fail         ours is kept under `conflicts/`, and who closes it gets ESTALE (`conflict-copies.ts`)
 *     keep-both    the stored version keeps the name; ours gets a new one next to it and is published under that
 *     last-writer  ours is published over the version just found, or made anew where the name is free
 *
 * This prepares the next try: it moves the node, or gives it the version to go over; the publish itself is `Publisher`'s, so
 * lost answers, retries and a second conflict are dealt with there. A file of whose bytes some were only in the replaced
 * version cannot be made whole any more: that is `fail`, whatever the policy.
 */
import { hostname } from 'node:os'

import { isOperationError } from '#base/errors.ts'
import { joinPath, NAME_BYTES_MAX } from '#store/path.ts'
import { ifVersion, type Entry } from '#store/store.ts'

import type { MountState } from './mount-state.ts'
import { stateOf } from './node-table.ts'
import type { Node, OpenFile, Place } from './node.ts'
import { checkPlace } from './refusals.ts'
import type { Stager } from './stager.ts'

export const ON_CONFLICT = ['fail', 'keep-both', 'last-writer'] as const
/** What is done with a file that somebody else has changed meanwhile. */
export type OnConflict = (typeof ON_CONFLICT)[number]

/** Whether the publish is to be tried again, is done, or is lost. */
export type Resolution = 'again' | 'done' | 'lost'

/** So often one publish meets another writer before it is given up. */
const TRIES_MAX = 8
/** A longer one is no extension, but part of a name with a dot. */
const EXTENSION_BYTES_MAX = 32
const HOST_BYTES_MAX = 63

export class ConflictPolicy {
  readonly #state: MountState
  readonly #stager: Stager

  constructor(state: MountState, stager: Stager) {
    this.#state = state
    this.#stager = stager
  }

  /** For who holds the lock of the node; throws what keeps the store from saying what it has. */
  async resolve(node: Node, file: OpenFile): Promise<Resolution> {
    const { onConflict } = this.#state
    const place = placeOf(node)
    if (onConflict === 'fail' || place === undefined || place.parent.detached !== undefined) return 'lost'
    if (++file.conflicts > TRIES_MAX) return 'lost'
    if (onConflict === 'last-writer') return this.#replace(node, file, place)
    return (await this.#keepBoth(node, file, place)) ? 'again' : 'lost'
  }

  async #keepBoth(node: Node, file: OpenFile, { parent, name }: Place): Promise<boolean> {
    const { log, published, table } = this.#state
    if (!file.dirty || !(await this.#isWhole(node, file)) || parent.detached !== undefined) return false
    file.conflictName ??= name
    const copy = this.#freeName(parent, file.conflictName)
    if (copy === undefined) return false
    const path = joinPath(table.pathOf(parent), file.conflictName)
    if (node.detached === undefined) table.supersede(node)
    table.attach(node, parent, copy)
    node.version = undefined
    file.changes.isNew = true
    this.#goOn(node, file)
    this.#state.entriesChanged(parent)
    published.keptBoth.inc()
    log.warn({ path, copy }, `Somebody else has changed "${path}" meanwhile; what was written here goes to "${copy}"`)
    return true
  }

  /** Undefined where the store could not hold one. */
  #freeName(parent: Node, name: string): string | undefined {
    const { children, removing } = stateOf(parent)
    const host = hostname()
    const at = new Date()
    for (let number = 1; ; number++) {
      const copy = conflictName(name, host, at, number)
      if (children.has(copy) || removing.has(copy)) continue
      try {
        checkPlace(this.#state, parent, copy)
        return copy
      } catch (error) {
        this.#state.log.debug({ err: error }, 'a conflict copy has no place next to the file')
        return undefined
      }
    }
  }

  async #replace(node: Node, file: OpenFile, place: Place): Promise<Resolution> {
    const { log, now, published, table } = this.#state
    const { parent, name } = place
    await stateOf(parent).removing.get(name)?.sent()
    const path = joinPath(table.pathOf(parent), name)
    const asked = now()
    const stored = await this.#stored(path)
    if (stored !== undefined && stored.kind !== 'file') return 'lost'
    if (!file.dirty) return stored === undefined ? 'lost' : this.#replaceAttributes(node, file, stored)
    if (!(await this.#isWhole(node, file)) || parent.detached !== undefined) return 'lost'
    if (node.detached !== undefined) {
      const known = table.childOf(parent, name)
      if (known?.directory !== undefined) return 'lost'
      if (known !== undefined) table.supersede(known)
      table.attach(node, parent, name)
    }
    node.version = stored?.version
    if (stored !== undefined && !file.changes.isNew) node.attributes = file.changes.over(stored.attributes ?? {})
    node.validatedAt = asked
    this.#goOn(node, file)
    published.replaced.inc()
    log.warn({ path }, `Somebody else has changed "${path}" meanwhile; what was written here replaces it`)
    return 'again'
  }

  /** What is read here is not what is stored, so the node is superseded, and only its changes go to the store. */
  async #replaceAttributes(node: Node, file: OpenFile, stored: Entry): Promise<Resolution> {
    const { store, table, signal } = this.#state
    const changes = file.changes.alone(stored.attributes ?? {})
    try {
      await store.setAttributes(stored.path, changes, { guard: ifVersion(stored.version), signal })
    } catch (error) {
      if (isOperationError(error, 'STORE_CONFLICT', 'STORE_NOT_FOUND')) return 'again'
      throw error
    }
    if (node.detached === undefined) table.supersede(node)
    return 'done'
  }

  async #stored(path: string): Promise<Entry | undefined> {
    const { store, signal } = this.#state
    try {
      return await store.stat(path, { signal })
    } catch (error) {
      if (isOperationError(error, 'STORE_NOT_FOUND', 'STORE_NOT_DIRECTORY')) return undefined
      throw error
    }
  }

  /** The version that was edited may still be there. */
  async #isWhole(node: Node, { staged }: OpenFile): Promise<boolean> {
    if (staged === undefined) return false
    if (staged.isComplete) return true
    if (node.detached !== undefined) return false
    try {
      await this.#stager.complete(node, staged)
      return true
    } catch (error) {
      if (isOperationError(error, 'FILE_STALE', 'STORE_CONFLICT', 'STORE_NOT_FOUND', 'STAGING_NO_SPACE')) return false
      throw error
    }
  }

  /** What is here has nothing to do any more with the version that it was made from. */
  #goOn(node: Node, file: OpenFile): void {
    // The bytes stay as they are, so what was acknowledged of them still is.
    for (const staged of new Set([file.staged, file.journaled?.staged])) staged?.standAlone()
    file.ahead?.abort()
    file.ahead = undefined
    file.reader = undefined
    this.#state.cached.drop(node)
    this.#state.table.touch(node)
  }
}

/** Where the node is, or was when somebody else took its name. */
function placeOf({ parent, origin, name }: Node): Place | undefined {
  const at = parent ?? origin
  return at === undefined ? undefined : { parent: at, name }
}

/**
 * The name of a copy of ours: `report (conflict HOST 2026-11-21 05.12.33).txt`, in UTC, no longer than a name may be; from the
 * second `number` on with it.
 */
export function conflictName(name: string, host: string, at: Date, number: number): string {
  const stamp = at.toISOString().slice(0, 19).replace('T', ' ').replaceAll(':', '.')
  const which = number === 1 ? '' : ` ${number}`
  const mark = ` (conflict ${clipped(host.replaceAll('/', '-'), HOST_BYTES_MAX)} ${stamp}${which})`
  const dot = name.lastIndexOf('.')
  const hasExtension = dot > 0 && Buffer.byteLength(name.slice(dot)) <= EXTENSION_BYTES_MAX
  const [stem, extension] = hasExtension ? [name.slice(0, dot), name.slice(dot)] : [name, '']
  return clipped(stem, NAME_BYTES_MAX - Buffer.byteLength(mark + extension)) + mark + extension
}

/** No more than so many bytes, and no half of a character. */
function clipped(text: string, bytesMax: number): string {
  const bytes = Buffer.from(text)
  if (bytes.length <= bytesMax) return text
  let end = bytesMax
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--
  return bytes.toString('utf8', 0, end)
}
