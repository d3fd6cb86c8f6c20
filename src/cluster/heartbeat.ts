/**
 * Something that a process does at once, and again and again, until it is stopped: one at a time, at times that differ a little, so that those of many
 * processes do not come together. What fails is done again the next time; it is told when it begins to fail, when it
 * fails otherwise, and when it works again, not each time.
 */
import { type ErrorCode, ERRORS, isOperationError, type OperationError } from '#base/errors.ts'
import type { Logger } from '#base/log.ts'

import type { Cancel, Surroundings } from './surroundings.ts'

/** By so much of the pause it may be shorter or longer. */
const JITTER = 0.1

export interface HeartbeatOptions {
  /** From the end of one to the next. */
  readonly pauseMs: () => number
  /** Where it rejects, that is by an operating error. */
  readonly beat: () => Promise<void>
  readonly log: Logger
  /** For the log: `The registration`. */
  readonly what: string
}

export class Heartbeat {
  readonly #surroundings: Surroundings
  readonly #options: HeartbeatOptions
  #cancel: Cancel | undefined
  #underWay: Promise<void> | undefined
  #isDueAgain = false
  #isStopped = false
  /** By which it failed the last time. */
  #trouble: ErrorCode | undefined

  constructor(surroundings: Surroundings, options: HeartbeatOptions) {
    this.#surroundings = surroundings
    this.#options = options
  }

  /** Without waiting for the next time; after the one that is under way. */
  now(): void {
    if (this.#underWay === undefined) void this.joined()
    else this.#isDueAgain = true
  }

  /** Resolves when the one that is under way has ended, or one that begins now. */
  joined(): Promise<void> {
    if (this.#isStopped) return Promise.resolve()
    if (this.#underWay !== undefined) return this.#underWay
    this.#cancel?.()
    const { promise, resolve } = Promise.withResolvers<void>()
    // Before it begins: what it does may ask for the next one.
    this.#underWay = promise
    void this.#beat().then(() => {
      this.#underWay = undefined
      resolve()
      const isDueAgain = this.#isDueAgain
      this.#isDueAgain = false
      if (isDueAgain) this.now()
      else this.#later()
    })
    return promise
  }

  stop(): void {
    this.#isStopped = true
    this.#cancel?.()
  }

  async #beat(): Promise<void> {
    const { beat, log, what } = this.#options
    try {
      await beat()
      if (this.#trouble !== undefined) log.info(`${what} works again`)
      this.#trouble = undefined
    } catch (error) {
      if (!isOperationError(error)) throw error
      this.#tell(error)
    }
  }

  #tell(error: OperationError): void {
    const { log, what } = this.#options
    // What is under way at the end is given up.
    if (this.#isStopped || this.#trouble === error.code) return
    this.#trouble = error.code
    log[ERRORS[error.code].level === 'error' ? 'error' : 'warn'](
      { err: error },
      `${what} fails, and is tried again and again`,
    )
  }

  #later(): void {
    if (this.#isStopped) return
    const { clock, chance } = this.#surroundings
    const pause = this.#options.pauseMs() * (1 + JITTER * (chance.below(2001) / 1000 - 1))
    this.#cancel = clock.after(pause, () => this.now())
  }
}
