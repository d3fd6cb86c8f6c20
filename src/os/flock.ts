/**
 * flock(2): locks of whole files among processes, given up by the kernel when their holder ends, however it ends.
 */
import { ERRNO } from '#base/errors.ts'

import { bind, checked, errno, once } from './bind.ts'
import { SystemCallError } from './libc.ts'

const LOCK_EX = 2
const LOCK_NB = 4
const LOCK_UN = 8

const calls = once(() => ({ flock: bind<[number, number]>('int flock(int fd, int operation)') }))

/** Locks the open file for this descriptor alone, without waiting; false where another has it. */
export function tryLock(fd: number): boolean {
  if (calls().flock(fd, LOCK_EX | LOCK_NB) === 0) return true
  const number = errno()
  if (number === ERRNO.EAGAIN) return false
  throw new SystemCallError('flock', number)
}

export function unlock(fd: number): void {
  checked('flock', calls().flock(fd, LOCK_UN))
}
