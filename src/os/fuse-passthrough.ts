/**
 * Backing files of FUSE passthrough: files that the kernel reads and writes itself on behalf of a mount. Registering takes
 * Linux 6.9, CAP_SYS_ADMIN, the passthrough flag at INIT, and a file on a file system that is not itself stacked.
 */
import { libc } from './libc.ts'

const FUSE_DEV_IOC_BACKING_OPEN = 0x4010e501
const FUSE_DEV_IOC_BACKING_CLOSE = 0x4004e502

/** Names a backing file to a kernel connection: the id that an OPEN may answer with. */
export type BackingId = number

/** Registers the open file `fd`, which may be closed afterwards. @throws SystemCallError (EPERM, EOPNOTSUPP, ELOOP, EINVAL) */
export function openBacking(fuseFd: number, fd: number): BackingId {
  const map = Buffer.alloc(16)
  map.writeInt32LE(fd, 0)
  return libc().ioctl(fuseFd, FUSE_DEV_IOC_BACKING_OPEN, map)
}

/** Gives an id back; files opened with it stay as they are. @throws SystemCallError (ENOENT) */
export function closeBacking(fuseFd: number, id: BackingId): void {
  const argument = Buffer.alloc(4)
  argument.writeUInt32LE(id, 0)
  libc().ioctl(fuseFd, FUSE_DEV_IOC_BACKING_CLOSE, argument)
}
