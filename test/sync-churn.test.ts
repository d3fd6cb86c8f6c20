/**
 * Churn: a process changes a tree at random while a sync follows it; in the end both are equal by means of their own. CHURN_MS and
 * CHURN_SEED set how long and by which seed; a failure prints the seed.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'

import { makeBucket } from '#test/servers/bucket.ts'
import { errorDocument, type Fault, type Noted, startFaultProxy } from '#test/servers/fault-proxy.ts'
import { startTestGateway } from '#test/servers/gateway.ts'

import { objectDifferences, rsyncDifferences, treeDifferences } from './sync/compare.ts'
import { settled, startSync, type SyncEnd } from './sync/sync-process.ts'

const MS = Number(process.env['CHURN_MS'] ?? 15_000)
const SEED = Number(process.env['CHURN_SEED'] ?? 11)
const CHURN = fileURLToPath(import.meta.resolve('#test/sync/churn-process.ts'))
/** Root without the capability that fanotify needs. */
const WITHOUT_FANOTIFY = ['setpriv', '--bounding-set=-sys_admin', '--inh-caps=-sys_admin']
const isRoot = process.getuid?.() === 0

interface Setup {
  readonly args: (base: string) => readonly string[]
  readonly env?: Readonly<Record<string, string>>
  readonly through?: readonly string[]
  readonly differences: (source: string) => readonly string[] | Promise<readonly string[]>
}

/** Lets the tree be changed while a sync follows it, waits until both are equal, ends it, and compares once more. */
async function churn({ args, env = {}, through = [], differences }: Setup): Promise<SyncEnd> {
  const base = mkdtempSync(join(tmpdir(), 'eider-sync-churn-'))
  const source = join(base, 'source')
  const outside = join(base, 'outside')
  mkdirSync(join(source, 'a0', 'b1'), { recursive: true })
  mkdirSync(outside)
  writeFileSync(join(source, 'a0', 'b1', 'first'), 'first')
  const run = startSync([source, ...args(base), '--state', join(base, 'state')], { env, through })
  try {
    await run.watching()
    const child = spawn(process.execPath, [CHURN, source, outside, String(MS), String(SEED)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let done = ''
    child.stdout.on('data', (text: Buffer) => (done += text.toString()))
    await once(child, 'close')
    assert.ok(Number(done) > 100, 'much was done')
    await settled(() => differences(source))
    const end = await run.stop()
    assert.deepEqual(await differences(source), [], 'nothing was undone after it was equal')
    assert.equal(end.done?.failed, 0, `nothing has failed in the end\n${end.stderr}`)
    return end
  } catch (error) {
    throw new Error(`CHURN_SEED=${SEED} CHURN_MS=${MS}: ${run.stderr.slice(-4000)}`, { cause: error })
  } finally {
    await run.stop('SIGKILL')
    rmSync(base, { recursive: true, force: true })
  }
}

async function churnDirectory(through: readonly string[], kind: string): Promise<void> {
  const target = mkdtempSync(join(tmpdir(), 'eider-sync-target-'))
  try {
    const end = await churn({
      args: () => ['--to', target, '--metadata', '--yes-delete'],
      through,
      differences: (source) => [
        ...rsyncDifferences(source, target),
        ...treeDifferences(source, target, { metadata: true }),
      ],
    })
    const { watcher, renamed = 0 } = end.events.findLast(({ event }) => event === 'done') ?? {}
    assert.equal(watcher?.kind, kind)
    assert.ok(renamed > 0, 'renames were done as such')
  } finally {
    rmSync(target, { recursive: true, force: true })
  }
}

/** Does some harm to so many of a thousand requests, by a seed. */
function harm(perMille: number): (request: Noted) => boolean {
  let state = SEED >>> 0
  return ({ method }) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return method !== 'OPTIONS' && state / 0x1_0000_0000 < perMille / 1000
  }
}

async function churnBucket(faults: readonly (readonly [number, Fault])[]): Promise<void> {
  const gateway = await startTestGateway()
  const proxy = await startFaultProxy(gateway.endpoint)
  try {
    await makeBucket(gateway, 'churn')
    for (const [perMille, fault] of faults) proxy.fault(harm(perMille), fault, Number.POSITIVE_INFINITY)
    await churn({
      args: () => [
        ...['--to', 's3://churn/tree', '--endpoint', proxy.endpoint, '--region', gateway.region, '--style', 'path'],
        ...['--yes-delete', '--threads', '16'],
      ],
      env: { AWS_ACCESS_KEY_ID: gateway.accessKey, AWS_SECRET_ACCESS_KEY: gateway.secretKey },
      differences: (source) => objectDifferences(source, gateway, 'churn', 'tree/'),
    })
  } finally {
    await proxy.close()
    await gateway.stop()
  }
}

describe('[S135] [S134] a tree that is changed at random while it is synced', () => {
  test('[S140] to a directory, by fanotify', { skip: !isRoot && 'fanotify needs root' }, () => churnDirectory([], 'fanotify'))
  test('[S140] to a directory, by inotify', () => churnDirectory(isRoot ? WITHOUT_FANOTIFY : [], 'inotify'))
  test('to a bucket', () => churnBucket([]))
  test('to a bucket whose server is in trouble', () =>
    churnBucket([
      [30, { kind: 'answer', status: 503, body: errorDocument('SlowDown') }],
      [30, { kind: 'refuse' }],
      [30, { kind: 'lose' }],
      [30, { kind: 'wait', until: () => new Promise((resolve) => setTimeout(resolve, 200)) }],
    ]))
})
