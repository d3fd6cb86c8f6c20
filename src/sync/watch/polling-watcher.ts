/**
 * The watcher of last resort, where the kernel tells of nothing: the tree is looked at in intervals. What was made and
 * removed again between two looks is not told, and a rename is told as gone and new.
 */
import { Outbox } from './outbox.ts'
import { PolledTree } from './polled-tree.ts'
import { Root } from './root.ts'
import { WatchLoop } from './watch-loop.ts'
import {
  type Change,
  type Degraded,
  WATCH_DEFAULTS,
  type Watcher,
  type WatcherCounts,
  type WatchOptions,
} from './watcher.ts'

export class PollingWatcher implements Watcher {
  readonly kind = 'polling'
  readonly degraded: readonly Degraded[]
  readonly #options: WatchOptions
  readonly #outbox = new Outbox()
  readonly #loop = new WatchLoop(this.#outbox)
  readonly #tree: PolledTree

  /** `why` nothing better is in force. @throws OperationError where there is no such directory */
  constructor(directory: string, why: string, options: Partial<WatchOptions> = {}) {
    this.#options = { ...WATCH_DEFAULTS, ...options }
    this.degraded = [{ path: '', why }]
    this.#tree = new PolledTree(new Root(directory), '')
  }

  get counts(): WatcherCounts {
    return { events: 0, changes: this.#outbox.told, overflows: 0 }
  }

  async arm(): Promise<void> {
    await this.#loop.run(() => this.#tree.poll(this.#outbox))
    this.#loop.every(this.#options.pollEveryMs, () => this.#tree.poll(this.#outbox))
  }

  changes(signal?: AbortSignal): AsyncIterable<readonly Change[]> {
    return this.#outbox.batches(signal)
  }

  close(): Promise<void> {
    return this.#loop.close()
  }
}
