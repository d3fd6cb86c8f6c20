import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import fc from 'fast-check'

import { ERRORS, isOperationError, OperationError, type ErrorCode } from '#base/errors.ts'

import { decode, struct, u32 } from './codec.ts'
import {
  bodyOf,
  decodeError,
  encodeError,
  encodeRefusal,
  encodeReply,
  encodeRequest,
  HEADER_BYTES,
  readHeader,
  replyFrame,
  replyHeader,
  requestHeader,
  saysLater,
  WIRE_VERSION,
} from './envelope.ts'

const number = struct({ value: u32 })
const FACTS = fc.record({
  client: fc.maxSafeNat(),
  slot: fc.nat({ max: 0xffff }),
  sequence: fc.maxSafeNat(),
  kind: fc.nat({ max: 0xffff }),
  shard: fc.nat({ max: 255 }),
  isInternal: fc.boolean(),
})

describe('the envelope', () => {
  test('tells who asked what, in requests and in all kinds of answers', () => {
    fc.assert(
      fc.property(FACTS, fc.nat(), (facts, value) => {
        const request = encodeRequest(facts, number, { value })
        assert.deepEqual(readHeader(request), { ...facts, what: 'request', version: WIRE_VERSION })
        assert.deepEqual(decode(number, bodyOf(request)), { value })
        assert.deepEqual(Buffer.concat([requestHeader(facts), bodyOf(request)]), request)
        const reply = encodeReply(facts.kind, facts, number, { value })
        assert.deepEqual(replyFrame(facts.kind, facts, bodyOf(reply)), reply)
        assert.deepEqual(Buffer.concat([replyHeader(facts.kind, facts), bodyOf(reply)]), reply)
        const refusal = encodeRefusal(facts.kind, facts, new OperationError('NAME_TAKEN', 'Cannot'))
        for (const [frame, what] of [[reply, 'reply'] as const, [refusal, 'refusal'] as const]) {
          const answer = { ...facts, what, version: WIRE_VERSION, shard: 0, isInternal: false }
          assert.deepEqual(readHeader(frame), answer)
        }
      }),
      { seed: 1, numRuns: 500 },
    )
  })

  test('lies where docs/formats says', () => {
    const facts = { client: 0x0102_0304_0506, slot: 0x0708, sequence: 9, kind: 0x0a0b, shard: 12, isInternal: true }
    assert.equal(requestHeader(facts).toString('hex'), '04010b0a0c060504030201000008070900000000000000')
    assert.equal(HEADER_BYTES, 23)
  })

  test('[S162] no bytes make anything but a header or WIRE_MALFORMED', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), fc.nat({ max: 5 }), (bytes, first) => {
        const frame = Buffer.from(bytes)
        if (frame.length > 0) frame[0] = first
        try {
          readHeader(frame)
        } catch (error) {
          assert.ok(isOperationError(error, 'WIRE_MALFORMED'), String(error))
        }
        try {
          assert.ok(isOperationError(decodeError(frame)))
        } catch (error) {
          assert.ok(isOperationError(error, 'WIRE_MALFORMED'), String(error))
        }
      }),
      { seed: 2, numRuns: 3000 },
    )
  })
})

describe('refusals', () => {
  test('of every code come back with message and hint', () => {
    for (const code of Object.keys(ERRORS) as ErrorCode[]) {
      const error = new OperationError(code, `Cannot do it: "${code}" ü`)
      const found = decodeError(encodeError(error))
      assert.deepEqual([found.code, found.message, found.hint], [code, error.message, error.hint])
      const frame = encodeRefusal(1, { client: 1, slot: 0, sequence: 1 }, error)
      assert.deepEqual(bodyOf(frame), encodeError(error))
    }
  })

  test('[S150] those that say "later" are those that are asked again', () => {
    const later = (Object.keys(ERRORS) as ErrorCode[]).filter((code) => saysLater(new OperationError(code, 'Cannot')))
    assert.deepEqual(later.toSorted(), ['CLOCK_UNTRUSTED', 'CLUSTER_BUSY', 'CLUSTER_INCOMPLETE', 'NAME_LOCKED'])
  })
})
