/** Times as people write them, to the microsecond, and back. */
import assert from 'node:assert/strict'
import { test } from 'node:test'

import fc from 'fast-check'

import { isOperationError } from '#base/errors.ts'

import { parseTime, shownTime } from './time.ts'

const NOW = 1_800_000_000_000_000

for (const [text, expected] of [
  ['1795285516681124', 1_795_285_516_681_124],
  ['0', 0],
  ['now', NOW],
  ['10 minutes ago', NOW - 600e6],
  ['1h', NOW - 3600e6],
  ['1.5 days', NOW - 129_600e6],
  ['250ms', NOW - 250_000],
  ['2026-01-31T18:30:00Z', Date.UTC(2026, 0, 31, 18, 30) * 1000],
  ['2026-01-31 18:30:00.123456Z', Date.UTC(2026, 0, 31, 18, 30) * 1000 + 123_456],
  ['2026-01-31T18:30+02:00', Date.UTC(2026, 0, 31, 16, 30) * 1000],
  ['1969-07-20 20:17Z', 0],
  ['9007199254740991', Number.MAX_SAFE_INTEGER],
  ['2026-01-31', new Date(2026, 0, 31).getTime() * 1000],
  ['2026-01-31 18:30', new Date(2026, 0, 31, 18, 30).getTime() * 1000],
] as const) {
  test(`"${text}" is a time`, () => assert.equal(parseTime(text, NOW), expected))
}

for (const text of [
  '',
  'yesterday',
  '5',
  '2026-13-01',
  '2026-01-31 25:00',
  '5 parsecs ago',
  '-3',
  '1e9',
  '9007199254740992',
  '9999999999999999',
]) {
  test(`"${text}" is none${text === '5' ? ' but five microseconds after the beginning' : ''}`, () => {
    if (text === '5') assert.equal(parseTime(text, NOW), 5)
    else
      assert.throws(
        () => parseTime(text, NOW),
        (error) => isOperationError(error, 'USAGE'),
      )
  })
}

test('a time that is shown is read as the same', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 4e15 }), (us) => assert.equal(parseTime(shownTime(us)), us)),
    { seed: 7, numRuns: 500 },
  )
})
