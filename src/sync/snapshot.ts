/** How a sync stands at one moment: plain data, for a screen, a record and events. Rates and times to go are derived from two of them. */
import type { Skipped } from './tree.ts'

/**
 * What a sync is doing. `comparing`: both sides are still being listed, and what differs is sent already; `sending`: all is
 * listed; `watching`: both sides are equal but for what is being changed just now.
 */
export const SYNC_PHASES = ['starting', 'comparing', 'sending', 'watching', 'stopping'] as const
export type SyncPhase = (typeof SYNC_PHASES)[number]

/** What was given up for a path, for now or for good. */
export interface SyncFailure {
  readonly path: string
  /** Of the table of errors; another text where an actor threw something else. */
  readonly code: string
  readonly message: string
}

export interface SyncWatcher {
  readonly kind: string
  /** Subtrees that are looked at from time to time, as nothing tells of changes in them. */
  readonly degraded: readonly { readonly path: string; readonly why: string }[]
  readonly overflows: number
}

/** So many of the last failures are kept; `failed` counts all. */
export const FAILURES_KEPT = 20

export interface SyncSnapshot {
  readonly phase: SyncPhase
  /** Entries that the listings of the source and the target have given so far. */
  readonly listedSource: number
  readonly listedTarget: number
  /** Entries that were found equal. */
  readonly same: number
  /** Operations that are known and not begun, and those under way. */
  readonly queued: number
  readonly inFlight: number
  /** Files sent, and their bytes; those of files under way count as far as they are sent. */
  readonly sent: number
  readonly sentBytes: number
  /** Bytes that are known and not sent, those of files under way included. */
  readonly queuedBytes: number
  readonly renamed: number
  readonly removed: number
  /** Entries that only the target has, and that are kept there as not all could be sent. */
  readonly keptBack: number
  readonly madeDirectories: number
  readonly attributesSet: number
  readonly skipped: number
  /** The same by reason. */
  readonly skippedBy?: Readonly<Partial<Record<Skipped['reason'], number>>>
  /** Paths that have failed and were not mended since. */
  readonly failed: number
  /** Tries after the first. */
  readonly retried: number
  readonly startedAtMs: number
  readonly lastChangeAtMs?: number
  /** The last of them, at most `FAILURES_KEPT`. */
  readonly failures: readonly SyncFailure[]
  readonly watcher?: SyncWatcher
}
