import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { get } from 'node:https'
import { connect } from 'node:net'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { before, test } from 'node:test'
import { connect as connectTls } from 'node:tls'
import { promisify } from 'node:util'

import type { Listener } from '#cluster/surroundings.ts'

import { frameOf, network, RawPeer, RawServer, Recorder, SECRET, until } from './tcp-fixture.ts'
import { type TcpNetworkOptions } from './tcp-network.ts'
import type { TlsOptions } from './tcp-tls.ts'

const IN_TIME = { timeout: 20_000 }
const run = promisify(execFile)

interface Authority {
  readonly ca: string
  /** Of a server named localhost and 127.0.0.1. */
  readonly key: string
  readonly cert: string
}

let ours: Authority
let others: Authority

before(async () => {
  ours = await authority()
  others = await authority()
})

/** An authority with one certificate, both valid for a day. */
async function authority(): Promise<Authority> {
  const dir = await mkdtemp('/tmp/eider-tls-')
  const openssl = async (...args: string[]): Promise<void> => void (await run('openssl', args, { cwd: dir }))
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
  try {
    await openssl(
      'req',
      '-x509',
      ...newKey,
      '-keyout',
      'ca.key',
      '-out',
      'ca.pem',
      '-days',
      '1',
      '-subj',
      '/CN=authority',
    )
    await openssl('req', ...newKey, '-keyout', 'key.pem', '-out', 'request.pem', '-subj', '/CN=node')
    await writeFile(join(dir, 'names'), 'subjectAltName=DNS:localhost,IP:127.0.0.1\n')
    const signer = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-extfile', 'names']
    await openssl('x509', '-req', '-in', 'request.pem', '-out', 'cert.pem', '-days', '1', ...signer)
    const [ca, key, cert] = await Promise.all(
      ['ca.pem', 'key.pem', 'cert.pem'].map((name) => readFile(join(dir, name), 'utf8')),
    )
    assert.ok(ca !== undefined && key !== undefined && cert !== undefined)
    return { ca, key, cert }
  } finally {
    await rm(dir, { recursive: true })
  }
}

function echo(options: TcpNetworkOptions): Promise<Listener> {
  return network(options).listen('localhost:0', (link) => ({
    onFrame: (frame) => link.send(frame),
    onClosed: () => undefined,
  }))
}

async function ending(address: string, options: TcpNetworkOptions): Promise<{ code: unknown; message: string }> {
  const handler = new Recorder()
  network(options).connect(address, handler).send(frameOf(10))
  const error = await handler.closed()
  assert.deepEqual([handler.frames.length, handler.endings.length], [0, 1])
  return { code: await handler.code(), message: error?.message ?? '' }
}

for (const secret of [undefined, SECRET]) {
  const known = secret === undefined ? {} : { secret }
  test(`frames go both ways within TLS (${secret === undefined ? 'without' : 'with'} a secret)`, IN_TIME, async () => {
    const listener = await echo({ ...known, tls: ours })
    for (const host of ['localhost', '127.0.0.1']) {
      const handler = new Recorder()
      const link = network({ ...known, tls: { ca: ours.ca } }).connect(
        listener.address.replace('localhost', host),
        handler,
      )
      const frames = [0, 200, 70_000, 3_000_000].map(frameOf)
      for (const frame of frames) link.send(frame)
      assert.deepEqual(await handler.got(frames.length), frames)
      link.close()
      assert.equal(await handler.closed(), undefined)
    }
    await listener.close()
  })
}

test('within TLS, too, lent memory is given back once it is taken, or its link has ended', IN_TIME, async () => {
  const recorder = new Recorder()
  const tls = { ...ours }
  const listener = await network({ secret: SECRET, tls }).listen('localhost:0', () => recorder)
  const memory = Buffer.alloc(10_000_000)
  for (const fate of ['taken', 'failed'] as const) {
    const handler = new Recorder()
    const link = network({ secret: SECRET, tls: { ca: ours.ca }, waitingBytesMax: 15_000_000 }).connect(
      listener.address,
      handler,
    )
    link.send(frameOf(1))
    await until(() => recorder.frames.length > 0)
    recorder.frames.length = 0
    let taken = 0
    const lend = (): void => link.sendLent?.(() => void taken++, frameOf(10), memory)
    if (fate === 'taken') {
      lend()
      await until(() => taken === 1)
      memory.fill(1)
      assert.ok((await recorder.got(1))[0]?.subarray(10).every((byte) => byte === 0))
      link.close()
    } else {
      // In one turn, so that none of them is taken before the last one is too much.
      for (let count = 0; count < 3; count++) lend()
      await until(() => taken === 3)
      assert.equal(await handler.code(), 'CLUSTER_BUSY')
    }
    await handler.closed()
  }
  await listener.close()
})

test('a certificate of another authority, or of another host, is not trusted', IN_TIME, async () => {
  const listener = await echo({ secret: SECRET, tls: ours })
  const unknown = await ending(listener.address, { secret: SECRET, tls: { ca: others.ca } })
  assert.equal(unknown.code, 'WIRE_REFUSED')
  assert.match(unknown.message, /Cannot trust localhost:\d+: /)
  const named = await ending(listener.address.replace('localhost', '127.0.0.2'), { secret: SECRET, tls: ours })
  // Where the listener has the other loopback addresses, too, its certificate does not name them.
  assert.ok(named.code === 'WIRE_REFUSED' || named.code === 'CLUSTER_UNREACHABLE')
  await listener.close()
})

test('another secret within TLS is refused by both', IN_TIME, async () => {
  const listener = await echo({ secret: SECRET, tls: ours })
  const wrong = await ending(listener.address, { secret: Buffer.from('another one, as long'), tls: ours })
  assert.equal(wrong.code, 'WIRE_REFUSED')
  assert.match(wrong.message, /it has another secret, or somebody sits in between/)
  await listener.close()
})

test('one side with TLS and one without both say so', IN_TIME, async () => {
  const secured = await echo({ secret: SECRET, tls: ours })
  for (const known of [{ secret: SECRET }, {}]) {
    const plain = await ending(secured.address, known)
    assert.equal(plain.code, 'WIRE_REFUSED')
    assert.match(plain.message, /it speaks TLS, and this side does not/)
  }
  await secured.close()
  const open = await echo({ secret: SECRET })
  const within = await ending(open.address, { secret: SECRET, tls: { ca: ours.ca } })
  assert.equal(within.code, 'WIRE_REFUSED')
  assert.match(within.message, /Cannot trust localhost:\d+: .*wrong version number/)
  await open.close()
})

test('a peer that vanishes while TLS is being made is unreachable, and leaves nothing behind', IN_TIME, async () => {
  const raw = await RawServer.open(({ socket }) => socket.once('data', () => socket.destroy()))
  assert.equal((await ending(raw.address, { tls: { ca: ours.ca } })).code, 'CLUSTER_UNREACHABLE')
  await raw.close()
  const listener = await echo({ tls: ours })
  const address = listener.address
  // A whole first message of TLS, of which ever more is sent.
  const port = Number(address.split(':')[1])
  let hello: Buffer = Buffer.alloc(0)
  const taker = await RawServer.open(({ socket }) =>
    socket.once('data', (chunk: Buffer) => {
      hello = chunk
      socket.destroy()
    }),
  )
  await ending(taker.address, { tls: { ca: ours.ca } })
  await taker.close()
  assert.equal(hello[0], 0x16)
  for (let count = 1; count <= hello.length; count += 50) {
    const peer = await RawPeer.to(`localhost:${port}`)
    peer.socket.write(hello.subarray(0, count), () => peer.socket.destroy())
    await once(peer.socket, 'close')
  }
  // One that stays in the middle of it does not hold up the end.
  const stuck = await RawPeer.to(`localhost:${port}`)
  stuck.socket.resume().write(hello.subarray(0, 100))
  const handler = new Recorder()
  network({ tls: { ca: ours.ca } })
    .connect(address, handler)
    .send(frameOf(10))
  await handler.got(1)
  await listener.close()
  await until(() => stuck.isEnded || stuck.socket.destroyed)
})

test('HTTPS is served on the same port, and nothing in the clear', IN_TIME, async () => {
  const http = createServer((_asked, answer) => answer.end('the page'))
  const listener = await echo({
    secret: SECRET,
    tls: ours,
    foreign: (socket) => http.emit('connection', socket),
  })
  const asked = get(`https://${listener.address}/`, { ca: ours.ca, agent: false })
  const [answer] = await once(asked, 'response')
  assert.equal(await text(answer), 'the page')
  const clear = connect(Number(listener.address.split(':')[1]), 'localhost')
  clear.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
  assert.doesNotMatch(await text(clear), /page/)
  await listener.close()
  http.close()
})

test('an older TLS is refused', IN_TIME, async () => {
  const listener = await echo({ secret: SECRET, tls: ours })
  const [host = '', port = ''] = listener.address.split(':')
  const old = connectTls({ host, port: Number(port), ca: ours.ca, maxVersion: 'TLSv1.2' })
  const [error] = await once(old, 'error')
  assert.match(String(error), /protocol version/)
  await listener.close()
})

test('a key that is none, or is missing, is refused at the start', IN_TIME, async () => {
  const wrong: TlsOptions[] = [
    { key: 'no key', cert: ours.cert },
    { ...ours, key: others.key },
    { ca: '', cert: 'x' },
  ]
  for (const tls of wrong) assert.throws(() => network({ tls }), { code: 'USAGE' })
  await assert.rejects(echo({ tls: { ca: ours.ca } }), { code: 'USAGE' })
})
