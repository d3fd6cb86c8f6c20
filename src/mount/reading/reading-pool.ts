/**
 * What all readers of a mount share: the memory, the number of requests ahead, and the second requests for slow ones. When
 * somebody waits for memory, it is taken from what was fetched ahead: first what was read already or is on the disk, then
 * from the handle that has the most, from its far end. So what handles hold evens out while memory is short.
 */
import { counter } from '#base/metrics.ts'
import type { MemoryBudget, Share } from '#base/memory-budget.ts'

import { Hedger, type Ask } from './hedger.ts'

export interface ReadingPoolOptions {
  readonly budget: MemoryBudget
  /** Whether a range is asked for a second time where its first request is slow. */
  readonly hedge: boolean
  /** A monotonic clock in milliseconds. */
  readonly now?: () => number
}

/** A handle that has bytes fetched ahead. */
export interface AheadHolder {
  /** What it could give up now. */
  readonly spareBytes: number
  /** Gives up what was read or is on the disk; gives how many bytes. */
  releaseUsed(): number
  /** Gives up the spare piece that is farthest ahead; gives how many bytes. */
  releaseLast(): number
}

/** Requests ahead of readers at a time; the store's other connections are for those who wait. */
const AHEAD_REQUESTS_MAX = 32
/** Of the memory, what may be ahead of readers. */
const AHEAD_PARTS = 3 / 4
/** Of the memory, what the cache may be writing, or is to write once it has come. */
const KEEPING_PARTS = 1 / 2

export class ReadingPool {
  readonly budget: MemoryBudget
  readonly #hedger: Hedger | undefined
  readonly #holders = new Set<AheadHolder>()
  #aheadRequests = 0
  #keepingBytes = 0
  #comingBytes = 0
  #later: (() => void)[] = []
  readonly #demanded = counter('eider_mount_fetches_total', 'demand')
  readonly #ahead = counter('eider_mount_fetches_total', 'ahead')
  readonly prefetchedBytes = counter('eider_mount_prefetched_bytes_total')
  readonly wastedBytes = counter('eider_mount_prefetch_wasted_bytes_total')

  constructor({ budget, hedge, now }: ReadingPoolOptions) {
    this.budget = budget
    this.#hedger = hedge ? new Hedger(budget, now ?? (() => performance.now())) : undefined
    budget.addHolder((bytes) => this.#reclaim(bytes))
  }

  /** What one handle may have ahead of it. */
  windowMax(holder: AheadHolder): number {
    const holders = this.#holders.size + (this.#holders.has(holder) ? 0 : 1)
    return Math.floor((this.budget.bytesMax * AHEAD_PARTS) / holders)
  }

  get hasAheadSlot(): boolean {
    return this.#aheadRequests < AHEAD_REQUESTS_MAX
  }

  holds(holder: AheadHolder, hasPieces: boolean): void {
    if (hasPieces) this.#holders.add(holder)
    else this.#holders.delete(holder)
  }

  /** Asks for a range; at once, or twice. */
  async fetch(length: number, isAhead: boolean, ask: Ask, signal: AbortSignal): Promise<Buffer> {
    if (isAhead) {
      this.#ahead.inc()
      this.#aheadRequests++
    } else {
      this.#demanded.inc()
    }
    try {
      return await (this.#hedger === undefined ? ask(signal) : this.#hedger.fetch(length, ask, signal))
    } finally {
      if (isAhead) this.#aheadRequests--
    }
  }

  /**
   * Whether `bytes` more may be fetched ahead for the cache as well; then `came` follows. Where its disk is slower than the
   * store, readers get less ahead rather than the cache holes.
   */
  mayCome(bytes: number): boolean {
    const before = this.#keepingBytes + this.#comingBytes
    if (before > 0 && before + bytes > this.budget.bytesMax * KEEPING_PARTS) return false
    this.#comingBytes += bytes
    return true
  }

  came(bytes: number): void {
    this.#comingBytes -= bytes
  }

  /** Whether the cache may write `bytes` more; then `kept` follows. A slow disk is not to fill the memory. */
  mayKeep(bytes: number): boolean {
    if (this.#keepingBytes + bytes > this.budget.bytesMax * KEEPING_PARTS) return false
    this.#keepingBytes += bytes
    return true
  }

  kept(bytes: number): void {
    this.#keepingBytes -= bytes
  }

  /**
   * Calls `act` once this turn is over. An answer to the kernel is written in the turn in which its promise resolves: what
   * it was made of is free after that.
   */
  later(act: () => void): void {
    this.#later.push(act)
    if (this.#later.length === 1) setImmediate(this.#runLater)
  }

  readonly #runLater = (): void => {
    const acts = this.#later
    this.#later = []
    for (const act of acts) act()
  }

  /** Memory for what `holder` would like ahead of it: what is free, or what another handle has over its share. */
  reserveAhead(holder: AheadHolder, bytes: number): Share | undefined {
    const share = this.budget.tryReserve(bytes)
    if (share !== undefined || this.budget.lacking > 0) return share
    const max = this.windowMax(holder)
    let left = this.budget.used + bytes - this.budget.bytesMax
    while (left > 0) {
      const [most, mostBytes] = this.#most()
      if (most === undefined || most === holder || mostBytes <= max) return undefined
      left -= most.releaseLast()
    }
    return this.budget.tryReserve(bytes)
  }

  #reclaim(bytes: number): void {
    let left = bytes
    for (const holder of this.#holders) {
      if (left <= 0) return
      left -= holder.releaseUsed()
    }
    while (left > 0) {
      const [most] = this.#most()
      if (most === undefined) return
      left -= most.releaseLast()
    }
  }

  /** The handle that could give up most; of several, the one that began to hold first. */
  #most(): [holder: AheadHolder | undefined, bytes: number] {
    let most: AheadHolder | undefined
    let mostBytes = 0
    for (const holder of this.#holders) {
      const { spareBytes } = holder
      if (spareBytes > mostBytes) {
        most = holder
        mostBytes = spareBytes
      }
    }
    return [most, mostBytes]
  }
}
