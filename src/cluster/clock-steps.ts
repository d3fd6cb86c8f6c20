/**
 * Whether somebody has set the clock of this machine: the time of day against the monotonic clock, which nobody can set. Both are slewed alike, so
 * the difference between them stays the same to a fraction of a second for years; what changes it is that the time of day is set, or that
 * the machine sleeps. The latter is no step: the time of day is right then.
 */
import type { Clock } from './surroundings.ts'

/** What is less is no step: leap seconds, and the first corrections of NTP. */
export const CLOCK_STEP_MS_MAX = 10_000

export class ClockSteps {
  readonly #clock: Clock
  /** From the monotonic clock to the time of day, when that was last as it should be. */
  #offsetMs = 0
  #sleptMs = 0

  constructor(clock: Clock) {
    this.#clock = clock
    this.accept()
  }

  /** The time of day is as it should be now. */
  accept(): void {
    this.#offsetMs = this.#clock.nowMs() - this.#clock.monotonicMs()
    this.#sleptMs = this.#clock.sleptMs()
  }

  /** By how much it was set ahead since then, all in all; negative: back. @param wallMs the time of day now, of who has asked for it */
  stepMs(wallMs = this.#clock.nowMs()): number {
    const step = wallMs - this.#clock.monotonicMs() - this.#offsetMs
    if (Math.abs(step) <= CLOCK_STEP_MS_MAX) return step
    // That is asked of the system, so only where something is strange.
    const slept = this.#clock.sleptMs() - this.#sleptMs
    this.#offsetMs += slept
    this.#sleptMs += slept
    return step - slept
  }

  /** The time of day if nobody had set it. */
  nowMs(): number {
    const wallMs = this.#clock.nowMs()
    return wallMs - this.stepMs(wallMs)
  }
}
