/**
 * A machine whose entries are durable before anybody hears of them. An entry is applied in memory at once, so that the next one sees
 * what it did; entries gather while a group is being appended to the journal, and become the next group; answers are given
 * when the group is durable that they rest on, also those to reads and refusals, which may have seen what is not durable yet.
 *
 *   submit --apply--> gathering --append--> durable --> answer            apply refuses --> answer, once what it saw is durable
 *                                              '--commit of the state, now and then--> stored --> journal trimmed
 *
 * Where the journal fails, the state in memory may be ahead of what will be there after a start: so the machine stops for good, with
 * no answer to what is open, and the process is to end.
 */
import { assert } from '#base/assert.ts'
import { isOperationError, OperationError } from '#base/errors.ts'
import type { Cancel, Clock } from '#cluster/surroundings.ts'

import type { Journal } from './journal.ts'
import type { Machine } from './machine.ts'
import type { StateReader, StoredState } from './state.ts'
import { WorkingBatch, WorkingState } from './working-state.ts'

/** Changes in memory beyond which they are stored. */
const CHANGED_BYTES_MAX = 16 * 1024 ** 2
/** With so much waiting while the last lot is being stored, nothing more is taken. */
const WAITING_BYTES_MAX = 4 * CHANGED_BYTES_MAX
/** A group is in memory, and on its way to the disk, as a whole. */
const GATHERED_BYTES_MAX = 16 * 1024 ** 2
/**
 * A group of so many does not wait for the end of the turn: while the disk is at it, the rest of what came in is applied. Otherwise those who ask, the
 * machine and the disk would wait for each other in turns: by measure a quarter fewer entries a second with 64 requests under way.
 */
const GROUP_ENTRIES = 16
/** Changes are stored at latest after that, so that the next start has little to do. */
const STORE_MS = 5000

export interface DurableMachineOptions<Entry, Outcome> {
  readonly machine: Machine<Entry, Outcome>
  readonly journal: Journal
  readonly stored: StoredState
  readonly clock: Clock
  /** Called once, where it has stopped for good. */
  readonly onFailed: (error: OperationError) => void
}

interface Group {
  readonly entries: Uint8Array[]
  bytes: number
  /** What to do when it is durable. */
  readonly deliveries: (() => void)[]
  /** The number of its last entry. */
  last: number
}

export class DurableMachine<Entry, Outcome> {
  readonly #machine: Machine<Entry, Outcome>
  readonly #journal: Journal
  readonly #stored: StoredState
  readonly #clock: Clock
  readonly #onFailed: (error: OperationError) => void
  readonly #state: WorkingState
  /** The last entry that is applied, and the last that is durable. */
  #applied: number
  #durable: number
  #gathering: Group = { entries: [], bytes: 0, deliveries: [], last: 0 }
  #appending: Group | undefined
  #isDue = false
  #cancelStore: Cancel | undefined
  #storing: Promise<void> | undefined
  /** Waits that a failure ends. */
  readonly #waiting = new Set<() => void>()
  #failure: OperationError | undefined
  #isClosed = false

  private constructor(options: DurableMachineOptions<Entry, Outcome>) {
    this.#machine = options.machine
    this.#journal = options.journal
    this.#stored = options.stored
    this.#clock = options.clock
    this.#onFailed = options.onFailed
    this.#state = new WorkingState(options.stored)
    this.#applied = this.#durable = options.stored.applied
  }

  /**
   * With all that the journal has applied.
   * @throws JOURNAL_FAILED, JOURNAL_CORRUPT
   */
  static async open<E, O>(options: DurableMachineOptions<E, O>): Promise<DurableMachine<E, O>> {
    const opened = new DurableMachine(options)
    await opened.#replay()
    return opened
  }

  /** Nothing more can be taken now: too much waits to be appended, or to be stored. */
  get isFull(): boolean {
    if (this.#gathering.bytes > GATHERED_BYTES_MAX) return true
    return this.#state.isFrozen && this.#state.bytesChanged > WAITING_BYTES_MAX
  }

  /** Of the last entry that is applied; 0 where there was none ever. */
  get applied(): number {
    return this.#applied
  }

  /** Reads now, and gives what was found once all of it is durable, perhaps at once. */
  read<T>(
    reading: (state: StateReader) => T,
    deliver: (found: T) => void,
    refuse: (error: OperationError) => void,
  ): void {
    if (this.#failure !== undefined) return
    this.#state.seen = 0
    let found: T
    try {
      found = reading(this.#state)
    } catch (error) {
      if (!isOperationError(error)) throw error
      this.#whenDurable(this.#state.seen, () => refuse(error))
      return
    }
    this.#whenDurable(this.#state.seen, () => deliver(found))
  }

  /** For who answers nobody by it. */
  get state(): StateReader {
    return this.#state
  }

  /** Applies the entry now, and gives its outcome once it is durable. */
  submit(entry: Entry, deliver: (outcome: Outcome) => void, refuse: (error: OperationError) => void): void {
    if (this.#failure !== undefined) return
    assert(!this.#isClosed, 'a machine that is closed takes no entries')
    this.#state.seen = 0
    const batch = new WorkingBatch(this.#state, this.#applied + 1)
    let outcome: Outcome
    try {
      outcome = this.#machine.apply(batch, entry)
    } catch (error) {
      if (!isOperationError(error)) throw error
      assert(!batch.isChanged, 'what refuses an entry changes nothing')
      this.#whenDurable(this.#state.seen, () => refuse(error))
      return
    }
    if (!batch.isChanged) {
      // Such as the same request again: there is nothing to keep of it.
      this.#whenDurable(this.#state.seen, () => deliver(outcome))
      return
    }
    const group = this.#gathering
    group.last = ++this.#applied
    const bytes = this.#machine.encode(entry)
    group.entries.push(bytes)
    group.bytes += bytes.length
    group.deliveries.push(() => deliver(outcome))
    if (group.entries.length >= GROUP_ENTRIES && this.#appending === undefined) this.#append()
    else this.#appendSoon()
    this.#storeLater()
  }

  /** Stores all changes, so that the next start has none to apply again. */
  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#cancelStore?.()
    await this.#untilDurable(this.#applied)
    await this.#storing
    if (this.#failure === undefined && this.#state.hasChanges) await this.#store()
    await this.#stored.close()
    await this.#journal.close()
  }

  async #replay(): Promise<void> {
    const { applied } = this.#stored
    if (this.#journal.last < applied) {
      const detail = `it ends at entry ${this.#journal.last}, and the state has entry ${applied}`
      throw new OperationError('JOURNAL_CORRUPT', `Cannot go on by the journal: ${detail}`)
    }
    if (this.#journal.last === applied) return
    await this.#journal.read(applied + 1, (number, bytes) => {
      assert(number === this.#applied + 1, 'entries come in order')
      try {
        this.#machine.apply(new WorkingBatch(this.#state, number), this.#machine.decode(bytes))
      } catch (error) {
        const detail = `entry ${number} cannot be applied`
        throw new OperationError('JOURNAL_CORRUPT', `Cannot go on by the journal: ${detail}`, { cause: error })
      }
      this.#applied = number
    })
    this.#durable = this.#applied
    this.#storeLater()
  }

  #whenDurable(entry: number, deliver: () => void): void {
    if (entry <= this.#durable) deliver()
    else if (this.#appending !== undefined && entry <= this.#appending.last) this.#appending.deliveries.push(deliver)
    else this.#gathering.deliveries.push(deliver)
  }

  /** Or until it has failed. */
  #untilDurable(entry: number): Promise<void> {
    return new Promise((resolve) => {
      if (this.#failure !== undefined) return resolve()
      this.#waiting.add(resolve)
      this.#whenDurable(entry, () => {
        this.#waiting.delete(resolve)
        resolve()
      })
    })
  }

  /** At the end of the turn: what came in together is one group. */
  #appendSoon(): void {
    if (this.#isDue || this.#appending !== undefined) return
    this.#isDue = true
    this.#clock.soon(() => {
      this.#isDue = false
      if (this.#appending === undefined) this.#append()
    })
  }

  #append(): void {
    const group = this.#gathering
    if (group.entries.length === 0) return
    this.#gathering = { entries: [], bytes: 0, deliveries: [], last: 0 }
    this.#appending = group
    this.#journal.append(group.last - group.entries.length + 1, group.entries).then(
      () => this.#appended(group),
      (error: unknown) => this.#fail(error),
    )
  }

  #appended(group: Group): void {
    this.#durable = group.last
    this.#appending = undefined
    // The next group is on its way while these are answered.
    this.#append()
    for (const deliver of group.deliveries) deliver()
    if (this.#state.bytesChanged > CHANGED_BYTES_MAX) this.#storeNow()
  }

  #storeLater(): void {
    if (this.#isClosed || this.#failure !== undefined) return
    this.#cancelStore ??= this.#clock.after(STORE_MS, () => {
      this.#cancelStore = undefined
      this.#storeNow()
    })
  }

  #storeNow(): void {
    if (this.#failure !== undefined || this.#isClosed || this.#storing !== undefined || !this.#state.hasChanges) return
    this.#cancelStore?.()
    this.#cancelStore = undefined
    this.#storing = this.#store()
  }

  async #store(): Promise<void> {
    const through = this.#applied
    this.#state.freeze()
    try {
      // Stored earlier, the state would be ahead of the journal after a crash.
      await this.#untilDurable(through)
      if (this.#failure !== undefined) return
      await this.#stored.commit(this.#state.frozenChanges(), through)
      this.#state.melt()
      await this.#journal.trim(through)
    } catch (error) {
      this.#fail(error)
    } finally {
      this.#storing = undefined
    }
    if (this.#state.hasChanges) this.#storeLater()
  }

  #fail(error: unknown): void {
    if (this.#failure !== undefined) return
    const { message } = error as Error
    this.#failure = isOperationError(error)
      ? error
      : new OperationError('JOURNAL_FAILED', `Cannot go on by the journal: ${message}`, { cause: error })
    this.#cancelStore?.()
    for (const resolve of this.#waiting) resolve()
    this.#waiting.clear()
    this.#onFailed(this.#failure)
  }
}
