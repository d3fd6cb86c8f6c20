/** The Swift actor against a Swift that others wrote, and beside rclone. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdtemp, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { createServer, request as httpRequest, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { promisify } from 'node:util'

import { isOperationError, type OperationError } from '#base/errors.ts'
import { timestamp } from '#base/time.ts'
import type { Actor } from '#sync/actor.ts'
import { actorListing } from '#sync/actor-listing.ts'
import { loadActor } from '#sync/actor-module.ts'
import type { Skipped, TreeEntry } from '#sync/tree.ts'

import { SENT_MTIME, sentFile } from './sent-file.ts'
import { startSwift, swiftMissing, type Swift } from './servers/swift.ts'

const run = promisify(execFile)
const NAMES = ['a b/ü/1.mp3', 'a-b', 'a/#?%&+.mp3', 'a/b/c', 'new\nline', 'z', '\u{1f600}', '\uffee']

describe('the Swift actor', { skip: swiftMissing() ?? false }, () => {
  let swift: Swift
  let scratch = ''
  let containers = 0
  const actors: Actor[] = []

  before(async () => {
    for (const name of Object.keys(process.env)) if (/^(?:ST|OS)_/.test(name)) delete process.env[name]
    scratch = await mkdtemp(join(tmpdir(), 'eider-swift-test-'))
    swift = await startSwift()
  })
  after(async () => {
    for (const actor of actors) await actor.close?.()
    await swift.stop()
    await rm(scratch, { recursive: true, force: true })
  })

  async function open(container = `c${++containers} ü`, options: Record<string, string> = {}): Promise<Actor> {
    const module = await loadActor('swift', scratch)
    const { authUrl, user, key } = swift
    const actor = await module.open({
      options: { segmentSize: '5g', authUrl, user, key, ...options },
      container,
      threads: 8,
      signal: new AbortController().signal,
    })
    actors.push(actor)
    return actor
  }

  async function listed(actor: Actor, under = '', onSkipped?: (skipped: Skipped) => void): Promise<TreeEntry[]> {
    const entries: TreeEntry[] = []
    const options = { scratch, ...(onSkipped === undefined ? {} : { onSkipped }) }
    for await (const page of actorListing(actor, under, options)) entries.push(...page)
    return entries
  }

  /** A request past the actor, as another client sends it. */
  async function raw(method: string, path: string, headers: Record<string, string> = {}, body = ''): Promise<string> {
    const auth = await fetch(swift.authUrl, { headers: { 'x-auth-user': swift.user, 'x-auth-key': swift.key } })
    const token = auth.headers.get('x-auth-token') ?? ''
    const url = `${auth.headers.get('x-storage-url') ?? ''}${path}`
    return new Promise((resolve, reject) => {
      const sent = httpRequest(url, { method, headers: { 'x-auth-token': token, ...headers } }, (answer) => {
        const chunks: Buffer[] = []
        answer.on('data', (chunk: Buffer) => chunks.push(chunk))
        answer.on('end', () => {
          const text = Buffer.concat(chunks).toString()
          if ((answer.statusCode ?? 0) < 300) resolve(text)
          else reject(new Error(`${method} ${path}: ${String(answer.statusCode)} ${text}`))
        })
      })
      sent.on('error', reject)
      sent.end(body)
    })
  }

  async function bytesOf(container: string, name: string): Promise<string> {
    return raw('GET', `/${encodeURIComponent(container)}/${name.split('/').map(encodeURIComponent).join('/')}`)
  }

  async function names(container: string): Promise<string[]> {
    const text = await raw('GET', `/${encodeURIComponent(container)}?format=json`)
    return (JSON.parse(text === '' ? '[]' : text) as { name: string }[]).map(({ name }) => name)
  }

  test('a container that is not there is empty, and comes with the first file', async () => {
    const actor = await open('first')
    assert.deepEqual(await listed(actor), [])
    await Promise.all(['1', '2', '3'].map(async (name) => actor.upload(sentFile(name, Buffer.from(name)), {})))
    assert.deepEqual(await names('first'), ['1', '2', '3'])
  })

  test('what is put is listed in order, and has its time to the nanosecond', async () => {
    const actor = await open('ordered ü')
    const told = new Map<string, TreeEntry>()
    for (const name of NAMES.toReversed()) {
      told.set(name, (await actor.upload(sentFile(name, Buffer.from(`of ${name}`)), {})) as TreeEntry)
    }
    const entries = await listed(actor)
    const inOrder = NAMES.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
    assert.deepEqual(
      entries.map(({ path }) => path),
      inOrder,
    )
    for (const entry of entries) {
      const { version, size } = told.get(entry.path) ?? {}
      assert.deepEqual([entry.version, entry.size, entry.kind], [version, size, 'file'])
      assert.deepEqual(await actor.stat?.(entry.path, {}), { ...entry, mtime: SENT_MTIME })
    }
    assert.equal(await bytesOf('ordered ü', 'a/b/c'), 'of a/b/c')
    assert.equal(await actor.stat?.('not there', {}), undefined)
  })

  test('only what lies at or under a path is listed where that is asked for', async () => {
    const actor = await open('ordered ü')
    const paths = async (under: string): Promise<string[]> => (await listed(actor, under)).map(({ path }) => path)
    assert.deepEqual(await paths('a'), ['a/#?%&+.mp3', 'a/b/c'])
    assert.deepEqual(await paths('z'), ['z'])
    assert.deepEqual(await paths('nothing'), [])
  })

  test('a listing of more than a page comes whole, in pages', async (t) => {
    // A page has ten thousand entries by default: more than a test wants to put.
    const small = await startSwift(100)
    t.after(() => small.stop())
    const count = 250
    const name = (index: number): string => `f${String(index).padStart(6, '0')}`
    const actor = await open('paged', { authUrl: small.authUrl })
    for (let index = 0; index < count; index++) {
      await actor.upload(sentFile(name(index), Buffer.alloc(0)), {})
    }
    const pages: number[] = []
    let at = 0
    for await (const page of actorListing(actor, '', { scratch })) {
      pages.push(page.length)
      for (const { path } of page) assert.equal(path, name(at++))
    }
    assert.deepEqual(pages, [100, 100, 50])
  })

  test('names that no path can be are told, and marks of directories are directories', async () => {
    const actor = await open('odd')
    await actor.upload(sentFile('a', Buffer.from('x')), {})
    for (const name of ['/front', 'a//b', 'dir/', 'dir/../x']) await raw('PUT', `/odd/${encodeURIComponent(name)}`)
    const skipped: string[] = []
    const entries = await listed(actor, '', ({ path, reason }) => skipped.push(`${path} ${reason}`))
    assert.deepEqual(
      entries.map(({ path, kind }) => [path, kind]),
      [
        ['a', 'file'],
        ['dir', 'directory'],
      ],
    )
    assert.deepEqual(skipped, ['/front invalid-name', 'a//b invalid-name', 'dir/../x invalid-name'])
    await actor.delete(entries[1] as TreeEntry, {})
    assert.equal((await names('odd')).includes('dir/'), false)
  })

  for (const [what, size] of [
    ['of no bytes', 0],
    ['that is held while it is sent', 256 * 1024],
    ['that is streamed', 3 * 2 ** 20 + 5],
  ] as const) {
    test(`a file ${what} arrives whole, read once, and its hashes are known`, async () => {
      const actor = await open()
      await actor.upload(sentFile('first', Buffer.from('x')), {})
      const bytes = randomBytes(size)
      const file = sentFile('file', bytes)
      const entry = (await actor.upload(file, {})) as TreeEntry
      assert.equal(file.streams, 1)
      for (const algorithm of ['md5', 'sha256']) {
        const digest = createHash(algorithm).update(bytes).digest('hex')
        assert.deepEqual(await actor.hash?.(entry, algorithm, {}), { algorithm, digest })
      }
      await actor.upload(sentFile('file', Buffer.from('another')), {})
      assert.equal(await actor.hash?.(entry, 'md5', {}), undefined)
      assert.equal(await actor.hash?.(entry, 'sha256', {}), undefined)
      assert.equal(await actor.hash?.(entry, 'no such', {}), undefined)
    })

    test(`what was there stays where a file ${what} is changed meanwhile`, async () => {
      const actor = await open(`changed ${size}`)
      await actor.upload(sentFile('file', Buffer.from('before')), {})
      const file = sentFile('file', Buffer.alloc(size, 'x'), { changesAfterStreams: 0 })
      await assert.rejects(async () => actor.upload(file, {}), { code: 'FILE_STALE' })
      assert.equal(await bytesOf(`changed ${size}`, 'file'), 'before')
      // And the next one is not hindered by what broke.
      await actor.upload(sentFile('file', Buffer.from('after')), {})
      assert.equal(await bytesOf(`changed ${size}`, 'file'), 'after')
    })
  }

  test('a file that has another length than it was said to have is not stored', async () => {
    const actor = await open()
    for (const length of [10, 2 ** 20]) {
      for (const size of [length - 1, length + 1]) {
        const file = { ...sentFile('x', Buffer.alloc(length)), size }
        await assert.rejects(async () => actor.upload(file, {}), { code: 'INPUT_INVALID' })
      }
    }
    assert.deepEqual(await listed(actor), [])
  })

  describe('with large objects', () => {
    const big = randomBytes(1_000_003)
    const segments = (container: string): Promise<string[]> => names(`${container}_segments`)

    test('a file that is larger than a segment is read as one, and replaced and deleted with its segments', async () => {
      const actor = await open('large', { segmentSize: '300k' })
      const entry = (await actor.upload(sentFile('a/big', big), {})) as TreeEntry
      assert.equal((await segments('large')).length, 4)
      assert.equal(await bytesOf('large', 'a/big'), big.toString())
      assert.deepEqual(await listed(actor), [{ ...entry, mtime: undefined }])
      assert.deepEqual(await actor.stat?.('a/big', {}), entry)
      const digest = createHash('md5').update(big).digest('hex')
      assert.deepEqual(await actor.hash?.(entry, 'md5', {}), { algorithm: 'md5', digest })

      const second = sentFile('a/big', big.subarray(1), { replaced: entry })
      const replaced = (await actor.upload(second, {})) as TreeEntry
      assert.notEqual(replaced.version, entry.version)
      assert.equal((await segments('large')).length, 4)
      assert.equal(await bytesOf('large', 'a/big'), big.subarray(1).toString())

      await actor.upload(sentFile('a/big', Buffer.from('small'), { replaced }), {})
      assert.deepEqual(await segments('large'), [])
      assert.equal(await bytesOf('large', 'a/big'), 'small')

      const third = (await actor.upload(sentFile('a/big', big), {})) as TreeEntry
      await actor.delete({ ...third, version: undefined } as unknown as TreeEntry, {})
      await actor.delete(third, {})
      assert.deepEqual([await names('large'), await segments('large')], [[], []])
    })

    test('one is copied into one piece, not renamed, and its segments go where it is replaced by either', async () => {
      const actor = await open('large moved', { segmentSize: '300k' })
      const entry = (await actor.upload(sentFile('big', big), {})) as TreeEntry
      await assert.rejects(async () => actor.rename?.(entry, 'other', {}), { code: 'STORE_UNSUPPORTED' })
      const directory = { path: 'd', kind: 'directory', size: 0, mtime: undefined } as const
      await actor.upload(sentFile('d/big', big), {})
      await assert.rejects(async () => actor.rename?.(directory, 'e', {}), { code: 'STORE_UNSUPPORTED' })
      await actor.copy?.(entry, 'other', {})
      assert.deepEqual(await names('large moved'), ['big', 'd/big', 'other'])
      assert.equal((await segments('large moved')).length, 8)
      const copied = await actor.stat?.('other', {})
      assert.deepEqual([copied?.size, copied?.mtime], [big.length, SENT_MTIME])
      await actor.rename?.(copied as TreeEntry, 'big', {})
      assert.deepEqual(await names('large moved'), ['big', 'd/big'])
      assert.equal((await segments('large moved')).length, 4)
      assert.equal(await bytesOf('large moved', 'big'), big.toString())
    })

    test('one that is changed while it is sent leaves what was there, and no segments', async () => {
      const actor = await open('large changed', { segmentSize: '300k' })
      await actor.upload(sentFile('big', Buffer.from('before')), {})
      const file = sentFile('big', big, { changesAfterStreams: 0 })
      await assert.rejects(async () => actor.upload(file, {}), { code: 'FILE_STALE' })
      assert.equal(await bytesOf('large changed', 'big'), 'before')
      assert.deepEqual(await segments('large changed'), [])
    })

    test('what an upload left that was cut short goes with the next one, and nothing of other paths', async () => {
      const actor = await open('large left', { segmentSize: '300k' })
      await actor.upload(sentFile('big', big), {})
      await actor.upload(sentFile('big2', big), {})
      const [first = ''] = await segments('large left')
      const left = first.replace(/[^/]*\/[^/]*$/, 'cut-short/00000000')
      await raw('PUT', `/${encodeURIComponent('large left_segments')}/${left}`, {}, 'left')
      assert.equal((await segments('large left')).length, 9)
      await actor.upload(sentFile('big', big), {})
      await actor.upload(sentFile('big2', big), {})
      assert.equal((await segments('large left')).length, 8)
      for (const name of ['big', 'big2']) assert.equal(await bytesOf('large left', name), big.toString())
    })

    test('segments that somebody else keeps in another container stay', async () => {
      const actor = await open('large shared')
      await raw('PUT', '/shared')
      await raw('PUT', '/large%20shared')
      await raw('PUT', '/shared/piece', {}, 'piece')
      const manifest = JSON.stringify([{ path: '/shared/piece' }])
      await raw('PUT', '/large%20shared/big?multipart-manifest=put', {}, manifest)
      for (const entry of await listed(actor)) await actor.delete(entry, {})
      assert.deepEqual([await names('large shared'), await names('shared')], [[], ['piece']])
    })
  })

  test('a rename of a file keeps its bytes, time and version, and done again it changes nothing', async () => {
    const actor = await open('moved')
    const entry = (await actor.upload(sentFile('a b', Buffer.from('x')), {})) as TreeEntry
    await actor.upload(sentFile('c/d', Buffer.from('replaced')), {})
    for (let time = 0; time < 2; time++) {
      await actor.rename?.(entry, 'c/d', { onVersionChanged: () => assert.fail() })
      assert.deepEqual(await names('moved'), ['c/d'])
      assert.deepEqual(await actor.stat?.('c/d', {}), { ...entry, path: 'c/d' })
    }
    await actor.copy?.({ ...entry, path: 'c/d' }, 'kept', {})
    assert.deepEqual(await names('moved'), ['c/d', 'kept'])
    assert.equal(await bytesOf('moved', 'kept'), 'x')
  })

  test('a rename tells the version of what somebody else put there meanwhile', async () => {
    const actor = await open('moved changed')
    const entry = (await actor.upload(sentFile('a', Buffer.from('x')), {})) as TreeEntry
    const other = (await actor.upload(sentFile('a', Buffer.from('other')), {})) as TreeEntry
    const told: unknown[] = []
    await actor.rename?.(entry, 'b', { onVersionChanged: (...change) => told.push(change) })
    assert.deepEqual(told, [['b', entry.version, other.version]])
  })

  test('a rename of a directory moves all that lies under it, and no neighbour', async () => {
    const actor = await open('moved tree')
    for (const name of ['a/1', 'a/b/2', 'a-b', 'ab/3']) await actor.upload(sentFile(name, Buffer.from(name)), {})
    await raw('PUT', '/moved%20tree/a/')
    const directory = { path: 'a', kind: 'directory', size: 0, mtime: undefined } as const
    for (let time = 0; time < 2; time++) await actor.rename?.(directory, 'new/place', {})
    assert.deepEqual(await names('moved tree'), ['a-b', 'ab/3', 'new/place/', 'new/place/1', 'new/place/b/2'])
    assert.equal(await bytesOf('moved tree', 'new/place/b/2'), 'a/b/2')
  })

  test('deletes of many tell of each, and what is not there counts as gone', async () => {
    const actor = await open('bulk')
    for (const name of NAMES) await actor.upload(sentFile(name, Buffer.from('x')), {})
    const entries = await listed(actor)
    const absent = { ...(entries[0] as TreeEntry), path: 'absent' }
    assert.deepEqual(
      await actor.deleteAll?.([absent, ...entries], {}),
      [absent, ...entries].map(() => undefined),
    )
    assert.deepEqual(await names('bulk'), [])
    await actor.delete(absent, {})
  })

  test('tokens that are no longer known are asked for again: by lists, uploads of any size, and deletes', async () => {
    const actor = await open('renewed', { segmentSize: '3m' })
    const large = randomBytes(2 ** 21)
    for (const bytes of [Buffer.from('x'), large, Buffer.alloc(4 * 2 ** 20)]) {
      await actor.upload(sentFile('file', Buffer.from('before')), {})
      await swift.forgetTokens()
      await untilSent(() => actor.upload(sentFile('file', bytes), {}))
      assert.equal((await actor.stat?.('file', {}))?.size, bytes.length)
    }
    await swift.forgetTokens()
    const entries = await listed(actor)
    assert.equal(entries.length, 1)
    await swift.forgetTokens()
    const other = (await actor.upload(sentFile('other', Buffer.from('x')), {})) as TreeEntry
    await swift.forgetTokens()
    assert.deepEqual(await actor.deleteAll?.([...entries, other], {}), [undefined, undefined])
    assert.deepEqual(await names('renewed'), [])
  })

  /** As a sync does, which begins anew what can be tried again; twice has to do. */
  async function untilSent(send: () => Promise<unknown>): Promise<void> {
    try {
      await send()
    } catch (error) {
      if (!isOperationError(error, 'STORE_UNAVAILABLE')) throw error
      await send()
    }
  }

  test('a token that is refused by a dropped connection is renewed before the next upload', async (t) => {
    // Some give up a connection on which a body comes that they do not want, and their answer with it.
    let tokens = 0
    const server = createServer((request, response) => {
      const token = String(request.headers['x-auth-token'] ?? '')
      if (request.url === '/auth/v1.0') {
        response.writeHead(200, { 'x-auth-token': `t${++tokens}`, 'x-storage-url': `${origin}/v1/AUTH_x` }).end()
      } else if (request.url === '/info') response.writeHead(404).end()
      else if (token !== 't1') {
        request.resume().on('end', () => response.writeHead(201, { etag: md5 }).end())
      } else if (request.method === 'PUT') request.socket.destroy()
      else response.writeHead(401).end()
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    t.after(() => server.close())
    const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const bytes = randomBytes(2 ** 20)
    const md5 = createHash('md5').update(bytes).digest('hex')
    const actor = await open('dropped', { authUrl: `${origin}/auth/v1.0` })
    await assert.rejects(async () => actor.upload(sentFile('x', bytes), {}), { code: 'STORE_UNAVAILABLE' })
    assert.equal(((await actor.upload(sentFile('x', bytes), {})) as TreeEntry).version, md5)
    assert.equal(tokens, 2)
  })

  test('a wrong key is refused, and shown nowhere', async () => {
    await assert.rejects(open('x', { key: 'hidden' }), (error: OperationError) => {
      assert.equal(error.code, 'CREDENTIALS_REFUSED')
      assert.doesNotMatch(`${error.message}${error.hint}${error.stack}`, /hidden/)
      return true
    })
  })

  test('what is missing or cannot be is told before anything is sent', async () => {
    await assert.rejects(open('x', { authUrl: '' }), { code: 'CREDENTIALS_MISSING', message: /no auth URL is given/ })
    await assert.rejects(open('x', { key: '' }), { code: 'CREDENTIALS_MISSING', message: /no key is given/ })
    await assert.rejects(open('x', { authUrl: 'http://h/v2.0' }), { code: 'INPUT_INVALID', message: /version 2/ })
    await assert.rejects(open('x', { segmentSize: '5x' }), { code: 'INPUT_INVALID', message: /"5x"/ })
    await assert.rejects(open('a/b'), { code: 'INPUT_INVALID', message: /"a\/b" is no name of a container/ })
    await assert.rejects(open(''), { code: 'INPUT_INVALID' })
  })

  test('the variables of the swift client are read where an option is not given', async () => {
    const { authUrl, user, key } = swift
    Object.assign(process.env, { ST_AUTH: authUrl, ST_USER: user, ST_KEY: key })
    try {
      const actor = await open('variables', { authUrl: '', user: '', key: '' })
      await actor.upload(sentFile('x', Buffer.from('x')), {})
      assert.deepEqual(await names('variables'), ['x'])
    } finally {
      for (const name of ['ST_AUTH', 'ST_USER', 'ST_KEY']) delete process.env[name]
    }
  })

  describe('by Keystone', () => {
    const asked: unknown[] = []
    let keystone: Server
    let url = ''

    before(async () => {
      // An identity service as Keystone answers, whose tokens are those of the Swift.
      keystone = createServer((request, response) => {
        void (async () => {
          const chunks: Buffer[] = []
          for await (const chunk of request) chunks.push(chunk as Buffer)
          asked.push([request.method, request.url, JSON.parse(Buffer.concat(chunks).toString())])
          const given = await fetch(swift.authUrl, { headers: { 'x-auth-user': swift.user, 'x-auth-key': swift.key } })
          const storage = given.headers.get('x-storage-url') ?? ''
          const endpoint = (region: string, at: string): unknown => [
            { interface: 'internal', region_id: region, region, url: 'http://127.0.0.1:1/v1/x' },
            { interface: 'public', region_id: region, region, url: at },
          ]
          const catalog = [
            { type: 'compute', name: 'nova', endpoints: endpoint('two', 'http://127.0.0.1:1/') },
            { type: 'object-store', name: 'swift', endpoints: endpoint('one', 'http://127.0.0.1:1/v1/y') },
            { type: 'object-store', name: 'swift', endpoints: endpoint('two', storage) },
          ].map((service) => ({ ...service, endpoints: service.endpoints }))
          const expires = new Date(Date.now() + 3_600_000).toISOString()
          response.writeHead(201, { 'x-subject-token': given.headers.get('x-auth-token') ?? '' })
          response.end(JSON.stringify({ token: { methods: ['password'], expires_at: expires, catalog } }))
        })()
      })
      await new Promise<void>((resolve) => keystone.listen(0, '127.0.0.1', resolve))
      url = `http://127.0.0.1:${(keystone.address() as AddressInfo).port}/identity`
    })
    after(async () => {
      keystone.closeAllConnections()
      await new Promise((resolve) => keystone.close(resolve))
    })

    test('user, project and domains are sent, and the region chooses the object store', async () => {
      const env = {
        OS_AUTH_URL: `${url}/v3`,
        OS_USERNAME: 'me',
        OS_PASSWORD: 'word',
        OS_PROJECT_NAME: 'ours',
        OS_USER_DOMAIN_NAME: 'people',
        OS_PROJECT_DOMAIN_ID: 'd1',
      }
      Object.assign(process.env, env)
      try {
        const actor = await open('by keystone', { authUrl: '', user: '', key: '', osRegionName: 'two' })
        await actor.upload(sentFile('x', Buffer.from('x')), {})
        await swift.forgetTokens()
        assert.deepEqual(
          (await listed(actor)).map(({ path }) => path),
          ['x'],
        )
        await assert.rejects(open('x', { authUrl: '', user: '', key: '', osRegionName: 'three' }), {
          code: 'INPUT_INVALID',
          message: /object stores internal in one, public in one, internal in two, public in two only/,
        })
      } finally {
        for (const name of Object.keys(env)) delete process.env[name]
      }
      const user = { name: 'me', domain: { name: 'people' }, password: 'word' }
      const identity = { methods: ['password'], password: { user } }
      const scope = { project: { name: 'ours', domain: { id: 'd1' } } }
      const one = ['POST', '/identity/v3/auth/tokens', { auth: { identity, scope } }]
      assert.deepEqual(asked, [one, one, one])
    })
  })

  test('rclone reads the times that are written here, and its own are read', { skip: rcloneMissing() }, async () => {
    const actor = await open('rclone', { segmentSize: '1m' })
    const time = timestamp(1_600_000_000, 123_456_789)
    await actor.upload(sentFile('small', Buffer.from('ours'), { mtime: time }), {})
    await actor.upload(sentFile('large', Buffer.alloc(2 ** 20 + 1), { mtime: time }), {})
    const env = {
      ...process.env,
      RCLONE_CONFIG: '/dev/null',
      RCLONE_CONFIG_R_TYPE: 'swift',
      RCLONE_CONFIG_R_AUTH: swift.authUrl,
      RCLONE_CONFIG_R_USER: swift.user,
      RCLONE_CONFIG_R_KEY: swift.key,
    }
    const there = join(scratch, 'there')
    await run('rclone', ['copy', 'r:rclone', there], { env })
    for (const [name, size] of [
      ['small', 4],
      ['large', 2 ** 20 + 1],
    ] as const) {
      const found = await stat(join(there, name), { bigint: true })
      assert.deepEqual([found.size, found.mtimeNs], [BigInt(size), 1_600_000_000_123_456_789n])
    }
    await writeFile(join(there, 'theirs'), 'theirs')
    await utimes(join(there, 'theirs'), 1_500_000_000.5, 1_500_000_000.5)
    await run('rclone', ['copy', there, 'r:rclone'], { env })
    assert.deepEqual((await actor.stat?.('theirs', {}))?.mtime, timestamp(1_500_000_000, 500_000_000))
  })
})

function rcloneMissing(): string | false {
  return existsSync('/usr/bin/rclone') ? false : 'not installed: rclone'
}
