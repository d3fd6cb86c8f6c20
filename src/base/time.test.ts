/** Points in time, before and after 1970. */
import assert from 'node:assert/strict'
import { test } from 'node:test'

import fc from 'fast-check'

import { AssertionError } from './assert.ts'
import {
  compareTimestamps,
  timestamp,
  timestampFromDecimal,
  timestampFromMs,
  timestampFromNs,
  timestampNow,
  timestampToDecimal,
  timestampToMs,
} from './time.ts'

test('time: milliseconds and nanoseconds before and after 1970', () => {
  assert.deepEqual(timestampFromMs(0), { seconds: 0, nanoseconds: 0 })
  assert.deepEqual(timestampFromMs(1500), { seconds: 1, nanoseconds: 500_000_000 })
  assert.deepEqual(timestampFromMs(-1), { seconds: -1, nanoseconds: 999_000_000 })
  assert.deepEqual(timestampFromMs(-1000), { seconds: -1, nanoseconds: 0 })
  assert.deepEqual(timestampFromMs(1.9), { seconds: 0, nanoseconds: 1_000_000 })
  assert.deepEqual(timestampFromNs(1_234_567_890_987_654_321n), { seconds: 1_234_567_890, nanoseconds: 987_654_321 })
  assert.deepEqual(timestampFromNs(-1n), { seconds: -1, nanoseconds: 999_999_999 })
  assert.deepEqual(timestampFromNs(-1_000_000_000n), { seconds: -1, nanoseconds: 0 })
})

test('time: from milliseconds and back, for every millisecond that Date can hold', () => {
  fc.assert(
    fc.property(fc.integer({ min: -8_640_000_000_000_000, max: 8_640_000_000_000_000 }), (ms) => {
      assert.equal(timestampToMs(timestampFromMs(ms)), ms)
    }),
    { seed: 1 },
  )
})

test('time: from nanoseconds, the parts give the number again and are in range', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), (ns) => {
      const { seconds, nanoseconds } = timestampFromNs(ns)
      assert.ok(nanoseconds >= 0 && nanoseconds < 1_000_000_000)
      assert.equal(BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds), ns)
    }),
    { seed: 2 },
  )
})

test('time: order is that of the nanoseconds', () => {
  const ns = fc.bigInt({ min: -3_000_000_000n, max: 3_000_000_000n })
  fc.assert(
    fc.property(ns, ns, (a, b) => {
      const order = compareTimestamps(timestampFromNs(a), timestampFromNs(b))
      assert.equal(Math.sign(order), a < b ? -1 : a > b ? 1 : 0)
    }),
    { seed: 3 },
  )
})

test('time: parts out of range are a defect of the caller', () => {
  for (const [seconds, nanoseconds] of [
    [0.5, 0],
    [2 ** 53, 0],
    [0, -1],
    [0, 1_000_000_000],
    [0, 0.5],
    [Number.NaN, 0],
  ] as const) {
    assert.throws(() => timestamp(seconds, nanoseconds), AssertionError)
  }
})

test('time: now is now', () => {
  const before = Date.now()
  const now = timestampToMs(timestampNow())
  assert.ok(now >= before && now <= Date.now())
})

test('time: a decimal literal is exact to the nanosecond, before 1970 too', () => {
  for (const [text, seconds, nanoseconds] of [
    ['0', 0, 0],
    ['1763722200.000000001', 1763722200, 1],
    ['1763722200.25', 1763722200, 250_000_000],
    ['-0.5', -1, 500_000_000],
    ['-2', -2, 0],
  ] as const) {
    assert.deepEqual(timestampFromDecimal(text), { seconds, nanoseconds })
    assert.equal(timestampToDecimal({ seconds, nanoseconds }), text)
  }
  assert.deepEqual(timestampFromDecimal('1.0000000019'), { seconds: 1, nanoseconds: 1 })
  for (const text of ['', 'x', '1e9', '.5', '1,5', ' 1']) assert.equal(timestampFromDecimal(text), undefined)
})
