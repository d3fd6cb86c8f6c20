import assert from 'node:assert/strict'
import { test } from 'node:test'

import { acknowledgedSurvives } from './acknowledged-survives.ts'

test('what was acknowledged must be there, just once; what was not may be there or not', () => {
  acknowledgedSurvives(['a', 'b'], ['b', 'a', 'c'])
  acknowledgedSurvives([], [])
  assert.throws(() => acknowledgedSurvives(['a', 'b'], ['a']), { message: 'b was acknowledged and is not there' })
  assert.throws(() => acknowledgedSurvives(['a'], ['a', 'c', 'c']), { message: 'c is there 2 times' })
})
