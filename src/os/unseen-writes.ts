/**
 * Finding out that others wrote to a file that this process has open, by write(2) or through a mapping, without being in
 * their way. A write changes the time of last modification, but a store through a mapping does so only at its page's first
 * one after the page was clean: so a watcher sets the time to one of the past, has dirty pages written out, which makes
 * them clean, and any other time tells of writes since.
 */
import { statfsSync } from 'node:fs'

import { bind, once, onThread } from './bind.ts'
import { libc, SystemCallError } from './libc.ts'

const F_SETSIG = 10
const SIGURG = 23
const F_SETLEASE = 1024
const F_WRLCK = 1
const F_UNLCK = 2
/** Wait for what is being written out already, write what is dirty, and wait for that: a page is left out by neither. */
const SYNC_FILE_RANGE_ALL = 1 | 2 | 4
/** Those of which it is known that a page that was written out tells of its next store: ext4, XFS, btrfs. Not so tmpfs. */
const TELLING = new Set([0xef53, 0x58465342, 0x9123683e])

const calls = once(() => ({
  syncRange: bind<[number, number, number, number]>(
    'int sync_file_range(int fd, int64_t offset, int64_t size, unsigned int flags)',
  ),
}))

/**
 * Whether the open file of `fd`, which is open for writing, is the only one of its inode that is. Mappings count whose
 * descriptor was closed long ago. Takes being the owner of the file or CAP_LEASE.
 * @throws SystemCallError where that cannot be known
 */
export function isOnlyWriter(fd: number): boolean {
  // Whoever opens the file in just this moment has a signal sent here: by default SIGIO, which would end the process.
  libc().fcntl(fd, F_SETSIG, SIGURG)
  try {
    libc().fcntl(fd, F_SETLEASE, F_WRLCK)
  } catch (error) {
    if (error instanceof SystemCallError && error.code === 'EAGAIN') return false
    throw error
  }
  // Held, it would make every later open of the file wait for this process.
  libc().fcntl(fd, F_SETLEASE, F_UNLCK)
  return true
}

/** Whether the file system of `fd`, a file open for writing, tells of all writes in the way that is described above. */
export function tellsOfWrites(fd: number): boolean {
  if (!TELLING.has(statfsSync(`/proc/self/fd/${fd}`).type)) return false
  try {
    isOnlyWriter(fd)
    return true
  } catch (error) {
    if (error instanceof SystemCallError) return false
    throw error
  }
}

/** Has all dirty pages written out, on the thread pool; false where that failed, and some may still be dirty. */
export async function writeOut(fd: number): Promise<boolean> {
  return (await onThread((done) => calls().syncRange.async(fd, 0, 0, SYNC_FILE_RANGE_ALL, done))) === 0
}
