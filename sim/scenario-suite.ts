/** The tests of each scenario: everything holds in the worlds of the first seeds, and two runs of a world are the same. */
import assert from 'node:assert/strict'
import { before, test } from 'node:test'

import { setLogLevel } from '#base/log.ts'

import { failureReport } from './report.ts'
import { type Outcome, runSeed } from './run-seed.ts'
import type { Scenario } from './scenario.ts'

const SEEDS = 300
const SEEDS_TWICE = 5

export function testScenario(scenario: Scenario): void {
  // What daemons log when they are killed a thousand times helps nobody.
  before(() => setLogLevel('silent'))

  test(`all holds in ${SEEDS} worlds of ${scenario.name}`, async () => {
    const found = await firstFailure(scenario, SEEDS)
    if (found !== undefined) assert.fail(failureReport(found, false).join('\n'))
  })

  test(`two runs of a world of ${scenario.name} are the same`, async () => {
    for (let seed = 0; seed < SEEDS_TWICE; seed++) {
      assert.equal((await runSeed(scenario, seed)).hash, (await runSeed(scenario, seed)).hash)
    }
  })
}

/** For planted defects: of the first so many seeds, the first that finds it. */
export async function firstFailure(scenario: Scenario, seeds: number): Promise<Outcome | undefined> {
  for (let seed = 0; seed < seeds; seed++) {
    const outcome = await runSeed(scenario, seed)
    if (outcome.failure !== undefined) return outcome
  }
  return undefined
}
