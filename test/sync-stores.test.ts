/** Syncs to and from a bucket of this program's own gateway: what a store tells, and what it refuses, is other than of a directory. */
import assert from 'node:assert/strict'
import { chmodSync, lutimesSync, rmSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'

import { xattrGet, xattrSet } from '#os/xattr.ts'
import { makeBucket } from '#test/servers/bucket.ts'
import { startTestGateway, type TestGateway } from '#test/servers/gateway.ts'

import { objectDifferences, objectsOf, rsyncDifferences } from './sync/compare.ts'
import { following, runSync, settled, type SyncEnd } from './sync/sync-process.ts'
import { bucketEnds, fill, withPlaces } from './sync/tree.ts'

const OLD = new Date('2001-09-09T01:46:40Z')

let gateway: TestGateway

before(async () => {
  gateway = await startTestGateway()
})
after(() => gateway.stop())

let buckets = 0
async function newBucket(): Promise<string> {
  const bucket = `stores-${buckets++}`
  await makeBucket(gateway, bucket)
  return bucket
}

async function once(...words: readonly string[]): Promise<SyncEnd> {
  const { env, flags } = bucketEnds(gateway, gateway.endpoint)
  const end = await runSync([...words, '--once', ...flags], { env })
  assert.equal(end.code, 0, `${JSON.stringify(end.events.slice(-3))}\n${end.stderr}`)
  return end
}

describe('a bucket that is synced', () => {
  test('a file that became a directory, and a directory that became a file, at the start and while it is followed', () =>
    withPlaces(async ({ source, state }) => {
      const bucket = await newBucket()
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

  test('[S140] a change of attributes alone comes through a bucket to a directory', () =>
    withPlaces(async ({ source, target, state }) => {
      const bucket = await newBucket()
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
})
