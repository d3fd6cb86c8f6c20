/**
 * A cluster of real processes under load, of which one after another is killed by SIGKILL and started again: nothing that was acknowledged is lost, no
 * file has bytes of another, all goes on after the last start, and the directories that are left are without a flaw.
 *
 * For longer: `CHAOS_MS=300000 CHAOS_SEED=7 node --test test/cluster-chaos.test.ts`.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'

import { setLogLevel } from '#base/log.ts'
import { ClusterClient } from '#cluster/client/cluster-client.ts'
import { ClusterFiles } from '#cluster/client/cluster-files.ts'
import { systemSurroundings } from '#cluster/system-surroundings.ts'

import { ChaosWorker } from './cluster-chaos-worker.ts'
import { ClusterProcesses } from './cluster-processes.ts'
import { eider } from './eider-process.ts'

const CHAOS_MS = Number(process.env['CHAOS_MS'] ?? 20_000)
const SEED = Number(process.env['CHAOS_SEED'] ?? 1)
const WORKERS = 6
const DISKS = 5
/** Directories are made on one shard after the other: both processes have about as many. */
const SPLIT = 15
/** After the last start, in which every worker is to get on. */
const PROCEED_MS = 60_000
const PROCEED_STEPS = 20

/** Whole numbers below a bound, the same for the same seed. */
function chance(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let bits = Math.imul(state ^ (state >>> 15), 1 | state)
    bits = (bits + Math.imul(bits ^ (bits >>> 7), 61 | bits)) ^ bits
    return Math.floor((((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32) * below)
  }
}

test(`survives SIGKILL of any process under load, seed ${SEED}`, { timeout: CHAOS_MS + 240_000 }, async (context) => {
  setLogLevel('error')
  const directory = mkdtempSync(join(tmpdir(), 'eider-chaos-'))
  const below = chance(SEED)
  const cluster = await ClusterProcesses.start(directory, DISKS, SPLIT)
  const clients: ClusterClient[] = []
  const ends = new AbortController()
  try {
    const surroundings = systemSurroundings()
    const workers: ChaosWorker[] = []
    for (let index = 0; index < WORKERS; index++) {
      const client = await ClusterClient.connect({ surroundings, registry: cluster.registry })
      clients.push(client)
      const worker = new ChaosWorker(client, new ClusterFiles(client), `w${index}`, chance(SEED * 1000 + index))
      await worker.prepare()
      workers.push(worker)
    }
    // What a worker finds wrong ends the others, too.
    const working = workers.map(async (worker) => {
      try {
        while (!ends.signal.aborted) await worker.step()
      } catch (error) {
        ends.abort()
        throw error
      }
    })
    const kills = await killOneByOne(cluster, below, ends.signal)
    const before = workers.map(({ totals }) => totals.done)
    const until = performance.now() + PROCEED_MS
    while (!ends.signal.aborted && workers.some(({ totals }, at) => totals.done < (before[at] ?? 0) + PROCEED_STEPS)) {
      assert.ok(performance.now() < until, `all go on: ${JSON.stringify(workers.map(({ totals }) => totals))}`)
      await sleep(50)
    }
    ends.abort()
    for (const end of await Promise.allSettled(working)) if (end.status === 'rejected') throw end.reason
    for (const worker of workers) await worker.verify()
    const sum = (pick: (worker: ChaosWorker) => number): number => workers.reduce((all, each) => all + pick(each), 0)
    const [done, unknown] = [sum(({ totals }) => totals.done), sum(({ totals }) => totals.unknown)]
    const unreadable = sum(({ totals }) => totals.unreadable)
    context.diagnostic(`${kills} kills; ${done} operations, ${unknown} of unknown end, ${unreadable} reads in vain`)
    for (const worker of workers) for (const each of worker.unknown) context.diagnostic(each)
    assert.ok(done > WORKERS * PROCEED_STEPS)
    for (const client of clients.splice(0)) client.close()
    const codes = await cluster.stop()
    assert.deepEqual(new Set(Object.values(codes)), new Set([0]), JSON.stringify(codes))
    const { code, stdout, stderr } = await eider(['fs', 'fsck', '--offline', directory, '--blocks'])
    assert.equal(code, 0, stdout + stderr)
    assert.match(stdout, /^Clean$/m)
  } finally {
    ends.abort()
    for (const client of clients) client.close()
    await cluster.end()
    rmSync(directory, { recursive: true, force: true })
  }
})

/** For as long as the test is to last; every one of them runs in the end. */
async function killOneByOne(
  cluster: ClusterProcesses,
  below: (count: number) => number,
  signal: AbortSignal,
): Promise<number> {
  const until = performance.now() + CHAOS_MS
  let kills = 0
  while (performance.now() < until && !signal.aborted) {
    await sleep(500 + below(1500))
    const first = cluster.names[below(cluster.names.length)] ?? ''
    const second = cluster.names[below(cluster.names.length)] ?? ''
    // Now and then two at once, or all of them.
    const isAll = below(12) === 0
    const some = below(4) === 0 && second !== first ? [first, second] : [first]
    const killed = isAll ? cluster.names : some
    await Promise.all(killed.map((name) => cluster.kill(name)))
    kills += killed.length
    await sleep(below(500))
    await Promise.all(killed.map((name) => cluster.restart(name)))
  }
  return kills
}
