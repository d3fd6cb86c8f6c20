/**
 * A rename of the source as a rename of the target: no byte is sent again. Done only where the target has what was at the old
 * name, nothing is there any more, and what is at the new one is the same file; a directory's content is compared afterwards in any
 * case. Else nothing is done, and both names are made equal like any other path.
 */
import { compareTimestamps, timestampNow } from '#base/time.ts'
import { Slice } from '#store/directory/listing.ts'
import { isWithin } from '#store/path.ts'

import type { Actor } from './actor.ts'
import { entriesUnder } from './actor-listing.ts'
import { isRacy, TICK_NS } from './equality.ts'
import type { SyncSource } from './source.ts'
import { NO_SIZE, type SyncState } from './state.ts'
import { entryOfKnown, type Known } from './state-record.ts'
import type { TreeEntry } from './tree.ts'
import type { MoveWork } from './work-queue.ts'

export interface MoverOptions {
  readonly deletes: boolean
  readonly backupDirectory: string | undefined
}

export class Mover {
  readonly #source: SyncSource
  readonly #actor: Actor
  readonly #state: SyncState

  readonly #options: MoverOptions

  constructor(source: SyncSource, actor: Actor, state: SyncState, options: MoverOptions) {
    this.#source = source
    this.#actor = actor
    this.#state = state
    this.#options = options
  }

  /** Whether the target has been renamed. @throws what the target throws */
  async move({ from, to, isDirectory }: MoveWork, signal: AbortSignal): Promise<boolean> {
    if (this.#actor.rename === undefined || !(await this.#mayReplace(to, signal))) return false
    const now = await this.#source.look(to, { signal })
    const before = await this.#source.look(from, { signal })
    if (now.is !== 'entry' || before.is === 'entry') return false
    const isDone = await (isDirectory
      ? this.#moveDirectory(from, to, now.entry, signal)
      : this.#moveFile(from, to, now.entry, signal))
    const { directories, flat } = this.#actor.keeps ?? {}
    if (isDone && directories === true) this.#state.rememberAbove(to, timestampNow(), flat === true ? NO_SIZE : 0)
    return isDone
  }

  /** A rename takes the old name away, and what has the new one: not where nothing may be deleted, or it has to be kept. */
  async #mayReplace(to: string, signal: AbortSignal): Promise<boolean> {
    const { deletes, backupDirectory } = this.#options
    if (!deletes || backupDirectory === undefined) return deletes
    return this.#state.countAt(to) === 0 && (await this.#actor.stat?.(to, { signal })) === undefined
  }

  async #moveFile(from: string, to: string, entry: TreeEntry, signal: AbortSignal): Promise<boolean> {
    const known = this.#state.known(from)
    if (known === undefined || !isSameFile(known, entry)) return false
    const versions = new Map<string, string>()
    this.#state.doubt(to)
    await this.#actor.rename?.(entryOfKnown(from, known), to, {
      signal,
      onVersionChanged: (path, _before, after) => versions.set(path, after),
    })
    this.#state.forget(from)
    this.#state.remember(to, withVersion({ ...known, ...this.#renamed(known, entry) }, versions.get(to)))
    return true
  }

  /**
   * The rename set its ctime, which tells no more of a write before it with the mtime put back. The hash of a small file does, so
   * its old ctime is left to ask for that; a large one without a hash would be sent again after each rename.
   */
  #renamed(known: Known, { identity }: TreeEntry): Pick<Known, 'identity' | 'lookedAt'> {
    const wasDoubtful = known.identity !== undefined && isRacy(known.identity.ctime, known.lookedAt, TICK_NS)
    if (wasDoubtful || identity === undefined || known.hash !== undefined) {
      return { identity: known.identity, lookedAt: known.lookedAt }
    }
    return { identity, lookedAt: { ...identity.ctime, seconds: identity.ctime.seconds + 1 } }
  }

  /** Whether something that takes no part lies in the target's directory: that stays where it is. */
  async #holdsOther(directory: string, signal: AbortSignal): Promise<boolean> {
    const { backupDirectory } = this.#options
    if (backupDirectory !== undefined && isWithin(backupDirectory, directory)) return true
    if (!this.#source.isFiltered) return false
    const found = await entriesUnder(this.#actor, directory, { signal })
    return found.some(({ path, kind }) => !this.#source.admits(path, kind === 'directory'))
  }

  async #moveDirectory(from: string, to: string, entry: TreeEntry, signal: AbortSignal): Promise<boolean> {
    if (entry.kind !== 'directory') return false
    let isKnown = false
    for await (const page of this.#state.listing(from, new Slice())) {
      isKnown = true
      // One that takes no part under its new name would be left behind there.
      if (page.some(({ path, kind }) => !this.#source.admits(to + path.slice(from.length), kind === 'directory')))
        return false
    }
    if (!isKnown || (await this.#holdsOther(from, signal))) return false
    const versions = new Map<string, string>()
    const directory: TreeEntry = { path: from, kind: 'directory', size: 0, mtime: undefined }
    try {
      await this.#actor.rename?.(directory, to, {
        signal,
        onVersionChanged: (path, _before, after) => versions.set(path, after),
      })
    } catch (error) {
      // Where a rename is done file by file, some may be there by now.
      await this.#state.doubtAll(from, to)
      throw error
    }
    await this.#state.moveKnown(from, to, (key, known) => withVersion(known, versions.get(key)))
    return true
  }
}

function isSameFile(known: Known, entry: TreeEntry): boolean {
  const { identity } = known
  if (identity === undefined || entry.identity === undefined || entry.mtime === undefined) return false
  return (
    known.kind === entry.kind &&
    known.size === entry.size &&
    identity.inode === entry.identity.inode &&
    identity.device === entry.identity.device &&
    compareTimestamps(known.mtime, entry.mtime) === 0
  )
}

function withVersion(known: Known, version: string | undefined): Known {
  return version === undefined ? known : { ...known, targetVersion: version as NonNullable<Known['targetVersion']> }
}
