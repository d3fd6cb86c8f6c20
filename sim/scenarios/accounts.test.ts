import assert from 'node:assert/strict'
import { test } from 'node:test'

import { type Outcome, runSeed } from '#sim/run-seed.ts'

import { accounts, type BankDefect } from './accounts.ts'

const SEEDS_MAX = 300

const DEFECTS: Record<BankDefect, RegExp> = {
  'tells what is not durable': /Order \d+ was that of number \d+, and now it is that of \d+/,
  'does a request again': /is there \d times/,
}

for (const [defect, complaint] of Object.entries(DEFECTS) as [BankDefect, RegExp][]) {
  test(`a bank that ${defect} is found`, async () => {
    let found: Outcome | undefined
    for (let seed = 0; seed < SEEDS_MAX && found?.failure === undefined; seed++) {
      found = await runSeed(accounts(defect), seed)
    }
    assert.match(String(found?.failure), complaint)
  })
}
