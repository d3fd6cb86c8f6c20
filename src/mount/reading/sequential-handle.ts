/**
 * One open of a file: what is ahead of its reader, begun as its prefetcher says and given up when it jumps, closes, or somebody
 * needs the memory more. Which bytes are where, and every request, is `version-reader.ts`.
 *
 * Invariant: a piece that this handle holds is one that the reader has, and counts this handle among its holders.
 */
import { assert } from '#base/assert.ts'
import type { MaybePromise } from '#fuse/file-system.ts'

import type { Piece } from './piece.ts'
import { Prefetcher, SLACK_BYTES } from './prefetcher.ts'
import type { AheadHolder, ReadingPool } from './reading-pool.ts'
import type { Bytes, ReadHandle, VersionReader } from './version-reader.ts'

const NO_BYTES = new Uint8Array(0)

/** See the head of this file; made by `VersionReader.handle`. */
export class SequentialHandle implements ReadHandle, AheadHolder {
  readonly #reader: VersionReader
  readonly #pool: ReadingPool
  readonly #prefetcher: Prefetcher
  /** In the order in which they were begun, which is that of their offsets but for gaps filled later. */
  #held: Piece<SequentialHandle>[] = []

  constructor(reader: VersionReader, pool: ReadingPool) {
    this.#reader = reader
    this.#pool = pool
    this.#prefetcher = new Prefetcher(reader.size)
  }

  read(offset: number, size: number, into?: Buffer): MaybePromise<Bytes> {
    const reader = this.#reader
    const end = Math.min(reader.size, offset + size)
    if (offset >= end) return NO_BYTES
    if (reader.cached?.isWhole === true) {
      const bytes = this.#readCached(offset, end, into)
      if (bytes !== undefined) return bytes
    }
    const follows = this.#prefetcher.read(offset, end)
    const bytes = reader.readNow(offset, end) ?? this.#readCached(offset, end, into)
    if (follows) this.#pass()
    else this.#leaveAllBut(offset, end)
    // A read that has to wait is part of what is fetched ahead, rather than a request of its own.
    this.#fetchAhead(bytes === undefined ? offset : end)
    return bytes ?? reader.readLater(offset, end)
  }

  #readCached(offset: number, end: number, into: Buffer | undefined): MaybePromise<Bytes> | undefined {
    const reader = this.#reader
    const { budget } = this.#pool
    const length = end - offset
    if (reader.cached === undefined || reader.cached.missing(offset, length) !== undefined) return undefined
    if (!budget.hasRoom(length)) return undefined
    const bytes = reader.cached.read(offset, length, into)
    if (!(bytes instanceof Promise)) return bytes
    const share = budget.tryReserve(length)
    assert(share !== undefined, 'there is room in the turn in which there was')
    return bytes.then((found): MaybePromise<Bytes> => {
      if (found === undefined) share.release()
      else this.#pool.later(() => share.release())
      return found ?? reader.readLater(offset, end)
    })
  }

  #fetchAhead(from: number): void {
    const prefetcher = this.#prefetcher
    const to = prefetcher.target(this.#pool.windowMax(this))
    if (to <= from) return
    const { limit, short } = this.#reader.fetchAhead(this, from, to, prefetcher.rangeBytes)
    prefetcher.reached(limit)
    if (short) prefetcher.refuse(limit)
  }

  /** Leaves what lies so far behind that no read of a sequential reader goes there. */
  #pass(): void {
    const behind = this.#prefetcher.position - SLACK_BYTES
    for (let first = this.#held[0]; first !== undefined && first.end <= behind; first = this.#held[0]) {
      this.#held.shift()
      this.#reader.leave(this, first)
    }
    if (this.#held.length === 0) this.#pool.holds(this, false)
  }

  /** Leaves all that is of no use to the read at hand. */
  #leaveAllBut(offset: number, end: number): void {
    const held = this.#held
    if (held.length === 0) return
    this.#held = held.filter((piece) => piece.offset < end && piece.end > offset)
    for (const piece of held) if (!this.#held.includes(piece)) this.#reader.leave(this, piece)
    if (this.#held.length === 0) this.#pool.holds(this, false)
  }

  close(): void {
    this.#leaveAllBut(0, 0)
    this.#reader.sweep()
  }

  // For the reader.

  hold(piece: Piece<SequentialHandle>): void {
    if (piece.holders.has(this)) return
    piece.holders.add(this)
    this.#held.push(piece)
    this.#pool.holds(this, true)
  }

  /** A piece is given up before its time. */
  lost(piece: Piece<SequentialHandle>): void {
    if (piece.unreadBytes > 0 && !piece.isKept) this.#prefetcher.refuse(piece.offset)
  }

  drop(piece: Piece<SequentialHandle>): void {
    const index = this.#held.indexOf(piece)
    if (index !== -1) this.#held.splice(index, 1)
    if (this.#held.length === 0) this.#pool.holds(this, false)
  }

  // For the pool.

  get spareBytes(): number {
    let bytes = 0
    for (const piece of this.#held) if (piece.isSpare) bytes += piece.length
    return bytes
  }

  releaseUsed(): number {
    let bytes = 0
    for (const piece of [...this.#held]) {
      if (!piece.isSpare || (piece.unreadBytes > 0 && !piece.isKept)) continue
      bytes += piece.length
      this.#reader.giveUp(piece)
    }
    return bytes
  }

  releaseLast(): number {
    const piece = this.#held.findLast(({ isSpare }) => isSpare)
    if (piece === undefined) return 0
    this.#reader.giveUp(piece)
    return piece.length
  }
}
