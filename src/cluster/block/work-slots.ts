/**
 * A bound on what is under way: so many at once, so many waiting behind them in the order of asking, and who comes then
 * is sent away. A slot is kept until the work has really ended, not only the waiting for it, so that a disk that hangs
 * takes up no more of the process than its slots.
 */
import { OperationError } from '#base/errors.ts'
import { abortedError } from '#store/abort.ts'

interface Waiting {
  readonly start: () => void
  readonly refuse: (error: OperationError) => void
}

export class WorkSlots {
  readonly #activeMax: number
  readonly #waitingMax: number
  #active = 0
  readonly #waiting = new Set<Waiting>()
  #onIdle: (() => void)[] = []

  constructor(activeMax: number, waitingMax: number) {
    this.#activeMax = activeMax
    this.#waitingMax = waitingMax
  }

  get active(): number {
    return this.#active
  }

  /**
   * Does the work once there is a slot; `action` completes "Cannot ...".
   * @throws BLOCK_BUSY where as many wait already, ABORTED where the signal fires before the work begins
   */
  run<T>(action: string, work: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    if (signal?.aborted === true) return Promise.reject(abortedError(action, signal))
    if (this.#active < this.#activeMax) return this.#do(work)
    if (this.#waiting.size >= this.#waitingMax) {
      const detail = `${this.#active} are under way on the disk and ${this.#waiting.size} wait`
      return Promise.reject(new OperationError('BLOCK_BUSY', `Cannot ${action}: ${detail}`))
    }
    return new Promise<T>((resolve, reject) => {
      const left = (): void => {
        this.#waiting.delete(waiting)
        signal?.removeEventListener('abort', giveUp)
      }
      const giveUp = (): void => {
        left()
        if (signal !== undefined) reject(abortedError(action, signal))
      }
      const waiting: Waiting = {
        start: () => {
          left()
          this.#do(work).then(resolve, reject)
        },
        refuse: (error) => {
          left()
          reject(error)
        },
      }
      this.#waiting.add(waiting)
      signal?.addEventListener('abort', giveUp, { once: true })
    })
  }

  /** Sends all away who wait. */
  refuseWaiting(error: OperationError): void {
    for (const waiting of this.#waiting) waiting.refuse(error)
  }

  /** Resolves when nothing is under way. */
  idle(): Promise<void> {
    return this.#active === 0 ? Promise.resolve() : new Promise((resolve) => this.#onIdle.push(resolve))
  }

  async #do<T>(work: () => Promise<T>): Promise<T> {
    this.#active++
    try {
      return await work()
    } finally {
      this.#active--
      for (const waiting of this.#waiting) {
        if (this.#active >= this.#activeMax) break
        waiting.start()
      }
      if (this.#active === 0) for (const resolve of this.#onIdle.splice(0)) resolve()
    }
  }
}
