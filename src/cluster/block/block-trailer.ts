/**
 * The trailer of a block file, as docs/formats/blocks.md describes it: what follows the bytes of the block and tells
 * whether they are those that were written. Pure; `block-file.ts` reads and writes it.
 */
import { assert } from '#base/assert.ts'

import type { BlockId } from './block-id.ts'
import { crc32c } from '#cluster/erasure/crc32c.ts'
import { PAGE_BYTES, pageCount } from './page-sums.ts'
import type { BlockFacts } from './permit.ts'
import { readSafeInteger, writeSafeInteger } from '#cluster/safe-integer.ts'

/** The largest block: what a client holds in memory several times over while it encodes, and a disk reads in half a second. */
export const BLOCK_BYTES_MAX = 100 << 20

const MAGIC = Buffer.from('EIDERBLK', 'latin1')
const VERSION = 1
/** Before the sums of the pages. */
const HEAD_BYTES = 32
/** The crc of the trailer itself. */
const TAIL_BYTES = 4

/** What a trailer tells. */
export interface Trailer extends BlockFacts {
  /** crc32c of each page. */
  readonly sums: Uint32Array
}

export function trailerBytes(size: number): number {
  return HEAD_BYTES + 4 * pageCount(size) + TAIL_BYTES
}

/** How long the file of a block of that size is. */
export function blockFileBytes(size: number): number {
  return size + trailerBytes(size)
}

/**
 * The size of the block whose file is so long: each size has a length of its own. Undefined where there is none of that
 * length: the file was cut.
 */
export function sizeOfFile(fileBytes: number): number | undefined {
  const rest = fileBytes - HEAD_BYTES - TAIL_BYTES
  const size = rest - 4 * Math.ceil(rest / (PAGE_BYTES + 4))
  return size >= 1 && size <= BLOCK_BYTES_MAX && blockFileBytes(size) === fileBytes ? size : undefined
}

export function encodeTrailer({ id, size, crc, sums }: Trailer): Buffer {
  assert(sums.length === pageCount(size), 'each page has a checksum')
  const bytes = Buffer.allocUnsafe(trailerBytes(size))
  bytes.set(MAGIC, 0)
  bytes.writeUInt32LE(VERSION, 8)
  bytes.writeUInt32LE(crc, 12)
  writeSafeInteger(bytes, id, 16)
  writeSafeInteger(bytes, size, 24)
  for (let page = 0; page < sums.length; page++) bytes.writeUInt32LE(sums[page] ?? 0, HEAD_BYTES + 4 * page)
  const end = bytes.length - TAIL_BYTES
  bytes.writeUInt32LE(crc32c(bytes.subarray(0, end)), end)
  return bytes
}

/**
 * What the trailer at the end of the file of block `id` tells, where the length of that file says that the block has
 * `size` bytes. `cut`: this is no trailer of it, so the file has lost its end; `damaged`: it is one with wrong
 * bytes. Of magic, id and size a single flip leaves two right, and bytes that lie elsewhere have none.
 */
export function decodeTrailer(bytes: Buffer, id: BlockId, size: number): Trailer | 'cut' | 'damaged' {
  assert(bytes.length === trailerBytes(size), 'a trailer is as long as the size of its block says')
  const end = bytes.length - TAIL_BYTES
  const isMagic = bytes.subarray(0, MAGIC.length).equals(MAGIC)
  const isId = readSafeInteger(bytes, 16) === id
  const isSize = readSafeInteger(bytes, 24) === size
  if (Number(isMagic) + Number(isId) + Number(isSize) < 2) return 'cut'
  if (!isMagic || !isId || !isSize || bytes.readUInt32LE(8) !== VERSION) return 'damaged'
  if (bytes.readUInt32LE(end) !== crc32c(bytes.subarray(0, end))) return 'damaged'
  const sums = new Uint32Array(pageCount(size))
  for (let page = 0; page < sums.length; page++) sums[page] = bytes.readUInt32LE(HEAD_BYTES + 4 * page)
  return { id, size, crc: bytes.readUInt32LE(12), sums }
}
