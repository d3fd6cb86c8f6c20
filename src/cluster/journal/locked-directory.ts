/** A directory that one process has at a time: the lock is on the directory itself, which no removal of a file in it can undo. */
import { closeSync, constants, fsyncSync, openSync } from 'node:fs'
import { dirname } from 'node:path'

import { OperationError } from '#base/errors.ts'
import { lockHolder, tryLock } from '#os/flock.ts'
import { makeDirectories } from '#os/make-directories.ts'

/**
 * Takes the directory for this process until the descriptor is closed; it is made where it is not there, its name durable.
 * @throws JOURNAL_FAILED where another process has it; Node's error where it cannot be used
 */
export function lockedDirectory(path: string, what: 'journal' | 'state'): number {
  makeDirectories(path, 0o700)
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    if (!tryLock(fd)) throw inUse(path, what, lockHolder(fd))
    // Those above it may have been made just now, too: a file whose name is lost at a crash is lost.
    for (const above of [dirname(path), dirname(dirname(path))]) syncDirectory(above)
    return fd
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

function inUse(path: string, what: string, holder: number | undefined): OperationError {
  const who = holder === undefined ? 'another process' : `process ${holder}`
  return new OperationError('JOURNAL_FAILED', `Cannot open the ${what} in "${path}": ${who} uses it`, {
    hint: 'End that process, or give this one a directory of its own.',
  })
}

function syncDirectory(path: string): void {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}
