import fc from 'fast-check'
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { Prefetcher } from './prefetcher.ts'
import { KIB, MIB } from './source-double.ts'

const SIZE = 4096 * MIB
const PIECE = 128 * KIB
const MAX = 64 * MIB

/** Reads and fetches as far as it wants; gives what it then wants ahead. */
function step(prefetcher: Prefetcher, offset: number, length = PIECE, windowMax = MAX): number {
  prefetcher.read(offset, offset + length)
  const to = prefetcher.target(windowMax)
  prefetcher.reached(to)
  return to
}

test('the window opens at the second read from the start, and doubles to its bound', () => {
  const it = new Prefetcher(SIZE)
  assert.equal(step(it, 0), 0)
  const windows = new Set<number>()
  for (let at = PIECE; at < 256 * MIB; at += PIECE) {
    step(it, at)
    windows.add(it.window / MIB)
  }
  assert.deepEqual([...windows], [2, 4, 8, 16, 32, 64])
  assert.equal(it.rangeBytes, 4 * MIB)
})

test('within a file three pieces in a row come first', () => {
  const it = new Prefetcher(SIZE)
  const wants = [0, 1, 2, 3].map((index) => step(it, 100 * MIB + index * PIECE))
  assert.deepEqual(
    wants.map((to) => to > 0),
    [false, false, true, false],
  )
  assert.equal(it.window, 512 * KIB)
})

test('memory that is refused halves the window, and it grows again', () => {
  const it = new Prefetcher(SIZE)
  for (let at = 0; at < 256 * MIB; at += PIECE) step(it, at)
  it.refuse(it.position)
  assert.equal(it.window, 32 * MIB)
  it.refuse(it.position)
  assert.equal(it.window, 16 * MIB)
  for (let at = 256 * MIB; at < 512 * MIB; at += PIECE) step(it, at)
  assert.equal(it.window, 64 * MIB)
})

test('small seeks go on: within the window, and 1 MiB back', () => {
  const it = new Prefetcher(SIZE)
  for (let at = 0; at < 64 * MIB; at += PIECE) step(it, at)
  assert.equal(it.read(67 * MIB, 67 * MIB + PIECE), true)
  assert.equal(it.read(66.5 * MIB, 66.5 * MIB + PIECE), true)
  assert.ok(it.window > 0)
  assert.equal(it.read(20 * MIB, 20 * MIB + PIECE), false)
  assert.equal(it.window, 0)
})

test('a jump stops it, and reading on begins anew', () => {
  const it = new Prefetcher(SIZE)
  for (let at = 0; at < 64 * MIB; at += PIECE) step(it, at)
  assert.equal(step(it, 2048 * MIB), 0)
  const wants = [1, 2, 3].map((index) => step(it, 2048 * MIB + index * PIECE))
  assert.ok(wants.some((to) => to > 0))
})

test('a strided reader is a random one, wherever it begins, until it reads on', () => {
  for (const stride of [2 * PIECE, 3 * PIECE, 8 * PIECE, 3 * MIB]) {
    const it = new Prefetcher(SIZE)
    for (let index = 0; index < 200; index++) assert.equal(step(it, index * stride), 0, `stride ${stride / PIECE}`)
    let wanted = 0
    for (let index = 1; index <= 16; index++) wanted = Math.max(wanted, step(it, 199 * stride + index * PIECE))
    assert.ok(wanted > 0, `sequential after stride ${stride / PIECE}`)
  }
})

test('a sequential reader that begins to stride is fetched ahead of no more', () => {
  const it = new Prefetcher(SIZE)
  for (let at = 0; at < 8 * MIB; at += PIECE) step(it, at)
  let last = 0
  for (let index = 0; index < 100; index++) last = step(it, 8 * MIB + index * 4 * PIECE)
  assert.equal(last, 0)
  assert.equal(it.window, 0)
})

test('a reader backward is fetched ahead of never', () => {
  const it = new Prefetcher(SIZE)
  for (let at = 1024 * MIB; at > 900 * MIB; at -= PIECE) assert.equal(step(it, at), 0)
})

test('pieces out of order and side by side are sequential', () => {
  const pieces = fc.shuffledSubarray([0, 1, 2, 3, 4, 5, 6, 7], { minLength: 8 })
  fc.assert(
    fc.property(fc.array(pieces, { minLength: 20, maxLength: 20 }), (rounds) => {
      const it = new Prefetcher(SIZE)
      rounds.forEach((order, round) => order.forEach((index) => step(it, round * MIB + index * PIECE)))
      assert.ok(it.window >= 2 * MIB)
      assert.equal(it.position, 20 * MIB)
    }),
    { seed: 3, numRuns: 200 },
  )
})

test('a random reader of a large file is fetched ahead of at most now and then', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 0, max: SIZE / PIECE - 1 }), { minLength: 50, maxLength: 200 }),
      (blocks) => {
        const it = new Prefetcher(SIZE)
        let wanted = 0
        for (const block of blocks) if (step(it, block * PIECE) > 0) wanted++
        assert.ok(wanted * 20 <= blocks.length, `${wanted} of ${blocks.length}`)
      },
    ),
    { seed: 3, numRuns: 300 },
  )
})

test('whatever is read, refused and taken back: what is wanted lies within the file, the window and the bound', () => {
  const act = fc.record({
    what: fc.constantFrom('on', 'jump', 'skip', 'back', 'refuse'),
    bytes: fc.integer({ min: 1, max: 2 * MIB }),
    max: fc.integer({ min: 0, max: 100 * MIB }),
  })
  fc.assert(
    fc.property(fc.array(act, { maxLength: 100 }), fc.integer({ min: 1, max: 300 * MIB }), (acts, size) => {
      const it = new Prefetcher(size)
      let at = 0
      let nearby = 0
      for (const { what, bytes, max } of acts) {
        if (what === 'refuse') {
          it.refuse(Math.max(0, it.position) + bytes)
          continue
        }
        if (what === 'jump') at = (at + bytes * 97) % size
        else if (what === 'skip') at += bytes
        else if (what === 'back') at = Math.max(0, at - bytes)
        if (at >= size) at = 0
        const end = Math.min(size, at + bytes)
        nearby++
        if (!it.read(at, end)) nearby = 1
        const to = it.target(max)
        assert.ok(Number.isInteger(to) && to <= size)
        if (to > 0) {
          assert.ok(nearby > 1, 'two reads near each other')
          assert.ok(to - it.position <= Math.min(MAX, max))
          assert.ok(it.rangeBytes >= PIECE && it.rangeBytes % PIECE === 0)
          it.reached(to)
        }
        at = end
      }
    }),
    { seed: 3, numRuns: 500 },
  )
})
