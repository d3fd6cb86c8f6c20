/**
 * `eider sync` against Debian's rsync, rclone, s3cmd, awscli and lsyncd: npm run bench -- sync [SCENARIO…]. What is compared runs in
 * turns within one run, so that whatever else the machine does hits both; a ratio over 1 is better than the peer, or than the
 * limit. The bundle is what runs, as in an installed package. A peer that is not installed is said to be so in its row.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { COPYING } from './sync/copying.ts'
import { endPrograms } from './sync/programs.ts'
import { UNCHANGED } from './sync/unchanged.ts'
import { WATCHING } from './sync/watching.ts'
import type { BenchRow, BenchTable } from './table.ts'

const SIGNALS = ['SIGINT', 'SIGTERM'] as const
const SCENARIOS = [...UNCHANGED, ...COPYING, ...WATCHING]

/** Runs the benchmark. */
export async function run(words: readonly string[]): Promise<BenchTable> {
  const known = SCENARIOS.map(({ name }) => name)
  const unknown = words.find((word) => !known.includes(word))
  if (unknown !== undefined) throw new Error(`there is no scenario "${unknown}": ${known.join(', ')}`)
  const chosen = words.length === 0 ? SCENARIOS : SCENARIOS.filter(({ name }) => words.includes(name))
  const built = spawnSync('npm', ['run', '-s', 'build'], { stdio: ['ignore', 'ignore', 'inherit'] })
  if (built.status !== 0) throw new Error('Cannot build the bundle')
  const rows: BenchRow[] = []
  for (const { name, run: runScenario } of chosen) {
    process.stderr.write(`${name} …\n`)
    const scratch = mkdtempSync(join(tmpdir(), 'eider-bench-sync-'))
    const clear = (): void => {
      endPrograms()
      // What was killed just now may still be ending a call that makes a file.
      rmSync(scratch, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 })
    }
    const interrupted = (): void => {
      clear()
      process.exit(1)
    }
    for (const signal of SIGNALS) process.once(signal, interrupted)
    try {
      rows.push(...(await runScenario({ scratch })))
    } finally {
      clear()
      for (const signal of SIGNALS) process.off(signal, interrupted)
    }
  }
  return {
    title: 'A directory kept equal to another, or to a bucket',
    rows,
    notes: [
      'Ratio: against the peer or the limit of the same run; over 1 is better. Medians where there are rounds; what is compared runs in turns.',
      'The bucket is a gateway over a directory in memory. Each file that Eider sends is durable when it counts as sent; files of rsync and lsyncd are not.',
    ],
  }
}
