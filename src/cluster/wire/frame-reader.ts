/**
 * The bytes of a connection to frames. A frame is a header (u32, little-endian: its length in the lower 28 bits, its kind in the upper
 * four), its bytes, and their MAC where the connection has keys.
 *
 * A frame that lies in one chunk is given out as a view of it: nothing is copied. One that begins in a chunk and ends in another gets a
 * buffer of its length at once, so its bytes are copied once however many chunks they come in; who can read into a given buffer reads the
 * rest of it straight into its place (`room`), and then not even once. A length is believed only up to a bound.
 */
import { OperationError } from '#base/errors.ts'

import type { FrameMemory } from '#cluster/surroundings.ts'

import { malformed } from './codec.ts'
import { type FrameSeal, type GrowingMac, isMac, MAC_BYTES } from './frame-seal.ts'

export const HEADER_BYTES = 4
/** What one header can say. */
export const FRAME_BYTES_LIMIT = 2 ** 28 - 1
/** A block of 100 MiB, and what is said about it. */
export const FRAME_BYTES_MAX = 112 * 1024 * 1024

/** For whom a frame is: the owner of the link, or the link itself. */
export const MESSAGE = 0
/** Says nothing but that its sender is there; without bytes. */
export const PING = 1
/** The last frame, which says why. */
export const FAREWELL = 2
export type FrameKind = typeof MESSAGE | typeof PING | typeof FAREWELL

/** Less than this is not worth a read of its own. */
const ROOM_BYTES_MIN = 64 * 1024

/** As a code's index and a text. */
export const FAREWELL_BYTES_MAX = 256

export function headerOf(kind: FrameKind, length: number): number {
  return kind * 2 ** 28 + length
}

export interface FrameReaderOptions {
  readonly frameBytesMax: number
  /** Of the direction in which the frames come; without one they carry no MAC. */
  readonly seal: FrameSeal | undefined
  /** Where frames of messages lie that come in several chunks; otherwise in the engine's own memory. */
  readonly memory?: FrameMemory
  readonly onFrame: (kind: FrameKind, frame: Buffer) => void
}

/** A frame of which a part has come. */
interface Partial {
  readonly kind: FrameKind
  readonly length: number
  /** Of the frame and its MAC. */
  readonly bytes: Buffer
  filled: number
  readonly mac: GrowingMac | undefined
}

export class FrameReader {
  readonly #options: FrameReaderOptions
  readonly #macBytes: number
  readonly #header = Buffer.alloc(HEADER_BYTES)
  #headerFilled = 0
  #partial: Partial | undefined
  #stopped = false

  constructor(options: FrameReaderOptions) {
    this.#options = options
    this.#macBytes = options.seal === undefined ? 0 : MAC_BYTES
  }

  /**
   * No frame is given out any more, also of the chunk that is being read. Once nothing can be read into `room` any more, what this returns
   * is to be called.
   */
  stop(): () => void {
    const { memory } = this.#options
    const left = this.#partial?.bytes
    this.#stopped = true
    this.#partial = undefined
    return () => {
      if (left !== undefined) memory?.give(left)
    }
  }

  /** Where the next bytes may be read into, for `took`, instead of being pushed; the rest of a large frame. */
  get room(): Buffer | undefined {
    const partial = this.#partial
    if (partial === undefined || partial.bytes.length - partial.filled < ROOM_BYTES_MIN) return undefined
    return partial.bytes.subarray(partial.filled)
  }

  /** The next bytes are the first so many of `room`. @throws as `push` */
  took(count: number): void {
    const partial = this.#partial
    // Stopped meanwhile.
    if (partial === undefined) return
    this.#add(partial, partial.bytes.subarray(partial.filled, partial.filled + count))
  }

  /**
   * The next bytes. Gives whether frames lie in them now, to whom they then belong; after an error nothing more may be given.
   * @throws OperationError `WIRE_MALFORMED`, or `WIRE_REFUSED` for a wrong MAC
   */
  push(chunk: Buffer): boolean {
    let at = 0
    let isKept = false
    while (at < chunk.length && !this.#stopped) {
      if (this.#partial !== undefined) {
        at = this.#continue(this.#partial, chunk, at)
      } else if (this.#headerFilled === 0 && chunk.length - at >= HEADER_BYTES) {
        at = this.#begin(chunk.readUInt32LE(at), chunk, at + HEADER_BYTES)
        isKept ||= this.#partial === undefined
      } else {
        const count = Math.min(HEADER_BYTES - this.#headerFilled, chunk.length - at)
        chunk.copy(this.#header, this.#headerFilled, at, at + count)
        this.#headerFilled += count
        at += count
        if (this.#headerFilled < HEADER_BYTES) break
        this.#headerFilled = 0
        at = this.#begin(this.#header.readUInt32LE(0), chunk, at)
        isKept ||= this.#partial === undefined
      }
    }
    return isKept
  }

  /** A frame whose bytes begin at `at`: gives where the next one does. */
  #begin(header: number, chunk: Buffer, at: number): number {
    const kind = kindOf(header >>> 28)
    const length = header & FRAME_BYTES_LIMIT
    const { frameBytesMax, seal, memory } = this.#options
    const max = kind === MESSAGE ? frameBytesMax : kind === PING ? 0 : FAREWELL_BYTES_MAX
    if (length > max) throw malformed(`a frame has ${length} bytes, and may have ${max}`)
    const total = length + this.#macBytes
    if (chunk.length - at >= total) {
      const frame = chunk.subarray(at, at + length)
      if (seal !== undefined && !isMac(seal.of(header, [frame], length), chunk, at + length)) throw refused()
      this.#options.onFrame(kind, frame)
      return at + total
    }
    // Not touched before its bytes come, so a large one that never comes takes no memory.
    const bytes = (kind === MESSAGE ? memory?.take(total) : undefined) ?? Buffer.allocUnsafe(total)
    this.#partial = { kind, length, bytes, filled: 0, mac: seal?.begin(header) }
    return at
  }

  #continue(partial: Partial, chunk: Buffer, at: number): number {
    const { bytes, filled } = partial
    const count = Math.min(bytes.length - filled, chunk.length - at)
    chunk.copy(bytes, filled, at, at + count)
    this.#add(partial, bytes.subarray(filled, filled + count))
    return at + count
  }

  /** `added` has come into its place. */
  #add(partial: Partial, added: Buffer): void {
    const { kind, length, bytes, filled, mac } = partial
    partial.filled += added.length
    // Now, while the processor has them at hand.
    if (filled < length) mac?.add(added.subarray(0, length - filled))
    if (partial.filled < bytes.length) return
    // The frame is left where it is, until the reader is stopped for it.
    if (mac !== undefined && !isMac(mac.finish(), bytes, length)) throw refused()
    this.#partial = undefined
    this.#options.onFrame(kind, bytes.subarray(0, length))
  }
}

function kindOf(value: number): FrameKind {
  if (value === MESSAGE || value === PING || value === FAREWELL) return value
  throw malformed(`there is no frame of kind ${value}`)
}

function refused(): OperationError {
  return new OperationError('WIRE_REFUSED', 'Cannot take a frame: its MAC is not that of the secret and its place', {
    hint: 'Something changes what goes over the network; use TLS where that is to be expected.',
  })
}
