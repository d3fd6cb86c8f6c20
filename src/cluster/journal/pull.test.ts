import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import { MemoryState } from './memory-state.ts'
import { RangePull } from './pull.ts'

describe('RangePull', () => {
  for (const count of [0, 1, 63, 64, 65, 128, 129, 500]) {
    test(`gives ${count} pairs in order and from the end, and then none`, async () => {
      const state = new MemoryState()
      const keys = Array.from({ length: count }, (_, at) => `k${String(at).padStart(3, '0')}`)
      await state.commit(
        [...keys, 'j', 'l'].map((key) => [key, Buffer.from(key)] as const),
        1,
      )
      for (const isBackwards of [false, true]) {
        const pull = new RangePull(state, 'k', 'l', isBackwards)
        const found: string[] = []
        for (let pair = pull.peek(); pair !== undefined; pair = pull.peek()) {
          found.push(pair.key)
          pull.advance()
        }
        assert.deepEqual(found, isBackwards ? keys.toReversed() : keys)
        assert.equal(pull.peek(), undefined)
      }
    })
  }
})
