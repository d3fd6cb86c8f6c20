import assert from 'node:assert/strict'
import { test } from 'node:test'

import fc from 'fast-check'

import { type InodeType, makeInodeId } from '#cluster/inode-id.ts'

import { InodeSet } from './inode-set.ts'

const inode = fc
  .tuple(
    fc.constantFrom<InodeType>('directory', 'file', 'symlink'),
    fc.constantFrom(0, 1, 255),
    fc.oneof(fc.nat(100), fc.nat(70_000), fc.constant(2 ** 43 - 1)),
  )
  .map(([type, shard, counter]) => makeInodeId(type, shard, counter))

test('has just what was added, and says what is new, whatever types, shards and counters', () => {
  fc.assert(
    fc.property(fc.array(inode, { maxLength: 200 }), fc.array(inode, { maxLength: 50 }), (added, others) => {
      const set = new InodeSet()
      const expected = new Set<number>()
      for (const each of added) {
        assert.equal(set.add(each), !expected.has(each))
        expected.add(each)
      }
      for (const each of [...added, ...others]) assert.equal(set.has(each), expected.has(each))
    }),
    { seed: 1 },
  )
})
