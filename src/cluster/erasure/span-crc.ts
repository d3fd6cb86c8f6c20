/**
 * What the CRCs of a span's cells say about each other, so that who stores a span's record can check it without a byte of data: the data
 * cells one after the other are the span and its padding; copies are equal; the first parity is the XOR of the data. Of other parity
 * nothing can be said this way, since the CRC is linear over GF(2) and those are linear over GF(2^8) only.
 */
import { assert } from '#base/assert.ts'
import { crc32cAppend, crc32cWithoutZeros, crc32cXor } from './crc32c.ts'
import type { SpanLayout } from './layout.ts'

/** By block, data first, then parity: the CRC of its cell of each stripe. */
export type CellCrcs = readonly ArrayLike<number>[]

/** What does not fit: there are not as many CRCs as cells; the span's is another; a copy differs; the first parity is no XOR. */
export type SpanFlaw = 'count' | 'span' | 'copy' | 'parity'

/** The CRC of the span's own bytes, without the padding. */
export function spanCrc(layout: SpanLayout, cells: CellCrcs): number {
  let crc = 0
  for (let stripe = 0; stripe < layout.stripes; stripe++) {
    for (const cell of stripeOf(layout, cells, stripe)) crc = crc32cAppend(crc, cell, layout.cellBytes)
  }
  return crc32cWithoutZeros(crc, layout.paddingBytes)
}

/** The CRC of a block, from those of its cells. */
export function blockCrc(layout: SpanLayout, cells: ArrayLike<number>): number {
  let crc = 0
  for (let stripe = 0; stripe < layout.stripes; stripe++)
    crc = crc32cAppend(crc, cellOf(cells, stripe), layout.cellBytes)
  return crc
}

/** The CRC of the first parity cell of a stripe, from those of its data cells. */
export function xorParityCrc(layout: SpanLayout, dataCells: readonly number[]): number {
  return dataCells.reduce((a, b) => crc32cXor(a, b, layout.cellBytes))
}

/** What is wrong with the CRCs that a client says a span and its cells have, undefined where all fits that can be checked. */
export function findSpanFlaw(layout: SpanLayout, crc: number, cells: CellCrcs): SpanFlaw | undefined {
  const { data, parity, stripes } = layout
  if (cells.length !== data + parity || cells.some(({ length }) => length !== stripes)) return 'count'
  if (spanCrc(layout, cells) !== crc) return 'span'
  for (let stripe = 0; stripe < stripes; stripe++) {
    const dataCells = stripeOf(layout, cells, stripe)
    const parityCells = cells.slice(data).map((block) => cellOf(block, stripe))
    if (data === 1 && parityCells.some((cell) => cell !== dataCells[0])) return 'copy'
    if (parity > 0 && parityCells[0] !== xorParityCrc(layout, dataCells)) return 'parity'
  }
  return undefined
}

function stripeOf({ data }: SpanLayout, cells: CellCrcs, stripe: number): number[] {
  return cells.slice(0, data).map((block) => cellOf(block, stripe))
}

function cellOf(block: ArrayLike<number>, stripe: number): number {
  const crc = block[stripe]
  assert(crc !== undefined, 'there is a CRC of each cell')
  return crc
}
