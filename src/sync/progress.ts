/** What is told of a sync while it runs: snapshots at most some times a second and at each change of the phase; others at once. */
import type { SyncFailure, SyncPhase, SyncSnapshot } from './snapshot.ts'
import type { SyncObserver } from './sync.ts'
import { Tally } from './tally.ts'
import type { Skipped } from './tree.ts'

const SNAPSHOT_MS = 250

export class Progress {
  readonly tally = new Tally()
  readonly #observer: SyncObserver
  readonly #snapshot: () => SyncSnapshot
  #shownAt = Number.NEGATIVE_INFINITY
  #later: NodeJS.Timeout | undefined

  constructor(observer: SyncObserver, snapshot: () => SyncSnapshot) {
    this.#observer = observer
    this.#snapshot = snapshot
  }

  phase(phase: SyncPhase): void {
    if (this.tally.phase === phase) return
    this.tally.phase = phase
    this.#shownAt = Number.NEGATIVE_INFINITY
    this.show()
  }

  /** Something has changed that a snapshot tells: the last of several changes is told, too, though nothing may follow it for hours. */
  show(): void {
    if (this.#observer.onSnapshot === undefined) return
    const wait = this.#shownAt + SNAPSHOT_MS - performance.now()
    if (wait > 0) {
      this.#later ??= setTimeout(() => this.#tell(), wait).unref()
      return
    }
    this.#tell()
  }

  /** Nothing more is told by itself. */
  end(): void {
    clearTimeout(this.#later)
  }

  #tell(): void {
    clearTimeout(this.#later)
    this.#later = undefined
    this.#shownAt = performance.now()
    this.#observer.onSnapshot?.(this.#snapshot())
  }

  skipped(skipped: Skipped): void {
    if (this.tally.skip(skipped)) this.#observer.onSkipped?.(skipped)
  }

  /** The path is given up, for now or for good. */
  failed(path: string, error: unknown): SyncFailure {
    const failure = this.tally.fail(path, error)
    this.#observer.onFailed?.(failure)
    return failure
  }
}
