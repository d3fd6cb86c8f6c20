/**
 * Whether a process may write by its clock. What it writes has times in it, and ids of blocks are made of them; times of a shard never go back, and
 * disks take no blocks of a time that is far from theirs. So one write by a clock that is days ahead would keep a shard from working for days,
 * long after the clock is right again.
 *
 *   unknown --the registry's time agrees--> trusted --set by more than a step--> set --agrees--> trusted
 *      '----------- it does not ----------> off <-------- it does not ------------'
 *
 * The registry tells its time with each heartbeat. A process that does not hear from it goes on by a clock that nobody sets. A clock that is set and
 * set back is trusted again. What must be written while it is not trusted gets the time that it would be by the clock before.
 */
import { OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'

import { CLOCK_STEP_MS_MAX, ClockSteps } from './clock-steps.ts'
import type { Clock } from './surroundings.ts'

const log = logger('cluster/clock')

/** Clocks agree that are apart by less. Of two shards and disks twice that, which is well below the five minutes in which a block may be written. */
export const CLOCK_OFF_MS_MAX = 60_000

export interface ClockState {
  readonly isTrusted: boolean
  /** Of the registry's time, as far as is known. */
  readonly aheadMs: number
}

export class ClockTrust {
  readonly #clock: Clock
  /** Called when it is trusted from now on, or no more. */
  onChanged: () => void = () => undefined
  /** Since the clock was found to agree; undefined before that. */
  #steps: ClockSteps | undefined
  /** As compared last. */
  #aheadMs: number | undefined
  #isOff = false
  /** From the monotonic clock to the time of the registry, where the clock never agreed. */
  #registryOffsetMs: number | undefined
  /** As it was told last; undefined before anything is known. */
  #told: boolean | undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get isTrusted(): boolean {
    return this.#isTrustedAt(this.#clock.nowMs())
  }

  /** Undefined before anything is known. */
  get state(): ClockState | undefined {
    const { isTrusted } = this
    if (this.#aheadMs === undefined) return undefined
    return { isTrusted, aheadMs: Math.round(this.#aheadMs + this.#stepMs()) }
  }

  /** Why nothing may be written now. @param action for people: `Cannot ...` */
  objectionTo(action: string): OperationError | undefined {
    if (this.isTrusted) return undefined
    return new OperationError('CLOCK_UNTRUSTED', `${action}: the clock of this process ${this.#trouble()}`)
  }

  /** The time of day by a clock that is trusted; else by what it was before, or that of the registry. Undefined where none of them is known. */
  nowMs(): number | undefined {
    const wallMs = this.#clock.nowMs()
    if (this.#isTrustedAt(wallMs)) return wallMs
    if (this.#steps !== undefined) return this.#steps.nowMs()
    return this.#registryOffsetMs === undefined ? undefined : this.#clock.monotonicMs() + this.#registryOffsetMs
  }

  /** The registry has told its time. @param askedAt by the monotonic clock, when it was asked @param timeMs undefined where it does not know */
  compare(askedAt: number, timeMs: number | undefined): void {
    if (timeMs === undefined) return
    const monotonic = this.#clock.monotonicMs()
    // It told its time at some moment of this.
    const uncertain = (monotonic - askedAt) / 2
    const ahead = this.#clock.nowMs() - timeMs - uncertain
    const isOff = Math.abs(ahead) - uncertain > CLOCK_OFF_MS_MAX
    // After a long wait nobody can tell.
    if (!isOff && Math.abs(ahead) + uncertain > CLOCK_OFF_MS_MAX) return
    if (isOff) this.#registryOffsetMs = timeMs + uncertain - monotonic
    else if (this.#steps === undefined) this.#steps = new ClockSteps(this.#clock)
    else this.#steps.accept()
    this.#isOff = isOff
    this.#aheadMs = ahead - this.#stepMs()
    // Whoever is to be told is told now.
    void this.isTrusted
  }

  #isTrustedAt(wallMs: number): boolean {
    if (this.#steps === undefined && !this.#isOff) return false
    const isTrusted = !this.#isOff && Math.abs(this.#stepMs(wallMs)) <= CLOCK_STEP_MS_MAX
    if (isTrusted !== this.#told) this.#tell(isTrusted)
    return isTrusted
  }

  #stepMs(wallMs?: number): number {
    return this.#steps?.stepMs(wallMs) ?? 0
  }

  #trouble(): string {
    if (this.#isOff) return `is ${shownOff(this.state?.aheadMs ?? 0)} that of the registry`
    if (this.#steps === undefined) return 'was not compared with that of the registry yet'
    const step = this.#stepMs()
    const way = step < 0 ? 'back' : 'ahead'
    return `was set ${way} by ${shownSpan(step)}, and does not agree with that of the registry yet`
  }

  #tell(isTrusted: boolean): void {
    const isFirst = this.#told === undefined
    this.#told = isTrusted
    const state = { aheadMs: this.state?.aheadMs }
    if (!isTrusted)
      log.error(state, 'The clock was set or is off: until it agrees with that of the registry, it is not used')
    else if (!isFirst) log.info(state, 'The clock agrees with that of the registry again')
    if (!isFirst || !isTrusted) this.onChanged()
  }
}

/** That of a process which must not be kept from its work by its clock: what it keeps has times by the clock that is trusted, as far as one is. */
export function trustedClock(clock: Clock, trust: ClockTrust): Clock {
  return {
    nowMs: () => trust.nowMs() ?? clock.nowMs(),
    monotonicMs: () => clock.monotonicMs(),
    sleptMs: () => clock.sleptMs(),
    after: (ms, action) => clock.after(ms, action),
    soon: (action) => clock.soon(action),
  }
}

/** `3 days ahead of`, `70 seconds behind`. */
export function shownOff(aheadMs: number): string {
  return `${shownSpan(aheadMs)} ${aheadMs < 0 ? 'behind' : 'ahead of'}`
}

const UNITS: readonly (readonly [seconds: number, name: string])[] = [
  [86_400, 'days'],
  [3600, 'hours'],
  [60, 'minutes'],
]

function shownSpan(ms: number): string {
  const seconds = Math.round(Math.abs(ms) / 1000)
  for (const [length, name] of UNITS) if (seconds >= 2 * length) return `${Math.round(seconds / length)} ${name}`
  return seconds === 1 ? '1 second' : `${seconds} seconds`
}
