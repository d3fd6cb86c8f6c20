/**
 * Inode ids of the cluster: one safe integer that tells the type and the shard of an inode, for ever.
 *
 *   id = type * 2^51 + shard * 2^43 + counter        type 1 to 3, shard 0 to 255, counter below 2^43
 *
 * All that is known of an inode lies on its shard, and all names in a directory on that of the directory. A shard gives each counter
 * out once: 2^43 are 8,796 billion.
 */
import { assert } from '#base/assert.ts'
import { OperationError } from '#base/errors.ts'

/** Names one inode of the cluster. */
export type InodeId = number & { readonly __inode: never }
export type InodeType = 'directory' | 'file' | 'symlink'

/** Virtual shards: as many processes as there are share them. */
export const SHARDS = 256
export const COUNTER_MAX = 2 ** 43 - 1

const TYPES: readonly (InodeType | undefined)[] = [undefined, 'directory', 'file', 'symlink']
const SHARD_UNIT = 2 ** 43
const TYPE_UNIT = 2 ** 51

/** The directory at the top, on shard 0. */
export const ROOT_INODE: InodeId = makeInodeId('directory', 0, 0)

/** The id of the inode of that type that `shard` gives this counter to. */
export function makeInodeId(type: InodeType, shard: number, counter: number): InodeId {
  assert(Number.isInteger(shard) && shard >= 0 && shard < SHARDS, 'a shard is one of 256')
  assert(Number.isInteger(counter) && counter >= 0 && counter <= COUNTER_MAX, 'a counter of inodes has 43 bits')
  return (TYPES.indexOf(type) * TYPE_UNIT + shard * SHARD_UNIT + counter) as InodeId
}

export function isInodeId(value: number): value is InodeId {
  return Number.isSafeInteger(value) && TYPES[Math.floor(value / TYPE_UNIT)] !== undefined
}

/** `value` from outside as an id. @throws OperationError `INPUT_INVALID` */
export function inodeIdFrom(value: number): InodeId {
  if (isInodeId(value)) return value
  throw new OperationError('INPUT_INVALID', `Cannot take ${value} for an inode: it has no type`)
}

export function inodeType(id: InodeId): InodeType {
  const type = TYPES[Math.floor(id / TYPE_UNIT)]
  assert(type !== undefined, 'an inode has a type')
  return type
}

/** The shard that has the inode. */
export function inodeShard(id: InodeId): number {
  return Math.floor(id / SHARD_UNIT) % SHARDS
}

/** `0x0020000000000003`, as people see it. */
export function shownInode(id: InodeId): string {
  return `0x${id.toString(16).padStart(16, '0')}`
}

/** What `shownInode` gave, or the number in decimal. @throws OperationError `INPUT_INVALID` */
export function parsedInode(text: string): InodeId {
  const value = /^(?:0x[0-9a-f]{1,16}|\d{1,16})$/i.test(text) ? Number(text) : Number.NaN
  if (isInodeId(value)) return value
  const detail = Number.isNaN(value) ? '' : ': there is none of that number'
  throw new OperationError('INPUT_INVALID', `Cannot take "${text}" for an inode${detail}`, {
    hint: 'Inodes are shown as 0x and 16 hexadecimal digits.',
  })
}
