/**
 * A journal in memory, for tests and for the simulator, which says by `MemoryDisk` when a write is durable and may end the process at any
 * moment: `crash` then gives what the next process finds.
 */
import { assert } from '#base/assert.ts'
import { OperationError } from '#base/errors.ts'

import type { Journal } from './journal.ts'

/** What decides when writes are durable, and whether. */
export interface MemoryDisk {
  /** Resolves when so many bytes are durable; rejects where they cannot be written. Of a process that crashed it need not settle. */
  write(bytes: number): Promise<void>
}

/** A disk on which all is durable at once. */
export const PROMPT_DISK: MemoryDisk = { write: () => Promise.resolve() }

interface Group {
  readonly at: number
  readonly entries: readonly Buffer[]
}

export class MemoryJournal implements Journal {
  readonly #disk: MemoryDisk
  readonly #groups: Group[]
  #last: number
  /** Up to here entries are let go of, and up to there durably so: a crash may bring the others back. */
  #trimmed: number
  #trimmedDurably: number
  /** Being written, or failed to be. */
  #pending: Group | undefined
  #failure: OperationError | undefined

  constructor(disk: MemoryDisk = PROMPT_DISK, groups: readonly Group[] = [], last = 0) {
    this.#disk = disk
    this.#groups = [...groups]
    this.#last = last
    this.#trimmed = this.#trimmedDurably = (groups[0]?.at ?? last + 1) - 1
  }

  get first(): number {
    return this.#groups.find((group) => lastOf(group) > this.#trimmed)?.at ?? this.#last + 1
  }

  get last(): number {
    return this.#last
  }

  async append(at: number, entries: readonly Uint8Array[]): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure
    assert(this.#pending === undefined, 'groups are appended one after the other')
    assert(at === this.#last + 1, 'a group follows on the last one')
    assert(entries.length > 0, 'a group has entries')
    const group = { at, entries: entries.map((entry) => Buffer.from(entry)) }
    this.#pending = group
    await this.#written(
      'append to',
      group.entries.reduce((bytes, entry) => bytes + entry.length, 0),
    )
    this.#pending = undefined
    this.#groups.push(group)
    this.#last = lastOf(group)
  }

  async read(from: number, each: (number: number, entry: Buffer) => void): Promise<void> {
    if (from < this.first) {
      throw new OperationError('JOURNAL_CORRUPT', `Cannot read the journal: entry ${from} is gone`)
    }
    for (const group of this.#groups) {
      for (const [index, entry] of group.entries.entries()) {
        if (group.at + index >= from) each(group.at + index, entry)
      }
    }
  }

  async trim(through: number): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure
    assert(through <= this.#last, 'only what is durable is let go of')
    this.#trimmed = Math.max(this.#trimmed, through)
    await this.#written('trim', 0)
    this.#trimmedDurably = Math.max(this.#trimmedDurably, through)
    while (this.#groups[0] !== undefined && lastOf(this.#groups[0]) <= this.#trimmedDurably) this.#groups.shift()
  }

  async close(): Promise<void> {
    this.#failure ??= new OperationError('JOURNAL_FAILED', 'Cannot use the journal: it is closed')
  }

  /**
   * Ends this one, whose calls fail from here on as those of a process that was overtaken, and gives what the next process finds:
   * all that was acknowledged; and, where it says so, what was being written as well.
   */
  crash(keepUnacknowledged: boolean, disk: MemoryDisk = this.#disk): MemoryJournal {
    this.#failure = new OperationError('JOURNAL_FENCED', 'Cannot use the journal: another process has taken it over')
    const trimmed = keepUnacknowledged ? this.#trimmed : this.#trimmedDurably
    const groups = this.#groups.filter((group) => lastOf(group) > trimmed)
    if (keepUnacknowledged && this.#pending !== undefined) groups.push(this.#pending)
    const last = groups.at(-1)
    return new MemoryJournal(disk, groups, last === undefined ? this.#last : lastOf(last))
  }

  /** Waits until it is durable, and fails for good where it cannot be, or where the process has ended meanwhile. */
  async #written(action: string, bytes: number): Promise<void> {
    try {
      await this.#disk.write(bytes)
    } catch (error) {
      const detail = `Cannot ${action} the journal: ${(error as Error).message}`
      this.#failure ??= new OperationError('JOURNAL_FAILED', detail, { cause: error })
    }
    if (this.#failure !== undefined) throw this.#failure
  }
}

function lastOf(group: Group): number {
  return group.at + group.entries.length - 1
}
