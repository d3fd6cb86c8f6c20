/** A bound on bytes a second, for all that is sent together: who sends waits until its turn. */
import { setTimeout as delay } from 'node:timers/promises'

import { callOptions } from './call-options.ts'

/** So much may go at once after a pause. */
const BURST_MS = 100

export class Bandwidth {
  readonly #bytesPerMs: number
  /** When all that was let through so far is paid for. */
  #paidAt = 0

  constructor(bytesPerSecond: number) {
    this.#bytesPerMs = bytesPerSecond / 1000
  }

  /** Resolves when so many more may be sent. */
  async take(bytes: number, signal?: AbortSignal): Promise<void> {
    const now = performance.now()
    const from = Math.max(now - BURST_MS, this.#paidAt)
    this.#paidAt = from + bytes / this.#bytesPerMs
    if (this.#paidAt > now) await delay(this.#paidAt - now, undefined, callOptions({ signal }))
  }

  /** The stream at its pace. */
  async *paced(stream: AsyncIterable<Uint8Array>, signal?: AbortSignal): AsyncGenerator<Uint8Array, void, undefined> {
    for await (const chunk of stream) {
      await this.take(chunk.length, signal)
      yield chunk
    }
  }
}
