/**
 * SIGKILL at random points while a tree is changed and synced: whatever was under way, a run with the same state makes both ends
 * equal, by means of their own. EIDER_KILLS and CHURN_SEED set how often and by which seed.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'

import { makeBucket } from '#test/servers/bucket.ts'
import { startTestGateway } from '#test/servers/gateway.ts'

import { startChurn, withChurnPlaces, type ChurnPlaces } from './sync/churn.ts'
import { objectDifferences, rsyncDifferences, treeDifferences } from './sync/compare.ts'
import { runSync, startSync } from './sync/sync-process.ts'
import { bucketEnds } from './sync/tree.ts'

const KILLS = Number(process.env['EIDER_KILLS'] ?? 12)
const SEED = Number(process.env['CHURN_SEED'] ?? 5)
/** One kill in three comes that long after its start, one after it begins to compare, one after it begins to follow, at most. */
const KILL_MS_MAX = [800, 200, 600] as const
/** Between bursts of changes: a sync that is never up with them comes to no moment at which all is equal. */
const PAUSE_MS_MAX = 150
const PHASES = ['', 'comparing', 'watching'] as const

interface Setup {
  readonly args: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  readonly kills: number
  readonly differences: () => readonly string[] | Promise<readonly string[]>
}

/** Starts a sync and kills it, again and again; after each kill a run to the end has to find all that there is to be done. */
async function killAgainAndAgain(places: ChurnPlaces, { args, env = {}, kills, differences }: Setup): Promise<void> {
  const words = [places.source, ...args, '--state', places.state, '--yes-delete']
  const child = startChurn(places, { ms: 86_400_000, seed: SEED, pauseMsMax: PAUSE_MS_MAX })
  const gone = once(child, 'close')
  let random = SEED
  try {
    for (let count = 0; count < kills; count++) {
      const run = startSync(words, { env })
      random = (Math.imul(random, 1_664_525) + 1_013_904_223) >>> 0
      const stage = count % PHASES.length
      if (stage > 0) await run.event(`to be ${PHASES[stage]}`, ({ phase }) => phase === PHASES[stage])
      await delay((random / 0x1_0000_0000) * (KILL_MS_MAX[stage] ?? 0))
      const ended = await run.stop('SIGKILL')
      assert.equal(ended.code, null, `it ran until it was killed\n${ended.stderr}`)
      child.kill('SIGSTOP')
      const end = await runSync([...words, '--once'], { env })
      const where = `CHURN_SEED=${SEED}, after ${count + 1} kills`
      assert.equal(end.code, 0, `${where}: ${JSON.stringify(end.events.slice(-3))}\n${end.stderr}`)
      assert.deepEqual(await differences(), [], where)
      assert.ok(child.kill('SIGCONT') && child.signalCode === null, 'the tree is still being changed')
    }
  } finally {
    child.kill('SIGKILL')
    await gone
  }
}

describe('[S137] [trap 27] a sync that is killed at random points', () => {
  test('to a directory: nothing is lost, and no part of a file is left', () =>
    withChurnPlaces(async (places) => {
      const { source, target } = places
      await killAgainAndAgain(places, {
        args: ['--to', target, '--metadata'],
        kills: KILLS,
        differences: () => [
          ...rsyncDifferences(source, target),
          ...treeDifferences(source, target, { metadata: true }),
        ],
      })
      const temporary = join(target, '.eider', 'tmp')
      assert.deepEqual(existsSync(temporary) ? readdirSync(temporary) : [], [])
    }))

  test('to a bucket: nothing is lost', () =>
    withChurnPlaces(async (places) => {
      const gateway = await startTestGateway()
      try {
        await makeBucket(gateway, 'killed')
        const { env, flags } = bucketEnds(gateway, gateway.endpoint)
        await killAgainAndAgain(places, {
          args: ['--to', 's3://killed/tree', ...flags],
          env,
          kills: Math.ceil(KILLS / 2),
          differences: () => objectDifferences(places.source, gateway, 'killed', 'tree/'),
        })
      } finally {
        await gateway.stop()
      }
    }))
})
