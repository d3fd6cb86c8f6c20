/**
 * Stored state in memory, for tests and for the simulator, which says by `MemoryDisk` when a commit is durable and may end the process at
 * any moment: `crash` then gives what the next process finds.
 */
import { assert } from '#base/assert.ts'
import { OperationError } from '#base/errors.ts'

import { type MemoryDisk, PROMPT_DISK } from './memory-journal.ts'
import { SortedMap } from './sorted-map.ts'
import { type Change, type EachPair, type Key, KEY_BYTES_MAX, type StoredState } from './state.ts'

interface Commit {
  readonly changes: readonly Change[]
  readonly applied: number
}

export class MemoryState implements StoredState {
  readonly #disk: MemoryDisk
  readonly #pairs: SortedMap<Buffer>
  #applied: number
  #pending: Commit | undefined
  #failure: OperationError | undefined

  constructor(disk: MemoryDisk = PROMPT_DISK, pairs = new SortedMap<Buffer>(), applied = 0) {
    this.#disk = disk
    this.#pairs = pairs
    this.#applied = applied
  }

  get applied(): number {
    return this.#applied
  }

  get(key: Key): Buffer | undefined {
    return this.#pairs.get(key)
  }

  range(from: Key, to: Key, each: EachPair): void {
    this.#pairs.range(from, to, each)
  }

  rangeBackwards(from: Key, to: Key, each: EachPair): void {
    this.#pairs.rangeBackwards(from, to, each)
  }

  async commit(changes: Iterable<Change>, applied: number): Promise<void> {
    this.#checkUsable()
    assert(this.#pending === undefined, 'commits come one after the other')
    const commit = { changes: [...changes], applied }
    let bytes = 0
    for (const [key, value] of commit.changes) {
      assert(key.length > 0 && key.length <= KEY_BYTES_MAX, 'a key can be stored')
      bytes += key.length + (value?.length ?? 0)
    }
    this.#pending = commit
    let failure: OperationError | undefined
    try {
      await this.#disk.write(bytes)
    } catch (error) {
      const detail = `Cannot commit the state: ${(error as Error).message}`
      failure = new OperationError('JOURNAL_FAILED', detail, { cause: error })
    }
    this.#checkUsable()
    this.#pending = undefined
    if (failure !== undefined) throw failure
    this.#apply(commit)
  }

  async close(): Promise<void> {
    this.#failure ??= new OperationError('JOURNAL_FAILED', 'Cannot use the state: it is closed')
  }

  /**
   * Ends this one, whose commits fail from here on, and gives what the next process finds: all commits that were acknowledged;
   * and, where it says so, the one that was being written as well.
   */
  crash(keepUnacknowledged: boolean, disk: MemoryDisk = this.#disk): MemoryState {
    this.#failure = new OperationError('JOURNAL_FENCED', 'Cannot use the state: another process has taken it over')
    if (keepUnacknowledged && this.#pending !== undefined) this.#apply(this.#pending)
    return new MemoryState(disk, this.#pairs, this.#applied)
  }

  /** Asked before and after a wait. */
  #checkUsable(): void {
    if (this.#failure !== undefined) throw this.#failure
  }

  #apply({ changes, applied }: Commit): void {
    for (const [key, value] of changes) {
      if (value === null) this.#pairs.delete(key)
      else this.#pairs.set(key, value)
    }
    this.#applied = applied
  }
}
