import assert from 'node:assert/strict'
import { describe, it } from 'node:test'

import fc from 'fast-check'

import { SortedMap } from './sorted-map.ts'

const KEY = fc
  .uint8Array({ minLength: 0, maxLength: 3 })
  .map((bytes) => Buffer.from(bytes.map((byte) => byte & 0xc3)).toString('latin1'))

type Pair = readonly [string, number]

function forward(map: SortedMap<number>, from: string, to: string, count = Infinity): Pair[] {
  const pairs: Pair[] = []
  map.range(from, to, (key, value) => pairs.push([key, value]) < count)
  return pairs
}

function backward(map: SortedMap<number>, from: string, to: string, count = Infinity): Pair[] {
  const pairs: Pair[] = []
  map.rangeBackwards(from, to, (key, value) => pairs.push([key, value]) < count)
  return pairs
}

function expected(model: ReadonlyMap<string, number>, from: string, to: string): Pair[] {
  return [...model]
    .filter(([key]) => key >= from && key < to)
    .toSorted(([a], [b]) => Buffer.compare(Buffer.from(a, 'latin1'), Buffer.from(b, 'latin1')))
}

describe('SortedMap', () => {
  it('is what a map is, and has its keys in the order of their bytes', () => {
    const step = fc.oneof(
      { weight: 20, arbitrary: fc.record({ do: fc.constant('set' as const), key: KEY }) },
      { weight: 8, arbitrary: fc.record({ do: fc.constant('delete' as const), key: KEY }) },
      { weight: 4, arbitrary: fc.record({ do: fc.constant('range' as const), key: KEY, to: KEY }) },
    )
    fc.assert(
      fc.property(fc.array(step, { maxLength: 1500, size: 'max' }), (steps) => {
        const map = new SortedMap<number>()
        const model = new Map<string, number>()
        for (const [index, one] of steps.entries()) {
          if (one.do === 'set') {
            map.set(one.key, index)
            model.set(one.key, index)
          } else if (one.do === 'delete') assert.equal(map.delete(one.key), model.delete(one.key))
          else {
            const pairs = expected(model, one.key, one.to)
            assert.deepEqual(forward(map, one.key, one.to), pairs)
            assert.deepEqual(backward(map, one.key, one.to), pairs.toReversed())
          }
          assert.equal(map.get(one.key), model.get(one.key))
          assert.equal(map.size, model.size)
        }
        const all = expected(model, '', '\xff\xff\xff\xff')
        assert.deepEqual([...map], all)
        assert.deepEqual(backward(map, '', '\xff\xff\xff\xff'), all.toReversed())
      }),
      { seed: 11, numRuns: 60 },
    )
  })

  it('holds keys that come in order, in reverse and by kinds, and empties again', () => {
    const orders: ((index: number) => string)[] = [
      (index) => String(index).padStart(6, '0'),
      (index) => String(99_999 - index).padStart(6, '0'),
      (index) => 'abc'.charAt(index % 3) + String(index).padStart(6, '0'),
    ]
    for (const order of orders) {
      const map = new SortedMap<number>()
      const keys = Array.from({ length: 5000 }, (_, index) => order(index))
      for (const [index, key] of keys.entries()) map.set(key, index)
      assert.deepEqual(
        [...map].map(([key]) => key),
        keys.toSorted(),
      )
      for (const key of keys) assert.equal(map.delete(key), true)
      assert.deepEqual([...map], [])
      map.set('again', 1)
      assert.deepEqual(forward(map, '', 'z'), [['again', 1]])
      map.clear()
      assert.equal(map.size, 0)
      assert.deepEqual(backward(map, '', 'z'), [])
    }
  })

  it('ends a range where it is told to', () => {
    const map = new SortedMap<number>()
    for (let index = 0; index < 1000; index++) map.set(String(index).padStart(4, '0'), index)
    assert.deepEqual(
      forward(map, '0100', '0900', 2).map(([, value]) => value),
      [100, 101],
    )
    assert.deepEqual(
      backward(map, '0100', '0900', 2).map(([, value]) => value),
      [899, 898],
    )
  })

  it('refuses to be changed while a range is read, and takes changes after one that threw', () => {
    const map = new SortedMap<number>()
    map.set('a', 1)
    for (const change of [() => map.set('a', 2), () => map.delete('a'), () => map.clear()]) {
      assert.throws(() => map.range('', 'z', () => (change(), true)), /a map is not changed while/)
      assert.throws(() => map.rangeBackwards('', 'z', () => (change(), true)), /a map is not changed while/)
    }
    map.range('', 'z', () => (assert.equal(map.get('a'), 1), assert.deepEqual(forward(map, '', 'z'), [['a', 1]]), true))
    map.set('a', 3)
    assert.equal(map.get('a'), 3)
  })
})
