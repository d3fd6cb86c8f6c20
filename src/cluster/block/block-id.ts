/**
 * Block ids: one safe integer that carries the time at which the id was given out, a count within that millisecond, and
 * the shard that gave it out:
 *
 *   id = ((milliseconds since 2020-01-01T00:00Z) * 16 + n) * 256 + shard        1 <= id <= 2^53 - 1, until the year 2089
 *
 * So a disk can tell by an id alone whether a block may still be written, or be erased yet. Not here: what those ages
 * are (`disk.ts`), and that no id is given out twice (the shard's part).
 */
import { assert } from '#base/assert.ts'
import { OperationError } from '#base/errors.ts'
import { SHARDS } from '#cluster/inode-id.ts'

/** Names one block of the cluster, for ever: an id is never used for other bytes. */
export type BlockId = number & { readonly __block: never }

/** 2020-01-01T00:00Z in milliseconds since 1970. */
export const BLOCK_EPOCH_MS = Date.UTC(2020, 0, 1)
/** How many ids a shard can give out for one millisecond. */
const IDS_PER_MS = 16
const IDS_OF_MS = IDS_PER_MS * SHARDS

const BLOCK_ID_MIN = 1
export const BLOCK_ID_MAX = Number.MAX_SAFE_INTEGER

/** The id of the `n`th block that `shard` gives out in the millisecond `timeMs` since 1970. */
export function makeBlockId(timeMs: number, n: number, shard: number): BlockId {
  assert(Number.isInteger(n) && n >= 0 && n < IDS_PER_MS, 'a millisecond has 16 block ids of a shard')
  assert(Number.isInteger(shard) && shard >= 0 && shard < SHARDS, 'a shard is one of 256')
  const id = ((Math.floor(timeMs) - BLOCK_EPOCH_MS) * IDS_PER_MS + n) * SHARDS + shard
  assert(isBlockId(id), 'the time of a block id lies between 2020 and 2089')
  return id
}

export function isBlockId(value: number): value is BlockId {
  return Number.isSafeInteger(value) && value >= BLOCK_ID_MIN
}

/** `value` from outside as an id. @throws INPUT_INVALID */
export function blockIdFrom(value: number): BlockId {
  if (!isBlockId(value)) {
    throw new OperationError(
      'INPUT_INVALID',
      `Cannot take ${value} for a block: an id is an integer from 1 to 2^53 - 1`,
    )
  }
  return value
}

/** When the id was given out, in milliseconds since 1970, by the shard's clock. */
export function blockTimeMs(id: BlockId): number {
  return Math.floor(id / IDS_OF_MS) + BLOCK_EPOCH_MS
}

/** The shard that gave the id out. */
export function blockShard(id: BlockId): number {
  return id % SHARDS
}

const NAME_DIGITS = 14
const NAME = /^[0-9a-f]{14}$/

/** The name of a block in messages and of its file: 14 hexadecimal digits. */
export function blockName(id: BlockId): string {
  return id.toString(16).padStart(NAME_DIGITS, '0')
}

/** The block that a file of that name holds; undefined where the name is none of ours. */
export function blockOfName(name: string): BlockId | undefined {
  if (!NAME.test(name)) return undefined
  const id = Number.parseInt(name, 16)
  return isBlockId(id) ? id : undefined
}

/** The directories that the block files of a disk lie in. */
export const BLOCK_DIRECTORIES: readonly string[] = Array.from({ length: 256 }, (_, index) =>
  index.toString(16).padStart(2, '0'),
)

/**
 * The directory of a block: digits 10 and 11 of its name, which are the last eight bits of its millisecond. They take
 * every value in a quarter of a second, whatever the load. The last two digits of the name are the shard, of which a small cluster
 * has one, and the digit before is nearly always 0; the first digits stay the same for months. A hash would
 * spread as well, but it would part blocks of one millisecond, which so share the fsync of their directory.
 */
export function blockDirectory(id: BlockId): string {
  return blockName(id).slice(9, 11)
}

/** Where the block's file lies within its disk. */
export function blockPath(id: BlockId): string {
  const name = blockName(id)
  return `${name.slice(9, 11)}/${name}`
}
