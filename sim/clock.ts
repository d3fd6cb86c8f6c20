/**
 * The clock of a simulated machine: simulated time, as that machine takes it to be. Its time of day may be off and jump; both of its
 * clocks may go too fast or too slow. Machines that sleep do so all together: no simulated time passes meanwhile.
 */
import type { Cancel, Clock } from '#cluster/surroundings.ts'

import type { Life } from './event-queue.ts'
import type { Timeline } from './timeline.ts'

/** The time of day at which every world begins: 2027-01-15. */
export const EPOCH_MS = 1_800_000_000_000

/** What is wrong with the clocks of a machine; outlasts its processes. */
export class ClockError {
  /** Ahead by so much. */
  offsetMs = 0
  /** How much of its own time passes in simulated time. */
  rate = 1
  /** How long the machine has slept: that is no error, but its monotonic clock stood. */
  sleptMs = 0
}

export class SimulatedClock implements Clock {
  readonly #timeline: Timeline
  readonly #life: Life
  readonly #error: ClockError
  readonly #startUs: number
  /** A monotonic clock never goes back, whatever becomes of its rate. */
  #latestMs = 0

  constructor(timeline: Timeline, life: Life, error: ClockError) {
    this.#timeline = timeline
    this.#life = life
    this.#error = error
    this.#startUs = timeline.nowUs
  }

  nowMs(): number {
    return EPOCH_MS + this.#error.offsetMs + this.#error.sleptMs + (this.#timeline.nowUs / 1000) * this.#error.rate
  }

  monotonicMs(): number {
    const ms = ((this.#timeline.nowUs - this.#startUs) / 1000) * this.#error.rate
    return (this.#latestMs = Math.max(this.#latestMs, ms))
  }

  sleptMs(): number {
    return this.#error.sleptMs
  }

  after(ms: number, action: () => void): Cancel {
    // No timer is done with before time has passed, or one that goes on at once would keep the world from going on at all.
    const us = Math.max(1, Math.round((ms * 1000) / this.#error.rate))
    return this.#timeline.after(us, action, this.#life)
  }

  soon(action: () => void): void {
    this.#timeline.at(this.#timeline.nowUs, action, this.#life)
  }
}
