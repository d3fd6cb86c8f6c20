/**
 * The surroundings of a real process: this machine's clock, its source of randomness, and TCP.
 */
import { randomBytes, randomInt } from 'node:crypto'
import { uptime } from 'node:os'

import { assert } from '#base/assert.ts'

import type { Cancel, Chance, Clock, Surroundings } from './surroundings.ts'
import { TcpNetwork, type TcpNetworkOptions } from './wire/tcp-network.ts'

/** What `setTimeout` takes; beyond that it fires at once. */
const TIMEOUT_MS_MAX = 2 ** 31 - 1
/** Milliseconds since 1970 have room for a fraction of 12 bits in a double: these are exact. */
const PARTS = 1024

class SystemClock implements Clock {
  /** From the monotonic clock to the wall clock. */
  #offsetMs = Date.now() - performance.now()

  nowMs(): number {
    // `Date.now` has whole milliseconds and follows the clock of the machine wherever it is set; the fraction is what has passed since
    // its last step, as well as that is known. Read in this order, a pause between the two makes the fraction too small, never too large.
    const monotonic = performance.now()
    const wall = Date.now()
    const fraction = monotonic + this.#offsetMs - wall
    if (fraction >= 0 && fraction < 1) return wall + Math.floor(fraction * PARTS) / PARTS
    // Just ahead is what two clocks are of each other; else that of the machine was set.
    const nearest = fraction >= 1 && fraction < 2 ? (PARTS - 1) / PARTS : 0
    this.#offsetMs = wall + nearest - monotonic
    return wall + nearest
  }

  monotonicMs(): number {
    return performance.now()
  }

  sleptMs(): number {
    // The system counts its uptime on while it sleeps, in hundredths of a second; CLOCK_MONOTONIC, which is behind `performance.now`, stands.
    return uptime() * 1000 - performance.now()
  }

  after(ms: number, action: () => void): Cancel {
    let timer: NodeJS.Timeout
    const wait = (left: number): void => {
      const part = Math.min(left, TIMEOUT_MS_MAX)
      timer = setTimeout(() => (left > part ? wait(left - part) : action()), part)
    }
    wait(ms)
    return () => clearTimeout(timer)
  }

  soon(action: () => void): void {
    setImmediate(action)
  }
}

const systemChance: Chance = {
  bytes: (count) => randomBytes(count),
  below(below) {
    assert(Number.isInteger(below) && below > 0 && below < 2 ** 48, 'chance chooses among 1 to 2^48 - 1')
    return randomInt(below)
  },
}

/** @throws OperationError `USAGE` for options of TLS that cannot be used */
export function systemSurroundings(options: TcpNetworkOptions = {}): Surroundings {
  const clock = new SystemClock()
  return { clock, chance: systemChance, network: new TcpNetwork({ clock, chance: systemChance }, options) }
}
