/**
 * Uploads in parts: edits of large objects that move what was changed alone, uploads that begin while their file is still being
 * written, the memory that they take, and what is left of them when their process dies. Servers are the gateway, which decides on
 * all conditions, and Ceph's, which ignores those of copies in parts; a proxy before each counts requests and does harm.
 */
import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { closeSync, openSync, writeSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setImmediate } from 'node:timers/promises'
import { after, before, beforeEach, describe, test } from 'node:test'

import { isOperationError } from '#base/errors.ts'
import { MemoryBudget } from '#base/memory-budget.ts'
import { headerOf, type S3Client } from '#store/s3/client.ts'
import type { S3Options } from '#store/s3/endpoint.ts'
import { listPage } from '#store/s3/listing.ts'
import { abortUpload, beginUpload, sendPart } from '#store/s3/multipart.ts'
import { openUploads } from '#store/s3/open-uploads.ts'
import { openS3Store } from '#store/s3/s3-store.ts'
import {
  ABSENT,
  ANY,
  ifVersion,
  type Entry,
  type FileSegment,
  type Segment,
  type Store,
  type Upload,
  type Version,
} from '#store/store.ts'
import { clientOf, makeBucket, s3OptionsOf, type ServerKeys } from '#test/servers/bucket.ts'
import {
  errorDocument,
  startFaultProxy,
  type FaultProxy,
  type Noted,
  type Upstream,
} from '#test/servers/fault-proxy.ts'
import { startTestGateway } from '#test/servers/gateway.ts'
import { radosgwMissing, startRadosgw } from '#test/servers/radosgw.ts'

const MIB = 2 ** 20
const PART = 5 * MIB
const QUICK: S3Options = { attemptsMax: 4, backoffMs: 1, ioTimeoutMs: 0, timeoutMs: 5000, partBytes: PART }
const NONE: ReadonlySet<number> = new Set()
const CHILD = join(import.meta.dirname, 's3-upload-child.ts')

const isCreate = ({ method, url }: Noted): boolean => method === 'POST' && url.includes('uploads=')
const isPart = ({ method, url }: Noted): boolean => method === 'PUT' && url.includes('partNumber')
const isCopiedPart = (request: Noted): boolean => isPart(request) && 'x-amz-copy-source' in request.headers
const isSentPart = (request: Noted): boolean => isPart(request) && !isCopiedPart(request)
const isComplete = ({ method, url }: Noted): boolean => method === 'POST' && url.includes('uploadId')
const isNote = ({ url }: Noted): boolean => url.includes('/.eider/uploads/')
const changes = ({ method }: Noted): boolean => method !== 'GET' && method !== 'HEAD'
const conflicts = (promise: Promise<unknown>): Promise<void> =>
  assert.rejects(promise, (error) => {
    assert.ok(isOperationError(error, 'STORE_CONFLICT'), String(error))
    return true
  })

const SERVERS: Readonly<Record<string, () => Promise<ServerKeys & { stop(): Promise<void> }>>> = {
  'the gateway': () => startTestGateway(),
  radosgw: startRadosgw,
}

/** A local file of random bytes, which changes with its copy in memory. */
interface LocalFile {
  readonly fd: number
  readonly bytes: Buffer
  change(at: number, length: number): void
  whole(): FileSegment
}

for (const [name, start] of Object.entries(SERVERS)) {
  const skip = name === 'radosgw' ? radosgwMissing() : undefined
  describe(`uploads to ${name}`, { skip: skip ?? false }, () => {
    let server: ServerKeys & { stop(): Promise<void> }
    let proxy: FaultProxy
    let raw: S3Client
    let store: Store
    let directory = ''
    let count = 0
    const fds: number[] = []
    const open = (more: S3Options = {}): Promise<Store> =>
      openS3Store('s3://uploads/root', s3OptionsOf({ ...server, endpoint: proxy.endpoint }, { ...QUICK, ...more }))
    const content = async (path: string): Promise<Buffer> => (await store.read(path)).bytes()
    const left = async (): Promise<string[]> => {
      const ids: string[] = []
      for await (const { id } of openUploads(raw, '', undefined)) ids.push(id)
      return ids
    }
    const file = (size: number): LocalFile => {
      const fd = openSync(join(directory, `file-${++count}`), 'w+')
      fds.push(fd)
      const bytes = Buffer.alloc(size)
      const change = (at: number, length: number): void => {
        randomBytes(length).copy(bytes, at)
        for (let done = 0; done < length;) done += writeSync(fd, bytes, at + done, length - done, at + done)
      }
      change(0, size)
      return { fd, bytes, change, whole: () => ({ fd, offset: 0, length: size }) }
    }
    const stored = async (path: string, size: number): Promise<{ bytes: Buffer; entry: Entry }> => {
      const local = file(size)
      const { bytes } = local
      const entry = await store.put(path, { kind: 'file', segments: [local.whole()] }, { guard: ANY })
      proxy.clear()
      return { bytes, entry }
    }
    const begin = async (path: string, attributes = {}): Promise<Upload> => {
      const upload = await store.beginUpload?.(path, { attributes })
      assert.ok(upload !== undefined)
      return upload
    }
    const bytesOf = (match: (request: Noted) => boolean): number =>
      proxy.noted.filter(match).reduce((sum, { headers }) => sum + Number(headers['content-length'] ?? 0), 0)
    const rangesRead = (): number =>
      proxy.noted
        .filter(({ method, headers }) => method === 'GET' && 'range' in headers)
        .map(({ headers }) => /bytes=(\d+)-(\d+)/.exec(String(headers.range)))
        .reduce((sum, match) => sum + Number(match?.[2]) - Number(match?.[1]) + 1, 0)

    before(async () => {
      directory = await mkdtemp(join(tmpdir(), 'eider-uploads-'))
      server = await start()
      proxy = await startFaultProxy(server.endpoint)
      await makeBucket(server, 'uploads')
      raw = clientOf(server, 'uploads')
      store = await open()
    })
    after(async () => {
      await store?.close()
      await raw?.close()
      await proxy?.close()
      await server?.stop()
      for (const fd of fds) closeSync(fd)
      await rm(directory, { recursive: true, force: true })
    })
    beforeEach(() => proxy.clear())

    /** An edit of a few bytes in the middle of what is stored. */
    const edit = (path: string, version: Version, size: number, change: LocalFile): readonly Segment[] => {
      const at = Math.floor(size / 2)
      const { length } = change.bytes
      return [
        { path, version, offset: 0, length: at },
        change.whole(),
        { path, version, offset: at + length, length: size - at - length },
      ]
    }

    test('[S70] an edit of a few bytes moves one least part up and not more down, whatever the size', async () => {
      const size = 96 * MIB
      const { bytes, entry } = await stored('large', size)
      const change = file(4096)
      const segments = edit('large', entry.version, size, change)
      const put = await store.put('large', { kind: 'file', segments }, { guard: ifVersion(entry.version) })
      assert.ok(bytesOf(isSentPart) <= PART, `${bytesOf(isSentPart)} bytes were sent`)
      assert.ok(rangesRead() <= PART, `${rangesRead()} bytes were read`)
      assert.deepEqual(
        [isCreate, isSentPart, isCopiedPart, isComplete, isNote].map((match) => proxy.noted.filter(match).length),
        [1, 1, 2, 1, 2],
      )
      assert.equal(put.size, size)
      // A server that knows checksums tells those of the parts that it copies, so the whole is checked by it.
      const isChecked = 'x-amz-checksum-crc32' in (proxy.noted.find(isComplete)?.headers ?? {})
      assert.equal(isChecked, name === 'the gateway')
      change.bytes.copy(bytes, size / 2)
      assert.ok((await content('large')).equals(bytes))
      assert.equal((await store.stat('large')).version, put.version)
      assert.deepEqual(await left(), [])
    })

    test('[S70] a small result is put in one request, and one object as it is is copied', async () => {
      const size = 3 * MIB
      const { bytes, entry } = await stored('small', size)
      const change = file(100)
      const segments = edit('small', entry.version, size, change)
      await store.put('small', { kind: 'file', segments }, { guard: ANY })
      assert.deepEqual(
        proxy.noted.map(({ method }) => method),
        ['GET', 'PUT'],
      )
      change.bytes.copy(bytes, size / 2)
      assert.ok((await content('small')).equals(bytes))
      const { version } = await store.stat('small')
      proxy.clear()
      const whole = { path: 'small', version, offset: 0, length: size }
      await store.put('copied', { kind: 'file', segments: [whole] }, { guard: ANY, attributes: { mode: 0o600 } })
      assert.deepEqual(
        proxy.noted.map(({ method }) => method),
        ['HEAD', 'PUT'],
      )
      assert.equal(bytesOf(changes), 0)
      assert.ok((await content('copied')).equals(bytes))
      assert.equal((await store.stat('copied')).attributes?.mode, 0o600)
    })

    test('[S15, S71] an edit keeps the content headers and the user metadata that others gave the object', async () => {
      for (const size of [100_000, 24 * MIB]) {
        const { entry } = await stored(`kept-${size}`, size)
        const kept = { 'content-type': 'text/x-special', 'cache-control': 'max-age=60', 'x-amz-meta-other': 'mine' }
        const key = `root/kept-${size}`
        const version = await raw.send(
          {
            ...{ operation: 'CopyObject', method: 'PUT', key, errorIn200: true, body: new Uint8Array(0) },
            headers: [
              ['x-amz-copy-source', `/uploads/${key}`],
              ['x-amz-metadata-directive', 'REPLACE'],
              ...Object.entries(kept),
            ],
          },
          () => undefined,
        )
        assert.equal(version, undefined)
        const now = (await store.stat(entry.path)).version
        const segments = edit(entry.path, now, size, file(50))
        const attributes = { mode: 0o640 }
        await store.put(entry.path, { kind: 'file', segments }, { guard: ifVersion(now), attributes })
        const found = await raw.send({ operation: 'HeadObject', method: 'HEAD', key }, (answer) =>
          Object.keys(kept).map((header) => headerOf(answer, header)),
        )
        assert.deepEqual(found, Object.values(kept))
        assert.equal((await store.stat(entry.path)).attributes?.mode, 0o640)
      }
    })

    test('[S70] a version that is replaced while its pieces are copied stores nothing', async () => {
      for (const guard of [ANY, ABSENT]) {
        const { entry } = await stored('source', 24 * MIB)
        const theirs = randomBytes(24 * MIB)
        const target = guard === ABSENT ? 'elsewhere' : 'source'
        const other = await open({ probe: false })
        // One of two copies comes after it, so that pieces of both versions are there.
        proxy.fault(isCopiedPart, { kind: 'wait', until: () => other.put('source', theirs, { guard: ANY }) })
        const segments = edit('source', entry.version, 24 * MIB, file(100))
        await conflicts(store.put(target, { kind: 'file', segments }, { guard }))
        assert.ok((await content('source')).equals(theirs))
        if (guard === ABSENT) await assert.rejects(store.stat('elsewhere'), { code: 'STORE_NOT_FOUND' })
        assert.deepEqual(await left(), [])
        await other.close()
      }
    })

    test('[S72] what was sent while it was written is not sent again at the end', async () => {
      const upload = await begin('ahead', { mode: 0o640 })
      const local = file(4 * PART + 100)
      await Promise.all([0, 1, 2].map((index) => upload.send(index, local.fd)))
      local.change(PART + 5, 10)
      proxy.clear()
      const put = await upload.commit(local.whole(), new Set([1]), { guard: ABSENT, attributes: { mode: 0o640 } })
      const parts = proxy.noted.filter(isPart).map(({ url }) => Number(/partNumber=(\d+)/.exec(url)?.[1]))
      assert.deepEqual(
        parts.toSorted((a, b) => a - b),
        [2, 4, 5],
      )
      assert.equal(proxy.noted.filter(isNote).length, 0)
      assert.equal(proxy.noted.filter(isComplete).length, 1)
      assert.ok((await content('ahead')).equals(local.bytes))
      const found = await store.stat('ahead')
      assert.deepEqual([found.version, found.attributes?.mode, found.size], [put.version, 0o640, local.bytes.length])
      assert.deepEqual(await left(), [])
    })

    test('[S72] attributes that became others at the end cost one copy within the store, and equal ones none', async () => {
      const mtime = { seconds: 1_700_000_000, nanoseconds: 5 }
      for (const [attributes, copies] of [
        [{ mode: 0o600, mtime }, 0],
        [{ mode: 0o755, mtime }, 1],
      ] as const) {
        const upload = await begin('described', { mode: 0o600, mtime })
        const local = file(2 * PART + 100)
        await upload.send(0, local.fd)
        proxy.clear()
        const put = await upload.commit(local.whole(), NONE, { guard: ANY, attributes })
        assert.equal(proxy.noted.filter(({ headers }) => 'x-amz-copy-source' in headers).length, copies)
        const found = await store.stat('described')
        assert.deepEqual([found.version, found.attributes], [put.version, attributes])
        assert.ok((await content('described')).equals(local.bytes))
      }
    })

    test('[S72] an upload that was aborted behind its back is sent again, once', async () => {
      const upload = await begin('lost')
      const local = file(3 * PART)
      await upload.send(0, local.fd)
      await upload.send(1, local.fd)
      for (const id of await left()) await abortUpload(raw, 'root/lost', { id })
      proxy.clear()
      await upload.commit(local.whole(), NONE, { guard: ABSENT })
      assert.equal(proxy.noted.filter(isCreate).length, 1)
      assert.ok((await content('lost')).equals(local.bytes))
      assert.deepEqual(await left(), [])
      // A put as well.
      proxy.clear()
      proxy.fault(isComplete, { kind: 'answer', status: 404, body: errorDocument('NoSuchUpload') })
      await store.put('lost-put', { kind: 'file', segments: [local.whole()] }, { guard: ABSENT })
      assert.equal(proxy.noted.filter(isCreate).length, 2)
      assert.ok((await content('lost-put')).equals(local.bytes))
      for (const id of await left()) await abortUpload(raw, 'root/lost-put', { id })
    })

    test('[S9] a completion whose answer is lost has succeeded, also where the call is made again', async () => {
      const local = file(2 * PART + 7)
      const upload = await begin('answered')
      await upload.send(0, local.fd)
      proxy.fault(isComplete, { kind: 'lose' })
      const put = await upload.commit(local.whole(), NONE, { guard: ABSENT })
      assert.equal((await store.stat('answered')).version, put.version)
      const again = await begin('asked-again')
      await again.send(0, local.fd)
      proxy.fault(isComplete, { kind: 'lose' }, 1)
      proxy.fault(isComplete, { kind: 'answer', status: 500, body: errorDocument('InternalError') }, 3)
      const commit = (): Promise<Entry> => again.commit(local.whole(), NONE, { guard: ABSENT })
      // Where the guard is looked at before each attempt, the second finds what the first has put.
      const isFound = store.capabilities.guards.create === 'checked'
      if (!isFound) await assert.rejects(commit(), { code: 'STORE_UNAVAILABLE' })
      const done = await commit()
      assert.equal((await store.stat('asked-again')).version, done.version)
      assert.ok((await content('asked-again')).equals(local.bytes))
      assert.deepEqual(await left(), [])
    })

    test('[S72] a part that cannot be sent, and a completion that is refused, leave the upload to be ended later', async () => {
      const denied = { kind: 'answer', status: 403, body: errorDocument('AccessDenied') } as const
      const local = file(3 * PART)
      const upload = await begin('refused')
      await upload.send(0, local.fd)
      proxy.fault(isPart, denied)
      await assert.rejects(upload.send(1, local.fd), { code: 'STORE_DENIED' })
      proxy.fault(isComplete, denied)
      await assert.rejects(upload.commit(local.whole(), NONE, { guard: ABSENT }), { code: 'STORE_DENIED' })
      assert.equal((await left()).length, 1)
      proxy.clear()
      await upload.commit(local.whole(), NONE, { guard: ABSENT })
      assert.equal(proxy.noted.filter(isPart).length, 0)
      assert.ok((await content('refused')).equals(local.bytes))
      assert.deepEqual(await left(), [])
    })

    test('[S3, S72] a conflict at the end, and an abort in the middle, leave no upload open', async () => {
      const { entry } = await stored('taken', 100)
      const local = file(3 * PART)
      const upload = await begin('taken')
      await upload.send(0, local.fd)
      await conflicts(upload.commit(local.whole(), NONE, { guard: ABSENT }))
      assert.deepEqual(await left(), [])
      const given = await begin('taken')
      const sends = [0, 1, 2].map((index) => given.send(index, local.fd))
      const settled = Promise.allSettled(sends)
      await sends[0]
      await given.abort()
      await settled
      assert.deepEqual(await left(), [])
      assert.equal((await store.stat('taken')).version, entry.version)
    })

    test('[S74] uploads hold no more memory than the budget has, and end', async () => {
      const memory = new MemoryBudget(12 * MIB)
      const bounded = await open({ memory })
      const local = file(24 * MIB)
      const { entry } = await stored('base', 24 * MIB)
      const segments = edit('base', entry.version, 24 * MIB, file(7 * MIB))
      let most = 0
      proxy.fault(
        () => {
          most = Math.max(most, memory.used)
          return false
        },
        { kind: 'hang' },
      )
      const ahead = await bounded.beginUpload?.('bounded-ahead', { attributes: {} })
      const source = { kind: 'file', segments: [local.whole()] } as const
      await Promise.all([
        bounded.put('bounded-1', source, { guard: ANY }),
        bounded.put('bounded-2', source, { guard: ANY }),
        bounded.put('bounded-3', { kind: 'file', segments }, { guard: ANY }),
        ...[0, 1, 2, 3].map((index) => ahead?.send(index, local.fd)),
      ])
      await ahead?.commit(local.whole(), NONE, { guard: ANY })
      assert.ok(most > 0 && most <= memory.bytesMax, `${most} bytes at a time`)
      assert.equal(memory.used, 0)
      for (const path of ['bounded-1', 'bounded-2', 'bounded-ahead']) {
        assert.ok((await content(path)).equals(local.bytes))
      }
      // What waits for memory can be given up, and gives back what it had.
      const share = await memory.reserve(12 * MIB)
      const giveUp = new AbortController()
      const waiting = bounded.put('bounded-4', source, { guard: ANY, signal: giveUp.signal })
      giveUp.abort()
      await assert.rejects(waiting, { code: 'ABORTED' })
      share.release()
      await bounded.close()
      assert.equal(memory.used, 0)
    })
  })
}

describe('uploads that a process leaves open', () => {
  let server: Awaited<ReturnType<typeof startTestGateway>>
  let proxy: FaultProxy
  let raw: S3Client
  let local = ''
  let size = 0
  const open = (more: S3Options = {}): Promise<Store> =>
    openS3Store('s3://left/root', s3OptionsOf({ ...server, endpoint: proxy.endpoint }, { ...QUICK, ...more }))
  const left = async (): Promise<{ key: string; id: string }[]> => {
    const found: { key: string; id: string }[] = []
    for await (const { key, id } of openUploads(raw, '', undefined)) found.push({ key, id })
    return found
  }
  const notes = async (): Promise<number> =>
    (await listPage(raw, { prefix: 'root/.eider/uploads/', delimited: false })).items.length
  const actor = async (): Promise<{ child: ChildProcess; act(line: string): Promise<void> }> => {
    const { region, accessKey, secretKey } = server
    const args = [CHILD, proxy.endpoint, region, accessKey, secretKey, 's3://left/root', local]
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
  /** Notes of another machine, with one upload each of a key. */
  const foreignNotes = async (name: string, uploads: readonly { key: string; id?: string }[]): Promise<void> => {
    const document = { format: 1, who: 'elsewhere, process 1', owner: 'boot space 1 2', uploads }
    const key = `root/.eider/uploads/${name}.json`
    const body = Buffer.from(JSON.stringify(document))
    await raw.send({ operation: 'PutObject', method: 'PUT', key, body }, () => undefined)
  }
  const created = async (key: string): Promise<string> => (await beginUpload(raw, key, [], undefined, undefined)).id
  /** The endpoint's clock is ahead of what it has stored, by more than a lease. */
  const later = (upstream: Upstream): Upstream => ({
    ...upstream,
    headers: { ...upstream.headers, date: new Date(Date.now() + 61_000).toUTCString() },
  })

  before(async () => {
    server = await startTestGateway()
    proxy = await startFaultProxy(server.endpoint)
    await makeBucket(server, 'left')
    raw = clientOf(server, 'left')
    local = join(server.directory, 'local')
    const fd = openSync(local, 'w')
    size = 2 * PART + 1000
    writeSync(fd, randomBytes(size))
    closeSync(fd)
    await (await open()).close()
  })
  after(async () => {
    await raw?.close()
    await proxy?.close()
    await server?.stop()
  })
  beforeEach(() => proxy.clear())

  test('[S73] a process killed at any change leaves no upload open after the next opening, nor a note', async () => {
    for (const what of ['put', 'upload']) {
      // An upload that was asked for and is not begun differs from none for neither.
      for (const kind of what === 'put' ? (['refuse', 'lose'] as const) : (['lose'] as const)) {
        for (let nth = 1; ; nth++) {
          const running = await actor()
          const { child } = running
          proxy.clear()
          let count = 0
          proxy.fault(
            (request) => {
              if (!changes(request) || ++count !== nth) return false
              child.kill('SIGKILL')
              return true
            },
            { kind },
          )
          await running.act(`${what} ${what}-${kind}-${nth}`)
          await proxy.settled()
          proxy.clear()
          await (await open()).close()
          assert.deepEqual(await left(), [], `${what}, ${kind} at change ${nth}`)
          // Where it died so soon that its upload may be on its way yet, the note stays for some seconds.
          proxy.fault((request) => isNote(request) && request.method === 'GET', { kind: 'alter', alter: later }, 10)
          await (await open()).close()
          assert.equal(await notes(), 0)
          if (child.signalCode === null) break
          // Whole or not at all.
          const store = await open()
          const found = await store.stat(`${what}-${kind}-${nth}`).catch(() => undefined)
          assert.ok(found === undefined || found.size === size)
          await store.close()
        }
      }
    }
  })

  test('[S73] uploads of other tools are left alone, and those of a process that may be alive', async () => {
    const theirs = await created('root/foreign')
    const alive = await created('root/alive')
    await foreignNotes('alive', [{ key: 'root/alive', id: alive }, { key: 'root/foreign' }])
    await (await open()).close()
    assert.deepEqual((await left()).map(({ id }) => id).toSorted(), [theirs, alive].toSorted())
    assert.equal(await notes(), 1)
    for (const { key, id } of await left()) await abortUpload(raw, key, { id })
  })

  test('[S73] notes that nobody renewed for a minute are nobody’s; others’ uploads of the same key stay', async () => {
    const noted = await created('root/noted')
    const begun = await created('root/begun')
    const other = await created('root/other')
    await foreignNotes('dead', [{ key: 'root/noted', id: noted }, { key: 'root/begun' }, { key: 'root/other' }])
    await foreignNotes('alive', [{ key: 'root/other', id: other }])
    proxy.fault(({ url, method }) => method === 'GET' && url.includes('/dead.json'), { kind: 'alter', alter: later })
    await (await open()).close()
    assert.deepEqual(await left(), [{ key: 'root/other', id: other }])
    assert.ok(begun !== noted)
    assert.equal(await notes(), 1)
    await abortUpload(raw, 'root/other', { id: other })
  })

  test('[S73] an upload that has parts, and whose id nobody noted, is taken for somebody else’s', async () => {
    const upload = await beginUpload(raw, 'root/with-parts', [], undefined, undefined)
    await sendPart(raw, 'root/with-parts', upload, 1, { body: Buffer.from('x') }, AbortSignal.timeout(10_000))
    await foreignNotes('alive', [{ key: 'root/with-parts' }])
    proxy.fault(({ url, method }) => method === 'GET' && url.includes('/alive.json'), { kind: 'alter', alter: later })
    await (await open()).close()
    assert.equal((await left()).length, 1)
    await abortUpload(raw, 'root/with-parts', upload)
  })

  test('[S73] notes are renewed while an upload is open, and removed some time after', async (t) => {
    t.mock.timers.enable({ apis: ['setInterval'] })
    const others = await notes()
    const store = await open()
    const upload = await store.beginUpload?.('renewed', { attributes: {} })
    const fd = openSync(local, 'r')
    await upload?.send(0, fd)
    const until = async (method: string): Promise<void> => {
      proxy.clear()
      t.mock.timers.tick(20_000)
      while (!proxy.noted.some((request) => isNote(request) && request.method === method)) await setImmediate()
      await proxy.settled()
    }
    await until('PUT')
    await until('PUT')
    assert.equal(await notes(), others + 1)
    await upload?.abort()
    await until('DELETE')
    assert.equal(await notes(), others)
    assert.deepEqual(await left(), [])
    await store.close()
    closeSync(fd)
  })

  test('[S73] one note is enough for uploads that begin at once, and it is gone when the store is closed', async () => {
    const others = await notes()
    const store = await open()
    const fd = openSync(local, 'r')
    const source = { kind: 'file', segments: [{ fd, offset: 0, length: size }] } as const
    proxy.clear()
    await Promise.all([1, 2, 3, 4, 5, 6].map((index) => store.put(`together-${index}`, source, { guard: ANY })))
    const written = proxy.noted.filter((request) => isNote(request) && request.method === 'PUT').length
    assert.ok(written < 12, `${written} writes`)
    await store.close()
    assert.equal(await notes(), others)
    closeSync(fd)
  })
})
