/**
 * What a machine did, entry by entry, durably and in order: its state can be made anew from it, and an answer is given only
 * once the entry that it rests on is here. Entries are numbered from 1 on.
 *
 * Not here: what entries mean. The port has more than one implementation: files beside the state (`file-journal.ts`), the simulator's,
 * and replicated ones.
 */

export interface Journal {
  /** The first entry that is kept, and the last that is durable; `first` is `last + 1` where there is none. */
  readonly first: number
  readonly last: number
  /**
   * Makes a group of entries durable, all of them or none; the first one gets the number `at`, which is `last + 1`. One call at a time.
   * After a failure nobody knows whether the group is there: the machine must stop.
   * @throws JOURNAL_FENCED where another process has taken over the journal, JOURNAL_FAILED
   */
  append(at: number, entries: readonly Uint8Array[]): Promise<void>
  /** All entries from `from` on, in order. @throws JOURNAL_FAILED, JOURNAL_CORRUPT where one is missing or damaged */
  read(from: number, each: (number: number, entry: Buffer) => void): Promise<void>
  /** Lets go of entries up to `through`, of some of them later: a state that is stored has them. May be called while an append is under way. */
  trim(through: number): Promise<void>
  close(): Promise<void>
}
