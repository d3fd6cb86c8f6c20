/**
 * An entry in the journal of a shard: the request as it came, the time at which it is done, and what was chosen for it.
 *
 *   u53 time   u16 count of what was chosen, then each as u53   frame of the request (wire.md)
 *
 * What the process does by itself is a request, too, of kinds that nobody can send (`own-messages.ts`).
 */
import { readHeader, type Header } from '#cluster/wire/envelope.ts'
import { ByteReader, ByteWriter, u16, u53 } from '#cluster/wire/codec.ts'

export interface ShardEntry {
  readonly timeUs: number
  /** Of a span in blocks: the disks that they go to. */
  readonly chosen: readonly number[]
  readonly header: Header
  readonly frame: Buffer
}

export function encodeEntry({ timeUs, chosen, frame }: ShardEntry): Buffer {
  const writer = new ByteWriter(10 + 8 * chosen.length + frame.length)
  u53.write(writer, timeUs)
  u16.write(writer, chosen.length)
  for (const each of chosen) u53.write(writer, each)
  const at = writer.reserve(frame.length)
  frame.copy(writer.bytes, at)
  return writer.finish()
}

/** @throws OperationError `WIRE_MALFORMED` */
export function decodeEntry(bytes: Buffer): ShardEntry {
  const reader = new ByteReader(bytes)
  const timeUs = u53.read(reader)
  const count = u16.read(reader)
  const chosen: number[] = []
  for (let index = 0; index < count; index++) chosen.push(u53.read(reader))
  const frame = bytes.subarray(reader.take(reader.remaining))
  return { timeUs, chosen, header: readHeader(frame), frame }
}
