/** What puts of staged files are made of. */
import assert from 'node:assert/strict'
import { test } from 'node:test'

import fc from 'fast-check'

import { isStored, type Version } from '#store/store.ts'

import { planSegments, type PlannedFile } from './publish-plan.ts'
import { RangeSet } from './ranges.ts'

const SEED = 90_125
const MIB = 1 << 20
const BASE = { path: 'file', version: 'v1' as Version }
const FD = 7

function file(size: number, facts: Partial<PlannedFile>): PlannedFile {
  return { fd: FD, size, baseEnd: size, dirty: new RangeSet(), missing: new RangeSet(), ...facts }
}

test('a small edit of a large file of which nothing is here sends only what was written', () => {
  const dirty = new RangeSet([{ start: 500 * MIB, end: 500 * MIB + 4096 }])
  const missing = new RangeSet(dirty.gaps(0, 1024 * MIB))
  assert.deepEqual(planSegments(file(1024 * MIB, { dirty, missing }), BASE, true), [
    { ...BASE, offset: 0, length: 500 * MIB },
    { fd: FD, offset: 500 * MIB, length: 4096 },
    { ...BASE, offset: 500 * MIB + 4096, length: 524 * MIB - 4096 },
  ])
})

test('what is here goes from here where it is short, or the store moves stored bytes as well', () => {
  const dirty = new RangeSet([{ start: 8 * MIB, end: 9 * MIB }])
  const whole = [{ fd: FD, offset: 0, length: 12 * MIB }]
  assert.deepEqual(planSegments(file(12 * MIB, { dirty }), BASE, true), whole)
  const large = [{ fd: FD, offset: 0, length: 512 * MIB }]
  assert.deepEqual(planSegments(file(512 * MIB, { dirty }), BASE, false), large)
  assert.deepEqual(planSegments(file(512 * MIB, { dirty, baseEnd: 0 }), undefined, true), large)
})

test('an appended file copies what it had, and sends the rest', () => {
  const dirty = new RangeSet([{ start: 100 * MIB, end: 101 * MIB }])
  assert.deepEqual(planSegments(file(101 * MIB, { dirty, baseEnd: 100 * MIB }), BASE, true), [
    { ...BASE, offset: 0, length: 100 * MIB },
    { fd: FD, offset: 100 * MIB, length: MIB },
  ])
})

const ranges = fc.array(
  fc.record({ start: fc.nat(60), length: fc.nat(30) }).map(({ start, length }) => ({ start, end: start + length })),
  { maxLength: 6 },
)

test('segments cover the file once, in order, from where the bytes are', () => {
  fc.assert(
    fc.property(fc.nat(64), fc.nat(64), ranges, ranges, fc.boolean(), (size, cut, written, gone, copies) => {
      const baseEnd = Math.min(size, cut)
      const dirty = new RangeSet(written)
      dirty.delete(size, Infinity)
      dirty.add(baseEnd, size)
      const missing = new RangeSet(gone)
      missing.delete(baseEnd, Infinity)
      for (const { start, end } of dirty.within(0, size)) missing.delete(start, end)
      // In units of MiB, so that some are worth a copy.
      const scaled = (set: RangeSet): RangeSet =>
        new RangeSet([...set.within(0, Infinity)].map(({ start, end }) => ({ start: start * MIB, end: end * MIB })))
      const planned = file(size * MIB, { baseEnd: baseEnd * MIB, dirty: scaled(dirty), missing: scaled(missing) })
      let at = 0
      for (const segment of planSegments(planned, BASE, copies)) {
        assert.equal(segment.offset, at)
        assert.ok(segment.length > 0)
        const end = at + segment.length
        if (isStored(segment)) {
          assert.ok(end <= planned.baseEnd)
          assert.ok(!planned.dirty.meets(at, end), 'what was written comes from here')
        } else {
          assert.ok(!planned.missing.meets(at, end), 'what is missing comes from the store')
        }
        at = end
      }
      assert.equal(at, planned.size)
    }),
    { seed: SEED, numRuns: 2000 },
  )
})
