/**
 * The inner loop: format, lint with the import directions, types, dead code, generated pages, rules for files, unit
 * tests. Prints a line a step and the output of those that failed; ends with 1 if any did.
 */
import { spawn } from 'node:child_process'
import { globSync } from 'node:fs'
import { join } from 'node:path'
import { brokenFileRules } from './file-rules.ts'

interface Outcome {
  readonly name: string
  readonly ok: boolean
  readonly seconds: number
  readonly output: string
}

const BIN = 'node_modules/.bin'
/** The tests take the longest, so they begin first. */
const STEPS: readonly (readonly [name: string, run: () => Promise<{ ok: boolean; output: string }>])[] = [
  [
    'unit tests',
    () =>
      command(process.execPath, [
        '--test',
        '--test-concurrency=2',
        '--test-timeout=60000',
        '--test-reporter=dot',
        ...globSync(['src/**/*.test.ts', 'sim/**/*.test.ts']),
      ]),
  ],
  ['format', () => command(join(BIN, 'oxfmt'), ['--check'])],
  ['lint', () => command(join(BIN, 'oxlint'), ['--format=unix'])],
  ['types', () => command(join(BIN, 'tsc'), [])],
  ['dead code', () => command(join(BIN, 'knip'), [])],
  ['generated pages', () => command(process.execPath, ['scripts/docs.ts', '--check'])],
  ['file rules', () => Promise.resolve(fileRules())],
]
/** Tests and tools side by side keep two cores busy; the tools are one or two seconds each. */
const LANES = 2

function command(program: string, args: readonly string[]): Promise<{ ok: boolean; output: string }> {
  return new Promise((resolve) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()))
    child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()))
    child.on('error', (error) => resolve({ ok: false, output: `${output}${error.message}\n` }))
    child.on('close', (code) => resolve({ ok: code === 0, output }))
  })
}

function fileRules(): { ok: boolean; output: string } {
  const broken = brokenFileRules()
  return { ok: broken.length === 0, output: broken.map((line) => `${line}\n`).join('') }
}

const outcomes: Outcome[] = []
const queue = [...STEPS]
async function lane(): Promise<void> {
  for (let step = queue.shift(); step !== undefined; step = queue.shift()) {
    const [name, run] = step
    const begin = performance.now()
    const { ok, output } = await run()
    outcomes.push({ name, ok, output, seconds: (performance.now() - begin) / 1000 })
  }
}

const begin = performance.now()
await Promise.all(Array.from({ length: LANES }, lane))
for (const { name, ok, output } of outcomes) {
  if (!ok) process.stdout.write(`\n── ${name} ──\n${output.trimEnd()}\n`)
}
process.stdout.write('\n')
for (const [name] of STEPS) {
  const outcome = outcomes.find((candidate) => candidate.name === name)
  const seconds = (outcome?.seconds ?? 0).toFixed(1).padStart(6)
  process.stdout.write(`${outcome?.ok ? 'ok    ' : 'FAILED'} ${name.padEnd(16)} ${seconds} s\n`)
}
process.stdout.write(
  `${' '.repeat(6)} ${'all'.padEnd(16)} ${((performance.now() - begin) / 1000).toFixed(1).padStart(6)} s\n`,
)
process.exitCode = outcomes.every(({ ok }) => ok) ? 0 : 1
