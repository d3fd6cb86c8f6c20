/** The HTTP actor against the example service, run as the process that it is. */
import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { createHash, createHmac, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

import { isOperationError, type OperationError } from '#base/errors.ts'
import type { Actor } from '#sync/actor.ts'
import { actorListing } from '#sync/actor-listing.ts'
import { loadActor } from '#sync/actor-module.ts'
import type { TreeEntry } from '#sync/tree.ts'

import { SENT_MTIME, sentFile } from './sent-file.ts'

const SECRET = 'fuzzy puppies make me smile in the sunshine'
const SERVICE = fileURLToPath(new URL('../examples/media-files-server.ts', import.meta.url))
const NAMES = ['a b/ü/1.mp3', 'a-b', 'a/#?%&+.mp3', 'a/b/c', 'z', '\u{1f600}', '\uffee']

let root = ''
let service: { readonly url: string; readonly child: ChildProcess }
const actors: Actor[] = []

before(async () => {
  root = await mkdtemp(join(tmpdir(), 'eider-http-actor-'))
  service = await startService()
})
after(async () => {
  for (const actor of actors) await actor.close?.()
  service.child.kill('SIGKILL')
  await rm(root, { recursive: true, force: true })
})

async function startService(): Promise<typeof service> {
  const child = spawn(process.execPath, [SERVICE, root], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, MEDIA_FILES_SECRET: SECRET, MEDIA_FILES_PAGE: '3' },
  })
  const [url] = (await once(createInterface(child.stdout), 'line')) as [string]
  return { url, child }
}

async function open(options: Record<string, string> = {}): Promise<Actor> {
  const module = await loadActor('http', root)
  const context = { container: undefined, threads: 4, signal: new AbortController().signal }
  const actor = await module.open({ ...context, options: { url: service.url, secret: SECRET, ...options } })
  actors.push(actor)
  return actor
}

async function listed(actor: Actor, under = ''): Promise<TreeEntry[]> {
  const entries: TreeEntry[] = []
  for await (const page of actorListing(actor, under, { scratch: root })) entries.push(...page)
  return entries
}

/** A server that gives what `listener` gives, for as long as `use` takes. */
async function withServer(listener: RequestListener, use: (url: string) => Promise<void>): Promise<void> {
  const server: Server = createServer(listener)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  try {
    await use(`http://127.0.0.1:${(server.address() as AddressInfo).port}/files`)
  } finally {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
}

/** Waits for what comes about by itself; a test that waits in vain fails by its time limit. */
async function until(holds: () => Promise<boolean>): Promise<void> {
  while (!(await holds())) await sleep(5)
}

function code(expected: string, words = /^Cannot /): (error: unknown) => boolean {
  return (error) => {
    assert.ok(isOperationError(error), String(error))
    assert.equal(error.code, expected, error.message)
    assert.match(error.message, words)
    return true
  }
}

describe('the HTTP actor on the example service', () => {
  test('what is put is listed in order, in pages, with its size and its time to the nanosecond', async () => {
    const actor = await open()
    for (const name of NAMES.toReversed()) await actor.upload(sentFile(name, Buffer.from(`of ${name}`)), {})
    const entries = await listed(actor)
    const inOrder = NAMES.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
    assert.deepEqual(
      entries.map(({ path }) => path),
      inOrder,
    )
    assert.deepEqual(
      entries.map(({ mtime }) => mtime),
      inOrder.map(() => SENT_MTIME),
    )
    assert.deepEqual(
      entries.map(({ size }) => size),
      inOrder.map((name) => Buffer.byteLength(`of ${name}`)),
    )
    for (const name of NAMES) assert.equal(await readFile(join(root, 'files', name), 'utf8'), `of ${name}`)
  })

  test('only what lies at or under a directory is listed where that is asked for', async () => {
    const actor = await open()
    const paths = async (under: string): Promise<string[]> => (await listed(actor, under)).map(({ path }) => path)
    assert.deepEqual(await paths('a'), ['a/#?%&+.mp3', 'a/b/c'])
    assert.deepEqual(await paths('z'), ['z'])
    assert.deepEqual(await paths('nothing'), [])
  })

  test('an upload replaces, and tells a new version', async () => {
    const actor = await open()
    const first = await actor.upload(sentFile('replaced', Buffer.from('one')), {})
    const second = await actor.upload(sentFile('replaced', Buffer.from('three')), {})
    assert.equal(await readFile(join(root, 'files/replaced'), 'utf8'), 'three')
    assert.ok(first?.version !== undefined && second?.version !== undefined && first.version !== second.version)
    assert.deepEqual(await actor.stat?.('replaced', {}), { ...second, kind: 'file' })
    assert.equal(await actor.stat?.('not there', {}), undefined)
  })

  test('a large file is hashed and then sent, an empty and a small one are read once', async () => {
    const actor = await open()
    for (const [size, streams] of [
      [0, 1],
      [256 * 1024, 1],
      [256 * 1024 + 1, 2],
      [5 * 2 ** 20 + 3, 2],
    ] as const) {
      const bytes = randomBytes(size)
      const file = sentFile('large', bytes)
      const entry = (await actor.upload(file, {})) as TreeEntry
      assert.equal(file.streams, streams)
      assert.ok(bytes.equals(await readFile(join(root, 'files/large'))))
      const digest = createHash('sha256').update(bytes).digest('hex')
      assert.deepEqual(await actor.hash?.(entry, 'sha256', {}), { algorithm: 'sha256', digest })
      assert.equal(await actor.hash?.(entry, 'md5', {}), undefined)
    }
  })

  for (const [what, size, changesAfterStreams] of [
    ['a small file', 10, 0],
    ['a large one while it is hashed', 2 ** 20, 0],
    ['a large one while it is sent', 2 ** 20, 1],
  ] as const) {
    test(`what was there stays where ${what} is changed meanwhile`, async () => {
      const actor = await open()
      await actor.upload(sentFile('changing', Buffer.from('before')), {})
      const file = sentFile('changing', Buffer.alloc(size, 'x'), { changesAfterStreams })
      await assert.rejects(async () => actor.upload(file, {}), code('FILE_STALE'))
      assert.equal(await readFile(join(root, 'files/changing'), 'utf8'), 'before')
      assert.equal((await actor.stat?.('changing', {}))?.size, 6)
      // The service learns of it by the connection, which ends a moment later.
      await until(async () => (await readdir(join(root, 'incoming'))).length === 0)
    })
  }

  test('a delete removes, and one of what is not there is no error', async () => {
    const actor = await open()
    await actor.upload(sentFile('gone/by/now', Buffer.from('x')), {})
    const entry = await actor.stat?.('gone/by/now', {})
    assert.ok(entry)
    await actor.delete(entry, {})
    await actor.delete(entry, {})
    assert.equal(await actor.stat?.('gone/by/now', {}), undefined)
    assert.equal((await readdir(join(root, 'files'))).includes('gone'), false)
  })

  test('a file in the place of a directory is a conflict, and told so', async () => {
    const actor = await open()
    await actor.upload(sentFile('place', Buffer.from('x')), {})
    await assert.rejects(
      async () => actor.upload(sentFile('place/below', Buffer.from('x')), {}),
      code('STORE_CONFLICT'),
    )
  })

  test('another secret is refused, and no message shows either', async () => {
    const actor = await open({ secret: 'a wrong one' })
    await assert.rejects(listed(actor), (error: OperationError) => {
      code('STORE_DENIED', /401, .*the signature is wrong/)(error)
      assert.match(error.hint, /--secret/)
      assert.doesNotMatch(`${error.message}${error.hint}${error.stack}`, /a wrong one|fuzzy puppies/)
      return true
    })
  })

  test('what was sent once is refused when it is sent again', async () => {
    const date = String(Math.floor(Date.now() / 1000))
    const nonce = randomBytes(16).toString('hex')
    const empty = createHash('sha256').digest('hex')
    const { pathname } = new URL(service.url)
    const lines = ['eider-http-1', 'GET', pathname, date, nonce, empty, '0', '']
    const signature = createHmac('sha256', SECRET).update(lines.join('\n')).digest('hex')
    const headers = { 'eider-date': date, 'eider-nonce': nonce, 'eider-content-sha256': empty }
    const authorization = `Eider-HMAC-SHA256 ${signature}`
    const send = async (): Promise<number> =>
      (await fetch(service.url, { headers: { ...headers, authorization } })).status
    assert.deepEqual([await send(), await send()], [200, 401])
  })

  test('paths that lead out of the directory are refused by the service', async () => {
    const actor = await open()
    for (const path of ['../out', 'a/../../out', './x']) {
      await assert.rejects(
        async () => actor.upload(sentFile(path, Buffer.from('x')), {}),
        code('STORE_PROTOCOL', /400/),
      )
    }
    assert.deepEqual((await readdir(root)).toSorted(), ['files', 'incoming', 'index.jsonl'])
  })

  test('all is there after the service was killed and begun anew', async () => {
    const listedBefore = await listed(await open())
    service.child.kill('SIGKILL')
    await once(service.child, 'exit')
    service = await startService()
    assert.ok(listedBefore.length > NAMES.length)
    assert.deepEqual(await listed(await open()), listedBefore)
  })
})

describe('the HTTP actor on services that do not do what they should', () => {
  for (const [status, expected] of [
    [403, 'STORE_DENIED'],
    [404, 'STORE_NOT_FOUND'],
    [409, 'STORE_CONFLICT'],
    [418, 'STORE_PROTOCOL'],
    [429, 'STORE_THROTTLED'],
    [500, 'STORE_UNAVAILABLE'],
    [503, 'STORE_THROTTLED'],
    [504, 'STORE_TIMEOUT'],
    [507, 'STORE_NO_SPACE'],
  ] as const) {
    test(`an answer of ${status} is ${expected}`, async () => {
      await withServer(
        (_, response) => response.writeHead(status).end('<p>No,\n not now.</p>'),
        async (url) => {
          await assert.rejects(
            listed(await open({ url })),
            code(expected, new RegExp(`answers ${status}, No, not now$`)),
          )
        },
      )
    })
  }

  test('a clock that is wrong is told as such', async () => {
    await withServer(
      (_, response) => response.writeHead(401, { date: new Date(Date.now() - 3_600_000).toUTCString() }).end(),
      async (url) => assert.rejects(listed(await open({ url })), code('CLOCK_SKEWED', /360\d seconds apart/)),
    )
  })

  test('a listing that somebody else answers is not believed', async () => {
    await withServer(
      (_, response) => response.writeHead(200, { 'eider-signature': '00' }).end('{"files":[]}'),
      async (url) => assert.rejects(listed(await open({ url })), code('STORE_CORRUPT', /not signed by the service/)),
    )
  })

  test('a service that ignores the marker of a listing is found out', async () => {
    const page = JSON.stringify({ files: [{ path: 'a', size: 1 }], next: 'a' })
    const listener: RequestListener = (request, response) => {
      const sha256 = createHash('sha256').update(page).digest('hex')
      const lines = ['eider-http-1-answer', String(request.headers['eider-nonce']), '200', sha256]
      response.setHeader('eider-signature', createHmac('sha256', SECRET).update(lines.join('\n')).digest('hex'))
      response.end(page)
    }
    await withServer(listener, async (url) => {
      await assert.rejects(listed(await open({ url })), code('STORE_PROTOCOL', /does not end there/))
    })
  })

  test('a service that is not there, or that drops connections, is unavailable', async () => {
    let gone = ''
    await withServer(
      (request) => request.socket.destroy(),
      async (url) => {
        gone = url
        const large = sentFile('x', Buffer.alloc(2 ** 20))
        await assert.rejects(listed(await open({ url })), code('STORE_UNAVAILABLE'))
        const actor = await open({ url })
        await assert.rejects(async () => actor.upload(large, {}), code('STORE_UNAVAILABLE'))
      },
    )
    await assert.rejects(listed(await open({ url: gone })), code('STORE_UNAVAILABLE'))
  })

  test('a request that is given up ends at once', async () => {
    const controller = new AbortController()
    await withServer(
      () => controller.abort(),
      async (url) => {
        const actor = await open({ url })
        const { signal } = controller
        await assert.rejects(async () => actor.upload(sentFile('x', Buffer.from('x')), { signal }), code('ABORTED'))
      },
    )
  })

  for (const [url, words] of [
    ['ftp://host/x', /"ftp:\/\/host\/x" is no http/],
    ['not a url', /the URL is no http/],
    ['http://host/x?y=1', /has a query/],
    ['http://me:hidden@host/x', /has a user name/],
    ['ftp://me:hidden@host/x', /the URL is no http/],
  ] as const) {
    test(`the URL ${url} is refused`, async () => {
      await assert.rejects(open({ url }), (error: OperationError) => {
        assert.doesNotMatch(error.message, /hidden/)
        return code('INPUT_INVALID', words)(error)
      })
    })
  }
})
