/** Tells the log of an endpoint that does not answer: once after some seconds, and once when it does again. */
import type { OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'

const log = logger('store/s3')
/** A server that starts again, and a connection that breaks, are over before. */
const TOLD_MS_MIN = 2000

export class Outage {
  #since: number | undefined
  #isTold = false

  /** A request met no answer, `now`. */
  seen(error: OperationError, bucket: string, now: number): void {
    this.#since ??= now
    if (this.#isTold || now - this.#since < TOLD_MS_MIN) return
    this.#isTold = true
    log.warn({ err: error, bucket }, 'the endpoint does not answer: requests wait, and are sent again')
  }

  /** A request was answered. */
  ended(): void {
    if (this.#since === undefined) return
    if (this.#isTold) {
      const seconds = Math.round((performance.now() - this.#since) / 1000)
      log.info({ seconds }, 'the endpoint answers again')
    }
    this.#since = undefined
    this.#isTold = false
  }
}
