/**
 * What to fetch ahead of one handle: a machine without clock, memory or requests, which is told of each read and says how far
 * ahead the bytes should be on their way.
 *
 *   asked (window 0) --a read goes on from the start, or after 256 KiB in a row--> ahead (window 0.5 or 2 MiB)
 *   ahead --half of it read--> ahead, twice the window, to 64 MiB
 *   ahead --memory refused, or taken back--> ahead, half the window
 *   ahead --a jump, or more than a third skipped--> asked
 *
 * The kernel asks in pieces of 128 KiB to 1 MiB, some out of order and side by side, so a read may be off from the expected
 * place: forward within what is on its way (1 MiB at least), backward within 1 MiB. What is skipped that way is counted, and
 * discounted when it is read after all: so a strided reader, whose steps are small seeks, is taken for the random one that
 * it is. 1 MiB in a row makes it sequential again.
 *
 * Invariants: nothing is wanted ahead of a reader of which no two reads were near each other. From the start of a file a
 * window is at most 2 MiB or four times what was read, elsewhere at most four times that.
 */
const KIB = 1024
const MIB = 1024 * KIB

/** How far a read may be off from the expected place and still go on from there. */
export const SLACK_BYTES = MIB
const WINDOW_MAX = 64 * MIB
/** A smaller window than this is not worth a request of its own. */
const WINDOW_MIN = 256 * KIB
/** From the start of a file most readers go on to its end. */
const WINDOW_FROM_START = 2 * MIB
const WINDOW_FROM_WITHIN = 512 * KIB
/** So much in a row, before the read at hand, makes a reader sequential that did not begin at the start of the file. */
const RUN_BYTES_MIN = 256 * KIB
/** So much in a row makes up for what was skipped before. */
const STREAK_BYTES = MIB
/** What was read and skipped longer ago than this counts half. */
const MEMORY_BYTES = 8 * MIB
/** What the cache keeps, and the kernel asks for, at least. */
const BLOCK_BYTES = 128 * KIB
/** One request: long against its round trip, short enough that many run side by side. */
const RANGE_MIN = MIB
const RANGE_MAX = 4 * MIB
const RANGES = 8

export class Prefetcher {
  readonly #size: number
  /** The end of what was read. -1: nothing yet. */
  #position = -1
  /** The end of what is on its way. */
  #limit = 0
  #window = 0
  #opened = false
  #fromStart = false
  /** Read since the last jump; older reads count less. */
  #run = 0
  #skipped = 0
  #streak = 0

  constructor(size: number) {
    this.#size = size
  }

  /** The end of what was read. */
  get position(): number {
    return this.#position
  }

  /** How far ahead of it bytes should be on their way; 0 for one that is not sequential. */
  get window(): number {
    return this.#window
  }

  /** How long one request ahead is at best. */
  get rangeBytes(): number {
    const share = 2 ** Math.floor(Math.log2(Math.max(1, this.#window / RANGES)))
    return Math.min(rounded(this.#window / 2), RANGE_MAX, Math.max(RANGE_MIN, share))
  }

  /** Notes a read. False where it does not go on from those before: what is ahead of them is of no more use. */
  read(offset: number, end: number): boolean {
    const gap = offset - this.#position
    if (this.#position < 0 || gap > Math.max(SLACK_BYTES, this.#limit - this.#position) || gap < -SLACK_BYTES) {
      const isFirst = this.#position < 0
      this.#start(offset, end)
      return isFirst
    }
    if (gap > 0) {
      this.#skipped += gap
      this.#streak = 0
    } else {
      this.#skipped = Math.max(0, this.#skipped - (Math.min(end, this.#position) - offset))
    }
    if (end <= this.#position) return true
    const fresh = end - Math.max(offset, this.#position)
    const before = this.#run
    this.#run += fresh
    this.#streak += fresh
    this.#position = end
    this.#limit = Math.max(this.#limit, end)
    if (this.#streak >= STREAK_BYTES) this.#skipped = 0
    if (this.#run > MEMORY_BYTES) {
      this.#run /= 2
      this.#skipped /= 2
    }
    return this.#judge(before)
  }

  #start(offset: number, end: number): void {
    this.#position = end
    this.#limit = end
    this.#window = 0
    this.#fromStart = offset === 0
    this.#run = end - offset
    this.#skipped = 0
    this.#streak = this.#run
  }

  #judge(runBefore: number): boolean {
    if (this.#skipped * 2 >= this.#run) {
      const wasAhead = this.#window > 0
      this.#window = 0
      this.#limit = this.#position
      return !wasAhead
    }
    if (this.#window === 0 && (this.#fromStart || runBefore >= RUN_BYTES_MIN)) {
      this.#window = this.#fromStart ? WINDOW_FROM_START : WINDOW_FROM_WITHIN
      this.#opened = true
    }
    return true
  }

  /**
   * Up to where bytes should be asked for now; 0 where enough are on their way. `windowMax` is this handle's share of the
   * memory. What was done about it is told by `reached`.
   */
  target(windowMax: number): number {
    const max = Math.min(WINDOW_MAX, rounded(windowMax))
    if (this.#window === 0 || max < WINDOW_MIN || this.#limit >= this.#size) return 0
    this.#window = Math.min(this.#window, max)
    const ahead = this.#limit - this.#position
    if (!this.#opened) {
      const mayGrow = this.#window < max
      // At its largest a window is kept fuller, so that as many requests are under way as fill the pipe.
      if (ahead >= (mayGrow ? this.#window / 2 : (this.#window / 4) * 3)) return 0
      if (mayGrow) this.#window = Math.min(max, this.#window * 2)
    }
    this.#opened = false
    return Math.min(this.#size, this.#position + this.#window)
  }

  /** Notes how far what was asked for goes. */
  reached(limit: number): void {
    this.#limit = Math.max(this.#limit, limit)
  }

  /** Notes that there was no memory past `limit`, or that what was there has been taken back. */
  refuse(limit: number): void {
    this.#limit = Math.max(this.#position, Math.min(this.#limit, limit))
    if (this.#window > 0) this.#window = Math.max(WINDOW_MIN, rounded(this.#window / 2))
  }
}

/** In whole blocks of what the cache keeps. */
function rounded(bytes: number): number {
  return bytes - (bytes % BLOCK_BYTES)
}
