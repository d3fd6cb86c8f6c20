import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import fc from 'fast-check'

import { MemoryState } from './memory-state.ts'
import { RangePull } from './pull.ts'
import type { StateReader } from './state.ts'
import { WorkingBatch, WorkingState } from './working-state.ts'

const KEY = fc.string({ unit: fc.constantFrom('a', 'b', 'c', '\0', '\u00ff'), minLength: 1, maxLength: 3 })

function pairsOf(state: StateReader, from: string, to: string, isBackwards = false, count = Infinity): string[] {
  const found: string[] = []
  const each = (key: string, value: Buffer): boolean => found.push(`${key}=${value.toString()}`) < count
  if (isBackwards) state.rangeBackwards(from, to, each)
  else state.range(from, to, each)
  return found
}

function pulled(state: StateReader, from: string, to: string, isBackwards: boolean): string[] {
  const pull = new RangePull(state, from, to, isBackwards)
  const found: string[] = []
  for (let pair = pull.peek(); pair !== undefined; pair = pull.peek()) {
    assert.equal(pull.peek(), pair, 'what is next stays next')
    found.push(`${pair.key}=${pair.value.toString()}`)
    pull.advance()
  }
  return found
}

function within(model: ReadonlyMap<string, string>, from: string, to: string): string[] {
  const keys = [...model.keys()].filter((key) => key >= from && key < to)
  return keys.toSorted((a, b) => (a < b ? -1 : 1)).map((key) => `${key}=${model.get(key)}`)
}

describe('WorkingState', () => {
  test('[S153] is one map in order, wherever its parts lie: stored, being stored, or changed since', async () => {
    const step = fc.oneof(
      { weight: 10, arbitrary: fc.record({ do: fc.constant('put' as const), key: KEY }) },
      { weight: 5, arbitrary: fc.record({ do: fc.constant('remove' as const), key: KEY }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('freeze' as const, 'melt' as const), key: KEY }) },
      {
        weight: 4,
        arbitrary: fc.record({
          do: fc.constantFrom('range' as const, 'backwards' as const),
          key: KEY,
          to: KEY,
          count: fc.integer({ min: 1, max: 9 }),
        }),
      },
    )
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 300, size: 'max' }), async (steps) => {
        const stored = new MemoryState()
        const state = new WorkingState(stored)
        const model = new Map<string, string>()
        let entry = 0
        for (const each of steps) {
          const batch = new WorkingBatch(state, ++entry)
          if (each.do === 'put') batch.put(each.key, Buffer.from(String(entry)))
          else if (each.do === 'remove') batch.remove(each.key)
          else if (each.do === 'freeze' && !state.isFrozen) state.freeze()
          else if (each.do === 'melt' && state.isFrozen) {
            await stored.commit(state.frozenChanges(), entry)
            state.melt()
          } else if ('to' in each) {
            const expected = within(model, each.key, each.to)
            assert.deepEqual(pairsOf(state, each.key, each.to), expected)
            assert.deepEqual(pairsOf(state, each.key, each.to, true), expected.toReversed())
            assert.deepEqual(pairsOf(state, each.key, each.to, false, each.count), expected.slice(0, each.count))
            assert.deepEqual(
              pulled(state, each.key, each.to, each.do === 'backwards'),
              each.do === 'backwards' ? expected.toReversed() : expected,
            )
          }
          if (each.do === 'put') model.set(each.key, String(entry))
          if (each.do === 'remove') model.delete(each.key)
          assert.equal(state.get(each.key)?.toString(), model.get(each.key))
        }
      }),
      { seed: 153, numRuns: 150 },
    )
  })

  test('long ranges go on where they were left, in all three parts', async () => {
    const stored = new MemoryState()
    const state = new WorkingState(stored)
    const change = (changes: Iterable<readonly [string, Buffer | null]>): void => {
      for (const [key, value] of changes) state.change(key, value, 1)
    }
    const key = (at: number): string => `k${String(at).padStart(4, '0')}`
    const all = Array.from({ length: 1000 }, (_, at) => at)
    change(all.map((at) => [key(at), Buffer.from('1')]))
    state.freeze()
    await stored.commit(state.frozenChanges(), 1)
    state.melt()
    change(all.filter((at) => at % 2 === 0).map((at) => [key(at), Buffer.from('2')]))
    state.freeze()
    change(all.filter((at) => at % 3 === 0).map((at) => [key(at), at % 6 === 0 ? null : Buffer.from('3')]))
    const expected = all
      .filter((at) => at % 6 !== 0)
      .map((at) => `${key(at)}=${at % 3 === 0 ? 3 : at % 2 === 0 ? 2 : 1}`)
    assert.deepEqual(pairsOf(state, 'k', 'l'), expected)
    assert.deepEqual(pairsOf(state, 'k', 'l', true), expected.toReversed())
    assert.deepEqual(pulled(state, 'k', 'l', false), expected)
    assert.deepEqual(pulled(state, 'k', 'l', true), expected.toReversed())
  })

  test('[S152] notes the last entry that a reader has seen something of, what is gone and what is not there any more included', () => {
    const state = new WorkingState(new MemoryState())
    const seen = (read: () => unknown): number => {
      state.seen = 0
      read()
      return state.seen
    }
    state.change('a', Buffer.from('1'), 1)
    state.change('b', Buffer.from('2'), 2)
    state.freeze()
    state.change('c', null, 3)
    state.change('b', Buffer.from('4'), 4)
    assert.equal(
      seen(() => state.get('a')),
      1,
    )
    assert.equal(
      seen(() => state.get('b')),
      4,
    )
    assert.equal(
      seen(() => state.get('c')),
      3,
    )
    assert.equal(
      seen(() => state.get('d')),
      0,
    )
    assert.equal(
      seen(() => pairsOf(state, 'a', 'b')),
      1,
    )
    assert.equal(
      seen(() => pairsOf(state, 'c', 'd')),
      3,
    )
    assert.equal(
      seen(() => pairsOf(state, 'a', 'z')),
      4,
    )
    assert.equal(
      seen(() => pairsOf(state, 'd', 'z')),
      0,
    )
  })
})

describe('WorkingBatch', () => {
  test('is part of the state at once, and says whether it changed it', () => {
    const state = new WorkingState(new MemoryState())
    state.change('a', Buffer.from('1'), 1)
    const batch = new WorkingBatch(state, 2)
    assert.deepEqual(pairsOf(batch, 'a', 'z'), ['a=1'])
    assert.equal(batch.isChanged, false)
    batch.put('a', Buffer.from('2'))
    batch.put('b', Buffer.from('3'))
    batch.remove('b')
    assert.equal(batch.isChanged, true)
    assert.equal(batch.get('a')?.toString(), '2')
    assert.equal(batch.get('b'), undefined)
    assert.equal(state.get('a')?.toString(), '2')
    assert.equal(state.seen, 2)
    assert.throws(() => pairsOf(batch, 'a', 'z'), 'a range would not see its changes')
    assert.throws(() => pairsOf(batch, 'a', 'z', true))
  })
})
