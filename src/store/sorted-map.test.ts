/** The sorted map against a plain one. */
import assert from 'node:assert/strict'
import { test } from 'node:test'

import fc from 'fast-check'

import { compareUtf8 } from './path.ts'
import { SortedMap } from './sorted-map.ts'

test('sorted map: behaves as a map whose keys are sorted afresh each time', () => {
  const anyKey = fc.string({ unit: fc.constantFrom('a', 'b', '/', '0', '\uffee', '\u{10348}'), maxLength: 4 })
  const step = fc.record({ kind: fc.constantFrom('set', 'set', 'delete', 'seek'), key: anyKey, value: fc.nat() })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const sorted = new SortedMap<number>()
      const plain = new Map<string, number>()
      for (const { kind, key, value } of steps) {
        if (kind === 'set') {
          sorted.set(key, value)
          plain.set(key, value)
        } else if (kind === 'delete') {
          assert.equal(sorted.delete(key), plain.delete(key))
        }
        const keys = [...plain.keys()].toSorted(compareUtf8)
        assert.equal(sorted.size, keys.length)
        assert.equal(sorted.get(key), plain.get(key))
        assert.equal(
          sorted.ceiling(key),
          keys.find((other) => compareUtf8(other, key) >= 0),
        )
        assert.equal(
          sorted.higher(key),
          keys.find((other) => compareUtf8(other, key) > 0),
        )
      }
    }),
    { seed: 9 },
  )
})

test('sorted map: 20,000 keys in any order are walked in order, also after half of them are gone', () => {
  const sorted = new SortedMap<number>()
  const keys = Array.from({ length: 20_000 }, (_, index) => `key-${(index * 7919) % 20_000}`)
  keys.forEach((key, index) => sorted.set(key, index))
  const walk = (): string[] => {
    const walked: string[] = []
    for (let key = sorted.ceiling(''); key !== undefined; key = sorted.higher(key)) walked.push(key)
    return walked
  }
  assert.deepEqual(walk(), keys.toSorted(compareUtf8))
  const kept = keys.filter((_, index) => index % 2 === 0)
  keys.forEach((key, index) => index % 2 === 1 && sorted.delete(key))
  assert.deepEqual(walk(), kept.toSorted(compareUtf8))
})
