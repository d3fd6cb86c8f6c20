/** Something that a process does at once, and again and again, until it is stopped: one at a time, at times that differ a little, so that those of many processes do not come together. */
import type { Cancel, Surroundings } from './surroundings.ts'

/** By so much of the pause it may be shorter or longer. */
const JITTER = 0.1

export class Heartbeat {
  readonly #surroundings: Surroundings
  readonly #beatMs: number
  readonly #beat: () => Promise<void>
  #cancel: Cancel | undefined
  #isUnderWay = false
  #isDueAgain = false
  #isStopped = false

  /** @param beat deals with its own failures */
  constructor(surroundings: Surroundings, beatMs: number, beat: () => Promise<void>) {
    this.#surroundings = surroundings
    this.#beatMs = beatMs
    this.#beat = beat
  }

  /** Without waiting for the next time; after the one that is under way. */
  now(): void {
    if (this.#isStopped) return
    this.#cancel?.()
    if (this.#isUnderWay) {
      this.#isDueAgain = true
      return
    }
    this.#isUnderWay = true
    void this.#beat().then(() => {
      this.#isUnderWay = false
      const isDueAgain = this.#isDueAgain
      this.#isDueAgain = false
      if (isDueAgain) this.now()
      else this.#later()
    })
  }

  stop(): void {
    this.#isStopped = true
    this.#cancel?.()
  }

  #later(): void {
    if (this.#isStopped) return
    const { clock, chance } = this.#surroundings
    const pause = this.#beatMs * (1 + JITTER * (chance.below(2001) / 1000 - 1))
    this.#cancel = clock.after(pause, () => this.now())
  }
}
