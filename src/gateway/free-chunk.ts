/**
 * Memory of chunks, given back at once when their bytes have been used. V8 counts the memory outside its heap and
 * collects the whole heap for every 16 MiB of it: a gigabyte moved that way costs a third of a second of collections,
 * and none where each chunk is freed as it goes.
 */

/** Frees a chunk that fills its buffer; others share theirs with something, and are left to the collector. */
export function freeChunk(chunk: Uint8Array): void {
  const { buffer } = chunk
  if (chunk.length === buffer.byteLength && buffer instanceof ArrayBuffer) buffer.transfer(0)
}
