/** What a bucket has and no path can name: a sync says so, whichever side has it, and deletes nothing because of it. */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'

import { ListObjectsV2Command, PutObjectCommand, S3Client } from '@aws-sdk/client-s3'

import { makeBucket } from '#test/servers/bucket.ts'
import { radosgwMissing, startRadosgw, type Radosgw } from '#test/servers/radosgw.ts'

import { runSync, type SyncEnd } from './sync/sync-process.ts'
import { bucketEnds, fill, withPlaces } from './sync/tree.ts'

const LONG = 'n'.repeat(256)
/** A key that is a file and a directory at once, and keys that are no path. */
const HOSTILE = ['conf', '/front', 'e//b', 'd/../up', './dot', 'dir/./x', '..', 'tail//', `${LONG}/x`]
const GOOD = ['a', 'conf/x', 'd/b', 'z']

describe('[S145] what no path can name', { skip: radosgwMissing() }, () => {
  let server: Radosgw
  let client: S3Client
  let buckets = 0
  const bucketOf = async (keys: readonly string[]): Promise<string> => {
    const bucket = `hidden-${buckets++}`
    await makeBucket(server, bucket)
    for (const key of keys) await client.send(new PutObjectCommand({ Bucket: bucket, Key: `p/${key}`, Body: key }))
    return bucket
  }
  const keysOf = async (bucket: string): Promise<string[]> => {
    const { Contents = [] } = await client.send(new ListObjectsV2Command({ Bucket: bucket }))
    return Contents.map(({ Key = '' }) => Key).toSorted()
  }
  const run = (words: readonly string[]): Promise<SyncEnd> => {
    const { env, flags } = bucketEnds(server, server.endpoint)
    return runSync([...words, '--once', ...flags], { env })
  }
  before(async () => {
    server = await startRadosgw()
    const { endpoint, region, accessKey: accessKeyId, secretKey: secretAccessKey } = server
    client = new S3Client({ endpoint, region, forcePathStyle: true, credentials: { accessKeyId, secretAccessKey } })
  })
  after(async () => {
    client?.destroy()
    await server?.stop()
  })

  test('in a source is named with exit code 3, and all else is made equal', () =>
    withPlaces(async ({ target, state }) => {
      const bucket = await bucketOf([...HOSTILE, ...GOOD])
      assert.equal((await keysOf(bucket)).length, HOSTILE.length + GOOD.length)
      fill(target, { 'conf/old': 'kept', stale: 'goes', 'd/stale': 'goes' })
      mkdirSync(join(target, 'e'))
      const words = [`s3://${bucket}/p`, '--to', target, '--state', state, '--delete', 'after']
      for (const removed of [2, 0]) {
        const end = await run(words)
        assert.equal(end.code, 3, end.stderr)
        assert.deepEqual(skippedIn(end), HOSTILE.map((path) => `${path} invalid-name`).toSorted())
        assert.equal(end.done?.skipped, HOSTILE.length)
        assert.equal(end.done?.removed, removed)
        for (const path of GOOD) assert.equal(readFileSync(join(target, path), 'utf8'), path)
        assert.equal(readFileSync(join(target, 'conf/old'), 'utf8'), 'kept')
        assert.ok(existsSync(join(target, 'e')))
        assert.deepEqual([existsSync(join(target, 'stale')), existsSync(join(target, 'd/stale'))], [false, false])
      }
    }))

  test('in a source is named with --metadata, where the directory of the same name is made, too', () =>
    withPlaces(async ({ target, state }) => {
      const bucket = await bucketOf(['conf', 'conf/', 'conf/x'])
      const end = await run([`s3://${bucket}/p`, '--to', target, '--state', state, '--metadata'])
      assert.equal(end.code, 3, end.stderr)
      assert.deepEqual(skippedIn(end), ['conf invalid-name'])
      assert.equal(readFileSync(join(target, 'conf/x'), 'utf8'), 'conf/x')
    }))

  test('and directories that nobody made do not count for what a sync would delete', () =>
    withPlaces(async ({ target, state }) => {
      const bucket = await bucketOf(['a', ...Array.from({ length: 6 }, (_, index) => `d${index}/e/f/g/h`)])
      fill(target, { 'd0/e/stale': 'goes', 'd1/e/f/gone/stale': 'goes' })
      for (const removed of [3, 0]) {
        const end = await run([`s3://${bucket}/p`, '--to', target, '--state', state])
        assert.equal(end.code, 0, end.stderr)
        assert.equal(end.done?.removed, removed)
      }
      assert.deepEqual(readdirSync(join(target, 'd0/e')), ['f'])
      assert.deepEqual(readdirSync(join(target, 'd1/e/f')), ['g'])
    }))

  test('in a source is no matter where the filter leaves it out', () =>
    withPlaces(async ({ target, state }) => {
      const bucket = await bucketOf(['e//b', 'conf', 'conf/x', 'a'])
      const words = [`s3://${bucket}/p`, '--to', target, '--state', state, '--exclude', '/e', '--exclude', '/conf']
      const end = await run(words)
      assert.equal(end.code, 0, end.stderr)
      assert.deepEqual(skippedIn(end), [])
      assert.equal(readFileSync(join(target, 'a'), 'utf8'), 'a')
    }))

  test('in a target is named with exit code 3, and left alone', () =>
    withPlaces(async ({ source, state }) => {
      const bucket = await bucketOf([...HOSTILE, 'conf/x', 'stale'])
      fill(source, { a: 'a', 'conf/x': 'new' })
      const words = [source, '--to', `s3://${bucket}/p`, '--state', state, '--delete', 'after']
      for (let times = 0; times < 2; times++) {
        const end = await run(words)
        assert.equal(end.code, 3, end.stderr)
        assert.deepEqual(skippedIn(end), HOSTILE.map((path) => `${path} invalid-name`).toSorted())
        const keys = [...HOSTILE, 'conf/x', 'a'].map((key) => `p/${key}`)
        assert.deepEqual(await keysOf(bucket), keys.toSorted())
      }
    }))

  test('is named by a plan, too', () =>
    withPlaces(async ({ target, state }) => {
      const bucket = await bucketOf(['a', 'e//b'])
      const end = await run([`s3://${bucket}/p`, '--to', target, '--state', state, '--dry-run'])
      assert.equal(end.code, 3, end.stderr)
      assert.match(end.stderr, /^left out e\/\/b: Cannot use "" as a name/m)
      assert.ok(!existsSync(join(target, 'a')))
    }))
})

function skippedIn({ events }: SyncEnd): string[] {
  return events
    .filter(({ event }) => event === 'skipped')
    .map(({ path, reason }) => `${path} ${reason}`)
    .toSorted()
}
