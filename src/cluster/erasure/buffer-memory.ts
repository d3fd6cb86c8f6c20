/**
 * Memory for large buffers that come and go: frames with blocks, ranges that are read from disks. A buffer that the engine makes itself
 * counts against its heap, and every few of a MiB begin another collection of all garbage, which took half of the processor's time of
 * reading files. Those lent here are given back by who is done with them; and as they lie in a coding memory, their checksums need no copy.
 *
 * It is bounded: what has no room, and what is small, is a buffer of the engine's, and giving that back does nothing.
 */
import { CodingMemory } from './coding-memory.ts'

/** Below it, a buffer of the engine's is as good. */
const LENT_BYTES_MIN = 64 * 1024

export class BufferMemory {
  readonly #bytes: number
  /** Made when it is needed first; until it is used, it costs address space alone. */
  #memory: CodingMemory | undefined
  #bytesFree = 0

  /** With room for that many bytes in all. */
  constructor(bytes: number) {
    this.#bytes = bytes
  }

  /** What the buffers take that are not back. */
  get bytesLent(): number {
    return this.#bytesFree - (this.#memory?.bytesFree ?? 0)
  }

  /** A buffer of that length, with anything in it. */
  take(length: number): Buffer {
    if (length < LENT_BYTES_MIN || length > this.#bytes) return Buffer.allocUnsafe(length)
    if (this.#memory === undefined) {
      this.#memory = new CodingMemory(this.#bytes)
      this.#bytesFree = this.#memory.bytesFree
    }
    const block = this.#memory.allocate(length)
    return block === undefined ? Buffer.allocUnsafe(length) : Buffer.from(block.buffer, block.byteOffset, length)
  }

  /** Takes back a buffer that begins where one does that `take` gave, once; others are left as they are. */
  give(buffer: Uint8Array): void {
    if (this.isLent(buffer)) this.#memory?.release(buffer)
  }

  /** Whether it lies here, and so is to be given back. */
  isLent(buffer: Uint8Array): boolean {
    return this.#memory?.holds(buffer) === true
  }
}
