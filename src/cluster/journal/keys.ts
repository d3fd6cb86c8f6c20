/** Parts of keys: numbers and names as strings of bytes whose order is that of what they stand for. */
import { assert } from '#base/assert.ts'

import type { Key } from './state.ts'

/** Bytes of a number in a key. */
export const NUMBER_BYTES = 7
const TWO_28 = 2 ** 28

const TWO_53 = 2 ** 53

/** A whole number up to 2^53 in seven bytes, the highest first; 2^53 itself only as the end of a range of ids. */
export function numberKey(value: number): Key {
  assert(Number.isInteger(value) && value >= 0 && value <= TWO_53, 'a number in a key has 53 bits')
  const high = Math.floor(value / TWO_28)
  const low = value % TWO_28
  return String.fromCharCode(
    (high >>> 20) & 0xff,
    (high >>> 12) & 0xff,
    (high >>> 4) & 0xff,
    ((high & 0xf) << 4) | (low >>> 24),
    (low >>> 16) & 0xff,
    (low >>> 8) & 0xff,
    low & 0xff,
  )
}

/** What `numberKey` gave, from `at` on. */
export function numberOfKey(key: Key, at: number): number {
  const high =
    (key.charCodeAt(at) << 20) |
    (key.charCodeAt(at + 1) << 12) |
    (key.charCodeAt(at + 2) << 4) |
    (key.charCodeAt(at + 3) >>> 4)
  const low =
    ((key.charCodeAt(at + 3) & 0xf) << 24) |
    (key.charCodeAt(at + 4) << 16) |
    (key.charCodeAt(at + 5) << 8) |
    key.charCodeAt(at + 6)
  return (high >>> 0) * TWO_28 + low
}

/** What `numberKey` gives, as bytes. */
export function writeNumber(into: Buffer, value: number, at: number): void {
  assert(Number.isInteger(value) && value >= 0 && value <= TWO_53, 'a number in a key has 53 bits')
  const high = Math.floor(value / TWO_28)
  const low = value % TWO_28
  into[at] = high >>> 20
  into[at + 1] = high >>> 12
  into[at + 2] = high >>> 4
  into[at + 3] = ((high & 0xf) << 4) | (low >>> 24)
  into[at + 4] = low >>> 16
  into[at + 5] = low >>> 8
  into[at + 6] = low
}

/** What `writeNumber` wrote. */
export function readNumber(from: Buffer, at: number): number {
  return from.readUIntBE(at, 3) * 2 ** 32 + from.readUInt32BE(at + 3)
}

export function numberValue(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(NUMBER_BYTES)
  writeNumber(bytes, value, 0)
  return bytes
}

const BEYOND_ASCII = /[\u0080-\uffff]/

/** The UTF-8 of a text. */
export function textKey(text: string): Key {
  return BEYOND_ASCII.test(text) ? Buffer.from(text, 'utf8').toString('latin1') : text
}

export function textOfKey(key: Key): string {
  return BEYOND_ASCII.test(key) ? Buffer.from(key, 'latin1').toString('utf8') : key
}

/** The first key that does not begin with `prefix`, as the end of a range; the prefix ends in a byte below 255. */
export function after(prefix: Key): Key {
  const last = prefix.charCodeAt(prefix.length - 1)
  assert(last < 0xff, 'a prefix of keys ends in a byte that has a next one')
  return prefix.slice(0, -1) + String.fromCharCode(last + 1)
}
