/**
 * The state as all entries have made it so far, durable or not: what is stored, and over it what has changed since, in memory. It
 * notes what a reader has seen, so that nobody is told of what may yet be lost.
 *
 *   changes --freeze--> frozen, to be stored while new changes gather --melt--> stored
 */
import { assert } from '#base/assert.ts'

import { SortedMap } from './sorted-map.ts'
import type { Change, EachPair, Key, StateBatch, StateReader } from './state.ts'

interface Pending {
  readonly value: Buffer | null
  /** The entry that changed it. */
  readonly entry: number
}

/** What a change takes in memory beside its key and value. */
const CHANGE_BYTES = 160

export class WorkingState implements StateReader {
  /** The last entry of which something was read, since somebody set it to 0. */
  seen = 0
  readonly #stored: StateReader
  #active = new SortedMap<Pending>()
  #frozen: SortedMap<Pending> | undefined
  #activeBytes = 0

  constructor(stored: StateReader) {
    this.#stored = stored
  }

  /** About what the changes since the last freeze take in memory. */
  get bytesChanged(): number {
    return this.#activeBytes
  }

  get hasChanges(): boolean {
    return this.#active.size > 0
  }

  get isFrozen(): boolean {
    return this.#frozen !== undefined
  }

  get(key: Key): Buffer | undefined {
    const pending = this.#active.get(key) ?? this.#frozen?.get(key)
    if (pending === undefined) return this.#stored.get(key)
    if (pending.entry > this.seen) this.seen = pending.entry
    return pending.value ?? undefined
  }

  range(from: Key, to: Key, each: EachPair): void {
    this.#merge(from, to, each, false)
  }

  rangeBackwards(from: Key, to: Key, each: EachPair): void {
    this.#merge(from, to, each, true)
  }

  /** What an entry has changed. */
  change(changes: ReadonlyMap<Key, Buffer | null>, entry: number): void {
    for (const [key, value] of changes) {
      const before = this.#active.get(key)
      const bytes = value?.length ?? 0
      this.#activeBytes +=
        before === undefined ? CHANGE_BYTES + key.length + bytes : bytes - (before.value?.length ?? 0)
      this.#active.set(key, { value, entry })
    }
  }

  /** The changes until now stay over what is stored until `melt`; others gather apart from them. */
  freeze(): void {
    assert(this.#frozen === undefined, 'changes are stored one lot after the other')
    this.#frozen = this.#active
    this.#active = new SortedMap()
    this.#activeBytes = 0
  }

  *frozenChanges(): Generator<Change, void, undefined> {
    assert(this.#frozen !== undefined, 'what is stored was frozen')
    for (const [key, { value }] of this.#frozen) yield [key, value]
  }

  /** What was frozen is stored. */
  melt(): void {
    this.#frozen = undefined
  }

  #merge(from: Key, to: Key, each: EachPair, isBackwards: boolean): void {
    const over = new Overlay(this.#active, this.#frozen, from, to, isBackwards)
    let isGoing = true
    /** Gives the changes that come before `key`, or all. Whether there is one at the key itself. */
    const giveBefore = (key: Key | undefined): boolean => {
      while (isGoing) {
        const next = over.peek()
        if (next === undefined) return false
        if (key !== undefined && next.key === key) return true
        if (key !== undefined && (isBackwards ? next.key < key : next.key > key)) return false
        over.advance()
        if (next.pending.entry > this.seen) this.seen = next.pending.entry
        if (next.pending.value !== null) isGoing = each(next.key, next.pending.value)
      }
      return false
    }
    const take = (key: Key, value: Buffer): boolean => {
      const isChanged = giveBefore(key)
      if (!isGoing) return false
      if (!isChanged) isGoing = each(key, value)
      return isGoing
    }
    if (isBackwards) this.#stored.rangeBackwards(from, to, take)
    else this.#stored.range(from, to, take)
    giveBefore(undefined)
  }
}

interface Pair {
  readonly key: Key
  readonly pending: Pending
}

/** So many of a map are taken at once: pages of listings end before that, mostly. */
const TAKE = 32

/** One map's pairs in order, a few at a time. */
class Pulled {
  readonly #map: SortedMap<Pending> | undefined
  readonly #isBackwards: boolean
  #from: Key
  #to: Key
  #pairs: Pair[] = []
  #at = 0
  #isEnd: boolean

  constructor(map: SortedMap<Pending> | undefined, from: Key, to: Key, isBackwards: boolean) {
    this.#map = map
    this.#from = from
    this.#to = to
    this.#isBackwards = isBackwards
    this.#isEnd = map === undefined || map.size === 0
  }

  peek(): Pair | undefined {
    if (this.#at === this.#pairs.length && !this.#isEnd) this.#fill()
    return this.#pairs[this.#at]
  }

  advance(): void {
    this.#at++
  }

  #fill(): void {
    const pairs: Pair[] = []
    const take = (key: Key, pending: Pending): boolean => pairs.push({ key, pending }) < TAKE
    if (this.#isBackwards) this.#map?.rangeBackwards(this.#from, this.#to, take)
    else this.#map?.range(this.#from, this.#to, take)
    const last = pairs.at(-1)
    this.#isEnd = pairs.length < TAKE
    if (last !== undefined && this.#isBackwards) this.#to = last.key
    else if (last !== undefined) this.#from = `${last.key}\0`
    this.#pairs = pairs
    this.#at = 0
  }
}

/** The changes of both maps as one; where both have a key, the newer. */
class Overlay {
  readonly #active: Pulled
  readonly #frozen: Pulled
  readonly #isBackwards: boolean

  constructor(
    active: SortedMap<Pending>,
    frozen: SortedMap<Pending> | undefined,
    from: Key,
    to: Key,
    isBackwards: boolean,
  ) {
    this.#active = new Pulled(active, from, to, isBackwards)
    this.#frozen = new Pulled(frozen, from, to, isBackwards)
    this.#isBackwards = isBackwards
  }

  peek(): Pair | undefined {
    const [active, frozen] = [this.#active.peek(), this.#frozen.peek()]
    if (active === undefined) return frozen
    if (frozen === undefined) return active
    return this.#isBackwards === active.key < frozen.key && active.key !== frozen.key ? frozen : active
  }

  advance(): void {
    const [active, frozen] = [this.#active.peek(), this.#frozen.peek()]
    const given = this.peek()
    if (active?.key === given?.key) this.#active.advance()
    if (frozen?.key === given?.key) this.#frozen.advance()
  }
}

/** What one entry reads and changes. */
export class WorkingBatch implements StateBatch {
  readonly #state: WorkingState
  readonly changes = new Map<Key, Buffer | null>()

  constructor(state: WorkingState) {
    this.#state = state
  }

  get isChanged(): boolean {
    return this.changes.size > 0
  }

  get(key: Key): Buffer | undefined {
    const changed = this.changes.size === 0 ? undefined : this.changes.get(key)
    return changed === undefined ? this.#state.get(key) : (changed ?? undefined)
  }

  range(from: Key, to: Key, each: EachPair): void {
    assert(this.changes.size === 0, 'an entry reads its ranges before it changes anything')
    this.#state.range(from, to, each)
  }

  rangeBackwards(from: Key, to: Key, each: EachPair): void {
    assert(this.changes.size === 0, 'an entry reads its ranges before it changes anything')
    this.#state.rangeBackwards(from, to, each)
  }

  put(key: Key, value: Buffer): void {
    this.changes.set(key, value)
  }

  remove(key: Key): void {
    this.changes.set(key, null)
  }
}
