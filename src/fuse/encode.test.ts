/**
 * Answers to exact bytes, after the structures of the kernel's header (offsets are of the whole answer: its header
 * has 16 bytes).
 */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { DirectoryReply } from './directory-reply.ts'
import * as encode from './encode.ts'
import type { DirectoryItem, EntryAnswer, NodeAttributes } from './file-system.ts'

const ATTRIBUTES: NodeAttributes = {
  node: 0x1_0000_0002,
  size: 0x12_3456_789a,
  mode: 0o100644,
  nlink: 1,
  uid: 1000,
  gid: 1001,
  rdev: 0,
  blksize: 4096,
  blocks: 7,
  atime: { seconds: -2, nanoseconds: 5 },
  mtime: { seconds: 1_700_000_000, nanoseconds: 999_999_999 },
  ctime: { seconds: 3, nanoseconds: 0 },
}
const ATTRIBUTES_HEX = [
  '0200000001000000', // ino
  '9a78563412000000', // size
  '0700000000000000', // blocks
  'feffffffffffffff', // atime
  '00f1536500000000', // mtime
  '0300000000000000', // ctime
  '05000000ffc99a3b00000000', // nanoseconds
  'a4810000', // mode
  '01000000e8030000e9030000', // nlink, uid, gid
  '000000000010000000000000', // rdev, blksize, flags
].join('')
const ENTRY: EntryAnswer = { attributes: ATTRIBUTES, attributesValidMs: 1500, generation: 9, entryValidMs: 60_000 }
const ENTRY_HEX = `020000000100000009000000000000003c000000000000000100000000000000000000000065cd1d${ATTRIBUTES_HEX}`

function reply(bytes = 1024): encode.ReplyBuffer {
  // Not zeroed: what is not written shows.
  return new encode.ReplyBuffer(Buffer.alloc(bytes, 0xee))
}
const body = ({ bytes }: encode.ReplyBuffer, length: number): string => bytes.toString('hex', 16, length)

describe('answers', () => {
  test('the header has length, negative errno and the number of the request', () => {
    const buffer = reply(16)
    encode.encodeHeader(buffer.view, 16, 2, 0x1_0000_0004)
    assert.equal(buffer.bytes.toString('hex'), '10000000feffffff0400000001000000')
  })

  test('entry', () => {
    const buffer = reply()
    const length = encode.encodeEntry(buffer.view, ENTRY)
    assert.equal(length, 144)
    assert.equal(body(buffer, length), ENTRY_HEX)
  })

  test('attributes', () => {
    const buffer = reply()
    const length = encode.encodeAttributesAnswer(buffer.view, ENTRY)
    assert.equal(body(buffer, length), `01000000000000000065cd1d00000000${ATTRIBUTES_HEX}`)
  })

  test('a name that is not there, for the kernel to remember', () => {
    const buffer = reply()
    const length = encode.encodeNegativeEntry(buffer.bytes, buffer.view, 2500)
    assert.equal(length, 144)
    assert.equal(body(buffer, length), `${'00'.repeat(16)}0200000000000000${'00'.repeat(8)}0065cd1d${'00'.repeat(92)}`)
  })

  test('a validity without end is as long as the kernel can count', () => {
    const buffer = reply()
    encode.encodeAttributesAnswer(buffer.view, { ...ENTRY, attributesValidMs: Number.POSITIVE_INFINITY })
    assert.equal(body(buffer, 28), 'ffffff7f0000000000000000')
  })

  test('open, create, size, offset', () => {
    const buffer = reply()
    const open = { handle: 77, openFlags: 2 }
    assert.equal(body(buffer, encode.encodeOpen(buffer.view, open)), '4d000000000000000200000000000000')
    const created = encode.encodeCreate(buffer.view, { ...ENTRY, ...open })
    assert.equal(body(buffer, created), `${ENTRY_HEX}4d000000000000000200000000000000`)
    const passed = { handle: 77, openFlags: 128, backing: 5 }
    assert.equal(body(buffer, encode.encodeOpen(buffer.view, passed)), '4d000000000000008000000005000000')
    assert.equal(body(buffer, encode.encodeSize(buffer.view, 4096)), '0010000000000000')
    assert.equal(body(buffer, encode.encodeOffset(buffer.view, 0x1_0000_0000)), '0000000001000000')
  })

  test('statfs', () => {
    const buffer = reply()
    const length = encode.encodeStatfs(buffer.bytes, buffer.view, {
      blockBytes: 4096,
      blocks: 5,
      blocksFree: 4,
      blocksAvailable: 3,
      files: 2,
      filesFree: 1,
      nameBytesMax: 255,
    })
    const numbers = '05000000000000000400000000000000030000000000000002000000000000000100000000000000'
    assert.equal(body(buffer, length), `${numbers}00100000ff00000000100000${'00'.repeat(28)}`)
  })

  test('init', () => {
    const buffer = reply()
    const length = encode.encodeInit(buffer.bytes, buffer.view, {
      minor: 45,
      maxReadaheadBytes: 131_072,
      flags: 0x40400029,
      flags2: 0x20,
      maxBackground: 64,
      maxWriteBytes: 1_048_576,
      maxPages: 256,
      maxStackDepth: 1,
    })
    const fixed = '070000002d0000000000020029004040400030000000100001000000000100002000000001000000'
    assert.equal(body(buffer, length), fixed + '00'.repeat(24))
  })

  test('notifications', () => {
    const hex = (message: Uint8Array): string => Buffer.from(message).toString('hex')
    assert.equal(
      hex(encode.encodeInvalidateNode(5, -1, 0)),
      '2800000002000000' + '00'.repeat(8) + '0500000000000000ffffffffffffffff0000000000000000',
    )
    assert.equal(
      hex(encode.encodeInvalidateEntry(1, 'é')),
      '2300000003000000' + '00'.repeat(8) + '01000000000000000200000000000000c3a900',
    )
    assert.equal(
      hex(encode.encodeDeleteEntry(1, 6, 'ab')),
      '2b00000006000000' + '00'.repeat(8) + '010000000000000006000000000000000200000000000000616200',
    )
  })

  test('a number that is not safe is a defect, not a wrong answer', () => {
    assert.throws(() => encode.encodeOffset(reply().view, 2 ** 53), /safe integer/)
    assert.throws(() => encode.encodeOpen(reply().view, { handle: Number.NaN, openFlags: 0 }), /safe integer/)
  })
})

describe('directory listings', () => {
  const item = (name: string, offset: number): DirectoryItem => ({ name, node: 5, mode: 0o100644, offset })

  test('names are padded to eight bytes with zeros', () => {
    const listing = new DirectoryReply(reply(), 512, false)
    assert.equal(listing.sink(item('abc', 1)), true)
    assert.equal(
      body(listing.reply, listing.length),
      '0500000000000000010000000000000003000000080000006162630000000000',
    )
  })

  test('with entries, "." and ".." and items without one are names only', () => {
    const listing = new DirectoryReply(reply(), 1000, true)
    listing.sink({ ...item('.', 1), entry: ENTRY })
    listing.sink(item('x', 2))
    listing.sink({ ...item('y', 3), entry: ENTRY })
    const nodes: number[] = []
    encode.forEachEntry(listing.reply, listing.length, (node) => nodes.push(node))
    assert.deepEqual(nodes, [ATTRIBUTES.node])
    assert.equal(listing.reply.bytes.toString('hex', 16, 16 + 128), '00'.repeat(128))
  })

  test('after the first refusal nothing is taken, though it would fit', () => {
    const listing = new DirectoryReply(reply(), 64, false)
    assert.equal(listing.sink(item('a', 1)), true)
    assert.equal(listing.sink(item('n'.repeat(30), 2)), false)
    assert.equal(listing.sink(item('b', 3)), false)
    assert.equal(listing.length, 16 + 32)
  })

  test('a listing given later keeps what was packed, in a buffer of its own', () => {
    const shared = reply()
    const listing = new DirectoryReply(shared, 512, false)
    listing.sink(item('abc', 1))
    const before = body(listing.reply, listing.length)
    listing.detach()
    shared.bytes.fill(0)
    assert.equal(body(listing.reply, listing.length), before)
    assert.equal(listing.sink(item('more', 2)), true)
  })

  test('never grows past the size asked for, and holds every item taken', () => {
    fc.assert(
      fc.property(
        fc.array(fc.string({ unit: 'binary', minLength: 1, maxLength: 85 }), { maxLength: 20 }),
        fc.nat(2000),
        fc.boolean(),
        (names, size, plus) => {
          const buffer = reply(16 + 2000)
          const listing = new DirectoryReply(buffer, size, plus)
          const taken: string[] = []
          for (const [index, name] of names.entries()) {
            if (listing.sink({ ...item(name, index + 1), entry: ENTRY })) taken.push(name)
          }
          assert.ok(listing.length <= 16 + size)
          assert.ok(buffer.bytes.subarray(16 + size).every((byte) => byte === 0xee))
          const found: string[] = []
          for (let at = 16; at < listing.length;) {
            const start = at + (plus ? 128 : 0)
            const nameBytes = buffer.view.getUint32(start + 16, true)
            found.push(buffer.bytes.toString('utf8', start + 24, start + 24 + nameBytes))
            at = start + 24 + ((nameBytes + 7) & ~7)
          }
          assert.deepEqual(found, taken)
        },
      ),
      { seed: 42, numRuns: 500 },
    )
  })
})
