/**
 * The numbers of the kernel's FUSE protocol, by the kernel's own names (include/uapi/linux/fuse.h, version 7.45): only
 * those that Eider reads or writes. Structures are in host byte order; Eider runs on little-endian machines.
 */

export const FUSE_KERNEL_VERSION = 7
/** The newest minor version that this code knows. */
export const FUSE_KERNEL_MINOR_VERSION = 45
/** The oldest it speaks: Linux 5.4, the first whose INIT has all that is relied on. */
export const FUSE_MINOR_VERSION_MIN = 31

export const FUSE_LOOKUP = 1
export const FUSE_FORGET = 2
export const FUSE_GETATTR = 3
export const FUSE_SETATTR = 4
export const FUSE_READLINK = 5
export const FUSE_SYMLINK = 6
export const FUSE_MKNOD = 8
export const FUSE_MKDIR = 9
export const FUSE_UNLINK = 10
export const FUSE_RMDIR = 11
export const FUSE_RENAME = 12
export const FUSE_LINK = 13
export const FUSE_OPEN = 14
export const FUSE_READ = 15
export const FUSE_WRITE = 16
export const FUSE_STATFS = 17
export const FUSE_RELEASE = 18
export const FUSE_FSYNC = 20
export const FUSE_SETXATTR = 21
export const FUSE_GETXATTR = 22
export const FUSE_LISTXATTR = 23
export const FUSE_REMOVEXATTR = 24
export const FUSE_FLUSH = 25
export const FUSE_INIT = 26
export const FUSE_OPENDIR = 27
export const FUSE_READDIR = 28
export const FUSE_RELEASEDIR = 29
export const FUSE_FSYNCDIR = 30
const FUSE_GETLK = 31
const FUSE_SETLK = 32
const FUSE_SETLKW = 33
const FUSE_ACCESS = 34
export const FUSE_CREATE = 35
export const FUSE_INTERRUPT = 36
const FUSE_BMAP = 37
export const FUSE_DESTROY = 38
export const FUSE_IOCTL = 39
const FUSE_POLL = 40
const FUSE_NOTIFY_REPLY = 41
export const FUSE_BATCH_FORGET = 42
export const FUSE_FALLOCATE = 43
export const FUSE_READDIRPLUS = 44
export const FUSE_RENAME2 = 45
export const FUSE_LSEEK = 46
export const FUSE_COPY_FILE_RANGE = 47
const FUSE_SETUPMAPPING = 48
const FUSE_REMOVEMAPPING = 49
const FUSE_SYNCFS = 50
const FUSE_TMPFILE = 51
const FUSE_STATX = 52
export const FUSE_COPY_FILE_RANGE_64 = 53

/** The names of the operations for logs and metrics, by opcode. */
export const OPERATION_NAMES: Readonly<Record<number, string>> = {
  [FUSE_LOOKUP]: 'LOOKUP',
  [FUSE_FORGET]: 'FORGET',
  [FUSE_GETATTR]: 'GETATTR',
  [FUSE_SETATTR]: 'SETATTR',
  [FUSE_READLINK]: 'READLINK',
  [FUSE_SYMLINK]: 'SYMLINK',
  [FUSE_MKNOD]: 'MKNOD',
  [FUSE_MKDIR]: 'MKDIR',
  [FUSE_UNLINK]: 'UNLINK',
  [FUSE_RMDIR]: 'RMDIR',
  [FUSE_RENAME]: 'RENAME',
  [FUSE_LINK]: 'LINK',
  [FUSE_OPEN]: 'OPEN',
  [FUSE_READ]: 'READ',
  [FUSE_WRITE]: 'WRITE',
  [FUSE_STATFS]: 'STATFS',
  [FUSE_RELEASE]: 'RELEASE',
  [FUSE_FSYNC]: 'FSYNC',
  [FUSE_SETXATTR]: 'SETXATTR',
  [FUSE_GETXATTR]: 'GETXATTR',
  [FUSE_LISTXATTR]: 'LISTXATTR',
  [FUSE_REMOVEXATTR]: 'REMOVEXATTR',
  [FUSE_FLUSH]: 'FLUSH',
  [FUSE_INIT]: 'INIT',
  [FUSE_OPENDIR]: 'OPENDIR',
  [FUSE_READDIR]: 'READDIR',
  [FUSE_RELEASEDIR]: 'RELEASEDIR',
  [FUSE_FSYNCDIR]: 'FSYNCDIR',
  [FUSE_GETLK]: 'GETLK',
  [FUSE_SETLK]: 'SETLK',
  [FUSE_SETLKW]: 'SETLKW',
  [FUSE_ACCESS]: 'ACCESS',
  [FUSE_CREATE]: 'CREATE',
  [FUSE_INTERRUPT]: 'INTERRUPT',
  [FUSE_BMAP]: 'BMAP',
  [FUSE_DESTROY]: 'DESTROY',
  [FUSE_IOCTL]: 'IOCTL',
  [FUSE_POLL]: 'POLL',
  [FUSE_NOTIFY_REPLY]: 'NOTIFY_REPLY',
  [FUSE_BATCH_FORGET]: 'BATCH_FORGET',
  [FUSE_FALLOCATE]: 'FALLOCATE',
  [FUSE_READDIRPLUS]: 'READDIRPLUS',
  [FUSE_RENAME2]: 'RENAME2',
  [FUSE_LSEEK]: 'LSEEK',
  [FUSE_COPY_FILE_RANGE]: 'COPY_FILE_RANGE',
  [FUSE_SETUPMAPPING]: 'SETUPMAPPING',
  [FUSE_REMOVEMAPPING]: 'REMOVEMAPPING',
  [FUSE_SYNCFS]: 'SYNCFS',
  [FUSE_TMPFILE]: 'TMPFILE',
  [FUSE_STATX]: 'STATX',
  [FUSE_COPY_FILE_RANGE_64]: 'COPY_FILE_RANGE_64',
}

// INIT flags: the first 32 in `flags`, the others shifted down by 32 in `flags2`.
export const FUSE_ASYNC_READ = 1 << 0
export const FUSE_ATOMIC_O_TRUNC = 1 << 3
export const FUSE_BIG_WRITES = 1 << 5
export const FUSE_AUTO_INVAL_DATA = 1 << 12
export const FUSE_DO_READDIRPLUS = 1 << 13
export const FUSE_READDIRPLUS_AUTO = 1 << 14
export const FUSE_PARALLEL_DIROPS = 1 << 18
export const FUSE_ABORT_ERROR = 1 << 21
export const FUSE_MAX_PAGES = 1 << 22
export const FUSE_CACHE_SYMLINKS = 1 << 23
export const FUSE_HANDLE_KILLPRIV_V2 = 1 << 28
export const FUSE_INIT_EXT = 1 << 30
export const FUSE_FLAGS2_PASSTHROUGH = 1 << (37 - 32)
export const FUSE_FLAGS2_OVER_IO_URING = 1 << (41 - 32)

// SETATTR: which fields are valid.
export const FATTR_MODE = 1 << 0
export const FATTR_UID = 1 << 1
export const FATTR_GID = 1 << 2
export const FATTR_SIZE = 1 << 3
export const FATTR_ATIME = 1 << 4
export const FATTR_MTIME = 1 << 5
export const FATTR_FH = 1 << 6
export const FATTR_ATIME_NOW = 1 << 7
export const FATTR_MTIME_NOW = 1 << 8
export const FATTR_CTIME = 1 << 10
export const FATTR_KILL_SUIDGID = 1 << 11

// What OPEN, OPENDIR and CREATE answer.
/** Reads and writes go past the page cache. */
export const FOPEN_DIRECT_IO = 1 << 0
/** What the page cache holds of the file stays valid. */
export const FOPEN_KEEP_CACHE = 1 << 1
/** Reads, writes and mappings go to the backing file that the answer names. With FOPEN_KEEP_CACHE the open fails. */
export const FOPEN_PASSTHROUGH = 1 << 7

export const FUSE_GETATTR_FH = 1 << 0
export const FUSE_OPEN_KILL_SUIDGID = 1 << 0
export const FUSE_WRITE_KILL_SUIDGID = 1 << 2
export const FUSE_FSYNC_FDATASYNC = 1 << 0

export const FUSE_NOTIFY_INVAL_INODE = 2
export const FUSE_NOTIFY_INVAL_ENTRY = 3
export const FUSE_NOTIFY_DELETE = 6

// Sizes of structures in bytes.
export const IN_HEADER_BYTES = 40
export const OUT_HEADER_BYTES = 16
export const WRITE_IN_BYTES = 40
export const ATTR_BYTES = 88
export const ATTR_OUT_BYTES = 16 + ATTR_BYTES
export const ENTRY_OUT_BYTES = 40 + ATTR_BYTES
export const OPEN_OUT_BYTES = 16
export const DIRENT_BYTES = 24
export const STATFS_OUT_BYTES = 80
export const INIT_OUT_BYTES = 64
