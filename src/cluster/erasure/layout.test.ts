/** The defaults, and that each byte of a span has a place of its own where the definition of cells and stripes puts it. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { AssertionError } from '#base/assert.ts'
import { defaultRedundancy, isRedundancy, layoutSpan, piecesOf, placeOf, stripesOf } from './layout.ts'

const SEED = 42
const PAGE = 4096
const COUNT = fc.integer({ min: 1, max: 15 })
const LAYOUT = fc
  .record({ bytes: fc.integer({ min: 1, max: 40 << 20 }), data: COUNT, parity: COUNT, stripes: COUNT })
  .map(({ bytes, data, parity, stripes }) => layoutSpan(bytes, { data, parity }, stripes))

describe('the default redundancy', () => {
  it('is as much as the failure domains allow', () => {
    const expected = new Map([
      [1, '1+0'],
      [2, '1+1'],
      [3, '2+1'],
      [5, '2+1'],
      [6, '4+2'],
      [13, '4+2'],
      [14, '10+4'],
      [1000, '10+4'],
    ])
    for (const [domains, name] of expected) {
      const { data, parity } = defaultRedundancy(domains)
      assert.equal(`${data}+${parity}`, name, `${domains} domains`)
      assert(isRedundancy({ data, parity }) && data + parity <= domains)
    }
    assert.throws(() => defaultRedundancy(0), AssertionError)
  })

  it('never stands alone on one domain of several', () => {
    for (let domains = 2; domains < 40; domains++) assert(defaultRedundancy(domains).parity > 0)
  })
})

describe('a redundancy', () => {
  it('has 1 to 15 data and parity blocks, or is a single copy', () => {
    const is = (data: number, parity: number): boolean => isRedundancy({ data, parity })
    assert(is(1, 0) && is(1, 15) && is(15, 15) && is(2, 1))
    for (const [data, parity] of [
      [0, 1],
      [2, 0],
      [16, 1],
      [1, 16],
      [1.5, 1],
      [1, -1],
    ] as const) {
      assert(!is(data, parity), `${data}+${parity}`)
      assert.throws(() => layoutSpan(1, { data, parity }, 1), AssertionError)
    }
  })
})

describe('the layout of a span', () => {
  it('has as many stripes as its policy asks for, 1 to 15', () => {
    const mebibyte = 1 << 20
    assert.deepEqual(
      [1, mebibyte - 1, mebibyte, 2 * mebibyte - 1, 2 * mebibyte, 100 * mebibyte].map((bytes) =>
        stripesOf(bytes, mebibyte),
      ),
      [1, 1, 1, 1, 2, 15],
    )
  })

  it('cuts a span of 10 pages and a byte at 4+2 with two stripes into cells of two pages', () => {
    const layout = layoutSpan(10 * PAGE + 1, { data: 4, parity: 2 }, 2)
    assert.deepEqual(layout, {
      ...{ bytes: 10 * PAGE + 1, data: 4, parity: 2, stripes: 2 },
      ...{ cellBytes: 2 * PAGE, blockBytes: 4 * PAGE, paddingBytes: 6 * PAGE - 1 },
    })
    assert.deepEqual(placeOf(layout, 0), { block: 0, offset: 0 })
    assert.deepEqual(placeOf(layout, 2 * PAGE), { block: 1, offset: 0 })
    assert.deepEqual(placeOf(layout, 8 * PAGE - 1), { block: 3, offset: 2 * PAGE - 1 })
    assert.deepEqual(placeOf(layout, 10 * PAGE), { block: 1, offset: 2 * PAGE })
  })

  it('has cells of whole pages, no larger than they must be, and padding after the span', () => {
    fc.assert(
      fc.property(LAYOUT, ({ bytes, data, stripes, cellBytes, blockBytes, paddingBytes }) => {
        assert.equal(cellBytes % PAGE, 0)
        assert.equal(blockBytes, stripes * cellBytes)
        assert.equal(bytes + paddingBytes, data * blockBytes)
        assert(paddingBytes >= 0 && data * stripes * (cellBytes - PAGE) < bytes)
      }),
      { seed: SEED, numRuns: 1000 },
    )
  })

  it('puts cells into stripes row by row, and cells of a block one after the other', () => {
    fc.assert(
      fc.property(LAYOUT, fc.nat(), (layout, random) => {
        const at = random % layout.bytes
        const { block, offset } = placeOf(layout, at)
        const [stripe, inCell] = [Math.floor(offset / layout.cellBytes), offset % layout.cellBytes]
        assert(block < layout.data && stripe < layout.stripes)
        assert.equal((stripe * layout.data + block) * layout.cellBytes + inCell, at)
      }),
      { seed: SEED, numRuns: 1000 },
    )
  })

  it('gives a range by pieces that are where its bytes are, as few as there can be', () => {
    fc.assert(
      fc.property(LAYOUT, fc.nat(), fc.nat(), (layout, random, other) => {
        const at = random % layout.bytes
        const bytes = other % (layout.bytes - at + 1)
        let next = at
        let before: { block: number; end: number } | undefined
        for (const { block, offset, bytes: length, spanOffset } of piecesOf(layout, at, bytes)) {
          assert.equal(spanOffset, next)
          assert.deepEqual({ block, offset }, placeOf(layout, spanOffset))
          assert.deepEqual({ block, offset: offset + length - 1 }, placeOf(layout, spanOffset + length - 1))
          assert(before?.block !== block || before.end !== offset, 'no piece goes on where the one before ends')
          before = { block, end: offset + length }
          next += length
        }
        assert.equal(next, at + bytes)
      }),
      { seed: SEED, numRuns: 1000 },
    )
  })

  it('gives the whole of a mirrored span as one piece', () => {
    const layout = layoutSpan(100_000, { data: 1, parity: 2 }, 5)
    assert.deepEqual(piecesOf(layout, 10, 99_990), [{ block: 0, offset: 10, bytes: 99_990, spanOffset: 10 }])
  })

  it('refuses what lies outside, empty spans and numbers of stripes that there are not', () => {
    const redundancy = { data: 2, parity: 1 }
    const layout = layoutSpan(100, redundancy, 1)
    for (const at of [-1, 100, 0.5]) assert.throws(() => placeOf(layout, at), AssertionError)
    assert.throws(() => piecesOf(layout, 90, 11), AssertionError)
    for (const bytes of [0, -1, 1.5]) assert.throws(() => layoutSpan(bytes, redundancy, 1), AssertionError)
    for (const stripes of [0, 16]) assert.throws(() => layoutSpan(100, redundancy, stripes), AssertionError)
  })
})
