import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { test } from 'node:test'
import { promisify } from 'node:util'

import { failureReport } from './report.ts'
import { runSeed } from './run-seed.ts'
import { firstFailure } from './scenario-suite.ts'
import { ledger } from './scenarios/ledger.ts'

const execute = promisify(execFile)

test('a failure is told with its seed, its faults, what happened last and the command that replays it', async () => {
  const found = await firstFailure(ledger('does a request again'), 30)
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
