/** Bytes and holes in pieces: whatever they are cut into, what comes out is what went in. */
import assert from 'node:assert/strict'
import { test } from 'node:test'

import fc from 'fast-check'

import { makeInodeId } from '#cluster/inode-id.ts'
import { type Span, SPAN_BYTES_MAX } from '#cluster/wire/forms.ts'

import { HOLE_BYTES_MIN, isHole, type Piece, PieceQueue, readPieces } from './pieces.ts'
import type { SpanPage, SpanReader, SpanSource } from './span-reader.ts'

/** Gives each piece in the same memory, as sources may. */
async function* given(pieces: readonly Piece[]): AsyncGenerator<Piece> {
  const memory = Buffer.alloc(64)
  for (const piece of pieces) {
    if (isHole(piece)) yield piece
    else {
      memory.set(piece)
      yield memory.subarray(0, piece.length)
      memory.fill(0xee)
    }
  }
}

/** Holes as what they stand for. */
function bytesOf(pieces: readonly Piece[]): Buffer {
  return Buffer.concat(pieces.map((piece) => (isHole(piece) ? Buffer.alloc(piece.zeros) : piece)))
}

const PIECE: fc.Arbitrary<Piece> = fc.oneof(
  { weight: 3, arbitrary: fc.uint8Array({ maxLength: 64 }) },
  { weight: 1, arbitrary: fc.record({ zeros: fc.integer({ min: 1, max: 40 }) }) },
)

test('what is taken in portions of any size is what was given', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(PIECE, { maxLength: 12 }), fc.nat(200), fc.integer({ min: 1, max: 70 }), check),
    { seed: 12, numRuns: 1000 },
  )
})

async function check(pieces: Piece[], wholeMax: number, portion: number): Promise<void> {
  const queue = new PieceQueue(given(pieces))
  const all = bytesOf(pieces)
  const whole = await queue.whole(wholeMax)
  if (whole !== undefined) {
    assert.ok(!pieces.some(isHole) && all.length <= wholeMax)
    assert.deepEqual(whole, all)
    return
  }
  assert.ok(pieces.some(isHole) || all.length > wholeMax)
  const taken: Piece[] = []
  for (let next = await queue.next(); next !== undefined; next = await queue.next()) {
    if (next === 'hole') taken.push({ zeros: queue.takeHole() })
    else {
      const memory = Buffer.alloc(portion)
      const count = await queue.fill(memory)
      assert.ok(count > 0)
      taken.push(memory.subarray(0, count))
    }
  }
  assert.deepEqual(bytesOf(taken), all)
  assert.equal(queue.taken, all.length)
  const holes = (of: readonly Piece[]): number[] => of.filter(isHole).map(({ zeros }) => zeros)
  assert.deepEqual(holes(taken), holes(pieces))
}

test('a hole that is larger than a span is taken in several', async () => {
  const queue = new PieceQueue(given([{ zeros: 2 * SPAN_BYTES_MAX + 5 }]))
  assert.equal(await queue.whole(100), undefined)
  const sizes: number[] = []
  while ((await queue.next()) === 'hole') sizes.push(queue.takeHole())
  assert.deepEqual(sizes, [SPAN_BYTES_MAX, SPAN_BYTES_MAX, 5])
})

const FILE = makeInodeId('file', 0, 1)

/** Spans of such sizes one after the other, with bytes or without. */
function spansOf(forms: readonly { readonly size: number; readonly isEmpty: boolean }[]): Span[] {
  let end = 0
  return forms.map(({ size, isEmpty }) => {
    const offset = end
    end += size
    const inline = isEmpty ? undefined : Buffer.from([1])
    return { offset, size, crc: 0, inline, blocks: undefined, isCertified: true }
  })
}

/** The spans in pages of so many; counts how often it is asked. */
class Pages implements SpanSource {
  readonly file = FILE
  asked = 0
  readonly spans: readonly Span[]
  readonly #perPage: number

  constructor(spans: readonly Span[], perPage: number) {
    this.spans = spans
    this.#perPage = perPage
  }

  get size(): number {
    return this.spans.reduce((sum, span) => sum + span.size, 0)
  }

  async spansFrom(offset: number): Promise<SpanPage> {
    this.asked++
    const rest = this.spans.filter((span) => span.offset + span.size > offset)
    return { size: this.size, spans: rest.slice(0, this.#perPage), isLast: rest.length <= this.#perPage }
  }
}

/** Reads as the real one asks: the spans of the range from its start; gives how many bytes each has, twice where they are asked for anew. */
function readerOf(isPatient: boolean): Pick<SpanReader, 'read'> {
  return {
    async *read(source, offset, length) {
      for (let at = offset; at < offset + length;) {
        const { spans } = await source.spansFrom(at)
        const [first] = spans
        assert.ok(first !== undefined && first.offset <= at && at < first.offset + first.size)
        // The second time it is what the shard says by then.
        if (isPatient) assert.ok((await source.spansFrom(at)).spans.length > 0)
        const end = Math.min(offset + length, first.offset + first.size)
        yield Buffer.alloc(end - at, 1)
        at = end
      }
    },
  }
}

test('a file comes in order, its large holes as such, with no page asked for twice unless it has to be', async () => {
  const form = fc.record({ size: fc.constantFrom(1, 500, HOLE_BYTES_MIN, 2 * HOLE_BYTES_MIN), isEmpty: fc.boolean() })
  await fc.assert(
    fc.asyncProperty(fc.array(form, { maxLength: 12 }), fc.integer({ min: 1, max: 5 }), async (forms, perPage) => {
      const pages = new Pages(spansOf(forms), perPage)
      let at = 0
      for await (const piece of readPieces(readerOf(false), pages)) {
        const span = pages.spans.find(({ offset, size }) => offset <= at && at < offset + size)
        assert.ok(span !== undefined)
        const isLargeHole = span.inline === undefined && span.size >= HOLE_BYTES_MIN
        assert.equal(isHole(piece), isLargeHole)
        at += isHole(piece) ? piece.zeros : piece.length
      }
      assert.equal(at, pages.size)
      let patient = 0
      for await (const piece of readPieces(readerOf(true), pages)) patient += isHole(piece) ? piece.zeros : piece.length
      assert.equal(patient, pages.size)
    }),
    { seed: 13, numRuns: 500 },
  )
  const pages = new Pages(
    spansOf(Array.from({ length: 10 }, (_, index) => ({ size: 100_000, isEmpty: index % 2 === 0 }))),
    5,
  )
  for await (const _ of readPieces(readerOf(false), pages));
  assert.equal(pages.asked, 2)
})

test('a file whose spans end before it does, or have a gap, is refused', async () => {
  const whole = spansOf([
    { size: 70_000, isEmpty: true },
    { size: 5, isEmpty: false },
    { size: 70_000, isEmpty: true },
  ])
  for (const missing of [0, 1, 2]) {
    const spans = whole.filter((_, index) => index !== missing)
    const source = { file: FILE, spansFrom: async () => ({ size: 140_005, spans, isLast: true }) }
    await assert.rejects(
      async () => {
        for await (const _ of readPieces(readerOf(false), source));
      },
      { code: 'WIRE_MALFORMED' },
    )
  }
})
