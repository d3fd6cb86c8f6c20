/**
 * Churn: a process changes a tree at random while a sync follows it; in the end both are equal by means of their own. CHURN_MS and
 * CHURN_SEED set how long and by which seed; a failure prints the seed.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { describe, test } from 'node:test'

import { makeBucket } from '#test/servers/bucket.ts'
import { errorDocument, type Fault, type Noted, startFaultProxy } from '#test/servers/fault-proxy.ts'
import { startTestGateway } from '#test/servers/gateway.ts'

import { startChurn, withChurnPlaces, type ChurnPlaces } from './sync/churn.ts'
import { objectDifferences, rsyncDifferences, treeDifferences } from './sync/compare.ts'
import { settled, startSync, type SyncEnd } from './sync/sync-process.ts'
import { bucketEnds } from './sync/tree.ts'
import { isRoot, WITHOUT_FANOTIFY } from './sync/users.ts'

const MS = Number(process.env['CHURN_MS'] ?? 15_000)
const SEED = Number(process.env['CHURN_SEED'] ?? 11)

interface Setup {
  readonly args: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  readonly through?: readonly string[]
  readonly differences: () => readonly string[] | Promise<readonly string[]>
}

/** Lets the tree be changed while a sync follows it, waits until both are equal, ends it, and compares once more. */
async function churn(places: ChurnPlaces, { args, env = {}, through = [], differences }: Setup): Promise<SyncEnd> {
  const run = startSync([places.source, ...args, '--state', places.state, '--yes-delete'], { env, through })
  try {
    await run.watching()
    const child = startChurn(places, { ms: MS, seed: SEED })
    let done = ''
    child.stdout.on('data', (text: Buffer) => (done += text.toString()))
    await once(child, 'close')
    assert.ok(Number(done) > 100, 'much was done')
    await settled(differences)
    const end = await run.stop()
    assert.deepEqual(await differences(), [], 'nothing was undone after it was equal')
    assert.equal(end.done?.failed, 0, `nothing has failed in the end\n${end.stderr}`)
    return end
  } catch (error) {
    throw new Error(`CHURN_SEED=${SEED} CHURN_MS=${MS}: ${run.stderr.slice(-4000)}`, { cause: error })
  } finally {
    await run.stop('SIGKILL')
  }
}

async function churnDirectory(through: readonly string[], kind: string): Promise<void> {
  await withChurnPlaces(async (places) => {
    const { source, target } = places
    const end = await churn(places, {
      args: ['--to', target, '--metadata'],
      through,
      differences: () => [...rsyncDifferences(source, target), ...treeDifferences(source, target, { metadata: true })],
    })
    const { watcher, renamed = 0 } = end.events.findLast(({ event }) => event === 'done') ?? {}
    assert.equal(watcher?.kind, kind)
    assert.ok(renamed > 0, 'renames were done as such')
  })
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
    await withChurnPlaces(async (places) => {
      const { env, flags } = bucketEnds(gateway, proxy.endpoint)
      await churn(places, {
        args: ['--to', 's3://churn/tree', '--threads', '16', ...flags],
        env,
        differences: () => objectDifferences(places.source, gateway, 'churn', 'tree/'),
      })
    })
  } finally {
    await proxy.close()
    await gateway.stop()
  }
}

describe('[S135] [S134] a tree that is changed at random while it is synced', () => {
  test('[S140] to a directory, by fanotify', { skip: !isRoot && 'fanotify needs root' }, () =>
    churnDirectory([], 'fanotify'),
  )
  test('[S140] to a directory, by inotify', () => churnDirectory(WITHOUT_FANOTIFY, 'inotify'))
  test('to a bucket', () => churnBucket([]))
  test('to a bucket whose server is in trouble', () =>
    churnBucket([
      [30, { kind: 'answer', status: 503, body: errorDocument('SlowDown') }],
      [30, { kind: 'refuse' }],
      [30, { kind: 'lose' }],
      [30, { kind: 'wait', until: () => new Promise((resolve) => setTimeout(resolve, 200)) }],
    ]))
})
