/**
 * Changing the attributes of one inode through any descriptor of it, `O_PATH` ones included, by its name under
 * `/proc/self/fd`: so nothing can be exchanged between looking and changing, files that may not be opened can be
 * changed all the same, and a symlink is changed itself. Times keep their nanoseconds, which Node's calls lose.
 */
import type { Timestamp } from '#base/time.ts'

import { bind, checked, once } from './bind.ts'

const AT_FDCWD = -100
const AT_EMPTY_PATH = 0x1000
const UTIME_OMIT = 0x3fff_fffe

const calls = once(() => ({
  chmod: bind<[string, number]>('int chmod(const char *path, unsigned int mode)'),
  fchownat: bind<[number, string, number, number, number]>(
    'int fchownat(int dir, const char *path, unsigned int uid, unsigned int gid, int flags)',
  ),
  utimensat: bind<[number, string, Uint8Array, number]>(
    'int utimensat(int dir, const char *path, const void *times, int flags)',
  ),
}))

/** The name of the inode behind a descriptor. */
export function inodePath(fd: number): string {
  return `/proc/self/fd/${fd}`
}

/** Sets the permission bits; a symlink has none and fails with EOPNOTSUPP. */
export function changeMode(fd: number, mode: number): void {
  checked('chmod', calls().chmod(inodePath(fd), mode))
}

/** Sets owner and group; undefined leaves one as it is. */
export function changeOwner(fd: number, uid: number | undefined, gid: number | undefined): void {
  checked('fchownat', calls().fchownat(fd, '', uid ?? 0xffff_ffff, gid ?? 0xffff_ffff, AT_EMPTY_PATH))
}

const times = Buffer.alloc(32)

/** Sets access and modification time; undefined leaves one as it is. */
export function changeTimes(fd: number, atime: Timestamp | undefined, mtime: Timestamp | undefined): void {
  encode(0, atime)
  encode(16, mtime)
  checked('utimensat', calls().utimensat(AT_FDCWD, inodePath(fd), times, 0))
}

/** `struct timespec`: two 64-bit words. */
function encode(offset: number, time: Timestamp | undefined): void {
  times.writeBigInt64LE(BigInt(time?.seconds ?? 0), offset)
  times.writeUInt32LE(time?.nanoseconds ?? UTIME_OMIT, offset + 8)
  times.writeUInt32LE(0, offset + 12)
}
