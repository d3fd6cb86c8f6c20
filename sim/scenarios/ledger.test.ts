import assert from 'node:assert/strict'
import { test } from 'node:test'

import { runSeed } from '#sim/run-seed.ts'
import { firstFailure, testScenario } from '#sim/scenario-suite.ts'

import { type Defect, ledger } from './ledger.ts'

const SEEDS_MAX = 60

testScenario(ledger())

const DEFECTS: Record<Defect, RegExp> = {
  'answers before durable': /was acknowledged and is not there/,
  'does a request again': /is there \d times/,
  'never asks again': /work after the faults did not end/,
  'forgets its clients': /is there \d times/,
}

for (const [defect, complaint] of Object.entries(DEFECTS) as [Defect, RegExp][]) {
  test(`a server that ${defect} is found, and its seed fails again in the same way`, async () => {
    const found = await firstFailure(ledger(defect), SEEDS_MAX)
    assert.match(String(found?.failure), complaint)
    assert.ok(found !== undefined)
    const again = await runSeed(ledger(defect), found.seed)
    assert.equal(again.hash, found.hash)
    assert.deepEqual(again.lastLines, found.lastLines)
    assert.equal(String(again.failure), String(found.failure))
  })
}
