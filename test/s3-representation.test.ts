/**
 * What the S3 store keeps in a bucket and what it makes of what others keep there, looked at behind its back on a real S3
 * server; and how many requests each call takes.
 */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'

import { isOperationError } from '#base/errors.ts'
import { registry } from '#base/metrics.ts'
import { headerOf, type S3Client } from '#store/s3/client.ts'
import type { S3Options } from '#store/s3/endpoint.ts'
import { listPage } from '#store/s3/listing.ts'
import { openS3Store } from '#store/s3/s3-store.ts'
import { PartBuffers } from '#store/s3/part-buffers.ts'
import type { Header } from '#store/s3/signer.ts'
import {
  ABSENT,
  ANY,
  ifVersion,
  IMPLICIT_VERSION,
  type Entry,
  type ListOptions,
  type Store,
  type Version,
} from '#store/store.ts'
import { BucketStore } from '#store/s3/bucket-store.ts'
import { limitsOf } from '#store/s3/context.ts'
import { NONE_HONOURED } from '#store/s3/guards.ts'
import { Keys } from '#store/s3/keys.ts'
import { timestampNow } from '#base/time.ts'
import { clientOf, makeBucket, s3OptionsOf } from '#test/servers/bucket.ts'
import { startFaultProxy, type FaultProxy, type Upstream } from '#test/servers/fault-proxy.ts'
import { radosgwMissing, startRadosgw, type Radosgw } from '#test/servers/radosgw.ts'

const hiddenKeys = async (): Promise<number> =>
  (await registry.getSingleMetric('eider_s3_hidden_keys_total')?.get())?.values[0]?.value ?? 0

describe('the S3 store and its bucket', { skip: radosgwMissing() }, () => {
  let server: Radosgw
  let proxy: FaultProxy
  let raw: S3Client
  let store: Store
  const open = (url: string, more: S3Options = {}): Promise<Store> =>
    openS3Store(url, s3OptionsOf({ ...server, endpoint: proxy.endpoint }, { probe: false, ...more }))
  const put = (key: string, body: string, headers: Header[] = []): Promise<unknown> =>
    raw.send({ operation: 'PutObject', method: 'PUT', key, body: Buffer.from(body), headers }, () => undefined)
  const head = async (key: string): Promise<(name: string) => string | undefined> =>
    raw.send({ operation: 'HeadObject', method: 'HEAD', key }, (answer) => (name) => headerOf(answer, name))
  const get = async (key: string): Promise<string> =>
    raw.send({ operation: 'GetObject', method: 'GET', key }, (answer) => answer.body.toString())
  const keys = async (prefix: string): Promise<string[]> =>
    (await listPage(raw, { prefix, delimited: false })).items.map((item) => ('key' in item ? item.key : item.prefix))
  const list = async (path: string, options: ListOptions = {}, of = store): Promise<string[]> => {
    const found: string[] = []
    for await (const page of of.list(path, options)) {
      found.push(...page.map((entry) => entry.path + (entry.kind === 'directory' ? '/' : '')))
    }
    return found
  }

  before(async () => {
    server = await startRadosgw()
    proxy = await startFaultProxy(server.endpoint)
    await makeBucket(server, 'bucket')
    raw = clientOf(server, 'bucket')
    store = await open('s3://bucket/root')
  })
  after(async () => {
    await store?.close()
    await raw?.close()
    await proxy?.close()
    await server?.stop()
  })

  test('[S11, S12] a file is an object of its bytes, with its type and the attributes of yas3fs', async () => {
    const attributes = { mode: 0o640, uid: 7, gid: 8, mtime: { seconds: 1_700_000_000, nanoseconds: 123_456_789 } }
    await store.put('page.html', Buffer.from('<p>'), { guard: ABSENT, attributes })
    const found = await head('root/page.html')
    assert.equal(await get('root/page.html'), '<p>')
    assert.equal(found('content-type'), 'text/html')
    assert.equal(
      found('x-amz-meta-attr'),
      '{"st_uid": 7, "st_gid": 8, "st_mode": 33184, "st_mtime": 1700000000.123456789, "st_size": 3}',
    )
    assert.equal(found('x-amz-meta-xattr'), undefined)
  })

  test('[S13, S14] directories and symlinks are the objects that yas3fs has for them', async () => {
    await store.makeDirectory('made', { guard: ABSENT, attributes: { mode: 0o711 } })
    await store.symlink('link', '../target', { guard: ABSENT, attributes: { uid: 1 } })
    const directory = await head('root/made/')
    assert.deepEqual([directory('content-type'), directory('content-length')], ['application/x-directory', '0'])
    assert.match(directory('x-amz-meta-attr') ?? '', /"st_mode": 16841/)
    const link = await head('root/link')
    assert.equal(link('content-type'), 'application/x-symlink')
    assert.match(link('x-amz-meta-attr') ?? '', /"st_mode": 41471/)
    assert.equal(await get('root/link'), '../target')
  })

  test('[S12] what yas3fs of both eras wrote is read', async () => {
    await put('root/old', 'x', [['x-amz-meta-attr', 'st_uid=5;st_gid=6;st_mode=33152;st_mtime=1355318001.5']])
    const old = await store.stat('old')
    assert.deepEqual([old.attributes?.uid, old.attributes?.mode, old.size], [5, 0o600, 1])
    assert.deepEqual(old.attributes?.mtime, { seconds: 1_355_318_001, nanoseconds: 500_000_000 })
    await put('root/old-link', 'here', [['content-type', 'application/x-symlink']])
    assert.equal((await store.stat('old-link')).kind, 'symlink')
    assert.equal(await store.readLink('old-link'), 'here')
  })

  test('[S80] fifos and sockets are empty objects with the type bits of yas3fs, and an object with bytes is a file', async () => {
    await store.makeSpecial('fifo', 'fifo', { guard: ABSENT, attributes: { mode: 0o600 } })
    await store.makeSpecial('socket', 'socket', { guard: ABSENT })
    const fifo = await head('root/fifo')
    assert.deepEqual([fifo('content-type'), fifo('content-length')], ['inode/fifo', '0'])
    assert.equal(JSON.parse(fifo('x-amz-meta-attr') ?? '').st_mode, 0o010600)
    assert.equal(JSON.parse((await head('root/socket'))('x-amz-meta-attr') ?? '').st_mode, 0o140644)
    await put('root/theirs', '', [['x-amz-meta-attr', '{"st_mode": 49645, "st_uid": 3}']])
    assert.deepEqual(
      [(await store.stat('theirs')).kind, (await store.stat('theirs')).attributes?.mode],
      ['socket', 0o755],
    )
    await put('root/pipe', '', [['x-amz-meta-attr', 'st_uid=5;st_mode=4516']])
    assert.equal((await store.stat('pipe')).kind, 'fifo')
    await put('root/bytes', 'x', [['x-amz-meta-attr', '{"st_mode": 4516}']])
    assert.equal((await store.stat('bytes')).kind, 'file')
    assert.equal((await (await store.read('bytes')).bytes()).toString(), 'x')
    const plain = await open('s3://bucket/plain?metadata=false')
    assert.equal(plain.capabilities.specials, false)
    await plain.close()
  })

  test('[S78] where listings are trusted, they are complete, and nothing else says more than they do', async () => {
    await put('trusted/file', 'bytes', [['x-amz-meta-attr', '{"st_mode": 33152}']])
    await put('trusted/link', 'file', [['content-type', 'application/x-symlink']])
    await put('trusted/made/', '', [['x-amz-meta-attr', '{"st_mode": 16832}']])
    const trusting = await open('s3://bucket/trusted?trustListing=true')
    const { attributes, listingComplete, specials } = trusting.capabilities
    assert.deepEqual([attributes, listingComplete, specials], [false, true, false])
    proxy.clear()
    const listed: Entry[] = []
    for await (const page of trusting.list('')) listed.push(...page)
    assert.equal(proxy.noted.length, 1)
    assert.deepEqual(
      listed.map(({ path, kind, size, attributes: known }) => [path, kind, size, known]),
      [
        ['file', 'file', 5, {}],
        ['link', 'file', 4, {}],
        ['made', 'directory', 0, {}],
      ],
    )
    for (const entry of listed) {
      const { path, kind, version, attributes: known } = await trusting.stat(entry.path)
      assert.deepEqual([path, kind, version, known], [entry.path, entry.kind, entry.version, {}])
    }
    const unsupported = (promise: Promise<unknown>): Promise<void> =>
      assert.rejects(promise, (error) => isOperationError(error, 'STORE_UNSUPPORTED'))
    await unsupported(trusting.symlink('new', 'file', { guard: ABSENT }))
    await unsupported(trusting.makeSpecial('new', 'fifo', { guard: ABSENT }))
    await unsupported(trusting.setAttributes('file', { mode: 0o600 }, { guard: ANY }))
    // What a listing says is enough to rename and to remove.
    const made = listed[2]?.version ?? ('' as Version)
    await trusting.rename('made', 'moved', { guard: ifVersion(made), targetGuard: ABSENT })
    assert.deepEqual(await keys('trusted/moved'), ['trusted/moved/'])
    const removals = [...listed.slice(0, 2), { ...(await trusting.stat('moved')) }]
    assert.deepEqual(await trusting.removeAll(removals), [undefined, undefined, undefined])
    assert.deepEqual(await keys('trusted/'), [])
    await trusting.close()
  })

  test('[S15] a change of attributes keeps all else that the object has', async () => {
    const kept: Header[] = [
      ['content-type', 'text/x-special'],
      ['cache-control', 'max-age=60'],
      ['content-encoding', 'gzip'],
      ['content-disposition', 'attachment; filename="a  b"'],
      ['content-language', 'de'],
      ['x-amz-meta-other', 'mine'],
      ['x-amz-meta-attr', '{"st_uid": 3, "st_nlink": 1}'],
    ]
    await put('root/kept', 'bytes', kept)
    await store.setAttributes('kept', { mode: 0o600, xattrs: new Map([['user.a', Buffer.from('b')]]) }, { guard: ANY })
    const found = await head('root/kept')
    for (const [name, value] of kept.slice(0, 6)) assert.equal(found(name), value, name)
    assert.deepEqual(JSON.parse(found('x-amz-meta-attr') ?? ''), {
      ...{ st_uid: 3, st_mode: 0o100600, st_size: 5, st_nlink: 1 },
    })
    assert.equal(found('x-amz-meta-xattr'), '{"user.a": "b"}')
    assert.equal(await get('root/kept'), 'bytes')
    await store.setAttributes('kept', { xattrs: new Map() }, { guard: ANY })
    assert.equal((await head('root/kept'))('x-amz-meta-xattr'), undefined)
  })

  test('an implied directory is made when it gets attributes, and the root has some too', async () => {
    await put('root/implied/x', '')
    assert.equal((await store.stat('implied')).version, IMPLICIT_VERSION)
    await store.setAttributes('implied', { mode: 0o700 }, { guard: ANY })
    assert.match((await head('root/implied/'))('x-amz-meta-attr') ?? '', /"st_mode": 16832/)
    await store.setAttributes('', { mode: 0o750 }, { guard: ANY })
    assert.match((await head('root/'))('x-amz-meta-attr') ?? '', /"st_mode": 16872/)
    assert.equal((await store.stat('')).attributes?.mode, 0o750)
    const whole = await open('s3://bucket')
    await whole.setAttributes('', { mode: 0o755 }, { guard: ANY })
    assert.match((await head('.'))('x-amz-meta-attr') ?? '', /"st_mode": 16877/)
    assert.equal((await whole.stat('')).attributes?.mode, 0o755)
    assert.ok(!(await list('', {}, whole)).includes('.'))
    await whole.close()
  })

  test('[S16] without metadata no attribute is written or read, and directories still are', async () => {
    const plain = await open('s3://bucket/plain?metadata=false')
    assert.equal(plain.capabilities.attributes, false)
    await plain.put('f', Buffer.from('x'), { guard: ANY, attributes: { mode: 0o600 } })
    await plain.makeDirectory('d', { guard: ABSENT, attributes: { mode: 0o700 } })
    assert.equal((await head('plain/f'))('x-amz-meta-attr'), undefined)
    assert.equal((await head('plain/d/'))('x-amz-meta-attr'), undefined)
    assert.deepEqual((await plain.stat('d')).attributes, {})
    await assert.rejects(plain.setAttributes('f', { mode: 0o600 }, { guard: ANY }), (error) =>
      isOperationError(error, 'STORE_UNSUPPORTED'),
    )
    await plain.close()
  })

  test('keys that can be no path are hidden, and nothing else is', async () => {
    for (const key of ['ok', '/empty', 'a//b', './x', '../x', 'a/./y', 'é', `${'n'.repeat(256)}/x`]) {
      await put(`root/odd/${key}`, '')
    }
    assert.deepEqual(await list('odd'), ['odd/a/', 'odd/ok', 'odd/é'])
    assert.deepEqual(await list('odd/a'), [])
    assert.deepEqual(await list('odd', { recursive: true }), ['odd/ok', 'odd/é'])
  })

  test('hidden keys are counted, each time, and what is the program’s own is hidden without', async () => {
    for (const key of ['a//b', 'fine', '..']) await put(`root/hiding/${key}`, '')
    await put('root/.eider/something', '')
    const counted = async (call: () => Promise<string[]>): Promise<[number, string[]]> => {
      const start = await hiddenKeys()
      const found = await call()
      return [(await hiddenKeys()) - start, found]
    }
    assert.deepEqual(await counted(() => list('hiding', { recursive: true })), [2, ['hiding/fine']])
    assert.deepEqual(await counted(() => list('hiding', { recursive: true })), [2, ['hiding/fine']])
    const [count, top] = await counted(() => list(''))
    assert.equal(count, 0)
    assert.ok(!top.some((path) => path.startsWith('.eider')))
    for (const call of [store.stat('.eider'), store.put('.eider/x', Buffer.from('x'), { guard: ANY })]) {
      await assert.rejects(call, (error) => isOperationError(error, 'STORE_NAME_INVALID'))
    }
  })

  test('who asks is told of each key that is hidden, before the page that would have had it', async () => {
    const long = 'n'.repeat(256)
    const odd = ['/empty', 'a//b', 'a/../c', 'x/..', 'end//', `${long}/x`, 'conf', 'same']
    for (const key of [...odd, 'a/fine', 'conf-2', 'conf/x', 'same/', 'z']) await put(`root/told/${key}`, '')
    const told: string[] = []
    const onHidden = ({ path, detail }: { path: string; detail: string }): void => {
      assert.notEqual(detail, '')
      told.push(path)
    }
    const expected = odd.map((key) => `told/${key}`).toSorted()
    for (const pageEntries of [1, 2, 3, 1000]) {
      told.length = 0
      const found: string[] = []
      for await (const page of store.list('told', { recursive: true, pageEntries, onHidden })) {
        found.push(...page.map(({ path }) => path))
        const last = found.at(-1) ?? ''
        const due = expected.filter((path) => path < last)
        assert.deepEqual(
          due.filter((path) => !told.includes(path)),
          [],
          `before ${last} in pages of ${pageEntries}`,
        )
      }
      assert.deepEqual(told.toSorted(), expected)
      assert.deepEqual(found, ['told/a/fine', 'told/conf-2', 'told/conf/x', 'told/same', 'told/z'])
    }
    told.length = 0
    for await (const _ of store.list('told', { onHidden })) void _
    assert.deepEqual(told.toSorted(), ['told//', 'told/conf', `told/${long}/`, 'told/same'].toSorted())
    told.length = 0
    for await (const _ of store.list('told', { recursive: true, prefix: 'a/', after: 'a/..', onHidden })) void _
    assert.deepEqual(told.toSorted(), ['told/a/../c', 'told/a//b'].toSorted())
    assert.deepEqual(await list('told/a', { onHidden: () => assert.fail(), prefix: 'f' }), ['told/a/fine'])
  })

  test('a key that is no UTF-8 is hidden, and not the name of another', async () => {
    await put('root/latin/caf\u00e9', '')
    const odd = (upstream: Upstream): Upstream => ({
      ...upstream,
      body: Buffer.from(upstream.body.toString().replace('caf%C3%A9', 'caf%E9')),
    })
    proxy.fault(({ url }) => url.includes('list-type'), { kind: 'alter', alter: odd })
    const told: string[] = []
    assert.deepEqual(await list('latin', { onHidden: ({ path }) => told.push(path) }), [])
    assert.deepEqual(told, ['latin/caf\\xe9'])
    assert.deepEqual(await list('latin'), ['latin/caf\u00e9'])
  })

  test('[S127] a name that is a file and a directory is the directory, to who looks and to who lists, and told of once', async () => {
    const shadowed = async (): Promise<number> =>
      (await registry.getSingleMetric('eider_s3_shadowed_keys_total')?.get())?.values[0]?.value ?? 0
    const start = await shadowed()
    await put('root/two/both', 'file')
    await put('root/two/both/inner', 'inner')
    await put('root/two/made', 'file')
    await store.makeDirectory('two/made', { guard: ABSENT, seenAbsent: true, attributes: { mode: 0o711 } })
    assert.equal((await store.stat('two/both')).kind, 'directory')
    const made = await store.stat('two/made')
    assert.deepEqual([made.kind, made.attributes?.mode], ['directory', 0o711])
    assert.deepEqual(await list('two'), ['two/both/', 'two/made/'])
    assert.deepEqual(await list('two/both'), ['two/both/inner'])
    const page = await store.listTree?.('two', {})
    assert.ok(!page?.entries.some(({ kind, path }) => kind === 'file' && path !== 'two/both/inner'))
    assert.equal((await (await store.read('two/both/inner')).bytes()).toString(), 'inner')
    assert.equal((await shadowed()) - start, 2)
    assert.equal(await get('root/two/both'), 'file')
    await store.rename('two/both', 'two/moved', { guard: ANY, targetGuard: ABSENT })
    assert.equal((await (await store.read('two/moved/inner')).bytes()).toString(), 'inner')
    assert.equal((await store.stat('two/both')).kind, 'file')
  })

  test('[S128] a symlink whose target is too long, or no text, is an error rather than another target', async () => {
    const header: Header[] = [['content-type', 'application/x-symlink']]
    const link = async (name: string, body: Buffer): Promise<string> => {
      await raw.send(
        { operation: 'PutObject', method: 'PUT', key: `root/links/${name}`, body, headers: header },
        () => 0,
      )
      return store.readLink(`links/${name}`)
    }
    assert.equal((await link('longest', Buffer.alloc(4095, 'x'))).length, 4095)
    await assert.rejects(link('long', Buffer.alloc(4096, 'x')), (error) =>
      isOperationError(error, 'STORE_NAME_TOO_LONG'),
    )
    await assert.rejects(link('huge', Buffer.alloc(99999, 'x')), (error) =>
      isOperationError(error, 'STORE_NAME_TOO_LONG'),
    )
    await assert.rejects(link('latin', Buffer.from([0x61, 0xe9])), (error) =>
      isOperationError(error, 'STORE_NAME_INVALID'),
    )
  })

  test('[S127] what is known to be a file costs one request to look at, and what is not known two', async () => {
    await put('root/looks/file', 'x')
    const requests = async (work: () => Promise<unknown>): Promise<number> => {
      proxy.clear()
      await work()
      return proxy.noted.length
    }
    const missing = (path: string): Promise<unknown> =>
      assert.rejects(store.stat(path), (error) => isOperationError(error, 'STORE_NOT_FOUND'))
    assert.equal(await requests(() => store.stat('looks/file')), 2)
    assert.equal(await requests(() => store.stat('looks/file', { expected: 'file' })), 1)
    assert.equal(await requests(() => store.stat('looks')), 2)
    assert.equal(await requests(() => missing('looks/none')), 2)
  })

  test('a key that is a file and has keys under it is listed once, as the directory, however far apart they are', async () => {
    const names = ['a', ...Array.from({ length: 12 }, (_, index) => `a!${index}`), 'a/x', 'b', 'b-', 'b-/y', 'b0', 'c']
    for (const name of names) await put(`root/both/${name}`, '')
    const between = names.slice(1, 13).toSorted()
    const expected = [...between, 'a/', 'b', 'b-/', 'b0', 'c'].map((name) => `both/${name}`)
    for (const pageEntries of [1, 2, 3, 5, 1000]) assert.deepEqual(await list('both', { pageEntries }), expected)
  })

  test('the next page is asked for before it is wanted', async () => {
    proxy.clear()
    const pages = store.list('both', { pageEntries: 4 })[Symbol.asyncIterator]()
    await pages.next()
    while (proxy.noted.length < 2) await new Promise((resolve) => setImmediate(resolve))
    assert.match(proxy.noted[1]?.url ?? '', /continuation-token=/)
    await pages.return?.()
  })

  test('large objects are copied in parts, tags and all, and renamed with their directory', async () => {
    const limits = { ...limitsOf({}), copyBytesMax: 6 * 2 ** 20, copyPartBytes: 5 * 2 ** 20 }
    const client = clientOf({ ...server, endpoint: proxy.endpoint }, 'bucket')
    const small = new BucketStore({
      ...{ client, keys: new Keys('root'), options: {}, honoured: NONE_HONOURED, limits, metadata: true },
      partBuffers: new PartBuffers(limits.putPartBytes),
      opened: timestampNow(),
    })
    const bytes = Buffer.alloc(11 * 2 ** 20, 'ab')
    await put('root/tree/large', bytes.toString(), [
      ['x-amz-meta-attr', '{"st_mode": 33156}'],
      ['x-amz-tagging', 'team=a%20b'],
      ['content-type', 'text/x-special'],
    ])
    await store.put('tree/sub/small', Buffer.from('s'), { guard: ABSENT })
    proxy.clear()
    // This server does not tell that there are tags.
    const tagged = (up: Upstream): Upstream => ({ ...up, headers: { ...up.headers, 'x-amz-tagging-count': '1' } })
    proxy.fault(({ method, url }) => method === 'HEAD' && url.endsWith('/large'), { kind: 'alter', alter: tagged })
    const renamed = await small.rename('tree', 'moved', { guard: ANY, targetGuard: ABSENT })
    assert.equal(renamed.kind, 'directory')
    assert.equal(proxy.noted.filter(({ url }) => url.includes('partNumber=')).length, 3)
    await small.close()
    const begun = proxy.noted.find(({ url }) => url.endsWith('?uploads='))
    assert.equal(begun?.headers['x-amz-tagging'], 'team=a%20b')
    assert.equal((await head('root/moved/large'))('content-type'), 'text/x-special')
    assert.deepEqual(await keys('root/moved'), ['root/moved/large', 'root/moved/sub/small'])
    assert.deepEqual(await keys('root/tree'), [])
    assert.equal((await store.stat('moved/large')).attributes?.mode, 0o604)
    assert.ok((await (await store.read('moved/large')).bytes()).equals(bytes))
  })

  test('keys go out and come back byte for byte', async () => {
    const names = [
      'a+b',
      'a b',
      'a%20b',
      '100%',
      '..a',
      'a..',
      '~',
      'new\nline',
      'q?x#y',
      '💧',
      '\u00e9',
      'e\u0301',
      '"\'<&>',
    ]
    for (const name of names) {
      await store.put(`raw/${name}`, Buffer.from(name), { guard: ABSENT })
      assert.equal(await get(`root/raw/${name}`), name)
    }
    assert.deepEqual(new Set(await list('raw')), new Set(names.map((name) => `raw/${name}`)))
  })

  test('a bucket in the name of the host is reached too', async () => {
    const endpoint = proxy.endpoint.replace('127.0.0.1', 'localhost')
    const virtual = await open('s3://bucket/root?style=virtual', { endpoint })
    await virtual.put('virtual', Buffer.from('v'), { guard: ANY })
    assert.equal(await get('root/virtual'), 'v')
    assert.match(proxy.noted.at(-1)?.headers.host ?? '', /^bucket\.localhost:\d+$/)
    await virtual.close()
  })

  test('what the options ask for is on every write', async () => {
    const options = { sse: 'aws:kms', kmsKeyId: 'testkey-1', requesterPays: true, storageClass: 'STANDARD' } as const
    const encrypted = await open('s3://bucket/encrypted', options)
    proxy.clear()
    await encrypted.put('f', Buffer.from('secret'), { guard: ANY, attributes: { mode: 0o600 } })
    assert.equal((await (await encrypted.read('f')).bytes()).toString(), 'secret')
    for (const { method, headers } of proxy.noted) {
      assert.equal(headers['x-amz-request-payer'], 'requester')
      if (method !== 'PUT') continue
      assert.equal(headers['x-amz-server-side-encryption'], 'aws:kms')
      assert.equal(headers['x-amz-server-side-encryption-aws-kms-key-id'], 'testkey-1')
    }
    await encrypted.close()
  })

  test('each call takes as many requests as it says', async () => {
    const counted = async (expected: string[], call: () => Promise<unknown>): Promise<void> => {
      proxy.clear()
      await call()
      const found = proxy.noted.map(({ method, url }) => (url.includes('list-type') ? 'LIST' : method))
      assert.deepEqual(found.toSorted(), expected.toSorted(), String(call))
    }
    await counted(['PUT'], () => store.put('n/file', Buffer.from('x'), { guard: ANY, attributes: { mode: 0o644 } }))
    await counted(['HEAD', 'PUT'], () => store.put('n/new', Buffer.from('x'), { guard: ABSENT }))
    await counted(['HEAD', 'LIST'], () => store.stat('n/file'))
    await counted(['HEAD'], () => store.stat('n/file', { expected: 'file' }))
    await counted(['HEAD', 'LIST'], () => store.stat('n'))
    await counted(['HEAD', 'LIST'], () => store.stat('nothing').catch(() => undefined))
    await counted(['HEAD'], () => store.stat(''))
    await counted(['LIST'], () => list('n'))
    await counted(['GET'], async () => (await store.read('n/file')).bytes())
    await counted(['GET'], async () => (await store.read('n/file', { offset: 0, length: 100 })).bytes())
    await counted(['GET'], () => store.readLink('link'))
    await counted(['HEAD', 'PUT'], () =>
      store.setAttributes('n/file', { mode: 0o600 }, { guard: ANY, expected: 'file' }),
    )
    await counted(['HEAD', 'PUT'], () => store.copy('n/file', 'n/copy', { guard: ANY }))
    const target = ifVersion((await store.stat('n/file')).version)
    await counted(['HEAD', 'HEAD', 'HEAD', 'PUT', 'HEAD', 'DELETE'], () =>
      store.rename('n/copy', 'n/file', { guard: ANY, targetGuard: target, expected: 'file' }),
    )
    await counted(['HEAD', 'LIST', 'HEAD', 'LIST', 'PUT', 'HEAD', 'DELETE'], () =>
      store.rename('n/file', 'n/moved', { guard: ANY, targetGuard: ANY }),
    )
    await counted(['HEAD', 'DELETE'], () => store.remove('n/moved', { guard: ANY }))
    await counted(['HEAD', 'HEAD', 'HEAD', 'LIST', 'PUT'], () => store.makeDirectory('n/d', { guard: ABSENT }))
    await counted(['LIST', 'DELETE'], () => store.removeDirectory('n/d'))
    const large = Buffer.alloc(17 * 2 ** 20)
    // Two of them note the upload.
    const parts = ['PUT', 'PUT', 'PUT']
    await counted(['PUT', 'PUT', 'POST', ...parts, 'POST', 'HEAD'], () => store.put('n/large', large, { guard: ANY }))
    await counted(['GET', 'GET', 'GET'], async () => (await store.read('n/large')).bytes())
    const ranged = { offset: 2 ** 20, length: 2 ** 30 }
    await counted(['GET', 'GET'], async () => (await store.read('n/large', ranged)).bytes())
  })
})
