import assert from 'node:assert/strict'
import { before, test } from 'node:test'

import { setLogLevel } from '#base/log.ts'

import { failureReport } from './report.ts'
import { runSeed } from './run-seed.ts'
import { SCENARIOS } from './scenarios.ts'

const SEEDS = 300
const SEEDS_TWICE = 5

// What daemons log when they are killed a thousand times helps nobody.
before(() => setLogLevel('silent'))

for (const scenario of SCENARIOS) {
  test(`all holds in ${SEEDS} worlds of ${scenario.name}`, async () => {
    for (let seed = 0; seed < SEEDS; seed++) {
      const outcome = await runSeed(scenario, seed)
      if (outcome.failure !== undefined) assert.fail(failureReport(outcome, false).join('\n'))
    }
  })

  test(`two runs of a world of ${scenario.name} are the same`, async () => {
    for (let seed = 0; seed < SEEDS_TWICE; seed++) {
      assert.equal((await runSeed(scenario, seed)).hash, (await runSeed(scenario, seed)).hash)
    }
  })
}
