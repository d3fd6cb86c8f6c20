/**
 * One hard bound for the bytes that a process holds in buffers: what is read ahead, what somebody waits for, what is on its
 * way up. Whoever must have memory waits for it, first come first served; whoever would only like some takes it if there is
 * any, and gives it back when asked to.
 *
 * Invariant: what is lent never passes the bound, but for a single share larger than all of it, which is lent alone.
 */
import { assert } from './assert.ts'
import { OperationError } from './errors.ts'

/** Memory that was lent. */
export interface Share {
  readonly bytes: number
  /** Gives it back; once. */
  release(): void
}

interface Waiting {
  readonly bytes: number
  readonly grant: (share: Share) => void
}

export class MemoryBudget {
  readonly bytesMax: number
  #used = 0
  readonly #waiting = new Set<Waiting>()

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax
  }

  get used(): number {
    return this.#used
  }

  /** A share if there is room now, and nobody waits for it. */
  tryReserve(bytes: number): Share | undefined {
    return this.#waiting.size === 0 && this.#fits(bytes) ? this.#lend(bytes) : undefined
  }

  /** A share, as soon as there is room. @throws OperationError `ABORTED` */
  reserve(bytes: number, signal?: AbortSignal): Promise<Share> {
    const share = this.tryReserve(bytes)
    if (share !== undefined) return Promise.resolve(share)
    return new Promise((resolve, reject) => {
      const giveUp = (): void => {
        this.#waiting.delete(waiting)
        reject(
          new OperationError('ABORTED', 'Cannot go on: given up while waiting for memory', { cause: signal?.reason }),
        )
        this.#grantNext()
      }
      const waiting: Waiting = {
        bytes,
        grant: (granted) => {
          signal?.removeEventListener('abort', giveUp)
          resolve(granted)
        },
      }
      this.#waiting.add(waiting)
      if (signal?.aborted === true) giveUp()
      else signal?.addEventListener('abort', giveUp, { once: true })
    })
  }

  #fits(bytes: number): boolean {
    return this.#used === 0 || this.#used + bytes <= this.bytesMax
  }

  #lend(bytes: number): Share {
    this.#used += bytes
    let lent = true
    return {
      bytes,
      release: () => {
        assert(lent, 'a share of memory is given back once')
        lent = false
        this.#used -= bytes
        this.#grantNext()
      },
    }
  }

  #grantNext(): void {
    for (const waiting of this.#waiting) {
      if (!this.#fits(waiting.bytes)) return
      this.#waiting.delete(waiting)
      waiting.grant(this.#lend(waiting.bytes))
    }
  }
}
