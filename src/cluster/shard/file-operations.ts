/** What can be done with files, names and attributes: the writes of clients but those about spans in blocks (`span-operations.ts`). */
import { OperationError } from '#base/errors.ts'
import { crc32c, crc32cZeros } from '#cluster/erasure/crc32c.ts'
import { inodeType, shownInode, type InodeId } from '#cluster/inode-id.ts'
import { textOfKey } from '#cluster/journal/keys.ts'
import { encode, type ValueOf } from '#cluster/wire/codec.ts'
import {
  NO_INODE,
  SPAN_BYTES_MAX,
  XATTRS_BYTES_MAX,
  XATTRS_COUNT_MAX,
  type newAttributes,
  type attributeChanges,
} from '#cluster/wire/forms.ts'

import { checkOwns, checkTaking, findPast, freeName, knownEdge, pastEdge, takeName } from './names-of-directory.ts'
import { checkLength } from './names.ts'
import type { OperationsOf } from './operations.ts'
import { checkPolicy } from './policies.ts'
import {
  directoryKey,
  fileKey,
  fileRecord,
  findDirectory,
  findEdge,
  findFile,
  findTransient,
  NAME_AT,
  pastKey,
  putDirectory,
  putPast,
  putTransient,
  spanKey,
  spanRecord,
  transientKey,
  xattrKey,
  xattrsEnd,
  type FileRecord,
  type TransientRecord,
} from './records.ts'
import type { shardMessages } from './shard-messages.ts'
import {
  anyDirectory,
  checkShard,
  checkType,
  cookieOf,
  checkLive,
  liveTransient,
  newInode,
  ownTransient,
  TRANSIENT_US,
  type Step,
} from './step.ts'

const MODE_BITS = 0o7777
/** Linux's PATH_MAX without its NUL. */
const TARGET_BYTES_MAX = 4095
const NOTHING = {}

type OwnOperations =
  | 'construct'
  | 'addInline'
  | 'link'
  | 'create'
  | 'scrap'
  | 'unlink'
  | 'rename'
  | 'undelete'
  | 'setAttributes'
  | 'setXattr'
  | 'removeXattr'
  | 'setPolicy'
  | 'dropEdge'
  | 'hardUnlink'
  | 'removeInode'

export const fileOperations: OperationsOf<typeof shardMessages, OwnOperations> = {
  construct(step, { type, attributes, note }) {
    if (type === 'directory')
      throw new OperationError('INPUT_INVALID', 'Cannot construct a directory: ask the coordinator')
    const file = newInode(step, type)
    putTransient(step.batch, file, {
      ...attributesOf(step, attributes),
      size: 0,
      deadline: step.timeUs + TRANSIENT_US,
      lastSpan: 'clean',
      note,
    })
    return { file, cookie: cookieOf(step.batch, file) }
  },

  addInline(step, { file, cookie, offset, size, crc, bytes }) {
    const record = liveTransient(step, file, cookie)
    checkSpanSize(offset, size)
    checkInline(file, size, crc, bytes)
    if (inodeType(file) === 'symlink') checkTarget(size, bytes)
    checkNextSpan(file, record, offset)
    putInline(step, file, offset, size, crc, bytes)
    putTransient(step.batch, file, { ...record, size: offset + size, deadline: step.timeUs + TRANSIENT_US })
    return NOTHING
  },

  link(step, { file, cookie, directory, name, guard, size }) {
    const known = linkedAlready(step, file, directory, name)
    if (known !== undefined) return { created: known, replaced: NO_INODE }
    const record = liveTransient(step, file, cookie)
    checkShard(file, step.shard)
    if (record.lastSpan !== 'clean') {
      const detail = `its last span is ${record.lastSpan}`
      throw new OperationError('SPAN_OUT_OF_ORDER', `Cannot link file ${shownInode(file)}: ${detail}`)
    }
    if (inodeType(file) === 'symlink' && record.size === 0) throw noTarget()
    if (record.size !== size) {
      const detail = `it has ${record.size} bytes here, and ${size} were meant`
      throw new OperationError('SPAN_OUT_OF_ORDER', `Cannot link file ${shownInode(file)}: ${detail}`)
    }
    const before = checkTaking(step, directory, name, file, guard)
    takeName(step, directory, name, file, before)
    putFile(step, file, { ...record, ctime: step.timeUs, inline: undefined })
    step.batch.remove(transientKey(file))
    return { created: step.timeUs, replaced: before?.inode ?? NO_INODE }
  },

  create(step, { directory, name, guard, type, attributes, size, crc, bytes, xattrs }) {
    checkShard(directory, step.shard)
    if (type === 'directory')
      throw new OperationError('INPUT_INVALID', 'Cannot create a directory: ask the coordinator')
    if (type === 'symlink') checkTarget(size, bytes)
    if (size > 0 || bytes.length > 0 || crc !== 0) checkInline(directory, size, crc, bytes)
    if (xattrs.length > 0) checkXattrs(directory, xattrs)
    const before = checkTaking(step, directory, name, NO_INODE, guard)
    const file = newInode(step, type)
    for (const each of xattrs) step.batch.put(xattrKey(file, each.name), Buffer.from(each.value))
    putFile(step, file, { ...attributesOf(step, attributes), size, inline: size === 0 ? undefined : { crc, bytes } })
    takeName(step, directory, name, file, before)
    return { inode: file, created: step.timeUs, replaced: before?.inode ?? NO_INODE }
  },

  scrap(step, { file, cookie }) {
    const record = ownTransient(step.batch, step.shard, file, cookie)
    putTransient(step.batch, file, { ...record, deadline: Math.min(record.deadline, step.timeUs) })
    return NOTHING
  },

  unlink(step, { directory, name, inode, created }) {
    checkType(inode, false)
    const edge = knownEdge(step, directory, name, inode, created, 'current')
    freeName(step, directory, name, edge, 'owned')
    return { removed: step.timeUs }
  },

  rename(step, { directory, name, inode, created, newName, guard }) {
    if (name === newName) {
      throw new OperationError('INPUT_INVALID', `Cannot rename ${JSON.stringify(name)}: that is its name`)
    }
    const edge = knownEdge(step, directory, name, inode, created, 'current')
    const before = checkTaking(step, directory, newName, inode, guard)
    freeName(step, directory, name, edge, 'left')
    takeName(step, directory, newName, inode, before)
    return { created: step.timeUs, replaced: before?.inode ?? NO_INODE }
  },

  undelete(step, { directory, name, created, newName, guard }) {
    checkLive(step.batch, step.shard, directory)
    const edge = pastEdge(step, directory, name, created)
    checkOwns(name, edge)
    const before = checkTaking(step, directory, newName, edge.inode, guard)
    putPast(step.batch, directory, name, { ...edge, state: 'left' })
    takeName(step, directory, newName, edge.inode, before)
    return { inode: edge.inode, created: step.timeUs }
  },

  setAttributes(step, { inode, changes }) {
    const { batch, timeUs } = step
    checkShard(inode, step.shard)
    const directory = inodeType(inode) === 'directory' ? findDirectory(batch, inode) : undefined
    if (directory !== undefined) {
      putDirectory(batch, inode, { ...directory, ...changed(directory, changes), ctime: timeUs })
      return NOTHING
    }
    const file = findFile(batch, inode)
    if (file !== undefined) {
      putFile(step, inode, { ...file, ...changed(file, changes), ctime: timeUs })
      return NOTHING
    }
    const transient = findTransient(batch, inode)
    if (transient === undefined) throw notFound(inode)
    putTransient(batch, inode, { ...transient, ...changed(transient, changes), ctime: timeUs })
    return NOTHING
  },

  setXattr(step, { inode, xattr, how }) {
    checkInode(step, inode)
    const key = xattrKey(inode, xattr.name)
    const found = step.batch.get(key)
    if (how === 'create' && found !== undefined) {
      throw new OperationError('NAME_TAKEN', `Cannot set the attribute ${JSON.stringify(xattr.name)}: it is there`)
    }
    if (how === 'replace' && found === undefined) throw noAttribute(xattr.name)
    const others: { name: string; value: Buffer }[] = []
    step.batch.range(xattrKey(inode, ''), xattrsEnd(inode), (at, value) => {
      if (at !== key) others.push({ name: textOfKey(at.slice(NAME_AT)), value })
      return true
    })
    checkXattrs(inode, [...others, xattr])
    // The value is part of a frame, which need not be kept for it.
    step.batch.put(key, Buffer.from(xattr.value))
    touch(step, inode)
    return NOTHING
  },

  removeXattr(step, { inode, name }) {
    checkInode(step, inode)
    const key = xattrKey(inode, name)
    if (step.batch.get(key) === undefined) throw noAttribute(name)
    step.batch.remove(key)
    touch(step, inode)
    return NOTHING
  },

  setPolicy(step, { directory, policy }) {
    const record = anyDirectory(step.batch, step.shard, directory)
    checkPolicy(policy)
    const isEmpty = Object.values(policy).every((each) => each === undefined)
    putDirectory(step.batch, directory, { ...record, policy: isEmpty ? undefined : policy, ctime: step.timeUs })
    return NOTHING
  },

  dropEdge(step, { directory, name, created }) {
    anyDirectory(step.batch, step.shard, directory)
    const edge = findPast(step, directory, name, created)
    if (edge === undefined) return NOTHING
    if (edge.state === 'owned') {
      const detail = `it owns ${shownInode(edge.inode)}`
      throw new OperationError('EDGE_OWNED', `Cannot drop ${JSON.stringify(name)} of the history: ${detail}`)
    }
    step.batch.remove(pastKey(directory, name, created))
    return NOTHING
  },

  hardUnlink(step, { directory, name, created, file }) {
    anyDirectory(step.batch, step.shard, directory)
    checkShard(file, step.shard)
    checkOwns(name, pastEdge(step, directory, name, created), file)
    step.batch.remove(pastKey(directory, name, created))
    giveUpFile(step, file)
    return NOTHING
  },

  removeInode(step, { inode }) {
    checkType(inode, false)
    checkShard(inode, step.shard)
    const record = findTransient(step.batch, inode)
    if (record === undefined) {
      if (findFile(step.batch, inode) === undefined) return NOTHING
      throw new OperationError('TRANSIENT_EXPECTED', `Cannot remove file ${shownInode(inode)}: it is linked`)
    }
    if (record.deadline > step.timeUs) {
      const detail = 'it may still be written'
      throw new OperationError('TRANSIENT_EXPECTED', `Cannot remove transient file ${shownInode(inode)}: ${detail}`)
    }
    if (record.size > 0 || record.lastSpan !== 'clean') {
      throw new OperationError('SPAN_OUT_OF_ORDER', `Cannot remove transient file ${shownInode(inode)}: it has spans`)
    }
    const attributes: string[] = []
    step.batch.range(xattrKey(inode, ''), xattrsEnd(inode), (key) => {
      attributes.push(key)
      return true
    })
    for (const key of attributes) step.batch.remove(key)
    step.batch.remove(transientKey(inode))
    return NOTHING
  },
}

/** A file that nothing owns any more: it waits for its spans to be removed. */
export function giveUpFile(step: Step, file: InodeId): void {
  const record = findFile(step.batch, file)
  // It was given up before, or is gone.
  if (record === undefined) return
  step.batch.remove(fileKey(file))
  const { inline } = record
  if (inline !== undefined) putInline(step, file, 0, record.size, inline.crc, inline.bytes)
  putTransient(step.batch, file, { ...record, deadline: step.timeUs, lastSpan: 'clean', note: 'unlinked' })
}

/** @throws SPAN_OUT_OF_ORDER */
export function checkNextSpan(file: InodeId, record: TransientRecord, offset: number): void {
  const action = `Cannot add a span at ${offset} to file ${shownInode(file)}`
  if (record.lastSpan !== 'clean') {
    throw new OperationError('SPAN_OUT_OF_ORDER', `${action}: its last span is ${record.lastSpan}`)
  }
  if (offset !== record.size) throw new OperationError('SPAN_OUT_OF_ORDER', `${action}: it ends at ${record.size}`)
  if (inodeType(file) === 'symlink' && offset > 0) {
    throw new OperationError('SPAN_OUT_OF_ORDER', `${action}: a symlink has one span`)
  }
}

/** @throws SPAN_INVALID */
export function checkSpanSize(offset: number, size: number): void {
  if (size >= 1 && size <= SPAN_BYTES_MAX && offset + size <= Number.MAX_SAFE_INTEGER) return
  const detail = `a span has 1 to ${SPAN_BYTES_MAX} bytes`
  throw new OperationError('SPAN_INVALID', `Cannot add a span of ${size} bytes at ${offset}: ${detail}`)
}

function checkInline(inode: InodeId, size: number, crc: number, bytes: Buffer): void {
  checkSpanSize(0, size)
  if (bytes.length > size) {
    const detail = `there are ${bytes.length} bytes`
    throw new OperationError('SPAN_INVALID', `Cannot add a span of ${size} bytes: ${detail}`)
  }
  if (crc32cZeros(crc32c(bytes), size - bytes.length) === crc) return
  throw new OperationError('SPAN_INVALID', `Cannot add a span to ${shownInode(inode)}: its bytes have another CRC`)
}

function checkTarget(size: number, bytes: Buffer): void {
  if (size === bytes.length && size > 0 && size <= TARGET_BYTES_MAX && !bytes.includes(0)) return
  throw noTarget()
}

function noTarget(): OperationError {
  const detail = `its target has 1 to ${TARGET_BYTES_MAX} bytes and no NUL`
  return new OperationError('INPUT_INVALID', `Cannot make a symlink: ${detail}`)
}

function putInline(step: Step, file: InodeId, offset: number, size: number, crc: number, bytes: Buffer): void {
  const inline = bytes.length === 0 ? undefined : bytes
  step.batch.put(spanKey(file, offset), encode(spanRecord, { size, crc, inline, blocks: undefined }))
}

function putFile(step: Step, file: InodeId, record: FileRecord): void {
  step.batch.put(fileKey(file), encode(fileRecord, record))
}

function attributesOf(
  step: Step,
  { mode, uid, gid, mtime, atime }: ValueOf<typeof newAttributes>,
): Omit<FileRecord, 'size' | 'inline'> {
  const { timeUs } = step
  return { mode: mode & MODE_BITS, uid, gid, mtime: mtime ?? timeUs, atime: atime ?? timeUs, ctime: timeUs }
}

type Changeable = Pick<FileRecord, 'mode' | 'uid' | 'gid' | 'mtime' | 'atime'>

function changed(now: Changeable, changes: ValueOf<typeof attributeChanges>): Changeable {
  return {
    mode: changes.mode === undefined ? now.mode : changes.mode & MODE_BITS,
    uid: changes.uid ?? now.uid,
    gid: changes.gid ?? now.gid,
    mtime: changes.mtime ?? now.mtime,
    atime: changes.atime ?? now.atime,
  }
}

/** Whether that very file has that very name already: since when. */
function linkedAlready(step: Step, file: InodeId, directory: InodeId, name: string): number | undefined {
  checkShard(directory, step.shard)
  checkLength(name)
  const edge = findEdge(step.batch, directory, name)
  return edge?.inode === file ? edge.created : undefined
}

function checkInode(step: Step, inode: InodeId): void {
  checkShard(inode, step.shard)
  const keys = inodeType(inode) === 'directory' ? [directoryKey(inode)] : [fileKey(inode), transientKey(inode)]
  if (!keys.some((key) => step.batch.get(key) !== undefined)) throw notFound(inode)
}

/** Its attributes changed now. */
function touch(step: Step, inode: InodeId): void {
  fileOperations.setAttributes(step, {
    inode,
    changes: { mode: undefined, uid: undefined, gid: undefined, mtime: undefined, atime: undefined },
  })
}

function checkXattrs(inode: InodeId, all: readonly { readonly name: string; readonly value: Buffer }[]): void {
  let bytes = 0
  for (const { name, value } of all) {
    if (name === '' || name.includes('\0')) {
      throw new OperationError('INPUT_INVALID', `Cannot use ${JSON.stringify(name)} as the name of an attribute`)
    }
    bytes += Buffer.byteLength(name) + value.length
  }
  if (bytes <= XATTRS_BYTES_MAX && all.length <= XATTRS_COUNT_MAX) return
  const bounds = `${XATTRS_COUNT_MAX} with ${XATTRS_BYTES_MAX} bytes together`
  const detail = `there would be ${all.length} with ${bytes} bytes, and may be ${bounds}`
  throw new OperationError('STORE_ATTRIBUTES_TOO_LARGE', `Cannot set attributes of ${shownInode(inode)}: ${detail}`)
}

function notFound(inode: InodeId): OperationError {
  return new OperationError('INODE_NOT_FOUND', `Cannot find inode ${shownInode(inode)}`)
}

function noAttribute(name: string): OperationError {
  return new OperationError('ATTRIBUTE_NOT_FOUND', `Cannot find the attribute ${JSON.stringify(name)}`)
}
