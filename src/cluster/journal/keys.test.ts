import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import fc from 'fast-check'

import { after, numberKey, NUMBER_BYTES, numberOfKey, textKey, textOfKey } from './keys.ts'

const NUMBER = fc.oneof(
  fc.maxSafeNat(),
  fc.nat(),
  fc.nat({ max: 53 }).map((bits) => Math.max(0, 2 ** bits - 1)),
)

describe('keys', () => {
  test('numbers come back, in seven bytes, and their order is that of the numbers', () => {
    const check = (a: number, b: number): void => {
      const [left, right] = [numberKey(a), numberKey(b)]
      assert.equal(left.length, NUMBER_BYTES)
      assert.equal(numberOfKey(`xy${left}z`, 2), a)
      assert.equal(left < right, a < b)
      const bytes = [Buffer.from(left, 'latin1'), Buffer.from(right, 'latin1')] as const
      assert.equal(Math.sign(Buffer.compare(...bytes)), Math.sign(a - b))
    }
    fc.assert(fc.property(NUMBER, NUMBER, check), { seed: 1, numRuns: 2000 })
    for (const edge of [0, 1, 255, 2 ** 28 - 1, 2 ** 28, 2 ** 32, 2 ** 53 - 1]) check(edge, edge + 1)
  })

  test('2^53 ends a range of ids, and nothing beyond is a number in a key', () => {
    assert.ok(numberKey(2 ** 53 - 1) < numberKey(2 ** 53))
    for (const bad of [-1, 0.5, 2 ** 53 + 2, Number.NaN, Infinity]) assert.throws(() => numberKey(bad))
  })

  test('texts come back, and their order is that of their UTF-8', () => {
    const text = fc.string({ unit: 'binary', maxLength: 8 })
    fc.assert(
      fc.property(text, text, (a, b) => {
        assert.equal(textOfKey(textKey(a)), a)
        assert.equal(
          Math.sign(Buffer.compare(Buffer.from(a), Buffer.from(b))),
          textKey(a) < textKey(b) ? -1 : a === b ? 0 : 1,
        )
        // Each character of a key is one byte.
        assert.equal(textKey(a).length, Buffer.byteLength(a))
      }),
      { seed: 2, numRuns: 2000 },
    )
  })

  test('the end of a prefix is the first key after all that begin with it', () => {
    assert.ok(after('ab') > `ab\u00ff\u00ff\u00ff`)
    assert.ok(after('ab') <= 'ac')
    assert.throws(() => after('a\u00ff'))
  })
})
