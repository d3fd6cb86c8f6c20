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
      const bytes = value?.length ?? 0
      const pending = this.#active.get(key)
      if (pending === undefined) {
        this.#activeBytes += CHANGE_BYTES + key.length + bytes
        this.#active.set(key, { value, entry })
      } else {
        // In its place: most of what an entry changes, others changed just before it.
        this.#activeBytes += bytes - (pending.value?.length ?? 0)
        pending.value = value
        pending.entry = entry
      }
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
