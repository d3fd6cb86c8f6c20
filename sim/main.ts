/**
 * Runs worlds: `replay` all seeds from one on, or `hunt` through random ones until something fails. A failure is told with its seed, the
 * command that replays it, and what happened last.
 *
 *   npm run sim -- --seed N --count K [--scenario NAME] [--trace]
 *   npm run hunt -- --minutes N [--scenario NAME]
 */
import { randomInt } from 'node:crypto'
import { parseArgs } from 'node:util'

import { setLogLevel } from '#base/log.ts'

import { hashText } from './random.ts'
import { failureReport, replayCommand } from './report.ts'
import { type Outcome, runSeed } from './run-seed.ts'
import type { Scenario } from './scenario.ts'
import { SCENARIOS } from './scenarios.ts'

const USAGE = `usage: npm run sim -- [--seed N] [--count K] [--scenario NAME] [--trace]
       npm run hunt -- [--minutes N] [--scenario NAME]
scenarios: ${SCENARIOS.map(({ name }) => name).join(', ')}
`
/** One in so many hunted seeds is run twice, to find out whether both runs are the same. */
const ONE_IN_TWICE = 16
const SEED_BELOW = 2 ** 32

class UsageError extends Error {}

interface Task {
  readonly isHunt: boolean
  readonly scenarios: readonly Scenario[]
  readonly seed: number
  readonly count: number
  readonly minutes: number
  readonly isTraced: boolean
}

function taskOf(args: string[]): Task {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      seed: { type: 'string', default: '0' },
      count: { type: 'string', default: '1' },
      minutes: { type: 'string', default: '10' },
      scenario: { type: 'string' },
      trace: { type: 'boolean', default: false },
    },
  })
  const scenarios = SCENARIOS.filter(({ name }) => values.scenario === undefined || name === values.scenario)
  if (scenarios.length === 0) throw new UsageError(`There is no scenario "${values.scenario}"`)
  const [verb] = positionals
  if (positionals.length !== 1 || (verb !== 'replay' && verb !== 'hunt')) throw new UsageError('Say replay or hunt')
  return {
    isHunt: verb === 'hunt',
    scenarios,
    seed: number('--seed', values.seed, 0, Number.MAX_SAFE_INTEGER - SEED_BELOW),
    count: number('--count', values.count, 1, SEED_BELOW),
    minutes: number('--minutes', values.minutes, 0, 1e6),
    isTraced: values.trace,
  }
}

function number(option: string, text: string, least: number, most: number): number {
  const value = text.trim() === '' ? NaN : Number(text)
  const isRight = option === '--minutes' ? Number.isFinite(value) : Number.isSafeInteger(value)
  if (!isRight || value < least || value > most) throw new UsageError(`${option} is a number from ${least} to ${most}`)
  return value
}

/** @return whether all of it held */
async function replay({ scenarios, seed, count, isTraced }: Task): Promise<boolean> {
  for (const scenario of scenarios) {
    const sum = new Sum(scenario)
    for (let next = seed; next < seed + count; next++) {
      const outcome = await runSeed(scenario, next, isTraced ? (line) => print(line) : undefined)
      sum.add(outcome)
      if (outcome.failure !== undefined) {
        failureReport(outcome, isTraced).forEach(print)
        return false
      }
    }
    print(sum.inWords())
  }
  return true
}

async function hunt({ scenarios, minutes }: Task): Promise<boolean> {
  const end = performance.now() + minutes * 60_000
  const sums = scenarios.map((scenario) => new Sum(scenario))
  for (let round = 0; performance.now() < end; round++) {
    for (const sum of sums) {
      const seed = randomInt(SEED_BELOW)
      const outcome = await runSeed(sum.scenario, seed)
      sum.add(outcome)
      if (outcome.failure !== undefined) {
        failureReport(outcome, false).forEach(print)
        return false
      }
      if (round % ONE_IN_TWICE !== 0) continue
      const again = await runSeed(sum.scenario, seed)
      if (again.hash !== outcome.hash) {
        print(`Two runs of seed ${seed} of ${sum.scenario.name} differ: ${outcome.hash} and ${again.hash}`)
        print(`compare: ${replayCommand(outcome)} --trace`)
        return false
      }
    }
  }
  for (const sum of sums) print(sum.inWords())
  return true
}

class Sum {
  readonly scenario: Scenario
  #runs = 0
  #events = 0
  #simulatedMs = 0
  #runMs = 0
  #hash = 0

  constructor(scenario: Scenario) {
    this.scenario = scenario
  }

  add({ eventCount, simulatedMs, hash, realMs }: Outcome): void {
    this.#runs++
    this.#events += eventCount
    this.#simulatedMs += simulatedMs
    this.#runMs += realMs
    this.#hash = hashText(this.#hash, hash)
  }

  inWords(): string {
    const seconds = this.#runMs / 1000
    const rate = Math.round(this.#events / Math.max(seconds, 1e-3))
    return (
      `${this.scenario.name}: all held in ${this.#runs} runs, ${(this.#simulatedMs / 3_600_000).toFixed(1)} simulated hours, ` +
      `${this.#events.toLocaleString('en')} events, ${seconds.toFixed(1)} s (${rate.toLocaleString('en')} events a second); ` +
      `trace ${(this.#hash >>> 0).toString(16)}`
    )
  }
}

function print(line: string): void {
  process.stdout.write(`${line}\n`)
}

try {
  const task = taskOf(process.argv.slice(2))
  setLogLevel(task.isTraced ? 'info' : 'silent')
  const held = task.isHunt ? await hunt(task) : await replay(task)
  process.exitCode = held ? 0 : 1
} catch (error) {
  const isUsage = error instanceof UsageError || (error instanceof TypeError && 'code' in error)
  if (!isUsage) throw error
  process.stderr.write(`${error.message}\n${USAGE}`)
  process.exitCode = 2
}
