import assert from 'node:assert/strict'
import { test } from 'node:test'

import { OperationError } from '#base/errors.ts'
import { struct, u8 } from '#cluster/wire/codec.ts'
import { encodeRefusal, encodeReply, encodeRequest } from '#cluster/wire/envelope.ts'
import { message, MessageTable } from '#cluster/wire/message.ts'

import { frameWords } from './frame-words.ts'

const body = struct({ value: u8 })
const form = { request: body, reply: body, does: 'read', meaning: 'Nothing.' } as const
const tables: Record<string, MessageTable> = {
  shard: new MessageTable('shard', { look: message('look', { kind: 4, ...form }) }),
  coordinator: new MessageTable('coordinator', { move: message('move', { kind: 4, ...form }) }),
}

test('a frame is told by the message of who answers it, its id, and why it was refused', () => {
  const describe = frameWords((host) => tables[host])
  const id = { client: 36, slot: 2, sequence: 9 }
  const facts = { ...id, kind: 4, shard: 7, isInternal: true }
  const request = encodeRequest(facts, body, { value: 1 })
  assert.equal(describe(request, 'shard', 'coordinator'), 'request "look" shard 7 10:2:9')
  assert.equal(describe(request, 'coordinator', 'client'), 'request "move" shard 7 10:2:9')
  assert.equal(describe(encodeReply(4, id, body, { value: 1 }), 'coordinator', 'shard'), 'reply "look" 10:2:9')
  const error = new OperationError('CLUSTER_BUSY', 'Cannot look: too many do')
  assert.equal(describe(encodeRefusal(4, id, error), 'client', 'coordinator'), 'refusal "move" 10:2:9 CLUSTER_BUSY')
  assert.equal(describe(encodeReply(5, id, body, { value: 1 }), 'a', 'b'), 'reply "kind 5" 10:2:9')
})
