/** Syncs to and from a bucket of this program's own gateway: what a store tells, and what it refuses, is other than of a directory. */
import assert from 'node:assert/strict'
import { chmodSync, lutimesSync, renameSync, rmSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'

import { xattrGet, xattrSet } from '#os/xattr.ts'
import { newBucket } from '#test/servers/bucket.ts'
import { startFaultProxy } from '#test/servers/fault-proxy.ts'
import { startTestGateway, type TestGateway } from '#test/servers/gateway.ts'

import { objectDifferences, objectsOf, rsyncDifferences, treeDifferences } from './sync/compare.ts'
import { following, runSync, settled, startSync, type SyncEnd } from './sync/sync-process.ts'
import { bucketEnds, fill, withPlaces } from './sync/tree.ts'

const OLD = new Date('2001-09-09T01:46:40Z')

let gateway: TestGateway

before(async () => {
  gateway = await startTestGateway()
})
after(() => gateway.stop())

async function once(...words: readonly string[]): Promise<SyncEnd> {
  const { env, flags } = bucketEnds(gateway, gateway.endpoint)
  const end = await runSync([...words, '--once', ...flags], { env })
  assert.equal(end.code, 0, `${JSON.stringify(end.events.slice(-3))}\n${end.stderr}`)
  return end
}

describe('a bucket that is synced', () => {
  test('a file that became a directory, and a directory that became a file, at the start and while it is followed', () =>
    withPlaces(async ({ source, state }) => {
      const bucket = await newBucket(gateway)
      const words = [source, '--to', `s3://${bucket}/p`, '--state', state]
      const differences = (): Promise<string[]> => objectDifferences(source, gateway, bucket, 'p/', { strict: true })
      const toDirectory = (name: string): void => {
        unlinkSync(join(source, name))
        fill(source, { [`${name}/x`]: 'x', [`${name}/d/y`]: 'y' })
      }
      fill(source, { first: 'file', second: 'file', kept: 'kept' })
      await once(...words)
      toDirectory('first')
      await once(...words)
      assert.deepEqual(await differences(), [])
      assert.deepEqual(
        [...(await objectsOf(gateway, bucket, 'p/')).keys()].filter((key) => !key.endsWith('/')),
        ['first/d/y', 'first/x', 'kept', 'second'],
      )
      const { env, flags } = bucketEnds(gateway, gateway.endpoint)
      await following(
        [...words, ...flags],
        async () => {
          toDirectory('second')
          await settled(differences)
          rmSync(join(source, 'first'), { recursive: true })
          fill(source, { first: 'a file again' })
          await settled(differences)
        },
        { env },
      )
    }))

  test('a directory whose last file goes while it is followed stays', () =>
    withPlaces(async ({ source, state }) => {
      const bucket = await newBucket(gateway)
      fill(source, { 'a/1': '1', 'b/1': '1', other: 'other' })
      const { env, flags } = bucketEnds(gateway, gateway.endpoint)
      await following(
        [source, '--to', `s3://${bucket}/p`, '--state', state, ...flags],
        async () => {
          unlinkSync(join(source, 'a/1'))
          renameSync(join(source, 'b/1'), join(source, 'moved'))
          fill(source, { 'c/1': '1' })
          await settled(() => objectDifferences(source, gateway, bucket, 'p/', { strict: true }))
          unlinkSync(join(source, 'c/1'))
          await settled(() => objectDifferences(source, gateway, bucket, 'p/', { strict: true }))
        },
        { env },
      )
      assert.deepEqual([...(await objectsOf(gateway, bucket, 'p/')).keys()], ['a/', 'b/', 'c/', 'moved', 'other'])
    }))

  test('[S140] a change of attributes alone comes through a bucket to a directory', () =>
    withPlaces(async ({ source, target, state }) => {
      const bucket = await newBucket(gateway)
      const changes: readonly ((path: string) => void)[] = [
        (path) => chmodSync(path, 0o600),
        (path) => lutimesSync(path, OLD, OLD),
        (path) => xattrSet(path, 'user.of', Buffer.from('mine')),
      ]
      fill(source, { f: 'same bytes', 'd/g': 'same bytes' })
      for (const change of [undefined, ...changes]) {
        for (const name of ['f', 'd/g']) change?.(join(source, name))
        await once(source, '--to', `s3://${bucket}/m`, '--state', state, '--metadata')
        const down = await once(`s3://${bucket}/m`, '--to', target, '--state', `${state}-down`, '--metadata')
        // Mode, owner, time and bytes.
        assert.deepEqual(rsyncDifferences(source, target), [])
        assert.equal(down.done?.sent, change === undefined ? 2 : 0)
      }
      for (const name of ['f', 'd/g']) assert.equal(xattrGet(join(target, name), 'user.of')?.toString(), 'mine')
    }))

  test('[S141] a listing that fails while it is followed is told, and made again', () =>
    withPlaces(async ({ source, target, base, state }) => {
      const bucket = await newBucket(gateway)
      fill(source, { a: 'a' })
      await once(source, '--to', `s3://${bucket}/p`, '--state', join(base, 'up'))
      const proxy = await startFaultProxy(gateway.endpoint)
      const { env, flags } = bucketEnds(gateway, proxy.endpoint)
      const words = [`s3://${bucket}/p`, '--to', target, '--state', state, '--interval', '500ms', '--io-timeout', '1s']
      const run = startSync([...words, ...flags], { env })
      try {
        await run.watching()
        let isAway = true
        proxy.fault(({ url }) => isAway && url.includes('list-type'), { kind: 'refuse' }, Number.POSITIVE_INFINITY)
        await run.event('that it cannot be compared', ({ event, path }) => event === 'failed' && path === '')
        isAway = false
        fill(source, { b: 'b' })
        await once(source, '--to', `s3://${bucket}/p`, '--state', join(base, 'up'))
        await settled(() => treeDifferences(source, target))
        await run.event('that nothing fails any more', ({ failed, sent }) => failed === 0 && sent === 2)
        assert.equal((await run.stop()).code, 0)
      } finally {
        await run.stop('SIGKILL')
        await proxy.close()
      }
    }))
})
