import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { test } from 'node:test'
import { promisify } from 'node:util'

import { failureReport } from './report.ts'
import { type Outcome, runSeed } from './run-seed.ts'
import type { Scenario } from './scenario.ts'
import { type Defect, ledger } from './scenarios/ledger.ts'

/** Found in a few dozen, in the mean; of what is rarer than that, no gate finds anything. */
const SEEDS_MAX = 60

const execute = promisify(execFile)

async function firstFailure(scenario: Scenario): Promise<Outcome | undefined> {
  for (let seed = 0; seed < SEEDS_MAX; seed++) {
    const outcome = await runSeed(scenario, seed)
    if (outcome.failure !== undefined) return outcome
  }
  return undefined
}

const DEFECTS: Record<Defect, RegExp> = {
  'answers before durable': /was acknowledged and is not there/,
  'does a request again': /is there \d times/,
  'never asks again': /work after the faults did not end/,
  'forgets its clients': /is there \d times/,
}

for (const [defect, complaint] of Object.entries(DEFECTS) as [Defect, RegExp][]) {
  test(`a server that ${defect} is found, and its seed fails again in the same way`, async () => {
    const found = await firstFailure(ledger(defect))
    assert.match(String(found?.failure), complaint)
    assert.ok(found !== undefined)
    const again = await runSeed(ledger(defect), found.seed)
    assert.equal(again.hash, found.hash)
    assert.deepEqual(again.lastLines, found.lastLines)
    assert.equal(String(again.failure), String(found.failure))
  })
}

test('a failure is told with its seed, its faults, what happened last and the command that replays it', async () => {
  const found = await firstFailure(ledger('does a request again'))
  assert.ok(found !== undefined)
  const report = failureReport(found, false)
  const text = report.join('\n')
  assert.ok(text.includes(`replay: npm run sim -- --scenario ledger --seed ${found.seed}`))
  assert.ok(text.includes(`FAILED: seed ${found.seed} of ledger`))
  assert.match(text, /server +gets from client-\d+ \d+\/\d+ "line \d+" \(\d+ bytes\)/)
  assert.ok(report.length > 20 && report.length < 100)
})

test('two runs of a seed are the same, and those of two seeds are not', async () => {
  const lines: string[][] = [[], []]
  for (const run of lines) await runSeed(ledger(), 17, (line) => run.push(line))
  assert.deepEqual(lines[0], lines[1])
  assert.notEqual((await runSeed(ledger(), 18)).hash, (await runSeed(ledger(), 17)).hash)
})

test('seeds run the same in another process', async () => {
  const replay = async (...args: string[]): Promise<string> => {
    const command = ['sim/main.ts', 'replay', '--scenario', 'ledger', '--seed', '100', ...args]
    return (await execute(process.execPath, command)).stdout
  }
  const [first, second] = await Promise.all([replay('--count', '20'), replay('--count', '20')])
  assert.match(first, /ledger: all held in 20 runs/)
  const traceOf = (told: string): string | undefined => /trace [0-9a-f]+$/m.exec(told)?.[0]
  assert.ok(traceOf(first) !== undefined)
  assert.equal(traceOf(first), traceOf(second))

  const traced: string[] = []
  await runSeed(ledger(), 100, (line) => traced.push(line))
  assert.ok((await replay('--trace')).startsWith(`${traced.join('\n')}\n`))
})

test('what is asked of the command wrongly is refused with its usage', async () => {
  for (const args of [
    ['replay', '--seed', 'x'],
    ['replay', '--scenario', 'none'],
    ['dance'],
    ['hunt', '--minuets', '3'],
  ]) {
    await assert.rejects(
      execute(process.execPath, ['sim/main.ts', ...args]),
      (error: Error & { code?: number; stderr?: string }) => {
        assert.equal(error.code, 2)
        return error.stderr?.includes('usage: npm run sim') === true
      },
    )
  }
})
