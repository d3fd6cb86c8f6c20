/**
 * The checksums of a block: one crc32c a page of 4 KiB, the last page perhaps short, and one of the whole, which is worked out
 * from those of the pages: every byte is looked at once.
 */
import { assert } from '#base/assert.ts'

import { crc32c, crc32cAppend, crc32cPages } from '#cluster/erasure/crc32c.ts'

export const PAGE_BYTES = 4096

export function pageCount(size: number): number {
  return Math.ceil(size / PAGE_BYTES)
}

/** Four tables of 256: what each byte of a crc becomes when a page of zeros follows. The same for all blocks. */
const pageShift = makePageShift()

function makePageShift(): Uint32Array {
  const bits = Array.from({ length: 32 }, (_, bit) => crc32cAppend((1 << bit) >>> 0, 0, PAGE_BYTES))
  const table = new Uint32Array(1024)
  for (let index = 0; index < 1024; index++) {
    const first = (index >>> 8) * 8
    let sum = 0
    for (let bit = 0; bit < 8; bit++) if (((index >>> bit) & 1) === 1) sum ^= bits[first + bit] ?? 0
    table[index] = sum
  }
  return table
}

/** The crc of the whole from those of its pages. */
export function wholeOf(sums: Uint32Array, size: number): number {
  const whole = Math.floor(size / PAGE_BYTES)
  let crc = 0
  for (let page = 0; page < whole; page++) {
    crc =
      (pageShift[crc & 0xff] ?? 0) ^
      (pageShift[256 + ((crc >>> 8) & 0xff)] ?? 0) ^
      (pageShift[512 + ((crc >>> 16) & 0xff)] ?? 0) ^
      (pageShift[768 + (crc >>> 24)] ?? 0) ^
      (sums[page] ?? 0)
  }
  return size % PAGE_BYTES === 0 ? crc >>> 0 : crc32cAppend(crc >>> 0, sums[whole] ?? 0, size % PAGE_BYTES)
}

/** Takes the bytes of a block in pieces of any length. */
export class PageSums {
  readonly size: number
  readonly sums: Uint32Array
  #taken = 0

  constructor(size: number) {
    this.size = size
    this.sums = new Uint32Array(pageCount(size))
  }

  /** How many bytes it was given. */
  get taken(): number {
    return this.#taken
  }

  /** The next bytes; no more than `size` in all. */
  add(bytes: Uint8Array): void {
    assert(this.#taken + bytes.length <= this.size, 'a block has no more bytes than its size')
    let at = 0
    const begun = this.#taken % PAGE_BYTES
    if (begun !== 0) {
      at = Math.min(PAGE_BYTES - begun, bytes.length)
      const page = Math.floor(this.#taken / PAGE_BYTES)
      this.sums[page] = crc32c(bytes.subarray(0, at), this.sums[page])
    }
    if (at < bytes.length) {
      const page = (this.#taken + at) / PAGE_BYTES
      crc32cPages(bytes.subarray(at), PAGE_BYTES, this.sums.subarray(page))
    }
    this.#taken += bytes.length
  }

  /** The crc of all that was given, once that is `size` bytes. */
  whole(): number {
    assert(this.#taken === this.size, 'the crc of a block is asked for at its end')
    return wholeOf(this.sums, this.size)
  }
}

/** The pages of `bytes` whose crc is not the one in `sums`, from page `first` of the block on, which `bytes` begin with. */
export function badPages(bytes: Uint8Array, sums: Uint32Array, first: number): number[] {
  const count = pageCount(bytes.length)
  const found = new Uint32Array(count)
  crc32cPages(bytes, PAGE_BYTES, found)
  const bad: number[] = []
  for (let page = 0; page < count; page++) if (found[page] !== sums[first + page]) bad.push(first + page)
  return bad
}
