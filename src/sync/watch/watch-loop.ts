/**
 * The work of a watcher, one piece after another: draining the kernel's queue some time after it woke, and what is due by the
 * clock. A wake for each event would cost several times what the event does, so after a wake it waits one millisecond, and
 * eight while events come in dozens.
 */
import { setImmediate } from 'node:timers/promises'
import { libc } from '#os/libc.ts'
import type { PollHandle } from '#os/poll-handle.ts'
import type { Outbox } from './outbox.ts'
import { RootGone } from './root.ts'

const PAUSE_MS_MIN = 1
const PAUSE_MS_MAX = 8
const EVENTS_MANY = 32
/** So long a walk or a drain may keep the event loop from others. */
const SLICE_MS = 8

/** Lets others run now and then in what takes long. */
export class Slices {
  #until = performance.now() + SLICE_MS

  /** Undefined while the slice lasts: so that most steps cost no turn of the event loop. */
  pause(): Promise<void> | undefined {
    return performance.now() < this.#until ? undefined : this.#yield()
  }

  async #yield(): Promise<void> {
    await setImmediate()
    this.#until = performance.now() + SLICE_MS
  }
}

export class WatchLoop {
  readonly #outbox: Outbox
  /** Kept for as long as it polls: koffi's poll stops when its handle is collected. */
  #poll: PollHandle | undefined
  #fd = -1
  #drain: () => Promise<number> = () => Promise.resolve(0)
  #timers = new Set<NodeJS.Timeout>()
  #turn: Promise<void> = Promise.resolve()
  #pauseMs = PAUSE_MS_MIN
  #isPolling = false
  #isClosed = false

  constructor(outbox: Outbox) {
    this.#outbox = outbox
    outbox.onTaken(() => this.#listen())
  }

  get isClosed(): boolean {
    return this.#isClosed
  }

  /** From now on `drain` is called when there is something to read; it gives the number of events. */
  listen(fd: number, drain: () => Promise<number>): void {
    this.#fd = fd
    this.#drain = drain
    this.#listen()
  }

  /** Does `work` once, so many milliseconds from now and after what is under way then. */
  after(ms: number, work: () => Promise<void> | void): void {
    if (this.#isClosed) return
    const timer = setTimeout(() => {
      this.#timers.delete(timer)
      void this.run(async () => {
        if (this.#isClosed) return
        try {
          await work()
        } catch (error) {
          this.#failed(error)
        }
      })
    }, ms)
    this.#timers.add(timer)
  }

  /** Does `work` at intervals, counted from its end. */
  every(ms: number, work: () => Promise<void> | void): void {
    this.after(ms, async () => {
      await work()
      this.every(ms, work)
    })
  }

  /** Does `work` once, after what is under way. */
  run(work: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(work)
    this.#turn = done.catch(() => undefined)
    return done
  }

  /** Waits for what is under way; nothing is begun any more. */
  async close(): Promise<void> {
    this.stop()
    await this.#turn
  }

  /** As `close`, from within a piece of work. */
  stop(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    for (const timer of this.#timers) clearTimeout(timer)
    this.#poll?.close()
    this.#poll = undefined
    this.#outbox.end()
  }

  #failed(error: unknown): void {
    if (error instanceof RootGone) this.#outbox.other({ kind: 'root-gone' })
    else this.#outbox.fail(error)
    this.stop()
  }

  #listen(): void {
    if (this.#fd === -1 || this.#isClosed || this.#isPolling || this.#outbox.isFull) return
    this.#isPolling = true
    if (this.#poll === undefined) this.#poll = libc().poll(this.#fd, { readable: true }, this.#woke)
    else this.#poll.start({ readable: true }, this.#woke)
  }

  readonly #woke = (): void => {
    if (this.#isClosed) return
    this.#poll?.stop()
    this.after(this.#pauseMs, async () => {
      await this.#drainOnce()
      this.#isPolling = false
      this.#listen()
    })
  }

  async #drainOnce(): Promise<void> {
    if (this.#outbox.isFull) return
    const count = await this.#drain()
    this.#pauseMs = count < EVENTS_MANY ? PAUSE_MS_MIN : PAUSE_MS_MAX
  }
}
