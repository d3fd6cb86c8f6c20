/** What changes would cost, at the edges where the count changes. */
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { estimatedCostUsd } from '#store/s3/prices.ts'
import { countOf, requestsOf, type Change } from './cost.ts'

const MIB = 1 << 20

test('cost: by kind of change, size and number of entries', () => {
  const cases: readonly (readonly [Change, number])[] = [
    [{ kind: 'put', bytes: 0 }, 1],
    [{ kind: 'put', bytes: 16 * MIB }, 1],
    [{ kind: 'put', bytes: 16 * MIB + 1 }, 2 + 3],
    [{ kind: 'put', bytes: 1024 * MIB }, 2 + 128],
    [{ kind: 'put', bytes: 2 ** 40 }, 2 + 10_000],
    [{ kind: 'symlink', looks: false }, 1],
    [{ kind: 'makeSpecial', looks: true }, 3],
    [{ kind: 'makeDirectory', looks: true }, 4],
    [{ kind: 'makeDirectory', looks: false }, 1],
    [{ kind: 'copy' }, 2],
    [{ kind: 'remove', guarded: true }, 1],
    [{ kind: 'remove', guarded: false }, 2],
    [{ kind: 'removeAll', entries: 1000 }, 1],
    [{ kind: 'removeAll', entries: 1001 }, 2],
    [{ kind: 'rename', entries: 1, directory: false }, 4],
    [{ kind: 'rename', entries: 1, directory: true }, 3 + 2 + 2],
    [{ kind: 'rename', entries: 2500, directory: true }, 3 + 5000 + 6],
    [{ kind: 'exchange', entries: 2 }, 3 + 6 + 4],
  ]
  for (const [change, expected] of cases) assert.equal(countOf(requestsOf(change)), expected, JSON.stringify(change))
})

test('cost: in money what it would be at list prices, by what the requests do', () => {
  const usd = (change: Change): number =>
    estimatedCostUsd(requestsOf(change).map(({ operation, count }) => ({ operation, count, outcome: 'ok' })))
  const [put, look] = [0.005 / 1000, 0.0004 / 1000]
  const cases: readonly (readonly [Change, number])[] = [
    [{ kind: 'put', bytes: 0 }, put],
    [{ kind: 'put', bytes: 80 * MIB }, 12 * put],
    [{ kind: 'remove', guarded: true }, 0],
    [{ kind: 'remove', guarded: false }, look],
    [{ kind: 'removeAll', entries: 5000 }, 0],
    [{ kind: 'rename', entries: 1000, directory: true }, 2 * put + 1000 * (put + look) + put],
  ]
  for (const [change, expected] of cases) {
    assert.ok(Math.abs(usd(change) - expected) < 1e-9, `${JSON.stringify(change)} ${usd(change)}`)
  }
})
