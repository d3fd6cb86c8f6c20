import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, request } from 'node:http'
import { connect, Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { mock, test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'

import fc from 'fast-check'

import { BufferMemory } from '#cluster/erasure/buffer-memory.ts'
import type { Link, LinkHandler, Listener, Network } from '#cluster/surroundings.ts'

import { FAREWELL, headerOf, MESSAGE, PING } from './frame-reader.ts'
import { codeOf, frameOf, network, RawPeer, RawServer, Recorder, SECRET, StandingClock, until } from './tcp-fixture.ts'
import { OPENING_MS_MAX, SILENT_TICKS_MAX, TICK_MS } from './tcp-link.ts'
import { type TcpNetworkOptions } from './tcp-network.ts'

const IN_TIME = { timeout: 20_000 }
const LOCAL = '127.0.0.1:0'

/** A listener that sends back what it gets. */
interface Echo {
  readonly listener: Listener
  readonly links: Link[]
  readonly handlers: Recorder[]
}

async function echo(of: Network, address = LOCAL): Promise<Echo> {
  const links: Link[] = []
  const handlers: Recorder[] = []
  const listener = await of.listen(address, (link) => {
    const handler = new Recorder()
    links.push(link)
    handlers.push(handler)
    return {
      onFrame: (frame) => {
        handler.onFrame(frame)
        link.send(frame)
      },
      onClosed: (error) => handler.onClosed(error),
    }
  })
  return { listener, links, handlers }
}

/** Whether the listener still serves who does as it should. */
async function expectServing(address: string, options: TcpNetworkOptions = {}): Promise<void> {
  const handler = new Recorder()
  const link = network(options).connect(address, handler)
  const frame = frameOf(50)
  link.send(frame)
  assert.deepEqual(await handler.got(1), [frame])
  link.close()
}

for (const [name, options] of [
  ['without a secret', {}],
  ['with a secret', { secret: SECRET }],
] as const) {
  test(
    `frames go both ways, whole and in order, also those sent before the link stands (${name})`,
    IN_TIME,
    async () => {
      const { listener, links, handlers } = await echo(network(options))
      assert.match(listener.address, /^127\.0\.0\.1:[1-9]\d*$/)
      const handler = new Recorder()
      const link = network(options).connect(listener.address, handler)
      assert.equal(link.peer, listener.address)
      const frames = [0, 1, 200, 20_000, 3_000_000, 5].map(frameOf)
      for (const frame of frames) {
        const half = frame.length >> 1
        link.send(frame.subarray(0, half), Buffer.alloc(0), frame.subarray(half))
      }
      assert.ok(link.bytesWaiting >= 3_020_206)
      assert.deepEqual(await handler.got(frames.length), frames)
      assert.equal(link.bytesWaiting, 0)
      link.close()
      link.send(Buffer.from('to nobody'))
      assert.equal(link.bytesWaiting, 0)
      assert.equal(await handler.closed(), undefined)
      assert.equal(await handlers[0]?.code(), 'CLUSTER_UNREACHABLE')
      assert.match(links[0]?.peer ?? '', /^127\.0\.0\.1:\d+$/)
      await listener.close()
      assert.deepEqual([handler.endings.length, handlers[0]?.endings.length], [1, 1])
      assert.equal(handlers[0]?.frames.length, frames.length)
    },
  )

  test(`a frame of 100 MiB comes in one buffer of its length (${name})`, IN_TIME, async () => {
    const { listener, handlers } = await echo(network(options))
    const handler = new Recorder()
    const link = network(options).connect(listener.address, handler)
    const large = Buffer.alloc(100 * 1024 * 1024, randomBytes(4096))
    link.send(Buffer.from('head'), large)
    const [frame] = await handler.got(1)
    assert.ok(frame !== undefined && frame.subarray(4).equals(large))
    assert.ok((handlers[0]?.frames[0]?.buffer.byteLength ?? 0) <= large.length + 4 + 16)
    await listener.close()
  })
}

test('10,000 frames sent in one turn are few writes', IN_TIME, async () => {
  const { listener } = await echo(network())
  const handler = new Recorder()
  const link = network().connect(listener.address, handler)
  link.send(frameOf(10))
  await handler.got(1)
  const sockets = Socket.prototype as Required<Pick<Socket, '_write' | '_writev'>>
  const one = mock.method(sockets, '_write')
  const many = mock.method(sockets, '_writev')
  try {
    const frame = frameOf(200)
    for (let count = 0; count < 10_000; count++) link.send(frame)
    // Before the first of them are answered.
    await nextTurn()
    const writes = one.mock.callCount() + many.mock.callCount()
    assert.ok(writes >= 1 && writes <= 4, `${writes} writes`)
    await handler.got(10_001)
  } finally {
    mock.restoreAll()
  }
  await listener.close()
})

test('a peer that does not read is let go once more than the bound waits', IN_TIME, async () => {
  const raw = await RawServer.open((peer) => {
    void peer.stand('server').then(() => peer.socket.pause())
  })
  const bound = 8 << 20
  const handler = new Recorder()
  const link = network({ waitingBytesMax: bound }).connect(raw.address, handler)
  const frame = frameOf(1 << 20)
  let most = 0
  while (handler.endings.length === 0) {
    link.send(frame)
    most = Math.max(most, link.bytesWaiting)
    await nextTurn()
  }
  assert.equal(await handler.code(), 'CLUSTER_BUSY')
  assert.ok(most <= bound + frame.length + 100, `${most} bytes waited`)
  assert.equal(handler.endings.length, 1)
  await raw.close()
})

test('lent memory is given back once the network has taken it, and whatever becomes of the link', IN_TIME, async () => {
  const raw = await RawServer.open((peer) => {
    void peer.stand('server')
    // It stands, and reads no further.
    peer.socket.once('data', () => peer.socket.pause())
  })
  for (const ending of ['read', 'closed by the peer', 'closed', 'too much waits'] as const) {
    const handler = new Recorder()
    const link = network({ waitingBytesMax: 100 << 20 }).connect(raw.address, handler)
    assert.ok(link.sendLent !== undefined)
    let taken = 0
    const lend = (bytes: number): void => link.sendLent?.(() => taken++, frameOf(100), Buffer.alloc(bytes), frameOf(4))
    lend(1000)
    await until(() => taken === 1)
    // More than both kernels take.
    for (let count = 0; count < 3; count++) lend(30 << 20)
    await nextTurn()
    await nextTurn()
    assert.ok(taken < 4, 'what waits is not given back')
    const peer = raw.peers.at(-1)
    assert.ok(peer !== undefined)
    if (ending === 'read') peer.socket.resume()
    else if (ending === 'closed by the peer') peer.socket.destroy()
    else if (ending === 'closed') link.close()
    else for (let count = 0; count < 2; count++) lend(30 << 20)
    const all = ending === 'too much waits' ? 6 : 4
    if (ending === 'closed') peer.socket.resume()
    await until(() => taken === all)
    lend(1000)
    if (ending !== 'read') assert.equal(taken, all + 1, 'of a closed link nothing is sent')
    link.close()
    await handler.closed()
  }
  await raw.close()
})

test('a frame that was coming when its link was closed gives its memory back', IN_TIME, async () => {
  const memory = new BufferMemory(4 << 20)
  for (const ending of ['closed', 'closed by the peer'] as const) {
    const raw = await RawServer.open((peer) => void peer.stand('server').then(() => peer.send(MESSAGE, frameOf(3))))
    const recorder = new Recorder()
    const onFrame = (frame: Buffer): void => recorder.onFrame(frame)
    const onClosed = (error?: Error): void => recorder.onClosed(error)
    const link = network().connect(raw.address, { memory, onFrame, onClosed })
    await recorder.got(1)
    const [peer] = raw.peers
    const cut = Buffer.alloc(1_000_000)
    cut.writeUInt32LE(headerOf(MESSAGE, 2_000_000))
    peer?.socket.write(cut)
    await until(() => memory.bytesLent > 0)
    if (ending === 'closed') link.close()
    else peer?.socket.destroy()
    await recorder.closed()
    peer?.socket.destroy()
    await until(() => memory.bytesLent === 0)
    await raw.close()
  }
})

test('one frame goes out whatever the bound is', IN_TIME, async () => {
  const { listener } = await echo(network())
  const handler = new Recorder()
  network({ waitingBytesMax: 1000 }).connect(listener.address, handler).send(frameOf(100_000))
  await handler.got(1)
  await listener.close()
})

test('a client that vanishes at any byte of the handshake leaves nothing behind', IN_TIME, async () => {
  const { listener, links } = await echo(network({ secret: SECRET }))
  const hello = Buffer.concat([Buffer.from('EIDR\u0001\u0001\0\0', 'latin1'), randomBytes(32), randomBytes(31)])
  for (let count = 0; count <= hello.length; count++) {
    const peer = await RawPeer.to(listener.address)
    peer.socket.write(hello.subarray(0, count), () => {
      if (count % 2 === 0) peer.socket.resetAndDestroy()
      else peer.socket.destroy()
    })
    await once(peer.socket, 'close')
  }
  assert.equal(links.length, 0)
  await expectServing(listener.address, { secret: SECRET })
  await listener.close()
})

test('a server that vanishes at any byte of the handshake is told once, as unreachable', IN_TIME, async () => {
  for (const secret of [undefined, SECRET]) {
    const answer = Buffer.concat([Buffer.from(`EIDR\u0001${secret ? '\u0001' : '\0'}\0\0`, 'latin1'), randomBytes(63)])
    for (let count = 0; count < (secret ? 72 : 40); count += count < 10 ? 1 : 7) {
      const raw = await RawServer.open(({ socket }) => {
        socket.once('data', () => socket.write(answer.subarray(0, count), () => socket.destroy()))
      })
      const handler = new Recorder()
      const link = network(secret ? { secret } : {}).connect(raw.address, handler)
      link.send(Buffer.from('waits for ever'))
      assert.equal(await handler.code(), 'CLUSTER_UNREACHABLE', `after ${count} bytes`)
      await raw.close()
      assert.deepEqual([handler.endings.length, link.bytesWaiting], [1, 0])
    }
  }
})

test('what cannot be reached is told as that, once and not at once', IN_TIME, async () => {
  const raw = await RawServer.open(() => undefined)
  const { address } = raw
  await raw.close()
  for (const [place, code] of [
    [address, 'CLUSTER_UNREACHABLE'],
    ['nobody.invalid:80', 'CLUSTER_UNREACHABLE'],
    ['no address', 'USAGE'],
    ['127.0.0.1:99999', 'USAGE'],
  ] as const) {
    const handler = new Recorder()
    const link = network({ secret: SECRET }).connect(place, handler)
    assert.equal(handler.endings.length, 0)
    link.send(Buffer.from('never sent'))
    assert.equal(await handler.code(), code, place)
    link.close()
    await nextTurn()
    assert.equal(handler.endings.length, 1)
  }
})

test('a link that is closed before it stands is closed without a reason', IN_TIME, async () => {
  const { listener, links } = await echo(network())
  const clock = new StandingClock()
  const handler = new Recorder()
  const link = network({}, clock).connect(listener.address, handler)
  link.close()
  link.close()
  assert.equal(await handler.closed(), undefined)
  assert.deepEqual([handler.endings.length, links.length, clock.timers], [1, 0, 0])
  await listener.close()
})

test('whoever says nothing is let go after four seconds, on both sides', IN_TIME, async () => {
  const clock = new StandingClock()
  const raw = await RawServer.open(() => undefined)
  const handler = new Recorder()
  network({}, clock).connect(raw.address, handler)
  await until(() => raw.peers.length > 0)
  const { listener } = await echo(network({}, clock))
  const peers = await Promise.all([RawPeer.to(listener.address), RawPeer.to(listener.address)])
  for (const { socket } of peers) socket.resume()
  // One that has begun to be a link, and one of which nothing is known.
  peers[0]?.socket.write('EIDR\u0001')
  await until(() => clock.timers >= 3)
  clock.forward(OPENING_MS_MAX)
  assert.equal(await handler.code(), 'CLUSTER_UNREACHABLE')
  clock.forward(OPENING_MS_MAX)
  await until(() => peers.every(({ isEnded, socket }) => isEnded || socket.destroyed))
  await raw.close()
  await listener.close()
})

test('a silent peer gets a ping each tick, and is let go after three', IN_TIME, async () => {
  const clock = new StandingClock()
  const raw = await RawServer.open((peer) => void peer.stand('server', SECRET))
  const handler = new Recorder()
  const link = network({ secret: SECRET }, clock).connect(raw.address, handler)
  link.send(Buffer.from('hello'))
  await until(() => raw.peers[0]?.frames.length === 1)
  const [peer] = raw.peers
  assert.ok(peer !== undefined)
  for (let tick = 1; tick <= SILENT_TICKS_MAX; tick++) {
    clock.forward(TICK_MS)
    // The first one has heard the handshake, and has sent `hello`.
    await until(() => peer.frames.filter(({ kind }) => kind === PING).length === tick - 1)
    assert.equal(handler.endings.length, 0)
  }
  // Anything that comes, a ping too, makes it count anew.
  peer.send(PING)
  peer.send(MESSAGE, Buffer.from('here'))
  await handler.got(1)
  assert.equal(handler.frames.length, 1, 'a ping is no message')
  for (let tick = 0; tick <= SILENT_TICKS_MAX; tick++) {
    assert.equal(handler.endings.length, 0)
    clock.forward(TICK_MS)
  }
  assert.equal(await handler.code(), 'CLUSTER_UNREACHABLE')
  assert.match((await handler.closed())?.message ?? '', /nothing was heard of it for 30 s/)
  await raw.close()
  assert.equal(clock.timers, 0)
})

test('two idle ends stay connected by their pings', IN_TIME, async () => {
  const clock = new StandingClock()
  const { listener, handlers } = await echo(network({}, clock))
  let passed = [0, 0]
  const relay = await RawServer.open(({ socket }) => {
    const to = connect(Number(listener.address.split(':')[1]), '127.0.0.1')
    socket.on('data', (chunk: Buffer) => {
      to.write(chunk)
      passed = [(passed[0] ?? 0) + chunk.length, passed[1] ?? 0]
    })
    to.on('data', (chunk: Buffer) => {
      socket.write(chunk)
      passed = [passed[0] ?? 0, (passed[1] ?? 0) + chunk.length]
    })
    to.on('error', () => undefined).on('close', () => socket.destroy())
  })
  const handler = new Recorder()
  const link = network({}, clock).connect(relay.address, handler)
  link.send(Buffer.from('hello'))
  await handler.got(1)
  clock.forward(TICK_MS)
  for (let tick = 1; tick <= 20; tick++) {
    const before = passed
    clock.forward(TICK_MS)
    await until(() => passed.every((bytes, index) => bytes === (before[index] ?? 0) + 4))
    // What was written to a socket of this machine is there to be read, and is read before the next turn is over.
    await nextTurn()
    await nextTurn()
  }
  assert.deepEqual([handler.endings.length, handlers[0]?.endings.length], [0, 0])
  link.close()
  await listener.close()
  await relay.close()
})

test('a frame that is too long ends its link with a last word, and no other link', IN_TIME, async () => {
  const { listener, handlers } = await echo(network({ secret: SECRET, frameBytesMax: 1000 }))
  const bystander = new Recorder()
  const steady = network({ secret: SECRET }).connect(listener.address, bystander)
  steady.send(frameOf(1000))
  await bystander.got(1)
  const handler = new Recorder()
  const link = network({ secret: SECRET }).connect(listener.address, handler)
  link.send(frameOf(10))
  link.send(frameOf(1001))
  link.send(frameOf(3_000_000))
  assert.equal(await handler.code(), 'WIRE_MALFORMED')
  assert.match((await handler.closed())?.message ?? '', /it says "Cannot read a message: a frame has 1001 bytes/)
  assert.equal(handler.frames.length, 1, 'what came before is answered')
  assert.equal(await handlers[1]?.code(), 'WIRE_MALFORMED')
  steady.send(frameOf(5))
  await bystander.got(2)
  assert.equal(handlers[0]?.frames.length, 2)
  await listener.close()
})

test('a handler that closes the link while frames come gets no other', IN_TIME, async () => {
  const got: Buffer[] = []
  const closed = new Recorder()
  const listener = await network().listen(LOCAL, (link) => ({
    onFrame: (frame) => {
      got.push(frame)
      link.send(Buffer.from('last'))
      link.close()
    },
    onClosed: (error) => closed.onClosed(error),
  }))
  const handler = new Recorder()
  const link = network().connect(listener.address, handler)
  for (let count = 0; count < 100; count++) link.send(Buffer.of(count))
  assert.deepEqual(await handler.got(1), [Buffer.from('last')])
  assert.equal(await handler.code(), 'CLUSTER_UNREACHABLE')
  assert.equal(await closed.closed(), undefined)
  assert.deepEqual([got.length, closed.endings.length], [1, 1])
  await listener.close()
})

test('ends with different secrets both refuse, and say what is wrong', IN_TIME, async () => {
  const other = Buffer.from('another secret of the tests')
  const cases: [TcpNetworkOptions, TcpNetworkOptions, RegExp][] = [
    [{ secret: SECRET }, {}, /it has a secret, and this side has none/],
    [{}, { secret: SECRET }, /it has no secret, and this side has one/],
    [{ secret: SECRET }, { secret: other }, /it has another secret/],
  ]
  for (const [of, by, message] of cases) {
    const { listener, links } = await echo(network(of))
    const handler = new Recorder()
    network(by).connect(listener.address, handler).send(Buffer.from('not to be seen'))
    assert.equal(await handler.code(), 'WIRE_REFUSED')
    assert.match((await handler.closed())?.message ?? '', message)
    assert.equal(links.length, 0)
    await expectServing(listener.address, of)
    await listener.close()
  }
})

test('another version is answered by this one, and said', IN_TIME, async () => {
  const { listener, links } = await echo(network())
  const socket = connect(Number(listener.address.split(':')[1]), '127.0.0.1')
  socket.write(Buffer.from('EIDR\u0002\u0007\u0009\u0009 and what nobody knows'))
  assert.equal(await text(socket), 'EIDR\u0001\0\0\0')
  assert.equal(links.length, 0)
  await expectServing(listener.address)
  await listener.close()
  const raw = await RawServer.open((peer) => void peer.socket.write('EIDR\u0002\0\0\0'))
  const handler = new Recorder()
  network().connect(raw.address, handler)
  assert.equal(await handler.code(), 'WIRE_VERSION')
  assert.match((await handler.closed())?.message ?? '', /it speaks version 2 of the protocol, and this side version 1/)
  await raw.close()
})

test('without a secret nothing but this machine is spoken to', IN_TIME, async () => {
  for (const address of ['0.0.0.0:0', '[::]:0', '10.1.2.3:0', '[::ffff:10.1.2.3]:0']) {
    await assert.rejects(
      network().listen(address, () => new Recorder()),
      { code: 'WIRE_REFUSED' },
      address,
    )
  }
  for (const address of ['192.0.2.1:80', '[2001:db8::1]:80']) {
    const handler = new Recorder()
    network().connect(address, handler)
    assert.equal(await handler.code(), 'WIRE_REFUSED')
  }
  const open = await echo(network({ secret: SECRET }), '0.0.0.0:0')
  assert.match(open.listener.address, /^0\.0\.0\.0:[1-9]/)
  await expectServing(open.listener.address.replace('0.0.0.0', '127.0.0.1'), { secret: SECRET })
  await open.listener.close()
})

test('an address that cannot be used is refused by code', IN_TIME, async () => {
  const { listener } = await echo(network())
  const accept = (): LinkHandler => new Recorder()
  await assert.rejects(network().listen(listener.address, accept), { code: 'ADDRESS_UNUSABLE' })
  await assert.rejects(network().listen('nobody.invalid:0', accept), { code: 'ADDRESS_UNUSABLE' })
  await assert.rejects(network({ secret: SECRET }).listen('192.0.2.1:0', accept), { code: 'ADDRESS_UNUSABLE' })
  await assert.rejects(network().listen('8600', accept), { code: 'USAGE' })
  await listener.close()
})

test('IPv6 and names work', IN_TIME, async () => {
  for (const place of ['[::1]:0', 'localhost:0']) {
    const { listener, links } = await echo(network(), place)
    assert.ok(listener.address.startsWith(place.slice(0, -1)), listener.address)
    await expectServing(listener.address)
    assert.match(links[0]?.peer ?? '', /^(127\.0\.0\.1|\[::1\]):\d+$/)
    await listener.close()
  }
})

test('a closed listener has let go of all it had, and its port', IN_TIME, async () => {
  const clock = new StandingClock()
  const { listener } = await echo(network({}, clock))
  const handlers = [new Recorder(), new Recorder()]
  for (const handler of handlers) {
    network().connect(listener.address, handler).send(Buffer.from('one'))
    await handler.got(1)
  }
  const silent = await RawPeer.to(listener.address)
  silent.socket.resume()
  await until(() => clock.timers >= 3)
  await Promise.all([listener.close(), listener.close()])
  for (const handler of handlers) assert.equal(await handler.code(), 'CLUSTER_UNREACHABLE')
  await until(() => (silent.isEnded || silent.socket.destroyed) && clock.timers === 0)
  const again = await echo(network(), listener.address)
  await again.listener.close()
})

test('HTTP is served on the same port', IN_TIME, async () => {
  const http = createServer((asked, answer) => {
    void text(asked).then((body) => answer.end(`${asked.method} ${asked.url} ${body.length}`))
  })
  let handedOn = 0
  const foreign = (socket: Socket): void => {
    handedOn++
    http.emit('connection', socket)
  }
  const { listener } = await echo(network({ secret: SECRET, foreign }))
  const port = Number(listener.address.split(':')[1])
  const handler = new Recorder()
  const link = network({ secret: SECRET }).connect(listener.address, handler)
  for (const size of [0, 10, 1_000_000]) {
    const asked = request({ port, host: '127.0.0.1', method: 'POST', path: `/page?${size}` })
    asked.end('x'.repeat(size))
    const [answer] = await once(asked, 'response')
    assert.equal(await text(answer), `POST /page?${size} ${size}`)
    link.send(frameOf(10))
  }
  await handler.got(3)
  // Who has asked may close that half.
  const half = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  half.end('GET /half HTTP/1.0\r\n\r\n')
  assert.match(await text(half), /GET \/half 0$/)
  // As little as a byte tells that it is none of ours.
  const slow = connect(port, '127.0.0.1')
  slow.setNoDelay(true)
  for (const part of ['E', 'IN', 'S / HTTP/1.0\r\n\r\n']) {
    slow.write(part)
    await nextTurn()
  }
  assert.match(await text(slow), /^HTTP\/1\.1 400 /)
  // One that stays does not hold up the end.
  const before = handedOn
  const idle = connect(port, '127.0.0.1')
  idle.write('GET / HT')
  idle.resume()
  await until(() => handedOn > before)
  await listener.close()
  http.close()
})

test('who speaks another protocol where none is expected is told who is here', IN_TIME, async () => {
  const { listener } = await echo(network())
  for (const said of ['GET / HTTP/1.1\r\n\r\n', '\u0016\u0003\u0001', 'E\n', '\0']) {
    const socket = connect(Number(listener.address.split(':')[1]), '127.0.0.1')
    socket.write(said)
    assert.equal(await text(socket), 'EIDR\u0001\0\0\0')
  }
  await expectServing(listener.address)
  await listener.close()
})

test('random bytes at any time harm nobody else', { timeout: 60_000 }, async () => {
  const { listener, handlers } = await echo(network({ secret: SECRET }))
  const steady = new Recorder()
  const link = network({ secret: SECRET }).connect(listener.address, steady)
  let count = 0
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 300 }), fc.nat(2), async (bytes, stage) => {
      const peer = await RawPeer.to(listener.address)
      if (stage === 0) peer.socket.resume()
      if (stage === 1) peer.socket.resume().write('EIDR\u0001\u0001')
      if (stage === 2) await peer.stand('client', SECRET)
      peer.socket.end(bytes)
      await until(() => peer.isEnded || peer.socket.destroyed)
      link.send(Buffer.from(bytes))
      count++
      assert.deepEqual((await steady.got(count)).at(-1), Buffer.from(bytes))
    }),
    { seed: 20_260_103, numRuns: 150 },
  )
  assert.ok(handlers.slice(1).every(({ frames }) => frames.length === 0))
  await listener.close()
})

test(
  'a bit flipped on the way ends the link on both sides, and no changed frame comes out',
  { timeout: 60_000 },
  async () => {
    const { listener, handlers } = await echo(network({ secret: SECRET }))
    const sent = [frameOf(30), frameOf(30)]
    for (let bit = 0; bit < 8 * (72 + 100); bit += 13) {
      let passed = 0
      const relay = await RawServer.open(({ socket }) => {
        const to = connect(Number(listener.address.split(':')[1]), '127.0.0.1')
        socket.on('data', (chunk: Buffer) => {
          const at = (bit >>> 3) - passed
          passed += chunk.length
          if (at >= 0 && at < chunk.length) chunk[at] = (chunk[at] ?? 0) ^ (1 << (bit & 7))
          to.write(chunk)
        })
        to.on('data', (chunk: Buffer) => socket.write(chunk)).on('error', () => undefined)
        to.on('end', () => socket.end())
        socket.on('end', () => to.end()).on('close', () => to.destroy())
      })
      const before = handlers.length
      const handler = new Recorder()
      const clock = new StandingClock()
      const link = network({ secret: SECRET }, clock).connect(relay.address, handler)
      for (const frame of sent) link.send(frame)
      await until(() => handler.endings.length > 0 || handler.frames.length === 2 || passed >= 72 + 100)
      // A longer length waits for bytes that do not come.
      const isLength = [72, 72 + 50].some((start) => bit >>> 3 >= start && bit >>> 3 < start + 4)
      if (isLength) link.close()
      const code = await handler.code()
      assert.ok(
        isLength || (typeof code === 'string' && /^(WIRE_|CLUSTER_UNREACHABLE)/.test(code)),
        `bit ${bit}: ${String(code)}`,
      )
      if (bit >>> 3 >= 72 && !isLength) assert.equal(code, 'WIRE_REFUSED', `bit ${bit}`)
      for (const { frames } of [handler, ...handlers.slice(before)])
        assert.ok(
          frames.every((frame, index) => sent[index]?.equals(frame)),
          `bit ${bit}`,
        )
      await relay.close()
    }
    await listener.close()
  },
)

test('what is sent by hand is read by the layout of the page', IN_TIME, async () => {
  const { listener, handlers } = await echo(network())
  const peer = await RawPeer.to(listener.address)
  const chunks: Buffer[] = []
  peer.socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  peer.socket.write(Buffer.concat([Buffer.from('EIDR\u0001\0\0\0'), Buffer.alloc(32)]))
  peer.socket.write(Buffer.from('0500000068656c6c6f000000100200000061', 'hex'))
  await until(() => handlers[0]?.frames.length === 1)
  peer.socket.write(Buffer.from('62', 'hex'))
  await until(() => Buffer.concat(chunks).length === 40 + 9 + 6)
  const answered = Buffer.concat(chunks)
  assert.equal(answered.subarray(0, 8).toString('hex'), '4549445201000000')
  assert.equal(answered.subarray(40).toString('hex'), '0500000068656c6c6f020000006162')
  peer.socket.write(Buffer.from('00000030', 'hex'))
  await until(() => peer.isEnded)
  const last = Buffer.concat(chunks).subarray(55)
  assert.equal(last.readUInt32LE() >>> 28, FAREWELL)
  assert.equal(last.readUInt32LE(), headerOf(FAREWELL, last.length - 4))
  assert.equal(last.subarray(6).toString(), 'Cannot read a message: there is no frame of kind 3')
  assert.equal(codeOf(await handlers[0]?.closed()), 'WIRE_MALFORMED')
  await listener.close()
})
