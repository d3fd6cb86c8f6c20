/**
 * The mount against Debian's s3fs and rclone on one bucket, and against what limits it: npm run bench -- mount [SCENARIO…]
 * [--latency none]. The bucket is behind a proxy that is as far away as a bucket of the same region, or behind one that only
 * counts. Every ratio is of figures of one run, one after the other; more than 1 is better than the best peer.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { unmountFuse } from '#os/fuse-unmount.ts'
import { mounts } from '#os/mount-table.ts'
import { FarBucket, type Latency } from './mount/far-bucket.ts'
import { READING } from './mount/reading.ts'
import { SERVING } from './mount/serving.ts'
import { WRITING } from './mount/writing.ts'
import type { BenchRow, BenchTable } from './table.ts'

const SCENARIOS = [...READING, ...WRITING, ...SERVING]

export async function run(words: readonly string[]): Promise<BenchTable> {
  const { latency, chosen } = choose(words)
  const scratch = mkdtempSync(join(tmpdir(), 'eider-bench-mount-'))
  const clear = async (): Promise<void> => {
    for (const { directory } of mounts()) {
      if (directory.startsWith(`${scratch}/`)) await unmountFuse(directory, { lazy: true })
    }
    rmSync(scratch, { recursive: true, force: true })
  }
  process.once('SIGINT', () => void clear().finally(() => process.exit(1)))
  const bucket = await FarBucket.start(latency)
  const rows: BenchRow[] = []
  try {
    for (const { name, run: runScenario } of chosen) {
      process.stderr.write(`${name} …\n`)
      rows.push(...(await runScenario({ bucket, scratch })))
    }
  } finally {
    bucket.stop()
    await clear()
  }
  return {
    title: `The mount, ${latency === 'none' ? 'no latency' : 'first byte 15 ms, list 60 ms, put 25 ms, 90 MB/s a connection'}`,
    rows,
    notes: [
      '180 s: given up after three minutes. Peers: Debian s3fs and rclone. Ratio: against the better peer, or the limit; over 1 is better. Requests: those of Eider.',
    ],
  }
}

function choose(words: readonly string[]): { latency: Latency; chosen: typeof SCENARIOS } {
  const names: string[] = []
  let latency: Latency = 'default'
  for (let index = 0; index < words.length; index++) {
    const word = words[index] ?? ''
    if (word === '--latency') latency = words[++index] === 'none' ? 'none' : 'default'
    else names.push(word)
  }
  const known = SCENARIOS.map(({ name }) => name)
  const unknown = names.find((name) => !known.includes(name))
  if (unknown !== undefined) throw new Error(`there is no scenario "${unknown}": ${known.join(', ')}`)
  return { latency, chosen: names.length === 0 ? SCENARIOS : SCENARIOS.filter(({ name }) => names.includes(name)) }
}
