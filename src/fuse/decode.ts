/**
 * From the kernel's bytes to requests: a pure codec, no I/O. A frame is decoded in place; nothing that is returned refers
 * to its buffer but the data of a WRITE. What is not well formed comes back as a `Refusal`, the errno to answer with:
 * no function here throws on any bytes, nor reads outside of the frame. Numbers of 64 bits become safe integers, and
 * those beyond 2^53 are refused.
 */
import { isUtf8 } from 'node:buffer'
import { constants } from 'node:fs'
import type { AttributeRequest, Handle, NodeId } from './file-system.ts'
import {
  FATTR_ATIME,
  FATTR_ATIME_NOW,
  FATTR_CTIME,
  FATTR_FH,
  FATTR_GID,
  FATTR_KILL_SUIDGID,
  FATTR_MODE,
  FATTR_MTIME,
  FATTR_MTIME_NOW,
  FATTR_SIZE,
  FATTR_UID,
  FUSE_FSYNC_FDATASYNC,
  FUSE_GETATTR_FH,
  FUSE_OPEN_KILL_SUIDGID,
  FUSE_WRITE_KILL_SUIDGID,
  IN_HEADER_BYTES,
  WRITE_IN_BYTES,
} from './protocol.ts'
import { ERRNO } from '#base/errno.ts'
import type { Timestamp } from '#base/time.ts'

/** The errno that a request which is not well formed is answered with. */
export type Refusal = number

const BODY = IN_HEADER_BYTES
const TWO_32 = 0x1_0000_0000
/** Upper halves from here on make numbers beyond 2^53. */
const UNSAFE_HIGH = 0x20_0000

/** One request as it lies in its buffer, its header decoded. The buffer is used again and again. */
export class RequestFrame {
  readonly bytes: Buffer
  readonly view: DataView
  opcode = 0
  unique = 0
  node: NodeId = 0
  uid = 0
  gid = 0
  pid = 0
  /** Where the body ends: the length of the frame less the extensions after the body. */
  end = 0

  constructor(bytes: Buffer) {
    this.bytes = bytes
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  /** Decodes the header of the `length` bytes that were read; false where it is not well formed. */
  load(length: number): boolean {
    const { view } = this
    if (length < IN_HEADER_BYTES || length > view.byteLength || view.getUint32(0, true) !== length) return false
    const unique = safeUint64(view, 8)
    const node = safeUint64(view, 16)
    const end = length - view.getUint16(36, true) * 8
    if (unique < 0 || node < 0 || end < BODY) return false
    this.opcode = view.getUint32(4, true)
    this.unique = unique
    this.node = node
    this.uid = view.getUint32(24, true)
    this.gid = view.getUint32(28, true)
    this.pid = view.getUint32(32, true)
    this.end = end
    return true
  }

  /** Whether the body has at least that many bytes. */
  has(bytes: number): boolean {
    return this.end - BODY >= bytes
  }
}

/** An unsigned number of 64 bits; -1 where it is beyond 2^53. */
function safeUint64(view: DataView, at: number): number {
  const high = view.getUint32(at + 4, true)
  return high < UNSAFE_HIGH ? high * TWO_32 + view.getUint32(at, true) : -1
}

/** A name of the body at `start` (counted from the body) up to its NUL, which must end the body where `last`. */
function decodeString(frame: RequestFrame, start: number, last: boolean): string | Refusal {
  const { bytes, end } = frame
  const from = BODY + start
  // The buffer holds older bytes after the frame, so a NUL found out there is not one of this name.
  const to = last ? end - 1 : bytes.indexOf(0, from)
  if (to <= from || to >= end || (last && bytes[to] !== 0)) return ERRNO.EINVAL
  const text = bytes.toString('utf8', from, to)
  if (text.includes('\0')) return ERRNO.EINVAL
  // A replacement character is the only sign that bytes were not UTF-8, but it may also be in the name itself.
  if (text.includes('\uFFFD') && !isUtf8(bytes.subarray(from, to))) return ERRNO.EILSEQ
  return text
}

/** The name that is the whole body: LOOKUP, UNLINK, RMDIR, REMOVEXATTR. */
export function decodeName(frame: RequestFrame): string | Refusal {
  return decodeString(frame, 0, true)
}

/** FORGET: how many references. */
export function decodeForget(frame: RequestFrame): { readonly count: number } | Refusal {
  if (!frame.has(8)) return ERRNO.EINVAL
  const count = safeUint64(frame.view, BODY)
  return count < 0 ? ERRNO.EINVAL : { count }
}

/** BATCH_FORGET: calls `forget` for each; a refusal where the count lies, before any call. */
export function decodeBatchForget(frame: RequestFrame, forget: (node: NodeId, count: number) => void): Refusal | 0 {
  if (!frame.has(8)) return ERRNO.EINVAL
  const count = frame.view.getUint32(BODY, true)
  if (!frame.has(8 + count * 16)) return ERRNO.EINVAL
  for (let index = 0; index < count; index += 1) {
    const node = safeUint64(frame.view, BODY + 8 + index * 16)
    const references = safeUint64(frame.view, BODY + 16 + index * 16)
    if (node < 0 || references < 0) return ERRNO.EINVAL
    forget(node, references)
  }
  return 0
}

/** The open file of GETATTR. */
export function decodeGetattr(frame: RequestFrame): { readonly handle: Handle | undefined } | Refusal {
  if (!frame.has(16)) return ERRNO.EINVAL
  if ((frame.view.getUint32(BODY, true) & FUSE_GETATTR_FH) === 0) return { handle: undefined }
  const handle = safeUint64(frame.view, BODY + 8)
  return handle < 0 ? ERRNO.EBADF : { handle }
}

type Writable<T> = { -readonly [K in keyof T]: T[K] }

export interface SetattrRequest {
  readonly changes: AttributeRequest
  /** The set-user-id and set-group-id bits are to go. */
  readonly killPrivileges: boolean
}

/** SETATTR; a size beyond 2^53 is EFBIG. */
export function decodeSetattr(frame: RequestFrame): SetattrRequest | Refusal {
  if (!frame.has(88)) return ERRNO.EINVAL
  const { view } = frame
  const valid = view.getUint32(BODY, true)
  const changes: Writable<AttributeRequest> = {}
  if ((valid & FATTR_FH) !== 0) {
    const handle = safeUint64(view, BODY + 8)
    if (handle < 0) return ERRNO.EBADF
    changes.handle = handle
  }
  if ((valid & FATTR_SIZE) !== 0) {
    const size = safeUint64(view, BODY + 16)
    if (size < 0) return ERRNO.EFBIG
    changes.size = size
  }
  if ((valid & FATTR_MODE) !== 0) changes.mode = view.getUint32(BODY + 68, true)
  if ((valid & FATTR_UID) !== 0) changes.uid = view.getUint32(BODY + 76, true)
  if ((valid & FATTR_GID) !== 0) changes.gid = view.getUint32(BODY + 80, true)
  if ((valid & FATTR_ATIME_NOW) !== 0) changes.atime = 'now'
  else if ((valid & FATTR_ATIME) !== 0) {
    const time = decodeTime(view, BODY + 32, BODY + 56)
    if (time === undefined) return ERRNO.EINVAL
    changes.atime = time
  }
  if ((valid & FATTR_MTIME_NOW) !== 0) changes.mtime = 'now'
  else if ((valid & FATTR_MTIME) !== 0) {
    const time = decodeTime(view, BODY + 40, BODY + 60)
    if (time === undefined) return ERRNO.EINVAL
    changes.mtime = time
  }
  if ((valid & FATTR_CTIME) !== 0) {
    const time = decodeTime(view, BODY + 48, BODY + 64)
    if (time === undefined) return ERRNO.EINVAL
    changes.ctime = time
  }
  return { changes, killPrivileges: (valid & FATTR_KILL_SUIDGID) !== 0 }
}

/** Seconds are signed: files may be older than 1970. */
function decodeTime(view: DataView, secondsAt: number, nanosecondsAt: number): Timestamp | undefined {
  const seconds = view.getInt32(secondsAt + 4, true) * TWO_32 + view.getUint32(secondsAt, true)
  const nanoseconds = view.getUint32(nanosecondsAt, true)
  return Number.isSafeInteger(seconds) && nanoseconds < 1_000_000_000 ? { seconds, nanoseconds } : undefined
}

/** SYMLINK: the name, then what it points to. */
export function decodeSymlink(frame: RequestFrame): { readonly name: string; readonly target: string } | Refusal {
  const name = decodeString(frame, 0, false)
  if (typeof name === 'number') return name
  const target = decodeString(frame, Buffer.byteLength(name) + 1, true)
  return typeof target === 'number' ? target : { name, target }
}

export interface MknodRequest {
  readonly mode: number
  readonly rdev: number
  readonly umask: number
  readonly name: string
}

/** MKNOD. */
export function decodeMknod(frame: RequestFrame): MknodRequest | Refusal {
  if (!frame.has(16)) return ERRNO.EINVAL
  const name = decodeString(frame, 16, true)
  if (typeof name === 'number') return name
  const { view } = frame
  return {
    mode: view.getUint32(BODY, true),
    rdev: view.getUint32(BODY + 4, true),
    umask: view.getUint32(BODY + 8, true),
    name,
  }
}

/** MKDIR. */
export function decodeMkdir(
  frame: RequestFrame,
): { readonly mode: number; readonly umask: number; readonly name: string } | Refusal {
  if (!frame.has(8)) return ERRNO.EINVAL
  const name = decodeString(frame, 8, true)
  if (typeof name === 'number') return name
  return { mode: frame.view.getUint32(BODY, true), umask: frame.view.getUint32(BODY + 4, true), name }
}

export interface RenameRequest {
  readonly newParent: NodeId
  readonly flags: number
  readonly name: string
  readonly newName: string
}

/** RENAME, or RENAME2 with its flags. */
export function decodeRename(frame: RequestFrame, withFlags: boolean): RenameRequest | Refusal {
  const fixed = withFlags ? 16 : 8
  if (!frame.has(fixed)) return ERRNO.EINVAL
  const newParent = safeUint64(frame.view, BODY)
  if (newParent < 0) return ERRNO.EINVAL
  const name = decodeString(frame, fixed, false)
  if (typeof name === 'number') return name
  const newName = decodeString(frame, fixed + Buffer.byteLength(name) + 1, true)
  if (typeof newName === 'number') return newName
  return { newParent, flags: withFlags ? frame.view.getUint32(BODY + 8, true) : 0, name, newName }
}

/** LINK: the node that gets the new name; the header has the parent. */
export function decodeLink(frame: RequestFrame): { readonly node: NodeId; readonly name: string } | Refusal {
  if (!frame.has(8)) return ERRNO.EINVAL
  const node = safeUint64(frame.view, BODY)
  if (node < 0) return ERRNO.EINVAL
  const name = decodeString(frame, 8, true)
  return typeof name === 'number' ? name : { node, name }
}

export interface OpenRequest {
  readonly flags: number
  readonly killPrivileges: boolean
}

/** OPEN and OPENDIR. */
export function decodeOpen(frame: RequestFrame): OpenRequest | Refusal {
  if (!frame.has(8)) return ERRNO.EINVAL
  return {
    flags: frame.view.getUint32(BODY, true),
    killPrivileges: (frame.view.getUint32(BODY + 4, true) & FUSE_OPEN_KILL_SUIDGID) !== 0,
  }
}

export interface CreateRequest {
  readonly flags: number
  readonly mode: number
  readonly umask: number
  readonly name: string
}

/** CREATE. */
export function decodeCreate(frame: RequestFrame): CreateRequest | Refusal {
  if (!frame.has(16)) return ERRNO.EINVAL
  const name = decodeString(frame, 16, true)
  if (typeof name === 'number') return name
  const { view } = frame
  return {
    flags: view.getUint32(BODY, true),
    mode: view.getUint32(BODY + 4, true),
    umask: view.getUint32(BODY + 8, true),
    name,
  }
}

export interface ReadRequest {
  readonly handle: Handle
  readonly offset: number
  readonly size: number
}

/** READ, READDIR and READDIRPLUS. */
export function decodeRead(frame: RequestFrame): ReadRequest | Refusal {
  if (!frame.has(40)) return ERRNO.EINVAL
  const { view } = frame
  const handle = safeUint64(view, BODY)
  if (handle < 0) return ERRNO.EBADF
  const offset = safeUint64(view, BODY + 8)
  if (offset < 0) return ERRNO.EINVAL
  return { handle, offset, size: view.getUint32(BODY + 16, true) }
}

export interface WriteRequest {
  readonly handle: Handle
  readonly offset: number
  /** The descriptor appends as it is now; never of pages that were written through a mapping and go out later. */
  readonly appends: boolean
  readonly killPrivileges: boolean
  /** A view of the frame's buffer. */
  readonly data: Uint8Array
}

/** WRITE; an offset beyond 2^53 is EFBIG. */
export function decodeWrite(frame: RequestFrame): WriteRequest | Refusal {
  if (!frame.has(WRITE_IN_BYTES)) return ERRNO.EINVAL
  const { view } = frame
  const handle = safeUint64(view, BODY)
  if (handle < 0) return ERRNO.EBADF
  const offset = safeUint64(view, BODY + 8)
  if (offset < 0) return ERRNO.EFBIG
  const size = view.getUint32(BODY + 16, true)
  const start = BODY + WRITE_IN_BYTES
  if (start + size !== frame.end) return ERRNO.EINVAL
  return {
    handle,
    offset,
    appends: (view.getUint32(BODY + 32, true) & constants.O_APPEND) !== 0,
    killPrivileges: (view.getUint32(BODY + 20, true) & FUSE_WRITE_KILL_SUIDGID) !== 0,
    data: frame.bytes.subarray(start, start + size),
  }
}

/** The open file at the start of FLUSH, RELEASE and RELEASEDIR. */
export function decodeHandle(frame: RequestFrame): { readonly handle: Handle } | Refusal {
  if (!frame.has(24)) return ERRNO.EINVAL
  const handle = safeUint64(frame.view, BODY)
  return handle < 0 ? ERRNO.EBADF : { handle }
}

/** FSYNC and FSYNCDIR. */
export function decodeFsync(frame: RequestFrame): { readonly handle: Handle; readonly dataOnly: boolean } | Refusal {
  if (!frame.has(16)) return ERRNO.EINVAL
  const handle = safeUint64(frame.view, BODY)
  if (handle < 0) return ERRNO.EBADF
  return { handle, dataOnly: (frame.view.getUint32(BODY + 8, true) & FUSE_FSYNC_FDATASYNC) !== 0 }
}

export interface SetxattrRequest {
  readonly name: string
  readonly flags: number
  /** A copy. */
  readonly value: Uint8Array
}

/** SETXATTR, in the short form that every kernel sends unless the long one was asked for. */
export function decodeSetxattr(frame: RequestFrame): SetxattrRequest | Refusal {
  if (!frame.has(8)) return ERRNO.EINVAL
  const name = decodeString(frame, 8, false)
  if (typeof name === 'number') return name
  const start = BODY + 8 + Buffer.byteLength(name) + 1
  const size = frame.view.getUint32(BODY, true)
  if (start + size !== frame.end) return ERRNO.EINVAL
  return {
    name,
    flags: frame.view.getUint32(BODY + 4, true),
    value: Uint8Array.from(frame.bytes.subarray(start, start + size)),
  }
}

/** GETXATTR: how many bytes the caller has room for (0: asks for the size), and the name. */
export function decodeGetxattr(frame: RequestFrame): { readonly size: number; readonly name: string } | Refusal {
  if (!frame.has(8)) return ERRNO.EINVAL
  const name = decodeString(frame, 8, true)
  return typeof name === 'number' ? name : { size: frame.view.getUint32(BODY, true), name }
}

/** LISTXATTR: how many bytes the caller has room for (0: asks for the size). */
export function decodeListxattr(frame: RequestFrame): { readonly size: number } | Refusal {
  return frame.has(8) ? { size: frame.view.getUint32(BODY, true) } : ERRNO.EINVAL
}

export interface FallocateRequest {
  readonly handle: Handle
  readonly offset: number
  readonly length: number
  readonly mode: number
}

/** FALLOCATE; a range that ends beyond 2^53 is EFBIG. */
export function decodeFallocate(frame: RequestFrame): FallocateRequest | Refusal {
  if (!frame.has(32)) return ERRNO.EINVAL
  const { view } = frame
  const handle = safeUint64(view, BODY)
  if (handle < 0) return ERRNO.EBADF
  const offset = safeUint64(view, BODY + 8)
  const length = safeUint64(view, BODY + 16)
  if (offset < 0 || length < 0 || !Number.isSafeInteger(offset + length)) return ERRNO.EFBIG
  return { handle, offset, length, mode: view.getUint32(BODY + 24, true) }
}

export interface CopyFileRangeRequest {
  readonly handle: Handle
  readonly offset: number
  readonly outNode: NodeId
  readonly outHandle: Handle
  readonly outOffset: number
  readonly length: number
}

/** COPY_FILE_RANGE in both its forms: what it reads may end beyond 2^53, what it writes not (EFBIG). No flags are defined. */
export function decodeCopyFileRange(frame: RequestFrame): CopyFileRangeRequest | Refusal {
  if (!frame.has(56)) return ERRNO.EINVAL
  const { view } = frame
  const handle = safeUint64(view, BODY)
  const outNode = safeUint64(view, BODY + 16)
  const outHandle = safeUint64(view, BODY + 24)
  if (handle < 0 || outHandle < 0) return ERRNO.EBADF
  const offset = safeUint64(view, BODY + 8)
  const outOffset = safeUint64(view, BODY + 32)
  const length = safeUint64(view, BODY + 40)
  if (outNode < 0 || view.getUint32(BODY + 48, true) !== 0 || view.getUint32(BODY + 52, true) !== 0) return ERRNO.EINVAL
  if (offset < 0 || outOffset < 0 || length < 0 || !Number.isSafeInteger(outOffset + length)) return ERRNO.EFBIG
  return { handle, offset, outNode, outHandle, outOffset, length }
}

export interface LseekRequest {
  readonly handle: Handle
  readonly offset: number
  readonly whence: number
}

/** LSEEK; an offset that no file reaches is ENXIO, as past the end of any. */
export function decodeLseek(frame: RequestFrame): LseekRequest | Refusal {
  if (!frame.has(24)) return ERRNO.EINVAL
  const { view } = frame
  const handle = safeUint64(view, BODY)
  if (handle < 0) return ERRNO.EBADF
  const offset = safeUint64(view, BODY + 8)
  if (offset < 0) return ERRNO.ENXIO
  return { handle, offset, whence: view.getUint32(BODY + 16, true) }
}

/** INTERRUPT: which request is given up. */
export function decodeInterrupt(frame: RequestFrame): { readonly unique: number } | Refusal {
  if (!frame.has(8)) return ERRNO.EINVAL
  const unique = safeUint64(frame.view, BODY)
  return unique < 0 ? ERRNO.EINVAL : { unique }
}

export interface InitRequest {
  readonly major: number
  readonly minor: number
  readonly maxReadaheadBytes: number
  readonly flags: number
  readonly flags2: number
}

/** INIT; kernels before 7.36 send no second flags. */
export function decodeInit(frame: RequestFrame): InitRequest | Refusal {
  if (!frame.has(16)) return ERRNO.EPROTO
  const { view } = frame
  return {
    major: view.getUint32(BODY, true),
    minor: view.getUint32(BODY + 4, true),
    maxReadaheadBytes: view.getUint32(BODY + 8, true),
    flags: view.getUint32(BODY + 12, true),
    flags2: frame.has(20) ? view.getUint32(BODY + 16, true) : 0,
  }
}
