/**
 * The state of a machine: a map of byte strings in order, reached by three calls that wait for nothing. What is read is
 * what was applied last, durable or not; whoever answers with it waits until it is (`durable-machine.ts`).
 *
 * Keys are strings of which each character is one byte (latin1): they are compared, hashed and cut without a copy, and
 * their order is that of their bytes.
 */

/** Bytes as characters of 0 to 255, at most `KEY_BYTES_MAX` of them. */
export type Key = string

/** What every kind of storage holds; lmdb has 1,978. */
export const KEY_BYTES_MAX = 1024

/** @return whether to go on. Neither key nor value may be kept changed; a value stays as it is. */
export type EachPair = (key: Key, value: Buffer) => boolean

export interface StateReader {
  get(key: Key): Buffer | undefined
  /** Gives what lies at `from` and before `to`, in order of keys, while `each` says so. */
  range(from: Key, to: Key, each: EachPair): void
  /** The same from the end: the last before `to` first. */
  rangeBackwards(from: Key, to: Key, each: EachPair): void
}

/** One step of a machine: all of its changes become part of the state, or none. Reads see the changes of the step. */
export interface StateBatch extends StateReader {
  /** Whether anything was put or removed. */
  readonly isChanged: boolean
  /** The value must stay as it is from here on. */
  put(key: Key, value: Buffer): void
  remove(key: Key): void
}

/** A change: what is at the key from now on, null where nothing is. */
export type Change = readonly [key: Key, value: Buffer | null]

/** Where state lies from one start to the next. It is as of some entry of the journal, and the entries after that are applied again. */
export interface StoredState extends StateReader {
  /** The entry of the journal up to which it has all changes; 0 where it has none. */
  readonly applied: number
  /**
   * Makes the changes part of the state, in one step and durably. One at a time. Until it resolves, reads see
   * all of them or none.
   */
  commit(changes: Iterable<Change>, applied: number): Promise<void>
  close(): Promise<void>
}
