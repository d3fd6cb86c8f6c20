/**
 * Room for blocks in the memory of a kernel, where checksums, encoding and reconstruction need no copy: a socket or a file is read straight into
 * it. Of fixed size; what is not used costs address space alone. Blocks are lent, and given back by `release`.
 */
import { assert } from '#base/assert.ts'
import { ALIGNMENT_BYTES, Kernel, STAGGER_BYTES } from './kernel.ts'

interface Gap {
  at: number
  bytes: number
}

/** Blocks are found first fit; gaps that meet become one. */
export class CodingMemory {
  readonly #kernel: Kernel
  /** In order, none next to another. */
  readonly #gaps: Gap[]
  /** By the address of a block: the bytes that it takes. */
  readonly #taken = new Map<number, number>()

  /** With room for that many bytes in all. */
  constructor(bytes: number) {
    assert(Number.isSafeInteger(bytes) && bytes > 0, 'a coding memory has room for bytes')
    this.#kernel = new Kernel(bytes)
    const at = this.#kernel.roomAt
    this.#gaps = [{ at, bytes: this.#kernel.bytes.length - at }]
  }

  /** How many bytes no block takes, in however many pieces. */
  get bytesFree(): number {
    return this.#gaps.reduce((sum, { bytes }) => sum + bytes, 0)
  }

  /** A block with whatever was there before, undefined where there is no room for it. */
  allocate(length: number): Uint8Array<ArrayBuffer> | undefined {
    assert(Number.isSafeInteger(length) && length > 0, 'a block has bytes')
    const needed = Math.ceil(length / ALIGNMENT_BYTES) * ALIGNMENT_BYTES + STAGGER_BYTES
    const index = this.#gaps.findIndex(({ bytes }) => bytes >= needed)
    const gap = this.#gaps[index]
    if (gap === undefined) return undefined
    const { at } = gap
    gap.at += needed
    gap.bytes -= needed
    if (gap.bytes === 0) this.#gaps.splice(index, 1)
    this.#taken.set(at, needed)
    return this.#kernel.bytes.subarray(at, at + length)
  }

  /** Whether its bytes are of this memory. */
  holds(block: Uint8Array): boolean {
    return block.buffer === this.#kernel.bytes.buffer
  }

  /** Takes back a block that `allocate` gave, and which nobody uses any more. */
  release(block: Uint8Array): void {
    const at = block.byteOffset
    const bytes = this.holds(block) ? this.#taken.get(at) : undefined
    assert(bytes !== undefined, 'a block is given back once, to the memory that it came from')
    this.#taken.delete(at)
    const found = this.#gaps.findIndex((gap) => gap.at > at)
    const index = found === -1 ? this.#gaps.length : found
    const [before, after] = [this.#gaps[index - 1], this.#gaps[index]]
    const joinsBefore = before !== undefined && before.at + before.bytes === at
    const joinsAfter = after !== undefined && at + bytes === after.at
    if (joinsBefore) before.bytes += bytes + (joinsAfter ? after.bytes : 0)
    if (joinsBefore && joinsAfter) this.#gaps.splice(index, 1)
    if (joinsBefore) return
    if (joinsAfter) {
      after.at = at
      after.bytes += bytes
    } else this.#gaps.splice(index, 0, { at, bytes })
  }
}
