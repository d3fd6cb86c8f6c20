/**
 * Guards of the S3 store against a server that decides on all of them, when answers are lost: what took effect counts once, and
 * what another did meanwhile is never overwritten. The server is the gateway, behind a proxy that loses answers.
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, beforeEach, describe, test } from 'node:test'

import { isOperationError } from '#base/errors.ts'
import type { S3Options } from '#store/s3/endpoint.ts'
import { openS3Store } from '#store/s3/s3-store.ts'
import { ABSENT, ANY, ifVersion, type Store } from '#store/store.ts'
import { makeBucket, s3OptionsOf } from '#test/servers/bucket.ts'
import { errorDocument, startFaultProxy, type FaultProxy, type Noted } from '#test/servers/fault-proxy.ts'
import { startTestGateway, type TestGateway } from '#test/servers/gateway.ts'

const QUICK: S3Options = { attemptsMax: 4, backoffMs: 1, ioTimeoutMs: 0, timeoutMs: 5000, partBytes: 5 * 2 ** 20 }
const isPut = ({ method }: Noted): boolean => method === 'PUT'
const isDelete = ({ method, url }: Noted): boolean => method === 'DELETE' && !url.includes('uploadId')
const isComplete = ({ method, url }: Noted): boolean => method === 'POST' && url.includes('uploadId')
const conflicts = (promise: Promise<unknown>): Promise<void> =>
  assert.rejects(promise, (error) => {
    assert.ok(isOperationError(error, 'STORE_CONFLICT'), String(error))
    return true
  })

describe('guards of the S3 store', () => {
  let server: TestGateway
  let proxy: FaultProxy
  let store: Store
  const content = async (path: string): Promise<Buffer> => (await store.read(path)).bytes()
  const isGone = (path: string): Promise<void> =>
    assert.rejects(store.stat(path), (error) => isOperationError(error, 'STORE_NOT_FOUND'))

  before(async () => {
    server = await startTestGateway()
    proxy = await startFaultProxy(server.endpoint)
    await makeBucket(server, 'guards')
    store = await openS3Store('s3://guards', s3OptionsOf({ ...server, endpoint: proxy.endpoint }, QUICK))
  })
  after(async () => {
    await store?.close()
    await proxy?.close()
    await server?.stop()
  })
  beforeEach(() => proxy.clear())

  test('[S17] the probe finds them all, and leaves nothing behind', async () => {
    assert.deepEqual(store.capabilities.guards, {
      ...{ create: 'atomic', replace: 'atomic', remove: 'atomic', copy: 'atomic' },
    })
    for await (const page of store.list('', { recursive: true })) {
      assert.deepEqual(
        page.filter(({ path }) => path.startsWith('.eider/')),
        [],
      )
    }
  })

  test('what the probe has found is not asked again for the same bucket', async () => {
    const again = await openS3Store('s3://guards/x', s3OptionsOf({ ...server, endpoint: proxy.endpoint }, QUICK))
    assert.equal(proxy.noted.length, 1)
    assert.deepEqual(again.capabilities.guards, store.capabilities.guards)
    await again.close()
  })

  test('a guarded put is one request', async () => {
    const first = await store.put('single', randomBytes(10), { guard: ABSENT })
    await store.put('single', randomBytes(10), { guard: ifVersion(first.version) })
    await conflicts(store.put('single', randomBytes(10), { guard: ifVersion(first.version) }))
    await conflicts(store.put('single', randomBytes(10), { guard: ABSENT }))
    assert.equal(proxy.noted.length, 4)
  })

  test('a put over a version that is gone conflicts', async () => {
    const { version } = await store.put('gone', randomBytes(10), { guard: ABSENT })
    await store.remove('gone', { guard: ANY })
    await conflicts(store.put('gone', randomBytes(10), { guard: ifVersion(version) }))
    await isGone('gone')
  })

  test('a replacement whose answer is lost has succeeded', async () => {
    const first = await store.put('replaced', randomBytes(10), { guard: ABSENT })
    proxy.fault(isPut, { kind: 'lose' })
    const bytes = randomBytes(20)
    const second = await store.put('replaced', bytes, { guard: ifVersion(first.version) })
    assert.equal((await store.stat('replaced')).version, second.version)
    assert.deepEqual(await content('replaced'), bytes)
  })

  test('a replacement that never arrived loses against another that did', async () => {
    const first = await store.put('lost', randomBytes(10), { guard: ABSENT })
    const other = await openS3Store('s3://guards', s3OptionsOf(server, QUICK))
    const winner = await other.put('lost', randomBytes(20), { guard: ifVersion(first.version) })
    proxy.fault(isPut, { kind: 'refuse' })
    await conflicts(store.put('lost', randomBytes(20), { guard: ifVersion(first.version) }))
    assert.equal((await store.stat('lost')).version, winner.version)
    await other.close()
  })

  test('equal bytes with other attributes are somebody else’s', async () => {
    const bytes = randomBytes(10)
    await store.put('equal', bytes, { guard: ABSENT, attributes: { uid: 1 } })
    proxy.fault(isPut, { kind: 'refuse' })
    await conflicts(store.put('equal', bytes, { guard: ABSENT, attributes: { uid: 2 } }))
  })

  test('a removal whose answer is lost has succeeded', async () => {
    const { version } = await store.put('removed', randomBytes(10), { guard: ABSENT })
    proxy.fault(isDelete, { kind: 'lose' })
    await store.remove('removed', { guard: ifVersion(version) })
    await isGone('removed')
  })

  test('a removal under a version is one request', async () => {
    const { version } = await store.put('known-version', randomBytes(10), { guard: ABSENT })
    proxy.clear()
    await store.remove('known-version', { guard: ifVersion(version) })
    assert.deepEqual(
      proxy.noted.map(({ method }) => method),
      ['DELETE'],
    )
    await assert.rejects(store.remove('known-version', { guard: ifVersion(version) }), (error) =>
      isOperationError(error, 'STORE_NOT_FOUND'),
    )
  })

  test('a removal of a version that another has replaced conflicts', async () => {
    const { version } = await store.put('kept', randomBytes(10), { guard: ABSENT })
    const bytes = randomBytes(10)
    await store.put('kept', bytes, { guard: ANY })
    await conflicts(store.remove('kept', { guard: ifVersion(version) }))
    assert.deepEqual(await content('kept'), bytes)
  })

  test('[S3] a directory rename leaves what somebody puts under its target meanwhile, and undoes itself', async () => {
    for (const name of ['a', 'b', 'c']) await store.put(`moving/${name}`, Buffer.from(name), { guard: ABSENT })
    const theirs = randomBytes(10)
    await store.put('taken/b', theirs, { guard: ABSENT })
    // The target looks empty, as it does to who looks just before the other puts.
    const empty = '<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>'
    const isList = ({ method, url }: Noted): boolean => method === 'GET' && url.includes('prefix=taken%2F')
    proxy.fault(isList, { kind: 'answer', status: 200, body: empty }, 10)
    await conflicts(store.rename('moving', 'taken', { guard: ANY, targetGuard: ANY }))
    proxy.clear()
    assert.deepEqual(await content('taken/b'), theirs)
    await isGone('taken/a')
    await isGone('taken/c')
    for (const name of ['a', 'b', 'c']) assert.equal((await content(`moving/${name}`)).toString(), name)
  })

  test('a directory rename that fails leaves the empty directory that its target was', async () => {
    await store.makeDirectory('emptied', { guard: ABSENT, attributes: { mode: 0o700 } })
    await store.put('full/file', randomBytes(10), { guard: ABSENT })
    await store.makeDirectory('full', { guard: ANY })
    proxy.fault(({ headers }) => 'x-amz-copy-source' in headers, {
      kind: 'answer',
      status: 403,
      body: errorDocument('AccessDenied'),
    })
    await assert.rejects(store.rename('full', 'emptied', { guard: ANY, targetGuard: ANY }), (error) =>
      isOperationError(error, 'STORE_DENIED'),
    )
    assert.equal((await store.stat('emptied')).attributes?.mode, 0o700)
  })

  test('a directory rename tells which files have another version by it', async () => {
    // The server gives what it copies in parts an etag of its own.
    const { version } = await store.put('telling/large', Buffer.alloc(17 * 2 ** 20), { guard: ABSENT })
    await store.put('telling/small', randomBytes(10), { guard: ABSENT })
    const told: [string, string, string][] = []
    await store.rename('telling', 'told', {
      guard: ANY,
      targetGuard: ABSENT,
      onVersionChanged: (...change) => told.push(change),
    })
    const now = (await store.stat('told/large')).version
    assert.deepEqual(told, now === version ? [] : [['told/large', version, now]])
  })

  test('an endpoint that restarts is waited for', async () => {
    const options = s3OptionsOf(
      { ...server, endpoint: proxy.endpoint },
      { ...QUICK, attemptsMax: 2, ioTimeoutMs: 60_000 },
    )
    const patient = await openS3Store('s3://guards', options)
    proxy.fault(isPut, { kind: 'refuse' }, 7)
    await patient.put('patient', randomBytes(10), { guard: ABSENT })
    await patient.close()
  })

  test('copies, changes of attributes and renames whose answers are lost have succeeded', async () => {
    const bytes = randomBytes(10)
    await store.put('source', bytes, { guard: ABSENT, attributes: { mode: 0o600 } })
    proxy.fault(isPut, { kind: 'lose' })
    await store.copy('source', 'copy', { guard: ABSENT })
    proxy.fault(isPut, { kind: 'lose' })
    const changed = await store.setAttributes('copy', { mode: 0o640 }, { guard: ANY })
    assert.equal((await store.stat('copy')).version, changed.version)
    proxy.fault(isPut, { kind: 'lose' })
    proxy.fault(isDelete, { kind: 'lose' })
    await store.rename('copy', 'renamed', { guard: ANY, targetGuard: ABSENT })
    await isGone('copy')
    assert.deepEqual(await content('renamed'), bytes)
    assert.equal((await store.stat('renamed')).attributes?.mode, 0o640)
  })

  test('a rename that fails on its way leaves the source whole and no copies', async () => {
    for (let index = 0; index < 40; index++) await store.put(`tree/f${index}`, randomBytes(10), { guard: ABSENT })
    const denied = { kind: 'answer', status: 403, body: errorDocument('AccessDenied') } as const
    proxy.fault((request) => isPut(request) && request.url.endsWith('f7'), denied, 100)
    await assert.rejects(store.rename('tree', 'elsewhere', { guard: ANY, targetGuard: ABSENT }), (error) =>
      isOperationError(error, 'STORE_DENIED'),
    )
    let count = 0
    for await (const page of store.list('tree')) count += page.length
    assert.equal(count, 40)
    await isGone('elsewhere')
  })

  test('a completion under a guard counts once, and loses against another', async () => {
    const bytes = randomBytes(11 * 2 ** 20)
    proxy.fault(isComplete, { kind: 'lose' })
    const put = await store.put('large', bytes, { guard: ABSENT })
    assert.equal((await store.stat('large')).version, put.version)
    assert.ok((await content('large')).equals(bytes))
    await conflicts(store.put('large', randomBytes(11 * 2 ** 20), { guard: ABSENT }))
    assert.ok((await content('large')).equals(bytes))
  })

  test('an upload that lost a race at its completion is sent again, once', async () => {
    const race = { kind: 'answer', status: 409, body: errorDocument('ConditionalRequestConflict') } as const
    const creates = (): number => proxy.noted.filter(({ url }) => url.endsWith('?uploads=')).length
    const bytes = randomBytes(11 * 2 ** 20)
    proxy.fault(isComplete, race, 4)
    await store.put('redone', bytes, { guard: ABSENT })
    assert.equal(creates(), 2)
    assert.ok((await content('redone')).equals(bytes))
    proxy.clear()
    proxy.fault(isComplete, race, 100)
    await conflicts(store.put('redone-again', bytes, { guard: ABSENT }))
    assert.equal(creates(), 2)
    await isGone('redone-again')
  })

  test('the checksum of the whole goes with an upload in parts, and comes back with a read', async () => {
    const bytes = randomBytes(12 * 2 ** 20)
    await store.put('summed', bytes, { guard: ANY })
    const completion = proxy.noted.find(isComplete)
    assert.match(String(completion?.headers['x-amz-checksum-crc32']), /^[A-Za-z0-9+/]{6}==$/)
    proxy.clear()
    assert.ok((await content('summed')).equals(bytes))
    assert.equal(proxy.noted[0]?.headers['x-amz-checksum-mode'], 'ENABLED')
  })
})
