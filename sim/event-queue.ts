/**
 * What is still to happen, by simulated time; of the same time, what was added first comes first. A binary heap whose keys lie in
 * typed arrays, and a plain queue beside it for what is to happen at the very time that it is now.
 *
 * Times are whole microseconds.
 */
import { assert } from '#base/assert.ts'

/** What an event belongs to: one run of a process. Events of one that has died do not happen. */
export interface Life {
  readonly name: string
  alive: boolean
  /** Until then nothing happens to it, and then everything that would have. */
  pausedUntilUs: number
}

export interface QueuedEvent {
  /** Undefined once it has happened or was cancelled. */
  action: (() => void) | undefined
  readonly life: Life
}

/** So many cancelled events may lie about, and as many again as there are others. */
const CANCELLED_MIN = 1024

export class EventQueue {
  #times = new Float64Array(1024)
  #orders = new Float64Array(1024)
  #events: QueuedEvent[] = []
  #added = 0
  #cancelled = 0
  /** Of the present; from `#dueAt` on. */
  #due: QueuedEvent[] = []
  #dueAt = 0
  #nowUs = 0

  /** When the event happened that was taken last. */
  get nowUs(): number {
    return this.#nowUs
  }

  get size(): number {
    return this.#events.length + this.#due.length - this.#dueAt
  }

  /** What would have been before now happens now. */
  add(atUs: number, action: () => void, life: Life): QueuedEvent {
    const event: QueuedEvent = { action, life }
    // What lies in the heap for this very time was added earlier, so the order is kept.
    if (atUs <= this.#nowUs) this.#due.push(event)
    else this.#push(atUs, this.#added++, event)
    return event
  }

  cancel(event: QueuedEvent): void {
    if (event.action === undefined) return
    event.action = undefined
    this.#cancelled++
    if (this.#cancelled > CANCELLED_MIN && this.#cancelled > this.size / 2) this.sweep()
  }

  /**
   * Takes the next event; time goes on to when it happens. Undefined where there is none up to `untilUs`. The taker calls its action,
   * and puts it back with another time where it cannot happen yet.
   */
  take(untilUs: number): QueuedEvent | undefined {
    for (;;) {
      const event = this.#takeAny(untilUs)
      if (event === undefined || event.action !== undefined) return event
      this.#cancelled--
    }
  }

  #takeAny(untilUs: number): QueuedEvent | undefined {
    const first = this.#events.length > 0 ? (this.#times[0] ?? 0) : Infinity
    if (this.#dueAt < this.#due.length && first > this.#nowUs) {
      const event = this.#due[this.#dueAt++]
      if (this.#dueAt === this.#due.length) {
        this.#due.length = 0
        this.#dueAt = 0
      }
      return event
    }
    if (first > untilUs || first === Infinity) return undefined
    this.#nowUs = first
    return this.#pop()
  }

  #push(timeUs: number, order: number, event: QueuedEvent): void {
    const events = this.#events
    let at = events.length
    if (at === this.#times.length) {
      this.#times = grown(this.#times)
      this.#orders = grown(this.#orders)
    }
    const [times, orders] = [this.#times, this.#orders]
    events.push(event)
    while (at > 0) {
      const parent = (at - 1) >> 1
      const time = times[parent] ?? 0
      // What is added now has the highest order, so among equals it stays below.
      if (time < timeUs || (time === timeUs && (orders[parent] ?? 0) < order)) break
      times[at] = time
      orders[at] = orders[parent] ?? 0
      events[at] = eventAt(events, parent)
      at = parent
    }
    times[at] = timeUs
    orders[at] = order
    events[at] = event
  }

  #pop(): QueuedEvent {
    const events = this.#events
    const first = eventAt(events, 0)
    const last = events.pop()
    assert(last !== undefined, 'there is an event to take')
    const count = events.length
    if (count > 0) this.#sink(0, this.#times[count] ?? 0, this.#orders[count] ?? 0, last, count)
    return first
  }

  #sink(from: number, timeUs: number, order: number, event: QueuedEvent, count: number): void {
    const [times, orders, events] = [this.#times, this.#orders, this.#events]
    let at = from
    for (;;) {
      let child = 2 * at + 1
      if (child >= count) break
      let childTime = times[child] ?? 0
      if (child + 1 < count) {
        const other = times[child + 1] ?? 0
        if (other < childTime || (other === childTime && (orders[child + 1] ?? 0) < (orders[child] ?? 0))) {
          child++
          childTime = other
        }
      }
      if (timeUs < childTime || (timeUs === childTime && order < (orders[child] ?? 0))) break
      times[at] = childTime
      orders[at] = orders[child] ?? 0
      events[at] = eventAt(events, child)
      at = child
    }
    times[at] = timeUs
    orders[at] = order
    events[at] = event
  }

  /** Drops what will not happen, so that time-outs that were not needed, and all that lives had planned which are over, do not stay. */
  sweep(): void {
    const [times, orders, events] = [this.#times, this.#orders, this.#events]
    let kept = 0
    for (let at = 0; at < events.length; at++) {
      const event = eventAt(events, at)
      if (event.action === undefined || !event.life.alive) continue
      times[kept] = times[at] ?? 0
      orders[kept] = orders[at] ?? 0
      events[kept++] = event
    }
    events.length = kept
    this.#due = this.#due.slice(this.#dueAt).filter(({ action, life }) => action !== undefined && life.alive)
    this.#dueAt = 0
    this.#cancelled = 0
    for (let at = (kept >> 1) - 1; at >= 0; at--) {
      this.#sink(at, times[at] ?? 0, orders[at] ?? 0, eventAt(events, at), kept)
    }
  }
}

function grown(array: Float64Array<ArrayBuffer>): Float64Array<ArrayBuffer> {
  const larger = new Float64Array(array.length * 2)
  larger.set(array)
  return larger
}

function eventAt(events: readonly QueuedEvent[], at: number): QueuedEvent {
  const event = events[at]
  assert(event !== undefined, 'the heap has no holes')
  return event
}
