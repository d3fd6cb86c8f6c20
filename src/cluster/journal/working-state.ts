/**
 * The state as all entries have made it so far, durable or not: what is stored, and over it what has changed since, in memory. It
 * notes what a reader has seen, so that nobody is told of what may yet be lost.
 *
 *   changes --freeze--> frozen, to be stored while new changes gather --melt--> stored
 */
import { assert } from '#base/assert.ts'

import { type Pair, RangePull } from './pull.ts'
import { SortedMap } from './sorted-map.ts'
import type { Change, EachPair, Key, StateBatch, StateReader } from './state.ts'

interface Pending {
  value: Buffer | null
  /** The entry that changed it. */
  entry: number
}

const NO_CHANGES = new SortedMap<Pending>()

/** What a change takes in memory beside its key and value. */
const CHANGE_BYTES = 160

export class WorkingState implements StateReader {
  /** The last entry of which something was read, since somebody set it to 0. */
  seen = 0
  readonly #stored: StateReader
  #active = new SortedMap<Pending>()
  #frozen: SortedMap<Pending> | undefined
  #activeBytes = 0
  /** What was asked for last among the active changes: most of what is read is changed next. */
  #lastKey: Key | undefined
  #lastPending: Pending | undefined

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
    const pending = this.#findActive(key) ?? this.#frozen?.get(key)
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

  /** What is at the key from that entry on. */
  change(key: Key, value: Buffer | null, entry: number): void {
    const bytes = value?.length ?? 0
    const pending = this.#findActive(key)
    if (pending === undefined) {
      this.#activeBytes += CHANGE_BYTES + key.length + bytes
      this.#active.set(key, { value, entry })
      this.#lastKey = undefined
    } else {
      // In its place: most of what an entry changes, others changed just before it.
      this.#activeBytes += bytes - (pending.value?.length ?? 0)
      pending.value = value
      pending.entry = entry
    }
  }

  /** The changes until now stay over what is stored until `melt`; others gather apart from them. */
  freeze(): void {
    assert(this.#frozen === undefined, 'changes are stored one lot after the other')
    this.#frozen = this.#active
    this.#active = new SortedMap()
    this.#activeBytes = 0
    this.#lastKey = undefined
  }

  *frozenChanges(): Generator<Change, void, undefined> {
    assert(this.#frozen !== undefined, 'what is stored was frozen')
    for (const [key, { value }] of this.#frozen) yield [key, value]
  }

  /** What was frozen is stored. */
  melt(): void {
    this.#frozen = undefined
  }

  #findActive(key: Key): Pending | undefined {
    if (key !== this.#lastKey) {
      this.#lastKey = key
      this.#lastPending = this.#active.get(key)
    }
    return this.#lastPending
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
        if (next.value.entry > this.seen) this.seen = next.value.entry
        if (next.value.value !== null) isGoing = each(next.key, next.value.value)
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

/** The changes of both maps as one; where both have a key, the newer. */
class Overlay {
  readonly #active: RangePull<Pending>
  readonly #frozen: RangePull<Pending>
  readonly #isBackwards: boolean

  constructor(
    active: SortedMap<Pending>,
    frozen: SortedMap<Pending> | undefined,
    from: Key,
    to: Key,
    isBackwards: boolean,
  ) {
    this.#active = new RangePull(active, from, to, isBackwards)
    this.#frozen = new RangePull(frozen ?? NO_CHANGES, from, to, isBackwards)
    this.#isBackwards = isBackwards
  }

  peek(): Pair<Pending> | undefined {
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

/**
 * What one entry reads and changes. Its changes are part of the state at once, since there is nothing to go back to: what refuses an
 * entry changes nothing.
 */
export class WorkingBatch implements StateBatch {
  readonly #state: WorkingState
  readonly #entry: number
  isChanged = false

  constructor(state: WorkingState, entry: number) {
    this.#state = state
    this.#entry = entry
  }

  get(key: Key): Buffer | undefined {
    return this.#state.get(key)
  }

  range(from: Key, to: Key, each: EachPair): void {
    assert(!this.isChanged, 'an entry reads its ranges before it changes anything')
    this.#state.range(from, to, each)
  }

  rangeBackwards(from: Key, to: Key, each: EachPair): void {
    assert(!this.isChanged, 'an entry reads its ranges before it changes anything')
    this.#state.rangeBackwards(from, to, each)
  }

  put(key: Key, value: Buffer): void {
    this.isChanged = true
    this.#state.change(key, value, this.#entry)
  }

  remove(key: Key): void {
    this.isChanged = true
    this.#state.change(key, null, this.#entry)
  }
}
