/** How long a whole cluster in one process takes from its start to its word that it is ready, as the bundle runs it, and what memory it has then: new, and with files in it. */
import { spawn, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { join } from 'node:path'
import { inTurns, median, rowOf, type Run, type Scenario } from '#bench/sync/row.ts'
import type { BenchRow } from '#bench/table.ts'

const LAUNCHER = new URL('../../dist/main.js', import.meta.url).pathname
const ROUNDS = 3
const READY_MS_MAX = 2000
const MEMORY_MB_MAX = 150

async function start({ scratch }: Run): Promise<BenchRow[]> {
  const built = spawnSync('npm', ['run', '-s', 'build'], { stdio: ['ignore', 'ignore', 'inherit'] })
  if (built.status !== 0) throw new Error('Cannot build the bundle')
  let made = 0
  const memory: number[] = []
  const readyMs = async (data: string): Promise<number> => {
    const begun = performance.now()
    const words = ['cluster', '--data', data, '--listen', '127.0.0.1:0', '--log', `${data}.log`]
    const env = { ...process.env, UV_THREADPOOL_SIZE: '64' }
    const child = spawn(process.execPath, [LAUNCHER, ...words], { stdio: ['ignore', 'pipe', 'inherit'], env })
    const ended = new Promise((resolve) => child.once('exit', resolve))
    await createInterface({ input: child.stdout })[Symbol.asyncIterator]().next()
    const ms = performance.now() - begun
    const kilobytes = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]
    memory.push(Number(kilobytes) / 1000)
    child.kill('SIGTERM')
    await ended
    return ms
  }
  const figures = await inTurns(ROUNDS, {
    'new, ms': () => readyMs(join(scratch, `cluster-${made++}`)),
    'again, ms': () => readyMs(join(scratch, 'cluster-0')),
  })
  const aim = { otherName: 'aim', better: 'less', target: 1 } as const
  const row = (name: string, unit: string, eider: number | undefined, other: number): BenchRow =>
    rowOf({ ...aim, name, unit, eider: eider ?? Number.NaN, other })
  return [
    row('a whole cluster in one process is ready, new', 'ms', median(figures['new, ms']), READY_MS_MAX),
    row('the same, started again', 'ms', median(figures['again, ms']), READY_MS_MAX),
    row('its resident memory then', 'MB', median(memory), MEMORY_MB_MAX),
  ]
}

export const START: readonly Scenario[] = [{ name: 'start', run: start }]
