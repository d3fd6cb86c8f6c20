/**
 * Sets of byte ranges of a file: which of its bytes were written, which are still to be fetched. Kept as one sorted array of
 * bounds, so that a file written from start to end costs one comparison a write, and one written at random a binary search
 * and a move of memory.
 *
 * Invariant: the ranges are ascending, none is empty, and no two touch.
 */

/** From `start` up to, and without, `end`. */
export interface Range {
  readonly start: number
  readonly end: number
}

export class RangeSet {
  /** Starts and ends in turn. */
  #bounds: number[] = []
  #bytes = 0

  constructor(ranges: Iterable<Range> = []) {
    for (const { start, end } of ranges) this.add(start, end)
  }

  get isEmpty(): boolean {
    return this.#bytes === 0
  }

  /** How many bytes all ranges have together. */
  get bytes(): number {
    return this.#bytes
  }

  add(start: number, end: number): void {
    if (end <= start) return
    const bounds = this.#bounds
    const last = bounds.at(-1)
    if (last === start) {
      bounds[bounds.length - 1] = end
      this.#bytes += end - start
      return
    }
    // A range that ends where this one starts, or starts where it ends, becomes one with it.
    const from = this.#below(start)
    const to = this.#upTo(end)
    this.#replace(from, to, from % 2 === 0 ? start : undefined, to % 2 === 0 ? end : undefined)
  }

  delete(start: number, end: number): void {
    if (end <= start || this.#bytes === 0) return
    const from = this.#below(start)
    const to = this.#upTo(end)
    this.#replace(from, to, from % 2 === 1 ? start : undefined, to % 2 === 1 ? end : undefined)
  }

  addAll(other: RangeSet): void {
    for (const { start, end } of other.within(0, Infinity)) this.add(start, end)
  }

  /** Whether all bytes from `start` to `end` are in it. */
  covers(start: number, end: number): boolean {
    if (end <= start) return true
    const at = this.#upTo(start)
    return at % 2 === 1 && (this.#bounds[at] ?? 0) >= end
  }

  /** Whether any byte from `start` to `end` is in it. */
  meets(start: number, end: number): boolean {
    const first = this.first(start)
    return first !== undefined && first.start < end && start < end
  }

  /** The first range with bytes at or after `offset`, without those before it. */
  first(offset: number): Range | undefined {
    const at = this.#upTo(offset)
    if (at % 2 === 1) return { start: offset, end: this.#bounds[at] ?? offset }
    const start = this.#bounds[at]
    return start === undefined ? undefined : { start, end: this.#bounds[at + 1] ?? start }
  }

  /** The ranges, in order, as far as they lie between `start` and `end`; not to be changed meanwhile. */
  *within(start: number, end: number): Generator<Range> {
    for (let range = this.first(start); range !== undefined && range.start < end; range = this.first(range.end)) {
      yield range.end <= end ? range : { start: range.start, end }
    }
  }

  /** What lies between `start` and `end` and is in none of the ranges, in order. */
  *gaps(start: number, end: number): Generator<Range> {
    let at = start
    for (const range of this.within(start, end)) {
      if (range.start > at) yield { start: at, end: range.start }
      at = range.end
    }
    if (at < end) yield { start: at, end }
  }

  #replace(from: number, to: number, start: number | undefined, end: number | undefined): void {
    const before = this.#sum(from, to)
    const put: number[] = []
    if (start !== undefined) put.push(start)
    if (end !== undefined) put.push(end)
    this.#bounds.splice(from, to - from, ...put)
    this.#bytes += this.#sum(from, from + put.length) - before
  }

  /** The bytes of the ranges that have one of these bounds. */
  #sum(from: number, to: number): number {
    let sum = 0
    for (let at = from - (from % 2); at < to; at += 2) sum += (this.#bounds[at + 1] ?? 0) - (this.#bounds[at] ?? 0)
    return sum
  }

  /** How many bounds are less than `offset`. */
  #below(offset: number): number {
    return this.#count(offset, false)
  }

  /** How many bounds are at most `offset`: odd where the byte at `offset` is in a range. */
  #upTo(offset: number): number {
    return this.#count(offset, true)
  }

  #count(offset: number, inclusive: boolean): number {
    const bounds = this.#bounds
    let low = 0
    let high = bounds.length
    while (low < high) {
      const middle = (low + high) >>> 1
      const bound = bounds[middle] ?? Infinity
      if (bound < offset || (inclusive && bound === offset)) low = middle + 1
      else high = middle
    }
    return low
  }
}
