/**
 * Frames that go out together: what was sent in one turn becomes few buffers and one write. Small parts are copied next to each other,
 * headers and MACs between them; large ones are handed on as they are.
 */
import { assert } from '#base/assert.ts'

import { FRAME_BYTES_LIMIT, type FrameKind, HEADER_BYTES, headerOf } from './frame-reader.ts'
import { type FrameSeal, MAC_BYTES } from './frame-seal.ts'

/** From here on the copy of a part costs more than its place in a list of buffers. */
const LARGE_PART_BYTES = 16 * 1024

export class FrameBatch {
  #headers: number[] = []
  #frames: (readonly Uint8Array[])[] = []
  #bytes = 0
  #copiedBytes = 0

  /** All that waits here, headers too. */
  get bytes(): number {
    return this.#bytes
  }

  /** One frame of `parts`, which stay as they are until `take` and, as long as nobody has read them, after it. */
  add(kind: FrameKind, parts: readonly Uint8Array[]): void {
    let length = 0
    for (const part of parts) {
      length += part.length
      if (part.length < LARGE_PART_BYTES) this.#copiedBytes += part.length
    }
    assert(length <= FRAME_BYTES_LIMIT, 'a frame has less than 256 MiB')
    this.#copiedBytes += HEADER_BYTES
    this.#bytes += HEADER_BYTES + length
    this.#headers.push(headerOf(kind, length))
    this.#frames.push(parts)
  }

  /** All of it as what is to be written, one after the other; the batch is empty after that. */
  take(seal: FrameSeal | undefined): Uint8Array[] {
    const frames = this.#frames
    const headers = this.#headers
    const macBytes = seal === undefined ? 0 : MAC_BYTES
    const copied = Buffer.allocUnsafe(this.#copiedBytes + frames.length * macBytes)
    this.clear()
    const buffers: Uint8Array[] = []
    let start = 0
    let at = 0
    for (const [index, parts] of frames.entries()) {
      const header = headers[index] ?? 0
      at = copied.writeUInt32LE(header, at)
      for (const part of parts) {
        if (part.length < LARGE_PART_BYTES) {
          copied.set(part, at)
          at += part.length
        } else {
          if (at > start) buffers.push(copied.subarray(start, at))
          buffers.push(part)
          start = at
        }
      }
      if (seal !== undefined)
        at += copied.write(seal.of(header, parts, header & FRAME_BYTES_LIMIT), at, MAC_BYTES, 'latin1')
    }
    if (at > start) buffers.push(copied.subarray(start, at))
    return buffers
  }

  clear(): void {
    this.#frames = []
    this.#headers = []
    this.#bytes = 0
    this.#copiedBytes = 0
  }
}
