/**
 * A bound on how many pieces of work are under way at once; others wait in line. Each put holds a descriptor, and ten
 * thousand at once would meet the limit of the process instead of a queue.
 */
import { untilAborted } from '#store/abort.ts'

export class Slots {
  #free: number
  readonly #waiting: (() => void)[] = []

  constructor(count: number) {
    this.#free = count
  }

  /** Runs `work` when its turn comes; an abort before that gives the turn to the next. */
  async run<T>(action: string, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--
    else await this.#turn(action, signal)
    try {
      return await work()
    } finally {
      this.#release()
    }
  }

  async #turn(action: string, signal: AbortSignal | undefined): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#waiting.push(resolve)
    try {
      await untilAborted(action, promise, signal)
    } catch (error) {
      // It is still in line, or was just called up: either way its turn is to pass on.
      void promise.then(() => this.#release())
      throw error
    }
  }

  #release(): void {
    const next = this.#waiting.shift()
    if (next === undefined) this.#free++
    else next()
  }
}
