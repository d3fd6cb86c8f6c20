/**
 * SIGKILL at random points while a tree is changed and synced: whatever was under way, a run with the same state makes both ends
 * equal, by means of their own. EIDER_KILLS and CHURN_SEED set how often and by which seed.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

import { makeBucket } from '#test/servers/bucket.ts'
import { startTestGateway } from '#test/servers/gateway.ts'

import { objectDifferences, rsyncDifferences, treeDifferences } from './sync/compare.ts'
import { runSync, startSync } from './sync/sync-process.ts'

const KILLS = Number(process.env['EIDER_KILLS'] ?? 12)
const SEED = Number(process.env['CHURN_SEED'] ?? 5)
const CHURN = fileURLToPath(import.meta.resolve('#test/sync/churn-process.ts'))
/** One kill in three comes that long after its start, one after it begins to compare, one after it begins to follow, at most. */
const KILL_MS_MAX = [800, 200, 600] as const
/** Between bursts of changes: a sync that is never up with them comes to no moment at which all is equal. */
const PAUSE_MS_MAX = '150'
const PHASES = ['', 'comparing', 'watching'] as const

interface Setup {
  readonly args: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  readonly kills: number
  readonly differences: (source: string) => readonly string[] | Promise<readonly string[]>
}

/** Starts a sync and kills it, again and again; after each kill a run to the end has to find all that there is to be done. */
async function killAgainAndAgain({ args, env = {}, kills, differences }: Setup): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), 'eider-sync-kill-'))
  const source = join(base, 'source')
  const outside = join(base, 'outside')
  mkdirSync(join(source, 'a0', 'b1'), { recursive: true })
  mkdirSync(outside)
  writeFileSync(join(source, 'a0', 'b1', 'first'), 'first')
  const words = [source, ...args, '--state', join(base, 'state'), '--yes-delete']
  const child = spawn(process.execPath, [CHURN, source, outside, '86400000', String(SEED), PAUSE_MS_MAX], {
    stdio: ['ignore', 'ignore', 'inherit'],
  })
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
      assert.deepEqual(await differences(source), [], where)
      assert.ok(child.kill('SIGCONT') && child.signalCode === null, 'the tree is still being changed')
    }
  } finally {
    child.kill('SIGKILL')
    await gone
    rmSync(base, { recursive: true, force: true })
  }
}

describe('[S137] [trap 27] a sync that is killed at random points', () => {
  test('to a directory: nothing is lost, and no part of a file is left', async () => {
    const target = mkdtempSync(join(tmpdir(), 'eider-sync-target-'))
    try {
      await killAgainAndAgain({
        args: ['--to', target, '--metadata'],
        kills: KILLS,
        differences: (source) => [
          ...rsyncDifferences(source, target),
          ...treeDifferences(source, target, { metadata: true }),
        ],
      })
      const temporary = join(target, '.eider', 'tmp')
      assert.deepEqual(existsSync(temporary) ? readdirSync(temporary) : [], [])
    } finally {
      rmSync(target, { recursive: true, force: true })
    }
  })

  test('to a bucket: nothing is lost', async () => {
    const gateway = await startTestGateway()
    try {
      await makeBucket(gateway, 'killed')
      await killAgainAndAgain({
        args: ['--to', 's3://killed/tree', '--endpoint', gateway.endpoint, '--region', gateway.region],
        env: { AWS_ACCESS_KEY_ID: gateway.accessKey, AWS_SECRET_ACCESS_KEY: gateway.secretKey },
        kills: Math.ceil(KILLS / 2),
        differences: (source) => objectDifferences(source, gateway, 'killed', 'tree/'),
      })
    } finally {
      await gateway.stop()
    }
  })
})
