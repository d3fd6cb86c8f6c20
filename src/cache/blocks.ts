/**
 * The blocks that cached files are kept and checked by: 128 KiB, the last one as short as the file ends. One is what the
 * kernel asks for at a time, costs 35 µs to check, and its checksum is 1/32768 of what it guards.
 */
import { crc32 } from 'node:zlib'

import { assert } from '#base/assert.ts'

export const BLOCK_BYTES = 128 << 10

export interface Range {
  readonly offset: number
  readonly length: number
}

/** How many blocks a file of that size has. */
export function blockCount(size: number): number {
  return Math.ceil(size / BLOCK_BYTES)
}

/** Where blocks `first` to `end` (not included) lie in a file of that size. */
export function rangeOfBlocks(first: number, end: number, size: number): Range {
  const offset = first * BLOCK_BYTES
  return { offset, length: Math.min(end * BLOCK_BYTES, size) - offset }
}

/** The range, widened to whole blocks within the file. */
export function alignToBlocks(offset: number, length: number, size: number): Range {
  assert(offset >= 0 && length >= 0, 'a range has an offset and a length')
  const end = Math.min(offset + length, size)
  if (end <= offset) return { offset: Math.min(offset, size), length: 0 }
  return rangeOfBlocks(Math.floor(offset / BLOCK_BYTES), blockCount(end), size)
}

/** CRC-32 of a block; 0 stands for a block that is not there, so a block that has it gets 1. */
export function checksumOf(block: Uint8Array): number {
  const sum = crc32(block)
  return sum === 0 ? 1 : sum
}
