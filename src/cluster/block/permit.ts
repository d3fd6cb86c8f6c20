/**
 * Permits and receipts: how shards and disks trust each other through clients that neither trusts. Who has the disk's key
 * (its disk, the registry, the shards) permits a write or an erasure of one block on one disk; the disk answers by a
 * receipt that the client can hand on and not make up.
 *
 * Each is an HMAC-SHA-256 by the disk's key, cut to 16 bytes, of a message that begins with what it is for. So none
 * passes for another kind, nor for another disk, block, size or checksum. A permit can be used again as long as the id's
 * age allows (`disk.ts`): the same write twice is the same block.
 */
import { timingSafeEqual } from 'node:crypto'

import { assert } from '#base/assert.ts'
import { shortHmac } from '#cluster/short-hmac.ts'

import type { BlockId } from './block-id.ts'
import { writeSafeInteger } from '#cluster/safe-integer.ts'

/** Names one disk of the cluster, for ever: a random safe integer, made at the first use of its directory. */
export type DiskId = number & { readonly __disk: never }

export const KEY_BYTES = 32
export const PERMIT_BYTES = 16

/** What a write is about: the permit and the receipt bind all of it. */
export interface BlockFacts {
  readonly id: BlockId
  /** Bytes of the block, 1 to `BLOCK_BYTES_MAX`. */
  readonly size: number
  /** crc32c of all its bytes. */
  readonly crc: number
}

/** A disk and its key. */
export interface DiskKey {
  readonly disk: DiskId
  /** 32 random bytes. */
  readonly key: Uint8Array
}

/** What each message begins with, NUL-padded to one length. */
const TAG_BYTES = 24
const TAGS = {
  writePermit: 'eider write permit',
  writeReceipt: 'eider write receipt',
  erasePermit: 'eider erase permit',
  eraseReceipt: 'eider erase receipt',
} as const
type Kind = keyof typeof TAGS

/** Lets its bearer write that very block to that disk. */
export function writePermit(key: DiskKey, block: BlockFacts): Uint8Array {
  return sealOfBlock('writePermit', key, block)
}

/** Says that the disk has that very block, and has it durably. */
export function writeReceipt(key: DiskKey, block: BlockFacts): Uint8Array {
  return sealOfBlock('writeReceipt', key, block)
}

/** Lets its bearer erase the block from that disk. */
export function erasePermit(key: DiskKey, id: BlockId): Uint8Array {
  return sealOfId('erasePermit', key, id)
}

/** Says that the disk does not have the block, and never will again. */
export function eraseReceipt(key: DiskKey, id: BlockId): Uint8Array {
  return sealOfId('eraseReceipt', key, id)
}

/** Whether a permit or receipt that came from outside is the one expected; takes the same time whichever byte differs. */
export function isSame(given: Uint8Array, expected: Uint8Array): boolean {
  return given.length === expected.length && timingSafeEqual(given, expected)
}

function sealOfBlock(kind: Kind, key: DiskKey, { id, size, crc }: BlockFacts): Uint8Array {
  const message = messageOf(kind, key.disk, id, 12)
  writeSafeInteger(message, size, TAG_BYTES + 16)
  message.writeUInt32LE(crc, TAG_BYTES + 24)
  return seal(key.key, message)
}

function sealOfId(kind: Kind, key: DiskKey, id: BlockId): Uint8Array {
  return seal(key.key, messageOf(kind, key.disk, id, 0))
}

/** Tag (24 bytes), disk (8), block (8), room for `more`. */
function messageOf(kind: Kind, disk: DiskId, id: BlockId, more: number): Buffer {
  const message = Buffer.alloc(TAG_BYTES + 16 + more)
  message.write(TAGS[kind], 'latin1')
  writeSafeInteger(message, disk, TAG_BYTES)
  writeSafeInteger(message, id, TAG_BYTES + 8)
  return message
}

function seal(key: Uint8Array, message: Buffer): Uint8Array {
  assert(key.length === KEY_BYTES, 'the key of a disk has 32 bytes')
  return shortHmac(key, message, PERMIT_BYTES)
}
