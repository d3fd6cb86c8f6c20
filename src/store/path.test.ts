/** Paths of a store: what is refused, and the order. */
import assert from 'node:assert/strict'
import { test } from 'node:test'

import fc from 'fast-check'

import { isOperationError, type ErrorCode } from '#base/errors.ts'

import { checkName, checkPath, compareUtf8, isWithin, joinPath, nameOf, parentOf } from './path.ts'

function codeOf(check: () => void): ErrorCode | undefined {
  try {
    check()
    return undefined
  } catch (error) {
    if (isOperationError(error)) return error.code
    throw error
  }
}

/** Text with the characters that UTF-8 and UTF-16 order differently. */
const text = fc.string({
  unit: fc.oneof(
    fc.constantFrom('a', '/', '0', '\u007f', '\ud7ff', '\ue000', '\uffff', '\u{10000}', '\u{10ffff}'),
    fc.string({ unit: 'binary', minLength: 1, maxLength: 1 }),
  ),
  maxLength: 6,
})

test('path: strings compare as their UTF-8 bytes do', () => {
  fc.assert(
    fc.property(text, text, (a, b) => {
      assert.equal(Math.sign(compareUtf8(a, b)), Buffer.compare(Buffer.from(a), Buffer.from(b)))
    }),
    { seed: 4, numRuns: 5000 },
  )
  assert.ok(compareUtf8('\uffff', '\u{10000}') < 0)
  // Which is not the order of JavaScript.
  assert.deepEqual(['\uffff', '\u{10000}'].toSorted(), ['\u{10000}', '\uffff'])
})

test('path: names that can be held, and those that cannot', () => {
  for (const name of [
    'a',
    '...',
    ' ',
    'a..b',
    '..a',
    '.a',
    '\n',
    '🦆',
    'x'.repeat(255),
    'é'.repeat(127),
    '🦆'.repeat(63),
  ]) {
    assert.equal(
      codeOf(() => checkName(name)),
      undefined,
      JSON.stringify(name),
    )
  }
  for (const name of ['', '.', '..', 'a/b', '/', '\0', 'a\0b', '\ud800', 'a\udc00', '\udc00\ud800']) {
    assert.equal(
      codeOf(() => checkName(name)),
      'STORE_NAME_INVALID',
      JSON.stringify(name),
    )
  }
  for (const name of ['x'.repeat(256), 'é'.repeat(128), '🦆'.repeat(64), '日'.repeat(86)]) {
    assert.equal(
      codeOf(() => checkName(name)),
      'STORE_NAME_TOO_LONG',
    )
  }
})

test('path: the length of a name counts its bytes', () => {
  fc.assert(
    fc.property(fc.constantFrom('x', 'é', '日', '🦆'), fc.integer({ min: 1, max: 300 }), (character, count) => {
      const name = character.repeat(count)
      const expected = Buffer.byteLength(name) <= 255 ? undefined : 'STORE_NAME_TOO_LONG'
      assert.equal(
        codeOf(() => checkName(name)),
        expected,
      )
    }),
    { seed: 5 },
  )
})

test('path: the root, and names joined by single slashes', () => {
  for (const path of ['', 'a', 'a/b', 'a/b/c', '.../..a'])
    assert.equal(
      codeOf(() => checkPath(path)),
      undefined,
      path,
    )
  for (const path of ['/', '/a', 'a/', 'a//b', '.', 'a/.', './a', 'a/../b', '..', 'a/\0']) {
    assert.equal(
      codeOf(() => checkPath(path)),
      'STORE_NAME_INVALID',
      path,
    )
  }
  assert.equal(
    codeOf(() => checkPath(`a/${'x'.repeat(256)}/b`)),
    'STORE_NAME_TOO_LONG',
  )
})

test('path: parents, names and joining undo each other', () => {
  const name = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 4 }).filter((part) => !part.includes('/'))
  fc.assert(
    fc.property(fc.array(name, { minLength: 1, maxLength: 5 }), (parts) => {
      const path = parts.join('/')
      assert.equal(joinPath(parentOf(path), nameOf(path)), path)
      assert.equal(nameOf(path), parts.at(-1))
      assert.ok(isWithin(path, parentOf(path)))
      assert.ok(isWithin(path, path))
      assert.ok(isWithin(path, ''))
      assert.ok(!isWithin(parentOf(path), path))
      assert.ok(!isWithin(`${path}x`, path))
    }),
    { seed: 6 },
  )
  assert.equal(parentOf(''), '')
  assert.equal(nameOf(''), '')
  assert.ok(!isWithin('ab/c', 'a'))
  assert.ok(isWithin('a/b', 'a'))
})
