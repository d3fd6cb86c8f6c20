/**
 * How the state of a shard process is laid out: the keys of each kind of record, and their values. `docs/formats/shard.md` has the same as a
 * table. One state has all the virtual shards of the process: an inode's shard is part of its id, so each has a range of its own.
 */
import type { BlockId } from '#cluster/block/block-id.ts'
import type { DiskId } from '#cluster/block/permit.ts'
import { inodeType, type InodeId, type InodeType } from '#cluster/inode-id.ts'
import {
  numberKey,
  NUMBER_BYTES,
  numberOfKey,
  readNumber,
  textKey,
  textOfKey,
  writeNumber,
} from '#cluster/journal/keys.ts'
import type { Key, StateBatch, StateReader } from '#cluster/journal/state.ts'
import { writeSafeInteger } from '#cluster/safe-integer.ts'
import {
  blob,
  choice,
  decode,
  encode,
  optional,
  struct,
  text,
  u16,
  u32,
  u53,
  u8,
  type ValueOf,
} from '#cluster/wire/codec.ts'
import {
  blocksBody,
  diskKey,
  INLINE_BYTES_MAX,
  type Edge,
  inodeOrNone,
  NO_INODE,
  NOTE_BYTES_MAX,
  policy,
  stampUs,
  timeUs,
} from '#cluster/wire/forms.ts'

/** What every inode has. */
const attributes = { mode: u16, uid: u32, gid: u32, mtime: timeUs, atime: timeUs, ctime: stampUs }

/** `f`, inode: a linked file or symlink. One that was created with all of its bytes has its only span here; its `s` records are those of others. */
export const fileRecord = struct({
  ...attributes,
  size: u53,
  inline: optional(struct({ crc: u32, bytes: blob(INLINE_BYTES_MAX) })),
})
export type FileRecord = ValueOf<typeof fileRecord>

/** `t`, inode: a file or symlink that nothing owns: not linked yet, or given up. */
export const transientRecord = struct({
  ...attributes,
  size: u53,
  deadline: stampUs,
  /** `dirty`: its blocks may not be written. `condemned`: they may be erased. */
  lastSpan: choice('clean', 'dirty', 'condemned'),
  note: text(NOTE_BYTES_MAX),
})
export type TransientRecord = ValueOf<typeof transientRecord>

/** `d`, inode: a directory; without owner one that was removed, but the root. */
export const directoryRecord = struct({ ...attributes, owner: inodeOrNone, policy: optional(policy) })
export type DirectoryRecord = ValueOf<typeof directoryRecord>

/** `s`, file, offset: a span. Without a body it is zeros. */
export const spanRecord = struct({
  size: u53,
  crc: u32,
  inline: optional(blob(INLINE_BYTES_MAX)),
  blocks: optional(blocksBody),
})
export type SpanRecord = ValueOf<typeof spanRecord>

/** The span that lies in the record of its file, if one does. */
export function ownSpan({ size, inline }: FileRecord): SpanRecord | undefined {
  if (inline === undefined) return undefined
  return { size, crc: inline.crc, inline: inline.bytes.length === 0 ? undefined : inline.bytes, blocks: undefined }
}

/** `k`, disk: what the registry said of it, as far as what is done depends on that. */
export const diskRecord = struct({ key: diskKey, class: u8, domain: text(255) })
export type DiskRecord = ValueOf<typeof diskRecord>

export const fileKey = (file: InodeId): Key => `f${numberKey(file)}`
export const transientKey = (file: InodeId): Key => `t${numberKey(file)}`
export const directoryKey = (directory: InodeId): Key => `d${numberKey(directory)}`
export const spanKey = (file: InodeId, offset: number): Key => `s${numberKey(file)}${numberKey(offset)}`
export const spansEnd = (file: InodeId): Key => `s${numberKey(file + 1)}`
export const xattrKey = (inode: InodeId, name: string): Key => `x${numberKey(inode)}${textKey(name)}`
export const xattrsEnd = (inode: InodeId): Key => `x${numberKey(inode + 1)}`
export const diskKeyOf = (disk: DiskId): Key => `k${numberKey(disk)}`
export const blockKey = (shard: number, disk: DiskId, block: number): Key =>
  `b${String.fromCharCode(shard)}${numberKey(disk)}${numberKey(block)}`
export const edgeKey = (directory: InodeId, name: string): Key => `e${numberKey(directory)}${textKey(name)}`
export const edgesEnd = (directory: InodeId): Key => `e${numberKey(directory + 1)}`
export const pastKey = (directory: InodeId, name: string, created: number): Key =>
  `h${numberKey(directory)}${textKey(name)}\0${numberKey(created)}`
export const pastsEnd = (directory: InodeId): Key => `h${numberKey(directory + 1)}`

/** `mt`: the time of the last entry. `ms`: the secret of cookies. `mr`: which shards these are. */
export const TIME_KEY: Key = 'mt'
export const SECRET_KEY: Key = 'ms'
export const SHARDS_KEY: Key = 'mr'
/** `mc`, shard, type: the counter of the next inode. `mb`, shard: the last block id. */
export const counterKey = (shard: number, type: InodeType): Key =>
  `mc${String.fromCharCode(shard)}${type === 'symlink' ? 's' : 'f'}`
export const lastBlockKey = (shard: number): Key => `mb${String.fromCharCode(shard)}`

export const NAME_AT = 1 + NUMBER_BYTES

const CURRENT = 0
const LOCKED = 1
const OWNED = 2
const LEFT = 3
const REMOVED = 4
const STATES: readonly Edge['state'][] = ['current', 'locked', 'owned', 'left', 'removed']
const STATE_NUMBERS = { current: CURRENT, locked: LOCKED, owned: OWNED, left: LEFT, removed: REMOVED } as const

/** What an edge leads to. */
export interface EdgeRecord {
  readonly inode: InodeId
  readonly created: number
  readonly state: Edge['state']
}

/** `e`, directory, name: seven bytes of inode, seven of the time, one of the state. */
export function putEdge(
  batch: StateBatch,
  directory: InodeId,
  name: string,
  { inode, created, state }: EdgeRecord,
): void {
  const value = Buffer.allocUnsafe(2 * NUMBER_BYTES + 1)
  writeNumber(value, inode, 0)
  writeNumber(value, created, NUMBER_BYTES)
  value[2 * NUMBER_BYTES] = STATE_NUMBERS[state]
  batch.put(edgeKey(directory, name), value)
}

export function readEdge(value: Buffer): EdgeRecord {
  return {
    inode: readNumber(value, 0) as InodeId,
    created: readNumber(value, NUMBER_BYTES),
    state: STATES[value[2 * NUMBER_BYTES] ?? 0] ?? 'current',
  }
}

/** `h`, directory, name, NUL, time: seven bytes of inode, one of the state. Names have no NUL, so the times of one come together. */
export function putPast(
  batch: StateBatch,
  directory: InodeId,
  name: string,
  { inode, created, state }: EdgeRecord,
): void {
  const value = Buffer.allocUnsafe(NUMBER_BYTES + 1)
  writeNumber(value, inode, 0)
  value[NUMBER_BYTES] = STATE_NUMBERS[state]
  batch.put(pastKey(directory, name, created), value)
}

export function readPast(key: Key, value: Buffer): EdgeRecord {
  return {
    inode: readNumber(value, 0) as InodeId,
    created: numberOfKey(key, key.length - NUMBER_BYTES),
    state: STATES[value[NUMBER_BYTES] ?? 0] ?? 'removed',
  }
}

export function nameOfEdge(key: Key): string {
  return textOfKey(key.slice(NAME_AT))
}

export function nameOfPast(key: Key): string {
  return textOfKey(key.slice(NAME_AT, -NUMBER_BYTES - 1))
}

export function removedAt(created: number): EdgeRecord {
  return { inode: NO_INODE, created, state: 'removed' }
}

export function findEdge(state: StateReader, directory: InodeId, name: string): EdgeRecord | undefined {
  const value = state.get(edgeKey(directory, name))
  return value === undefined ? undefined : readEdge(value)
}

export function findDirectory(state: StateReader, directory: InodeId): DirectoryRecord | undefined {
  const value = state.get(directoryKey(directory))
  return value === undefined ? undefined : decode(directoryRecord, value)
}

export function putDirectory(batch: StateBatch, directory: InodeId, record: DirectoryRecord): void {
  batch.put(directoryKey(directory), encode(directoryRecord, record))
}

/** Where a directory's record has what is asked for, or changes, with each of its edges: the rest need not be decoded for that. */
const MTIME_AT = 10
const CTIME_AT = 26
const OWNER_AT = 34

export function findOwner(state: StateReader, directory: InodeId): InodeId | undefined {
  const value = state.get(directoryKey(directory))
  if (value === undefined) return undefined
  return (value.readUInt32LE(OWNER_AT + 4) * 2 ** 32 + value.readUInt32LE(OWNER_AT)) as InodeId
}

/** Something of the directory has changed. */
export function touchDirectory(batch: StateBatch, directory: InodeId, nowUs: number): void {
  const key = directoryKey(directory)
  const value = batch.get(key)
  if (value === undefined) return
  const touched = Buffer.allocUnsafe(value.length)
  value.copy(touched)
  touched.writeDoubleLE(nowUs, MTIME_AT)
  writeSafeInteger(touched, nowUs, CTIME_AT)
  batch.put(key, touched)
}

export function findFile(state: StateReader, file: InodeId): FileRecord | undefined {
  const value = state.get(fileKey(file))
  return value === undefined ? undefined : decode(fileRecord, value)
}

export function findTransient(state: StateReader, file: InodeId): TransientRecord | undefined {
  const value = state.get(transientKey(file))
  return value === undefined ? undefined : decode(transientRecord, value)
}

export function putTransient(batch: StateBatch, file: InodeId, record: TransientRecord): void {
  batch.put(transientKey(file), encode(transientRecord, record))
}

export function findSpan(state: StateReader, file: InodeId, offset: number): SpanRecord | undefined {
  const value = state.get(spanKey(file, offset))
  return value === undefined ? undefined : decode(spanRecord, value)
}

/** The last span of a file. */
export function lastSpan(
  state: StateReader,
  file: InodeId,
): { readonly offset: number; readonly record: SpanRecord } | undefined {
  let found: { offset: number; record: SpanRecord } | undefined
  state.rangeBackwards(spanKey(file, 0), spansEnd(file), (key, value) => {
    found = { offset: numberOfKey(key, NAME_AT), record: decode(spanRecord, value) }
    return false
  })
  return found
}

export function findDisk(state: StateReader, disk: DiskId): DiskRecord | undefined {
  const value = state.get(diskKeyOf(disk))
  return value === undefined ? undefined : decode(diskRecord, value)
}

/** `b`, shard, disk, block: whose the block is. */
export function putBlock(
  batch: StateBatch,
  shard: number,
  disk: DiskId,
  block: BlockId,
  file: InodeId,
  offset: number,
): void {
  const value = Buffer.allocUnsafe(2 * NUMBER_BYTES)
  writeNumber(value, file, 0)
  writeNumber(value, offset, NUMBER_BYTES)
  batch.put(blockKey(shard, disk, block), value)
}

/** Of a file that has no id yet, it is asked as well. */
export function isDirectory(inode: InodeId): boolean {
  return inode !== NO_INODE && inodeType(inode) === 'directory'
}
