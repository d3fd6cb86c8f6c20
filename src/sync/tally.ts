/** What a sync has done so far, and what it gave up: counted as it happens, shown as a snapshot. */
import { isOperationError } from '#base/errors.ts'

import type { ComparisonCounts } from './comparison.ts'
import type { Outcome } from './executor.ts'
import { FAILURES_KEPT, type SyncFailure, type SyncPhase, type SyncSnapshot, type SyncWatcher } from './snapshot.ts'
import type { Skipped } from './tree.ts'

/** Paths that failed, by name; past that many they are only counted. */
const FAILED_MAX = 100_000

export class Tally {
  phase: SyncPhase = 'starting'
  readonly compared: ComparisonCounts = { source: 0, target: 0, same: 0 }
  sent = 0
  sentBytes = 0
  renamed = 0
  removed = 0
  retried = 0
  /** Found only in the target, and kept as sending failed. */
  keptBack = 0
  readonly #startedAtMs = Date.now()
  #madeDirectories = 0
  #attributesSet = 0
  #lastChangeAtMs: number | undefined
  readonly #skipped = new Map<string, Skipped['reason']>()
  readonly #failed = new Map<string, SyncFailure>()

  count(outcome: Outcome): void {
    if (outcome === 'nothing') return
    this.#lastChangeAtMs = Date.now()
    if (outcome === 'sent' || outcome === 'changed') this.sent++
    else if (outcome === 'made-directory') this.#madeDirectories++
    else if (outcome === 'attributes-set') this.#attributesSet++
  }

  changed(): void {
    this.#lastChangeAtMs = Date.now()
  }

  /** False where it was told before. */
  skip({ path, reason }: Skipped): boolean {
    if (this.#skipped.get(path) === reason) return false
    if (this.#skipped.size < FAILED_MAX) this.#skipped.set(path, reason)
    return true
  }

  /** The path was given up, for now or for good. */
  fail(path: string, error: unknown): SyncFailure {
    const failure = failureAt(path, error)
    // The last ones are the last of the map.
    this.#failed.delete(path)
    if (this.#failed.size < FAILED_MAX) this.#failed.set(path, failure)
    return failure
  }

  /** What is at the path is as it should be, or nothing is left to be done there. */
  mended(path: string): void {
    this.#failed.delete(path)
    // What a name hides is something else than what was made equal under it.
    if (this.#skipped.get(path) !== 'invalid-name') this.#skipped.delete(path)
  }

  get failures(): readonly SyncFailure[] {
    return [...this.#failed.values()]
  }

  /** Skipped files that somebody may miss: not what no target holds, was not asked for, or is gone. */
  get missed(): number {
    let count = 0
    for (const reason of this.#skipped.values()) if (isMissed(reason)) count++
    return count
  }

  snapshot(
    queue: { readonly waiting: number; readonly running: number; readonly bytes: number },
    watcher: SyncWatcher | undefined,
  ): SyncSnapshot {
    const skippedBy: Partial<Record<Skipped['reason'], number>> = {}
    for (const reason of this.#skipped.values()) skippedBy[reason] = (skippedBy[reason] ?? 0) + 1
    return {
      phase: this.phase,
      listedSource: this.compared.source,
      listedTarget: this.compared.target,
      same: this.compared.same,
      queued: queue.waiting,
      inFlight: queue.running,
      sent: this.sent,
      sentBytes: this.sentBytes,
      queuedBytes: Math.max(0, queue.bytes),
      renamed: this.renamed,
      removed: this.removed,
      keptBack: this.keptBack,
      madeDirectories: this.#madeDirectories,
      attributesSet: this.#attributesSet,
      skipped: this.#skipped.size,
      skippedBy,
      failed: this.#failed.size,
      retried: this.retried,
      startedAtMs: this.#startedAtMs,
      ...(this.#lastChangeAtMs === undefined ? {} : { lastChangeAtMs: this.#lastChangeAtMs }),
      failures: [...this.#failed.values()].slice(-FAILURES_KEPT),
      ...(watcher === undefined ? {} : { watcher }),
    }
  }
}

/** Whether what is skipped for that reason is a file that should be in the target. */
export function isMissed(reason: Skipped['reason']): boolean {
  return reason === 'not-utf8' || reason === 'unreadable' || reason === 'too-long' || reason === 'invalid-name'
}

function failureAt(path: string, error: unknown): SyncFailure {
  const message = error instanceof Error ? error.message : String(error)
  const code = isOperationError(error) ? error.code : error instanceof Error ? error.name : 'Error'
  return { path, code, message }
}
