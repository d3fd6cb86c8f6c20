/**
 * System calls relative to an open directory: what keeps a path inside a tree while others rename and link in it.
 * Failures are `SystemCallError`s. Descriptors that are opened here are close-on-exec.
 */
import { closeSync, constants } from 'node:fs'

import { ERRNO } from '#base/errno.ts'

import { bind, checked, errno, once } from './bind.ts'
import { nameFrom } from './entry-name.ts'
import { SystemCallError } from './libc.ts'

/** Open flags that Node does not name (asm-generic/fcntl.h; those that differ on arm64 are taken from Node). */
export const O_PATH = 0o10000000
const O_CLOEXEC = 0o2000000
/** A new file without a name, in the directory that is opened; EOPNOTSUPP where the file system has no such files. */
export const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY

const SYS_OPENAT2 = 437
const RESOLVE_NO_MAGICLINKS = 0x02
const RESOLVE_NO_SYMLINKS = 0x04
const RESOLVE_BENEATH = 0x08
const AT_REMOVEDIR = 0x200
const RENAME_NOREPLACE = 1
const RENAME_EXCHANGE = 2
const AT_FDCWD = -100
const AT_SYMLINK_FOLLOW = 0x400

const calls = once(() => ({
  openat2: bind<[number, number, string, Uint8Array, number]>(
    'long syscall(long number, int dir, const char *path, const void *how, size_t size)',
  ),
  openat: bind<[number, string, number, number]>('int openat(int dir, const char *path, int flags, unsigned int mode)'),
  mkdirat: bind<[number, string, number]>('int mkdirat(int dir, const char *path, unsigned int mode)'),
  unlinkat: bind<[number, string, number]>('int unlinkat(int dir, const char *path, int flags)'),
  renameat2: bind<[number, string, number, string, number]>(
    'int renameat2(int from, const char *old, int to, const char *new, unsigned int flags)',
  ),
  linkat: bind<[number, string, number, string, number]>(
    'int linkat(int from, const char *old, int to, const char *new, int flags)',
  ),
  mknodat: bind<[number, string, number, number]>(
    'int mknodat(int dir, const char *path, unsigned int mode, unsigned long device)',
  ),
  symlinkat: bind<[string, number, string]>('int symlinkat(const char *target, int dir, const char *path)'),
  readlinkat: bind<[number, string, Uint8Array, number]>(
    'int64_t readlinkat(int dir, const char *path, void *buffer, size_t size)',
  ),
  getdents64: bind<[number, Uint8Array, number]>('int64_t getdents64(int fd, void *buffer, size_t size)'),
}))

/** Set once openat2 turned out to be missing (before Linux 5.6) or forbidden (container filters before 2021). */
let openat2Missing = false

/** `struct open_how`; read by the kernel within the call. */
const how = Buffer.alloc(24)
how.writeUInt32LE(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS, 16)

/**
 * Opens `path` under the open directory `root` without following any symlink, in the middle or at the end, and without
 * leaving the tree. A symlink in the middle is ELOOP or ENOTDIR; one at the end ELOOP unless `flags` has `O_PATH` and
 * `O_NOFOLLOW`.
 */
export function openBeneath(root: number, path: string, flags: number, mode = 0): number {
  const fd = openIfThere(root, path, flags, mode)
  if (fd === undefined) throw new SystemCallError('openat2', ERRNO.ENOENT)
  return fd
}

/** As `openBeneath`; undefined where nothing is, which many ask: an error for each would take longer than the call. */
export function openIfThere(root: number, path: string, flags: number, mode = 0): number | undefined {
  if (openat2Missing) return openByPartsIfThere(root, path, flags, mode)
  how.writeUInt32LE((flags | O_CLOEXEC) >>> 0, 0)
  how.writeUInt32LE(mode, 8)
  for (;;) {
    const fd = calls().openat2(SYS_OPENAT2, root, path, how, how.length)
    if (fd >= 0) return fd
    const number = errno()
    if (number === ERRNO.ENOENT) return undefined
    // A rename elsewhere raced with the check that the walk stayed inside: the kernel asks to be asked again.
    if (number === ERRNO.EAGAIN) continue
    if (number !== ERRNO.ENOSYS && !(number === ERRNO.EPERM && !openat2Works(root))) {
      throw new SystemCallError('openat2', number)
    }
    openat2Missing = true
    return openByPartsIfThere(root, path, flags, mode)
  }
}

function openByPartsIfThere(root: number, path: string, flags: number, mode: number): number | undefined {
  try {
    return openByParts(root, path, flags, mode)
  } catch (error) {
    if (error instanceof SystemCallError && error.code === 'ENOENT') return undefined
    throw error
  }
}

function openat2Works(root: number): boolean {
  const plain = Buffer.alloc(24)
  plain.writeUInt32LE(O_PATH | O_CLOEXEC, 0)
  const fd = calls().openat2(SYS_OPENAT2, root, '.', plain, plain.length)
  if (fd >= 0) closeSync(fd)
  return fd >= 0
}

/** As `openBeneath`, one directory after another, each opened by its name in the one before: never through a symlink. */
export function openByParts(root: number, path: string, flags: number, mode = 0): number {
  const parts = path.split('/')
  const last = parts.pop() ?? '.'
  let dir = root
  try {
    for (const part of parts) {
      const next = openAt(dir, part, O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW)
      if (dir !== root) closeSync(dir)
      dir = next
    }
    return openAt(dir, last, flags | constants.O_NOFOLLOW, mode)
  } finally {
    if (dir !== root) closeSync(dir)
  }
}

/** Opens `name` in the open directory. */
export function openAt(dir: number, name: string, flags: number, mode = 0): number {
  return checked('openat', calls().openat(dir, name, flags | O_CLOEXEC, mode))
}

export function makeDirectoryAt(dir: number, name: string, mode: number): void {
  checked('mkdirat', calls().mkdirat(dir, name, mode))
}

/** Removes a file or symlink. */
export function unlinkAt(dir: number, name: string): void {
  checked('unlinkat', calls().unlinkat(dir, name, 0))
}

/** Removes an empty directory. */
export function removeDirectoryAt(dir: number, name: string): void {
  checked('unlinkat', calls().unlinkat(dir, name, AT_REMOVEDIR))
}

/** Renames over what is there. */
export function renameAt(fromDir: number, from: string, toDir: number, to: string): void {
  checked('renameat2', calls().renameat2(fromDir, from, toDir, to, 0))
}

/**
 * Renames unless something is there (EEXIST), in one step. Where the file system does not know how (EINVAL), a link and
 * an unlink do the same for a file; a directory then fails with EINVAL.
 */
export function renameNoReplaceAt(fromDir: number, from: string, toDir: number, to: string): void {
  if (calls().renameat2(fromDir, from, toDir, to, RENAME_NOREPLACE) === 0) return
  const number = errno()
  if (number !== ERRNO.EINVAL && number !== ERRNO.ENOSYS) throw new SystemCallError('renameat2', number)
  if (calls().linkat(fromDir, from, toDir, to, 0) === -1) {
    const linked = errno()
    throw new SystemCallError('renameat2', linked === ERRNO.EPERM ? ERRNO.EINVAL : linked)
  }
  unlinkAt(fromDir, from)
}

/** Gives each of two names what the other had, in one step. EINVAL where the file system does not know how. */
export function exchangeAt(dir: number, name: string, otherDir: number, other: string): void {
  checked('renameat2', calls().renameat2(dir, name, otherDir, other, RENAME_EXCHANGE))
}

/** Makes a fifo or a socket, by the type bits in `mode`; needs no privilege, as device nodes would. */
export function makeNodeAt(dir: number, name: string, mode: number): void {
  checked('mknodat', calls().mknodat(dir, name, mode, 0))
}

/**
 * Gives the open file a name, in the file system that it lies in, unless something has it (EEXIST). A file that has lost
 * all its names cannot get one again (ENOENT); one that was made by `O_TMPFILE` can.
 */
export function linkDescriptor(fd: number, path: string): void {
  checked('linkat', calls().linkat(AT_FDCWD, `/proc/self/fd/${fd}`, AT_FDCWD, path, AT_SYMLINK_FOLLOW))
}

export function symlinkAt(target: string, dir: number, name: string): void {
  checked('symlinkat', calls().symlinkat(target, dir, name))
}

const linkBuffer = Buffer.alloc(4097)

/** The target of the symlink, as its bytes are. */
export function readLinkAt(dir: number, name: string): Buffer {
  const count = checked('readlinkat', calls().readlinkat(dir, name, linkBuffer, linkBuffer.length))
  return Buffer.from(linkBuffer.subarray(0, count))
}

/** Types of directory entries (dirent.h); `unknown` where the file system does not tell. */
export type DirentType = 'file' | 'directory' | 'symlink' | 'fifo' | 'socket' | 'unknown' | 'other'

const DOT = 46

/** By the numbers of dirent.h. */
const DIRENT_TYPES: readonly (DirentType | undefined)[] = [
  ...(['unknown', 'fifo', undefined, undefined, 'directory', undefined, undefined, undefined] as const),
  ...(['file', undefined, 'symlink', undefined, 'socket'] as const),
]

/** What is told of each entry: its name, or undefined where that is not UTF-8; its bytes are made only where asked for, in the call. */
export type EachEntry = (name: string | undefined, type: DirentType, bytes: () => Buffer) => void

/**
 * The next entries of an open directory without `.` and `..`, about 64 KiB of them (some 2,000 in under a millisecond);
 * false at the end.
 */
export function readEntries(fd: number, buffer: Buffer, each: EachEntry): boolean {
  const count = checked('getdents64', calls().getdents64(fd, buffer, buffer.length))
  let start = 0
  let end = 0
  const bytes = (): Buffer => buffer.subarray(start, end)
  // struct linux_dirent64: u64 inode, i64 offset, u16 length, u8 type, name with NUL.
  for (let at = 0; at < count; at += buffer.readUInt16LE(at + 16)) {
    start = at + 19
    end = buffer.indexOf(0, start)
    if (buffer[start] === DOT && (end === start + 1 || (end === start + 2 && buffer[start + 1] === DOT))) continue
    each(nameFrom(buffer, start, end), DIRENT_TYPES[buffer[at + 18] ?? 0] ?? 'other', bytes)
  }
  return count > 0
}
