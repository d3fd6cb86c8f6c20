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
import type { FetchReply } from '#cluster/block/block-messages.ts'
import { crc32c } from '#cluster/erasure/crc32c.ts'
import { type Piece, type SpanLayout, piecesOf } from '#cluster/erasure/layout.ts'
import type { ReedSolomon } from '#cluster/erasure/reed-solomon.ts'
import type { Cancel, Clock } from '#cluster/surroundings.ts'

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
  /** After which a block is slow. */
  readonly hedgeMs: number
  /** The blocks, those to be asked first before the others: what is needed of others than the first D is computed from these. */
  readonly order: readonly number[]
  readonly fetch: (block: number, range: BlockRange, signal: AbortSignal) => Promise<FetchReply>
  /** A block has failed, or was slow. */
  readonly onBad: (block: number, why: 'slow' | OperationError) => void
  readonly signal: AbortSignal | undefined
}

/** Blocks that failed, by their index, where the bytes cannot be put together. */
export interface UnitLost {
  readonly failures: ReadonlyMap<number, OperationError>
}

interface Fetched extends BlockRange {
  readonly bytes: Buffer
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

/** The bytes of the span from `offset` on, in order, as views of what was read. @throws ABORTED */
export function readUnit(options: UnitReadOptions, offset: number, length: number): Promise<Buffer[] | UnitLost> {
  return new UnitRead(options, piecesOf(options.layout, offset, length)).run()
}

class UnitRead {
  readonly #options: UnitReadOptions
  readonly #pieces: readonly Piece[]
  /** By block. */
  readonly #states: readonly BlockState[]
  /** In the order in which to ask. */
  readonly #order: readonly BlockState[]
  readonly #result = Promise.withResolvers<Buffer[] | UnitLost>()
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

  async run(): Promise<Buffer[] | UnitLost> {
    const { signal } = this.#options
    const onAbort = (): void => {
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
        if (this.#isOver) return
        const wrong = reply.outcome === 'bad' ? badPages(reply.pages) : this.#wrongCell(state.index, range, reply.bytes)
        if (wrong === undefined) state.good = { ...range, bytes: reply.bytes }
        else this.#fail(state, wrong)
        state.isSlow = false
        this.#advance()
      },
      (error: unknown) => {
        state.pending = undefined
        if (this.#isOver) return
        if (!isOperationError(error)) {
          this.#result.reject(error)
          return
        }
        this.#fail(state, error)
        this.#advance()
      },
    )
    this.#cancelHedge ??= this.#options.clock.after(this.#options.hedgeMs, () => this.#hedge())
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
    const { code, layout } = this.#options
    const length = hull.high - hull.low
    const blocks: (Buffer | undefined)[] = this.#states.map(() => undefined)
    for (const { index, good } of sources) {
      if (good !== undefined) blocks[index] = good.bytes.subarray(hull.low - good.low, hull.high - good.low)
    }
    const wanted = missing.map(({ index }) => index)
    const targets: Buffer[] = wanted.map(() => Buffer.allocUnsafeSlow(length))
    if (layout.data === 1) {
      const copy = blocks.find((block) => block !== undefined)
      for (const [index] of targets.entries()) if (copy !== undefined) targets[index] = copy
    } else {
      assert(code !== undefined, 'what is computed has a code')
      code.reconstructInto(blocks, wanted, targets)
    }
    const computed = new Map<number, Fetched>()
    for (const [at, index] of wanted.entries()) {
      const bytes = targets[at]
      assert(bytes !== undefined, 'there is a target for each block')
      // A copy was checked as what it was read as.
      if (layout.data > 1 && this.#wrongCell(index, hull, bytes) !== undefined) {
        const suspect = sources.findLast((state) => state.index >= layout.data) ?? sources.at(-1)
        assert(suspect !== undefined, 'something is computed from blocks')
        suspect.good = undefined
        this.#fail(
          suspect,
          new OperationError(
            'BLOCK_CORRUPT',
            'Cannot use the parity: what is computed from it is not what the span has',
          ),
        )
        return false
      }
      computed.set(index, { ...hull, bytes })
    }
    this.#settle(computed)
    return true
  }

  #settle(computed: ReadonlyMap<number, Fetched>): void {
    this.#result.resolve(
      this.#pieces.map(({ block, offset, bytes }) => {
        const state = this.#states[block]
        const found = state !== undefined && covers(state.good, state.needed) ? state.good : computed.get(block)
        assert(found !== undefined, 'all that is needed is there')
        return found.bytes.subarray(offset - found.low, offset - found.low + bytes)
      }),
    )
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
