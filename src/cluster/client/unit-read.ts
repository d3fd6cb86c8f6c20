/**
 * Reads some stripes of a span, or a part of them, at once: the smallest thing that can be put together from other blocks where one is
 * missing. Asks for what is needed and no more as long as all goes well. A block that fails, whose cells are not those of the span's
 * record, or that is slow, is replaced by others: of all of them the range in which a needed one is missing, and from any D the
 * rest is computed.
 *
 *   plain: the needed ranges of data blocks --one fails or is slow--> degraded: the missing range of any D blocks
 *   settled as soon as each needed block is there or D others are; lost when nothing is under way and there is nobody left to ask
 *
 * What was read whole is checked against the CRCs of the record, also what was computed.
 */
import { assert } from '#base/assert.ts'
import { isOperationError, OperationError } from '#base/errors.ts'
import { abortedError } from '#store/abort.ts'
import type { BufferMemory } from '#cluster/erasure/buffer-memory.ts'
import { crc32c } from '#cluster/erasure/crc32c.ts'
import { type Piece, type SpanLayout, piecesOf } from '#cluster/erasure/layout.ts'
import type { ReedSolomon } from '#cluster/erasure/reed-solomon.ts'
import { afterRunning } from '#cluster/stood-still.ts'
import type { Cancel, Clock } from '#cluster/surroundings.ts'

import type { FetchedRange } from './block-caller.ts'

/** Part of a block: from `low` up to `high`. */
export interface BlockRange {
  readonly low: number
  readonly high: number
}

export interface UnitReadOptions {
  readonly layout: SpanLayout
  /** By block: the CRC of each of its cells. */
  readonly cells: readonly (readonly number[])[]
  /** Undefined of a single copy. */
  readonly code: ReedSolomon | undefined
  readonly clock: Clock
  /** For what is computed. */
  readonly memory: BufferMemory | undefined
  /** After which a block is slow. */
  readonly hedgeMs: number
  /** The blocks, those to be asked first before the others: what is needed of others than the first D is computed from these. */
  readonly order: readonly number[]
  readonly fetch: (block: number, range: BlockRange, signal: AbortSignal) => Promise<FetchedRange>
  /** A block has failed, or was slow. */
  readonly onBad: (block: number, why: 'slow' | OperationError) => void
  readonly signal: AbortSignal | undefined
}

/** What was read. */
export interface UnitBytes {
  /** In order, as views of what was fetched. */
  readonly buffers: readonly Buffer[]
  /** To be called once: the buffers are not used any more. */
  readonly release: () => void
}

/** Blocks that failed, by their index, where the bytes cannot be put together. */
export interface UnitLost {
  readonly failures: ReadonlyMap<number, OperationError>
}

interface Fetched extends BlockRange {
  readonly bytes: Buffer
  readonly release: () => void
}

interface BlockState {
  readonly index: number
  /** Of which it is needed itself. */
  readonly needed: BlockRange | undefined
  good: Fetched | undefined
  pending: BlockRange | undefined
  /** There are enough that are better. */
  isSpare: boolean
  isSlow: boolean
  failure: OperationError | undefined
}

/** The bytes of the span from `offset` on. @throws ABORTED */
export function readUnit(options: UnitReadOptions, offset: number, length: number): Promise<UnitBytes | UnitLost> {
  return new UnitRead(options, piecesOf(options.layout, offset, length)).run()
}

class UnitRead {
  readonly #options: UnitReadOptions
  readonly #pieces: readonly Piece[]
  /** By block. */
  readonly #states: readonly BlockState[]
  /** In the order in which to ask. */
  readonly #order: readonly BlockState[]
  readonly #result = Promise.withResolvers<UnitBytes | UnitLost>()
  readonly #others = new AbortController()
  #cancelHedge: Cancel | undefined
  #isOver = false

  constructor(options: UnitReadOptions, pieces: readonly Piece[]) {
    this.#options = options
    this.#pieces = pieces
    const needed = rangesOf(pieces)
    this.#states = options.cells.map((_, index) => ({
      index,
      needed: needed.get(index),
      good: undefined,
      pending: undefined,
      isSpare: options.order.indexOf(index) >= options.layout.data,
      isSlow: false,
      failure: undefined,
    }))
    this.#order = options.order.map((index) => {
      const state = this.#states[index]
      assert(state !== undefined, 'the order is one of the blocks of the span')
      return state
    })
  }

  async run(): Promise<UnitBytes | UnitLost> {
    const { signal } = this.#options
    const onAbort = (): void => {
      this.#isOver = true
      if (signal !== undefined) this.#result.reject(abortedError('read a span', signal))
    }
    signal?.addEventListener('abort', onAbort)
    try {
      if (signal?.aborted === true) onAbort()
      else this.#advance()
      return await this.#result.promise
    } finally {
      this.#isOver = true
      this.#cancelHedge?.()
      signal?.removeEventListener('abort', onAbort)
      this.#others.abort()
      // What was settled with has left its place.
      for (const state of this.#states) this.#drop(state)
    }
  }

  /** Looks at what is there, settles if that is enough, and otherwise asks for what is missing. */
  #advance(): void {
    if (this.#isOver) return
    const missing = this.#states.filter((state) => state.needed !== undefined && !covers(state.good, state.needed))
    if (missing.length === 0) {
      this.#settle(new Map())
      return
    }
    const hopeless = missing.filter(({ failure, isSlow, isSpare }) => failure !== undefined || isSlow || isSpare)
    if (hopeless.length === 0 && this.#options.layout.data > 1) {
      for (const state of missing) this.#ask(state, state.needed)
      return
    }
    this.#advanceDegraded(missing, hullOf((hopeless.length === 0 ? missing : hopeless).map(({ needed }) => needed)))
  }

  /** @param hull what is to be had of any D blocks */
  #advanceDegraded(missing: readonly BlockState[], hull: BlockRange): void {
    const { data } = this.#options.layout
    const whole = this.#order.filter(({ good }) => covers(good, hull))
    if (whole.length >= data) {
      // What is needed beside the hull may still be on its way.
      const computed = missing.filter(({ needed }) => needed !== undefined && covers(hull, needed))
      const rest = missing.filter((state) => !computed.includes(state))
      if (rest.length === 0) {
        if (this.#compute(computed, whole.slice(0, data), hull)) return
        this.#advance()
        return
      }
      for (const state of rest) this.#ask(state, hullOf([state.needed, hull]))
      return
    }
    let hoped = whole.length + this.#order.filter((state) => !state.isSlow && covers(state.pending, hull)).length
    const rounds = [
      this.#order.filter(({ isSlow }) => !isSlow),
      // Rather a slow one than none.
      this.#order.filter(({ isSlow }) => isSlow),
    ]
    for (const round of rounds) {
      for (const state of round) {
        if (hoped >= data) break
        if (state.failure !== undefined || covers(state.good, hull) || state.pending !== undefined) continue
        this.#ask(state, hullOf([state.needed, hull]))
        hoped++
      }
    }
    if (this.#states.some(({ pending }) => pending !== undefined)) return
    const failures = this.#states.flatMap(({ index, failure }) =>
      failure === undefined ? [] : [[index, failure] as const],
    )
    this.#result.resolve({ failures: new Map(failures) })
  }

  #ask(state: BlockState, range: BlockRange | undefined): void {
    if (range === undefined || state.pending !== undefined || state.failure !== undefined) return
    state.pending = range
    this.#options.fetch(state.index, range, this.#others.signal).then(
      (reply) => {
        state.pending = undefined
        const release = (): void => reply.release?.()
        if (this.#isOver) {
          release()
          return
        }
        const wrong = reply.outcome === 'bad' ? badPages(reply.pages) : this.#wrongCell(state.index, range, reply.bytes)
        if (wrong === undefined) {
          // Of a block that was asked again, for more.
          this.#drop(state)
          state.good = { ...range, bytes: reply.bytes, release }
        } else {
          release()
          this.#fail(state, wrong)
        }
        state.isSlow = false
        this.#advance()
      },
      (error: unknown) => {
        state.pending = undefined
        if (this.#isOver) return
        if (!isOperationError(error)) {
          this.#isOver = true
          this.#result.reject(error)
          return
        }
        this.#fail(state, error)
        this.#advance()
      },
    )
    this.#cancelHedge ??= afterRunning(this.#options.clock, this.#options.hedgeMs, () => this.#hedge())
  }

  #drop(state: BlockState): void {
    state.good?.release()
    state.good = undefined
  }

  #fail(state: BlockState, error: OperationError): void {
    state.failure = error
    this.#options.onBad(state.index, error)
  }

  /** All that is under way by now is slow: others are asked, and who answers first is taken. */
  #hedge(): void {
    this.#cancelHedge = undefined
    for (const state of this.#states) {
      if (state.pending === undefined || state.isSlow) continue
      state.isSlow = true
      this.#options.onBad(state.index, 'slow')
    }
    this.#advance()
  }

  /** What is wrong with the first cell that was read whole and is not as the record has it. */
  #wrongCell(block: number, range: BlockRange, bytes: Buffer): OperationError | undefined {
    const { cellBytes } = this.#options.layout
    if (bytes.length !== range.high - range.low)
      return new OperationError('BLOCK_CUT', 'Cannot use a range: it is short')
    const cells = this.#options.cells[block] ?? []
    const first = Math.ceil(range.low / cellBytes)
    for (let cell = first; (cell + 1) * cellBytes <= range.high; cell++) {
      const at = cell * cellBytes - range.low
      if (crc32c(bytes.subarray(at, at + cellBytes)) === cells[cell]) continue
      return new OperationError('BLOCK_CORRUPT', `Cannot use cell ${cell}: its checksum is not the one of the span`)
    }
    return undefined
  }

  /** Computes the missing from `sources`; false where they contradict the record, and one of parity is taken for wrong. */
  #compute(missing: readonly BlockState[], sources: readonly BlockState[], hull: BlockRange): boolean {
    const { code, layout, memory } = this.#options
    if (layout.data === 1) {
      this.#takeCopy(missing, sources)
      return true
    }
    assert(code !== undefined, 'what is computed has a code')
    const length = hull.high - hull.low
    const blocks: (Buffer | undefined)[] = this.#states.map(() => undefined)
    for (const { index, good } of sources) {
      if (good !== undefined) blocks[index] = good.bytes.subarray(hull.low - good.low, hull.high - good.low)
    }
    const computed = new Map(
      missing.map(({ index }): [number, Fetched] => {
        const bytes = memory?.take(length) ?? Buffer.allocUnsafeSlow(length)
        return [index, { ...hull, bytes, release: () => memory?.give(bytes) }]
      }),
    )
    const targets = [...computed.values()].map(({ bytes }) => bytes)
    code.reconstructInto(blocks, [...computed.keys()], targets)
    for (const [index, { bytes }] of computed) {
      if (this.#wrongCell(index, hull, bytes) !== undefined) {
        for (const { release } of computed.values()) release()
        const suspect = sources.findLast((state) => state.index >= layout.data) ?? sources.at(-1)
        assert(suspect !== undefined, 'something is computed from blocks')
        this.#drop(suspect)
        this.#fail(
          suspect,
          new OperationError(
            'BLOCK_CORRUPT',
            'Cannot use the parity: what is computed from it is not what the span has',
          ),
        )
        return false
      }
    }
    this.#settle(computed)
    return true
  }

  /** Of copies one is needed, and any is as good; it was checked as what it was read as. */
  #takeCopy(missing: readonly BlockState[], [copy]: readonly BlockState[]): void {
    const [needed] = missing
    assert(copy?.good !== undefined && needed !== undefined, 'there is a copy of what is needed')
    const { good } = copy
    copy.good = undefined
    this.#settle(new Map([[needed.index, good]]))
  }

  #settle(computed: ReadonlyMap<number, Fetched>): void {
    this.#isOver = true
    const used = new Set<Fetched>()
    const buffers = this.#pieces.map(({ block, offset, bytes }) => {
      const state = this.#states[block]
      const found = state !== undefined && covers(state.good, state.needed) ? state.good : computed.get(block)
      assert(found !== undefined, 'all that is needed is there')
      used.add(found)
      return found.bytes.subarray(offset - found.low, offset - found.low + bytes)
    })
    for (const state of this.#states) if (state.good !== undefined && used.has(state.good)) state.good = undefined
    const release = (): void => {
      for (const fetched of used) fetched.release()
    }
    this.#result.resolve({ buffers, release })
  }
}

/** The ranges of blocks that the pieces lie in; in one unit, those of a block follow each other. */
function rangesOf(pieces: readonly Piece[]): Map<number, BlockRange> {
  const ranges = new Map<number, BlockRange>()
  for (const { block, offset, bytes } of pieces) {
    ranges.set(block, hullOf([ranges.get(block), { low: offset, high: offset + bytes }]))
  }
  return ranges
}

function hullOf(ranges: readonly (BlockRange | undefined)[]): BlockRange {
  let [low, high] = [Number.POSITIVE_INFINITY, 0]
  for (const range of ranges) {
    if (range === undefined) continue
    low = Math.min(low, range.low)
    high = Math.max(high, range.high)
  }
  return { low, high }
}

function covers(outer: BlockRange | undefined, inner: BlockRange | undefined): boolean {
  return outer !== undefined && inner !== undefined && outer.low <= inner.low && outer.high >= inner.high
}

function badPages(pages: readonly number[]): OperationError {
  const [first] = pages
  return new OperationError(
    'BLOCK_CORRUPT',
    `Cannot use a range: ${pages.length} of its pages are damaged, page ${first} first`,
  )
}
