/**
 * The blocks of a span from its bytes: cells of data are views of the bytes, those of parity are computed, and the checksum of each
 * is taken while it is at hand. What can be had from other checksums by their algebra is not computed from bytes. No I/O.
 */
import { assert } from '#base/assert.ts'
import { crc32c, crc32cZeros } from '#cluster/erasure/crc32c.ts'
import { layoutSpan, type Redundancy, type SpanLayout } from '#cluster/erasure/layout.ts'
import { ReedSolomon } from '#cluster/erasure/reed-solomon.ts'
import { blockCrc, spanCrc, xorParityCrc } from '#cluster/erasure/span-crc.ts'

/** Computed without a turn for others: some milliseconds. */
const BYTES_A_TURN = 8 << 20

/** One block of a span: its cells one after the other. */
export interface EncodedBlock {
  readonly parts: readonly Uint8Array[]
  readonly cells: readonly number[]
  readonly crc: number
}

export interface EncodedSpan {
  readonly layout: SpanLayout
  /** Of the span. */
  readonly crc: number
  /** Data first, then parity. */
  readonly blocks: readonly EncodedBlock[]
}

/** Memory of that length, with anything in it. */
export type Allocate = (bytes: number) => Uint8Array

/** The codes that were used, which remember what they worked out. */
export class Codes {
  readonly #codes = new Map<string, ReedSolomon>()

  of({ data, parity }: Redundancy): ReedSolomon {
    const key = `${data}+${parity}`
    const code = this.#codes.get(key) ?? new ReedSolomon(data, parity)
    this.#codes.set(key, code)
    return code
  }
}

/** Bytes of memory that `encodeSpan` takes at most for a span of so many bytes. */
export function encodingBytes(bytes: number, { data, parity }: Redundancy, stripes: number): number {
  const { blockBytes, cellBytes } = layoutSpan(bytes, { data, parity }, stripes)
  return (data === 1 ? 0 : parity * blockBytes) + 2 * cellBytes
}

/**
 * Encodes a span that is not empty. The bytes must stay as they are as long as the blocks are used. It is fastest where bytes and
 * allocated memory lie in one `CodingMemory`.
 * @param turn lets others have a turn
 */
export async function encodeSpan(
  bytes: Uint8Array,
  redundancy: Redundancy,
  stripes: number,
  { codes, allocate, turn }: { codes: Codes; allocate: Allocate; turn: () => Promise<void> },
): Promise<EncodedSpan> {
  const layout = layoutSpan(bytes.length, redundancy, stripes)
  const { data, parity, cellBytes, blockBytes } = layout
  const parts: Uint8Array[][] = Array.from({ length: data + parity }, () => [])
  const crcs: number[][] = parts.map(() => [])
  const dataCells = dataCellsOf(bytes, layout, allocate)
  const parityBlocks = data === 1 ? [] : Array.from({ length: parity }, () => allocate(blockBytes))
  let computed = 0
  for (let stripe = 0; stripe < layout.stripes; stripe++) {
    const cells = dataCells.slice(stripe * data, (stripe + 1) * data)
    const sums = cells.map(({ view, zeros }) => crc32cZeros(crc32c(view.subarray(0, cellBytes - zeros)), zeros))
    const views = cells.map(({ view }) => view)
    let parityViews: Uint8Array[]
    if (data === 1) {
      // Every other block is a copy.
      parityViews = Array.from({ length: parity }, () => views[0] ?? new Uint8Array())
      for (let copy = 0; copy < parity; copy++) sums.push(sums[0] ?? 0)
    } else {
      parityViews = parityBlocks.map((block) => block.subarray(stripe * cellBytes, (stripe + 1) * cellBytes))
      codes.of(redundancy).encodeInto(views, parityViews)
      const first = xorParityCrc(layout, sums)
      sums.push(first, ...parityViews.slice(1).map((cell) => crc32c(cell)))
    }
    for (const [index, cell] of [...views, ...parityViews].entries()) {
      // Cells of parity lie in their block already.
      if (index < data || data === 1) parts[index]?.push(cell)
      crcs[index]?.push(sums[index] ?? 0)
    }
    computed += data * cellBytes
    if (computed >= BYTES_A_TURN) {
      computed = 0
      await turn()
    }
  }
  for (const [index, block] of parityBlocks.entries()) parts[data + index] = [block]
  return {
    layout,
    crc: spanCrc(layout, crcs),
    blocks: crcs.map((cells, index) => blockOf(layout, parts[index], cells)),
  }
}

interface DataCell {
  readonly view: Uint8Array
  /** How many zeros it ends with that are no bytes of the span. */
  readonly zeros: number
}

/** Row by row. Only the cell that the span ends in is copied; those after it are one cell of zeros. */
function dataCellsOf(bytes: Uint8Array, { data, stripes, cellBytes }: SpanLayout, allocate: Allocate): DataCell[] {
  let zeroCell: Uint8Array | undefined
  return Array.from({ length: data * stripes }, (_, index) => {
    const at = index * cellBytes
    if (at + cellBytes <= bytes.length) return { view: bytes.subarray(at, at + cellBytes), zeros: 0 }
    if (at < bytes.length) {
      const view = allocate(cellBytes)
      view.set(bytes.subarray(at))
      view.fill(0, bytes.length - at)
      return { view, zeros: at + cellBytes - bytes.length }
    }
    zeroCell ??= allocate(cellBytes).fill(0)
    return { view: zeroCell, zeros: cellBytes }
  })
}

function blockOf(layout: SpanLayout, parts: readonly Uint8Array[] | undefined, cells: readonly number[]): EncodedBlock {
  assert(parts !== undefined, 'there are parts of each block')
  return { parts, cells, crc: blockCrc(layout, cells) }
}
