/**
 * Removal in bulk from a bucket: how many requests it takes, and what becomes of each entry when the server refuses some, removes
 * nothing in bulk, or holds removals to no version. The server is the gateway, behind a proxy.
 */
import assert from 'node:assert/strict'
import { after, before, beforeEach, describe, test } from 'node:test'

import type { S3Options } from '#store/s3/endpoint.ts'
import { openS3Store } from '#store/s3/s3-store.ts'
import { ABSENT, ANY, IMPLICIT_VERSION, type Removal, type Store } from '#store/store.ts'
import { makeBucket, s3OptionsOf } from '#test/servers/bucket.ts'
import { errorDocument, startFaultProxy, type FaultProxy, type Noted } from '#test/servers/fault-proxy.ts'
import { startTestGateway, type TestGateway } from '#test/servers/gateway.ts'

const QUICK: S3Options = { attemptsMax: 4, backoffMs: 1, ioTimeoutMs: 0, timeoutMs: 5000 }
const isBulk = ({ method, url }: Noted): boolean => method === 'POST' && url.includes('delete=')

describe('removal in bulk from a bucket', () => {
  let server: TestGateway
  let proxy: FaultProxy
  let store: Store
  const open = (more: S3Options = {}): Promise<Store> =>
    openS3Store('s3://removal', s3OptionsOf({ ...server, endpoint: proxy.endpoint }, { ...QUICK, ...more }))
  const putAll = async (names: readonly string[]): Promise<Removal[]> => {
    const removals: Removal[] = []
    for (const name of names) {
      const { path, kind, version, modified } = await store.put(name, Buffer.from(name), { guard: ANY })
      removals.push({ path, kind, version, modified })
    }
    proxy.clear()
    return removals
  }
  const codes = async (removals: readonly Removal[], of = store): Promise<string[]> =>
    (await of.removeAll(removals)).map((outcome) => outcome?.code ?? 'done')
  const requests = (): string[] =>
    proxy.noted.map((request) => {
      if (isBulk(request)) return 'BULK'
      return request.url.includes('list-type') ? 'LIST' : request.method
    })
  const numbered = (directory: string, count: number): string[] =>
    Array.from({ length: count }, (_, index) => `${directory}/f${String(index).padStart(5, '0')}`)

  before(async () => {
    server = await startTestGateway()
    proxy = await startFaultProxy(server.endpoint)
    await makeBucket(server, 'removal')
    store = await open()
  })
  after(async () => {
    await store?.close()
    await proxy?.close()
    await server?.stop()
  })
  beforeEach(() => proxy.clear())

  test('2,100 files and their directories are three requests, and directories without objects none', async () => {
    const removals = await putAll(numbered('many', 2100))
    const directories = ['many', 'implied'].map(
      (path) => ({ path, kind: 'directory', version: IMPLICIT_VERSION }) as const,
    )
    // With the usual patience: a server that is only slow with a thousand objects is not asked what became of them.
    const patient = await openS3Store('s3://removal', s3OptionsOf({ ...server, endpoint: proxy.endpoint }))
    proxy.clear()
    assert.deepEqual([...new Set(await codes([...removals, ...directories], patient))], ['done'])
    assert.deepEqual(requests(), ['BULK', 'BULK', 'BULK'])
    await patient.close()
    for await (const page of store.list(''))
      assert.deepEqual(
        page.filter(({ path }) => path === 'many'),
        [],
      )
    proxy.clear()
    assert.deepEqual(await codes(directories), ['done', 'done'])
    assert.deepEqual(requests(), [])
  })

  test('the object of a directory goes, and leaves it there by what lies in it', async () => {
    const made = await store.makeDirectory('made', { guard: ABSENT })
    const [inner] = await putAll(['made/inner'])
    const { path, kind, version } = made
    assert.deepEqual(await codes([{ path, kind, version }]), ['done'])
    assert.equal((await store.stat('made')).version, IMPLICIT_VERSION)
    assert.deepEqual(await codes(inner === undefined ? [] : [inner]), ['done'])
    await assert.rejects(store.stat('made'))
  })

  test('a removal whose answer is lost has succeeded', async () => {
    const removals = await putAll(['lost/1', 'lost/2'])
    proxy.fault(isBulk, { kind: 'lose' })
    assert.deepEqual(await codes(removals), ['done', 'done'])
    assert.deepEqual(requests(), ['BULK', 'LIST'], 'nothing is sent again for what is seen to be gone')
  })

  test('what the server refuses is told by entry; what it could not do now is asked for again', async () => {
    const removals = await putAll(['some/1', 'some/2', 'some/3'])
    const answer = (code: string, ...keys: string[]): string => {
      const errors = keys.map((key) => `<Error><Key>${key}</Key><Code>${code}</Code><Message>No</Message></Error>`)
      return `<DeleteResult>${errors.join('')}</DeleteResult>`
    }
    proxy.fault(isBulk, { kind: 'answer', status: 200, body: answer('SlowDown', 'some/1', 'some/2') })
    proxy.fault(isBulk, { kind: 'answer', status: 200, body: answer('AccessDenied', 'some/2') })
    assert.deepEqual(await codes(removals), ['done', 'STORE_DENIED', 'done'])
    assert.deepEqual(requests(), ['BULK', 'LIST', 'BULK'])
    proxy.clear()
    proxy.fault(isBulk, { kind: 'answer', status: 200, body: answer('SlowDown', 'some/1') }, 100)
    assert.deepEqual(await codes(removals), ['STORE_THROTTLED', 'done', 'done'])
  })

  test('a request that fails is the outcome of its entries, and rejects only where it is that of all', async () => {
    const removals = await putAll(numbered('half', 1500))
    let bulks = 0
    proxy.fault((request) => isBulk(request) && ++bulks === 1, {
      ...{ kind: 'answer', status: 403, body: errorDocument('AccessDenied') },
    })
    const found = await codes(removals)
    assert.deepEqual([...new Set(found)].toSorted(), ['STORE_DENIED', 'done'])
    assert.ok([500, 1000].includes(found.filter((code) => code === 'done').length))
    proxy.fault(isBulk, { kind: 'answer', status: 403, body: errorDocument('AccessDenied') }, 2)
    const afresh = removals.map((removal) => ({ ...removal }))
    await assert.rejects(store.removeAll(afresh), { code: 'STORE_DENIED' })
    assert.deepEqual(new Set(await codes(removals)), new Set(['done', 'STORE_NOT_FOUND']))
  })

  test('[S3] a server that removes nothing in bulk is asked one by one, in the version that was seen', async () => {
    const old = await open()
    const removals = await putAll(['single/1', 'single/2', 'single/3'])
    await store.put('single/2', Buffer.from('theirs'), { guard: ANY })
    proxy.clear()
    proxy.fault(isBulk, { kind: 'answer', status: 501, body: errorDocument('NotImplemented') }, 100)
    assert.deepEqual(await codes(removals, old), ['done', 'STORE_CONFLICT', 'done'])
    assert.deepEqual(requests(), ['BULK', 'DELETE', 'DELETE', 'DELETE'])
    proxy.clear()
    const [again] = await putAll(['single/4'])
    assert.deepEqual(await codes(again === undefined ? [] : [again], old), ['done'])
    assert.deepEqual(requests(), ['DELETE'], 'what the server does not do is not tried again')
    await old.close()
  })

  test('[S3] where removals are held to no version, one page of each directory tells the versions', async () => {
    const unheld = await open({ probe: false })
    const removals = [...(await putAll(numbered('looked/a', 300))), ...(await putAll(numbered('looked/b', 200)))]
    await store.put(removals[7]?.path ?? '', Buffer.from('theirs'), { guard: ANY })
    await store.remove(removals[8]?.path ?? '', { guard: ANY })
    const [alone] = await putAll(['looked/c/alone'])
    if (alone !== undefined) removals.push(alone)
    const found = await codes(removals, unheld)
    const kept = found.flatMap((code, index) => (code === 'done' ? [] : [`${index} ${code}`]))
    assert.deepEqual(kept, ['7 STORE_CONFLICT', '8 STORE_NOT_FOUND'])
    assert.deepEqual(requests().toSorted(), ['BULK', 'HEAD', 'LIST', 'LIST'])
    assert.equal((await (await store.read(removals[7]?.path ?? '')).bytes()).toString(), 'theirs')
    await unheld.close()
  })
})
