import assert from 'node:assert/strict'
import { createHmac, randomBytes } from 'node:crypto'
import { test } from 'node:test'

import fc from 'fast-check'

import { isOperationError } from '#base/errors.ts'
import { BufferMemory } from '#cluster/erasure/buffer-memory.ts'

import { malformed } from './codec.ts'
import { farewellOf, saidBy } from './farewell.ts'
import { FrameBatch } from './frame-batch.ts'
import { FAREWELL, type FrameKind, FrameReader, HEADER_BYTES, headerOf, MESSAGE, PING } from './frame-reader.ts'
import { FrameSeal, isMac, MAC_BYTES } from './frame-seal.ts'

const KEY = Buffer.alloc(32, 0x5a)
const SEED = { seed: 20_260_101, numRuns: 300 }

interface Frame {
  readonly kind: FrameKind
  readonly frame: Buffer
}

function reader(sealed: boolean, frameBytesMax = 1 << 20): { readonly reader: FrameReader; readonly frames: Frame[] } {
  const frames: Frame[] = []
  const seal = sealed ? new FrameSeal(KEY) : undefined
  return {
    reader: new FrameReader({ frameBytesMax, seal, onFrame: (kind, frame) => frames.push({ kind, frame }) }),
    frames,
  }
}

function written(frames: readonly (readonly Uint8Array[])[], sealed: boolean): Buffer {
  const batch = new FrameBatch()
  for (const parts of frames) batch.add(MESSAGE, parts)
  const bytes = Buffer.concat(batch.take(sealed ? new FrameSeal(KEY) : undefined))
  assert.equal(batch.bytes, 0)
  return bytes
}

function codeOf(action: () => void): unknown {
  try {
    action()
    return 'none'
  } catch (error) {
    return isOperationError(error) ? error.code : error
  }
}

const parts = fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 4 })

for (const sealed of [false, true]) {
  test(`frames come out as they went in, wherever the stream is split (${sealed ? 'sealed' : 'plain'})`, () => {
    const lengths = [0, 1, 3, 4, 5, 200, 9000, 40_000]
    const sent = lengths.map((length) => [randomBytes(length)])
    const bytes = written(sent, sealed)
    const wanted = sent.map(([frame]) => frame)
    for (let cut = 0; cut <= bytes.length; cut += cut < 600 ? 1 : 97) {
      const one = reader(sealed)
      one.reader.push(Buffer.from(bytes.subarray(0, cut)))
      one.reader.push(Buffer.from(bytes.subarray(cut)))
      assert.deepEqual(
        one.frames.map(({ frame }) => frame),
        wanted,
        `cut at ${cut}`,
      )
    }
    const single = reader(sealed)
    for (const byte of bytes) single.reader.push(Buffer.of(byte))
    assert.deepEqual(
      single.frames.map(({ frame }) => frame),
      wanted,
    )
  })

  test(`a frame that comes in pieces lies in the memory that there is for it (${sealed ? 'sealed' : 'plain'})`, () => {
    const memory = new BufferMemory(1 << 20)
    const frames: Buffer[] = []
    const seal = sealed ? new FrameSeal(KEY) : undefined
    const one = new FrameReader({ frameBytesMax: 1 << 20, seal, memory, onFrame: (_, frame) => frames.push(frame) })
    const sent = [5, 300_000, 200_000, 250_000].map((length) => randomBytes(length))
    const bytes = written(
      sent.map((frame) => [frame]),
      sealed,
    )
    // All of the third in one chunk, and the last one never whole.
    const third = 5 + 300_000 + 2 * (HEADER_BYTES + (sealed ? MAC_BYTES : 0))
    const cuts = [0, 100_000, 300_000, third, bytes.length - 100_000, bytes.length - 10]
    for (const [index, cut] of cuts.slice(1).entries()) one.push(Buffer.from(bytes.subarray(cuts[index], cut)))
    assert.deepEqual(frames, sent.slice(0, 3))
    assert.deepEqual(
      frames.map((frame) => memory.isLent(frame)),
      [false, true, false],
    )
    const giveBack = one.stop()
    assert.ok(memory.bytesLent > 550_000)
    giveBack()
    for (const frame of frames) memory.give(frame)
    assert.equal(memory.bytesLent, 0)
  })

  test(`any frames of any parts in any chunks (${sealed ? 'sealed' : 'plain'})`, () => {
    fc.assert(
      fc.property(fc.array(parts, { maxLength: 8 }), fc.array(fc.nat(700), { maxLength: 12 }), (frames, chunks) => {
        const bytes = written(frames, sealed)
        const one = reader(sealed)
        let at = 0
        for (const size of chunks) {
          one.reader.push(bytes.subarray(at, at + size))
          at += size
        }
        one.reader.push(bytes.subarray(at))
        assert.deepEqual(
          one.frames.map(({ frame }) => Buffer.from(frame)),
          frames.map((of) => Buffer.concat(of)),
        )
      }),
      SEED,
    )
  })

  test(`random bytes give frames or an error of the wire, nothing else (${sealed ? 'sealed' : 'plain'})`, () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(200), (bytes, cut) => {
        const one = reader(sealed, 100)
        const code = codeOf(() => {
          one.reader.push(Buffer.from(bytes.subarray(0, cut)))
          one.reader.push(Buffer.from(bytes.subarray(cut)))
        })
        assert.ok(code === 'none' || code === 'WIRE_MALFORMED' || (sealed && code === 'WIRE_REFUSED'), String(code))
        if (sealed) assert.equal(one.frames.length, 0)
      }),
      SEED,
    )
  })
}

test('a flipped bit anywhere in sealed frames is found, and what came before it is given out', () => {
  const sent = [randomBytes(20), randomBytes(0), randomBytes(50)].map((frame) => [frame])
  const bytes = written(sent, true)
  const ends = [4 + 20 + MAC_BYTES, 8 + 20 + 2 * MAC_BYTES, bytes.length]
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const damaged = Buffer.from(bytes)
    const at = bit >>> 3
    damaged[at] = (damaged[at] ?? 0) ^ (1 << (bit & 7))
    for (const chunk of [bytes.length, 7]) {
      const one = reader(true)
      const code = codeOf(() => {
        for (let from = 0; from < damaged.length; from += chunk) one.reader.push(damaged.subarray(from, from + chunk))
      })
      const whole = ends.filter((end) => end <= at).length
      assert.equal(one.frames.length, whole)
      // A longer length may ask for more than there is.
      const isLength = [0, ends[0] ?? 0, ends[1] ?? 0].some((start) => at >= start && at < start + 4)
      assert.ok(
        code === 'WIRE_REFUSED' || (isLength && (code === 'none' || code === 'WIRE_MALFORMED')),
        `bit ${bit}: ${String(code)}`,
      )
    }
  }
})

test('a sealed frame left out, sent twice, swapped or turned round is found', () => {
  const batch = new FrameBatch()
  const seal = new FrameSeal(KEY)
  const [first, second] = [1, 2].map((value) => {
    batch.add(MESSAGE, [Buffer.alloc(10, value)])
    return Buffer.concat(batch.take(seal))
  })
  assert.ok(first !== undefined && second !== undefined)
  const streams: [string, Buffer[], number][] = [
    ['left out', [second], 0],
    ['twice', [first, first], 1],
    ['swapped', [second, first], 0],
    ['as it was', [first, second], 2],
  ]
  for (const [name, stream, count] of streams) {
    const one = reader(true)
    assert.equal(
      codeOf(() => one.reader.push(Buffer.concat(stream))),
      count === 2 ? 'none' : 'WIRE_REFUSED',
      name,
    )
    assert.equal(one.frames.length, count, name)
  }
  const other = new FrameReader({
    frameBytesMax: 100,
    seal: new FrameSeal(Buffer.alloc(32, 1)),
    onFrame: () => assert.fail('of another direction'),
  })
  assert.equal(
    codeOf(() => other.push(first)),
    'WIRE_REFUSED',
  )
})

test('a length beyond the bound is refused by its header alone, and so are unknown kinds', () => {
  const header = Buffer.alloc(4)
  const headers: [number, string][] = [
    [headerOf(MESSAGE, 100), 'none'],
    [headerOf(MESSAGE, 101), 'WIRE_MALFORMED'],
    [headerOf(PING, 0), 'none'],
    [headerOf(PING, 1), 'WIRE_MALFORMED'],
    [headerOf(FAREWELL, 256), 'none'],
    [headerOf(FAREWELL, 257), 'WIRE_MALFORMED'],
    [3 * 2 ** 28, 'WIRE_MALFORMED'],
    [0xffff_ffff, 'WIRE_MALFORMED'],
  ]
  for (const [value, code] of headers) {
    header.writeUInt32LE(value)
    assert.equal(
      codeOf(() => reader(false, 100).reader.push(Buffer.from(header))),
      code,
      String(value),
    )
  }
})

test('frames within a chunk are views of it, and a large one has one buffer of its length', () => {
  const small = written([[randomBytes(200)], [randomBytes(300)]], false)
  const one = reader(false)
  one.reader.push(small)
  assert.ok(one.frames.every(({ frame }) => frame.buffer === small.buffer))
  const large = written([[randomBytes(500_000)]], false)
  const other = reader(false)
  for (let at = 0; at < large.length; at += 65_536) other.reader.push(large.subarray(at, at + 65_536))
  assert.equal(other.frames[0]?.frame.buffer.byteLength, 500_000)
})

test('a reader that is stopped by the frame it gives out gives out no other', () => {
  const frames: Buffer[] = []
  const stopping: FrameReader = new FrameReader({
    frameBytesMax: 100,
    seal: undefined,
    onFrame: (_kind, frame) => {
      frames.push(frame)
      stopping.stop()
    },
  })
  stopping.push(written([[Buffer.of(1)], [Buffer.of(2)]], false))
  assert.deepEqual(frames, [Buffer.of(1)])
})

test('a batch copies small parts into one buffer and hands large ones on', () => {
  const batch = new FrameBatch()
  const large = randomBytes(100_000)
  for (let count = 0; count < 1000; count++) batch.add(MESSAGE, [Buffer.of(1, 2), Buffer.of(3)])
  assert.equal(batch.bytes, 7000)
  assert.equal(batch.take(undefined).length, 1)
  batch.add(MESSAGE, [Buffer.of(1), large])
  batch.add(MESSAGE, [Buffer.of(2)])
  const buffers = batch.take(new FrameSeal(KEY))
  assert.equal(buffers.length, 3)
  assert.equal(buffers[1], large)
})

test('the MAC is the HMAC-SHA-256 over counter, header and frame, in one piece or in many, short or long', () => {
  const once = new FrameSeal(KEY)
  const grown = new FrameSeal(KEY)
  for (const [index, length] of [0, 1, 52, 8191, 8192, 8193, 100_000].entries()) {
    const frame = randomBytes(length)
    const header = headerOf(MESSAGE, length)
    const head = Buffer.alloc(12)
    head.writeBigUInt64LE(BigInt(index))
    head.writeUInt32LE(header, 8)
    const wanted = createHmac('sha256', KEY).update(head).update(frame).digest().subarray(0, MAC_BYTES)
    const half = length >> 1
    assert.ok(isMac(once.of(header, [frame.subarray(0, half), frame.subarray(half)], length), wanted, 0))
    const mac = grown.begin(header)
    mac.add(frame.subarray(0, half))
    mac.add(frame.subarray(half))
    assert.ok(isMac(mac.finish(), wanted, 0))
  }
  assert.ok(!isMac('\0'.repeat(MAC_BYTES), Buffer.alloc(MAC_BYTES - 1), 0), 'bytes that are not there are none')
})

test('the last frame says why, in plain text of bounded length', () => {
  const said = saidBy('host:1', farewellOf(malformed(`\u001B[31m${'é'.repeat(500)}`)))
  assert.equal(said.code, 'WIRE_MALFORMED')
  assert.match(said.message, /host:1 any more: it says "Cannot read a message: \?\[31m\?+"$/)
  const evil = Buffer.concat([Buffer.of(1, 7), Buffer.from('\u001B[2Jabc')])
  assert.equal(saidBy('host:1', evil).message, 'Cannot talk to host:1 any more: it says "?[2Jabc"')
  assert.equal(
    codeOf(() => saidBy('host:1', Buffer.of(9, 0))),
    'WIRE_MALFORMED',
  )
})
