/**
 * A map in order of keys, for the working state of machines: all of a machine's reads and writes pass here. A hash table
 * has the values, so that reading and overwriting need no comparison; a list of short chunks has the keys in order, so that
 * a new key moves few others and a range begins after two searches by halves.
 *
 * Keys are latin1 strings (state.ts): JavaScript's comparison of strings is that of their bytes.
 *
 * Invariants: chunk n has the keys from `#bounds[n]` on and before `#bounds[n + 1]`; no chunk but an only one is empty; the chunks have just the keys of
 * the table.
 */
import { assert } from '#base/assert.ts'

/** Split in two when it grows beyond. Of 32 to 1,024, measured: longer ones cost to move keys, shorter ones to split. */
const CHUNK_KEYS_MAX = 64

type Each<V> = (key: string, value: V) => boolean

export class SortedMap<V> {
  readonly #values = new Map<string, V>()
  #chunks: string[][] = [[]]
  /** Nothing of a chunk lies before its bound, though the key that it was taken from may be gone. */
  #bounds: string[] = ['']
  /** By the first character of a key, which tells the kind of a record: where the last one was new. Most kinds grow at one place. */
  readonly #hints = new Uint32Array(256)
  #ranges = 0

  get size(): number {
    return this.#values.size
  }

  get(key: string): V | undefined {
    return this.#values.get(key)
  }

  /** Where values may be undefined. */
  has(key: string): boolean {
    return this.#values.has(key)
  }

  set(key: string, value: V): void {
    const before = this.#values.size
    assert(this.#ranges === 0, 'a map is not changed while a range of it is read')
    this.#values.set(key, value)
    if (this.#values.size !== before) this.#insert(key)
  }

  /** Whether it was there. */
  delete(key: string): boolean {
    assert(this.#ranges === 0, 'a map is not changed while a range of it is read')
    if (!this.#values.delete(key)) return false
    const at = this.#chunkOf(key)
    const chunk = this.#chunk(at)
    const index = firstFrom(chunk, key)
    assert(chunk[index] === key, 'each key of the table is in its chunk')
    chunk.splice(index, 1)
    if (chunk.length === 0 && this.#chunks.length > 1) {
      this.#chunks.splice(at, 1)
      // What comes before the first bound would belong nowhere.
      this.#bounds.splice(Math.max(at, 1), 1)
    }
    return true
  }

  clear(): void {
    assert(this.#ranges === 0, 'a map is not changed while a range of it is read')
    this.#values.clear()
    this.#chunks = [[]]
    this.#bounds = ['']
  }

  /** Gives what lies at `from` and before `to`, in order, while `each` says so; `each` must not change the map. */
  range(from: string, to: string, each: Each<V>): void {
    this.#ranges++
    try {
      let index = -1
      for (let at = this.#chunkOf(from); at < this.#chunks.length; at++) {
        const chunk = this.#chunk(at)
        if (index === -1) index = firstFrom(chunk, from)
        for (; index < chunk.length; index++) {
          const key = chunk[index] as string
          if (key >= to || !each(key, this.#values.get(key) as V)) return
        }
        index = 0
      }
    } finally {
      this.#ranges--
    }
  }

  /** The same from the end: the last before `to` first. */
  rangeBackwards(from: string, to: string, each: Each<V>): void {
    this.#ranges++
    try {
      let at = this.#chunkOf(to)
      let index = firstFrom(this.#chunk(at), to) - 1
      while (at >= 0) {
        const chunk = this.#chunk(at)
        for (; index >= 0; index--) {
          const key = chunk[index] as string
          if (key < from || !each(key, this.#values.get(key) as V)) return
        }
        if (--at >= 0) index = this.#chunk(at).length - 1
      }
    } finally {
      this.#ranges--
    }
  }

  /** All of it in order; the map must not be changed meanwhile. */
  *[Symbol.iterator](): Generator<[key: string, value: V], void, undefined> {
    this.#ranges++
    try {
      for (const chunk of this.#chunks) for (const key of chunk) yield [key, this.#values.get(key) as V]
    } finally {
      this.#ranges--
    }
  }

  #insert(key: string): void {
    const kind = key.charCodeAt(0) & 0xff
    let at = this.#hints[kind] ?? 0
    if (!this.#isWithin(at, key)) {
      at = this.#chunkOf(key)
      this.#hints[kind] = at
    }
    const chunk = this.#chunk(at)
    const last = chunk.length - 1
    const index = last >= 0 && (chunk[last] as string) < key ? chunk.length : firstFrom(chunk, key)
    // By hand: faster than splice for so few.
    chunk.push(key)
    for (let to = chunk.length - 1; to > index; to--) chunk[to] = chunk[to - 1] as string
    chunk[index] = key
    if (chunk.length > CHUNK_KEYS_MAX) this.#split(at, index === CHUNK_KEYS_MAX, kind)
  }

  /** Where keys come in order, the chunk before is left almost full: more of them are to come after it. */
  #split(at: number, isAppended: boolean, kind: number): void {
    const chunk = this.#chunk(at)
    const rest = chunk.splice(isAppended ? CHUNK_KEYS_MAX - 1 : CHUNK_KEYS_MAX / 2)
    this.#chunks.splice(at + 1, 0, rest)
    this.#bounds.splice(at + 1, 0, rest[0] as string)
    if (isAppended) this.#hints[kind] = at + 1
  }

  #isWithin(at: number, key: string): boolean {
    const bound = this.#bounds[at]
    if (bound === undefined || key < bound) return false
    const next = this.#bounds[at + 1]
    return next === undefined || key < next
  }

  #chunkOf(key: string): number {
    const bounds = this.#bounds
    let low = 0
    let high = bounds.length
    while (high - low > 1) {
      const middle = (low + high) >>> 1
      if ((bounds[middle] as string) <= key) low = middle
      else high = middle
    }
    return low
  }

  #chunk(at: number): string[] {
    return this.#chunks[at] as string[]
  }
}

/** The index of the first key of the chunk that is not before `key`. */
function firstFrom(chunk: readonly string[], key: string): number {
  let low = 0
  let high = chunk.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((chunk[middle] as string) < key) low = middle + 1
    else high = middle
  }
  return low
}
