/** The table of errors, and how errors are told apart. */
import assert from 'node:assert/strict'
import { constants } from 'node:os'
import { test } from 'node:test'

import { ERRNO } from './errno.ts'
import { ERRORS, errnoOf, isOperationError, OperationError, type ErrorCode } from './errors.ts'

test('errors: every errno is that of Linux', () => {
  const known: Readonly<Record<string, number>> = constants.errno
  for (const [name, number] of Object.entries(ERRNO)) {
    // Node does not name the three that only Linux has.
    if (name in known) assert.equal(number, known[name], name)
    else assert.ok(['ENODEV', 'EDQUOT', 'ESTALE', 'EOVERFLOW'].includes(name), `${name} is checked by hand`)
  }
})

test('errors: every row can be shown to a user and answered over HTTP', () => {
  for (const [code, row] of Object.entries(ERRORS)) {
    assert.match(code, /^[A-Z][A-Z0-9_]*$/)
    assert.ok(row.status >= 400 && row.status <= 599, code)
    assert.match(row.meaning, /^[A-Z].*\.$/, `meaning of ${code}`)
    assert.match(row.hint, /^[A-Z].*\.$/, `hint of ${code}`)
  }
})

test('errors: an operating error carries its row and its cause', () => {
  const cause = new Error('socket closed')
  const error = new OperationError('STORE_THROTTLED', 'Cannot put "a": busy', { cause })
  assert.equal(error.code, 'STORE_THROTTLED')
  assert.equal(error.message, 'Cannot put "a": busy')
  assert.equal(error.cause, cause)
  assert.equal(error.errno, 5)
  assert.equal(error.status, 503)
  assert.equal(error.retry, 'backoff')
  assert.equal(error.hint, ERRORS.STORE_THROTTLED.hint)
})

test('errors: told apart by code', () => {
  const error: unknown = new OperationError('STORE_NOT_FOUND', 'Cannot stat "a": nothing is there')
  assert.ok(isOperationError(error))
  assert.ok(isOperationError(error, 'STORE_CONFLICT', 'STORE_NOT_FOUND'))
  assert.ok(!isOperationError(error, 'STORE_CONFLICT'))
  for (const other of [new Error('x'), undefined, 'STORE_NOT_FOUND', { code: 'STORE_NOT_FOUND' }]) {
    assert.ok(!isOperationError(other))
  }
})

test('errors: the errno that FUSE answers with', () => {
  const errnoOfCode = (code: ErrorCode): number => errnoOf(new OperationError(code, 'x'))
  assert.equal(errnoOfCode('STORE_NOT_FOUND'), 2)
  assert.equal(errnoOfCode('STORE_NOT_EMPTY'), 39)
  assert.equal(errnoOfCode('STORE_CONFLICT'), 116)
  assert.equal(errnoOf(new DOMException('gone', 'AbortError')), 4)
  assert.equal(errnoOf(new TypeError('a defect')), 5)
  assert.equal(errnoOf(undefined), 5)
})

test('a hint of its own stands for that of the table, and is in no log', () => {
  assert.equal(new OperationError('USAGE', 'x').hint, ERRORS.USAGE.hint)
  const own = new OperationError('USAGE', 'x', { hint: 'Do this.' })
  assert.equal(own.hint, 'Do this.')
  assert.ok(!Object.keys(own).includes('hint'))
})
