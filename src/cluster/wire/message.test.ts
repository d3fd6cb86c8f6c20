import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import { struct } from './codec.ts'
import { message, MessageTable } from './message.ts'

const nothing = struct({})
const definition = { does: 'read' as const, request: nothing, reply: nothing, meaning: '' }

describe('MessageTable', () => {
  const [first, last] = [message('first', { kind: 0, ...definition }), message('last', { kind: 0xffff, ...definition })]

  test('finds messages by their kind, and nothing else', () => {
    const table = new MessageTable('Test', { last, first })
    assert.equal(table.find(0), first)
    assert.equal(table.find(0xffff), last)
    for (const kind of [1, -1, 0.5, 0x1_0000, Number.NaN]) assert.equal(table.find(kind), undefined)
    assert.deepEqual(table.messages, [first, last])
    assert.equal(first.isInternal, false)
  })

  test('has each kind once', () => {
    assert.throws(() => new MessageTable('Test', { first, again: message('again', { kind: 0, ...definition }) }))
  })
})
