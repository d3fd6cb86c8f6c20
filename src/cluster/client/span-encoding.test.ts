import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'

import { madeUp } from '#cluster/block/disk-fixture.ts'
import { crc32c } from '#cluster/erasure/crc32c.ts'
import { ReedSolomon } from '#cluster/erasure/reed-solomon.ts'
import { findSpanFlaw } from '#cluster/erasure/span-crc.ts'

import { Codes, type EncodedSpan, encodeSpan, encodingBytes } from './span-encoding.ts'
import { SpanMemory, SpanRoom } from './span-memory.ts'

const turn = (): Promise<void> => Promise.resolve()

function bytesOf({ blocks }: EncodedSpan): Buffer[] {
  return blocks.map(({ parts }) => Buffer.concat(parts))
}

test('the blocks of a span are its bytes and their parity, with checksums that are theirs', async () => {
  const redundancies = [
    [1, 0],
    [1, 3],
    [2, 1],
    [4, 2],
    [10, 4],
  ] as const
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...redundancies),
      fc.integer({ min: 1, max: 15 }),
      fc.integer({ min: 1, max: 300_000 }),
      fc.boolean(),
      async ([data, parity], stripes, size, isLent) => {
        const bytes = madeUp(size, size)
        const room = new SpanRoom(size + encodingBytes(size, { data, parity }, stripes))
        const given = isLent ? room.allocate(size) : bytes
        given.set(bytes)
        const allocate = (count: number): Uint8Array => room.allocate(count).fill(0xee)
        const encoded = await encodeSpan(given, { data, parity }, stripes, { codes: new Codes(), allocate, turn })
        const { layout, crc } = encoded
        const blocks = bytesOf(encoded)
        assert.equal(crc, crc32c(bytes))
        assert.equal(
          findSpanFlaw(
            layout,
            crc,
            encoded.blocks.map(({ cells }) => cells),
          ),
          undefined,
        )
        const rows: Buffer[] = []
        for (let stripe = 0; stripe < stripes; stripe++) {
          const [low, high] = [stripe * layout.cellBytes, (stripe + 1) * layout.cellBytes]
          for (const block of blocks.slice(0, data)) rows.push(block.subarray(low, high))
        }
        assert.ok(Buffer.concat(rows).equals(Buffer.concat([bytes, Buffer.alloc(layout.paddingBytes)])))
        if (parity > 0) {
          const expected = new ReedSolomon(data, parity).encode(blocks.slice(0, data))
          assert.ok(Buffer.concat(expected).equals(Buffer.concat(blocks.slice(data))))
        }
        for (const [index, block] of blocks.entries()) assert.equal(encoded.blocks[index]?.crc, crc32c(block))
      },
    ),
    { seed: 7, numRuns: 60 },
  )
})

test('bytes that are lent and their parity lie in one coding memory, and none of the bytes is copied but the last cell', async () => {
  const size = 1_000_000
  const room = new SpanRoom(size + encodingBytes(size, { data: 4, parity: 2 }, 3))
  const bytes = room.allocate(size)
  const allocate = (count: number): Uint8Array => room.allocate(count)
  const { blocks } = await encodeSpan(bytes, { data: 4, parity: 2 }, 3, { codes: new Codes(), allocate, turn })
  const parts = blocks.flatMap((block) => block.parts)
  for (const part of parts) assert.equal(part.buffer, bytes.buffer)
  const within = parts.filter(
    ({ byteOffset }) => byteOffset < bytes.byteOffset + size && byteOffset >= bytes.byteOffset,
  )
  assert.equal(within.length, 11)
})

test('as many spans have memory as may, the others in the order of asking, and memory is used again', async () => {
  const memory = new SpanMemory(2)
  const [first, second] = [await memory.take(1000), await memory.take(1000)]
  const order: number[] = []
  const third = memory.take(500).then((room) => (order.push(3), room))
  const leaving = new AbortController()
  const fourth = memory.take(500, leaving.signal)
  const fifth = memory.take(2000).then((room) => (order.push(5), room))
  leaving.abort()
  await assert.rejects(fourth, { code: 'ABORTED' })
  assert.deepEqual(order, [])
  memory.give(second)
  assert.equal(await third, second)
  memory.give(first)
  const last = await fifth
  assert.deepEqual(order, [3, 5])
  assert.ok(last !== first && last.capacity === 2000)
})
