/**
 * How much the disk cache may take: what its files have allocated, and what is being written, stay under a bound, and so
 * much stays free on the disk. Room is reserved before it is written to. Where there is none, what was not used for longest
 * is evicted; who finds nothing to evict is told so at once for the next second, since looking through the order costs.
 */
import { statfsSync } from 'node:fs'

import { assert } from '#base/assert.ts'
import { gauge } from '#base/metrics.ts'

/** Evicting a little more than needed makes one look at the order serve many that need room. */
const SLACK_SHARE = 64
const SLACK_BYTES_MAX = 256 << 20
const FRUITLESS_MS = 1000
/** What file systems allocate by. */
const GRAIN_BYTES = 4096

export class Room {
  readonly bytesMax: number
  readonly #bytesFreeMin: number
  readonly #directory: string
  readonly #evict: (bytes: number) => Promise<number>
  readonly #gauge = gauge('eider_cache_bytes')
  #bytes = 0
  #reserved = 0
  #fruitlessUntil = 0
  #evicting: Promise<number> | undefined

  /** `evict` frees at least so many bytes if it can, and gives how many it did. */
  constructor(directory: string, bytesMax: number, bytesFreeMin: number, evict: (bytes: number) => Promise<number>) {
    this.#directory = directory
    this.bytesMax = bytesMax
    this.#bytesFreeMin = bytesFreeMin
    this.#evict = evict
  }

  /** Allocated. */
  get bytes(): number {
    return this.#bytes
  }

  /** What is allocated has changed by so much. */
  add(bytes: number): void {
    this.#bytes += bytes
    this.#gauge.set(this.#bytes)
    if (bytes < 0) this.#fruitlessUntil = 0
  }

  /** Something that was held may be evicted from now on. */
  mayHaveMore(): void {
    this.#fruitlessUntil = 0
  }

  /**
   * Reserves room for so many bytes more; false where there is none. Given back by `settle`, when what was allocated has
   * been added.
   */
  async reserve(bytes: number): Promise<boolean> {
    const rounded = roundUp(bytes)
    if (rounded > this.bytesMax) return false
    // Others may take what was freed for this one, but not for ever.
    for (let attempt = 0; attempt < 3; attempt++) {
      const short = this.#shortfall(rounded)
      if (short <= 0) {
        this.#reserved += rounded
        return true
      }
      if ((await this.#free(short)) === 0) return false
    }
    return false
  }

  settle(bytes: number): void {
    this.#reserved -= roundUp(bytes)
    assert(this.#reserved >= 0, 'room is given back once')
  }

  /** Evicts until the limits hold: somebody else may be filling the disk, or the limits have become smaller. */
  async keepLimits(): Promise<void> {
    const short = this.#shortfall(0)
    if (short > 0) await this.#free(short)
  }

  #shortfall(bytes: number): number {
    const { bavail, bsize } = statfsSync(this.#directory)
    const over = this.#bytes + this.#reserved + bytes - this.bytesMax
    return Math.max(over, this.#bytesFreeMin + this.#reserved + bytes - bavail * bsize)
  }

  async #free(bytes: number): Promise<number> {
    if (this.#evicting === undefined) {
      if (Date.now() < this.#fruitlessUntil) return 0
      const slack = Math.min(this.bytesMax / SLACK_SHARE, SLACK_BYTES_MAX)
      this.#evicting = this.#evict(bytes + slack).finally(() => (this.#evicting = undefined))
    }
    const freed = await this.#evicting
    if (freed === 0) this.#fruitlessUntil = Date.now() + FRUITLESS_MS
    return freed
  }
}

function roundUp(bytes: number): number {
  return Math.ceil(bytes / GRAIN_BYTES) * GRAIN_BYTES
}
