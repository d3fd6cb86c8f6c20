/**
 * statx(2): what the kernel knows of a file, with nanoseconds and without the BigInts of `fs.stat`, in 0.3 to 0.5 µs.
 */
import { ERRNO } from '#base/errors.ts'
import type { Timestamp } from '#base/time.ts'

import { bind, errno, once } from './bind.ts'
import { SystemCallError } from './libc.ts'

export const S_IFMT = 0o170000
export const S_IFREG = 0o100000
export const S_IFDIR = 0o040000
export const S_IFLNK = 0o120000
export const S_IFIFO = 0o010000
export const S_IFSOCK = 0o140000

export interface Status {
  /** Type and permission bits. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** Names that it has. */
  readonly links: number
  /** Device and inode as text: inode numbers of stacked file systems use all 64 bits. */
  readonly id: string
  readonly device: number
  /** Rounded past 53 bits, which only stacked file systems use: two files may then have one, a file never has two. */
  readonly inode: number
  readonly size: number
  /** Bytes of the disk that it takes; fewer than `size` where it has holes. */
  readonly allocated: number
  readonly atime: Timestamp
  readonly mtime: Timestamp
  readonly ctime: Timestamp
  /** When the inode was made; undefined where the file system does not tell. */
  readonly birth: Timestamp | undefined
}

const AT_SYMLINK_NOFOLLOW = 0x100
const AT_EMPTY_PATH = 0x1000
const STATX_BASIC_AND_BIRTH = 0xfff
const STATX_BTIME = 0x800

const calls = once(() => ({
  byName: bind<[number, string, number, number, Uint8Array]>(
    'int statx(int dir, const char *path, int flags, unsigned int mask, void *out)',
  ),
  byFd: bind<[number, Uint8Array, number, number, Uint8Array]>(
    'int statx(int dir, const void *path, int flags, unsigned int mask, void *out)',
  ),
}))

/** Overwritten by every call, which is safe because calls are synchronous and the answer is copied out. */
const out = Buffer.alloc(256)
const NO_NAME = Buffer.alloc(1)

/** The status of an open descriptor, `O_PATH` ones included. */
export function statusOf(fd: number): Status {
  if (calls().byFd(fd, NO_NAME, AT_EMPTY_PATH, STATX_BASIC_AND_BIRTH, out) === -1) {
    throw new SystemCallError('statx', errno())
  }
  return decode()
}

/** The status of `name` in the open directory, of a symlink itself; undefined where there is none. */
export function statusAt(dir: number, name: string): Status | undefined {
  if (calls().byName(dir, name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_AND_BIRTH, out) === -1) {
    const number = errno()
    if (number === ERRNO.ENOENT) return undefined
    throw new SystemCallError('statx', number)
  }
  return decode()
}

/** `struct statx` of linux/stat.h. */
function decode(): Status {
  return new DecodedStatus()
}

/** What a listing of many never asks for is made when it is asked for. */
class DecodedStatus implements Status {
  readonly mode = out.readUInt16LE(28)
  readonly uid = out.readUInt32LE(20)
  readonly gid = out.readUInt32LE(24)
  readonly links = out.readUInt32LE(16)
  readonly device = out.readUInt32LE(136) * 0x10_0000 + out.readUInt32LE(140)
  readonly inode = word(32)
  readonly size = word(40)
  readonly allocated = word(48) * 512
  readonly atime = time(64)
  readonly mtime = time(112)
  readonly ctime = time(96)
  readonly birth = (out.readUInt32LE(0) & STATX_BTIME) === 0 ? undefined : time(80)
  /** Of an inode number that takes more than 53 bits. */
  readonly #largeInode = out.readUInt32LE(36) < 0x20_0000 ? undefined : out.readBigUInt64LE(32)

  get id(): string {
    return `${this.device.toString(36)}.${(this.#largeInode ?? this.inode).toString(36)}`
  }
}

function word(offset: number): number {
  return out.readUInt32LE(offset + 4) * 0x1_0000_0000 + out.readUInt32LE(offset)
}

function time(offset: number): Timestamp {
  return {
    seconds: out.readInt32LE(offset + 4) * 0x1_0000_0000 + out.readUInt32LE(offset),
    nanoseconds: out.readUInt32LE(offset + 8),
  }
}
