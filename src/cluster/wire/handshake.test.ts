import assert from 'node:assert/strict'
import { test } from 'node:test'

import fc from 'fast-check'

import { isOperationError } from '#base/errors.ts'

import {
  clientHandshake,
  type FrameKeys,
  HandshakeRun,
  type HandshakeSide,
  preambleOf,
  serverHandshake,
} from './handshake.ts'

const SECRET = Buffer.from('what both sides know')

function side(of: Partial<HandshakeSide> = {}): HandshakeSide {
  return { peer: 'the other', secret: undefined, nonce: Buffer.alloc(32, 1), binding: undefined, ...of }
}

interface Outcome {
  readonly code?: unknown
  readonly keys?: FrameKeys | undefined
  readonly isOver: boolean
}

/** Both ends with a line between them, on which `change` has its way; chunks of so many bytes. */
function shake(
  client: HandshakeSide,
  server: HandshakeSide,
  { change = (_to: 'client' | 'server', bytes: Buffer) => bytes, chunk = 1000 } = {},
): { readonly client: Outcome; readonly server: Outcome } {
  const lines = { client: Buffer.alloc(0), server: Buffer.alloc(0) }
  const outcomes: Record<'client' | 'server', Outcome> = { client: { isOver: false }, server: { isOver: false } }
  const send = (to: 'client' | 'server') => (bytes: Buffer) => {
    lines[to] = Buffer.concat([lines[to], change(to, bytes)])
  }
  const runs = {
    server: new HandshakeRun(serverHandshake(server), send('client')),
    client: new HandshakeRun(clientHandshake(client), send('server')),
  }
  for (let idle = 0; idle < 2;) {
    idle++
    for (const end of ['server', 'client'] as const) {
      const bytes = lines[end].subarray(0, chunk)
      if (bytes.length === 0 || outcomes[end].isOver) continue
      idle = 0
      lines[end] = lines[end].subarray(bytes.length)
      try {
        const rest = runs[end].push(bytes)
        if (rest !== undefined) outcomes[end] = { keys: runs[end].keys, isOver: true }
      } catch (error) {
        outcomes[end] = { code: isOperationError(error) ? error.code : error, isOver: true }
      }
    }
  }
  return outcomes
}

test('with one secret both ends get the same keys, one for each direction and connection', () => {
  for (const chunk of [1, 7, 1000]) {
    const { client, server } = shake(side({ secret: SECRET }), side({ secret: SECRET, nonce: Buffer.alloc(32, 2) }), {
      chunk,
    })
    assert.ok(client.keys !== undefined && server.keys !== undefined)
    assert.deepEqual(client.keys.send, server.keys.receive)
    assert.deepEqual(client.keys.receive, server.keys.send)
    assert.notDeepEqual(client.keys.send, client.keys.receive)
    const next = shake(side({ secret: SECRET }), side({ secret: SECRET, nonce: Buffer.alloc(32, 3) }))
    assert.notDeepEqual(next.client.keys?.send, client.keys.send)
  }
})

test('without a secret, and within TLS, frames have no keys', () => {
  assert.deepEqual(shake(side(), side()), {
    client: { keys: undefined, isOver: true },
    server: { keys: undefined, isOver: true },
  })
  const binding = Buffer.alloc(32, 9)
  assert.deepEqual(shake(side({ secret: SECRET, binding }), side({ secret: SECRET, binding })), {
    client: { keys: undefined, isOver: true },
    server: { keys: undefined, isOver: true },
  })
})

test('ends that differ both say so', () => {
  const tls = Buffer.alloc(32, 9)
  const cases: [string, Partial<HandshakeSide>, Partial<HandshakeSide>][] = [
    ['only the client has a secret', { secret: SECRET }, {}],
    ['only the server has one', {}, { secret: SECRET }],
    ['another secret', { secret: SECRET }, { secret: Buffer.from('what both sides KNOW') }],
    ['only one within TLS', { secret: SECRET, binding: tls }, { secret: SECRET }],
    ['another TLS session', { secret: SECRET, binding: tls }, { secret: SECRET, binding: Buffer.alloc(32, 8) }],
  ]
  for (const [name, client, server] of cases) {
    const outcomes = shake(side(client), side(server))
    assert.equal(outcomes.client.code, 'WIRE_REFUSED', name)
    assert.equal(outcomes.server.code, 'WIRE_REFUSED', name)
  }
})

test('another version is named by both, whatever else is in their preambles', () => {
  const outcomes = shake(side({ secret: SECRET }), side(), {
    change(_to, bytes) {
      const changed = Buffer.from(bytes)
      if (changed.subarray(0, 4).equals(Buffer.from('EIDR'))) changed.fill(2, 4, 8)
      return changed
    },
  })
  assert.equal(outcomes.client.code, 'WIRE_VERSION')
  assert.equal(outcomes.server.code, 'WIRE_VERSION')
})

test('no change of a bit lets both ends stand', () => {
  const client = side({ secret: SECRET })
  const server = side({ secret: SECRET, nonce: Buffer.alloc(32, 2) })
  for (const [to, length] of [
    ['server', 40 + 32],
    ['client', 40 + 32],
  ] as const) {
    for (let bit = 0; bit < length * 8; bit++) {
      let passed = 0
      const outcomes = shake(client, server, {
        change(direction, bytes) {
          if (direction !== to) return bytes
          const at = (bit >>> 3) - passed
          passed += bytes.length
          if (at < 0 || at >= bytes.length) return bytes
          const changed = Buffer.from(bytes)
          changed[at] = (changed[at] ?? 0) ^ (1 << (bit & 7))
          return changed
        },
      })
      const stood = [outcomes.client, outcomes.server].filter((one) => one.isOver && one.code === undefined)
      assert.ok(stood.length < 2, `bit ${bit} to the ${to}`)
      assert.ok(to === 'client' ? outcomes.server.keys === undefined : true, 'the server trusts nobody who does not')
    }
  }
})

test('who has no secret cannot pass by sending back what is sent to it', () => {
  // To a server: its own preamble, nonce and proof.
  const sent: Buffer[] = []
  const server = new HandshakeRun(serverHandshake(side({ secret: SECRET })), (bytes) => sent.push(bytes))
  const preamble = preambleOf(true, false)
  server.push(Buffer.concat([preamble, Buffer.alloc(32, 1)]))
  const [answer] = sent
  assert.ok(answer !== undefined)
  assert.throws(
    () => server.push(answer.subarray(40)),
    (error) => isOperationError(error, 'WIRE_REFUSED'),
  )
})

test('random bytes end a handshake with an error of the wire, or leave it waiting', () => {
  const magic = Buffer.from('EIDR\u0001')
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 120 }), fc.boolean(), fc.boolean(), (bytes, hasMagic, isClient) => {
      const own = side({ secret: SECRET })
      const run = new HandshakeRun(isClient ? clientHandshake(own) : serverHandshake(own), () => undefined)
      try {
        assert.equal(run.push(hasMagic ? Buffer.concat([magic, bytes]) : Buffer.from(bytes)), undefined)
      } catch (error) {
        assert.ok(isOperationError(error, 'WIRE_MALFORMED', 'WIRE_VERSION', 'WIRE_REFUSED'), String(error))
      }
    }),
    { seed: 20_260_102, numRuns: 500 },
  )
})
