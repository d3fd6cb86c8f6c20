/**
 * What is known of entries whose store tells attributes only one request at a time: kept on disk with the version and the
 * time that they belong to, so that a listing of the next day needs no request per entry.
 */
import type { Entry } from '#store/store.ts'

export interface AttributeIndex {
  /** The entry with its attributes and exact kind, where `listed` is still the same; undefined where it must be asked for. */
  known(listed: Entry): Entry | undefined
  /** Notes what the store has said of an entry, attributes included. Cheap; written in batches. */
  note(entry: Entry): void
  /** Forgets a path: it was removed, or its attributes may have changed. */
  forget(path: string): void
  close(): Promise<void>
}
