/** Modes mean what chmod(1) takes them for, and owners what chown(1) does. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'

import { isOperationError } from '#base/errors.ts'

import { parseMode, parseOwner } from './mode.ts'

for (const [text, mode, isDirectory, expected] of [
  ['640', 0o755, false, 0o640],
  ['4755', 0, false, 0o4755],
  ['u+x', 0o644, false, 0o744],
  ['go-rwx', 0o777, false, 0o700],
  ['a=r', 0o777, false, 0o444],
  ['u=rw,g=u,o=', 0o755, false, 0o660],
  ['o=g', 0o750, false, 0o755],
  ['a+X', 0o644, false, 0o644],
  ['a+X', 0o644, true, 0o755],
  ['a+X', 0o744, false, 0o755],
  ['u+s,g+s,o+t', 0o755, false, 0o7755],
  ['a-s', 0o6755, false, 0o755],
  ['u=rwx', 0o4000, false, 0o4700],
] as const) {
  test(`chmod ${text} makes ${expected.toString(8)} of ${mode.toString(8)}${isDirectory ? ' of a directory' : ''}`, () => {
    assert.equal(parseMode(text)(mode, isDirectory).toString(8), expected.toString(8))
  })
}

for (const text of ['', '8', '77777', 'x', 'u+', 'u+q', 'rw', 'u+x,', 'g=ur']) {
  test(`${JSON.stringify(text)} is no mode`, () => {
    if (text === 'u+') assert.equal(parseMode(text)(0o644, false), 0o644, 'it adds nothing, as with chmod')
    else
      assert.throws(
        () => parseMode(text),
        (error) => isOperationError(error, 'USAGE'),
      )
  })
}

test('owners are numbers, or names of this machine', () => {
  assert.deepEqual(parseOwner('12:34'), { uid: 12, gid: 34 })
  const [user, uid] = firstOf('/etc/passwd')
  const [group, gid] = firstOf('/etc/group')
  assert.deepEqual(parseOwner(user), { uid })
  assert.deepEqual(parseOwner(`:${group}`), { gid })
  assert.deepEqual(parseOwner(`7:${group}`), { uid: 7, gid })
  for (const text of ['', ':', '1:2:3', 'nobody-of-that-name', '4294967295']) {
    assert.throws(
      () => parseOwner(text),
      (error) => isOperationError(error, 'USAGE'),
      text,
    )
  }
})

/** The first whom this machine knows, and the number. */
function firstOf(file: string): [name: string, number: number] {
  const fields = readFileSync(file, 'utf8')
    .split('\n')
    .map((line) => line.split(':'))
    .find((each) => each.length > 2)
  return [fields?.[0] ?? '', Number(fields?.[2])]
}
