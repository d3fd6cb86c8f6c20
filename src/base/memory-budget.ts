/**
 * One hard bound for the bytes that a process holds in buffers: what is read ahead, what somebody waits for, what is on its
 * way up. Whoever must have memory waits for it, first come first served; whoever would only like some takes it if there is
 * any and nobody waits, and gives it back when told that there is a shortage.
 *
 *   tryReserve --room, nobody waits--> lent --release--> back
 *   reserve ----room, nobody waits--> lent
 *      '--else--> waiting --shortage: holders of spare bytes release--> lent, in the order of asking
 *
 * Invariant: what is lent never passes the bound, but for a single share larger than all of it, which is lent alone.
 *
 * There is no deadlock as long as nobody waits for a share while holding one that is neither spare nor certain to be
 * released without another share: who needs more than it has gives back what it has, or reserves it all at once.
 *
 * Not counted one by one: the frames that requests of the kernel are read into (up to 33 MiB a mount), and what was freed but
 * not yet collected. `lendable` leaves room for them, so that a process stays within the bound over what the program itself
 * takes, some 150 MiB.
 */
import { assert } from './assert.ts'
import { OperationError } from './errors.ts'
import { gauge } from './metrics.ts'

/** Memory that was lent. */
export interface Share {
  readonly bytes: number
  /** Makes `bytes` of it, fewer than all, a share of its own. */
  split(bytes: number): Share
  /** Gives it back; once. */
  release(): void
}

interface Waiting {
  readonly bytes: number
  readonly grant: (share: Share) => void
}

/** Releases spare shares, now, of at least so many bytes where there are as many. */
export type OnShortage = (bytes: number) => void

/** How much of a bound on the memory of buffers can be lent, so that they stay below it with all that comes with them. */
export function lendable(bytesMax: number): number {
  return Math.floor(bytesMax * 0.55)
}

const lentGauge = gauge('eider_memory_bytes')

export class MemoryBudget {
  readonly bytesMax: number
  #used = 0
  readonly #waiting = new Set<Waiting>()
  readonly #onShortage = new Set<OnShortage>()
  #granting = false

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax
  }

  get used(): number {
    return this.#used
  }

  /** How many bytes the first who waits lacks; 0 where nobody waits. Who has spare bytes then gives them back. */
  get lacking(): number {
    const [first] = this.#waiting
    return first === undefined ? 0 : this.#lack(first.bytes)
  }

  /** Whether `tryReserve` gives a share. */
  hasRoom(bytes: number): boolean {
    return this.#waiting.size === 0 && this.#lack(bytes) === 0
  }

  /** A share if there is room now, and nobody waits for it. */
  tryReserve(bytes: number): Share | undefined {
    return this.hasRoom(bytes) ? this.#lend(bytes) : undefined
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
      this.#grantNext()
    })
  }

  /** Has `onShortage` called, while somebody waits, with what is lacking; gives what ends that. */
  addHolder(onShortage: OnShortage): () => void {
    this.#onShortage.add(onShortage)
    return () => this.#onShortage.delete(onShortage)
  }

  /** What has to be released before `bytes` can be lent. */
  #lack(bytes: number): number {
    return this.#used === 0 ? 0 : Math.min(this.#used, Math.max(0, this.#used + bytes - this.bytesMax))
  }

  #lend(bytes: number): Share {
    this.#use(bytes)
    return new Lent(bytes, this.#back)
  }

  readonly #back = (bytes: number): void => {
    this.#use(-bytes)
    this.#grantNext()
  }

  #use(bytes: number): void {
    this.#used += bytes
    lentGauge.inc(bytes)
  }

  /** Lends to who waits, in order. What holders release meanwhile comes back here, and is lent by the call under way. */
  #grantNext(): void {
    if (this.#granting) return
    this.#granting = true
    try {
      for (const waiting of this.#waiting) {
        for (const onShortage of this.#onShortage) {
          const lack = this.#lack(waiting.bytes)
          if (lack === 0) break
          onShortage(lack)
        }
        if (this.#lack(waiting.bytes) > 0) return
        this.#waiting.delete(waiting)
        waiting.grant(this.#lend(waiting.bytes))
      }
    } finally {
      this.#granting = false
    }
  }
}

class Lent implements Share {
  #bytes: number
  #lent = true
  readonly #back: (bytes: number) => void

  constructor(bytes: number, back: (bytes: number) => void) {
    this.#bytes = bytes
    this.#back = back
  }

  get bytes(): number {
    return this.#bytes
  }

  split(bytes: number): Share {
    assert(this.#lent && bytes > 0 && bytes < this.#bytes, 'a part of a share is less than what is lent')
    this.#bytes -= bytes
    return new Lent(bytes, this.#back)
  }

  release(): void {
    assert(this.#lent, 'a share of memory is given back once')
    this.#lent = false
    this.#back(this.#bytes)
  }
}
