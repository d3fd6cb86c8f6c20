/** The cluster and the parts it is made of: npm run bench -- cluster [SCENARIO…]. Ratios are of one run; over 1 is better than the peer, or than the limit. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DATA } from './cluster/data.ts'
import { ERASURE } from './cluster/erasure.ts'
import { METADATA } from './cluster/metadata.ts'
import { JOURNAL } from './cluster/journal.ts'
import { START } from './cluster/start.ts'
import type { BenchRow, BenchTable } from './table.ts'

const SCENARIOS = [...ERASURE, ...METADATA, ...JOURNAL, ...DATA, ...START]

/** Runs the benchmark. */
export async function run(words: readonly string[]): Promise<BenchTable> {
  const known = SCENARIOS.map(({ name }) => name)
  const unknown = words.find((word) => !known.includes(word))
  if (unknown !== undefined) throw new Error(`there is no scenario "${unknown}": ${known.join(', ')}`)
  const rows: BenchRow[] = []
  for (const { name, run: runScenario } of SCENARIOS) {
    if (words.length > 0 && !words.includes(name)) continue
    process.stderr.write(`${name} …\n`)
    const scratch = mkdtempSync(join(tmpdir(), 'eider-bench-cluster-'))
    try {
      rows.push(...(await runScenario({ scratch })))
    } finally {
      rmSync(scratch, { recursive: true, force: true })
    }
  }
  return {
    title: 'The cluster',
    rows,
    notes: ['Ratio: against the peer or the limit of the same run; over 1 is better. What is compared runs in turns.'],
  }
}
