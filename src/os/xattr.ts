/**
 * Extended attributes by path, which is `inodePath(fd)` where there is a descriptor (those of `O_PATH` have no calls of
 * their own), or a name under an open directory: `/proc/self/fd/DIR/NAME`. Symlinks are not followed at the end.
 */
import { ERRNO } from '#base/errno.ts'

import { bind, checked, errno, once } from './bind.ts'
import { SystemCallError } from './libc.ts'

const calls = once(() => ({
  list: bind<[string, Uint8Array, number]>('int64_t listxattr(const char *path, void *list, size_t size)'),
  listLink: bind<[string, Uint8Array, number]>('int64_t llistxattr(const char *path, void *list, size_t size)'),
  listFd: bind<[number, Uint8Array, number]>('int64_t flistxattr(int fd, void *list, size_t size)'),
  get: bind<[string, string, Uint8Array, number]>(
    'int64_t getxattr(const char *path, const char *name, void *value, size_t size)',
  ),
  getLink: bind<[string, string, Uint8Array, number]>(
    'int64_t lgetxattr(const char *path, const char *name, void *value, size_t size)',
  ),
  set: bind<[string, string, Uint8Array, number, number]>(
    'int setxattr(const char *path, const char *name, const void *value, size_t size, int flags)',
  ),
  remove: bind<[string, string]>('int removexattr(const char *path, const char *name)'),
}))

/** What Linux allows at most for the names of a file together, and for one value. */
const BYTES_MAX = 65_536
const buffer = Buffer.alloc(BYTES_MAX)

/** The names of the attributes; none where the file system has no such thing. */
function namesFrom(count: number): string[] {
  if (count === 0) return []
  if (count === -1) {
    const number = errno()
    if (number === ERRNO.EOPNOTSUPP) return []
    throw new SystemCallError('listxattr', number)
  }
  return buffer.toString('utf8', 0, count - 1).split('\0')
}

/** The names of the attributes of what an ordinary descriptor has open. */
export function xattrNamesOf(fd: number): string[] {
  return namesFrom(calls().listFd(fd, buffer, BYTES_MAX))
}

/** The names of the attributes of the inode at `path`; with `link`, of a symlink itself. */
export function xattrNames(path: string, link = false): string[] {
  return namesFrom(link ? calls().listLink(path, buffer, BYTES_MAX) : calls().list(path, buffer, BYTES_MAX))
}

/** The value of an attribute; undefined where there is none of that name. */
export function xattrGet(path: string, name: string, link = false): Buffer | undefined {
  const call = link ? calls().getLink : calls().get
  const count = call(path, name, buffer, BYTES_MAX)
  if (count === -1) {
    const number = errno()
    if (number === ERRNO.ENODATA) return undefined
    throw new SystemCallError('getxattr', number)
  }
  return Buffer.from(buffer.subarray(0, count))
}

export function xattrSet(path: string, name: string, value: Uint8Array): void {
  // A view of no bytes has no address, which the call does not take.
  const bytes = value.length === 0 ? buffer : value
  checked('setxattr', calls().set(path, name, bytes, value.length, 0))
}

export function xattrRemove(path: string, name: string): void {
  if (calls().remove(path, name) === 0) return
  const number = errno()
  if (number !== ERRNO.ENODATA) throw new SystemCallError('removexattr', number)
}

/** Whether the file system of an open descriptor keeps `user.` attributes. */
export function xattrsWork(path: string): boolean {
  try {
    xattrGet(path, 'user.eider.probe')
    return true
  } catch (error) {
    if (error instanceof SystemCallError && error.errno === ERRNO.EOPNOTSUPP) return false
    throw error
  }
}
