/**
 * How a directory store changes: in one step under the locks of its paths, durable before it is told. A file comes into
 * being as a temporary one, filled and synced without any lock, and is renamed into place in such a step.
 */
import { closeSync, constants, fsync } from 'node:fs'

import { OperationError } from '#base/errors.ts'
import { timestamp, type Timestamp } from '#base/time.ts'
import { makeNodeAt, openAt, O_PATH, renameAt, renameNoReplaceAt, symlinkAt, unlinkAt } from '#os/at.ts'
import { startWriteBack } from '#os/file-range.ts'
import { S_IFIFO, S_IFSOCK, statusOf } from '#os/status.ts'
import type { Attributes, Entry, Guard, PutOptions, SpecialKind } from '#store/store.ts'

import { applyAttributes } from './attributes.ts'
import { DirectorySyncs, toSync, type DirectoryToSync } from './directory-syncs.ts'
import { failure } from './failure.ts'
import { OwnArea } from './own-area.ts'
import { Slots } from './slots.ts'
import { checkGuard, checkReplaceable, findPlace, inodeEntry, lookUp, makePlace } from './tree.ts'

/** Bodies from memory and files that are being written; more at once are not faster. */
const PUTS_MAX = 256

export class Changes {
  /** Bounds the puts whose length in time is ours, not a sender's. */
  readonly slots = new Slots(PUTS_MAX)
  readonly #root: number
  readonly #locking: boolean
  readonly #syncs = new DirectorySyncs()
  #area: Promise<OwnArea> | undefined

  /** `root` stays the caller's. */
  constructor(root: number, locking: boolean) {
    this.#root = root
    this.#locking = locking
  }

  async close(): Promise<void> {
    const area = await this.#area?.catch(() => undefined)
    area?.close()
  }

  /** A change that is one step under the locks of its paths; what it adds to `syncs` is then made durable and closed. */
  change<T>(
    paths: readonly string[],
    action: string,
    signal: AbortSignal | undefined,
    step: (syncs: DirectoryToSync[]) => T,
  ): Promise<T> {
    return attempt(action, async () => {
      const syncs: DirectoryToSync[] = []
      let result: T
      try {
        result = await this.hold(paths, action, signal, () => step(syncs))
      } catch (error) {
        for (const { fd } of syncs) closeSync(fd)
        throw error
      }
      await this.sync(syncs)
      return result
    })
  }

  /** One step under the locks of its paths; making it durable is the caller's. */
  async hold<T>(paths: readonly string[], action: string, signal: AbortSignal | undefined, step: () => T): Promise<T> {
    const area = await this.#ownArea()
    return area.locks.hold(paths, action, signal, step)
  }

  /** Makes what was done in the directories durable, and closes them. */
  async sync(directories: Iterable<DirectoryToSync>): Promise<void> {
    await Promise.all(Array.from(directories, (directory) => this.#syncs.sync(directory)))
  }

  /** Fails before any byte is moved where the put would fail at its end; what counts is looked at again then. */
  checkEarly(path: string, action: string, { guard }: { guard: Guard }): void {
    if (path === '') throw new OperationError('STORE_IS_DIRECTORY', `Cannot ${action}: it is the root`)
    const found = lookUp(this.#root, path)
    checkGuard(action, found, guard)
    checkReplaceable(action, found)
  }

  /** Puts a file in place that `fill` writes. */
  async placeFile(
    path: string,
    action: string,
    options: PutOptions,
    fill: (fd: number) => Promise<unknown>,
  ): Promise<Entry> {
    const area = await this.#ownArea()
    const temporary = area.temporaryName()
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW
    const fd = openAt(area.temporaries, temporary, flags, 0o666)
    return this.#place(area, path, action, temporary, fd, options, async () => {
      await fill(fd)
      const { attributes = {} } = options
      applyAttributes(fd, { ...attributes, mtime: attributes.mtime ?? uniqueNow() }, action, true)
      // Before the fsync, so that files put at the same time share one commit of the file system's journal.
      startWriteBack(fd)
      await synced(fd)
    })
  }

  /** Puts a symlink in place. */
  placeSymlink(path: string, target: string, action: string, options: PutOptions): Promise<Entry> {
    return this.#placeMade(path, action, options, (dir, name) => symlinkAt(target, dir, name))
  }

  /** Puts a fifo or socket in place. */
  placeSpecial(path: string, kind: SpecialKind, action: string, options: PutOptions): Promise<Entry> {
    const type = kind === 'fifo' ? S_IFIFO : S_IFSOCK
    return this.#placeMade(path, action, options, (dir, name) => makeNodeAt(dir, name, type | 0o666))
  }

  /** Puts in place what is made in one call, and has no bytes to be filled with. */
  async #placeMade(
    path: string,
    action: string,
    options: PutOptions,
    make: (dir: number, name: string) => void,
  ): Promise<Entry> {
    const area = await this.#ownArea()
    const temporary = area.temporaryName()
    make(area.temporaries, temporary)
    const fd = openAt(area.temporaries, temporary, O_PATH | constants.O_NOFOLLOW)
    return this.#place(area, path, action, temporary, fd, options, async () => {
      applyAttributes(fd, options.attributes ?? {}, action, true)
    })
  }

  /** Fills the temporary file and renames it into place; closes `fd`, and removes the file where that fails. */
  async #place(
    area: OwnArea,
    path: string,
    action: string,
    temporary: string,
    fd: number,
    options: PutOptions,
    fill: () => Promise<void>,
  ): Promise<Entry> {
    try {
      await fill()
      return await this.change([path], action, options.signal, (syncs) => {
        const there = findPlace(this.#root, path)
        if (there !== undefined) syncs.push(toSync(there.dir))
        checkGuard(action, there?.found, options.guard)
        checkReplaceable(action, there?.found)
        const { dir, name } = there ?? makePlace(this.#root, path, syncs)
        if (there === undefined) syncs.push(toSync(dir))
        // Looked at, so that kernels since 6.13 give the rename a time of its own (see entry.ts).
        statusOf(fd)
        if (options.guard.kind === 'absent') renameNoReplaceAt(area.temporaries, temporary, dir, name)
        else renameAt(area.temporaries, temporary, dir, name)
        return inodeEntry(path, fd, statusOf(fd), action, keepsNothing(options.attributes))
      })
    } catch (error) {
      removeTemporary(area, temporary)
      throw error
    } finally {
      closeSync(fd)
    }
  }

  /** Opened by the first change; not under its signal, since others may be waiting for it too. */
  #ownArea(): Promise<OwnArea> {
    if (this.#area === undefined) {
      const opening = OwnArea.open(this.#root, this.#locking)
      this.#area = opening
      // A full disk now must not stop every put from now on.
      opening.catch(() => {
        if (this.#area === opening) this.#area = undefined
      })
    }
    return this.#area
  }
}

/** Runs the work of a call, whose failed system calls become errors of the store. */
export async function attempt<T>(action: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw failure(error, action)
  }
}

/** Whether a new inode that got these has nothing but what inodes have. */
function keepsNothing({ uid, gid, xattrs }: Attributes = {}): boolean {
  return uid === undefined && gid === undefined && xattrs === undefined
}

function removeTemporary(area: OwnArea, name: string): void {
  try {
    unlinkAt(area.temporaries, name)
  } catch {
    // It was renamed into place before the failure; or the disk refuses this too, and the next start removes it.
  }
}

function synced(fd: number): Promise<void> {
  return new Promise((resolve, reject) => {
    fsync(fd, (error) => (error === null ? resolve() : reject(error)))
  })
}

let timeLast = 0n

/** Now, to a nanosecond that this process gives once: files put within one tick of the kernel's clock differ by it. */
function uniqueNow(): Timestamp {
  const clock = BigInt(Date.now()) * 1_000_000n
  timeLast = clock > timeLast ? clock + (process.hrtime.bigint() % 1_000_000n) : timeLast + 1n
  return timestamp(Number(timeLast / 1_000_000_000n), Number(timeLast % 1_000_000_000n))
}
