/**
 * Locks that make "look, then change" one step among all users of Eider on one directory. What happens under a lock is
 * one synchronous stretch of code, so within a process nothing can come between; among processes a `flock` on one of 32
 * files, chosen by the path, does the same. Other programs know nothing of these locks.
 */
import { closeSync, constants } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

import { OperationError } from '#base/errors.ts'
import { openAt } from '#os/at.ts'
import { tryLock, unlock } from '#os/flock.ts'
import { checkAborted } from '#store/abort.ts'

const STRIPES = 32
/** Holders need some 100 µs; a lock that is not to be had for so long is held by a process that was stopped. */
const WAIT_MS_MAX = 10_000

export class StripedLocks {
  readonly #dir: number
  readonly #locking: boolean
  readonly #fds = new Map<string, number>()

  /** `dir` is the open directory of the lock files; it stays the caller's. Without `locking` only this process is held. */
  constructor(dir: number, locking: boolean) {
    this.#dir = dir
    this.#locking = locking
  }

  /** Runs `change` while no other user of Eider changes any of the paths. */
  hold<T>(paths: readonly string[], action: string, signal: AbortSignal | undefined, change: () => T): Promise<T> {
    // Always in the same order, so that two holders of two locks cannot wait for each other.
    return this.holdNamed([...new Set(paths.map(stripeOf))].toSorted(), action, signal, change)
  }

  /** As `hold`, by the names of lock files. */
  async holdNamed<T>(
    names: readonly string[],
    action: string,
    signal: AbortSignal | undefined,
    change: () => T,
  ): Promise<T> {
    const start = performance.now()
    for (let attempt = 0; ; attempt++) {
      checkAborted(action, signal)
      const taken: number[] = []
      try {
        if (names.every((name) => this.#take(name, taken))) return change()
      } finally {
        for (const fd of taken) unlock(fd)
      }
      if (performance.now() - start > WAIT_MS_MAX) {
        throw new OperationError('STORE_TIMEOUT', `Cannot ${action}: another process holds the lock of the path`)
      }
      await sleep(Math.min(0.2 * 2 ** attempt, 5) * (0.5 + Math.random()))
    }
  }

  close(): void {
    for (const fd of this.#fds.values()) closeSync(fd)
    this.#fds.clear()
  }

  #take(name: string, taken: number[]): boolean {
    if (!this.#locking) return true
    let fd = this.#fds.get(name)
    if (fd === undefined) {
      // Opened for reading only, which is enough to lock and lets users of several accounts share a directory.
      fd = openAt(this.#dir, name, constants.O_RDONLY | constants.O_CREAT | constants.O_NOFOLLOW, 0o666)
      this.#fds.set(name, fd)
    }
    if (!tryLock(fd)) return false
    taken.push(fd)
    return true
  }
}

/** FNV-1a of the path, spread over the stripes. */
function stripeOf(path: string): string {
  let hash = 0x811c9dc5
  for (let index = 0; index < path.length; index++) {
    hash = Math.imul(hash ^ path.charCodeAt(index), 0x01000193)
  }
  return String((hash >>> 0) % STRIPES).padStart(2, '0')
}
