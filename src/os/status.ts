/**
 * statx(2): what the kernel knows of a file, with nanoseconds and without the BigInts of `fs.stat`. The call itself takes a
 * microsecond of a file that is in the kernel's memory, and what is made of its answer should cost little beside that.
 */
import { ERRNO } from '#base/errno.ts'
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
const out = new Uint32Array(64)
const outBytes = new Uint8Array(out.buffer)
const NO_NAME = Buffer.alloc(1)

/** The status of an open descriptor, `O_PATH` ones included. */
export function statusOf(fd: number): Status {
  if (calls().byFd(fd, NO_NAME, AT_EMPTY_PATH, STATX_BASIC_AND_BIRTH, outBytes) === -1) {
    throw new SystemCallError('statx', errno())
  }
  return new DecodedStatus()
}

/** The status of `name` in the open directory, of a symlink itself; undefined where there is none. */
export function statusAt(dir: number, name: string): Status | undefined {
  return glanceAt(dir, name) === undefined ? undefined : new DecodedStatus()
}

/**
 * As `statusAt`, for listings of many: the answer is the same object each time, and tells of this file only until the next
 * call of this module. What is not asked of it costs nothing.
 */
export function glanceAt(dir: number, name: string): Status | undefined {
  if (calls().byName(dir, name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_AND_BIRTH, outBytes) !== -1) return GLANCE
  const number = errno()
  if (number === ERRNO.ENOENT) return undefined
  throw new SystemCallError('statx', number)
}

/** Indexes of 32-bit words in `struct statx` of linux/stat.h. */
const MASK = 0
const LINKS = 4
const UID = 5
const GID = 6
const MODE = 7
const INODE = 8
const SIZE = 10
const BLOCKS = 12
const ATIME = 16
const BTIME = 20
const CTIME = 24
const MTIME = 28
const DEVICE_MAJOR = 34
const DEVICE_MINOR = 35

/** Reads what the last call answered. */
class Glance implements Status {
  get mode(): number {
    return word(MODE) & 0xffff
  }
  get uid(): number {
    return word(UID)
  }
  get gid(): number {
    return word(GID)
  }
  get links(): number {
    return word(LINKS)
  }
  get id(): string {
    return idOf(this.device, inode())
  }
  get device(): number {
    return word(DEVICE_MAJOR) * 0x10_0000 + word(DEVICE_MINOR)
  }
  get inode(): number {
    return Number(inode())
  }
  get size(): number {
    return double(SIZE)
  }
  get allocated(): number {
    return double(BLOCKS) * 512
  }
  get atime(): Timestamp {
    return time(ATIME)
  }
  get mtime(): Timestamp {
    return time(MTIME)
  }
  get ctime(): Timestamp {
    return time(CTIME)
  }
  get birth(): Timestamp | undefined {
    return (word(MASK) & STATX_BTIME) === 0 ? undefined : time(BTIME)
  }
}

const GLANCE = new Glance()

class DecodedStatus implements Status {
  readonly mode = GLANCE.mode
  readonly uid = GLANCE.uid
  readonly gid = GLANCE.gid
  readonly links = GLANCE.links
  readonly device = GLANCE.device
  readonly size = GLANCE.size
  readonly allocated = GLANCE.allocated
  readonly atime = GLANCE.atime
  readonly mtime = GLANCE.mtime
  readonly ctime = GLANCE.ctime
  readonly birth = GLANCE.birth
  readonly #inode = inode()
  readonly inode = Number(this.#inode)

  /** Made when it is asked for: a text for each of many would cost as much as the look. */
  get id(): string {
    return idOf(this.device, this.#inode)
  }
}

/** A number wherever that holds it. */
function inode(): number | bigint {
  const high = word(INODE + 1)
  if (high < 0x20_0000) return high * 0x1_0000_0000 + word(INODE)
  return (BigInt(high) << 32n) | BigInt(word(INODE))
}

function idOf(device: number, inodeNumber: number | bigint): string {
  return `${device.toString(36)}.${inodeNumber.toString(36)}`
}

function word(index: number): number {
  return out[index] ?? 0
}

function double(index: number): number {
  return word(index + 1) * 0x1_0000_0000 + word(index)
}

/** `struct statx_timestamp`: i64 seconds, u32 nanoseconds. */
function time(index: number): Timestamp {
  return { seconds: (word(index + 1) | 0) * 0x1_0000_0000 + word(index), nanoseconds: word(index + 2) }
}
