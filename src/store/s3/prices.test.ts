import assert from 'node:assert/strict'
import { test } from 'node:test'

import { estimatedCostUsd, type RequestCount } from './prices.ts'

const count = (operation: string, requests: number, outcome = 'ok'): RequestCount => ({
  ...{ operation, outcome, count: requests },
})
const near = (found: number, expected: number): void => assert.ok(Math.abs(found - expected) < 1e-9, String(found))

test('requests cost by what they do: changes and listings, looks, and removals nothing', () => {
  near(estimatedCostUsd([count('PutObject', 1000)]), 0.005)
  near(estimatedCostUsd([count('ListObjectsV2', 2000)]), 0.01)
  near(estimatedCostUsd([count('GetObject', 1000), count('HeadObject', 1000)]), 0.0008)
  near(estimatedCostUsd([count('DeleteObject', 1e6), count('DeleteObjects', 1e6)]), 0)
  near(estimatedCostUsd([]), 0)
})

test('a request that the server refused costs, and one that it did not serve does not', () => {
  near(estimatedCostUsd([count('HeadObject', 1000, 'STORE_NOT_FOUND')]), 0.0004)
  near(estimatedCostUsd([count('PutObject', 1000, 'STORE_CONFLICT')]), 0.005)
  near(estimatedCostUsd([count('PutObject', 1000, 'STORE_THROTTLED'), count('PutObject', 9, 'STORE_UNAVAILABLE')]), 0)
})

test('a storage class has its own prices; one that is not known has those of the standard', () => {
  near(estimatedCostUsd([count('GetObject', 1000)], 'STANDARD_IA'), 0.001)
  near(estimatedCostUsd([count('GetObject', 1000)], 'constructor'), 0.0004)
  near(estimatedCostUsd([count('SomethingNew', 1000)], 'TAPE'), 0.0004)
})
