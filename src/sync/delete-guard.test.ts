import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import { isOperationError } from '#base/errors.ts'

import { DeleteGuard, type DeleteRules } from './delete-guard.ts'

function guard(total: number, rules: Partial<DeleteRules> = {}): DeleteGuard {
  const made = new DeleteGuard({ isMeant: false, countMax: undefined, percentMax: 50, ...rules })
  made.begin(total)
  return made
}

const refused = (error: unknown): boolean => isOperationError(error, 'DELETES_REFUSED')

describe('[S132] the guard of deletes', () => {
  test('not all that there is, but for a single entry', () => {
    assert.ok(guard(1).allows(1))
    assert.ok(!guard(2).allows(2))
    assert.ok(guard(2).allows(1))
    assert.ok(guard(2, { isMeant: true }).allows(2))
  })

  test('a percentage only of more than ten', () => {
    assert.ok(guard(12).allows(10))
    assert.ok(!guard(12).allows(11))
    assert.ok(guard(100).allows(50))
    assert.ok(!guard(100).allows(51))
    assert.ok(guard(100, { percentMax: 51 }).allows(51))
  })

  test('a count, also one of nothing', () => {
    assert.ok(guard(1000, { countMax: 3 }).allows(3))
    assert.ok(!guard(1000, { countMax: 3 }).allows(4))
    assert.ok(!guard(1000, { countMax: 0 }).allows(1))
  })

  test('what was taken counts until the next comparison; what is refused is not taken', () => {
    const deletes = guard(100)
    deletes.take(30)
    assert.throws(() => deletes.take(21), refused)
    deletes.take(20)
    assert.throws(() => deletes.take(1), refused)
    deletes.begin(50)
    deletes.take(25)
  })

  test('files that come and go, as those of editors, never add up', () => {
    const deletes = guard(2)
    for (let round = 0; round < 1000; round++) {
      deletes.added(1)
      deletes.take(1)
    }
    assert.ok(!deletes.allows(2), 'all that is left is still as many as there are')
  })

  test('nothing is refused before it is known how much there is', () => {
    const deletes = new DeleteGuard({ isMeant: false, countMax: undefined, percentMax: 50 })
    deletes.take(1000)
  })
})
