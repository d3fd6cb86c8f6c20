/**
 * Calls of the system for one disk, on the thread pool that all disks of the process share. A disk that hangs keeps the
 * threads of its calls for ever, so each has only its part of them; what more it has to do waits here. The time that a
 * call is given runs from when it goes to the pool. One that does not end in time is ETIMEDOUT, and so is, at once, everything that waits or
 * comes after it: the disk hangs.
 *
 * The pool has `UV_THREADPOOL_SIZE` threads, 4 by default; with more disks than threads, as many of them as there are threads have
 * to hang before the others suffer.
 */
import { ERRNO } from '#base/errno.ts'
import { SystemCallError } from '#os/libc.ts'

/** Longer than a disk takes that does its own retries of a bad sector, shorter than anybody waits for a block. */
const CALL_MS_MAX = 60_000
const THREADS_DEFAULT = 4

/** Disks of this process that share the pool. */
let disks = 0

/** How many calls each of the disks may have on the pool; one thread is left to the rest of the program. */
function callsAtOnce(): number {
  const threads = Number(process.env['UV_THREADPOOL_SIZE'] ?? THREADS_DEFAULT)
  return Math.max(1, Math.floor(((Number.isInteger(threads) ? threads : THREADS_DEFAULT) - 1) / disks))
}

export type Done<T> = (error: Error | null, value: T) => void

interface Waiting {
  readonly start: () => void
  readonly refuse: () => void
}

export class DiskCalls {
  readonly #msMax: number
  #active = 0
  #isHung = false
  readonly #waiting = new Set<Waiting>()

  constructor(msMax = CALL_MS_MAX) {
    this.#msMax = msMax
    disks++
  }

  /** The result of an asynchronous call. What comes when nobody waits for it any more goes to `late`. */
  run<T>(call: string, start: (done: Done<T>) => void, late?: (value: T) => void): Promise<T> {
    return new Promise((resolve, reject) => {
      const timedOut = (): void => reject(new SystemCallError(call, ERRNO.ETIMEDOUT))
      const begin = (): void => {
        this.#active++
        let isLate = false
        const timer = setTimeout(() => {
          isLate = true
          timedOut()
          this.#hang()
        }, this.#msMax)
        start((error, value) => {
          clearTimeout(timer)
          this.#ended()
          if (error !== null) reject(error)
          else if (isLate) late?.(value)
          else resolve(value)
        })
      }
      if (this.#isHung) timedOut()
      else if (this.#active < callsAtOnce()) begin()
      else this.#waiting.add({ start: begin, refuse: timedOut })
    })
  }

  /** The disk is no longer one of those that share the pool. */
  end(): void {
    disks--
  }

  #ended(): void {
    this.#active--
    for (const waiting of this.#waiting) {
      if (this.#active >= callsAtOnce()) break
      this.#waiting.delete(waiting)
      waiting.start()
    }
  }

  #hang(): void {
    this.#isHung = true
    for (const waiting of this.#waiting) waiting.refuse()
    this.#waiting.clear()
  }
}
