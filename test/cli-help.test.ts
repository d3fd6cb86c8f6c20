/** Help is found however it is asked for. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { eider } from './eider-process.ts'

for (const [line, usage] of [
  ['help mount', 'Usage: eider mount STORE DIR'],
  ['help serve s3', 'Usage: eider serve s3 '],
  ['help serve', 'Usage: eider serve s3 '],
  ['serve --help', 'Usage: eider serve s3 '],
  ['serve -h', 'Usage: eider serve s3 '],
  ['help', 'eider '],
] as const) {
  test(`"eider ${line}" explains`, async () => {
    const { code, stdout, stderr } = await eider(line.split(' '))
    assert.equal(code, 0)
    assert.ok(stdout.startsWith(usage), stdout)
    assert.equal(stderr, '')
  })
}

test('help on what does not exist is an error of usage that names the nearest', async () => {
  const { code, stderr } = await eider(['help', 'mout'])
  assert.equal(code, 2)
  assert.match(stderr, /^eider: Cannot run "mout": there is no such command; did you mean mount\?\n/)
})
