/**
 * A range of a version in memory, or on its way there: one request, one buffer, one share of the memory. And the pieces of a
 * version in order, of which no two overlap.
 */
import type { Share } from '#base/memory-budget.ts'

export class Piece<Holder> {
  readonly offset: number
  readonly end: number
  /** Nobody had asked for it when it was begun. */
  readonly isAhead: boolean
  readonly share: Share
  readonly abort = new AbortController()
  bytes: Buffer | undefined
  /** Resolves when `bytes` are there. Set by who begins it. */
  arrival: Promise<void> = Promise.resolve()
  /** Reads that wait for it, or whose answer is not given yet. */
  pins = 0
  /** Sequential readers that it lies ahead of, or just behind. */
  readonly holders = new Set<Holder>()
  /** Bytes given to readers; those given twice count twice. */
  readBytes = 0
  /** The cache is writing it to the disk, from the buffer. */
  isKeeping = false
  /** The cache has it. */
  isKept = false

  constructor(offset: number, end: number, isAhead: boolean, share: Share) {
    this.offset = offset
    this.end = end
    this.isAhead = isAhead
    this.share = share
  }

  get length(): number {
    return this.end - this.offset
  }

  /** Whether it could be given up now without a request or a read being lost. */
  get isSpare(): boolean {
    return this.bytes !== undefined && this.pins === 0 && !this.isKeeping
  }

  get unreadBytes(): number {
    return Math.max(0, this.length - this.readBytes)
  }
}

export class PieceList<Holder> {
  readonly #pieces: Piece<Holder>[] = []

  get size(): number {
    return this.#pieces.length
  }

  at(index: number): Piece<Holder> | undefined {
    return this.#pieces[index]
  }

  /** The index of the first piece that ends after `offset`. */
  indexAt(offset: number): number {
    let low = 0
    let high = this.#pieces.length
    while (low < high) {
      const middle = (low + high) >>> 1
      const piece = this.#pieces[middle]
      if (piece !== undefined && piece.end <= offset) low = middle + 1
      else high = middle
    }
    return low
  }

  add(piece: Piece<Holder>): void {
    this.#pieces.splice(this.indexAt(piece.offset), 0, piece)
  }

  /** False where it is not there any more. */
  delete(piece: Piece<Holder>): boolean {
    const index = this.indexAt(piece.offset)
    if (this.#pieces[index] !== piece) return false
    this.#pieces.splice(index, 1)
    return true
  }

  [Symbol.iterator](): Iterator<Piece<Holder>> {
    return [...this.#pieces][Symbol.iterator]()
  }
}

/**
 * Gives the memory of a buffer back at once, where nothing else has a part of it. V8 counts what lies outside its heap, and
 * collects all of the heap for every few dozen MiB of it: without this a gigabyte that is read costs a second of
 * collections, and the process holds half as much again as is lent.
 */
export function freeBytes({ buffer, length }: Buffer): void {
  if (length === buffer.byteLength && buffer instanceof ArrayBuffer) buffer.transfer(0)
}
