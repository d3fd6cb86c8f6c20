/**
 * When a disk that still answers is no longer to be trusted: pure. A bad sector is one file's misfortune; many of
 * them in a short time are the end of a disk.
 */
const WINDOW_MS = 5 * 60_000
const SLICE_MS = 60_000
/** Failures within the window that say nothing yet, however few operations there were. */
const FAILURES_MIN = 5
/** The share of operations that may fail. */
const FAILURE_SHARE_MAX = 0.1

interface Slice {
  readonly startMs: number
  operations: number
  failures: number
}

export class DiskHealth {
  #slices: Slice[] = []

  /** An operation came to its end; failed: by an I/O error, not for what was asked. */
  count(nowMs: number, isFailed: boolean): void {
    const last = this.#slices.at(-1)
    let slice = last
    if (slice === undefined || nowMs - slice.startMs >= SLICE_MS || nowMs < slice.startMs) {
      slice = { startMs: nowMs, operations: 0, failures: 0 }
      this.#slices = [...this.#slices.filter(({ startMs }) => startMs <= nowMs && nowMs - startMs < WINDOW_MS), slice]
    }
    slice.operations++
    if (isFailed) slice.failures++
  }

  /** Whether so many of the operations of the last five minutes failed that the disk is to be given up. */
  isLost(nowMs: number): boolean {
    let [operations, failures] = [0, 0]
    for (const slice of this.#slices) {
      if (nowMs - slice.startMs >= WINDOW_MS) continue
      operations += slice.operations
      failures += slice.failures
    }
    return failures >= FAILURES_MIN && failures > operations * FAILURE_SHARE_MAX
  }
}
