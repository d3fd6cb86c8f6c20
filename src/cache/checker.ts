/**
 * Checks whole files in the background, one after another: they can be handed to the kernel only when each of their blocks
 * was found right. Who asks while too many wait is forgotten, and asks again at the next opening.
 */
import type { CachedFile } from './cached-file.ts'

const WAITING_MAX = 64

export class Checker {
  readonly #waiting = new Set<CachedFile>()
  readonly #hold: (file: CachedFile) => void
  readonly #release: (file: CachedFile) => void
  #isOver = false
  #running: Promise<void> | undefined

  constructor(hold: (file: CachedFile) => void, release: (file: CachedFile) => void) {
    this.#hold = hold
    this.#release = release
  }

  add(file: CachedFile): void {
    if (this.#isOver || this.#waiting.has(file) || this.#waiting.size >= WAITING_MAX) return
    this.#hold(file)
    this.#waiting.add(file)
    this.#running ??= this.#run().finally(() => (this.#running = undefined))
  }

  /** Gives up what was not checked yet. */
  async close(): Promise<void> {
    this.#isOver = true
    await this.#running
  }

  async #run(): Promise<void> {
    for (const file of this.#waiting) {
      try {
        if (!this.#isOver) await file.checkAll(() => this.#isOver)
      } finally {
        this.#waiting.delete(file)
        this.#release(file)
      }
    }
  }
}
