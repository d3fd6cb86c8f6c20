/**
 * The bytes of a file as pieces: some that are there, and holes, which are zeros that nobody has to send, keep or write down. So a file that
 * is mostly hole takes as long as what it has besides, on its way in and out.
 */
import { OperationError } from '#base/errors.ts'
import { shownInode } from '#cluster/inode-id.ts'
import { type Span, SPAN_BYTES_MAX } from '#cluster/wire/forms.ts'

import type { SpanReader, SpanSource } from './span-reader.ts'

/** Smaller holes cost more as a span of their own than as bytes. */
export const HOLE_BYTES_MIN = 64 * 1024

export interface Hole {
  /** How many, at least one. */
  readonly zeros: number
}

export type Piece = Uint8Array | Hole

export function isHole(piece: Piece): piece is Hole {
  return !(piece instanceof Uint8Array)
}

/**
 * All of a file, its holes as such. A buffer is good until the next piece is asked for.
 * @throws SPANS_LOST, WIRE_MALFORMED, ABORTED, and what the source throws
 */
export async function* readPieces(
  reader: Pick<SpanReader, 'read'>,
  source: SpanSource,
  signal?: AbortSignal,
): AsyncGenerator<Piece, void, undefined> {
  const { file } = source
  for (let at = 0; ;) {
    const page = await source.spansFrom(at, signal)
    let isFresh = true
    // What has been told is not asked for again, until the reader finds it to be out of date.
    const spansFrom: SpanSource['spansFrom'] = async (offset, abort) => {
      if (!isFresh) return source.spansFrom(offset, abort)
      isFresh = false
      return { ...page, spans: page.spans.filter((span) => span.offset + span.size > offset) }
    }
    for (const run of runsOf(page.spans)) {
      if (run.offset !== at) throw gap(source, at)
      if (run.isHole) yield { zeros: run.size }
      else {
        isFresh = true
        yield* reader.read({ file, spansFrom }, run.offset, run.size, signal)
      }
      at += run.size
    }
    if (at >= page.size) return
    if (page.isLast || page.spans.length === 0) throw gap(source, at)
  }
}

interface Run {
  readonly offset: number
  size: number
  readonly isHole: boolean
}

/** Spans that follow each other and are of one kind. */
function runsOf(spans: readonly Span[]): Run[] {
  const runs: Run[] = []
  for (const { offset, size, inline, blocks } of spans) {
    const isEmpty = inline === undefined && blocks === undefined && size >= HOLE_BYTES_MIN
    const last = runs.at(-1)
    if (last?.isHole === isEmpty && last.offset + last.size === offset) last.size += size
    else runs.push({ offset, size, isHole: isEmpty })
  }
  return runs
}

function gap({ file }: SpanSource, at: number): OperationError {
  return new OperationError('WIRE_MALFORMED', `Cannot read ${shownInode(file)}: none of its spans has byte ${at}`)
}

/** Pieces as one stream, which is taken from in portions of any size. */
export class PieceQueue {
  /** Bytes and zeros that the source gave. */
  taken = 0
  readonly #source: AsyncIterator<Piece>
  /** Taken, and not given out: copies. */
  #kept: Piece[] = []
  #front: Piece = new Uint8Array()

  constructor(source: AsyncIterator<Piece>) {
    this.#source = source
  }

  /** Everything, where that is bytes alone and no more than so many; otherwise all of it is still to be taken. */
  async whole(bytesMax: number): Promise<Buffer | undefined> {
    const chunks: Buffer[] = []
    for (let bytes = 0; bytes <= bytesMax;) {
      const next = await this.#pull()
      if (next === undefined) return Buffer.concat(chunks)
      if (isHole(next)) {
        this.#kept = [...chunks, next]
        return undefined
      }
      // Who gave it may use it again.
      chunks.push(Buffer.from(next))
      bytes += next.length
    }
    this.#kept = chunks
    return undefined
  }

  /** How many bytes are certain to come before the source is asked again. */
  get keptBytes(): number {
    return [this.#front, ...this.#kept].reduce((bytes, piece) => bytes + (isHole(piece) ? 0 : piece.length), 0)
  }

  /** What comes next; nothing at the end. */
  async next(): Promise<'bytes' | 'hole' | undefined> {
    while (!isHole(this.#front) && this.#front.length === 0) {
      const next = this.#kept.shift() ?? (await this.#pull())
      if (next === undefined) return undefined
      this.#front = next
    }
    return isHole(this.#front) ? 'hole' : 'bytes'
  }

  /** Takes the next hole, or so much of it as a span can have: its zeros. */
  takeHole(): number {
    if (!isHole(this.#front)) return 0
    const zeros = Math.min(this.#front.zeros, SPAN_BYTES_MAX)
    this.#front = zeros < this.#front.zeros ? { zeros: this.#front.zeros - zeros } : new Uint8Array()
    return zeros
  }

  /** Fills the memory, or as much of it as there are bytes before the next hole. */
  async fill(into: Uint8Array): Promise<number> {
    let at = 0
    while (at < into.length && (await this.next()) === 'bytes') {
      const front = this.#front
      if (isHole(front)) break
      const part = front.subarray(0, into.length - at)
      into.set(part, at)
      at += part.length
      this.#front = front.subarray(part.length)
    }
    return at
  }

  async #pull(): Promise<Piece | undefined> {
    const next = await this.#source.next()
    if (next.done === true) return undefined
    this.taken += isHole(next.value) ? next.value.zeros : next.value.length
    return next.value
  }
}
