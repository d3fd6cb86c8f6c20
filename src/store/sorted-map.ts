/**
 * A map from strings to values whose keys can be walked in the order of their UTF-8 bytes. Keys lie in sorted runs of
 * bounded length, so that an insertion moves at most one run: 100,000 keys in random order go in within a second,
 * where one sorted array would move 400 KB for each. Seeking afresh for every step makes a walk indifferent to
 * changes made between its steps.
 */
import { compareUtf8 } from './path.ts'

const RUN_KEYS_MAX = 512

export class SortedMap<V> {
  readonly #values = new Map<string, V>()
  /** No run is empty; the runs follow one another in order. */
  readonly #runs: string[][] = []

  get size(): number {
    return this.#values.size
  }

  get(key: string): V | undefined {
    return this.#values.get(key)
  }

  set(key: string, value: V): void {
    const known = this.#values.has(key)
    this.#values.set(key, value)
    if (known) return
    const index = Math.max(0, this.#runOf(key))
    const run = this.#runs[index]
    if (run === undefined) {
      this.#runs.push([key])
      return
    }
    run.splice(positionIn(run, key), 0, key)
    if (run.length > RUN_KEYS_MAX) this.#runs.splice(index + 1, 0, run.splice(run.length >> 1))
  }

  delete(key: string): boolean {
    if (!this.#values.delete(key)) return false
    const index = this.#runOf(key)
    const run = this.#runs[index]
    if (run !== undefined) {
      run.splice(positionIn(run, key), 1)
      if (run.length === 0) this.#runs.splice(index, 1)
    }
    return true
  }

  /** The first key at or after `key`. */
  ceiling(key: string): string | undefined {
    const index = Math.max(0, this.#runOf(key))
    const run = this.#runs[index]
    if (run === undefined) return undefined
    return run[positionIn(run, key)] ?? this.#runs[index + 1]?.[0]
  }

  /** The first key after `key`. */
  higher(key: string): string | undefined {
    const found = this.ceiling(key)
    // No string lies between a key and the key with NUL after it.
    return found === key ? this.ceiling(`${key}\0`) : found
  }

  /** The last run that starts at or before `key`; -1 where all start after it. */
  #runOf(key: string): number {
    let low = 0
    let high = this.#runs.length
    while (low < high) {
      const middle = (low + high) >> 1
      const first = this.#runs[middle]?.[0]
      if (first !== undefined && compareUtf8(first, key) <= 0) low = middle + 1
      else high = middle
    }
    return low - 1
  }
}

/** Where `key` is in the sorted `run`, or would be put. */
function positionIn(run: readonly string[], key: string): number {
  let low = 0
  let high = run.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (compareUtf8(run[middle] ?? '', key) < 0) low = middle + 1
    else high = middle
  }
  return low
}
