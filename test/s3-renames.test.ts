/**
 * Renames of directories and exchanges in a bucket whose process is killed, or loses its lease, at every point: what was begun is
 * finished by whoever opens the store next, and nothing is lost. The server is the gateway, which decides on all guards.
 */
import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setImmediate, setTimeout } from 'node:timers/promises'
import { after, before, beforeEach, describe, test } from 'node:test'

import { isOperationError } from '#base/errors.ts'
import { timestampNow } from '#base/time.ts'
import { BucketStore } from '#store/s3/bucket-store.ts'
import { limitsOf, type S3Context } from '#store/s3/context.ts'
import { parseS3Url, type S3Options } from '#store/s3/endpoint.ts'
import { NONE_HONOURED } from '#store/s3/guards.ts'
import { Keys } from '#store/s3/keys.ts'
import { listPage } from '#store/s3/listing.ts'
import { openS3Store } from '#store/s3/s3-store.ts'
import type { S3Client } from '#store/s3/client.ts'
import { PartBuffers } from '#store/s3/part-buffers.ts'
import { ABSENT, ANY, type Store } from '#store/store.ts'
import { clientOf, makeBucket, s3OptionsOf } from '#test/servers/bucket.ts'
import {
  errorDocument,
  startFaultProxy,
  type Fault,
  type FaultProxy,
  type Noted,
  type Upstream,
} from '#test/servers/fault-proxy.ts'
import { startTestGateway, type TestGateway } from '#test/servers/gateway.ts'

const CHILD = join(import.meta.dirname, 's3-rename-child.ts')
const QUICK: S3Options = { attemptsMax: 4, backoffMs: 1, ioTimeoutMs: 0, timeoutMs: 5000 }
const NAMES = ['1', '2', 'sub/3', 'sub/deep/4', 'odd %2F+ name', 'z']

const SLOW_DOWN: Fault = { kind: 'answer', status: 503, body: errorDocument('SlowDown') }
const isIntent = ({ url }: Noted): boolean => url.includes('/.eider/renames/')
const isCopy = ({ headers }: Noted): boolean => 'x-amz-copy-source' in headers
const changes = ({ method }: Noted): boolean => method !== 'GET' && method !== 'HEAD'

/** A process that has the bucket open and waits for what to do. */
interface Actor {
  readonly child: ChildProcess
  /** Tells it what to do, and resolves when it has ended. */
  act(line: string): Promise<void>
}

describe('renames of directories in a bucket', () => {
  let server: TestGateway
  let proxy: FaultProxy
  let raw: S3Client
  let bucketCount = 0
  let bucket = ''

  const open = (more: S3Options = {}, endpoint = proxy.endpoint): Promise<Store> =>
    openS3Store(`s3://${bucket}/root`, s3OptionsOf({ ...server, endpoint }, { ...QUICK, ...more }))
  const keysUnder = async (prefix: string): Promise<string[]> =>
    (await listPage(raw, { prefix, delimited: false })).items.flatMap((item) => ('key' in item ? [item.key] : []))
  const filesOf = async (store: Store, path: string): Promise<Map<string, string>> => {
    const files = new Map<string, string>()
    try {
      for await (const page of store.list(path, { recursive: true })) {
        for (const entry of page) {
          if (entry.kind === 'directory') continue
          const { attributes } = await store.stat(entry.path)
          const bytes = await (await store.read(entry.path)).bytes()
          files.set(entry.path.slice(path.length + 1), `${bytes.toString()} ${attributes?.mode?.toString(8)}`)
        }
      }
    } catch (error) {
      if (!isOperationError(error, 'STORE_NOT_FOUND')) throw error
    }
    return files
  }
  const fill = async (store: Store, path: string, names = NAMES): Promise<Map<string, string>> => {
    await store.makeDirectory(path, { guard: ABSENT, attributes: { mode: 0o711 } })
    for (const name of names) {
      await store.put(`${path}/${name}`, Buffer.from(`${path} ${name}`), { guard: ABSENT, attributes: { mode: 0o640 } })
    }
    return new Map(names.map((name) => [name, `${path} ${name} 640`]))
  }
  const actor = async (): Promise<Actor> => {
    const { region, accessKey, secretKey } = server
    const args = [CHILD, proxy.endpoint, region, accessKey, secretKey, `s3://${bucket}/root`]
    const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] })
    const exited = once(child, 'exit')
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    assert.equal((await lines.next()).value, 'ready')
    return {
      child,
      act: async (line) => {
        child.stdin.write(`${line}\n`)
        await exited
      },
    }
  }
  /** Kills the actor at its `nth` change, before or after the server has heard of it; false where it made fewer. */
  const killAt = async (line: string, nth: number, when: 'before' | 'after'): Promise<boolean> => {
    const running = await actor()
    const { child } = running
    proxy.clear()
    let count = 0
    const kill = (): boolean => child.kill('SIGKILL')
    const isNth = (request: Noted): boolean => changes(request) && ++count === nth
    const killing = (up: Upstream): Upstream => {
      kill()
      return up
    }
    if (when === 'before') proxy.fault((request) => isNth(request) && kill(), { kind: 'refuse' })
    else proxy.fault(isNth, { kind: 'alter', alter: killing })
    await running.act(line)
    if (child.signalCode === null) assert.equal(child.exitCode, 0)
    return child.signalCode !== null
  }
  const conflicts = (promise: Promise<unknown>): Promise<void> =>
    assert.rejects(promise, (error) => {
      assert.ok(isOperationError(error, 'STORE_CONFLICT'), String(error))
      return true
    })

  before(async () => {
    server = await startTestGateway()
    proxy = await startFaultProxy(server.endpoint)
  })
  after(async () => {
    await raw?.close()
    await proxy?.close()
    await server?.stop()
  })
  beforeEach(async () => {
    proxy.clear()
    await raw?.close()
    bucket = `renames-${++bucketCount}`
    await makeBucket(server, bucket)
    raw = clientOf(server, bucket)
  })

  test('[S75] a rename killed at any change is finished by the next opening, each file once, with its attributes', async () => {
    let finished = 0
    for (const when of ['before', 'after'] as const) {
      for (let nth = 1; ; nth++) {
        const setUp = await open()
        const from = `${when}-${nth}`
        const expected = await fill(setUp, from)
        await setUp.close()
        const killed = await killAt(`rename ${from} to-${from}`, nth, when)
        const begun = proxy.noted.some(isCopy)
        const store = await open()
        const [old, moved] = [await filesOf(store, from), await filesOf(store, `to-${from}`)]
        const what = `${when} change ${nth}`
        if (begun) {
          assert.deepEqual(moved, expected, what)
          assert.deepEqual(await keysUnder(`root/${from}`), [], what)
          assert.equal((await store.stat(`to-${from}`)).attributes?.mode, 0o711, what)
          finished++
        } else assert.deepEqual(old.size === 0 ? moved : old, expected, what)
        assert.deepEqual(await keysUnder('root/.eider/'), [], what)
        await store.close()
        if (!killed) break
      }
    }
    assert.ok(finished >= 2 * (NAMES.length + 3), `${finished} were finished by the next opening`)
  })

  test('[S77] an exchange of files killed at any change has happened or not, once the store is opened again', async () => {
    const outcomes = new Set<string>()
    for (const when of ['before', 'after'] as const) {
      for (let nth = 1; ; nth++) {
        const setUp = await open()
        await setUp.put('a', Buffer.from('first'), { guard: ANY, attributes: { mode: 0o601 } })
        await setUp.put('b', Buffer.from('second'), { guard: ANY, attributes: { mode: 0o602 } })
        await setUp.close()
        const killed = await killAt('exchange a b', nth, when)
        const store = await open()
        const found = (
          await Promise.all(
            ['a', 'b'].map(async (path) => {
              const bytes = await (await store.read(path)).bytes()
              return `${bytes.toString()} ${(await store.stat(path)).attributes?.mode?.toString(8)}`
            }),
          )
        ).join(', ')
        assert.ok(['first 601, second 602', 'second 602, first 601'].includes(found), `${when} change ${nth}: ${found}`)
        assert.deepEqual(await keysUnder('root/.eider/'), [], `${when} change ${nth}`)
        outcomes.add(found)
        await store.close()
        if (!killed) break
      }
    }
    assert.equal(outcomes.size, 2)
  })

  test('[S77] an exchange of directories killed at any change is finished by the next opening', async () => {
    let nth = 1
    for (let killed = true; killed; nth += 2) {
      const setUp = await open()
      const [a, b] = [`a-${nth}`, `b-${nth}`]
      const [first, second] = [await fill(setUp, a, ['1', 'x/2']), await fill(setUp, b, ['2', '3'])]
      await setUp.close()
      killed = await killAt(`exchange ${a} ${b}`, nth, nth % 4 === 1 ? 'before' : 'after')
      const begun = proxy.noted.some(isCopy)
      const store = await open()
      const found = [await filesOf(store, a), await filesOf(store, b)]
      assert.deepEqual(found, begun ? [second, first] : [first, second], `at change ${nth}`)
      assert.deepEqual(await keysUnder('root/.eider/'), [], `at change ${nth}`)
      await store.close()
    }
    assert.ok(nth > 20)
  })

  test('[S75] what somebody puts under the old name after the crash stays there, even where it is what was moved', async () => {
    const setUp = await open()
    const expected = await fill(setUp, 'from', ['1', '2'])
    // Three copies and the intent, and then the note that all is copied.
    assert.equal(await killAt('rename from to', 5, 'after'), true)
    const noted = (await keysUnder('root/.eider/renames/'))[0] ?? ''
    const written = await raw.send({ operation: 'HeadObject', method: 'HEAD', key: noted }, (answer) =>
      Date.parse(String(answer.headers['last-modified'])),
    )
    // The endpoint tells times to the second.
    while (Date.now() < written + 1000) await setTimeout(50)
    await setUp.put('from/1', Buffer.from('from 1'), { guard: ANY, attributes: { mode: 0o640 } })
    await setUp.close()
    const store = await open()
    assert.deepEqual(await filesOf(store, 'to'), expected)
    assert.deepEqual(await keysUnder('root/from'), ['root/from/1'])
    await store.close()
  })

  test('[S76] of two that open the store at once, one finishes what was left', async () => {
    const setUp = await open()
    const expected = await fill(setUp, 'from')
    await setUp.close()
    assert.equal(await killAt('rename from to', 4, 'before'), true)
    proxy.clear()
    const stores = await Promise.all([open(), open()])
    assert.deepEqual(await filesOf(stores[0], 'to'), expected)
    assert.deepEqual(await keysUnder('root/from'), [])
    const taken = proxy.noted.filter((request) => isIntent(request) && request.method === 'DELETE')
    assert.equal(taken.length, 1, 'one of them has finished it')
    await Promise.all(stores.map((store) => store.close()))
  })

  test('[S76] a rename whose owner is alive is left alone, and taken over when its lease has run out by the endpoint’s clock', async () => {
    const owner = await open()
    const expected = await fill(owner, 'from')
    proxy.clear()
    proxy.fault((request) => isCopy(request) && request.url.endsWith('/2'), { kind: 'hang' }, 100)
    const caller = new AbortController()
    const options = { guard: ANY, targetGuard: ABSENT, signal: caller.signal }
    const renaming = owner.rename('from', 'to', options).then(
      () => 'done',
      (error: unknown) => String(error),
    )
    while (!proxy.noted.some((request) => isCopy(request) && request.url.endsWith('/2'))) await setImmediate()
    const early = await open()
    assert.deepEqual(await keysUnder('root/.eider/renames/').then((keys) => keys.length), 1)
    assert.equal((await filesOf(early, 'from')).size, NAMES.length)
    await early.close()

    const later = (up: { headers: Record<string, unknown> }): string =>
      new Date(Date.parse(String(up.headers['date'])) + 61_000).toUTCString()
    const second = await startFaultProxy(server.endpoint)
    second.fault(
      isIntent,
      { kind: 'alter', alter: (up) => ({ ...up, headers: { ...up.headers, date: later(up) } }) },
      1,
    )
    const taker = await open({}, second.endpoint)
    assert.deepEqual(await filesOf(taker, 'to'), expected)
    assert.deepEqual(await keysUnder('root/from'), [])
    assert.deepEqual(await keysUnder('root/.eider/'), [])
    // The owner's caller gives up; before it takes back anything it finds out that it is no longer the owner.
    caller.abort()
    assert.match(await renaming, /Cannot/)
    assert.deepEqual(await filesOf(taker, 'to'), expected)
    await Promise.all([taker.close(), owner.close()])
    await second.close()
  })

  test('[S75] what others write under the old name meanwhile stays there, and is a conflict', async () => {
    const store = await open({ attemptsMax: 1000 })
    await fill(store, 'from')
    const other = await open({}, server.endpoint)
    const theirs = Buffer.from('theirs')
    let write: Promise<unknown> | undefined
    let written = false
    // The intent says that all is copied: now somebody writes over one of the originals.
    const noting = (request: Noted): boolean => {
      if (isIntent(request) && request.headers['if-match'] !== undefined) {
        write ??= other.put('from/2', theirs, { guard: ANY }).then(() => (written = true))
      }
      return false
    }
    proxy.fault(noting, { kind: 'hang' })
    proxy.fault((request) => request.method === 'POST' && request.url.includes('delete') && !written, SLOW_DOWN, 1000)
    await conflicts(store.rename('from', 'to', { guard: ANY, targetGuard: ABSENT }))
    await write
    assert.deepEqual(await keysUnder('root/from'), ['root/from/2'])
    assert.equal((await (await other.read('from/2')).bytes()).toString(), 'theirs')
    assert.equal((await (await other.read('to/2')).bytes()).toString(), 'from 2')
    assert.deepEqual(await keysUnder('root/.eider/'), [])
    await Promise.all([store.close(), other.close()])
  })

  test('a rename costs three requests for its intent, and none where there is one object to move', async () => {
    const store = await open()
    await fill(store, 'from')
    proxy.clear()
    await store.rename('from', 'to', { guard: ANY, targetGuard: ABSENT })
    assert.equal(proxy.noted.filter(isIntent).length, 3)
    assert.equal(proxy.noted.filter(isCopy).length, NAMES.length + 1)
    assert.equal(proxy.noted.filter(({ method }) => method === 'POST').length, 1)
    assert.equal(proxy.noted.filter(({ url }) => url.includes('list-type')).length, 3)
    await store.makeDirectory('empty', { guard: ABSENT })
    proxy.clear()
    await store.rename('empty', 'moved', { guard: ANY, targetGuard: ABSENT })
    assert.equal(proxy.noted.filter(isIntent).length, 0)
    await store.close()
  })

  test('more keys than are remembered are found again by listing, also where no guard is honoured', async () => {
    for (const honoured of [NONE_HONOURED, undefined]) {
      const whole = await open()
      const from = honoured === undefined ? 'guarded' : 'unguarded'
      await fill(
        whole,
        from,
        Array.from({ length: 40 }, (_, index) => `d${index % 3}/f${index}`),
      )
      await whole.close()
      const opened = honoured ?? { ...NONE_HONOURED, create: true, replace: true, remove: true, removeBulk: true }
      const context: S3Context = {
        ...{ client: clientOf({ ...server, endpoint: proxy.endpoint }, bucket), keys: new Keys('root') },
        ...{ options: parseS3Url(`s3://${bucket}`).options, honoured: opened, metadata: true, opened: timestampNow() },
        limits: { ...limitsOf({}), movedKeysMax: 10 },
        partBuffers: new PartBuffers(0),
      }
      const store = new BucketStore(context)
      await store.rename(from, `to-${from}`, { guard: ANY, targetGuard: ABSENT })
      assert.equal((await filesOf(store, `to-${from}`)).size, 40)
      assert.deepEqual(await keysUnder(`root/${from}`), [])
      await store.close()
    }
  })

  test('[S77] an exchange whose second file somebody writes meanwhile changes nothing', async () => {
    const store = await open({ attemptsMax: 1000 })
    const other = await open({}, server.endpoint)
    await store.put('a', Buffer.from('first'), { guard: ABSENT })
    await store.put('b', Buffer.from('second'), { guard: ABSENT })
    proxy.clear()
    let write: Promise<unknown> | undefined
    let written = false
    const noting = (): boolean => {
      // The third note is that the second is in the place of the first, so that what was kept goes over the second next.
      const notes = proxy.noted.filter((each) => isIntent(each) && each.method === 'PUT').length
      if (notes === 3) write ??= other.put('b', Buffer.from('theirs'), { guard: ANY }).then(() => (written = true))
      return false
    }
    proxy.fault(noting, { kind: 'hang' })
    proxy.fault((request) => isCopy(request) && request.url.endsWith('/b') && !written, SLOW_DOWN, 1000)
    await conflicts(store.exchange('a', 'b', { guard: ANY, otherGuard: ANY }))
    await write
    assert.equal((await (await store.read('a')).bytes()).toString(), 'first')
    assert.equal((await (await store.read('b')).bytes()).toString(), 'theirs')
    assert.deepEqual(await keysUnder('root/.eider/'), [])
    await Promise.all([store.close(), other.close()])
  })
})
