/**
 * What each operation of the kernel asks of the file system, and how its answer is encoded: one handler an opcode. A
 * handler may throw: the request is then answered with the errno of what was thrown. Operations without a
 * handler are ENOSYS, which the kernel remembers and does without: ACCESS (permissions are the kernel's to check),
 * locks (the kernel keeps them), BMAP, POLL, STATX (asked as GETATTR), TMPFILE, SYNCFS, and mappings.
 */
import * as decode from './decode.ts'
import { DirectoryReply } from './directory-reply.ts'
import type { Answer, Dispatcher } from './dispatcher.ts'
import * as encode from './encode.ts'
import type { AttributesAnswer, EntryAnswer, NegativeAnswer, OpenAnswer, StatfsAnswer } from './file-system.ts'
import { setattrWithoutPrivileges, withoutPrivileges } from './kill-privileges.ts'
import * as protocol from './protocol.ts'
import type { Request } from './request.ts'
import { assert } from '#base/assert.ts'
import { ERRNO } from '#base/errno.ts'

type Handler = (dispatcher: Dispatcher, request: Request, frame: decode.RequestFrame) => void

/** By opcode. */
export const HANDLERS: (Handler | undefined)[] = Array.from({ length: 64 })

// Answers. An entry that does not reach the kernel leaves no reference there, so it is given back.

const answerNothing: Answer<unknown> = ({ replier }, request) => {
  replier.done(request)
}

const answerEntry: Answer<EntryAnswer> = ({ replier, fileSystem }, request, entry) => {
  const { fixed } = replier
  if (!replier.send(request, fixed, encode.encodeEntry(fixed.view, entry))) fileSystem.forget(entry.attributes.node, 1)
}

const answerLookup: Answer<EntryAnswer | NegativeAnswer> = (dispatcher, request, found) => {
  if ('attributes' in found) return answerEntry(dispatcher, request, found)
  const { replier } = dispatcher
  if (found.negativeValidMs <= 0) return replier.fail(request, ERRNO.ENOENT)
  const { fixed } = replier
  replier.send(request, fixed, encode.encodeNegativeEntry(fixed.bytes, fixed.view, found.negativeValidMs))
}

const answerAttributes: Answer<AttributesAnswer> = ({ replier }, request, answer) => {
  replier.send(request, replier.fixed, encode.encodeAttributesAnswer(replier.fixed.view, answer))
}

const answerOpen: Answer<OpenAnswer> = (dispatcher, request, open) => {
  const { replier, fileSystem } = dispatcher
  if (replier.send(request, replier.fixed, encode.encodeOpen(replier.fixed.view, open))) return
  dispatcher.unawaited('the release of an open that was given up', () => fileSystem.release(request.node, open.handle))
}

const answerOpendir: Answer<OpenAnswer> = (dispatcher, request, open) => {
  const { replier, fileSystem } = dispatcher
  if (replier.send(request, replier.fixed, encode.encodeOpen(replier.fixed.view, open))) return
  dispatcher.unawaited('the release of an open that was given up', () =>
    fileSystem.releasedir(request.node, open.handle),
  )
}

const answerCreate: Answer<EntryAnswer & OpenAnswer> = (dispatcher, request, created) => {
  const { replier, fileSystem } = dispatcher
  if (replier.send(request, replier.fixed, encode.encodeCreate(replier.fixed.view, created))) return
  const { node } = created.attributes
  dispatcher.unawaited('the release of a create that was given up', async () => {
    await fileSystem.release(node, created.handle)
    fileSystem.forget(node, 1)
  })
}

const answerStatfs: Answer<StatfsAnswer> = ({ replier }, request, answer) => {
  replier.send(request, replier.fixed, encode.encodeStatfs(replier.fixed.bytes, replier.fixed.view, answer))
}

const answerOffset: Answer<number> = ({ replier }, request, offset) => {
  replier.send(request, replier.fixed, encode.encodeOffset(replier.fixed.view, offset))
}

const answerWritten: Answer<number> = ({ replier, writtenBytes }, request, size) => {
  replier.send(request, replier.fixed, encode.encodeSize(replier.fixed.view, size))
  writtenBytes.inc(size)
}

/** The value of an attribute, or only its size where the caller has given no room. */
function answerValue(dispatcher: Dispatcher, request: Request, room: number, value: Uint8Array): void {
  const { replier } = dispatcher
  if (room === 0) replier.send(request, replier.fixed, encode.encodeSize(replier.fixed.view, value.byteLength))
  else if (value.byteLength > room) replier.fail(request, ERRNO.ERANGE)
  else replier.bytes(request, [value])
}

// Names.

HANDLERS[protocol.FUSE_LOOKUP] = (dispatcher, request, frame) => {
  const name = decode.decodeName(frame)
  if (typeof name === 'number') return dispatcher.replier.fail(request, name)
  dispatcher.settle(request, dispatcher.fileSystem.lookup(request.node, name, request), answerLookup)
}

HANDLERS[protocol.FUSE_FORGET] = (dispatcher, request, frame) => {
  const forget = decode.decodeForget(frame)
  if (typeof forget !== 'number')
    dispatcher.unawaited('a forget', () => dispatcher.fileSystem.forget(request.node, forget.count))
}

HANDLERS[protocol.FUSE_BATCH_FORGET] = (dispatcher, _request, frame) => {
  const { fileSystem } = dispatcher
  decode.decodeBatchForget(frame, (node, count) => {
    dispatcher.unawaited('a forget', () => fileSystem.forget(node, count))
  })
}

HANDLERS[protocol.FUSE_SYMLINK] = (dispatcher, request, frame) => {
  const made = decode.decodeSymlink(frame)
  if (typeof made === 'number') return dispatcher.replier.fail(request, made)
  dispatcher.settle(request, dispatcher.fileSystem.symlink(request.node, made.name, made.target, request), answerEntry)
}

HANDLERS[protocol.FUSE_MKNOD] = (dispatcher, request, frame) => {
  const { fileSystem, replier } = dispatcher
  if (fileSystem.mknod === undefined) return replier.fail(request, ERRNO.ENOSYS)
  const made = decode.decodeMknod(frame)
  if (typeof made === 'number') return replier.fail(request, made)
  const { name, mode, rdev, umask } = made
  dispatcher.settle(request, fileSystem.mknod(request.node, name, mode, rdev, umask, request), answerEntry)
}

HANDLERS[protocol.FUSE_MKDIR] = (dispatcher, request, frame) => {
  const made = decode.decodeMkdir(frame)
  if (typeof made === 'number') return dispatcher.replier.fail(request, made)
  const { name, mode, umask } = made
  dispatcher.settle(request, dispatcher.fileSystem.mkdir(request.node, name, mode, umask, request), answerEntry)
}

HANDLERS[protocol.FUSE_UNLINK] = (dispatcher, request, frame) => {
  const name = decode.decodeName(frame)
  if (typeof name === 'number') return dispatcher.replier.fail(request, name)
  dispatcher.settle(request, dispatcher.fileSystem.unlink(request.node, name, request), answerNothing)
}

HANDLERS[protocol.FUSE_RMDIR] = (dispatcher, request, frame) => {
  const name = decode.decodeName(frame)
  if (typeof name === 'number') return dispatcher.replier.fail(request, name)
  dispatcher.settle(request, dispatcher.fileSystem.rmdir(request.node, name, request), answerNothing)
}

const rename =
  (withFlags: boolean): Handler =>
  (dispatcher, request, frame) => {
    const asked = decode.decodeRename(frame, withFlags)
    if (typeof asked === 'number') return dispatcher.replier.fail(request, asked)
    const { name, newParent, newName, flags } = asked
    dispatcher.settle(
      request,
      dispatcher.fileSystem.rename(request.node, name, newParent, newName, flags, request),
      answerNothing,
    )
  }
HANDLERS[protocol.FUSE_RENAME] = rename(false)
HANDLERS[protocol.FUSE_RENAME2] = rename(true)

HANDLERS[protocol.FUSE_LINK] = (dispatcher, request, frame) => {
  const { fileSystem, replier } = dispatcher
  if (fileSystem.link === undefined) return replier.fail(request, ERRNO.ENOSYS)
  const made = decode.decodeLink(frame)
  if (typeof made === 'number') return replier.fail(request, made)
  dispatcher.settle(request, fileSystem.link(made.node, request.node, made.name, request), answerEntry)
}

HANDLERS[protocol.FUSE_READLINK] = (dispatcher, request) => {
  dispatcher.settle(request, dispatcher.fileSystem.readlink(request.node, request), ({ replier }, _request, target) => {
    replier.bytes(request, [Buffer.from(target, 'utf8')])
  })
}

// Attributes.

HANDLERS[protocol.FUSE_GETATTR] = (dispatcher, request, frame) => {
  const asked = decode.decodeGetattr(frame)
  if (typeof asked === 'number') return dispatcher.replier.fail(request, asked)
  dispatcher.settle(request, dispatcher.fileSystem.getattr(request.node, asked.handle, request), answerAttributes)
}

HANDLERS[protocol.FUSE_SETATTR] = (dispatcher, request, frame) => {
  const asked = decode.decodeSetattr(frame)
  if (typeof asked === 'number') return dispatcher.replier.fail(request, asked)
  const { fileSystem } = dispatcher
  const { changes, killPrivileges } = asked
  const result = killPrivileges
    ? setattrWithoutPrivileges(fileSystem, request.node, changes, request)
    : fileSystem.setattr(request.node, changes, request)
  dispatcher.settle(request, result, answerAttributes)
}

HANDLERS[protocol.FUSE_STATFS] = (dispatcher, request) => {
  dispatcher.settle(request, dispatcher.fileSystem.statfs(request), answerStatfs)
}

HANDLERS[protocol.FUSE_GETXATTR] = (dispatcher, request, frame) => {
  const asked = decode.decodeGetxattr(frame)
  if (typeof asked === 'number') return dispatcher.replier.fail(request, asked)
  const { name, size } = asked
  dispatcher.settle(
    request,
    dispatcher.fileSystem.getxattr(request.node, name, request),
    (_dispatcher, _request, value) => answerValue(dispatcher, request, size, value),
  )
}

HANDLERS[protocol.FUSE_LISTXATTR] = (dispatcher, request, frame) => {
  const asked = decode.decodeListxattr(frame)
  if (typeof asked === 'number') return dispatcher.replier.fail(request, asked)
  dispatcher.settle(request, dispatcher.fileSystem.listxattr(request.node, request), (_dispatcher, _request, names) => {
    const list = Buffer.from(names.map((name) => `${name}\0`).join(''), 'utf8')
    answerValue(dispatcher, request, asked.size, list)
  })
}

HANDLERS[protocol.FUSE_SETXATTR] = (dispatcher, request, frame) => {
  const asked = decode.decodeSetxattr(frame)
  if (typeof asked === 'number') return dispatcher.replier.fail(request, asked)
  const { name, value, flags } = asked
  dispatcher.settle(request, dispatcher.fileSystem.setxattr(request.node, name, value, flags, request), answerNothing)
}

HANDLERS[protocol.FUSE_REMOVEXATTR] = (dispatcher, request, frame) => {
  const name = decode.decodeName(frame)
  if (typeof name === 'number') return dispatcher.replier.fail(request, name)
  dispatcher.settle(request, dispatcher.fileSystem.removexattr(request.node, name, request), answerNothing)
}

// ENOTTY is "no such control on this file"; ENOSYS would read as a defect of the system.
HANDLERS[protocol.FUSE_IOCTL] = ({ replier }, request) => replier.refuse(request.unique, ERRNO.ENOTTY)

// Open files.

HANDLERS[protocol.FUSE_OPEN] = (dispatcher, request, frame) => {
  const asked = decode.decodeOpen(frame)
  if (typeof asked === 'number') return dispatcher.replier.fail(request, asked)
  const { fileSystem } = dispatcher
  const result = asked.killPrivileges
    ? withoutPrivileges(fileSystem, request.node, request, () => fileSystem.open(request.node, asked.flags, request))
    : fileSystem.open(request.node, asked.flags, request)
  dispatcher.settle(request, result, answerOpen)
}

HANDLERS[protocol.FUSE_CREATE] = (dispatcher, request, frame) => {
  const asked = decode.decodeCreate(frame)
  if (typeof asked === 'number') return dispatcher.replier.fail(request, asked)
  const { name, mode, umask, flags } = asked
  dispatcher.settle(
    request,
    dispatcher.fileSystem.create(request.node, name, mode, umask, flags, request),
    answerCreate,
  )
}

HANDLERS[protocol.FUSE_READ] = (dispatcher, request, frame) => {
  const asked = decode.decodeRead(frame)
  if (typeof asked === 'number') return dispatcher.replier.fail(request, asked)
  const { handle, offset, size } = asked
  dispatcher.settle(request, dispatcher.fileSystem.read(request.node, handle, offset, size, request), answerRead)
}

const answerRead: Answer<Uint8Array | readonly Uint8Array[]> = ({ replier }, request, data) => {
  replier.data(request, data)
}

HANDLERS[protocol.FUSE_WRITE] = (dispatcher, request, frame) => {
  const asked = decode.decodeWrite(frame)
  if (typeof asked === 'number') return dispatcher.replier.fail(request, asked)
  const { fileSystem } = dispatcher
  const { handle, offset, data, appends } = asked
  const result = asked.killPrivileges
    ? withoutPrivileges(fileSystem, request.node, request, () =>
        fileSystem.write(request.node, handle, offset, data, request, appends),
      )
    : fileSystem.write(request.node, handle, offset, data, request, appends)
  dispatcher.settle(request, result, answerWritten, frame)
}

HANDLERS[protocol.FUSE_FLUSH] = (dispatcher, request, frame) => {
  const asked = decode.decodeHandle(frame)
  if (typeof asked === 'number') return dispatcher.replier.fail(request, asked)
  dispatcher.settle(request, dispatcher.fileSystem.flush(request.node, asked.handle, request), answerNothing)
}

HANDLERS[protocol.FUSE_FSYNC] = (dispatcher, request, frame) => {
  const asked = decode.decodeFsync(frame)
  if (typeof asked === 'number') return dispatcher.replier.fail(request, asked)
  const { handle, dataOnly } = asked
  dispatcher.settle(request, dispatcher.fileSystem.fsync(request.node, handle, dataOnly, request), answerNothing)
}

HANDLERS[protocol.FUSE_RELEASE] = (dispatcher, request, frame) => {
  const asked = decode.decodeHandle(frame)
  if (typeof asked === 'number') return dispatcher.replier.fail(request, asked)
  dispatcher.settle(request, dispatcher.fileSystem.release(request.node, asked.handle), answerNothing)
}

HANDLERS[protocol.FUSE_FALLOCATE] = (dispatcher, request, frame) => {
  const { fileSystem, replier } = dispatcher
  if (fileSystem.fallocate === undefined) return replier.fail(request, ERRNO.ENOSYS)
  const asked = decode.decodeFallocate(frame)
  if (typeof asked === 'number') return replier.fail(request, asked)
  const { handle, offset, length, mode } = asked
  dispatcher.settle(request, fileSystem.fallocate(request.node, handle, offset, length, mode, request), answerNothing)
}

/** The short answer holds 32 bits: more than this the caller asks for again. */
const COPIED_BYTES_MAX = 0x7fff_f000

const answerCopied: Answer<number> = ({ replier }, request, size) => {
  replier.send(request, replier.fixed, encode.encodeSize(replier.fixed.view, size))
}

const copyFileRange =
  (long: boolean): Handler =>
  (dispatcher, request, frame) => {
    const { fileSystem, replier } = dispatcher
    // At ENOSYS the kernel copies by reads and writes.
    if (fileSystem.copyFileRange === undefined) return replier.fail(request, ERRNO.ENOSYS)
    const asked = decode.decodeCopyFileRange(frame)
    if (typeof asked === 'number') return replier.fail(request, asked)
    const { handle, offset, outNode, outHandle, outOffset } = asked
    const length = long ? asked.length : Math.min(asked.length, COPIED_BYTES_MAX)
    dispatcher.settle(
      request,
      fileSystem.copyFileRange(request.node, handle, offset, outNode, outHandle, outOffset, length, request),
      long ? answerOffset : answerCopied,
    )
  }
HANDLERS[protocol.FUSE_COPY_FILE_RANGE] = copyFileRange(false)
HANDLERS[protocol.FUSE_COPY_FILE_RANGE_64] = copyFileRange(true)

HANDLERS[protocol.FUSE_LSEEK] = (dispatcher, request, frame) => {
  const { fileSystem, replier } = dispatcher
  if (fileSystem.lseek === undefined) return replier.fail(request, ERRNO.ENOSYS)
  const asked = decode.decodeLseek(frame)
  if (typeof asked === 'number') return replier.fail(request, asked)
  const { handle, offset, whence } = asked
  dispatcher.settle(request, fileSystem.lseek(request.node, handle, offset, whence, request), answerOffset)
}

// Open directories.

HANDLERS[protocol.FUSE_OPENDIR] = (dispatcher, request, frame) => {
  const asked = decode.decodeOpen(frame)
  if (typeof asked === 'number') return dispatcher.replier.fail(request, asked)
  dispatcher.settle(request, dispatcher.fileSystem.opendir(request.node, request), answerOpendir)
}

const readdir =
  (plus: boolean): Handler =>
  (dispatcher, request, frame) => {
    const asked = decode.decodeRead(frame)
    const { fileSystem, replier } = dispatcher
    if (typeof asked === 'number') return replier.fail(request, asked)
    const listing = new DirectoryReply(dispatcher.directoryBuffer, asked.size, plus)
    const result = fileSystem.readdir(request.node, asked.handle, asked.offset, plus, listing.sink, request)
    if (result instanceof Promise) listing.detach()
    dispatcher.settle(request, result, () => {
      if (replier.send(request, listing.reply, listing.length) || !plus) return
      encode.forEachEntry(listing.reply, listing.length, (node) => fileSystem.forget(node, 1))
    })
  }
HANDLERS[protocol.FUSE_READDIR] = readdir(false)
HANDLERS[protocol.FUSE_READDIRPLUS] = readdir(true)

HANDLERS[protocol.FUSE_RELEASEDIR] = (dispatcher, request, frame) => {
  const asked = decode.decodeHandle(frame)
  if (typeof asked === 'number') return dispatcher.replier.fail(request, asked)
  dispatcher.settle(request, dispatcher.fileSystem.releasedir(request.node, asked.handle), answerNothing)
}

HANDLERS[protocol.FUSE_FSYNCDIR] = (dispatcher, request, frame) => {
  const asked = decode.decodeFsync(frame)
  if (typeof asked === 'number') return dispatcher.replier.fail(request, asked)
  dispatcher.settle(request, dispatcher.fileSystem.fsyncdir(request.node, asked.handle, request), answerNothing)
}

assert(HANDLERS.length === 64, 'every opcode has its place in the table')
