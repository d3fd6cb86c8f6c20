import assert from 'node:assert/strict'
import { test } from 'node:test'

import fc from 'fast-check'

import { isOperationError } from '#base/errors.ts'

import {
  COUNTER_MAX,
  inodeIdFrom,
  inodeShard,
  inodeType,
  makeInodeId,
  parsedInode,
  ROOT_INODE,
  SHARDS,
  shownInode,
  type InodeType,
} from './inode-id.ts'

const TYPES: readonly InodeType[] = ['directory', 'file', 'symlink']
const refused = (error: unknown): boolean => isOperationError(error, 'INPUT_INVALID')

test('an id is a safe integer that tells its type and shard, and is shown and read back', () => {
  const counters = fc.oneof(fc.constantFrom(0, 1, COUNTER_MAX), fc.integer({ min: 0, max: COUNTER_MAX }))
  fc.assert(
    fc.property(
      fc.constantFrom(...TYPES),
      fc.integer({ min: 0, max: SHARDS - 1 }),
      counters,
      (type, shard, counter) => {
        const id = makeInodeId(type, shard, counter)
        assert.ok(Number.isSafeInteger(id))
        assert.deepEqual([inodeType(id), inodeShard(id)], [type, shard])
        assert.equal(inodeIdFrom(id), id)
        assert.match(shownInode(id), /^0x[0-9a-f]{16}$/)
        assert.equal(parsedInode(shownInode(id)), id)
        assert.equal(parsedInode(String(id)), id)
      },
    ),
    { seed: 1 },
  )
})

test('ids of one type and shard are in the order of their counters, and those of others apart', () => {
  assert.ok(makeInodeId('file', 7, 1) < makeInodeId('file', 7, 2))
  assert.equal(makeInodeId('file', 7, COUNTER_MAX) + 1, makeInodeId('file', 8, 0))
  assert.equal(makeInodeId('directory', 255, COUNTER_MAX) + 1, makeInodeId('file', 0, 0))
  assert.equal(makeInodeId('symlink', 255, COUNTER_MAX), Number.MAX_SAFE_INTEGER)
  assert.equal(shownInode(ROOT_INODE), '0x0008000000000000')
})

test('what is no id is refused', () => {
  for (const value of [0, 1, -1, 1.5, Number.NaN, 2 ** 51 - 1, 2 ** 53])
    assert.throws(() => inodeIdFrom(value), refused)
  for (const text of ['', '0x', 'x', '0x1g', '-5', '0x00080000000000000', '1e16']) {
    assert.throws(() => parsedInode(text), refused, text)
  }
})
