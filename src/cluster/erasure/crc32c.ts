/**
 * CRC32C (Castagnoli, as in RFC 3720), and its algebra: the CRC of a string from those of its parts, of an XOR from those of its operands, of
 * a string with zeros appended, all without the bytes. CRCs are unsigned 32-bit numbers, started from and finished with all bits flipped, so that the CRC of nothing is 0.
 *
 * The algebra works on remainders modulo the polynomial: appending n bytes multiplies a remainder by x^(8n).
 */
import { assert } from '#base/assert.ts'
import { BYTE_TABLE, POLYNOMIAL } from './crc32c-code.ts'
import { kernelFor } from './kernel.ts'

/** Up to here the engine keeps a typed array's bytes on its own heap, and to ask where they lie would move them; a table is as fast. */
const SMALL_BYTES = 64
/** Remainders have their lowest power in the highest bit: this is 1. */
const ONE = 0x80000000
/** Appending so many bytes multiplies by 1: x has this order modulo the polynomial, x + 1 times a primitive one of degree 31. */
const BYTES_ORDER = 2 ** 31 - 1
/** Lengths repeat (pages, cells), so what they multiply by is kept. */
const SHIFTS_MAX = 1024

/** By bit: x to that power of two, of bytes: POWERS[k] is x^(8 * 2^k). */
const POWERS: number[] = []
for (let power = 0x00800000; POWERS.length < 53; power = multiply(power, power)) POWERS.push(power)
const shifts = new Map<number, number>()

/** The CRC of the bytes; or of bytes before whose CRC is given, and these. */
export function crc32c(bytes: Uint8Array, crc = 0): number {
  if (bytes.length > SMALL_BYTES) return kernelFor(bytes).crc32c(bytes, crc)
  let remainder = ~crc
  // Twice as fast as an iterator.
  for (let at = 0; at < bytes.length; at++) {
    remainder = (remainder >>> 8) ^ (BYTE_TABLE[(remainder ^ (bytes[at] ?? 0)) & 0xff] ?? 0)
  }
  return ~remainder >>> 0
}

/** The same of a text of which each character is one byte (latin1). */
export function crc32cText(text: string): number {
  let remainder = ~0
  for (let at = 0; at < text.length; at++) {
    remainder = (remainder >>> 8) ^ (BYTE_TABLE[(remainder ^ text.charCodeAt(at)) & 0xff] ?? 0)
  }
  return ~remainder >>> 0
}

/** The CRC of each page of a block, the last of which may be short, into `out`, which has a place for each. */
export function crc32cPages(bytes: Uint8Array, pageBytes: number, out: Uint32Array): void {
  assert(Number.isInteger(pageBytes) && pageBytes > 0, 'a page has bytes')
  assert(out.length >= Math.ceil(bytes.length / pageBytes), 'there is a place for the CRC of each page')
  if (bytes.length > SMALL_BYTES) return kernelFor(bytes).crc32cPages(bytes, pageBytes, out)
  for (let page = 0; page * pageBytes < bytes.length; page++) {
    out[page] = crc32c(bytes.subarray(page * pageBytes, (page + 1) * pageBytes))
  }
}

/** The CRC of a string of which `a` is the CRC, followed by one of that length of which `b` is. */
export function crc32cAppend(a: number, b: number, lengthOfB: number): number {
  return (shifted(a, lengthOfB) ^ b) >>> 0
}

/** The CRC of the XOR of two strings of that length, from their CRCs. */
export function crc32cXor(a: number, b: number, length: number): number {
  return (a ^ b ^ crc32cZeros(0, length)) >>> 0
}

/** The CRC of a string, of which the CRC is given, followed by so many zero bytes. */
export function crc32cZeros(crc: number, count: number): number {
  return ~shifted(~crc, count) >>> 0
}

/** The CRC of a string, of which the CRC with so many zero bytes after it is given. */
export function crc32cWithoutZeros(crc: number, count: number): number {
  assertLength(count)
  return ~shifted(~crc, BYTES_ORDER - (count % BYTES_ORDER)) >>> 0
}

/** A remainder times x^(8 * count). */
function shifted(remainder: number, count: number): number {
  assertLength(count)
  const known = shifts.get(count)
  if (known !== undefined) return multiply(remainder, known)
  let factor = ONE
  for (let rest = count, bit = 0; rest > 0; rest = Math.floor(rest / 2), bit++) {
    if (rest % 2 === 1) factor = multiply(factor, POWERS[bit] ?? ONE)
  }
  if (shifts.size >= SHIFTS_MAX) shifts.clear()
  shifts.set(count, factor)
  return multiply(remainder, factor)
}

/** The product of two remainders. */
function multiply(a: number, b: number): number {
  let product = 0
  let multiple = b
  for (let rest = a; rest !== 0; rest <<= 1) {
    // -1 where the highest bit is set, else 0.
    product ^= multiple & (rest >> 31)
    multiple = (multiple >>> 1) ^ (POLYNOMIAL & -(multiple & 1))
  }
  return product >>> 0
}

function assertLength(bytes: number): void {
  assert(Number.isSafeInteger(bytes) && bytes >= 0, 'a length is a whole number')
}
