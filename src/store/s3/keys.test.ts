import assert from 'node:assert/strict'
import { test } from 'node:test'

import { isOperationError } from '#base/errors.ts'
import { Keys } from './keys.ts'

test('keys of files, directories and the root, with a prefix and without', () => {
  const whole = new Keys('')
  assert.deepEqual([whole.file('a/b'), whole.directory('a/b'), whole.directory('')], ['a/b', 'a/b/', '.'])
  assert.deepEqual([whole.under(''), whole.under('a')], ['', 'a/'])
  const part = new Keys('P/q')
  assert.deepEqual([part.file('a/b'), part.directory('a/b'), part.directory('')], ['P/q/a/b', 'P/q/a/b/', 'P/q/'])
  assert.deepEqual([part.under(''), part.under('a')], ['P/q/', 'P/q/a/'])
})

test('a key has 1,024 bytes at most, with its prefix and the slash of a directory', () => {
  const keys = new Keys('ü')
  assert.equal(keys.pathBytesMax, 1021)
  const path = Array.from({ length: 5 }, () => 'n'.repeat(203)).join('/') + '/n'
  assert.equal(path.length, 1021)
  assert.equal(Buffer.byteLength(keys.file(path)), 1024)
  assert.ok(!keys.directoryFits(path) && keys.directoryFits(path.slice(1)))
  for (const call of [() => keys.directory(path), () => keys.file(`${path}n`), () => keys.file(`é${path.slice(1)}`)]) {
    assert.throws(call, (error) => isOperationError(error, 'STORE_NAME_TOO_LONG'))
  }
})
