/** Ranges of a state taken step by step, so that several can be walked side by side. */
import type { Key, StateReader } from './state.ts'

/** So many pairs are taken at once. */
const TAKE = 64

export interface Pair {
  readonly key: Key
  readonly value: Buffer
}

/** The pairs of a range in order, or from its end. The state must not change meanwhile. */
export class RangePull {
  readonly #state: StateReader
  readonly #isBackwards: boolean
  #from: Key
  #to: Key
  #pairs: Pair[] = []
  #at = 0
  #isEnd = false

  constructor(state: StateReader, from: Key, to: Key, isBackwards = false) {
    this.#state = state
    this.#from = from
    this.#to = to
    this.#isBackwards = isBackwards
  }

  /** The next pair, which stays the next one. */
  peek(): Pair | undefined {
    if (this.#at === this.#pairs.length && !this.#isEnd) this.#fill()
    return this.#pairs[this.#at]
  }

  advance(): void {
    this.#at++
  }

  #fill(): void {
    const pairs: Pair[] = []
    const take = (key: Key, value: Buffer): boolean => pairs.push({ key, value }) < TAKE
    if (this.#isBackwards) this.#state.rangeBackwards(this.#from, this.#to, take)
    else this.#state.range(this.#from, this.#to, take)
    const last = pairs.at(-1)
    this.#isEnd = pairs.length < TAKE
    if (last !== undefined && this.#isBackwards) this.#to = last.key
    else if (last !== undefined) this.#from = `${last.key}\0`
    this.#pairs = pairs
    this.#at = 0
  }
}
