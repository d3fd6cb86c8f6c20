/** A directory that one process has at a time: the lock is on the directory itself, which no removal of a file in it can undo. */
import { closeSync, constants, openSync } from 'node:fs'

import { OperationError } from '#base/errors.ts'
import { lockHolder, tryLock } from '#os/flock.ts'

/**
 * Takes the directory for this process until the descriptor is closed.
 * @throws JOURNAL_FAILED where another process has it; Node's error where it cannot be opened
 */
export function lockDirectory(directory: string, what: 'journal' | 'state'): number {
  const fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    if (tryLock(fd)) return fd
    const holder = lockHolder(fd)
    const who = holder === undefined ? 'another process' : `process ${holder}`
    throw new OperationError('JOURNAL_FAILED', `Cannot open the ${what} in "${directory}": ${who} uses it`, {
      hint: 'End that process, or give this one a directory of its own.',
    })
  } catch (error) {
    closeSync(fd)
    throw error
  }
}
