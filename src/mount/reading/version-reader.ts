/**
 * Reads one version of a file for all who have it open: from memory, from the cache on disk, or from the store, each byte
 * asked for once however many wait for it. What the store gave goes to the cache, without a reader waiting for that.
 *
 *   absent --asked: memory is lent--> under way --arrived--> here --answers given, nobody sequential near--> absent
 *                                         '--failed, or given up by all--> absent
 *
 * Invariants:
 * - Every buffer has its share of the memory from before its request until the answers made of it are written.
 * - Nobody waits for memory while it pins bytes: a read that needs some pins only once it has all of it. So who waits is
 *   served in the end (see `memory-budget.ts`).
 * - A range that is under way, or waits for memory, is joined.
 *
 * Not here: which version it is, and what to do when the store does not have it any more: the source's errors go to who
 * waits for those bytes, and to nobody else.
 */
import { assert } from '#base/assert.ts'
import { isOperationError } from '#base/errors.ts'
import type { Share } from '#base/memory-budget.ts'
import type { CachedVersion } from '#cache/file-cache.ts'
import type { MaybePromise } from '#fuse/file-system.ts'
import { checkAborted, untilAborted } from '#store/abort.ts'

import { freeBytes, Piece, PieceList } from './piece.ts'
import type { ReadingPool } from './reading-pool.ts'
import { SequentialHandle } from './sequential-handle.ts'

/** Where the bytes of a version come from. */
export interface VersionSource {
  readonly size: number
  /** Exactly `length` bytes; where they fill their buffer, it is the reader's to free. @throws OperationError `FILE_STALE` where the version is gone. */
  fetch(offset: number, length: number, signal: AbortSignal): Promise<Buffer>
  readonly cached: CachedVersion | undefined
}

/** One answer, in pieces where it is. */
export type Bytes = Uint8Array | readonly Uint8Array[]

/** What one open of the file reads by. */
export interface ReadHandle {
  /**
   * At most `size` bytes, fewer at the end of the file. They are to be used in the turn in which they are given: their
   * memory is lent no longer. An answer at once may lie in `into`.
   */
  read(offset: number, size: number, into?: Buffer): MaybePromise<Bytes>
  /** Gives up what was fetched ahead. Reads under way go on. */
  close(): void
}

interface Range {
  readonly offset: number
  readonly end: number
}

interface Pinned {
  readonly pieces: readonly Piece<SequentialHandle>[]
  /** For what comes from the cache. */
  readonly share: Share | undefined
}

const MIB = 1024 * 1024
/** Reads of one turn next to each other become one request of at most so much. */
const JOINED_BYTES_MAX = 2 * MIB
/** A longer range that somebody waits for goes as several requests side by side. */
const REQUEST_BYTES_MAX = 4 * MIB
/** How much of a long read is under way at a time. */
const BITE_BYTES_MAX = 32 * MIB

export class VersionReader {
  readonly #source: VersionSource
  readonly #pool: ReadingPool
  readonly #pieces = new PieceList<SequentialHandle>()
  /** Reads of this turn that are not planned yet. */
  readonly #asks = new Set<Range>()
  /** Ranges that wait for memory. */
  readonly #waiting = new Map<Range, Promise<void>>()

  constructor(source: VersionSource, pool: ReadingPool) {
    this.#source = source
    this.#pool = pool
  }

  get size(): number {
    return this.#source.size
  }

  get cached(): CachedVersion | undefined {
    return this.#source.cached
  }

  handle(): ReadHandle {
    return new SequentialHandle(this, this.#pool)
  }

  /**
   * Exactly `length` bytes in one buffer, which is the caller's to account for. A signal gives up the wait, not what others
   * wait for.
   * @throws OperationError what the source throws, `ABORTED`.
   */
  async read(offset: number, length: number, signal?: AbortSignal): Promise<Buffer> {
    assert(offset >= 0 && length >= 0 && offset + length <= this.size, 'what is read lies within the file')
    const bytes = Buffer.allocUnsafeSlow(length)
    const bite = Math.min(BITE_BYTES_MAX, Math.max(MIB, Math.floor(this.#pool.budget.bytesMax / 4)))
    for (let done = 0; done < length;) {
      const end = Math.min(length, done + bite)
      for (const part of await this.readLater(offset + done, offset + end, signal)) {
        bytes.set(part, done)
        done += part.length
      }
      assert(done === end, 'a read gives all that it was asked for')
    }
    return bytes
  }

  /** What is in memory of a range, where that is all of it. */
  readNow(offset: number, end: number): Uint8Array | Uint8Array[] | undefined {
    const first = this.#pieces.indexAt(offset)
    const piece = this.#pieces.at(first)
    if (piece?.bytes === undefined || piece.offset > offset) return undefined
    if (end <= piece.end) {
      piece.readBytes += end - offset
      return piece.bytes.subarray(offset - piece.offset, end - piece.offset)
    }
    const parts: Uint8Array[] = []
    let at = offset
    for (let index = first; at < end; index++) {
      const next = this.#pieces.at(index)
      if (next?.bytes === undefined || next.offset > at) return undefined
      const stop = Math.min(end, next.end)
      parts.push(next.bytes.subarray(at - next.offset, stop - next.offset))
      at = stop
    }
    for (let index = first; index < first + parts.length; index++) {
      const read = this.#pieces.at(index)
      if (read !== undefined) read.readBytes += Math.min(end, read.end) - Math.max(offset, read.offset)
    }
    return parts
  }

  /** The bytes of a range, fetched where they are not here. */
  async readLater(offset: number, end: number, signal?: AbortSignal): Promise<readonly Uint8Array[]> {
    const range: Range = { offset, end }
    this.#asks.add(range)
    // The other reads of this turn: the kernel sends what belongs together side by side.
    await Promise.resolve()
    let mayCache = true
    let hasFailed = false
    for (let tries = 0; ; tries++) {
      const pinned = await this.#pinned(range, mayCache, tries, signal).finally(() => this.#asks.delete(range))
      const { pieces, share } = pinned
      try {
        const parts = await untilAborted(
          'read',
          allOf(this.#collect(range, pieces, mayCache ? this.cached : undefined)),
          signal,
        )
        if (parts.every((part) => part !== undefined)) return parts
        // The cache was to have it, and has not.
        mayCache = false
      } catch (error) {
        // What was fetched ahead began to wait for the store earlier than this read: it is owed a try of its own.
        const mayRetry = !hasFailed && !isOperationError(error, 'FILE_STALE', 'ABORTED')
        if (!mayRetry || !pieces.some((piece) => piece.isAhead && piece.bytes === undefined)) throw error
        hasFailed = true
      } finally {
        for (const piece of pieces) this.#unpin(piece)
        if (share !== undefined) this.#pool.later(() => share.release())
      }
    }
  }

  /** Has what is not here of a range asked for, and pins all of it: from then on no more memory is needed. */
  async #pinned(range: Range, mayCache: boolean, tries: number, signal?: AbortSignal): Promise<Pinned> {
    // What was counted on may be given up while memory is waited for: then all of the range is reserved at once.
    let isWhole = tries > 1
    for (let share: Share | undefined; ;) {
      if (share === undefined) checkAborted('read', signal)
      // Anew each time: the cache lets go of what is staged, or gets another version of the same bytes.
      const cached = mayCache ? this.cached : undefined
      const waited = share
      const gaps = this.#gaps(waited === undefined ? this.#joined(range) : range, cached)
      const fromCache = cached === undefined ? 0 : this.#cachedBytes(range, gaps)
      const bytes = lengthOf(gaps) + fromCache
      if (bytes === 0) return this.#pinWith(range, [], 0, waited)
      if (waited === undefined) {
        const joined = this.#waitingFor(range)
        if (joined !== undefined) {
          await untilAborted('read', joined, signal)
          continue
        }
      }
      const lent = waited ?? this.#pool.budget.tryReserve(bytes)
      if (lent !== undefined && lent.bytes >= bytes) return this.#pinWith(range, gaps, fromCache, lent)
      if (lent !== undefined) {
        lent.release()
        isWhole = true
      }
      const own = lengthOf(this.#gaps(range, cached)) + fromCache
      const wanted = isWhole ? this.#wholeBytes(range, cached) : own
      share = await this.#waitForMemory(range, wanted, signal)
    }
  }

  #pinWith(range: Range, gaps: readonly Range[], fromCache: number, lent: Share | undefined): Pinned {
    const fetched = lengthOf(gaps)
    if (lent === undefined) return { pieces: this.#pin(range), share: undefined }
    const share = fromCache === 0 ? undefined : lent.bytes === fromCache ? lent : lent.split(fromCache)
    // Given back when the pieces are pinned: others who wait may have spare ones given up for it.
    const rest = lent === share ? undefined : fetched === 0 ? lent : splitOver(lent, fetched)
    if (fetched > 0) this.#beginAll(gaps, lent)
    const pieces = this.#pin(range)
    rest?.release()
    return { pieces, share }
  }

  /** How much of a range, beside pieces and gaps, is to come from the cache. */
  #cachedBytes({ offset, end }: Range, gaps: readonly Range[]): number {
    let bytes = end - offset
    for (let index = this.#pieces.indexAt(offset); ; index++) {
      const piece = this.#pieces.at(index)
      if (piece === undefined || piece.offset >= end) break
      bytes -= Math.min(end, piece.end) - Math.max(offset, piece.offset)
    }
    for (const gap of gaps) bytes -= Math.max(0, Math.min(end, gap.end) - Math.max(offset, gap.offset))
    return bytes
  }

  /** The end of another read's wait for memory for the first bytes that this one needs, too. */
  #waitingFor(range: Range): Promise<void> | undefined {
    for (const [other, begun] of this.#waiting) if (other.offset < range.end && range.offset < other.end) return begun
    return undefined
  }

  async #waitForMemory(range: Range, bytes: number, signal?: AbortSignal): Promise<Share> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#waiting.set(range, promise)
    try {
      return await this.#pool.budget.reserve(bytes, signal)
    } finally {
      this.#waiting.delete(range)
      resolve()
    }
  }

  /** A range with the other reads of this turn that touch it. */
  #joined(range: Range): Range {
    let { offset, end } = range
    if (this.#asks.size < 2 || !this.#asks.has(range)) return range
    const max = Math.min(JOINED_BYTES_MAX, this.#pool.budget.bytesMax / 4)
    for (let grew = true; grew;) {
      grew = false
      for (const other of this.#asks) {
        if (other.offset > end || other.end < offset || (other.offset >= offset && other.end <= end)) continue
        const from = Math.min(offset, other.offset)
        const to = Math.max(end, other.end)
        if (to - from > max) continue
        offset = from
        end = to
        grew = true
      }
    }
    return { offset, end }
  }

  /** The most that a read may have to ask for. */
  #wholeBytes({ offset, end }: Range, cached: CachedVersion | undefined): number {
    return cached === undefined ? end - offset : cached.align(offset, end - offset).length
  }

  /** What is neither in memory, nor under way, nor in the cache. */
  #gaps(range: Range, cached: CachedVersion | undefined): Range[] {
    const gaps: Range[] = []
    let index = this.#pieces.indexAt(range.offset)
    for (let at = range.offset; at < range.end; index++) {
      const piece = this.#pieces.at(index)
      const stop = Math.min(range.end, piece?.offset ?? range.end)
      if (at < stop) this.#addGaps(gaps, at, stop, index, cached)
      at = Math.max(at, piece?.end ?? range.end)
    }
    return gaps
  }

  /** Of a gap before piece `index`, what the cache misses, widened as the cache wants it. */
  #addGaps(gaps: Range[], from: number, to: number, index: number, cached: CachedVersion | undefined): void {
    // One that was found wrong is asked for again in the blocks in which the cache keeps it.
    const { cached: keeper } = this
    const before = this.#pieces.at(index - 1)?.end ?? 0
    const after = this.#pieces.at(index)?.offset ?? this.size
    for (let at = from; at < to;) {
      const missing = cached === undefined ? { offset: at, length: to - at } : cached.missing(at, to - at)
      if (missing === undefined) return
      const wide = keeper?.align(missing.offset, missing.length) ?? missing
      const offset = Math.max(before, gaps.at(-1)?.end ?? 0, wide.offset)
      const end = Math.min(after, wide.offset + wide.length)
      if (offset < end) gaps.push({ offset, end })
      at = Math.max(at + 1, missing.offset + missing.length)
    }
  }

  #beginAll(gaps: readonly Range[], share: Share): void {
    for (const gap of gaps) {
      for (let at = gap.offset; at < gap.end; at += REQUEST_BYTES_MAX) {
        const end = Math.min(gap.end, at + REQUEST_BYTES_MAX)
        this.#begin(at, end, false, share.bytes === end - at ? share : share.split(end - at))
      }
    }
  }

  #begin(offset: number, end: number, isAhead: boolean, share: Share): Piece<SequentialHandle> {
    const piece = new Piece<SequentialHandle>(offset, end, isAhead, share)
    const length = end - offset
    const { signal } = piece.abort
    const ask = (given: AbortSignal): Promise<Buffer> => this.#source.fetch(offset, length, given)
    this.#pieces.add(piece)
    if (isAhead) this.#pool.prefetchedBytes.inc(length)
    this.cached?.missed(length)
    piece.arrival = this.#pool.fetch(length, isAhead, ask, signal).then(
      (bytes) => {
        assert(bytes.length === length, `a source gives what it is asked for: ${bytes.length} of ${length} bytes`)
        this.#arrived(piece, bytes)
      },
      (error: unknown) => {
        if (this.#forget(piece)) share.release()
        throw error
      },
    )
    // Who waits for it is told; ahead of a reader there may be nobody.
    piece.arrival.catch(() => undefined)
    return piece
  }

  #arrived(piece: Piece<SequentialHandle>, bytes: Buffer): void {
    const { cached } = this
    // Given up while its last bytes came.
    if (piece.abort.signal.aborted) return
    piece.bytes = bytes
    if (cached !== undefined && this.#pool.mayKeep(piece.length)) void this.#keep(piece, cached, bytes)
    if (piece.pins === 0) this.#rest(piece)
  }

  async #keep(piece: Piece<SequentialHandle>, cached: CachedVersion, bytes: Buffer): Promise<void> {
    piece.isKeeping = true
    try {
      await cached.keep(piece.offset, bytes)
    } finally {
      piece.isKeeping = false
      this.#pool.kept(piece.length)
      // Not asked of one that has been let go meanwhile.
      piece.isKept = this.cached === cached && cached.missing(piece.offset, piece.length) === undefined
      if (piece.pins === 0) this.#rest(piece)
    }
  }

  #pin(range: Range): Piece<SequentialHandle>[] {
    const pieces: Piece<SequentialHandle>[] = []
    for (let index = this.#pieces.indexAt(range.offset); ; index++) {
      const piece = this.#pieces.at(index)
      if (piece === undefined || piece.offset >= range.end) return pieces
      piece.pins++
      pieces.push(piece)
    }
  }

  #unpin(piece: Piece<SequentialHandle>): void {
    piece.pins--
    if (piece.pins > 0) return
    if (piece.bytes === undefined && piece.holders.size === 0) this.#giveUp(piece)
    else this.#rest(piece)
  }

  /** The parts of a range in order, of pinned pieces and, between them, of the cache. */
  #collect(
    range: Range,
    pieces: readonly Piece<SequentialHandle>[],
    cached: CachedVersion | undefined,
  ): MaybePromise<Uint8Array | undefined>[] {
    const parts: MaybePromise<Uint8Array | undefined>[] = []
    let at = range.offset
    const fromCache = (to: number): void => {
      if (at < to) parts.push(cached?.read(at, to - at))
    }
    for (const piece of pieces) {
      fromCache(piece.offset)
      const start = Math.max(range.offset, piece.offset)
      const stop = Math.min(range.end, piece.end)
      parts.push(partOf(piece, start, stop))
      at = stop
    }
    fromCache(range.end)
    return parts
  }

  /** Of a piece that nobody waits for: gives it up after this turn, unless a sequential reader wants it. */
  #rest(piece: Piece<SequentialHandle>): void {
    this.#pool.later(() => {
      if (!piece.isSpare || piece.abort.signal.aborted) return
      if (piece.holders.size === 0 || this.#pool.budget.lacking > 0) this.giveUp(piece)
    })
  }

  /** Gives up a piece that nobody waits for, and tells the readers that it lay ahead of. */
  giveUp(piece: Piece<SequentialHandle>): void {
    for (const holder of piece.holders) holder.lost(piece)
    this.#giveUp(piece)
  }

  #giveUp(piece: Piece<SequentialHandle>): void {
    if (!this.#forget(piece)) return
    if (piece.isAhead && piece.unreadBytes > 0 && !piece.isKept) this.#pool.wastedBytes.inc(piece.unreadBytes)
    const { bytes } = piece
    piece.abort.abort()
    piece.bytes = undefined
    if (bytes !== undefined) {
      // Answers of this turn may be made of it, and are not yet written.
      this.#pool.later(() => freeBytes(bytes))
      return piece.share.release()
    }
    // Its buffer is the request's until that has ended.
    const done = (): void => piece.share.release()
    piece.arrival.then(done, done)
  }

  #forget(piece: Piece<SequentialHandle>): boolean {
    if (!this.#pieces.delete(piece)) return false
    for (const holder of piece.holders) holder.drop(piece)
    piece.holders.clear()
    return true
  }

  // For handles.

  /** Begins what is missing of a range ahead of `holder`, as far as memory and requests allow; gives how far that is. */
  fetchAhead(
    holder: SequentialHandle,
    from: number,
    to: number,
    rangeBytes: number,
  ): { limit: number; short: boolean } {
    const { cached, size } = this
    for (let at = from; at < to;) {
      const index = this.#pieces.indexAt(at)
      const next = this.#pieces.at(index)
      if (next !== undefined && next.offset <= at) {
        holder.hold(next)
        at = next.end
        continue
      }
      const missing = cached?.missing(at, Math.min(to, next?.offset ?? to) - at)
      if (cached !== undefined && missing === undefined) {
        at = Math.min(to, next?.offset ?? to)
        continue
      }
      const offset = missing === undefined ? at : Math.max(missing.offset, this.#pieces.at(index - 1)?.end ?? 0)
      const room = Math.min(next?.offset ?? size, missing === undefined ? size : missing.offset + missing.length)
      // What would be a short request waits until it is a long one, but at the end, to which it then goes.
      if (to - offset < rangeBytes && to < size && room > to) return { limit: Math.max(from, offset), short: false }
      const end = room - offset < (rangeBytes / 4) * 5 ? room : offset + rangeBytes
      if (!this.#pool.hasAheadSlot) return { limit: Math.max(from, offset), short: false }
      const bytes = end - offset
      if (cached !== undefined && !this.#pool.mayCome(bytes)) return { limit: Math.max(from, offset), short: false }
      const share = this.#pool.reserveAhead(holder, bytes)
      const piece = share === undefined ? undefined : this.#begin(offset, end, true, share)
      if (cached !== undefined) {
        const came = (): void => this.#pool.came(bytes)
        if (piece === undefined) came()
        else piece.arrival.then(came, came)
      }
      if (piece === undefined) return { limit: Math.max(from, offset), short: true }
      holder.hold(piece)
      at = end
    }
    return { limit: to, short: false }
  }

  /** A handle wants a piece no more. */
  leave(holder: SequentialHandle, piece: Piece<SequentialHandle>): void {
    piece.holders.delete(holder)
    if (piece.holders.size === 0 && piece.pins === 0 && !piece.isKeeping) this.#giveUp(piece)
  }

  /** Gives up what nobody waits for and no handle wants. */
  sweep(): void {
    for (const piece of this.#pieces) if (piece.isSpare && piece.holders.size === 0) this.#giveUp(piece)
  }
}

function lengthOf(ranges: readonly Range[]): number {
  let bytes = 0
  for (const { offset, end } of ranges) bytes += end - offset
  return bytes
}

async function allOf<T>(values: readonly MaybePromise<T>[]): Promise<T[]> {
  return Promise.all(values.map(async (value) => value))
}

/** What a share has over `bytes`, as one of its own. */
function splitOver(share: Share, bytes: number): Share | undefined {
  return share.bytes > bytes ? share.split(share.bytes - bytes) : undefined
}

function partOf(piece: Piece<unknown>, start: number, stop: number): MaybePromise<Uint8Array> {
  piece.readBytes += stop - start
  const { bytes } = piece
  if (bytes !== undefined) return bytes.subarray(start - piece.offset, stop - piece.offset)
  return piece.arrival.then(() => {
    assert(piece.bytes !== undefined, 'a piece that is waited for is not given up')
    return piece.bytes.subarray(start - piece.offset, stop - piece.offset)
  })
}
