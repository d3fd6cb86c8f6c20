import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import { OperationError } from '#base/errors.ts'
import { setLogLevel } from '#base/log.ts'
import type { LinkHandler } from '#cluster/surroundings.ts'

import { decode, encode, struct, u32 } from './codec.ts'
import { bodyOf, decodeError, encodeRequest, HEADER_BYTES, readHeader, type Header } from './envelope.ts'
import { message, MessageTable } from './message.ts'
import { Responder, type Incoming } from './responder.ts'

setLogLevel('silent')

const number = struct({ value: u32 })
const definition = { request: number, reply: number, meaning: '' }
const double = message('double', { kind: 1, does: 'read', ...definition })
const secret = message('secret', { kind: 300, does: 'write', isInternal: true, ...definition })
const TABLE = new MessageTable('Test', { double, secret })

/** One link to a responder, whose answers are kept. */
class Asked {
  readonly sent: Buffer[] = []
  readonly responder: Responder
  readonly requests: Incoming[] = []
  isClosed = false
  readonly #handler: LinkHandler

  constructor(handle: ((request: Incoming) => void) | undefined, requestsMax?: number) {
    const take = handle ?? ((request: Incoming) => void this.requests.push(request))
    this.responder = new Responder(TABLE, take, requestsMax)
    this.#handler = this.responder.accept({
      peer: 'test',
      bytesWaiting: 0,
      send: (...parts) => void this.sent.push(Buffer.concat(parts)),
      close: () => {
        this.isClosed = true
      },
    })
  }

  take(frame: Buffer): void {
    this.#handler.onFrame(frame)
  }

  ask(value: number, change: (frame: Buffer) => void = () => undefined, kind = double.kind, isInternal = false): void {
    const facts = { client: 7, slot: 3, sequence: value, kind, shard: 9, isInternal }
    const frame = encodeRequest(facts, number, { value })
    change(frame)
    this.take(frame)
  }

  last(): { header: Header; code: string | undefined; value: number | undefined } {
    const frame = this.sent.at(-1) as Buffer
    const header = readHeader(frame)
    const isRefusal = header.what === 'refusal'
    return {
      header,
      code: isRefusal ? decodeError(bodyOf(frame)).code : undefined,
      value: isRefusal ? undefined : decode(number, bodyOf(frame)).value,
    }
  }
}

const doubling = (request: Incoming): void => request.reply(double, { value: request.read(double).value * 2 })

describe('Responder', () => {
  test('answers under the id of the request', () => {
    const asked = new Asked(doubling)
    asked.ask(21)
    const { header, value } = asked.last()
    assert.equal(value, 42)
    assert.deepEqual([header.what, header.kind, header.client, header.slot, header.sequence], ['reply', 1, 7, 3, 21])
  })

  test('[S162] refuses by code what it does not serve, and serves on', () => {
    const asked = new Asked(doubling)
    const cases: readonly [string, (frame: Buffer) => void][] = [
      ['WIRE_VERSION', (frame) => (frame[1] = 2)],
      ['WIRE_MALFORMED', (frame) => (frame[0] = 2)],
      ['WIRE_MALFORMED', (frame) => (frame[0] = 3)],
      ['WIRE_KIND_UNKNOWN', (frame) => frame.writeUInt16LE(2, 2)],
      ['WIRE_KIND_UNKNOWN', (frame) => frame.writeUInt16LE(65_535, 2)],
      ['REQUEST_REFUSED', (frame) => frame.writeUInt16LE(secret.kind, 2)],
    ]
    for (const [code, change] of cases) {
      asked.ask(1, change)
      assert.equal(asked.last().code, code)
      assert.equal(asked.last().header.sequence, 1)
      asked.ask(4)
      assert.equal(asked.last().value, 8)
    }
    assert.equal(asked.responder.underWay, 0)
    assert.equal(asked.isClosed, false)
  })

  test('[S162] refuses a body that is too short or too long', () => {
    const asked = new Asked(doubling)
    const facts = { client: 7, slot: 3, sequence: 1, kind: double.kind, shard: 0, isInternal: false }
    const frame = encodeRequest(facts, number, { value: 1 })
    for (const bytes of [frame.subarray(0, -1), frame.subarray(0, HEADER_BYTES), Buffer.concat([frame, frame])]) {
      asked.take(Buffer.from(bytes))
      assert.equal(asked.last().code, 'WIRE_MALFORMED')
    }
    assert.equal(asked.responder.underWay, 0)
  })

  test('[S162] closes a link that brings what is no message', () => {
    for (const bytes of [[], [1], [0, ...Buffer.alloc(30)], [255, ...Buffer.alloc(30)]]) {
      const asked = new Asked(doubling)
      asked.take(Buffer.from(bytes))
      assert.equal(asked.isClosed, true)
      assert.deepEqual(asked.sent, [])
    }
  })

  test('lets processes of the cluster ask for what clients may not', () => {
    const asked = new Asked((request) => {
      assert.equal(request.is(secret), true)
      request.reply(secret, { value: 1 })
    })
    asked.ask(1, undefined, secret.kind, true)
    assert.equal(asked.last().value, 1)
  })

  test('[S162] takes on no more than its bound, and more again when some are answered', () => {
    const asked = new Asked(undefined, 2)
    asked.ask(1)
    asked.ask(2)
    asked.ask(3)
    assert.equal(asked.last().code, 'CLUSTER_BUSY')
    asked.requests[0]?.reply(double, { value: 0 })
    asked.ask(4)
    assert.equal(asked.requests.length, 3)
    assert.equal(asked.responder.underWay, 2)
  })

  test('tells a refusal with its message, however long, and its hint', () => {
    for (const detail of ['short', 'ü'.repeat(100_000), '\ud83e'.repeat(5000), `${'x'.repeat(1023)}\u{1f9a2}`]) {
      const asked = new Asked(() => {
        throw new OperationError('NAME_TAKEN', `Cannot do it: ${detail}`, { hint: 'Do not.' })
      })
      asked.ask(1)
      const error = decodeError(bodyOf(asked.sent[0] as Buffer))
      assert.equal(error.code, 'NAME_TAKEN')
      assert.equal(error.hint, 'Do not.')
      assert.equal(error.message.startsWith('Cannot do it: '), true)
      assert.ok(Buffer.byteLength(error.message) <= 4096)
    }
  })

  test('takes a code that it does not know for another release', () => {
    const text = (value: string, isLong: boolean): Buffer => {
      const bytes = Buffer.from(value)
      return Buffer.concat([isLong ? encode(u32, bytes.length) : Buffer.of(bytes.length), bytes])
    }
    const body = Buffer.concat([text('NEVER_HEARD_OF', false), text('Cannot', true), text('', true)])
    assert.equal(decodeError(body).code, 'WIRE_VERSION')
    const inherited = Buffer.concat([text('toString', false), text('Cannot', true), text('', true)])
    assert.equal(decodeError(inherited).code, 'WIRE_VERSION')
  })
})
