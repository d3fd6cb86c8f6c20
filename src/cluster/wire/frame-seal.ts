/**
 * What proves that a frame comes from who knows the secret, as it was sent, in its place: the first 16 bytes of an HMAC-SHA-256 over
 * the number of the frame in its direction of the connection, its header, and itself. A frame that is changed, left out, sent twice
 * or sent back to its sender does not fit. It hides nothing.
 *
 * One `FrameSeal` counts the frames of one direction: each frame is to be asked for once, in its order.
 */
import { createHmac, createSecretKey, hash, type Hmac, type KeyObject } from 'node:crypto'

import { assert } from '#base/assert.ts'

export const MAC_BYTES = 16

const BLOCK_BYTES = 64
const DIGEST_BYTES = 32
const COUNTER_BYTES = 8
const HEADER_BYTES = 4
const FRAME_AT = BLOCK_BYTES + COUNTER_BYTES + HEADER_BYTES
/**
 * Up to here a frame is hashed by two calls of the one-shot hash over one buffer, with digests as strings: 1.1 us where an `Hmac` object
 * takes 2.8 us, most of it for what the garbage collector has to tidy up. Beyond it the copy costs more than that.
 */
const SHORT_BYTES_MAX = 8192
const TWO_32 = 2 ** 32

/** A MAC as its bytes in a `binary` string, which costs less than a buffer. */
export type Mac = string

/** The MAC of a frame that comes in pieces. */
export interface GrowingMac {
  add(bytes: Uint8Array): void
  finish(): Mac
}

export class FrameSeal {
  readonly #key: KeyObject
  /** The inner hash's key block, the counter, the header, room for a frame. */
  readonly #inner: Buffer
  /** The outer hash's key block, and the inner hash. */
  readonly #outer: Buffer
  #counter = 0

  constructor(key: Buffer) {
    assert(key.length === DIGEST_BYTES, 'a key of frames has 32 bytes')
    this.#key = createSecretKey(key)
    this.#inner = Buffer.alloc(FRAME_AT + SHORT_BYTES_MAX)
    this.#outer = Buffer.alloc(BLOCK_BYTES + DIGEST_BYTES)
    this.#inner.fill(0x36, 0, BLOCK_BYTES)
    this.#outer.fill(0x5c, 0, BLOCK_BYTES)
    for (const [index, byte] of key.entries()) {
      this.#inner[index] = 0x36 ^ byte
      this.#outer[index] = 0x5c ^ byte
    }
  }

  /** The MAC of the next frame: `length` bytes in `parts`. */
  of(header: number, parts: readonly Uint8Array[], length: number): Mac {
    if (length > SHORT_BYTES_MAX) {
      const mac = this.begin(header)
      for (const part of parts) mac.add(part)
      return mac.finish()
    }
    this.#count(header)
    let at = FRAME_AT
    for (const part of parts) {
      this.#inner.set(part, at)
      at += part.length
    }
    this.#outer.write(hash('sha256', this.#inner.subarray(0, at), 'binary'), BLOCK_BYTES, DIGEST_BYTES, 'latin1')
    return hash('sha256', this.#outer, 'binary').slice(0, MAC_BYTES)
  }

  /** The MAC of the next frame, of which no byte is there yet. */
  begin(header: number): GrowingMac {
    this.#count(header)
    const hmac: Hmac = createHmac('sha256', this.#key).update(this.#inner.subarray(BLOCK_BYTES, FRAME_AT))
    return {
      add: (bytes) => void hmac.update(bytes),
      finish: () => hmac.digest('binary').slice(0, MAC_BYTES),
    }
  }

  #count(header: number): void {
    const inner = this.#inner
    inner.writeUInt32LE(this.#counter % TWO_32, BLOCK_BYTES)
    inner.writeUInt32LE(Math.floor(this.#counter / TWO_32), BLOCK_BYTES + 4)
    inner.writeUInt32LE(header, BLOCK_BYTES + COUNTER_BYTES)
    this.#counter++
  }
}

/** Whether `bytes` have that MAC at `at`; takes the same time wherever they differ. */
export function isMac(mac: Mac, bytes: Uint8Array, at: number): boolean {
  let difference = 0
  for (let index = 0; index < MAC_BYTES; index++) difference |= mac.charCodeAt(index) ^ (bytes[at + index] ?? 0x100)
  return difference === 0
}
