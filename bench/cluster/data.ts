/**
 * The way of data: a GiB at 4+2 through six block services, in the client's process and in six of their own, against dd and cat of the
 * same bytes on the same disk. Reads begin with an empty page cache where that can be had (root), as do those of the peer.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { accessSync, constants, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { inTurns, median, type Run, type Scenario, rowOf } from '#bench/sync/row.ts'
import type { BenchRow } from '#bench/table.ts'
import type { Command } from './data/client.ts'

const BYTES = 1 << 30
const RAW_BYTES = (BYTES * 6) / 4
const SERVICES = 6
const ROUNDS = 3
/** The limits that the cluster is held to, as shares of the peer. */
const SHARE = { write: 0.5, read: 0.5, degraded: 0.7 } as const
/** Of every span: as many as the parity allows. */
const GONE = [0, 2]
const DROP_CACHES = '/proc/sys/vm/drop_caches'

interface Figures {
  readonly seconds: number
  readonly cpuSeconds: number
}

/** The measured client, in a process of its own. */
class Client {
  readonly #child: ChildProcess
  readonly #lines: AsyncIterator<string>

  private constructor(child: ChildProcess, lines: AsyncIterator<string>) {
    this.#child = child
    this.#lines = lines
  }

  static async start(how: 'one' | 'each', directories: readonly string[]): Promise<Client> {
    const client = new URL('data/client.ts', import.meta.url).pathname
    const env = { ...process.env, UV_THREADPOOL_SIZE: '16' }
    const child = spawn(process.execPath, [client, how, ...directories], { stdio: ['pipe', 'pipe', 'inherit'], env })
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    await lines.next()
    return new Client(child, lines)
  }

  async ask(command: Command): Promise<unknown> {
    this.#child.stdin?.write(`${JSON.stringify(command)}\n`)
    const { value, done } = await this.#lines.next()
    if (done === true) throw new Error('The measured client has ended')
    return JSON.parse(value)
  }

  async figures(command: Command): Promise<Figures> {
    return (await this.ask(command)) as Figures
  }

  async end(): Promise<void> {
    const ended = once(this.#child, 'exit')
    this.#child.stdin?.end()
    await ended
  }
}

const isRoot = ((): boolean => {
  try {
    accessSync(DROP_CACHES, constants.W_OK)
    return true
  } catch {
    return false
  }
})()

function dropCaches(): void {
  if (!isRoot) return
  execFileSync('sync')
  writeFileSync(DROP_CACHES, '3')
}

function secondsOf(work: () => void): number {
  const begun = performance.now()
  work()
  return (performance.now() - begun) / 1000
}

/** As `dd` writes the same raw bytes, with a sync at the end. */
function written(scratch: string): number {
  const path = join(scratch, 'dd')
  const seconds = secondsOf(() => {
    const count = `count=${RAW_BYTES / 2 ** 20}`
    execFileSync('dd', ['if=/dev/zero', `of=${path}`, 'bs=1M', count, 'conv=fsync'], { stdio: 'ignore' })
  })
  rmSync(path)
  return seconds
}

async function measured(how: 'one' | 'each', scratch: string): Promise<BenchRow[]> {
  const root = join(scratch, how)
  const directories = Array.from({ length: SERVICES }, (_, index) => join(root, `disk${index}`))
  for (const directory of directories) mkdirSync(directory, { recursive: true })
  const client = await Client.start(how, directories)
  let cpuSeconds = Number.NaN
  const timed = async (command: Command): Promise<number> => {
    const figures = await client.figures(command)
    ;({ cpuSeconds } = figures)
    return figures.seconds
  }
  try {
    const writes = await inTurns(ROUNDS, {
      eider: () => timed({ what: 'write', files: 1, bytes: BYTES }),
      dd: async () => written(scratch),
    })
    const writeCpu = cpuSeconds
    const places = ((await client.ask({ what: 'places' })) as string[][][]).flat()
    const plain = places.flatMap((paths) => paths.slice(0, 4))
    const read = (): Promise<number> => {
      dropCaches()
      return timed({ what: 'read' })
    }
    const reads = await inTurns(ROUNDS, {
      eider: read,
      cat: async () => {
        dropCaches()
        return secondsOf(() => execFileSync('cat', plain, { stdio: ['ignore', 'ignore', 'inherit'] }))
      },
    })
    const readCpu = cpuSeconds
    for (const paths of places) {
      for (const index of GONE) {
        const path = paths[index]
        if (path !== undefined) renameSync(path, `${path}.gone`)
      }
    }
    // The first one finds out what is gone.
    await timed({ what: 'read' })
    const degraded = await inTurns(ROUNDS, { eider: read })
    return rows(how, { writes, reads, degraded: degraded.eider, writeCpu, readCpu, degradedCpu: cpuSeconds })
  } finally {
    await client.end()
    rmSync(root, { recursive: true })
  }
}

interface Found {
  readonly writes: Partial<Record<'eider' | 'dd', readonly number[]>>
  readonly reads: Partial<Record<'eider' | 'cat', readonly number[]>>
  readonly degraded: readonly number[] | undefined
  readonly writeCpu: number
  readonly readCpu: number
  readonly degradedCpu: number
}

function rows(how: 'one' | 'each', found: Found): BenchRow[] {
  const { writes, reads, degraded, writeCpu, readCpu, degradedCpu } = found
  const where = how === 'one' ? 'all in one process' : 'seven processes'
  const healthy = median(reads.eider)
  const facts = { unit: 's', better: 'less' } as const
  const noted = (cpu: number): string => `${cpu.toFixed(2)} s of processor in the client’s process`
  const eider = (figures: readonly number[] | undefined): number => median(figures) ?? Number.NaN
  return [
    rowOf({
      ...{ ...facts, name: `write 1 GiB at 4+2, ${where}`, eider: eider(writes.eider), other: median(writes.dd) },
      ...{ otherName: 'dd, fsync', target: SHARE.write, note: noted(writeCpu) },
    }),
    rowOf({
      ...{ ...facts, name: `read 1 GiB, ${where}`, eider: eider(reads.eider), other: median(reads.cat) },
      ...{ otherName: 'cat', target: SHARE.read, note: noted(readCpu) },
    }),
    rowOf({
      ...{ ...facts, name: `read with 2 blocks of a span gone, ${where}`, eider: eider(degraded), other: healthy },
      ...{ otherName: 'healthy', target: SHARE.degraded, note: noted(degradedCpu) },
    }),
  ]
}

export const DATA: readonly Scenario[] = [
  {
    name: 'data',
    run: async ({ scratch }: Run) => [...(await measured('one', scratch)), ...(await measured('each', scratch))],
  },
]
