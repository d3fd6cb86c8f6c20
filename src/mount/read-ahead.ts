/**
 * Reading one open file. A random reader gets just the range that it asks for. One that reads on from where it was (or from
 * the start) gets a window fetched ahead of it, in ranges side by side; the window doubles while it goes on, from 1 MiB
 * to 32 MiB, and is gone when it jumps. The kernel sends its own read-ahead out of order and side by side, so "on from where
 * it was" allows some slack to both sides.
 *
 * What is fetched ahead counts against the budget of the mount; a read that finds none left fetches just its own range.
 */
import { isOperationError } from '#base/errors.ts'
import type { MaybePromise } from '#fuse/file-system.ts'

import type { MemoryBudget, Share } from '#base/memory-budget.ts'

const MIB = 1024 * 1024
const WINDOW_MIN = MIB
const WINDOW_MAX = 32 * MIB
/** One range: long enough that its round trip is small against its transfer, short enough that eight run at once. */
const RANGE_MAX = 4 * MIB
/** How far a read may be off from the expected place and still follow. */
const SLACK = MIB

/** Fetches exactly `length` bytes. */
export type FetchRange = (offset: number, length: number, signal: AbortSignal) => Promise<Buffer>

interface Piece {
  readonly offset: number
  readonly end: number
  bytes: Buffer | undefined
  readonly fetching: Promise<Buffer>
  readonly share: Share
}

export class ReadAhead {
  readonly #fetch: FetchRange
  readonly #budget: MemoryBudget
  readonly #abort = new AbortController()
  /** In order of offset, without overlap. */
  #pieces: Piece[] = []
  #window = WINDOW_MIN
  /** Where a sequential reader reads next. */
  #next = 0
  #closed = false

  constructor(fetch: FetchRange, budget: MemoryBudget) {
    this.#fetch = fetch
    this.#budget = budget
  }

  /** `size` bytes from `offset`, both within the file of `fileSize` bytes. */
  read(offset: number, size: number, fileSize: number): MaybePromise<Uint8Array | readonly Uint8Array[]> {
    const end = offset + size
    const follows = offset >= this.#next - SLACK && offset <= this.#next + SLACK
    if (follows) {
      this.#next = Math.max(this.#next, end)
    } else {
      this.drop()
      this.#window = WINDOW_MIN
      this.#next = end
    }
    // After a jump nothing is fetched ahead until the next read has followed.
    if (follows) this.#extend(offset, end, fileSize)
    return this.#take(offset, end)
  }

  /** Forgets what was fetched: it is of no use, or no longer what the file has. */
  drop(): void {
    for (const piece of this.#pieces) piece.share.release()
    this.#pieces = []
  }

  close(): void {
    this.#closed = true
    this.drop()
    this.#abort.abort()
  }

  /** Brings the window to cover what is asked and what comes after it. */
  #extend(offset: number, end: number, fileSize: number): void {
    while (this.#pieces[0] !== undefined && this.#pieces[0].end + SLACK <= offset) {
      const [passed] = this.#pieces.splice(0, 1)
      passed?.share.release()
    }
    const last = this.#pieces.at(-1)
    let from = last === undefined ? offset : last.end
    // Half a window is left before more is asked for, so that ranges are long.
    if (last !== undefined && from >= Math.min(fileSize, end + this.#window / 2)) return
    if (last !== undefined) this.#window = Math.min(WINDOW_MAX, this.#window * 2)
    const to = Math.min(fileSize, Math.max(end, offset + this.#window))
    while (from < to) {
      const until = Math.min(to, from + RANGE_MAX)
      const share = this.#budget.tryReserve(until - from)
      if (share === undefined) return
      this.#pieces.push(this.#begin(from, until, share))
      from = until
    }
  }

  #begin(offset: number, end: number, share: Share): Piece {
    const fetching = this.#fetch(offset, end - offset, this.#abort.signal)
    const piece: Piece = { offset, end, bytes: undefined, fetching, share }
    fetching.then(
      (bytes) => {
        piece.bytes = bytes
      },
      () => {
        // A reader that needs the range asks for it again, and gets the error then.
        if (this.#pieces.includes(piece)) this.#giveUp(piece)
      },
    )
    return piece
  }

  #giveUp(piece: Piece): void {
    // Pieces after a gap would be taken for the end of the window.
    const index = this.#pieces.indexOf(piece)
    for (const lost of this.#pieces.splice(index)) lost.share.release()
  }

  #take(offset: number, end: number): MaybePromise<Uint8Array | readonly Uint8Array[]> {
    const first = this.#pieces.findIndex((piece) => piece.offset <= offset && piece.end > offset)
    if (first === -1) return this.#fetch(offset, end - offset, this.#abort.signal)
    const parts: Uint8Array[] = []
    let at = offset
    for (let index = first; at < end; index++) {
      const piece = this.#pieces[index]
      if (piece === undefined || piece.bytes === undefined || piece.offset > at) return this.#await(offset, end, first)
      const stop = Math.min(end, piece.end)
      parts.push(piece.bytes.subarray(at - piece.offset, stop - piece.offset))
      at = stop
    }
    return parts
  }

  async #await(offset: number, end: number, first: number): Promise<readonly Uint8Array[]> {
    const parts: Promise<Uint8Array>[] = []
    let at = offset
    for (const piece of this.#pieces.slice(first)) {
      if (at >= end || piece.offset > at) break
      const start = at
      const stop = Math.min(end, piece.end)
      parts.push(this.#part(piece, start, stop))
      at = stop
    }
    if (at < end) parts.push(this.#fetch(at, end - at, this.#abort.signal))
    return Promise.all(parts)
  }

  async #part(piece: Piece, start: number, stop: number): Promise<Uint8Array> {
    try {
      const bytes = await piece.fetching
      return bytes.subarray(start - piece.offset, stop - piece.offset)
    } catch (error) {
      if (this.#closed || isOperationError(error, 'FILE_STALE', 'ABORTED')) throw error
      return this.#fetch(start, stop - start, this.#abort.signal)
    }
  }
}
