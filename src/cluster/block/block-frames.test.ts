import assert from 'node:assert/strict'
import { test } from 'node:test'

import { encode } from '#cluster/wire/codec.ts'

import { fetchHead, FETCH_TAIL, writeHead } from './block-frames.ts'
import { blockMessages } from './block-messages.ts'
import { idAt, madeUp } from './disk-fixture.ts'
import type { DiskId } from './permit.ts'

test('the parts of messages with blocks are what their codecs write', () => {
  for (const size of [1, 100, 70_000]) {
    const bytes = madeUp(size)
    const facts = { disk: 77 as DiskId, block: idAt(), crc: 0xfedcba98, permit: madeUp(16, 2) }
    assert.deepEqual(
      Buffer.concat([writeHead(facts, size), bytes]),
      encode(blockMessages.write.request, { ...facts, bytes }),
    )
    assert.deepEqual(
      Buffer.concat([fetchHead(size), bytes, FETCH_TAIL]),
      encode(blockMessages.fetch.reply, { outcome: 'whole', bytes, pages: [] }),
    )
  }
})
