/** What the listener queues, and what it refuses: over real connections, from clients that behave and others. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { request } from 'node:http'
import { connect } from 'node:net'
import { after, beforeEach, test } from 'node:test'
import { type Listener, startListener } from './listener.ts'

const queued: string[] = []
let outcome: (path: string) => boolean | Promise<boolean>
const listener: Listener = await startListener({
  port: 0,
  queue: (path) => {
    queued.push(path)
    return outcome(path)
  },
})
after(() => listener.close())
beforeEach(() => {
  queued.length = 0
  outcome = () => true
})

interface Asked {
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string | Buffer
}

interface Answered {
  readonly status: number | undefined
  readonly text: string
  readonly allow: string | undefined
}

async function ask(path: string, { method = 'POST', headers = {}, body }: Asked = {}): Promise<Answered> {
  const asked = request({ host: '127.0.0.1', port: listener.port, path, method, headers, agent: false })
  asked.end(body)
  const [response] = await once(asked, 'response')
  let text = ''
  for await (const chunk of response) text += chunk
  return { status: response.statusCode, text, allow: response.headers.allow }
}

/** Sends bytes as they are, and gives the first line of the answer. */
async function send(bytes: string | Buffer): Promise<string> {
  const socket = connect(listener.port, '127.0.0.1')
  socket.write(bytes)
  const [chunk] = (await once(socket, 'data')) as [Buffer]
  socket.destroy()
  return chunk.toString('latin1').split('\r\n')[0] ?? ''
}

const TAKEN: readonly (readonly [target: string, path: string])[] = [
  ['/home/david/a.mp3', '/home/david/a.mp3'],
  ['/a%20b/c%2525', '/a b/c%25'],
  ['/%C3%A9', '/é'],
  ['/a%3Fb%23', '/a?b#'],
  ['//home//x/', '/home/x'],
  ['/a+b', '/a+b'],
  ['/', '/'],
]
for (const [target, path] of TAKEN) {
  test(`POST ${target} is 201, and that path is queued once`, async () => {
    assert.equal((await ask(target)).status, 201)
    assert.deepEqual(queued, [path])
  })
}

test('bytes of a name that a client did not encode are refused rather than taken for others', async () => {
  const head = Buffer.from('POST /é HTTP/1.1\r\nHost: localhost\r\n\r\n', 'utf8')
  assert.equal(await send(head), 'HTTP/1.1 400 Bad Request')
  assert.deepEqual(queued, [])
})

const BAD = [
  '/a%',
  '/%ff',
  '/%00',
  '/..',
  '/a/%2e%2e/b',
  '/./a',
  '/a?b',
  '*',
  'http://localhost/a',
  `/${'x'.repeat(4095)}`,
]
for (const target of BAD) {
  test(`POST ${target.slice(0, 20)} is 400, with a sentence, and queues nothing`, async () => {
    const { status, text } = await ask(target)
    assert.equal(status, 400)
    assert.match(text, /^[A-Z].*\.\n$/)
    assert.deepEqual(queued, [])
  })
}

test('a path in nothing that is synced is 404 with a sentence', async () => {
  outcome = () => false
  const { status, text } = await ask('/elsewhere')
  assert.equal(status, 404)
  assert.equal(text, 'The path lies in nothing that this sync sends.\n')
})

test('the answer is given once the path is queued, and a failure to queue is 500', async () => {
  outcome = async () => {
    await Promise.resolve()
    throw new Error('no')
  }
  assert.equal((await ask('/a')).status, 500)
  outcome = () => Promise.resolve(true)
  assert.equal((await ask('/a')).status, 201)
})

for (const method of ['GET', 'PUT', 'DELETE', 'OPTIONS']) {
  test(`${method} is 405 and tells what is allowed`, async () => {
    const { status, allow } = await ask('/a', { method })
    assert.deepEqual({ status, allow }, { status: 405, allow: 'POST' })
    assert.deepEqual(queued, [])
  })
}

for (const host of ['localhost', 'LOCALHOST:80', '127.0.0.1', '[::1]:8080']) {
  test(`Host ${host} is this machine`, async () => {
    assert.equal((await ask('/a', { headers: { host } })).status, 201)
  })
}

for (const host of ['example.org', 'localhost.example.org', '127.0.0.1.example.org', '10.0.0.1', '[::2]']) {
  test(`Host "${host}" is refused, as a web page could have sent it`, async () => {
    assert.equal((await ask('/a', { headers: { host } })).status, 403)
    assert.deepEqual(queued, [])
  })
}

test('a request that names no host is refused', async () => {
  assert.equal(await send('POST /a HTTP/1.1\r\nHost:\r\n\r\n'), 'HTTP/1.1 403 Forbidden')
  assert.equal(await send('POST /a HTTP/1.0\r\n\r\n'), 'HTTP/1.1 403 Forbidden')
  assert.equal(await send('POST /a HTTP/1.1\r\n\r\n'), 'HTTP/1.1 400 Bad Request')
  assert.deepEqual(queued, [])
})

test('a request with an Origin is refused', async () => {
  for (const origin of ['https://example.org', 'null', 'http://127.0.0.1']) {
    assert.equal((await ask('/a', { headers: { origin } })).status, 403)
  }
  assert.deepEqual(queued, [])
})

test('a body is read and means nothing; one that is too long is 413, whether it says its length or not', async () => {
  assert.equal((await ask('/a', { body: 'x'.repeat(64 * 1024) })).status, 201)
  const long = Buffer.alloc(1024 ** 2)
  assert.equal((await ask('/a', { body: long })).status, 413)
  assert.equal((await ask('/a', { body: long, headers: { 'transfer-encoding': 'chunked' } })).status, 413)
  assert.deepEqual(queued, ['/a'])
})

test('a client that sends all of a long body before it reads sees the answer, and goes on with its connection', async () => {
  const socket = connect(listener.port, '127.0.0.1')
  const piece = Buffer.alloc(64 * 1024, 'x')
  let answers = ''
  for (const head of [`content-length: ${piece.length * 256}`, 'transfer-encoding: chunked']) {
    socket.pause()
    socket.write(`POST /long HTTP/1.1\r\nHost: localhost\r\n${head}\r\n\r\n`)
    const isChunked = head.endsWith('chunked')
    for (let each = 0; each < 256; each++) {
      if (isChunked) socket.write('10000\r\n')
      const hasRoom = socket.write(piece)
      if (isChunked) socket.write('\r\n')
      if (!hasRoom) await once(socket, 'drain')
    }
    if (isChunked) socket.write('0\r\n\r\n')
    socket.resume()
    const [chunk] = await once(socket, 'data')
    answers += String(chunk)
  }
  socket.destroy()
  assert.equal(answers.split('HTTP/1.1 413').length - 1, 2)
})

test('a request that breaks off queues nothing, and others go on', async () => {
  const socket = connect(listener.port, '127.0.0.1')
  socket.write('POST /broken HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nab')
  await once(socket, 'connect')
  socket.destroy()
  assert.equal((await ask('/whole')).status, 201)
  assert.deepEqual(queued, ['/whole'])
})

test('one connection takes many requests', async () => {
  const socket = connect(listener.port, '127.0.0.1')
  let answers = ''
  socket.on('data', (chunk) => (answers += chunk.toString()))
  const each = (path: string): string => `POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx`
  socket.write(`${each('/1')}${each('/2')}POST /3 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`)
  await once(socket, 'close')
  assert.equal(answers.split('HTTP/1.1 201').length - 1, 3)
  assert.deepEqual(queued.sort(), ['/1', '/2', '/3'])
})

test('a port that is taken is told as the system tells it, and a closed listener gives it back', async () => {
  const first = await startListener({ port: 0, queue: () => true })
  await assert.rejects(startListener({ port: first.port, queue: () => true }), { code: 'EADDRINUSE' })
  await first.close()
  const second = await startListener({ port: first.port, queue: () => true })
  assert.equal(second.port, first.port)
  await second.close()
})
