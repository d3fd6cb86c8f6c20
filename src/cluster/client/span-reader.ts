/**
 * Reads ranges of files: inline bytes and zeros from the records of their spans, all else from blocks, a few stripes at a time, of
 * which several are on their way while the first is given out. What comes out is right or an error: it is checked as far as
 * it was read whole, and put together from other blocks where some are missing (`unit-read.ts`).
 *
 * Remembers for a while which disks were slow and which blocks were bad, so that they are asked last. Where the bytes of a span cannot
 * be put together, the spans are asked for anew, as its blocks may have been moved meanwhile, and for a while it is tried again
 * where processes only did not answer.
 */
import { assert } from '#base/assert.ts'
import { isOperationError, OperationError } from '#base/errors.ts'
import { checkAborted, untilAborted } from '#store/abort.ts'
import { FETCH_BYTES_MAX } from '#cluster/block/block-file.ts'
import type { BlockId } from '#cluster/block/block-id.ts'
import type { DiskId } from '#cluster/block/permit.ts'
import { crc32c, crc32cZeros } from '#cluster/erasure/crc32c.ts'
import type { SpanLayout } from '#cluster/erasure/layout.ts'
import { spanCrc } from '#cluster/erasure/span-crc.ts'
import { type InodeId, shownInode } from '#cluster/inode-id.ts'
import type { Surroundings } from '#cluster/surroundings.ts'
import type { BlocksBody, Span } from '#cluster/wire/forms.ts'

import type { BlockCaller, FetchedRange } from './block-caller.ts'
import { type Disks, diskTarget, inOrder } from './disk-choice.ts'
import { Codes } from './span-encoding.ts'
import { type LostBlock, SpansLostError } from './spans-lost.ts'
import { type BlockRange, readUnit, type UnitBytes } from './unit-read.ts'

/** Of a block, at once: the disk streams, and pieces of several blocks and units lie in memory. */
const FETCH_BYTES = 1 << 20
/** On their way or ready, beyond what is being given out. */
const AHEAD_BYTES = 32 << 20
/** A disk that takes longer is busy or worse; asking others costs no more than what it was asked for. */
const HEDGE_MS = 500
const FETCH_MS = 20_000
/** For which a disk that was slow or away is asked last, and a block that was bad. */
const SUSPECT_MS = 10_000
const SUSPECTS_MAX = 10_000
/** For how long is tried what processes do not answer. */
const PATIENCE_MS = 15_000
const PAUSE_MS = 100
const PAUSE_MS_MAX = 2000
const ZEROS_BYTES = 256 * 1024
const ZEROS = Buffer.alloc(ZEROS_BYTES)

export interface SpanReaderOptions {
  readonly surroundings: Surroundings
  readonly blocks: Pick<BlockCaller, 'fetch' | 'bytesUnderWay'> & Partial<Pick<BlockCaller, 'memory'>>
  readonly disks: Disks
  /** Where this client is. */
  readonly location: string
  readonly fetchBytes?: number
  readonly aheadBytes?: number
  readonly hedgeMs?: number
  readonly patienceMs?: number
}

/** Where the spans of a file come from. */
export interface SpanSource {
  readonly file: InodeId
  /** From the span on that has the byte at `offset`. */
  spansFrom(offset: number, signal?: AbortSignal): Promise<SpanPage>
}

export interface SpanPage {
  /** Of the file. */
  readonly size: number
  readonly spans: readonly Span[]
  readonly isLast: boolean
}

/** Consecutive bytes of one span that are read at once. */
interface Unit {
  readonly span: Span
  /** Within the span. */
  readonly offset: number
  readonly length: number
}

interface Started {
  readonly length: number
  readonly unit: Promise<UnitBytes>
}

export class SpanReader {
  readonly #options: SpanReaderOptions
  readonly #codes = new Codes()
  /** Until when, by the monotonic clock. */
  readonly #suspectDisks = new Map<DiskId, number>()
  readonly #suspectBlocks = new Map<BlockId, number>()

  constructor(options: SpanReaderOptions) {
    this.#options = options
  }

  /**
   * `length` bytes of a file from `offset` on, or those that there are, in order. A buffer is good until the next one is asked for: its
   * memory is used again. What is not taken is not read, but for what is read ahead.
   * @throws SPANS_LOST (`SpansLostError`), ABORTED, and what the source throws
   */
  async *read(source: SpanSource, offset: number, length: number, signal?: AbortSignal): AsyncGenerator<Buffer> {
    const ended = new AbortController()
    const both = signal === undefined ? ended.signal : AbortSignal.any([signal, ended.signal])
    const units = this.#unitsOf(source, offset, length, both)
    const { aheadBytes = AHEAD_BYTES } = this.#options
    const started: Started[] = []
    let ahead = 0
    let isEnd = false
    try {
      for (;;) {
        while (!isEnd && (started.length === 0 || ahead < aheadBytes)) {
          const next = await units.next()
          if (next.done === true) {
            isEnd = true
            break
          }
          const unit = this.#readPatiently(source, next.value, both)
          // It is waited for later; until then its failure must not count as one that nobody heard of.
          unit.catch(() => undefined)
          started.push({ length: next.value.length, unit })
          ahead += next.value.length
        }
        const first = started.shift()
        if (first === undefined) return
        const { buffers, release } = await first.unit
        try {
          yield* buffers
        } finally {
          release()
        }
        ahead -= first.length
      }
    } finally {
      ended.abort()
      for (const { unit } of started) void unit.then(({ release }) => release()).catch(() => undefined)
    }
  }

  /** What of a file lies in a span, in buffers of their own; asks for no other spans where they are lost. @throws SPANS_LOST, ABORTED */
  async readSpan(file: InodeId, span: Span, offset: number, length: number, signal?: AbortSignal): Promise<Buffer[]> {
    const buffers: Buffer[] = []
    for (const unit of this.#cut(file, span, offset, length)) {
      const found = await this.#readUnit(file, unit, signal)
      buffers.push(...found.buffers.map((buffer) => Buffer.from(buffer)))
      found.release()
    }
    return buffers
  }

  async *#unitsOf(source: SpanSource, offset: number, length: number, signal: AbortSignal): AsyncGenerator<Unit> {
    let at = offset
    let end = offset + length
    while (at < end) {
      const { size, spans, isLast } = await source.spansFrom(at, signal)
      end = Math.min(end, size)
      for (const span of spans) {
        if (at >= end) return
        if (span.offset > at || span.offset + span.size <= at) throw gap(source.file, at)
        const within = at - span.offset
        const here = Math.min(end, span.offset + span.size) - at
        yield* this.#cut(source.file, span, within, here)
        at += here
      }
      if (at < end && (isLast || spans.length === 0)) throw gap(source.file, at)
    }
  }

  /** The range in units: whole stripes, as many as a fetch is to take. */
  *#cut(file: InodeId, span: Span, offset: number, length: number): Generator<Unit> {
    const end = offset + length
    const { fetchBytes = FETCH_BYTES } = this.#options
    const { blocks } = span
    // Each cell is checked as it is read: that the cells are the span follows from their checksums alone.
    if (blocks !== undefined && length === span.size) checkRecord(file, span, blocks)
    const rowBytes = blocks === undefined ? span.size : blocks.data * blocks.cellBytes
    const unitBytes =
      blocks === undefined ? rowBytes : rowBytes * Math.max(1, Math.floor(fetchBytes / blocks.cellBytes))
    for (let at = offset; at < end;) {
      const next = Math.min(end, (Math.floor(at / unitBytes) + 1) * unitBytes)
      yield { span, offset: at, length: next - at }
      at = next
    }
  }

  async #readPatiently(source: SpanSource, unit: Unit, signal: AbortSignal): Promise<UnitBytes> {
    const { surroundings, disks, patienceMs = PATIENCE_MS } = this.#options
    const { clock } = surroundings
    const endsAt = clock.monotonicMs() + patienceMs
    let now = unit
    for (let pauseMs = PAUSE_MS; ; pauseMs = Math.min(PAUSE_MS_MAX, pauseMs * 2)) {
      try {
        return await this.#readUnit(source.file, now, signal)
      } catch (error) {
        if (!(error instanceof SpansLostError)) throw error
        const { spans } = await source.spansFrom(unit.span.offset, signal)
        const span = spans.find(({ offset, size, crc }) => {
          return offset === unit.span.offset && size === unit.span.size && crc === unit.span.crc
        })
        if (span === undefined) throw error
        const isMoved = !hasSameBlocks(span, now.span)
        if (!isMoved && (!error.isTemporary || clock.monotonicMs() >= endsAt)) throw error
        now = { ...unit, span }
        await disks.refresh()
        if (!isMoved) await this.#pause(pauseMs, signal)
      }
    }
  }

  async #readUnit(file: InodeId, { span, offset, length }: Unit, signal: AbortSignal | undefined): Promise<UnitBytes> {
    checkAborted('read a span', signal)
    if (span.blocks === undefined)
      return kept(span.inline === undefined ? zeros(length) : inlineBytes(file, span, offset, length))
    const layout = layoutOf(file, span, span.blocks)
    return this.#readBlocks(file, span, span.blocks, layout, { offset, length }, signal)
  }

  async #readBlocks(
    file: InodeId,
    span: Span,
    body: BlocksBody,
    layout: SpanLayout,
    { offset, length }: { readonly offset: number; readonly length: number },
    signal: AbortSignal | undefined,
  ): Promise<UnitBytes> {
    const { surroundings, blocks, disks, location, hedgeMs = HEDGE_MS } = this.#options
    const candidates = body.blocks.map(({ disk, block }, index) => {
      const known = disks.find(disk)
      const isSuspect = this.#isSuspect(disk, block)
      return { index, disk: known, isSuspect, busyBytes: known === undefined ? 0 : blocks.bytesUnderWay(known.address) }
    })
    const order = inOrder(candidates, layout.data, location)
    const found = await readUnit(
      {
        layout,
        cells: body.blocks.map((block) => block.cells),
        code: layout.data > 1 ? this.#codes.of(layout) : undefined,
        clock: surroundings.clock,
        memory: blocks.memory,
        hedgeMs,
        order: order.map(({ index }) => index),
        fetch: (index, range, given) => this.#fetch(body, index, range, given),
        onBad: (index, why) => this.#suspect(body, index, why),
        signal,
      },
      offset,
      length,
    )
    if ('buffers' in found) return found
    const lost = [...found.failures].flatMap(([index, why]): LostBlock[] => {
      const of = body.blocks[index]
      if (of === undefined) return []
      return [{ index, disk: of.disk, domain: disks.find(of.disk)?.domain, block: of.block, why }]
    })
    const detail = `of its ${layout.data + layout.parity} blocks, ${layout.data} are needed, and ${lost.length} are missing or bad`
    throw new SpansLostError(file, span.offset, lost, detail)
  }

  /** A range of a block, in as many fetches as it takes. */
  async #fetch(body: BlocksBody, index: number, { low, high }: BlockRange, signal: AbortSignal): Promise<FetchedRange> {
    const of = body.blocks[index]
    assert(of !== undefined, 'a block is one of its span')
    const target = diskTarget(this.#options.disks, of.disk)
    const options = { deadlineMs: FETCH_MS, signal }
    const fetches: Promise<FetchedRange>[] = []
    for (let offset = low; offset < high; offset += FETCH_BYTES_MAX) {
      const length = Math.min(FETCH_BYTES_MAX, high - offset)
      fetches.push(this.#options.blocks.fetch(target, { disk: of.disk, block: of.block, offset, length }, options))
    }
    const [only] = fetches
    if (fetches.length === 1 && only !== undefined) return only
    try {
      const replies = await Promise.all(fetches)
      const pages = replies.flatMap((reply) => reply.pages)
      const outcome = pages.length === 0 ? 'whole' : 'bad'
      return { outcome, bytes: Buffer.concat(replies.map(({ bytes }) => bytes)), pages }
    } finally {
      for (const fetch of fetches) void fetch.then((reply) => reply.release?.()).catch(() => undefined)
    }
  }

  #suspect(body: BlocksBody, index: number, why: 'slow' | OperationError): void {
    const of = body.blocks[index]
    if (of === undefined) return
    const until = this.#options.surroundings.clock.monotonicMs() + SUSPECT_MS
    const isOfDisk = why === 'slow' || why.retry === 'backoff' || isOperationError(why, 'DISK_FAILED', 'DISK_NOT_FOUND')
    if (isOfDisk) this.#suspectDisks.set(of.disk, until)
    else this.#suspectBlocks.set(of.block, until)
    // Whom it concerns is found out again.
    if (this.#suspectBlocks.size > SUSPECTS_MAX) this.#suspectBlocks.clear()
  }

  #isSuspect(disk: DiskId, block: BlockId): boolean {
    const now = this.#options.surroundings.clock.monotonicMs()
    return (this.#suspectDisks.get(disk) ?? 0) > now || (this.#suspectBlocks.get(block) ?? 0) > now
  }

  async #pause(ms: number, signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const cancel = this.#options.surroundings.clock.after(ms, resolve)
    try {
      await untilAborted('read a span', promise, signal)
    } finally {
      cancel()
    }
  }
}

/** All of what is read, in one buffer of its own. */
export async function gathered(buffers: AsyncIterable<Buffer>): Promise<Buffer> {
  const copies: Buffer[] = []
  for await (const buffer of buffers) copies.push(Buffer.from(buffer))
  return Buffer.concat(copies)
}

function layoutOf(file: InodeId, { offset, size }: Span, body: BlocksBody): SpanLayout {
  const { data, parity, stripes, cellBytes, blocks } = body
  const blockBytes = stripes * cellBytes
  const paddingBytes = data * blockBytes - size
  const isSound =
    paddingBytes >= 0 &&
    blocks.length === data + parity &&
    blocks.every(({ cells }) => cells.length === stripes) &&
    (data === 1 || parity > 0)
  if (!isSound) throw new SpansLostError(file, offset, [], 'its record contradicts itself')
  return { bytes: size, data, parity, stripes, cellBytes, blockBytes, paddingBytes }
}

function checkRecord(file: InodeId, span: Span, body: BlocksBody): void {
  const cells = body.blocks.map((block) => block.cells)
  if (spanCrc(layoutOf(file, span, body), cells) === span.crc) return
  throw new SpansLostError(file, span.offset, [], 'its checksum is not that of its cells')
}

function inlineBytes(file: InodeId, span: Span, offset: number, length: number): Buffer[] {
  const { inline = Buffer.alloc(0), size, crc } = span
  if (inline.length > size || crc32cZeros(crc32c(inline), size - inline.length) !== crc) {
    throw new SpansLostError(file, span.offset, [], 'its bytes do not fit its checksum')
  }
  const bytes = inline.subarray(offset, offset + length)
  return [...(bytes.length === 0 ? [] : [bytes]), ...zeros(length - bytes.length)]
}

/** Of buffers that are never used for anything else. */
function kept(buffers: readonly Buffer[]): UnitBytes {
  return { buffers, release: () => undefined }
}

/** All of them the same ones. */
function zeros(length: number): Buffer[] {
  const buffers: Buffer[] = []
  for (let left = length; left > 0; left -= ZEROS_BYTES) buffers.push(ZEROS.subarray(0, Math.min(left, ZEROS_BYTES)))
  return buffers
}

function hasSameBlocks(a: Span, b: Span): boolean {
  const ids = ({ blocks }: Span): string => (blocks?.blocks ?? []).map(({ disk, block }) => `${disk}/${block}`).join()
  return ids(a) === ids(b)
}

function gap(file: InodeId, at: number): OperationError {
  return new OperationError('WIRE_MALFORMED', `Cannot read ${shownInode(file)}: none of its spans has byte ${at}`)
}
