/**
 * From where the registry heard last of each process, in memory alone. The number of a process lies in its data directory and is copied with it:
 * a copy that is served beside the original would get a part of what is written, and the rest would look lost. So a process has one place
 * at a time, and another one may have it only once the first has been silent for a while.
 */
import { OperationError } from '#base/errors.ts'
import type { Address } from '#cluster/surroundings.ts'

/** Who was heard of in this time is still there: two heartbeats and more. */
export const HELD_MS = 25_000

interface Held {
  readonly place: string
  readonly address: Address
  readonly does: string
  /** By the monotonic clock. */
  readonly heardAt: number
}

/** Where a process says that it is. */
interface ToldPlace {
  readonly process: number
  readonly place: string
  readonly address: Address
  /** What it does there, for people: `serves them`. */
  readonly does: string
}

export class HeldPlaces {
  readonly #monotonicMs: () => number
  readonly #held = new Map<number, Held>()

  constructor(monotonicMs: () => number) {
    this.#monotonicMs = monotonicMs
  }

  /**
   * The process is heard of from there, from now on: what is still being stored already keeps out others.
   * @param action for people: `Cannot ...`
   * @return gives the place back, where the process is not taken after all
   * @throws REGISTRATION_REFUSED where it was heard of elsewhere lately
   */
  take(action: string, { process, place, address, does }: ToldPlace): () => void {
    const now = this.#monotonicMs()
    const before = this.#held.get(process)
    if (before !== undefined && before.place !== place && now - before.heardAt <= HELD_MS) {
      const detail = `a process that has the same directory, or a copy of it, ${before.does} at ${before.address}`
      throw new OperationError('REGISTRATION_REFUSED', `${action}: ${detail}`, {
        hint: `A copy must not be served beside the original. Where the other process has ended, try again in ${HELD_MS / 1000} seconds.`,
      })
    }
    const taken = { place, address, does, heardAt: now }
    this.#held.set(process, taken)
    return () => {
      if (this.#held.get(process) !== taken) return
      if (before === undefined) this.#held.delete(process)
      else this.#held.set(process, before)
    }
  }
}
