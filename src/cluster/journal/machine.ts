/**
 * What a machine is: a function of its state and an entry, and of nothing else, so that the same entries make the same state wherever they
 * are applied. What an entry needs beyond the state (the time, chance, what others said) is in the entry.
 */
import type { StateBatch } from './state.ts'

export interface Machine<Entry, Outcome> {
  /** As the journal keeps it. */
  encode(entry: Entry): Uint8Array
  /** @throws OperationError `WIRE_MALFORMED`, `JOURNAL_CORRUPT` */
  decode(bytes: Buffer): Entry
  /**
   * Does what the entry says, or refuses it by throwing an operating error; then nothing may have been put or removed, and the entry
   * is not kept. What it gives is told to nobody before the entry is durable.
   * @throws OperationError
   */
  apply(state: StateBatch, entry: Entry): Outcome
}
