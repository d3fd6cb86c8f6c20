/** What the mount's own process is worth: answers to stat against a server in C, and memory under many readers and writers. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { BenchRow } from '#bench/table.ts'
import { unmountFuse } from '#os/fuse-unmount.ts'
import { mountsOf } from '#os/mount-table.ts'
import { peakMemory } from './contenders.ts'
import { type Run, rowOf, type Scenario, withMount, work } from './run.ts'

const SECONDS = 3
const ROUNDS = 3
const MIB = 2 ** 20
const READERS = 64
const WRITERS = 16
const EACH_BYTES = 64 * MIB

async function stats({ scratch }: Run): Promise<BenchRow[]> {
  const server = compiled('stat-server', scratch, ['fuse3'])
  const client = compiled('stat-client', scratch, [])
  const ours = [process.execPath, source('stat-server.ts')]
  const best = { one: { eider: 0, limit: 0 }, many: { eider: 0, limit: 0 } }
  // In turns, as the machine is not the same from one minute to the next.
  for (let round = 0; round < ROUNDS; round++) {
    for (const [side, command] of [
      ['eider', ours],
      ['limit', [server]],
    ] as const) {
      const found = await served(command, scratch, `${side}-${round}`, client)
      best.one[side] = Math.max(best.one[side], found.one)
      best.many[side] = Math.max(best.many[side], found.many)
    }
  }
  const common = { unit: 'a second', against: 'limit', better: 'more' } as const
  return [
    rowOf({ name: 'uncached stat, one after another (C)', ...common, ...best.one, target: 1 / 1.3 }),
    rowOf({
      name: 'uncached stat, 8 processes (120,000)',
      ...common,
      eider: best.many.eider,
      limit: 120_000,
      target: 1,
    }),
    rowOf({ name: 'uncached stat, 8 processes (C)', ...common, ...best.many, target: 0.5 }),
  ]
}

async function served(
  [program = '', ...args]: readonly string[],
  scratch: string,
  name: string,
  client: string,
): Promise<{ one: number; many: number }> {
  const directory = join(scratch, `stat-${name}`)
  mkdirSync(directory)
  const child = spawn(program, [...args, directory, join(scratch, 'stat-staging')], {
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  try {
    while (mountsOf(directory).length === 0) {
      if (child.exitCode !== null) throw new Error(`${name} does not mount`)
      await delay(10)
    }
    const file = join(directory, 'file')
    await rate(client, file, 1, 0.5)
    return { one: await rate(client, file, 1, SECONDS), many: await rate(client, file, 8, SECONDS) }
  } finally {
    await end(child, directory)
  }
}

async function end(child: ChildProcess, directory: string): Promise<void> {
  const exit = child.exitCode === null ? once(child, 'exit') : Promise.resolve()
  if (mountsOf(directory).length > 0) await unmountFuse(directory, { lazy: true })
  await exit
}

async function rate(client: string, file: string, processes: number, seconds: number): Promise<number> {
  const child = spawn(client, [file, String(processes), String(seconds)], {
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: 60_000,
    killSignal: 'SIGKILL',
  })
  return Number(await text(child.stdout))
}

function source(name: string): string {
  return fileURLToPath(import.meta.resolve(`./${name}`))
}

function compiled(name: string, scratch: string, packages: readonly string[]): string {
  const flags = (what: string): string[] =>
    packages.length === 0
      ? []
      : spawnSync('pkg-config', [what, ...packages], { encoding: 'utf8' })
          .stdout.trim()
          .split(/\s+/)
  const output = join(scratch, name)
  const args = ['-O2', ...flags('--cflags'), source(`${name}.c`), '-o', output, ...flags('--libs')]
  if (spawnSync('cc', args, { stdio: ['ignore', 'ignore', 'inherit'] }).status !== 0)
    throw new Error(`Cannot compile ${name}.c`)
  return output
}

async function memory(run: Run): Promise<BenchRow[]> {
  for (let index = 0; index < READERS; index++) run.bucket.lay(`shared/read-${index}`, EACH_BYTES)
  const peak = await withMount(run, 'eider', { eider: ['--memory=256MiB'] }, async ({ directory, pid }) => {
    const before = peakMemory(pid)
    const readers = Array.from({ length: READERS }, (_, index) =>
      work('sequential', join(directory, 'shared', `read-${index}`), MIB),
    )
    const writers = Array.from({ length: WRITERS }, (_, index) =>
      work('write', join(directory, 'shared', `write-${index}`), EACH_BYTES),
    )
    await Promise.all([...readers, ...writers])
    return { before, after: peakMemory(pid) }
  })
  return [
    rowOf({
      name: `${READERS} readers and ${WRITERS} writers under 256 MiB: growth of the peak`,
      unit: 'MiB',
      eider: peak && (peak.after - peak.before) / MIB,
      ...{ limit: 256, against: 'limit', better: 'less', target: 1 },
      requests: peak && `peak ${Math.round(peak.after / MIB)} MiB, ${Math.round(peak.before / MIB)} at the start`,
    }),
  ]
}

export const SERVING: readonly Scenario[] = [
  { name: 'stat', run: stats },
  { name: 'memory', run: memory },
]
