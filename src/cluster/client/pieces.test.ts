/** Bytes and holes in pieces: whatever they are cut into, what comes out is what went in. */
import assert from 'node:assert/strict'
import { test } from 'node:test'

import fc from 'fast-check'

import { SPAN_BYTES_MAX } from '#cluster/wire/forms.ts'

import { isHole, type Piece, PieceQueue } from './pieces.ts'

/** Gives each piece in the same memory, as sources may. */
async function* given(pieces: readonly Piece[]): AsyncGenerator<Piece> {
  const memory = Buffer.alloc(64)
  for (const piece of pieces) {
    if (isHole(piece)) yield piece
    else {
      memory.set(piece)
      yield memory.subarray(0, piece.length)
      memory.fill(0xee)
    }
  }
}

/** Holes as what they stand for. */
function bytesOf(pieces: readonly Piece[]): Buffer {
  return Buffer.concat(pieces.map((piece) => (isHole(piece) ? Buffer.alloc(piece.zeros) : piece)))
}

const PIECE: fc.Arbitrary<Piece> = fc.oneof(
  { weight: 3, arbitrary: fc.uint8Array({ maxLength: 64 }) },
  { weight: 1, arbitrary: fc.record({ zeros: fc.integer({ min: 1, max: 40 }) }) },
)

test('what is taken in portions of any size is what was given', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(PIECE, { maxLength: 12 }), fc.nat(200), fc.integer({ min: 1, max: 70 }), check),
    { seed: 12, numRuns: 1000 },
  )
})

async function check(pieces: Piece[], wholeMax: number, portion: number): Promise<void> {
  const queue = new PieceQueue(given(pieces))
  const all = bytesOf(pieces)
  const whole = await queue.whole(wholeMax)
  if (whole !== undefined) {
    assert.ok(!pieces.some(isHole) && all.length <= wholeMax)
    assert.deepEqual(whole, all)
    return
  }
  assert.ok(pieces.some(isHole) || all.length > wholeMax)
  const taken: Piece[] = []
  for (let next = await queue.next(); next !== undefined; next = await queue.next()) {
    if (next === 'hole') taken.push({ zeros: queue.takeHole() })
    else {
      const memory = Buffer.alloc(portion)
      const count = await queue.fill(memory)
      assert.ok(count > 0)
      taken.push(memory.subarray(0, count))
    }
  }
  assert.deepEqual(bytesOf(taken), all)
  assert.equal(queue.taken, all.length)
  const holes = (of: readonly Piece[]): number[] => of.filter(isHole).map(({ zeros }) => zeros)
  assert.deepEqual(holes(taken), holes(pieces))
}

test('a hole that is larger than a span is taken in several', async () => {
  const queue = new PieceQueue(given([{ zeros: 2 * SPAN_BYTES_MAX + 5 }]))
  assert.equal(await queue.whole(100), undefined)
  const sizes: number[] = []
  while ((await queue.next()) === 'hole') sizes.push(queue.takeHole())
  assert.deepEqual(sizes, [SPAN_BYTES_MAX, SPAN_BYTES_MAX, 5])
})
