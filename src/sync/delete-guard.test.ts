import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import { isOperationError } from '#base/errors.ts'

import { DeleteGuard, type DeleteRules } from './delete-guard.ts'

function guard(rules: Partial<DeleteRules> = {}): DeleteGuard {
  return new DeleteGuard({ isMeant: false, countMax: undefined, percentMax: 50, ...rules })
}

const refused = (error: unknown): boolean => isOperationError(error, 'DELETES_REFUSED')

describe('[S132] the guard of deletes', () => {
  const allows = (count: number, target: number, rules: Partial<DeleteRules> = {}, source = 5): boolean =>
    guard(rules).comparedObjection(count, { source, target }) === undefined

  test('a comparison with an empty source deletes nothing, not even a single entry', () => {
    assert.ok(!allows(1, 1, {}, 0))
    assert.ok(!allows(1, 100, {}, 0))
    assert.ok(allows(1, 1, { isMeant: true }, 0))
  })

  test('a percentage only of more than ten', () => {
    assert.ok(allows(10, 12))
    assert.ok(!allows(11, 12))
    assert.ok(allows(50, 100))
    assert.ok(!allows(51, 100))
    assert.ok(allows(51, 100, { percentMax: 51 }))
    assert.ok(allows(100, 100, { isMeant: true }))
  })

  test('a count, also one of nothing', () => {
    assert.ok(allows(3, 1000, { countMax: 3 }))
    assert.ok(!allows(4, 1000, { countMax: 3 }))
    assert.ok(!allows(1, 1000, { countMax: 0 }))
  })

  test('what a comparison has deleted meanwhile counts', () => {
    const deletes = guard()
    deletes.take(30)
    assert.throws(() => deletes.checkCompared(21, { source: 70, target: 100 }), refused)
    deletes.checkCompared(20, { source: 70, target: 100 })
  })

  test('what goes together counts against what is there, and what was refused is not taken', () => {
    const deletes = guard()
    deletes.begin(100)
    assert.throws(() => deletes.take(51), refused)
    deletes.take(50)
    assert.throws(() => deletes.take(1), refused)
    deletes.begin(50)
    deletes.take(25)
  })

  test('what goes bit by bit adds up, less what comes again', () => {
    const deletes = guard({ countMax: 15 })
    deletes.begin(60)
    deletes.take(10)
    deletes.take(5)
    assert.throws(() => deletes.take(1), refused)
    deletes.added(10)
    deletes.take(10)
    assert.throws(() => deletes.take(1), refused)
  })

  test('files that pass through a directory never add up', () => {
    const deletes = guard()
    deletes.begin(0)
    for (let round = 0; round < 1000; round++) {
      deletes.added(5)
      deletes.take(5)
    }
  })
})
