/** Programmer errors. */
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { assert as holds, AssertionError, assertNever } from './assert.ts'

test('assert: passes what holds, and says what must hold', () => {
  holds(true, 'never seen')
  holds('text', 'never seen')
  for (const value of [false, 0, '', null, undefined]) {
    assert.throws(
      () => holds(value, 'the number is even'),
      (error: unknown) => error instanceof AssertionError && error.message.includes('the number is even'),
    )
  }
})

test('assert: a case that types rule out fails when it is reached all the same', () => {
  assert.throws(() => assertNever({ kind: 'new' } as never), AssertionError)
  assert.throws(() => assertNever({ kind: 'new' } as never), /new/)
})
