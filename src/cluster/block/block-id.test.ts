import assert from 'node:assert/strict'
import { test } from 'node:test'

import fc from 'fast-check'

import { isOperationError } from '#base/errors.ts'

import {
  BLOCK_EPOCH_MS,
  BLOCK_ID_MAX,
  blockDirectory,
  blockIdFrom,
  blockName,
  blockOfName,
  blockPath,
  blockShard,
  blockTimeMs,
  isBlockId,
  makeBlockId,
} from './block-id.ts'

/** The last millisecond that an id can carry. */
const LAST_MS = BLOCK_EPOCH_MS + Math.floor(BLOCK_ID_MAX / 4096)
const anyTimeMs = fc.integer({ min: BLOCK_EPOCH_MS + 1, max: LAST_MS })
const anyN = fc.integer({ min: 0, max: 15 })
const anyShard = fc.integer({ min: 0, max: 255 })

test('an id carries its time and its shard, and is found again by the name of its file', () => {
  fc.assert(
    fc.property(anyTimeMs, anyN, anyShard, (timeMs, n, shard) => {
      const id = makeBlockId(timeMs, n, shard)
      assert.equal(blockTimeMs(id), timeMs)
      assert.equal(blockShard(id), shard)
      assert.equal(blockName(id).length, 14)
      assert.equal(blockOfName(blockName(id)), id)
      assert.equal(blockPath(id), `${blockDirectory(id)}/${blockName(id)}`)
    }),
    { seed: 1 },
  )
})

test('ids are in the order of their times, and no two of a millisecond are alike', () => {
  fc.assert(
    fc.property(anyTimeMs, fc.uniqueArray(fc.tuple(anyN, anyShard), { selector: String }), (timeMs, some) => {
      const ids = some.map(([n, shard]) => makeBlockId(timeMs, n, shard))
      assert.equal(new Set(ids).size, ids.length)
      for (const id of ids) assert.ok(id > makeBlockId(timeMs - 1, 15, 255) || timeMs === BLOCK_EPOCH_MS + 1)
    }),
    { seed: 2 },
  )
})

test('ids end at what a safe integer holds', () => {
  assert.equal(blockTimeMs(blockIdFrom(BLOCK_ID_MAX)), LAST_MS)
  assert.equal(blockName(blockIdFrom(BLOCK_ID_MAX)), '1fffffffffffff')
  assert.equal(blockPath(blockIdFrom(1)), '00/00000000000001')
  assert.throws(() => makeBlockId(LAST_MS + 1, 0, 0), /between 2020 and 2089/)
  assert.throws(() => makeBlockId(BLOCK_EPOCH_MS - 1, 0, 0), /between 2020 and 2089/)
  for (const none of [0, -1, 1.5, 2 ** 53, Number.NaN]) {
    assert.equal(isBlockId(none), false)
    assert.throws(
      () => blockIdFrom(none),
      (error) => isOperationError(error, 'INPUT_INVALID'),
    )
  }
})

test('a block lies where docs/formats/blocks.md says', () => {
  const id = makeBlockId(BLOCK_EPOCH_MS + 123_456_789_012, 4, 67)
  assert.equal(id, 505_679_007_794_243)
  assert.equal(blockPath(id), '14/01cbe991a14443')
})

test('names of other files are no blocks', () => {
  for (const name of [
    '',
    'tmp',
    '0000000000001',
    '0000000000000g',
    '00000000000000',
    '20000000000000',
    '0000000000000A',
  ]) {
    assert.equal(blockOfName(name), undefined, name)
  }
})

test('blocks of one shard spread over all directories, whenever they are made', () => {
  const start = Date.UTC(2026, 4, 1)
  const loads: Record<string, (index: number) => number> = {
    'one every millisecond': (index) => start + index,
    'one every 7 ms': (index) => start + index * 7,
    'one at odd moments': (index) => start + ((index * 2654435761) % 86_400_000),
  }
  for (const [load, timeMs] of Object.entries(loads)) {
    const counts = new Map<string, number>()
    for (let index = 0; index < 25_600; index++) {
      const directory = blockDirectory(makeBlockId(timeMs(index), 0, 0))
      counts.set(directory, (counts.get(directory) ?? 0) + 1)
    }
    assert.equal(counts.size, 256, load)
    assert.ok(Math.max(...counts.values()) < 200, `${load}: no directory has twice its share`)
  }
})
