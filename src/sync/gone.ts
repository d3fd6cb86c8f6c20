/**
 * What was told to be gone from the source, gathered until nothing more goes: how much it is together tells whether it is likely to
 * be meant. What may go is asked for like any other path, all of it or, where it is too much, nothing.
 */
import { compareUtf8, isWithin } from '#store/path.ts'

import { takesPart } from './source.ts'
import type { SyncOptions, SyncParts } from './sync.ts'
import type { TreeEntry } from './tree.ts'

const QUIET_MS = 300
const QUIET_MS_MAX = 3000

export interface GoneEvents {
  /** A comparison under way may find more that belongs together with what is gathered. */
  readonly isComparing: () => boolean
  /** All that may go, with what the target listed it as. */
  readonly onGone: (gone: readonly (readonly [path: string, target: TreeEntry | undefined])[]) => void
  readonly onFailed: (error: unknown) => void
}

export class Gone {
  /** Told by the owner when the target was compared: before, it is not known of how much the deletions are a part. */
  isCompared = false
  readonly #parts: Pick<SyncParts, 'source' | 'state' | 'decider' | 'deleteGuard'>
  readonly #options: Pick<SyncOptions, 'deletes' | 'signal'>
  readonly #events: GoneEvents
  readonly #paths = new Map<string, TreeEntry | undefined>()
  /** When the first of them came. */
  #since = 0
  #timer: NodeJS.Timeout | undefined
  /** How many are being looked at; what comes meanwhile is asked for after them. */
  #asked = 0

  constructor(
    parts: Pick<SyncParts, 'source' | 'state' | 'decider' | 'deleteGuard'>,
    options: Pick<SyncOptions, 'deletes' | 'signal'>,
    events: GoneEvents,
  ) {
    this.#parts = parts
    this.#options = options
    this.#events = events
  }

  get isEmpty(): boolean {
    return this.count === 0
  }
  /** With those that are being looked at. */
  get count(): number {
    return this.#paths.size + this.#asked
  }

  /** `target`: what it was listed as. */
  add(path: string, target?: TreeEntry): void {
    const { source, state } = this.#parts
    if (this.#options.deletes === 'never' || path === '' || !takesPart(source, path)) return
    const now = Date.now()
    state.intend({ path, since: now })
    if (this.#paths.size === 0) this.#since = now
    this.#paths.set(path, target ?? this.#paths.get(path))
    this.#askIn(Math.max(0, Math.min(QUIET_MS, this.#since + QUIET_MS_MAX - now)))
  }

  /** Asks for all of it now, or as soon as it may be. @throws OperationError `DELETES_REFUSED` */
  async ask(): Promise<void> {
    if (!this.isCompared || this.#asked > 0 || this.#events.isComparing()) {
      this.#askIn(QUIET_MS)
      return
    }
    const gone = [...this.#paths].sort(([a], [b]) => compareUtf8(a, b))
    this.#paths.clear()
    this.#asked = gone.length
    try {
      this.#parts.deleteGuard.check(await this.#countOf(gone))
      this.#events.onGone(gone)
    } finally {
      this.#asked = 0
    }
  }

  /** How much of the target goes with them. */
  async #countOf(gone: readonly (readonly [path: string, target: TreeEntry | undefined])[]): Promise<number> {
    const { source, state, decider } = this.#parts
    let count = 0
    let within: string | undefined
    for (const [path, target] of gone) {
      if (within !== undefined && isWithin(path, within)) continue
      const looked = await source.look(path, { signal: this.#options.signal })
      if (looked.is !== 'absent' || (await decider.isElsewhere(path))) continue
      within = path
      count += Math.max(state.countAt(path), target === undefined ? 0 : 1)
    }
    return count
  }

  stop(): void {
    clearTimeout(this.#timer)
  }

  #askIn(ms: number): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => void this.ask().catch(this.#events.onFailed), ms)
  }
}
