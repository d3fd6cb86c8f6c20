/** Reads a watcher for a test: what was told so far, and waiting until something is. */
import assert from 'node:assert/strict'

import { Mirror } from './mirror-double.ts'
import type { Change, Watcher } from './watcher.ts'

const DEADLINE_MS = 20_000

export class Reader {
  readonly mirror: Mirror
  readonly #waiting = new Set<() => void>()
  readonly ended: Promise<void>

  constructor(watcher: Watcher, directory: string) {
    this.mirror = Mirror.of(directory)
    this.ended = this.#read(watcher)
  }

  /** Armed, then scanned, then read. */
  static async of(watcher: Watcher, directory: string): Promise<Reader> {
    await watcher.arm()
    return new Reader(watcher, directory)
  }

  get told(): readonly Change[] {
    return this.mirror.told
  }

  /** Waits until something is told that holds, from the `from`th on. */
  async until(holds: (change: Change) => boolean, from = 0): Promise<void> {
    await this.when(() => this.told.slice(from).some(holds), 'what is waited for is told')
  }

  /** Waits until the mirror is what the tree is. */
  async settled(): Promise<void> {
    await this.when(() => this.mirror.differences().length === 0, 'the differences are told')
  }

  async when(holds: () => boolean, what: string): Promise<void> {
    const signal = AbortSignal.timeout(DEADLINE_MS)
    while (!holds()) {
      if (signal.aborted) assert.fail(`Within the time, ${what}: ${JSON.stringify(this.told.slice(-20))}`)
      await new Promise<void>((resolve) => {
        const done = (): void => {
          this.#waiting.delete(done)
          signal.removeEventListener('abort', done)
          resolve()
        }
        this.#waiting.add(done)
        signal.addEventListener('abort', done)
      })
    }
  }

  async #read(watcher: Watcher): Promise<void> {
    for await (const batch of watcher.changes()) {
      this.mirror.take(batch)
      for (const wake of this.#waiting) wake()
    }
  }
}
