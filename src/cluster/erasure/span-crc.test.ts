/** The CRCs that are derived, against those of the bytes; and that any other CRC is noticed where the algebra reaches. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { crc32c } from './crc32c.ts'
import { layoutSpan, placeOf, type SpanLayout } from './layout.ts'
import { pseudoRandom } from './pseudo-random.ts'
import { ReedSolomon } from './reed-solomon.ts'
import { blockCrc, findSpanFlaw, spanCrc, xorParityCrc } from './span-crc.ts'

const SEED = 5
/** Small pages, so that there are many cells and little to compute. */
const PAGE = 16

interface Written {
  readonly layout: SpanLayout
  readonly span: Uint8Array
  readonly blocks: readonly Uint8Array[]
  /** By block, then by stripe. */
  readonly cells: readonly Uint32Array[]
}

/** A span as a client writes it. */
function written(span: Uint8Array, data: number, parity: number, stripes: number): Written {
  const layout = layoutSpan(span.length, { data, parity }, stripes, PAGE)
  const dataBlocks = Array.from({ length: data }, () => new Uint8Array(layout.blockBytes))
  for (const [at, byte] of span.entries()) {
    const { block, offset } = placeOf(layout, at)
    dataBlocks[block]?.fill(byte, offset, offset + 1)
  }
  const blocks = [...dataBlocks, ...(parity === 0 ? [] : new ReedSolomon(data, parity).encode(dataBlocks))]
  const cells = blocks.map((block) =>
    Uint32Array.from({ length: stripes }, (_, stripe) =>
      crc32c(block.subarray(stripe * layout.cellBytes, (stripe + 1) * layout.cellBytes)),
    ),
  )
  return { layout, span, blocks, cells }
}

const COUNT = fc.integer({ min: 1, max: 15 })
const WRITTEN = fc
  .record({
    bytes: fc.integer({ min: 1, max: 4000 }),
    data: COUNT,
    parity: fc.nat(15),
    stripes: COUNT,
    seed: fc.integer(),
  })
  .map(({ bytes, data, parity, stripes, seed }) =>
    written(pseudoRandom(seed, bytes), data, data === 1 ? parity : Math.max(1, parity), stripes),
  )

describe('the CRCs of a span', () => {
  it('follow from those of its cells', () => {
    fc.assert(
      fc.property(WRITTEN, ({ layout, span, blocks, cells }) => {
        assert.equal(spanCrc(layout, cells), crc32c(span))
        for (const [index, block] of blocks.entries()) assert.equal(blockCrc(layout, cells[index] ?? []), crc32c(block))
        assert.equal(findSpanFlaw(layout, crc32c(span), cells), undefined)
        if (layout.parity === 0) return
        const first = cells.slice(0, layout.data).map((block) => block[0] ?? 0)
        assert.equal(xorParityCrc(layout, first), cells[layout.data]?.[0])
      }),
      { seed: SEED, numRuns: 300 },
    )
  })

  it('are found wrong when that of a data cell, of the first parity or of a copy is another', () => {
    fc.assert(
      fc.property(WRITTEN, fc.nat(), fc.nat(), fc.integer({ min: 1, max: 0xffffffff }), (given, one, other, change) => {
        const { layout, span, cells } = given
        const checked = layout.data === 1 ? layout.parity + 1 : layout.data + 1
        const [block, stripe] = [one % checked, other % layout.stripes]
        const changed = cells.map((crcs, index) =>
          index === block ? crcs.map((crc, at) => (at === stripe ? crc ^ change : crc)) : crcs,
        )
        const flaw = block < layout.data ? 'span' : layout.data === 1 ? 'copy' : 'parity'
        assert.equal(findSpanFlaw(layout, crc32c(span), changed), flaw)
      }),
      { seed: SEED, numRuns: 300 },
    )
  })

  it('are found wrong when the span is another, or when there are not as many as cells', () => {
    const { layout, span, cells } = written(pseudoRandom(1, 1000), 4, 2, 3)
    assert.equal(findSpanFlaw(layout, crc32c(span) ^ 1, cells), 'span')
    assert.equal(findSpanFlaw(layout, crc32c(span), cells.slice(1)), 'count')
    assert.equal(findSpanFlaw(layout, crc32c(span), [...cells.slice(1), new Uint32Array(2)]), 'count')
  })

  it('are found wrong when the padding is not zero', () => {
    const { layout, span, blocks } = written(pseudoRandom(2, 1000), 2, 1, 1)
    const last = blocks[1]
    assert(last !== undefined && layout.paddingBytes > 0)
    last[layout.blockBytes - 1] = 1
    const all = [...blocks.slice(0, 2), ...new ReedSolomon(2, 1).encode(blocks.slice(0, 2))]
    const cells = all.map((block) => [crc32c(block)])
    assert.equal(findSpanFlaw(layout, crc32c(span), cells), 'span')
  })
})
