/** Range sets against a plain set of numbers. */
import assert from 'node:assert/strict'
import { test } from 'node:test'

import fc from 'fast-check'

import { RangeSet } from './ranges.ts'

const SEED = 7_041_776
const SPAN = 40

const change = fc.record({ adds: fc.boolean(), start: fc.nat(SPAN), length: fc.nat(12) })

test('a range set has the bytes that were added and not deleted since, in as few ranges as can be', () => {
  fc.assert(
    fc.property(fc.array(change, { maxLength: 40 }), fc.nat(SPAN), fc.nat(12), (changes, from, length) => {
      const set = new RangeSet()
      const model = new Set<number>()
      for (const { adds, start, length: count } of changes) {
        if (adds) set.add(start, start + count)
        else set.delete(start, start + count)
        for (let byte = start; byte < start + count; byte++) {
          if (adds) model.add(byte)
          else model.delete(byte)
        }
      }
      const ranges = [...set.within(0, Infinity)]
      const bytes = ranges.flatMap(({ start, end }) => Array.from({ length: end - start }, (_, index) => start + index))
      assert.deepEqual(
        bytes,
        [...model].toSorted((a, b) => a - b),
      )
      for (const [index, { start, end }] of ranges.entries()) {
        assert.ok(end > start)
        assert.ok(index === 0 || start > (ranges[index - 1]?.end ?? -1), 'ranges that touch are one')
      }
      assert.equal(set.bytes, model.size)
      assert.equal(set.isEmpty, model.size === 0)
      const to = from + length
      const asked = Array.from({ length }, (_, index) => from + index)
      assert.equal(
        set.covers(from, to),
        asked.every((byte) => model.has(byte)),
      )
      assert.equal(
        set.meets(from, to),
        asked.some((byte) => model.has(byte)),
      )
      const inGaps = new Set<number>()
      for (const gap of set.gaps(from, to)) for (let byte = gap.start; byte < gap.end; byte++) inGaps.add(byte)
      assert.deepEqual(
        [...inGaps],
        asked.filter((byte) => !model.has(byte)),
      )
    }),
    { seed: SEED, numRuns: 2000 },
  )
})

test('what is written from start to end stays one range', () => {
  const set = new RangeSet()
  for (let at = 0; at < 1000; at++) set.add(at * 10, at * 10 + 10)
  assert.deepEqual([...set.within(0, Infinity)], [{ start: 0, end: 10_000 }])
})
