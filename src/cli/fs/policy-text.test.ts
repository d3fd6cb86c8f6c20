/** Policies as words say what policies are, and come back from what they say. */
import assert from 'node:assert/strict'
import { test } from 'node:test'

import fc from 'fast-check'

import { EMPTY_POLICY, type Policy } from '#cluster/wire/forms.ts'

import { policyText, withPolicyText } from './policy-text.ts'

const maybe = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> => fc.option(value, { nil: undefined })
const bytes = fc.integer({ min: 0, max: 2 ** 32 - 1 })
const policies: fc.Arbitrary<Policy> = fc.record({
  history: maybe(
    fc.oneof(
      fc.record({ ageUs: fc.integer({ min: 0, max: 1e12 }).map((ms) => ms * 1000), versions: maybe(fc.nat(1e6)) }),
      fc.record({ ageUs: fc.constant(undefined), versions: fc.nat(1e6) }),
    ),
  ),
  spans: maybe(
    fc.array(fc.record({ bytesMax: bytes, data: fc.integer({ min: 1, max: 15 }), parity: fc.nat(15) }), {
      minLength: 1,
    }),
  ),
  classes: maybe(fc.array(fc.record({ bytesMin: bytes, class: fc.nat(255) }), { minLength: 1 })),
  stripeBytes: maybe(bytes),
  inlineBytesMax: maybe(bytes),
})

test('what a policy says, put on one that says nothing, is that policy', () => {
  fc.assert(
    fc.property(policies, (policy) =>
      assert.deepEqual(withPolicyText(EMPTY_POLICY, policyText(policy)), structuredClone(policy)),
    ),
    { seed: 11, numRuns: 300 },
  )
})

test('words with nothing after them take back what was said, and nothing else', () => {
  const policy = withPolicyText(EMPTY_POLICY, ['history.age=1d', 'history.versions=2', 'inline=1KiB', 'stripe=1MiB'])
  const left = withPolicyText(policy, ['history.age=', 'inline='])
  assert.deepEqual(policyText(left), ['history.versions=2', 'stripe=1MiB'])
  assert.deepEqual(withPolicyText(left, ['history.versions=', 'stripe=']), EMPTY_POLICY)
})
