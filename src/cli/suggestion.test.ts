/** What was meant by a misspelled word. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { suggest } from './suggestion.ts'

const WORDS = ['mount', 'unmount', 'doctor', 'serve s3', 'up']

test('a slip is recognised, another word is not', () => {
  assert.equal(suggest('mont', WORDS), 'mount')
  assert.equal(suggest('umount', WORDS), 'unmount')
  assert.equal(suggest('docter', WORDS), 'doctor')
  assert.equal(suggest('elephant', WORDS), undefined)
  assert.equal(suggest('xy', WORDS), undefined)
})
