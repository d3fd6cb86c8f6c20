/**
 * Checksums of bodies, end to end: CRC32 on what is sent, and whatever the server tells of on what is received. CRC-32 of
 * zlib costs 0.2 ms a MiB; the CRC of a whole object follows from those of its parts, without its bytes.
 */
import { createHash } from 'node:crypto'
import { crc32 } from 'node:zlib'
import type { IHasher } from 'hash-wasm'

import type { Header } from './signer.ts'

/** The header that lets the server check a body. */
export function crc32Header(body: Uint8Array): Header {
  return ['x-amz-checksum-crc32', crc32Base64(crc32(body))]
}

/** As S3 writes it: four bytes, big end first, in base64. */
export function crc32Base64(crc: number): string {
  const bytes = Buffer.allocUnsafe(4)
  bytes.writeUInt32BE(crc >>> 0)
  return bytes.toString('base64')
}

/** The value of four such bytes; undefined for anything else. */
export function crc32OfBase64(text: string | undefined): number | undefined {
  const bytes = Buffer.from(text ?? '', 'base64')
  return bytes.length === 4 ? bytes.readUInt32BE(0) : undefined
}

/** A checksum that is made while bytes arrive; `digest` is as S3 writes it. */
export interface Checker {
  readonly expected: string
  update(chunk: Uint8Array): void
  digest(): string
}

/** The polynomials of CRC32C and CRC64NVME, bit-reversed. */
const CRC32C = 0x82f63b78
const CRC64NVME = '9a6c9329ac4bc9b5'

/**
 * A checker for the strongest cheap checksum that the headers tell of; undefined where there is none of the whole object
 * (a checksum of checksums of parts ends in `-N`).
 */
export async function checkerFor(header: (name: string) => string | undefined): Promise<Checker | undefined> {
  if (header('x-amz-checksum-type') === 'COMPOSITE') return undefined
  const whole = (name: string): string | undefined => {
    const value = header(`x-amz-checksum-${name}`)
    return value === undefined || value.includes('-') ? undefined : value
  }
  const zlib = whole('crc32')
  if (zlib !== undefined) {
    let crc = 0
    return {
      expected: zlib,
      update: (chunk) => {
        crc = crc32(chunk, crc)
      },
      digest: () => crc32Base64(crc),
    }
  }
  const crc32c = whole('crc32c')
  const crc64 = whole('crc64nvme')
  if (crc32c !== undefined || crc64 !== undefined) {
    // Loaded where it is needed: objects that this store wrote have the CRC that zlib knows.
    const { createCRC32, createCRC64 } = await import('hash-wasm')
    if (crc32c !== undefined) return wasmChecker(crc32c, await createCRC32(CRC32C))
    if (crc64 !== undefined) return wasmChecker(crc64, await createCRC64(CRC64NVME))
  }
  for (const name of ['sha1', 'sha256']) {
    const expected = whole(name)
    if (expected === undefined) continue
    const hash = createHash(name)
    return { expected, update: (chunk) => void hash.update(chunk), digest: () => hash.digest('base64') }
  }
  return undefined
}

function wasmChecker(expected: string, hasher: IHasher): Checker {
  hasher.init()
  return {
    expected,
    update: (chunk) => void hasher.update(chunk),
    digest: () => Buffer.from(hasher.digest('binary')).toString('base64'),
  }
}

/** x^(2^n) modulo the CRC-32 polynomial, bit-reversed, for n from 0 to 31: what `combineCrc32` multiplies with. */
const POWERS = powers()

/** The product of two polynomials over GF(2) modulo the CRC-32 polynomial; bit 31 is x^0. Source: zlib's crc32_combine. */
function multiply(a: number, b: number): number {
  let product = 0
  let factor = b
  for (let bit = 0x80000000; bit !== 0; bit >>>= 1) {
    if ((a & bit) !== 0) product ^= factor
    factor = (factor & 1) === 0 ? factor >>> 1 : (factor >>> 1) ^ 0xedb88320
  }
  return product >>> 0
}

function powers(): number[] {
  const found = [0x40000000]
  for (let n = 1; n < 32; n++) found.push(multiply(found[n - 1] ?? 0, found[n - 1] ?? 0))
  return found
}

/** The CRC-32 of two pieces one after the other, from the CRC of each and the length of the second. */
export function combineCrc32(first: number, second: number, secondBytes: number): number {
  let shift = 0x80000000
  // x^(8 * secondBytes): three powers on, since a byte has eight bits; exponents repeat after 2^32 - 1.
  for (let rest = secondBytes, n = 3; rest > 0; rest = Math.floor(rest / 2), n++) {
    if (rest % 2 === 1) shift = multiply(POWERS[n % 32] ?? 0, shift)
  }
  return (multiply(shift, first >>> 0) ^ second) >>> 0
}
