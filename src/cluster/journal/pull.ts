/** Ranges taken step by step, so that several can be walked side by side. */
import type { Key } from './state.ts'

/** So many pairs are taken at once: pages of listings end before that, mostly. */
const TAKE = 64

/** What has ranges: a state, or a map in order. */
export interface Ranged<V> {
  range(from: Key, to: Key, each: (key: Key, value: V) => boolean): void
  rangeBackwards(from: Key, to: Key, each: (key: Key, value: V) => boolean): void
}

export interface Pair<V> {
  readonly key: Key
  readonly value: V
}

/** The pairs of a range in order, or from its end. What they are taken from must not change meanwhile. */
export class RangePull<V> {
  readonly #ranged: Ranged<V>
  readonly #isBackwards: boolean
  #from: Key
  #to: Key
  #pairs: Pair<V>[] = []
  #at = 0
  #isEnd = false

  constructor(ranged: Ranged<V>, from: Key, to: Key, isBackwards = false) {
    this.#ranged = ranged
    this.#from = from
    this.#to = to
    this.#isBackwards = isBackwards
  }

  /** The next pair, which stays the next one. */
  peek(): Pair<V> | undefined {
    if (this.#at === this.#pairs.length && !this.#isEnd) this.#fill()
    return this.#pairs[this.#at]
  }

  advance(): void {
    this.#at++
  }

  #fill(): void {
    const pairs: Pair<V>[] = []
    const take = (key: Key, value: V): boolean => pairs.push({ key, value }) < TAKE
    if (this.#isBackwards) this.#ranged.rangeBackwards(this.#from, this.#to, take)
    else this.#ranged.range(this.#from, this.#to, take)
    const last = pairs.at(-1)
    this.#isEnd = pairs.length < TAKE
    if (last !== undefined && this.#isBackwards) this.#to = last.key
    else if (last !== undefined) this.#from = `${last.key}\0`
    this.#pairs = pairs
    this.#at = 0
  }
}
