/**
 * The bodies of the two messages that carry blocks, in parts: what is said of the bytes, and the bytes themselves, which are so never
 * copied into a message. Put together they are what the codecs of `block-messages.ts` write and read.
 */
import { ByteWriter, choice, u32 } from '#cluster/wire/codec.ts'
import { blockId, diskId, seal } from '#cluster/wire/forms.ts'

import type { BlockId } from './block-id.ts'
import type { DiskId } from './permit.ts'

/** A block to be written, but for its bytes. */
export interface WriteFacts {
  readonly disk: DiskId
  readonly block: BlockId
  /** Of all its bytes. */
  readonly crc: number
  readonly permit: Buffer
}

const WRITE_HEAD_BYTES = 40
const FETCH_HEAD_BYTES = 5
const outcome = choice('whole', 'bad')

/** What goes before the `size` bytes of the block in a request to write it; nothing goes after them. */
export function writeHead(facts: WriteFacts, size: number): Buffer {
  const writer = new ByteWriter(WRITE_HEAD_BYTES)
  diskId.write(writer, facts.disk)
  blockId.write(writer, facts.block)
  u32.write(writer, facts.crc)
  seal.write(writer, facts.permit)
  u32.write(writer, size)
  return writer.finish()
}

/** What goes before the `size` bytes of a range that was read whole. */
export function fetchHead(size: number): Buffer {
  const writer = new ByteWriter(FETCH_HEAD_BYTES)
  outcome.write(writer, 'whole')
  u32.write(writer, size)
  return writer.finish()
}

/** What goes after them: that no pages are bad. */
export const FETCH_TAIL = Buffer.alloc(4)
