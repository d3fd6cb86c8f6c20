/**
 * Second requests for ranges whose first one is slow: sent when the first has taken longer than 95 of 100 of its size have
 * lately, the first answer counts and the other request is given up. They are at most one in twenty, saved up to ten, so
 * that a store which is slow as a whole is not asked twice for everything.
 */
import { isOperationError } from '#base/errors.ts'
import { counter } from '#base/metrics.ts'
import type { MemoryBudget } from '#base/memory-budget.ts'

/** Asks the store for a range. */
export type Ask = (signal: AbortSignal) => Promise<Buffer>

/** So many of the last times of a size are remembered. */
const SAMPLES = 128
/** Fewer say nothing about a percentile. */
const SAMPLES_MIN = 32
const QUANTILE = 0.95
const TOKENS_PER_FETCH = 0.05
const TOKENS_MAX = 10
/** The percentile is found anew every so many samples. */
const RENEW = 16

class Times {
  readonly #ring = new Float64Array(SAMPLES)
  #count = 0
  #slowMs = Infinity

  /** Longer than this is slow; Infinity where that is not known yet. */
  get slowMs(): number {
    return this.#slowMs
  }

  add(ms: number): void {
    this.#ring[this.#count++ % SAMPLES] = ms
    if (this.#count < SAMPLES_MIN || this.#count % RENEW !== 0) return
    const sorted = this.#ring.slice(0, Math.min(this.#count, SAMPLES)).sort()
    this.#slowMs = sorted[Math.floor(sorted.length * QUANTILE)] ?? Infinity
  }
}

export class Hedger {
  readonly #budget: MemoryBudget
  readonly #now: () => number
  /** By the power of two of the length. */
  readonly #times: Times[] = []
  #tokens = 0
  readonly #won = counter('eider_mount_hedged_total', 'won')
  readonly #lost = counter('eider_mount_hedged_total', 'lost')
  readonly #failed = counter('eider_mount_hedged_total', 'failed')

  constructor(budget: MemoryBudget, now: () => number) {
    this.#budget = budget
    this.#now = now
  }

  /** What `ask` gives, asked once or twice. */
  async fetch(length: number, ask: Ask, signal: AbortSignal): Promise<Buffer> {
    const size = Math.floor(Math.log2(Math.max(1, length)))
    const times = (this.#times[size] ??= new Times())
    this.#tokens = Math.min(TOKENS_MAX, this.#tokens + TOKENS_PER_FETCH)
    const began = this.#now()
    const bytes = await (times.slowMs === Infinity ? ask(signal) : this.#twice(length, times.slowMs, ask, signal))
    times.add(this.#now() - began)
    return bytes
  }

  async #twice(length: number, slowMs: number, ask: Ask, signal: AbortSignal): Promise<Buffer> {
    const firstAbort = new AbortController()
    const secondAbort = new AbortController()
    const giveUp = (): void => {
      firstAbort.abort(signal.reason)
      secondAbort.abort(signal.reason)
    }
    if (signal.aborted) giveUp()
    else signal.addEventListener('abort', giveUp, { once: true })
    const first = ask(firstAbort.signal)
    let timer: NodeJS.Timeout | undefined
    try {
      return await new Promise<Buffer>((resolve, reject) => {
        let hedged = false
        first.then(
          (bytes) => {
            if (hedged) this.#lost.inc()
            secondAbort.abort()
            resolve(bytes)
          },
          (error: unknown) => {
            // A second request under way may still have the bytes; but not of a version that is gone.
            if (!hedged || isOperationError(error, 'FILE_STALE', 'ABORTED')) reject(error)
          },
        )
        timer = setTimeout(() => {
          const second = this.#second(length, ask, secondAbort.signal)
          if (second === undefined) return
          hedged = true
          second.then(
            (bytes) => {
              this.#won.inc()
              firstAbort.abort()
              resolve(bytes)
            },
            () => {
              if (!secondAbort.signal.aborted) this.#failed.inc()
              hedged = false
              // Where the first has failed already, its error is the answer.
              first.catch(reject)
            },
          )
        }, slowMs)
      })
    } finally {
      clearTimeout(timer)
      signal.removeEventListener('abort', giveUp)
      secondAbort.abort()
    }
  }

  /** Undefined where there are no tokens or no memory: it would hold as much as the first. */
  #second(length: number, ask: Ask, signal: AbortSignal): Promise<Buffer> | undefined {
    if (this.#tokens < 1) return undefined
    const share = this.#budget.tryReserve(length)
    if (share === undefined) return undefined
    this.#tokens--
    return ask(signal).finally(() => share.release())
  }
}
