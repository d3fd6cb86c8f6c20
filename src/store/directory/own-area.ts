/**
 * What a directory store keeps for itself, in `.eider` at its root: lock files, and for every process that writes one
 * directory of temporary files under `.eider/tmp`. Such a directory is locked by its process for as long as that lives,
 * so that what a dead one left can be told from what a live one is writing: whoever gets the lock removes it.
 */
import { randomBytes } from 'node:crypto'
import { closeSync, constants } from 'node:fs'

import { logger } from '#base/log.ts'
import { makeDirectoryAt, openAt, readEntries, removeDirectoryAt, unlinkAt } from '#os/at.ts'
import { tryLock } from '#os/flock.ts'

import { OWN_NAME } from '#store/path.ts'

import { errnoNameOf } from './failure.ts'
import { StripedLocks } from './locks.ts'

const DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW
const TEMPORARIES_LOCK = 'temporaries'

const log = logger('store/directory')

export class OwnArea {
  readonly locks: StripedLocks
  /** The open directory of this process's temporary files. */
  readonly temporaries: number
  readonly #fds: readonly number[]
  readonly #tmp: number
  readonly #session: string
  #count = 0

  private constructor(fds: readonly number[], locks: StripedLocks, tmp: number, session: string, temporaries: number) {
    this.#fds = fds
    this.locks = locks
    this.#tmp = tmp
    this.#session = session
    this.temporaries = temporaries
  }

  /** Makes what is missing; `locking` unless the file system has no locks. */
  static async open(root: number, locking: boolean): Promise<OwnArea> {
    const fds: number[] = []
    let locks: StripedLocks | undefined
    try {
      const own = openOrMake(root, OWN_NAME)
      fds.push(own)
      const lockFiles = openOrMake(own, 'locks')
      fds.push(lockFiles)
      const tmp = openOrMake(own, 'tmp')
      fds.push(tmp)
      const held = new StripedLocks(lockFiles, locking)
      locks = held
      const session = randomBytes(8).toString('hex')
      // One at a time: a new directory must not be taken for a dead one before it is locked.
      const temporaries = await held.holdNamed([TEMPORARIES_LOCK], 'open the store', undefined, () => {
        const fd = openOrMake(tmp, session)
        fds.push(fd)
        if (locking) tryLock(fd)
        return fd
      })
      return new OwnArea(fds, held, tmp, session, temporaries)
    } catch (error) {
      locks?.close()
      for (const fd of fds) closeSync(fd)
      throw error
    }
  }

  /** A name that no other temporary file of this process has. */
  temporaryName(): string {
    this.#count++
    return this.#count.toString(36)
  }

  close(): void {
    try {
      removeDirectoryAt(this.#tmp, this.#session)
    } catch (error) {
      // A put that is still under way has a file in it; the next one to open the store removes both.
      log.debug({ err: error }, 'temporary files are left for the next start')
    }
    this.locks.close()
    for (const fd of this.#fds) closeSync(fd)
  }
}

/** Removes the temporary files of dead processes, where there are any. */
export function removeLeftovers(root: number): void {
  let own = -1
  let tmp = -1
  let lockFiles = -1
  try {
    own = openAt(root, OWN_NAME, DIRECTORY)
    tmp = openAt(own, 'tmp', DIRECTORY)
    lockFiles = openAt(own, 'locks', DIRECTORY)
    const lock = openAt(lockFiles, TEMPORARIES_LOCK, constants.O_RDONLY | constants.O_CREAT, 0o666)
    try {
      // Where another process is opening the store just now, it sweeps.
      if (tryLock(lock)) sweep(tmp)
    } finally {
      closeSync(lock)
    }
  } catch (error) {
    const name = errnoNameOf(error)
    if (name === undefined) throw error
    if (name !== 'ENOENT') log.warn({ err: error }, 'cannot remove the temporary files of dead processes')
  } finally {
    for (const fd of [own, tmp, lockFiles]) if (fd !== -1) closeSync(fd)
  }
}

function openOrMake(dir: number, name: string): number {
  try {
    return openAt(dir, name, DIRECTORY)
  } catch (error) {
    if (errnoNameOf(error) !== 'ENOENT') throw error
  }
  try {
    makeDirectoryAt(dir, name, 0o777)
  } catch (error) {
    if (errnoNameOf(error) !== 'EEXIST') throw error
  }
  return openAt(dir, name, DIRECTORY)
}

function sweep(tmp: number): void {
  for (const session of namesIn(tmp)) {
    let fd: number
    try {
      fd = openAt(tmp, session, DIRECTORY)
    } catch {
      // Not a directory: not ours. Gone: its process has ended in order.
      continue
    }
    try {
      if (!tryLock(fd)) continue
      const names = namesIn(fd)
      for (const name of names) unlinkAt(fd, name)
      removeDirectoryAt(tmp, session)
      if (names.length > 0) log.info({ files: names.length }, 'removed temporary files of a dead process')
    } catch (error) {
      log.warn({ err: error, session }, 'cannot remove the temporary files of a dead process')
    } finally {
      closeSync(fd)
    }
  }
}

function namesIn(fd: number): string[] {
  const names: string[] = []
  const buffer = Buffer.alloc(32 << 10)
  while (readEntries(fd, buffer, (name, _type, bytes) => names.push(name ?? bytes().toString()))) {
    // The callback has taken them.
  }
  return names
}
