/**
 * What is sent again, or listed on and on: what others have made in between stays theirs, of two that make a name one succeeds, and
 * a server that gives the same page for ever is told so. The server is the gateway, behind a proxy that refuses and loses answers.
 */
import assert from 'node:assert/strict'
import { after, before, beforeEach, describe, test } from 'node:test'

import { isOperationError } from '#base/errors.ts'
import { setLogLevel } from '#base/log.ts'
import { timestamp } from '#base/time.ts'
import type { S3Options } from '#store/s3/endpoint.ts'
import { openS3Store } from '#store/s3/s3-store.ts'
import { ABSENT, ANY, ifVersion, type Removal, type Store } from '#store/store.ts'
import { makeBucket, s3OptionsOf } from '#test/servers/bucket.ts'
import { errorDocument, startFaultProxy, type Fault, type FaultProxy, type Noted } from '#test/servers/fault-proxy.ts'
import { startTestGateway, type TestGateway } from '#test/servers/gateway.ts'

setLogLevel('silent')

const QUICK: S3Options = { attemptsMax: 4, backoffMs: 1, ioTimeoutMs: 0, timeoutMs: 5000 }
const BUSY: Fault = { kind: 'answer', status: 503, body: errorDocument('ServiceUnavailable') }
const LOST: Fault = { kind: 'lose' }
const isPut = ({ method }: Noted): boolean => method === 'PUT'
const isDelete = ({ method }: Noted): boolean => method === 'DELETE'
const isBulk = ({ method, url }: Noted): boolean => method === 'POST' && url.includes('delete=')
const isList = ({ url }: Noted): boolean => url.includes('list-type')
const codeOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'done',
    (error: unknown) => (isOperationError(error) ? error.code : String(error)),
  )

describe('what the S3 store sends again', () => {
  let server: TestGateway
  let proxy: FaultProxy
  let other: Store
  const open = (more: S3Options = {}): Promise<Store> =>
    openS3Store('s3://resends', s3OptionsOf({ ...server, endpoint: proxy.endpoint }, { ...QUICK, ...more }))
  const text = async (path: string): Promise<string> => (await (await other.read(path)).bytes()).toString()
  /** Before what `store` asks next after a request that `sent` matches, somebody else acts. */
  const meanwhile = (sent: (request: Noted) => boolean, act: () => Promise<unknown>): void => {
    let begun: Promise<unknown> | undefined
    const until = (): Promise<unknown> => (begun ??= act())
    proxy.fault(() => proxy.noted.slice(0, -1).some(sent), { kind: 'wait', until }, 100)
  }

  before(async () => {
    server = await startTestGateway()
    proxy = await startFaultProxy(server.endpoint)
    await makeBucket(server, 'resends')
    other = await openS3Store('s3://resends', s3OptionsOf(server, QUICK))
  })
  after(async () => {
    await other?.close()
    await proxy?.close()
    await server?.stop()
  })
  beforeEach(() => proxy.clear())

  const CHECKED: readonly [string, (store: Store, path: string) => Promise<unknown>, (request: Noted) => boolean][] = [
    ['a put over a version', async (s, p) => s.put(p, Buffer.from('ours'), { guard: await seen(s, p) }), isPut],
    ['a removal', async (s, p) => s.remove(p, { guard: await seen(s, p) }), isDelete],
    ['the removal of what was copied', (s, p) => s.rename(p, `${p}2`, { guard: ANY, targetGuard: ABSENT }), isDelete],
  ]
  async function seen(store: Store, path: string): Promise<ReturnType<typeof ifVersion>> {
    return ifVersion((await store.stat(path)).version)
  }
  for (const [what, act, isWrite] of CHECKED) {
    test(`[S120] ${what} that the server was too busy for is looked at anew where it decides on no guard`, async () => {
      const store = await open({ probe: false })
      await other.put('checked', Buffer.from('old'), { guard: ANY })
      proxy.clear()
      proxy.fault(isWrite, BUSY)
      meanwhile(isWrite, () => other.put('checked', Buffer.from('theirs, acknowledged'), { guard: ANY }))
      assert.equal(await codeOf(act(store, 'checked')), 'STORE_CONFLICT')
      assert.equal(await text('checked'), 'theirs, acknowledged')
      await store.close()
    })
  }

  test('[S120] removals in bulk are looked at before each attempt where the server decides on no guard', async () => {
    const store = await open({ probe: false })
    const removals = await putAll(['unheld/1', 'unheld/2'])
    proxy.fault(isBulk, BUSY)
    meanwhile(isBulk, () => other.put('unheld/2', Buffer.from('theirs'), { guard: ANY }))
    const outcomes = await store.removeAll(removals)
    assert.deepEqual(
      outcomes.map((outcome) => outcome?.code),
      [undefined, 'STORE_CONFLICT'],
    )
    assert.equal(await text('unheld/2'), 'theirs')
    await store.close()
  })

  test('[S9] a put whose answer was lost is ours also where the server decides on no guard', async () => {
    const store = await open({ probe: false })
    proxy.fault(isPut, LOST)
    const { version } = await store.put('own', Buffer.from('own'), { guard: ABSENT, attributes: { mode: 0o600 } })
    assert.equal((await other.stat('own')).version, version)
    await store.close()
  })

  /** Puts empty files, which all have one version, and gives them as seen a while ago. */
  async function putAll(paths: readonly string[], ageSeconds = 0): Promise<Removal[]> {
    const removals: Removal[] = []
    for (const name of paths) {
      const { path, kind, version, modified } = await other.put(name, Buffer.alloc(0), { guard: ANY })
      removals.push({ path, kind, version, modified: timestamp(modified.seconds - ageSeconds) })
    }
    proxy.clear()
    return removals
  }

  test('[S121] removals whose answer was lost leave what others have made since, though of the same bytes', async () => {
    const store = await open()
    const names = ['aba/1', 'aba/2', 'aba/3']
    const removals = await putAll(names, 60)
    proxy.fault(isBulk, LOST)
    meanwhile(isBulk, () => other.put('aba/2', Buffer.alloc(0), { guard: ABSENT }))
    const outcomes = await store.removeAll(removals)
    assert.deepEqual(
      outcomes.map((outcome) => outcome?.code),
      [undefined, 'STORE_CONFLICT', undefined],
    )
    assert.equal(await text('aba/2'), '')
    assert.equal(proxy.noted.filter(isBulk).length, 1)
    await store.close()
  })

  test('[S121] removals that failed are looked at when they are asked for again, and directories, too', async () => {
    const store = await open({ attemptsMax: 1 })
    const removals = await putAll(['later/1', 'later/2'], 60)
    const made = await other.makeDirectory('later/dir', { guard: ABSENT })
    removals.push({ path: 'later/dir', kind: 'directory', version: made.version, modified: timestamp(0) })
    proxy.fault(isBulk, LOST)
    assert.equal(await codeOf(store.removeAll(removals)), 'STORE_UNAVAILABLE')
    await other.put('later/1', Buffer.alloc(0), { guard: ABSENT })
    await other.makeDirectory('later/dir', { guard: ABSENT })
    const outcomes = await store.removeAll(removals)
    assert.deepEqual(
      outcomes.map((outcome) => outcome?.code),
      ['STORE_CONFLICT', undefined, 'STORE_CONFLICT'],
    )
    assert.equal(await text('later/1'), '')
    assert.equal((await other.stat('later/dir')).kind, 'directory')
    await store.close()
  })

  test('[S121] what is still there as it was is removed when the server has time', async () => {
    const store = await open()
    const removals = await putAll(['busy/1', 'busy/2'])
    proxy.fault(isBulk, BUSY)
    assert.deepEqual(await store.removeAll(removals), [undefined, undefined])
    assert.equal(await codeOf(other.stat('busy/1')), 'STORE_NOT_FOUND')
    await store.close()
  })

  test('[S121] a removal whose answer was lost leaves what others have made since', async () => {
    const store = await open()
    const { version } = await other.put('single', Buffer.alloc(0), { guard: ANY })
    proxy.fault(isDelete, LOST)
    meanwhile(isDelete, () => other.put('single', Buffer.alloc(0), { guard: ABSENT }))
    assert.equal(await codeOf(store.remove('single', { guard: ifVersion(version) })), 'STORE_CONFLICT')
    assert.equal(await text('single'), '')
    await store.close()
  })

  const MAKERS: readonly [string, (store: Store, path: string) => Promise<unknown>][] = [
    ['directory', (store, path) => store.makeDirectory(path, { guard: ABSENT, seenAbsent: true })],
    ['symlink', (store, path) => store.symlink(path, 'target', { guard: ABSENT, seenAbsent: true })],
    ['file', (store, path) => store.put(path, Buffer.from('same'), { guard: ABSENT, seenAbsent: true })],
  ]
  for (const [what, make] of MAKERS) {
    for (const [why, fault] of [
      ['the server was too busy', BUSY],
      ['the request never came', { kind: 'refuse' } as const],
    ] as const) {
      test(`[S123] of two that make a ${what} without attributes one succeeds, where ${why}`, async () => {
        const store = await open({ metadata: false })
        const theirs = await openS3Store('s3://resends', s3OptionsOf(server, { ...QUICK, metadata: false }))
        const path = `lock-${what}-${fault.kind}`
        proxy.clear()
        proxy.fault(isPut, fault)
        const made = Promise.withResolvers<string>()
        meanwhile(isPut, async () => made.resolve(await codeOf(make(theirs, path))))
        const outcomes = [await codeOf(make(store, path)), await made.promise]
        assert.deepEqual(outcomes, ['STORE_CONFLICT', 'done'])
        await Promise.all([store.close(), theirs.close()])
      })
    }
  }

  test('[S124] a listing that does not go on is an error, by a token or by its keys', async () => {
    const store = await open()
    const page = (key: string, token: string): string =>
      `<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>${token}</NextContinuationToken>` +
      `<Contents><Key>${key}</Key><Size>1</Size><ETag>"e"</ETag></Contents></ListBucketResult>`
    const list = async (): Promise<void> => {
      for await (const found of store.list('', { recursive: true })) assert.ok(found.length >= 0)
    }
    for (const [second, token] of [
      ['b', 't'],
      ['a', 'u'],
    ] as const) {
      proxy.clear()
      proxy.fault(isList, { kind: 'answer', status: 200, body: page('a', 't') })
      proxy.fault(isList, { kind: 'answer', status: 200, body: page(second, token) }, 100)
      assert.equal(await codeOf(list()), 'STORE_PROTOCOL')
      assert.ok(proxy.noted.filter(isList).length <= 3)
    }
    await store.close()
  })
})
