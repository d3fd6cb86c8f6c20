/**
 * Simulated time: takes event after event, and lets the code that each one set going come to a standstill before the next. Nothing here
 * reads a real clock, so a run depends on nothing but what is added to it.
 *
 * After an event that touched no promise the next one follows at once. Otherwise the queue of microtasks is passed through until
 * promises do nothing more (`promise-activity.ts`). A turn of the real event loop is taken once in so many events, for signals, output and
 * the reports of rejections that nobody handles; the code under simulation must not need one (no `process.nextTick`, no I/O).
 */
import { assert } from '#base/assert.ts'
import type { Cancel } from '#cluster/surroundings.ts'

import { EventQueue, type Life } from './event-queue.ts'
import { countPromises, promiseActivity } from './promise-activity.ts'
import { Trace } from './trace.ts'

/** A run that shows a defect: what must hold did not. */
export class SimulationFailure extends Error {
  override name = 'SimulationFailure'
}

const EVENTS_A_TURN = 4096
/** More events than that at one time, or turns of promises after one event, go on for ever. */
const EVENTS_AT_ONCE_MAX = 1_000_000
const TURNS_MAX = 1_000_000

interface Run {
  isOver: boolean
  readonly untilUs: number
  readonly end: (failure?: Error) => void
  readonly what: string
}

export class Timeline {
  readonly trace = new Trace()
  /** What happens to nobody in particular. */
  readonly life: Life = { name: 'world', alive: true, pausedUntilUs: 0 }
  readonly #queue = new EventQueue()
  #run: Run | undefined
  #failure: SimulationFailure | undefined
  #eventCount = 0
  #activitySeen = 0
  #turns = 0
  #lastUs = 0
  #eventsAtOnce = 0

  constructor() {
    countPromises()
  }

  get nowUs(): number {
    return this.#queue.nowUs
  }

  /** Events that have happened. */
  get eventCount(): number {
    return this.#eventCount
  }

  get pendingCount(): number {
    return this.#queue.size
  }

  /** Does nothing for a life that is over. */
  at(us: number, action: () => void, life = this.life): void {
    if (life.alive) this.#queue.add(us, action, life)
  }

  /** The same, for what may be cancelled. */
  after(us: number, action: () => void, life = this.life): Cancel {
    if (!life.alive) return () => undefined
    const event = this.#queue.add(this.#queue.nowUs + us, action, life)
    return () => this.#queue.cancel(event)
  }

  /** Resolves after so long, and never for a life that ends before. */
  delay(us: number, life = this.life): Promise<void> {
    return new Promise((resolve) => this.at(this.#queue.nowUs + us, resolve, life))
  }

  /** @param other of a frame: its sender */
  note(who: string, what: string, detail?: string | number | Uint8Array, other?: string): void {
    this.trace.note(this.#queue.nowUs, who, what, detail, other)
  }

  /** Ends a life: nothing that was to happen to it will. */
  end(life: Life): void {
    life.alive = false
    this.#queue.sweep()
  }

  /** Nothing more happens: the run ends with that. */
  fail(failure: SimulationFailure): void {
    this.#failure ??= failure
  }

  /**
   * Lets time go on until the promise has settled. `what` completes "... did not end within".
   * @throws SimulationFailure where that takes longer than `withinUs`, or anything fails; and what the promise was rejected with
   */
  async until<T>(what: string, promise: Promise<T>, withinUs: number): Promise<T> {
    assert(this.#run === undefined, 'one run of a timeline at a time')
    await new Promise<void>((resolve, reject) => {
      const run: Run = {
        isOver: false,
        untilUs: this.nowUs + withinUs,
        end: (failure) => {
          this.#run = undefined
          if (failure === undefined) resolve()
          else reject(failure)
        },
        what: `${what} did not end within ${withinUs / 1e6} s`,
      }
      this.#run = run
      const over = (): void => {
        run.isOver = true
      }
      promise.then(over, over)
      queueMicrotask(this.#step)
    })
    return promise
  }

  readonly #step = (): void => {
    const run = this.#run
    assert(run !== undefined, 'there is a run to go on with')
    do {
      const activity = promiseActivity()
      if (activity !== this.#activitySeen) {
        this.#activitySeen = activity
        if (++this.#turns <= TURNS_MAX) {
          queueMicrotask(this.#step)
          return
        }
        this.fail(new SimulationFailure(`Promises go on for ever at ${this.nowUs / 1e6} s`))
      }
      this.#turns = 0
      if (this.#failure !== undefined) {
        run.end(this.#failure)
        return
      }
      if (run.isOver) {
        run.end()
        return
      }
      if (!this.#happen(run)) return
    } while (this.#eventCount % EVENTS_A_TURN !== 0)
    setImmediate(this.#step)
  }

  #checkTime(): void {
    const { nowUs } = this
    if (nowUs !== this.#lastUs) this.#eventsAtOnce = 0
    this.#lastUs = nowUs
    if (++this.#eventsAtOnce <= EVENTS_AT_ONCE_MAX) return
    this.fail(new SimulationFailure(`Time does not go on: ${EVENTS_AT_ONCE_MAX} events at ${nowUs / 1e6} s`))
  }

  /** @return whether the run goes on */
  #happen(run: Run): boolean {
    const event = this.#queue.take(run.untilUs)
    if (event === undefined) {
      run.end(new SimulationFailure(run.what + (this.#queue.size === 0 ? ': nothing is left to happen' : '')))
      return false
    }
    const { action, life } = event
    this.#eventCount++
    if (action === undefined || !life.alive) return true
    if (life.pausedUntilUs > this.#queue.nowUs) {
      event.action = undefined
      this.#queue.add(life.pausedUntilUs, action, life)
      return true
    }
    event.action = undefined
    this.#checkTime()
    try {
      action()
    } catch (error) {
      this.fail(new SimulationFailure(`${life.name} threw: ${String(error)}`, { cause: error }))
    }
    return true
  }
}
