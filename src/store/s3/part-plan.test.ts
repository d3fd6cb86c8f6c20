import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'

import { isStored, type Segment, type StoredSegment, type Version } from '#store/store.ts'

import { joinSegments, planParts, type PartLimits, type PlannedPart } from './part-plan.ts'

const LIMITS: PartLimits = { bytesMin: 5, sentBytes: 8, copiedBytes: 20, bytesMax: 100, countMax: 1000 }
const VERSION = 'v' as Version
const stored = (offset: number, length: number, path = 'p'): StoredSegment => ({
  path,
  version: VERSION,
  offset,
  length,
})
const local = (offset: number, length: number): Segment => ({ fd: 3, offset, length })

function segmentsOf(parts: readonly PlannedPart[]): Segment[] {
  return joinSegments(parts.flatMap((part) => (part.kind === 'copy' ? [part.from] : part.segments)))
}
function bytesOf(part: PlannedPart): number {
  return part.kind === 'copy' ? part.from.length : part.bytes
}
function sentFromStore(parts: readonly PlannedPart[]): number {
  return parts
    .flatMap((part) => (part.kind === 'send' ? part.segments.filter(isStored) : []))
    .reduce((sum, { length }) => sum + length, 0)
}

/** Segments of an edit: pieces by turns from the store and from here, of several files. */
const edits = fc
  .array(
    fc.record({ here: fc.boolean(), length: fc.integer({ min: 0, max: 40 }), gap: fc.integer({ min: 0, max: 1 }) }),
    {
      maxLength: 8,
    },
  )
  .map((pieces) => {
    let at = 0
    return joinSegments(
      pieces.map(({ here, length, gap }) => {
        at += length + gap
        return here ? local(at - length, length) : stored(at - length, length)
      }),
    )
  })

/** The fewest bytes that can be sent from the store, by trying every way to cut the bytes into copies and the rest. */
function fewest(segments: readonly Segment[], bytesMin: number): number {
  /** Of each byte, the stored run that it is in, or -1. */
  const runs = segments.flatMap((segment, index) =>
    Array.from({ length: segment.length }, () => (isStored(segment) ? index : -1)),
  )
  const size = runs.length
  // costs[at][copied]: with a stretch ending here; copied stretches lie within one run.
  const costs = Array.from({ length: size + 1 }, () => [Infinity, Infinity])
  costs[0] = [0, 0]
  for (let end = 1; end <= size; end++) {
    let fromStore = 0
    for (let start = end - 1; start >= 0; start--) {
      if (runs[start] !== -1) fromStore++
      const isPart = end - start >= bytesMin || end === size
      if (!isPart) continue
      const before = costs[start] as number[]
      const here = costs[end] as number[]
      here[0] = Math.min(here[0] as number, (before[1] as number) + fromStore, (before[0] as number) + fromStore)
      const isOneRun = runs[start] !== -1 && runs.slice(start, end).every((run) => run === runs[start])
      if (isOneRun) here[1] = Math.min(here[1] as number, before[0] as number, before[1] as number)
    }
  }
  return Math.min(...(costs[size] as number[]))
}

describe('the plan of an upload', () => {
  test('a small edit in the middle moves no more than one least part', () => {
    const parts = planParts([stored(0, 60), local(60, 1), stored(61, 60)], LIMITS)
    assert.deepEqual(
      parts.map(({ kind }) => kind),
      ['copy', 'copy', 'copy', 'send', 'copy', 'copy', 'copy'],
    )
    assert.equal(sentFromStore(parts), 4)
  })

  test('what is appended goes as it is, and what is put in front is filled up', () => {
    assert.deepEqual(planParts([stored(0, 15), local(0, 1)], LIMITS), [
      { kind: 'copy', from: stored(0, 15) },
      { kind: 'send', segments: [local(0, 1)], bytes: 1 },
    ])
    assert.deepEqual(planParts([local(0, 1), stored(1, 15)], LIMITS), [
      { kind: 'send', segments: [local(0, 1), stored(1, 4)], bytes: 5 },
      { kind: 'copy', from: stored(5, 11) },
    ])
  })

  test('stored pieces that are too short to be parts are sent', () => {
    const parts = planParts([local(0, 5), stored(5, 4), local(9, 5)], LIMITS)
    assert.ok(parts.every(({ kind }) => kind === 'send'))
  })

  test('every plan is the segments in parts that S3 takes', () => {
    fc.assert(
      fc.property(edits, (segments) => {
        const parts = planParts(segments, LIMITS)
        assert.deepEqual(segmentsOf(parts), segments)
        parts.forEach((part, index) => {
          const bytes = bytesOf(part)
          assert.ok(bytes > 0)
          if (index < parts.length - 1) assert.ok(bytes >= LIMITS.bytesMin, `part ${index} has ${bytes} bytes`)
          assert.ok(bytes <= (part.kind === 'copy' ? LIMITS.copiedBytes : LIMITS.sentBytes + LIMITS.bytesMin))
        })
      }),
      { seed: 1, numRuns: 2000 },
    )
  })

  test('no plan sends more stored bytes than it has to', () => {
    fc.assert(
      fc.property(edits, (segments) => {
        assert.equal(sentFromStore(planParts(segments, LIMITS)), fewest(segments, LIMITS.bytesMin))
      }),
      { seed: 2, numRuns: 500 },
    )
  })

  test('where there would be too many parts, they become larger', () => {
    fc.assert(
      fc.property(edits, fc.integer({ min: 4, max: 12 }), (segments, countMax) => {
        const parts = planParts(segments, { ...LIMITS, countMax })
        assert.ok(parts.length <= countMax)
        assert.deepEqual(segmentsOf(parts), segments)
        for (const part of parts) assert.ok(bytesOf(part) <= LIMITS.bytesMax)
        for (const part of parts.slice(0, -1)) assert.ok(bytesOf(part) >= LIMITS.bytesMin)
      }),
      { seed: 3, numRuns: 1000 },
    )
  })

  test('ten thousand edits of a file of the largest size are planned', () => {
    const gib = 2 ** 30
    const limits = {
      bytesMin: 5 * 2 ** 20,
      sentBytes: 8 * 2 ** 20,
      copiedBytes: gib / 4,
      bytesMax: 5 * gib,
      countMax: 10_000,
    }
    const segments = Array.from({ length: 10_000 }, (_, index) => [
      stored(index * 5 * gib, 5 * gib - 4096),
      local((index + 1) * 5 * gib - 4096, 4096),
    ]).flat()
    const parts = planParts(segments, limits)
    assert.ok(parts.length <= 10_000)
    assert.deepEqual(segmentsOf(parts), segments)
  })
})
