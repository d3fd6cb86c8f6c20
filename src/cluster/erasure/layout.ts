/**
 * Where the bytes of a span lie. A span is cut into cells of one size, which fill S stripes, each of D data cells row by row, and of P
 * parity cells computed from them; block i is cell i of all stripes, one after the other, and goes to one disk. What the last
 * cells hold beyond the span is zero. So a reader can fetch one stripe, a range of each block, and any D blocks give all. Numbers alone: no bytes, no I/O.
 */
import { assert } from '#base/assert.ts'

/** Blocks of data and blocks of parity of a span; no parity only beside one data block, which then is a single copy. */
export interface Redundancy {
  readonly data: number
  readonly parity: number
}

/** How a span is cut. */
export interface SpanLayout extends Redundancy {
  /** Of the span itself. */
  readonly bytes: number
  readonly stripes: number
  /** A multiple of the page. */
  readonly cellBytes: number
  /** Of each block: a cell for each stripe. */
  readonly blockBytes: number
  /** Zeros after the span in its data cells. */
  readonly paddingBytes: number
}

/** A range of a block, and of the span that lies there. */
export interface Piece {
  readonly block: number
  readonly offset: number
  readonly bytes: number
  readonly spanOffset: number
}

/** Disk pages, each of which has its own checksum. */
export const PAGE_BYTES = 4096
/** Of data or of parity blocks. */
const REDUNDANCY_MAX = 15
export const STRIPES_MAX = 15

/** From how many failure domains on which redundancy is the default: as much as lets a whole domain fail, and two or more from six on. */
const DEFAULTS: readonly (Redundancy & { readonly domainsMin: number })[] = [
  { domainsMin: 14, data: 10, parity: 4 },
  { domainsMin: 6, data: 4, parity: 2 },
  { domainsMin: 3, data: 2, parity: 1 },
  { domainsMin: 2, data: 1, parity: 1 },
  { domainsMin: 1, data: 1, parity: 0 },
]

/** The redundancy of a cluster of so many failure domains, at least one, where no policy says another. */
export function defaultRedundancy(domains: number): Redundancy {
  const found = DEFAULTS.find(({ domainsMin }) => domains >= domainsMin)
  assert(found !== undefined, 'a cluster that stores blocks has a failure domain')
  return { data: found.data, parity: found.parity }
}

/** Whether a redundancy is one that spans can have. */
export function isRedundancy({ data, parity }: Redundancy): boolean {
  return isCount(data, 1, REDUNDANCY_MAX) && isCount(parity, data === 1 ? 0 : 1, REDUNDANCY_MAX)
}

/** How many stripes a span has whose policy asks for stripes of that many bytes. */
export function stripesOf(spanBytes: number, stripeBytes: number): number {
  return Math.min(STRIPES_MAX, Math.max(1, Math.floor(spanBytes / stripeBytes)))
}

/** Cuts a span that is not empty. */
export function layoutSpan(
  bytes: number,
  { data, parity }: Redundancy,
  stripes: number,
  pageBytes = PAGE_BYTES,
): SpanLayout {
  assert(Number.isSafeInteger(bytes) && bytes > 0, 'a span that is stored in blocks has bytes')
  assert(isRedundancy({ data, parity }), 'a redundancy has 1 to 15 data blocks and 1 to 15 of parity, or is one copy')
  assert(isCount(stripes, 1, STRIPES_MAX), 'a span has 1 to 15 stripes')
  const cellBytes = Math.ceil(Math.ceil(bytes / (data * stripes)) / pageBytes) * pageBytes
  const blockBytes = stripes * cellBytes
  return { bytes, data, parity, stripes, cellBytes, blockBytes, paddingBytes: data * blockBytes - bytes }
}

/** Where a byte of the span lies: in which data block, and where in that. */
export function placeOf(layout: SpanLayout, spanOffset: number): { readonly block: number; readonly offset: number } {
  const { bytes, data, cellBytes } = layout
  assert(Number.isSafeInteger(spanOffset) && spanOffset >= 0 && spanOffset < bytes, 'a byte lies in its span')
  const cell = Math.floor(spanOffset / cellBytes)
  return { block: cell % data, offset: Math.floor(cell / data) * cellBytes + (spanOffset % cellBytes) }
}

/** The ranges of blocks that hold a range of the span, in its order; where one follows another in the same block, they are one. */
export function piecesOf(layout: SpanLayout, spanOffset: number, bytes: number): Piece[] {
  const end = spanOffset + bytes
  assert(bytes >= 0 && end <= layout.bytes, 'a range lies in its span')
  const pieces: Piece[] = []
  for (let at = spanOffset; at < end;) {
    const { block, offset } = placeOf(layout, at)
    const length = Math.min(end - at, layout.cellBytes - (offset % layout.cellBytes))
    const last = pieces.at(-1)
    if (last !== undefined && last.block === block && last.offset + last.bytes === offset) {
      pieces[pieces.length - 1] = { ...last, bytes: last.bytes + length }
    } else pieces.push({ block, offset, bytes: length, spanOffset: at })
    at += length
  }
  return pieces
}

function isCount(value: number, min: number, max: number): boolean {
  return Number.isInteger(value) && value >= min && value <= max
}
