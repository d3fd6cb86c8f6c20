/**
 * flock(2): locks of whole files among processes, given up by the kernel when their holder ends, however it ends.
 */
import { fstatSync, readFileSync } from 'node:fs'

import { ERRNO } from '#base/errno.ts'

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

/** The process that has the lock of the open file, where this machine tells: it may be in another container. */
export function lockHolder(fd: number): number | undefined {
  const { ino } = fstatSync(fd, { bigint: true })
  try {
    // "3: FLOCK  ADVISORY  WRITE 1234 fe:01:5678 0 EOF"; the device there is not always what stat says, so it is left out.
    for (const line of readFileSync('/proc/locks', 'latin1').split('\n')) {
      const [, kind, , , pid = '', file = ''] = line.trim().split(/\s+/)
      if (kind === 'FLOCK' && file.endsWith(`:${ino}`) && Number(pid) > 0) return Number(pid)
    }
  } catch {
    // Not told here.
  }
  return undefined
}

export function unlock(fd: number): void {
  checked('flock', calls().flock(fd, LOCK_UN))
}
