/**
 * The decoder on frames that a kernel sent (Linux 6.18, FUSE 7.45; frames.fixture.json has one of each kind, as read
 * from /dev/fuse while a script used a mount), and on frames that no kernel would send.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import * as decode from './decode.ts'
import { OPERATION_NAMES } from './protocol.ts'
import { ERRNO } from '#base/errno.ts'

const FRAMES = JSON.parse(readFileSync(new URL('frames.fixture.json', import.meta.url), 'utf8')) as Record<
  string,
  string
>
const NAME = 'naïve ☃'

/** A frame in a buffer that holds older bytes after it, as the session's does. */
function load(bytes: Uint8Array): decode.RequestFrame {
  const buffer = Buffer.alloc(bytes.length + 64, 0x41)
  buffer.set(bytes)
  const frame = new decode.RequestFrame(buffer)
  assert.equal(frame.load(bytes.length), true)
  return frame
}

function recorded(name: string): decode.RequestFrame {
  const hex = FRAMES[name]
  assert.ok(hex !== undefined, `no frame '${name}'`)
  return load(Buffer.from(hex, 'hex'))
}

/** What each recorded frame must decode to. */
const EXPECTED: Record<string, [decoder: (frame: decode.RequestFrame) => unknown, value: unknown]> = {
  INIT: [decode.decodeInit, { major: 7, minor: 45, maxReadaheadBytes: 131_072, flags: 0x73fffffb, flags2: 0x5fd }],
  GETATTR: [decode.decodeGetattr, { handle: undefined }],
  'GETATTR by handle': [decode.decodeGetattr, { handle: 3 }],
  OPENDIR: [decode.decodeOpen, { flags: 0o304000, killPrivileges: false }],
  READDIRPLUS: [decode.decodeRead, { handle: 1, offset: 0, size: 32_768 }],
  READDIR: [decode.decodeRead, { handle: 1, offset: 1, size: 32_768 }],
  RELEASEDIR: [decode.decodeHandle, { handle: 1 }],
  LOOKUP: [decode.decodeName, NAME],
  'LOOKUP not UTF-8': [decode.decodeName, ERRNO.EILSEQ],
  CREATE: [decode.decodeCreate, { flags: 0o101101, mode: 0o100644, umask: 0o22, name: NAME }],
  GETXATTR: [decode.decodeGetxattr, { size: 0, name: 'security.capability' }],
  'GETXATTR with room': [decode.decodeGetxattr, { size: 128, name: 'user.colour' }],
  WRITE: [
    decode.decodeWrite,
    { handle: 3, offset: 0, appends: false, killPrivileges: false, data: Buffer.from('hello') },
  ],
  FLUSH: [decode.decodeHandle, { handle: 3 }],
  RELEASE: [decode.decodeHandle, { handle: 3 }],
  OPEN: [decode.decodeOpen, { flags: 0o100002, killPrivileges: false }],
  'OPEN truncating': [decode.decodeOpen, { flags: 0o101002, killPrivileges: false }],
  READ: [decode.decodeRead, { handle: 3, offset: 0, size: 4096 }],
  FSYNC: [decode.decodeFsync, { handle: 3, dataOnly: false }],
  'FSYNC data only': [decode.decodeFsync, { handle: 3, dataOnly: true }],
  FALLOCATE: [decode.decodeFallocate, { handle: 3, offset: 4096, length: 8192, mode: 0 }],
  COPY_FILE_RANGE_64: [
    decode.decodeCopyFileRange,
    { handle: 11, offset: 0, outNode: 12, outHandle: 12, outOffset: 0, length: 3 },
  ],
  LSEEK: [decode.decodeLseek, { handle: 3, offset: 3, whence: 3 }],
  'SETATTR size by handle': [decode.decodeSetattr, { changes: { handle: 3, size: 3 }, killPrivileges: false }],
  'SETATTR size': [decode.decodeSetattr, { changes: { size: 0x1_2345_6789 }, killPrivileges: false }],
  'SETATTR times': [
    decode.decodeSetattr,
    {
      changes: {
        atime: { seconds: -2, nanoseconds: 500_000_000 },
        mtime: { seconds: 1_234_567_890, nanoseconds: 123_456_789 },
      },
      killPrivileges: false,
    },
  ],
  'SETATTR times now': [decode.decodeSetattr, { changes: { atime: 'now', mtime: 'now' }, killPrivileges: false }],
  'SETATTR mode': [decode.decodeSetattr, { changes: { mode: 0o104755 }, killPrivileges: false }],
  'SETATTR owner': [decode.decodeSetattr, { changes: { uid: 7, gid: 8 }, killPrivileges: true }],
  MKDIR: [decode.decodeMkdir, { mode: 0o750, umask: 0o22, name: 'dir' }],
  SYMLINK: [decode.decodeSymlink, { name: 'link', target: 'some/target' }],
  MKNOD: [decode.decodeMknod, { mode: 0o10644, rdev: 0, umask: 0o22, name: 'fifo' }],
  LINK: [decode.decodeLink, { node: 3, name: 'hard' }],
  SETXATTR: [decode.decodeSetxattr, { name: 'user.colour', flags: 0, value: Uint8Array.from(Buffer.from('blue')) }],
  LISTXATTR: [decode.decodeListxattr, { size: 256 }],
  REMOVEXATTR: [decode.decodeName, 'user.colour'],
  RENAME: [(frame) => decode.decodeRename(frame, false), { newParent: 4, flags: 0, name: NAME, newName: 'other' }],
  RENAME2: [(frame) => decode.decodeRename(frame, true), { newParent: 1, flags: 1, name: 'src', newName: 'moved' }],
  FSYNCDIR: [decode.decodeFsync, { handle: 4, dataOnly: false }],
  UNLINK: [decode.decodeName, 'f0'],
  RMDIR: [decode.decodeName, 'dir'],
  FORGET: [decode.decodeForget, { count: 3 }],
  INTERRUPT: [decode.decodeInterrupt, { unique: 434 }],
}

/** Every decoder, on a frame of any kind. */
const DECODERS = [
  ...new Set(Object.values(EXPECTED).map(([decoder]) => decoder)),
  (frame: decode.RequestFrame) => decode.decodeBatchForget(frame, () => undefined),
]

describe('frames of a kernel', () => {
  for (const [name, [decoder, value]] of Object.entries(EXPECTED)) {
    test(name, () => {
      const frame = recorded(name)
      assert.equal(OPERATION_NAMES[frame.opcode], name.split(' ')[0])
      assert.deepEqual(decoder(frame), value)
    })
  }

  test('the header has who asks for what', () => {
    const { opcode, unique, node, uid, gid, pid, end } = recorded('CREATE')
    assert.deepEqual(
      { opcode, unique, node, uid, gid, end },
      { opcode: 35, unique: 26, node: 1, uid: 0, gid: 0, end: 67 },
    )
    assert.ok(pid > 0)
  })

  test('BATCH_FORGET gives each node its count', () => {
    const forgotten: number[][] = []
    assert.equal(
      decode.decodeBatchForget(recorded('BATCH_FORGET'), (node, count) => forgotten.push([node, count])),
      0,
    )
    assert.deepEqual(forgotten, [
      [2, 4],
      [5, 4],
      [11, 4],
    ])
  })
})

describe('frames that no kernel sends', () => {
  /** A frame with that body. */
  const frameOf = (opcode: number, ...body: (Uint8Array | string)[]): decode.RequestFrame => {
    const bytes = Buffer.concat([Buffer.alloc(40), ...body.map((part) => Buffer.from(part))])
    bytes.writeUInt32LE(bytes.length, 0)
    bytes.writeUInt32LE(opcode, 4)
    return load(bytes)
  }
  const uint64 = (value: bigint): Buffer => {
    const bytes = Buffer.alloc(8)
    bytes.writeBigUInt64LE(value)
    return bytes
  }

  test('a header whose length is not that of the frame is refused', () => {
    const bytes = Buffer.from(FRAMES['LOOKUP'] ?? '', 'hex')
    const frame = new decode.RequestFrame(bytes)
    for (const length of [0, 39, bytes.length - 1, bytes.length + 1]) assert.equal(frame.load(length), false)
    bytes.writeUInt32LE(1_000_000, 0)
    assert.equal(frame.load(1_000_000), false)
  })

  test('extensions after the body are not taken for it', () => {
    const bytes = Buffer.concat([
      Buffer.from(FRAMES['LOOKUP'] ?? '', 'hex').subarray(0, 40),
      Buffer.from('abc\0'),
      Buffer.alloc(8, 1),
    ])
    bytes.writeUInt32LE(bytes.length, 0)
    bytes.writeUInt16LE(1, 36)
    assert.equal(decode.decodeName(load(bytes)), 'abc')
    bytes.writeUInt16LE(100, 36)
    assert.equal(new decode.RequestFrame(bytes).load(bytes.length), false)
  })

  test('names are ended by the only NUL', () => {
    assert.equal(decode.decodeName(frameOf(1, 'abc')), ERRNO.EINVAL)
    assert.equal(decode.decodeName(frameOf(1, 'a\0bc\0')), ERRNO.EINVAL)
    assert.equal(decode.decodeName(frameOf(1, '\0')), ERRNO.EINVAL)
    assert.equal(decode.decodeName(frameOf(1)), ERRNO.EINVAL)
    assert.equal(decode.decodeSymlink(frameOf(6, 'abc')), ERRNO.EINVAL)
    assert.equal(decode.decodeSymlink(frameOf(6, 'abc\0def')), ERRNO.EINVAL)
  })

  test('a replacement character that is in the name itself is kept', () => {
    assert.equal(decode.decodeName(frameOf(1, 'a\uFFFDb\0')), 'a\uFFFDb')
    assert.equal(decode.decodeName(frameOf(1, Buffer.from([0xef, 0xbf, 0xbd, 0xff, 0]))), ERRNO.EILSEQ)
  })

  test('numbers beyond 2^53 are refused, each with what it means', () => {
    const huge = uint64((1n << 63n) - 1n)
    const setattr = Buffer.alloc(88)
    setattr.writeUInt32LE(8, 0)
    huge.copy(setattr, 16)
    assert.equal(decode.decodeSetattr(frameOf(4, setattr)), ERRNO.EFBIG)
    uint64(1n << 53n).copy(setattr, 16)
    assert.equal(decode.decodeSetattr(frameOf(4, setattr)), ERRNO.EFBIG)
    uint64((1n << 53n) - 1n).copy(setattr, 16)
    assert.deepEqual(decode.decodeSetattr(frameOf(4, setattr)), {
      changes: { size: Number.MAX_SAFE_INTEGER },
      killPrivileges: false,
    })
    const handle = uint64(3n)
    const rest = Buffer.alloc(8)
    assert.equal(decode.decodeFallocate(frameOf(43, handle, huge, uint64(1n), rest)), ERRNO.EFBIG)
    assert.equal(decode.decodeFallocate(frameOf(43, handle, uint64(1n), uint64((1n << 64n) - 1n), rest)), ERRNO.EFBIG)
    assert.equal(decode.decodeFallocate(frameOf(43, handle, uint64(1n << 52n), uint64(1n << 52n), rest)), ERRNO.EFBIG)
    assert.equal(decode.decodeLseek(frameOf(46, handle, uint64((1n << 64n) - 1n), rest)), ERRNO.ENXIO)
    assert.equal(decode.decodeWrite(frameOf(16, handle, huge, Buffer.alloc(24))), ERRNO.EFBIG)
    const flags = uint64(0n)
    const copy = (outOffset: Buffer, length: Buffer): decode.RequestFrame =>
      frameOf(47, handle, handle, handle, handle, outOffset, length, flags)
    assert.equal(decode.decodeCopyFileRange(copy(uint64(1n << 52n), uint64(1n << 52n))), ERRNO.EFBIG)
    assert.equal(decode.decodeCopyFileRange(copy(huge, handle)), ERRNO.EFBIG)
    flags.writeUInt8(1)
    assert.equal(decode.decodeCopyFileRange(copy(handle, handle)), ERRNO.EINVAL)
    assert.equal(decode.decodeRead(frameOf(15, huge, handle, Buffer.alloc(24))), ERRNO.EBADF)
  })

  test('nanoseconds of a second or more are refused', () => {
    const setattr = Buffer.alloc(88)
    setattr.writeUInt32LE(1 << 5, 0)
    setattr.writeUInt32LE(1_000_000_000, 60)
    assert.equal(decode.decodeSetattr(frameOf(4, setattr)), ERRNO.EINVAL)
  })

  test('sizes that lie are refused', () => {
    const write = Buffer.alloc(40)
    write.writeUInt32LE(6, 16)
    assert.equal(decode.decodeWrite(frameOf(16, write, 'hello')), ERRNO.EINVAL)
    write.writeUInt32LE(4, 16)
    assert.equal(decode.decodeWrite(frameOf(16, write, 'hello')), ERRNO.EINVAL)
    const forgets = Buffer.alloc(8)
    forgets.writeUInt32LE(0xffff_ffff, 0)
    let calls = 0
    assert.equal(
      decode.decodeBatchForget(frameOf(42, forgets, Buffer.alloc(16)), () => (calls += 1)),
      ERRNO.EINVAL,
    )
    assert.equal(calls, 0)
    const xattr = Buffer.alloc(8)
    xattr.writeUInt32LE(5, 0)
    assert.equal(decode.decodeSetxattr(frameOf(21, xattr, 'user.a\0blue')), ERRNO.EINVAL)
  })

  /** Whatever comes out is a refusal, or made of safe integers, valid text and bytes of the frame. */
  function checkValue(value: unknown, frame: decode.RequestFrame): void {
    if (typeof value === 'number') assert.ok(Number.isSafeInteger(value), `${value} is a safe integer`)
    else if (typeof value === 'string') assert.ok(value.isWellFormed())
    else if (value instanceof Uint8Array) assert.ok(value.byteLength <= frame.end - 40)
    else if (typeof value === 'object' && value !== null)
      for (const part of Object.values(value)) checkValue(part, frame)
  }

  /** Decodes by every decoder, at the very end of a buffer: a read past the frame would throw. */
  function decodeAll(bytes: Uint8Array): void {
    const frame = new decode.RequestFrame(Buffer.from(bytes))
    if (!frame.load(bytes.length)) return
    for (const decoder of DECODERS) checkValue(decoder(frame), frame)
  }

  test('random bodies never throw, and never yield more than the frame has', () => {
    fc.assert(
      fc.property(fc.nat(60), fc.uint8Array({ maxLength: 160 }), (opcode, body) => {
        const bytes = Buffer.concat([Buffer.alloc(40), body])
        bytes.writeUInt32LE(bytes.length, 0)
        bytes.writeUInt32LE(opcode, 4)
        decodeAll(bytes)
      }),
      { seed: 42, numRuns: 3000 },
    )
  })

  test('mutated frames of a kernel neither', () => {
    const originals = Object.values(FRAMES).map((hex) => Buffer.from(hex, 'hex'))
    fc.assert(
      fc.property(
        fc.constantFrom(...originals),
        fc.array(fc.tuple(fc.nat(200), fc.constantFrom(0, 1, 0x7f, 0x80, 0xc3, 0xff)), { maxLength: 6 }),
        fc.integer({ min: -20, max: 20 }),
        fc.boolean(),
        (original, changes, longer, lying) => {
          const bytes = Buffer.concat([original, Buffer.alloc(20, 0x42)]).subarray(
            0,
            Math.max(0, original.length + longer),
          )
          for (const [at, byte] of changes) if (at < bytes.length) bytes[at] = byte
          if (!lying && bytes.length >= 4) bytes.writeUInt32LE(bytes.length, 0)
          decodeAll(bytes)
        },
      ),
      { seed: 42, numRuns: 5000 },
    )
  })
})
