/**
 * How long until a mount answers: from the start of `node dist/main.js mount …`, in the background, to its exit; against a
 * bare `node -e 0` of the same run. The store is a bucket of a gateway on this machine, and a directory.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startGateway } from '#gateway/gateway.ts'
import { openStore } from '#store/open-store.ts'
import type { BenchTable } from './table.ts'

const ROUNDS = 9
const TARGET_MS = 600
const KEYS = { accessKey: 'BENCH', secretKey: 'bench-secret-key' }
const BUNDLE = new URL('../dist/main.js', import.meta.url).pathname

export async function run(): Promise<BenchTable> {
  const built = spawnSync('npm', ['run', '-s', 'build'], { stdio: ['ignore', 'ignore', 'inherit'] })
  if (built.status !== 0) throw new Error('Cannot build the bundle')
  const scratch = mkdtempSync(join(tmpdir(), 'eider-bench-'))
  const data = join(scratch, 'data')
  mkdirSync(join(data, 'bucket'), { recursive: true })
  const store = await openStore(data)
  const stagingDirectory = join(scratch, 'uploads')
  const gateway = await startGateway({ store, host: '127.0.0.1', port: 0, ...KEYS, stagingDirectory })
  try {
    const bare = await median(() => timed(['-e', '0']))
    const bucket = `s3://bucket?endpoint=http://127.0.0.1:${gateway.address.port}&region=us-east-1&style=path`
    const rows = []
    for (const [name, url] of [
      ['a bucket', bucket],
      ['a directory', `file://${data}`],
    ] as const) {
      const ms = await median(() => mounted(url, join(scratch, 'mnt')))
      rows.push({
        name: `mount of ${name}`,
        figures: { ms, 'of node -e 0': ms / bare, 'of the target': ms / TARGET_MS },
      })
    }
    return {
      title: 'Start of a mount, from the bundle',
      rows: [{ name: 'node -e 0', figures: { ms: bare, 'of node -e 0': 1 } }, ...rows],
      notes: [
        `Medians of ${ROUNDS}. The command starts a second process for the background, so two starts of Node are in it.`,
      ],
    }
  } finally {
    await gateway.close()
    await store.close()
    rmSync(scratch, { recursive: true, force: true })
  }
}

/** Milliseconds until the program has ended well. Not by spawnSync: the gateway lives in this process. */
async function timed(args: readonly string[]): Promise<number> {
  const begin = performance.now()
  const child = spawn(process.execPath, args, {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, AWS_ACCESS_KEY_ID: KEYS.accessKey, AWS_SECRET_ACCESS_KEY: KEYS.secretKey },
  })
  const [code] = (await once(child, 'exit')) as [number | null]
  if (code !== 0) throw new Error(`${args.join(' ')} ended with ${code}`)
  return performance.now() - begin
}

async function mounted(url: string, directory: string): Promise<number> {
  const ms = await timed([BUNDLE, 'mount', url, directory, '--mkdir', `--log=${directory}.log`])
  await timed([BUNDLE, 'unmount', directory])
  return ms
}

async function median(measure: () => Promise<number>): Promise<number> {
  const figures: number[] = []
  for (let round = 0; round < ROUNDS; round++) figures.push(await measure())
  return figures.toSorted((a, b) => a - b)[Math.floor(ROUNDS / 2)] ?? Number.NaN
}
