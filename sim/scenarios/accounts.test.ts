import assert from 'node:assert/strict'
import { test } from 'node:test'

import { firstFailure, testScenario } from '#sim/scenario-suite.ts'

import { accounts, type BankDefect } from './accounts.ts'

const SEEDS_MAX = 300

testScenario(accounts())

const DEFECTS: Record<BankDefect, RegExp> = {
  'tells what is not durable': /Order \d+ was that of number \d+, and now it is that of \d+/,
  'does a request again': /is there \d times/,
}

for (const [defect, complaint] of Object.entries(DEFECTS) as [BankDefect, RegExp][]) {
  test(`a bank that ${defect} is found`, async () => {
    const found = await firstFailure(accounts(defect), SEEDS_MAX)
    assert.match(String(found?.failure), complaint)
  })
}
