/** The dry run over the S3 store: the suite, and a bucket with objects in it that stays as it was. */
import assert from 'node:assert/strict'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'

import { dryRunStore } from '#store/dry-run-store.ts'
import { readOnlyStore } from '#store/read-only-store.ts'
import { openS3Store } from '#store/s3/s3-store.ts'
import { runStoreSuite } from '#store/store-suite.ts'
import { ABSENT, ANY, ifVersion } from '#store/store.ts'
import { assertContent, assertGone, keysOf, listAll, noise, rejectsWith } from '#store/suite/case.ts'
import { makeBucket, s3OptionsOf } from '#test/servers/bucket.ts'
import { startTestGateway, type TestGateway } from '#test/servers/gateway.ts'

describe('the dry run over S3', () => {
  let gateway: TestGateway | undefined
  let directory = ''

  function server(): TestGateway {
    assert.ok(gateway !== undefined, 'the gateway has started')
    return gateway
  }

  before(async () => {
    gateway = await startTestGateway()
    directory = await mkdtemp(join(tmpdir(), 'eider-dry-s3-'))
    await makeBucket(gateway, 'suite')
    await makeBucket(gateway, 'filled')
  })
  after(async () => {
    await gateway?.stop()
    assert.deepEqual(await readdir(directory), [])
    await rm(directory, { recursive: true, force: true })
  })

  runStoreSuite(
    'dry run over S3',
    async () => {
      const inner = readOnlyStore(await openS3Store('s3://suite/a', s3OptionsOf(server())))
      const store = dryRunStore(inner, { directory, log: { info: () => undefined } })
      return { store, close: () => store.close() }
    },
    { entriesInOneDirectory: 200, propertyRuns: 5 },
  )

  test('[S82] each change is told with its price, by the storage class, and their sum at the end', async () => {
    const lines: Record<string, unknown>[] = []
    const inner = readOnlyStore(await openS3Store('s3://suite/priced', s3OptionsOf(server())))
    const log = { info: (line: Record<string, unknown>) => void lines.push(line) }
    const store = dryRunStore(inner, { directory, log, storageClass: 'STANDARD_IA' })
    const { version } = await store.put('a', noise(10, 1), { guard: ABSENT })
    await store.copy('a', 'b', { guard: ABSENT })
    await store.remove('a', { guard: ifVersion(version) })
    await store.close()
    assert.deepEqual(
      lines.map(({ change, requests, costUsd }) => [change, requests, costUsd]),
      [
        ['put', 1, 0.00001],
        ['copy', 2, 0.000011],
        ['remove', 1, 0],
        [undefined, 4, 0.000021],
      ],
    )
  })

  test('[S82] objects keep their bytes, names and attributes, whatever is changed', async () => {
    const outside = await openS3Store('s3://filled', s3OptionsOf(server()))
    try {
      const attributes = { mode: 0o640, xattrs: new Map([['user.kept', Buffer.from('yes')]]) }
      for (const [index, path] of ['a', 'dir/b', 'dir/sub/c', 'dir/sub/d'].entries()) {
        await outside.put(path, noise(100, index), { guard: ABSENT, attributes })
      }
      const { version } = await outside.stat('dir/b')
      const inner = readOnlyStore(await openS3Store('s3://filled', s3OptionsOf(server())))
      const store = dryRunStore(inner, { directory, log: { info: () => undefined } })
      try {
        await store.rename('dir/sub', 'moved', { guard: ANY, targetGuard: ABSENT })
        await store.exchange('a', 'moved/c', { guard: ANY, otherGuard: ANY })
        await store.setAttributes('dir/b', { mode: 0o600 }, { guard: ifVersion(version) })
        await rejectsWith(store.remove('dir/b', { guard: ifVersion(version) }), 'STORE_CONFLICT')
        const changed = await store.stat('dir/b')
        assert.equal(changed.attributes?.mode, 0o600)
        assert.deepEqual(changed.attributes?.xattrs, attributes.xattrs)
        await store.removeAll([await store.stat('moved/d')])
        assert.deepEqual(keysOf(await listAll(store, ''), ''), ['a', 'dir/', 'moved/'])
        assert.deepEqual(keysOf(await listAll(store, 'moved'), 'moved'), ['c'])
        await assertContent(store, 'a', noise(100, 2))
        await assertContent(store, 'moved/c', noise(100, 0))
        await assertGone(store, 'dir/sub')
      } finally {
        await store.close()
      }
      assert.deepEqual(keysOf(await listAll(outside, '', { recursive: true }), ''), [
        'a',
        'dir/b',
        'dir/sub/c',
        'dir/sub/d',
      ])
      const kept = await outside.stat('dir/b')
      assert.deepEqual([kept.version, kept.attributes?.mode], [version, 0o640])
      await assertContent(outside, 'a', noise(100, 0))
    } finally {
      await outside.close()
    }
  })
})
