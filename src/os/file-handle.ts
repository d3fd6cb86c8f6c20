/**
 * File handles: what names a directory for as long as it lives, whatever its path, within one file system. They are the
 * names that fanotify gives, and can be opened again by who has CAP_DAC_READ_SEARCH.
 */
import { ERRNO } from '#base/errno.ts'
import { bind, checked, errno, once } from './bind.ts'
import { SystemCallError } from './libc.ts'

const AT_EMPTY_PATH = 0x1000
const O_CLOEXEC = 0o2000000
/** MAX_HANDLE_SZ of the kernel. */
const HANDLE_BYTES_MAX = 128
/** Before the bytes of a handle: their count and the type, each 32 bits. */
const HEAD_BYTES = 8
const FSID_BYTES = 8
const TRIES_MAX = 1_000

const calls = once(() => ({
  nameToHandle: bind<[number, string, Uint8Array, Uint8Array, number]>(
    'int name_to_handle_at(int dir, const char *path, void *handle, void *mount, int flags)',
  ),
  openByHandle: bind<[number, Uint8Array, number]>('int open_by_handle_at(int mount, void *handle, int flags)'),
  statfs: bind<[number, Uint8Array]>('int fstatfs64(int fd, void *out)'),
}))

/** Names a directory among all: the identity of its file system, then its handle, each byte a character. */
export type HandleKey = string

const handle = Buffer.alloc(FSID_BYTES + HEAD_BYTES + HANDLE_BYTES_MAX)
const handleBody = handle.subarray(FSID_BYTES)
const mountId = Buffer.alloc(4)
const status = Buffer.alloc(256)

/** Of the file system of an open descriptor, as events of fanotify begin: `f_fsid` of `struct statfs`. */
export function fileSystemId(fd: number): Buffer {
  checked('fstatfs', calls().statfs(fd, status))
  return Buffer.from(status.subarray(56, 56 + FSID_BYTES))
}

/** The key of what `fd` has open and the mount that it was opened in. @throws SystemCallError (EOPNOTSUPP and others) */
export function handleOf(fd: number, fsid: Buffer): { key: HandleKey; mount: number } {
  fsid.copy(handle)
  handleBody.writeUInt32LE(HANDLE_BYTES_MAX, 0)
  checked('name_to_handle_at', calls().nameToHandle(fd, '', handleBody, mountId, AT_EMPTY_PATH))
  const length = FSID_BYTES + HEAD_BYTES + handleBody.readUInt32LE(0)
  return { key: handle.toString('latin1', 0, length), mount: mountId.readInt32LE(0) }
}

/** Opens what a key names, by any descriptor of its file system; undefined where it is no more. */
export function openHandle(mount: number, key: HandleKey, flags: number): number | undefined {
  const bytes = Buffer.from(key, 'latin1').subarray(FSID_BYTES)
  for (let tries = 1; ; tries++) {
    const fd = calls().openByHandle(mount, bytes, flags | O_CLOEXEC)
    if (fd !== -1) return fd
    const number = errno()
    if (number === ERRNO.ESTALE || number === ERRNO.ENOENT) return undefined
    // What ext4 says while the inode's number is given to a new one in just this moment: so this handle is of the past, too.
    if (number !== ERRNO.ENOMEM || tries === TRIES_MAX) throw new SystemCallError('open_by_handle_at', number)
  }
}

/** The key of the handle that lies at `at` in a record of fanotify, behind the identity of its file system. */
export function handleKeyAt(bytes: Buffer, at: number): HandleKey {
  return bytes.toString('latin1', at, handleEnd(bytes, at))
}

/** Where that handle ends. */
export function handleEnd(bytes: Buffer, at: number): number {
  return at + FSID_BYTES + HEAD_BYTES + bytes.readUInt32LE(at + FSID_BYTES)
}
