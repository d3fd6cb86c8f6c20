/**
 * From answers to the kernel's bytes: a pure codec, no I/O. Each function writes a structure into a buffer that the caller
 * has made large enough, and returns the number of bytes of the whole answer (or where the next item goes).
 */
import type {
  AttributesAnswer,
  DirectoryItem,
  EntryAnswer,
  NodeAttributes,
  NodeId,
  OpenAnswer,
  StatfsAnswer,
} from './file-system.ts'
import {
  ATTR_BYTES,
  ATTR_OUT_BYTES,
  DIRENT_BYTES,
  ENTRY_OUT_BYTES,
  FUSE_KERNEL_VERSION,
  FUSE_NOTIFY_DELETE,
  FUSE_NOTIFY_INVAL_ENTRY,
  FUSE_NOTIFY_INVAL_INODE,
  INIT_OUT_BYTES,
  OPEN_OUT_BYTES,
  OUT_HEADER_BYTES,
  STATFS_OUT_BYTES,
} from './protocol.ts'
import { assert } from '#base/assert.ts'
import type { Timestamp } from '#base/time.ts'

const TWO_32 = 0x1_0000_0000
const BODY = OUT_HEADER_BYTES
/** 68 years: more than the kernel's clock of validity can hold on some machines is cut to what all can. */
const VALID_SECONDS_MAX = 0x7fff_ffff

/** A buffer to encode into, with the two views that this needs. */
export class ReplyBuffer {
  readonly bytes: Buffer
  readonly view: DataView

  constructor(bytes: Buffer) {
    this.bytes = bytes
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }
}

/** A number of 64 bits: a safe integer, negative ones as two's complement. */
function setUint64(view: DataView, at: number, value: number): void {
  assert(Number.isSafeInteger(value), 'a number for the kernel is a safe integer')
  view.setUint32(at, value, true)
  view.setInt32(at + 4, Math.floor(value / TWO_32), true)
}

/** The header of an answer: `errno` 0 is success. */
export function encodeHeader(view: DataView, length: number, errno: number, unique: number): void {
  view.setUint32(0, length, true)
  view.setInt32(4, -errno, true)
  setUint64(view, 8, unique)
}

function encodeAttributes(view: DataView, at: number, attributes: NodeAttributes): void {
  setUint64(view, at, attributes.node)
  setUint64(view, at + 8, attributes.size)
  setUint64(view, at + 16, attributes.blocks)
  encodeTime(view, at + 24, at + 48, attributes.atime)
  encodeTime(view, at + 32, at + 52, attributes.mtime)
  encodeTime(view, at + 40, at + 56, attributes.ctime)
  view.setUint32(at + 60, attributes.mode, true)
  view.setUint32(at + 64, attributes.nlink, true)
  view.setUint32(at + 68, attributes.uid, true)
  view.setUint32(at + 72, attributes.gid, true)
  view.setUint32(at + 76, attributes.rdev, true)
  view.setUint32(at + 80, attributes.blksize, true)
  view.setUint32(at + 84, 0, true)
}

function encodeTime(view: DataView, secondsAt: number, nanosecondsAt: number, time: Timestamp): void {
  setUint64(view, secondsAt, time.seconds)
  view.setUint32(nanosecondsAt, time.nanoseconds, true)
}

function encodeValidity(view: DataView, secondsAt: number, nanosecondsAt: number, validMs: number): void {
  const seconds = Math.min(Math.floor(validMs / 1000), VALID_SECONDS_MAX)
  view.setUint32(secondsAt, seconds, true)
  view.setUint32(secondsAt + 4, 0, true)
  view.setUint32(nanosecondsAt, seconds === VALID_SECONDS_MAX ? 0 : Math.floor((validMs % 1000) * 1_000_000), true)
}

function encodeEntryAt(view: DataView, at: number, entry: EntryAnswer): void {
  setUint64(view, at, entry.attributes.node)
  setUint64(view, at + 8, entry.generation)
  encodeValidity(view, at + 16, at + 32, entry.entryValidMs)
  encodeValidity(view, at + 24, at + 36, entry.attributesValidMs)
  encodeAttributes(view, at + 40, entry.attributes)
}

function encodeOpenAt(view: DataView, at: number, open: OpenAnswer): void {
  setUint64(view, at, open.handle)
  view.setUint32(at + 8, open.openFlags, true)
  view.setUint32(at + 12, open.backing ?? 0, true)
}

/** LOOKUP, MKDIR and the others that make a name. */
export function encodeEntry(view: DataView, entry: EntryAnswer): number {
  assert(entry.attributes.node > 0, 'the node of an entry is positive')
  encodeEntryAt(view, BODY, entry)
  return BODY + ENTRY_OUT_BYTES
}

/** "There is no such name", for the kernel to remember. */
export function encodeNegativeEntry(bytes: Uint8Array, view: DataView, validMs: number): number {
  bytes.fill(0, BODY, BODY + ENTRY_OUT_BYTES)
  encodeValidity(view, BODY + 16, BODY + 32, validMs)
  return BODY + ENTRY_OUT_BYTES
}

/** GETATTR and SETATTR. */
export function encodeAttributesAnswer(view: DataView, answer: AttributesAnswer): number {
  encodeValidity(view, BODY, BODY + 8, answer.attributesValidMs)
  view.setUint32(BODY + 12, 0, true)
  encodeAttributes(view, BODY + ATTR_OUT_BYTES - ATTR_BYTES, answer.attributes)
  return BODY + ATTR_OUT_BYTES
}

/** OPEN and OPENDIR. */
export function encodeOpen(view: DataView, open: OpenAnswer): number {
  encodeOpenAt(view, BODY, open)
  return BODY + OPEN_OUT_BYTES
}

/** CREATE: the entry, then the open file. */
export function encodeCreate(view: DataView, created: EntryAnswer & OpenAnswer): number {
  encodeEntryAt(view, BODY, created)
  encodeOpenAt(view, BODY + ENTRY_OUT_BYTES, created)
  return BODY + ENTRY_OUT_BYTES + OPEN_OUT_BYTES
}

/** WRITE, the short form of COPY_FILE_RANGE, and the size that GETXATTR and LISTXATTR are asked for. */
export function encodeSize(view: DataView, size: number): number {
  view.setUint32(BODY, size, true)
  view.setUint32(BODY + 4, 0, true)
  return BODY + 8
}

/** LSEEK, and the long form of COPY_FILE_RANGE. */
export function encodeOffset(view: DataView, offset: number): number {
  setUint64(view, BODY, offset)
  return BODY + 8
}

/** STATFS. */
export function encodeStatfs(bytes: Uint8Array, view: DataView, answer: StatfsAnswer): number {
  bytes.fill(0, BODY, BODY + STATFS_OUT_BYTES)
  setUint64(view, BODY, answer.blocks)
  setUint64(view, BODY + 8, answer.blocksFree)
  setUint64(view, BODY + 16, answer.blocksAvailable)
  setUint64(view, BODY + 24, answer.files)
  setUint64(view, BODY + 32, answer.filesFree)
  view.setUint32(BODY + 40, answer.blockBytes, true)
  view.setUint32(BODY + 44, answer.nameBytesMax, true)
  view.setUint32(BODY + 48, answer.blockBytes, true)
  return BODY + STATFS_OUT_BYTES
}

/**
 * One item of READDIR or READDIRPLUS at `at`, padded to 8 bytes: where the next goes, or -1 where it does not fit
 * before `limit`. With `plus`, an item without an entry, and "." and "..", whose nodes the kernel never counts, get
 * node 0: a name only.
 */
export function encodeDirectoryItem(
  reply: ReplyBuffer,
  at: number,
  limit: number,
  item: DirectoryItem,
  plus: boolean,
): number {
  const { bytes, view } = reply
  const entry = at + (plus ? ENTRY_OUT_BYTES : 0)
  const start = entry + DIRENT_BYTES
  const { name } = item
  // Three bytes a UTF-16 unit is the most that UTF-8 takes: only near the end must the size be known beforehand.
  if (start + name.length * 3 + 7 > limit && start + align(Buffer.byteLength(name)) > limit) return -1
  const nameBytes = bytes.write(name, start, 'utf8')
  const next = start + align(nameBytes)
  bytes.fill(0, start + nameBytes, next)
  if (plus) {
    if (item.entry === undefined || name === '.' || name === '..') bytes.fill(0, at, entry)
    else encodeEntryAt(view, at, item.entry)
  }
  setUint64(view, entry, item.node)
  setUint64(view, entry + 8, item.offset)
  view.setUint32(entry + 16, nameBytes, true)
  view.setUint32(entry + 20, (item.mode >>> 12) & 0o17, true)
  return next
}

/** Calls `forget` for each node that a READDIRPLUS answer of `length` bytes gives a reference on. */
export function forEachEntry(reply: ReplyBuffer, length: number, forget: (node: NodeId) => void): void {
  let at = BODY
  while (at < length) {
    const node = reply.view.getUint32(at + 4, true) * TWO_32 + reply.view.getUint32(at, true)
    if (node !== 0) forget(node)
    const nameBytes = reply.view.getUint32(at + ENTRY_OUT_BYTES + 16, true)
    at += ENTRY_OUT_BYTES + DIRENT_BYTES + align(nameBytes)
  }
}

function align(size: number): number {
  return (size + 7) & ~7
}

export interface InitAnswer {
  readonly minor: number
  readonly maxReadaheadBytes: number
  readonly flags: number
  readonly flags2: number
  readonly maxBackground: number
  readonly maxWriteBytes: number
  readonly maxPages: number
  readonly maxStackDepth: number
}

/** INIT. */
export function encodeInit(bytes: Uint8Array, view: DataView, answer: InitAnswer): number {
  bytes.fill(0, BODY, BODY + INIT_OUT_BYTES)
  view.setUint32(BODY, FUSE_KERNEL_VERSION, true)
  view.setUint32(BODY + 4, answer.minor, true)
  view.setUint32(BODY + 8, answer.maxReadaheadBytes, true)
  view.setUint32(BODY + 12, answer.flags, true)
  view.setUint16(BODY + 16, answer.maxBackground, true)
  // Where the kernel calls the device congested: three quarters, as it does itself.
  view.setUint16(BODY + 18, Math.ceil((answer.maxBackground * 3) / 4), true)
  view.setUint32(BODY + 20, answer.maxWriteBytes, true)
  view.setUint32(BODY + 24, 1, true)
  view.setUint16(BODY + 28, answer.maxPages, true)
  view.setUint32(BODY + 32, answer.flags2, true)
  view.setUint32(BODY + 36, answer.maxStackDepth, true)
  return BODY + INIT_OUT_BYTES
}

/** A notification: no request has unique 0, and the field of the error has the code. */
function notification(code: number, bodyBytes: number): ReplyBuffer {
  const reply = new ReplyBuffer(Buffer.alloc(BODY + bodyBytes))
  reply.view.setUint32(0, BODY + bodyBytes, true)
  reply.view.setInt32(4, code, true)
  return reply
}

/** INVAL_INODE: attributes, and the bytes from `offset` for `length` (0: to the end); offset -1: attributes only. */
export function encodeInvalidateNode(node: NodeId, offset: number, length: number): Uint8Array {
  const { bytes, view } = notification(FUSE_NOTIFY_INVAL_INODE, 24)
  setUint64(view, BODY, node)
  setUint64(view, BODY + 8, offset)
  setUint64(view, BODY + 16, length)
  return bytes
}

/** INVAL_ENTRY. */
export function encodeInvalidateEntry(parent: NodeId, name: string): Uint8Array {
  const nameBytes = Buffer.byteLength(name)
  const { bytes, view } = notification(FUSE_NOTIFY_INVAL_ENTRY, 16 + nameBytes + 1)
  setUint64(view, BODY, parent)
  view.setUint32(BODY + 8, nameBytes, true)
  bytes.write(name, BODY + 16, 'utf8')
  return bytes
}

/** DELETE. */
export function encodeDeleteEntry(parent: NodeId, child: NodeId, name: string): Uint8Array {
  const nameBytes = Buffer.byteLength(name)
  const { bytes, view } = notification(FUSE_NOTIFY_DELETE, 24 + nameBytes + 1)
  setUint64(view, BODY, parent)
  setUint64(view, BODY + 8, child)
  view.setUint32(BODY + 16, nameBytes, true)
  bytes.write(name, BODY + 24, 'utf8')
  return bytes
}
