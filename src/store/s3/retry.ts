/**
 * When and how often a request is sent again: pauses with full jitter, and a budget that all requests of a store share,
 * so that a store in trouble is not asked several times as often as a healthy one.
 */
import { setTimeout as sleep } from 'node:timers/promises'

import { abortedError } from '#store/abort.ts'

/** Tokens at the start and at most: a hundred retries in a row. */
const TOKENS_MAX = 500
const RETRY_TOKENS = 5
/** One retry for five successes, once the budget is used up. */
const SUCCESS_TOKENS = 1
/** A store that is back is noticed within so long. */
const PAUSE_MS_MAX = 5000

/** The token bucket that retries are paid from. */
export class RetryBudget {
  #tokens = TOKENS_MAX

  /** Takes the price of one retry; false where it cannot be paid. */
  take(): boolean {
    if (this.#tokens < RETRY_TOKENS) return false
    this.#tokens -= RETRY_TOKENS
    return true
  }

  /** Tells of a success. */
  give(): void {
    if (this.#tokens < TOKENS_MAX) this.#tokens += SUCCESS_TOKENS
  }
}

/** A random pause up to `baseMs`, doubled with each attempt made; `attempts` starts at 1. */
export function pauseMs(baseMs: number, attempts: number): number {
  return Math.random() * Math.min(PAUSE_MS_MAX, baseMs * 2 ** (attempts - 1))
}

/** The longest pause, less some so that many do not ask at once. */
export function longestPauseMs(): number {
  return PAUSE_MS_MAX * (0.5 + Math.random() / 2)
}

/** Waits, or rejects with `ABORTED` once the signal fires. */
export async function pause(action: string, ms: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await sleep(ms, undefined, signal === undefined ? {} : { signal })
  } catch (error) {
    if (signal?.aborted === true) throw abortedError(action, signal)
    throw error
  }
}
