/**
 * Which blocks of one version are here, by what checksum, and which of them were found right since the process began. In
 * memory only: the checksums are loaded a segment at a time when they are first asked for, and written by whoever takes
 * the changed segments.
 */
import { assert } from '#base/assert.ts'

import { SEGMENT_BLOCKS } from './cache-index.ts'

/** Gives the stored checksums of a segment; undefined where there are none. */
export type LoadSegment = (index: number) => Uint32Array | undefined

export class BlockTable {
  readonly blocks: number
  readonly #load: LoadSegment
  readonly #segments = new Map<number, Uint32Array>()
  readonly #changed = new Set<number>()
  #present: number
  /** A bit a block; absent while none, or every one, is checked. */
  #checked: Uint8Array | undefined
  #checkedCount = 0

  constructor(blocks: number, present: number, load: LoadSegment) {
    this.blocks = blocks
    this.#present = present
    this.#load = load
  }

  get present(): number {
    return this.#present
  }
  get isComplete(): boolean {
    return this.#present === this.blocks
  }
  get isChecked(): boolean {
    return this.isComplete && this.#checkedCount === this.blocks
  }

  /** The checksum of a block; 0 where it is not here. */
  sumOf(block: number): number {
    return this.#segmentOf(block)[block % SEGMENT_BLOCKS] ?? 0
  }

  has(block: number): boolean {
    return this.isComplete || this.sumOf(block) !== 0
  }

  hasAll(first: number, last: number): boolean {
    if (this.isComplete) return true
    for (let block = first; block <= last; block++) if (this.sumOf(block) === 0) return false
    return true
  }

  wasChecked(block: number): boolean {
    if (this.#checkedCount === this.blocks) return true
    return this.#checked !== undefined && ((this.#checked[block >> 3] ?? 0) & (1 << (block & 7))) !== 0
  }

  wereChecked(first: number, last: number): boolean {
    if (this.#checkedCount === this.blocks) return true
    for (let block = first; block <= last; block++) if (!this.wasChecked(block)) return false
    return true
  }

  markChecked(block: number): void {
    if (this.wasChecked(block)) return
    this.#checked ??= new Uint8Array((this.blocks + 7) >> 3)
    this.#checked[block >> 3] = (this.#checked[block >> 3] ?? 0) | (1 << (block & 7))
    this.#checkedCount++
  }

  markAllChecked(): void {
    this.#checked = undefined
    this.#checkedCount = this.blocks
  }

  forgetChecks(): void {
    this.#checked = undefined
    this.#checkedCount = 0
  }

  /** Takes in a block that was just written: it is here, and right. */
  put(block: number, sum: number): void {
    assert(sum !== 0 && block < this.blocks, 'a block has a checksum, and lies within its file')
    if (this.sumOf(block) === 0 && this.#present < this.blocks) this.#present++
    this.#write(block, sum)
    this.markChecked(block)
  }

  /** Takes a block out. */
  drop(block: number): void {
    if (!this.has(block)) return
    this.#present--
    this.#write(block, 0)
    if (!this.wasChecked(block)) return
    this.#checked ??= new Uint8Array((this.blocks + 7) >> 3).fill(this.#checkedCount === this.blocks ? 0xff : 0)
    this.#checked[block >> 3] = (this.#checked[block >> 3] ?? 0) & ~(1 << (block & 7))
    this.#checkedCount--
  }

  /** The segments that changed since they were taken last. */
  takeChanges(): (readonly [index: number, sums: Uint32Array])[] {
    const changes = [...this.#changed].map((index) => [index, this.#segmentOf(index * SEGMENT_BLOCKS)] as const)
    this.#changed.clear()
    return changes
  }

  /** All that is known counts as changed: what was taken could not be written. */
  changeAll(): void {
    this.#changed.add(0)
    for (const index of this.#segments.keys()) this.#changed.add(index)
  }

  #write(block: number, sum: number): void {
    this.#segmentOf(block)[block % SEGMENT_BLOCKS] = sum
    this.#changed.add(Math.floor(block / SEGMENT_BLOCKS))
  }

  #segmentOf(block: number): Uint32Array {
    const index = Math.floor(block / SEGMENT_BLOCKS)
    let segment = this.#segments.get(index)
    if (segment === undefined) {
      const length = Math.min(SEGMENT_BLOCKS, this.blocks - index * SEGMENT_BLOCKS)
      const loaded = this.#load(index)
      segment = loaded?.length === length ? loaded : new Uint32Array(length)
      this.#segments.set(index, segment)
    }
    return segment
  }
}
