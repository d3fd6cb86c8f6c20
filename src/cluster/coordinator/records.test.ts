/** docs/formats/coordinator.md, read by hand. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'

import { OperationError } from '#base/errors.ts'
import { ROOT_INODE } from '#cluster/inode-id.ts'
import { encode } from '#cluster/wire/codec.ts'
import { encodeError } from '#cluster/wire/envelope.ts'

import { ATTRIBUTES, contentOf, CoordinatorBench } from './coordinator-fixture.ts'
import { coordinatorMessages } from './coordinator-messages.ts'
import { coordinatorEntry, type TransactionId } from './records.ts'

const { makeDirectory } = coordinatorMessages

function u53(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes
}

function n56(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(value))
  return bytes.subarray(1)
}

function little(bytes: number, value: number): Buffer {
  const made = Buffer.alloc(bytes)
  made.writeUIntLE(value, 0, bytes)
  return made
}

function hex(...parts: readonly (Buffer | string)[]): string {
  return Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part) : part))).toString('hex')
}

suite('what the coordinator keeps, byte by byte', () => {
  test('entries', () => {
    const body = Buffer.from('body')
    const why = new OperationError('NAME_TAKEN', 'Cannot do that')
    const request = { client: 7, slot: 258, sequence: 2 ** 40 + 3, timeUs: 99, asks: 0x102, body }
    assert.equal(hex(Buffer.from(encode(coordinatorEntry, { kind: 'begin', client: 9 }))), hex(little(1, 0), u53(9)))
    assert.equal(
      encode(coordinatorEntry, { kind: 'request', ...request }).toString('hex'),
      hex(little(1, 1), u53(7), little(2, 258), u53(2 ** 40 + 3), u53(99), little(2, 0x102), little(4, 4), body),
    )
    const step = { slot: 258, sequence: 5, transaction: 6 as TransactionId, timeUs: 99 }
    const head = [little(2, 258), u53(5), u53(6), u53(99)]
    assert.equal(
      encode(coordinatorEntry, { kind: 'answered', ...step, reply: body }).toString('hex'),
      hex(little(1, 2), ...head, little(4, 4), body),
    )
    const refusal = encodeError(why)
    assert.equal(
      encode(coordinatorEntry, { kind: 'refused', ...step, why }).toString('hex'),
      hex(little(1, 3), ...head, little(4, refusal.length), refusal),
    )
    assert.equal(
      encode(coordinatorEntry, { kind: 'forget', beforeUs: 1, from: body, count: 3 }).toString('hex'),
      hex(little(1, 4), u53(1), little(4, 4), body, little(4, 3)),
    )
  })

  test('records while transactions wait', () => {
    const bench = new CoordinatorBench()
    const request = (name: string) => ({ owner: ROOT_INODE, name, attributes: ATTRIBUTES })
    bench.submit(makeDirectory, request('x'), { client: 7, slot: 258, sequence: 4 })
    bench.submit(makeDirectory, request('y'), { client: 7, slot: 259, sequence: 1 })
    const records = new Map(contentOf(bench.state))
    assert.equal(records.get(hex('m')), hex(u53(99), u53(3), u53(1), little(4, 2), little(2, 1), little(4, 0)))
    assert.equal(records.get(hex('r', n56(7), Buffer.of(1, 2))), hex(u53(4), u53(1)))
    assert.equal(records.get(hex('q', n56(ROOT_INODE))), hex(u53(1), u53(2)))
    assert.equal(records.get(hex('n', n56(ROOT_INODE), n56(1))), hex(u53(2)))
    const body = encode(makeDirectory.request, request('x'))
    const step = [little(1, 0), little(1, 15), 'createDirectory', little(2, 0), u53(1)]
    const made = 2 ** 51 + 1
    assert.equal(
      records.get(hex('t', n56(1))),
      hex(
        ...[u53(7), little(2, 258), u53(4), little(2, 1), little(4, body.length), body, ...step],
        ...[u53(made), u53(0), u53(0), u53(0), little(1, 0), little(1, 0)],
      ),
    )
  })

  test('records of what is done', () => {
    const bench = new CoordinatorBench()
    const id = { client: 7, slot: 258, sequence: 4 }
    bench.submit(makeDirectory, { owner: ROOT_INODE, name: 'x', attributes: ATTRIBUTES }, id)
    bench.drain()
    const { inode, created } = bench.reply(makeDirectory, id)
    const records = contentOf(bench.state)
    const self = hex(u53(99), u53(2), u53(1), little(4, 0), little(2, 1), little(4, 1))
    const session = hex('c', Buffer.of(0), n56(7), Buffer.of(1, 2))
    const sessionOf = records.find(([key]) => key === session)?.[1] ?? ''
    assert.equal(sessionOf.slice(0, 14), hex(n56(4)))
    assert.equal(sessionOf.slice(28), hex(Buffer.of(0), little(4, 0), u53(inode), u53(created)))
    assert.deepEqual(
      records.filter(([key]) => key !== session),
      [
        [hex('d', n56(inode)), hex(u53(ROOT_INODE))],
        [hex('m'), self],
        [hex('s', Buffer.of(0, 0)), hex(u53(2), little(4, 0))],
      ],
    )
  })
})
