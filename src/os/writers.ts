/**
 * Whether somebody has a file open for writing. The kernel grants a read lease only where nobody has; it is given back at once. A
 * program that opens the file for writing in between waits for that, some microseconds.
 */
import { ERRNO } from '#base/errno.ts'
import { bind, errno, once } from './bind.ts'

const F_SETSIG = 10
const F_SETLEASE = 1024
const F_RDLCK = 0
const F_UNLCK = 2
/** The signal of a lease that is asked back; one that is ignored where nobody listens, unlike SIGIO, which ends the process. */
const SIGURG = 23

const calls = once(() => ({
  fcntl: bind<[number, number, number]>('int fcntl(int fd, int command, int argument)'),
}))

/** Undefined where it cannot be told: another's file and no privilege, or a file system without leases. `fd` is open for reading. */
export function hasWriters(fd: number): boolean | undefined {
  const { fcntl } = calls()
  if (fcntl(fd, F_SETSIG, SIGURG) === -1) return undefined
  if (fcntl(fd, F_SETLEASE, F_RDLCK) === 0) {
    fcntl(fd, F_SETLEASE, F_UNLCK)
    return false
  }
  return errno() === ERRNO.EAGAIN ? true : undefined
}
