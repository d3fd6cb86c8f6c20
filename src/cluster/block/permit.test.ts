import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { test } from 'node:test'

import type { BlockId } from './block-id.ts'
import { type DiskId, type DiskKey, erasePermit, eraseReceipt, isSame, writePermit, writeReceipt } from './permit.ts'

const key: DiskKey = { disk: 77 as DiskId, key: Buffer.alloc(32, 'k') }
const block = { id: (2 ** 52) as BlockId, size: 5000, crc: 0xdeadbeef }

test('a permit is what docs/formats/blocks.md says', () => {
  const message = Buffer.alloc(52)
  message.write('eider write permit')
  message.writeBigUInt64LE(77n, 24)
  message.writeBigUInt64LE(2n ** 52n, 32)
  message.writeBigUInt64LE(5000n, 40)
  message.writeUInt32LE(0xdeadbeef, 48)
  const expected = createHmac('sha256', key.key).update(message).digest().subarray(0, 16)
  assert.deepEqual(Buffer.from(writePermit(key, block)), expected)
  const erasure = createHmac('sha256', key.key)
  const text = Buffer.alloc(40)
  text.write('eider erase receipt')
  message.copy(text, 24, 24, 40)
  assert.deepEqual(Buffer.from(eraseReceipt(key, block.id)), erasure.update(text).digest().subarray(0, 16))
})

test('no permit or receipt passes for another kind, disk, key, block, size or checksum', () => {
  const others: readonly (readonly [DiskKey, typeof block])[] = [
    [key, block],
    [{ ...key, disk: 78 as DiskId }, block],
    [{ ...key, key: Buffer.alloc(32, 'l') }, block],
    [key, { ...block, id: (2 ** 52 + 1) as BlockId }],
    [key, { ...block, size: 5001 }],
    [key, { ...block, crc: 0xdeadbeee }],
  ]
  const seals = others.flatMap(([by, of]) => [writePermit(by, of), writeReceipt(by, of)])
  for (const [by, of] of others.slice(0, 4)) seals.push(erasePermit(by, of.id), eraseReceipt(by, of.id))
  assert.equal(new Set(seals.map((seal) => Buffer.from(seal).toString('hex'))).size, seals.length)
})

test('only the very same bytes are the same permit', () => {
  const permit = writePermit(key, block)
  assert.ok(isSame(Buffer.from(permit), permit))
  for (let bit = 0; bit < 128; bit++) {
    const other = Buffer.from(permit)
    other[bit >> 3] = (other[bit >> 3] ?? 0) ^ (1 << (bit & 7))
    assert.equal(isSame(other, permit), false)
  }
  assert.equal(isSame(permit.subarray(0, 15), permit), false)
  assert.equal(isSame(Buffer.alloc(0), permit), false)
})
