/**
 * The checksums that S3 objects carry: computing them over bytes as they pass, and joining those of parts to that of
 * the whole. Values are base64 of the big-endian digest, as S3 writes them.
 *
 * CRC32 is zlib's; CRC32C and CRC64NVME are WebAssembly instances, which are dear to make (a module each) and cheap to
 * use again, so they are pooled.
 */
import { createHash } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { createCRC32, createCRC64, type IHasher } from 'hash-wasm'

export const CHECKSUM_ALGORITHMS = ['CRC32', 'CRC32C', 'CRC64NVME', 'SHA1', 'SHA256'] as const
export type ChecksumAlgorithm = (typeof CHECKSUM_ALGORITHMS)[number]
/** Whether a multipart object's checksum is of its bytes or of its parts' checksums. */
export type ChecksumType = 'FULL_OBJECT' | 'COMPOSITE'

/** Bytes of a digest. */
const DIGEST_BYTES: Readonly<Record<ChecksumAlgorithm, number>> = {
  CRC32: 4,
  CRC32C: 4,
  CRC64NVME: 8,
  SHA1: 20,
  SHA256: 32,
}
/** Reflected polynomials. */
const POLYNOMIALS = { CRC32: 0xedb88320n, CRC32C: 0x82f63b78n, CRC64NVME: 0x9a6c9329ac4bc9b5n } as const
const POOL_MAX = 32

/** Computes one checksum; `digest` or `cancel` ends its life, once. */
export interface ChecksumHasher {
  update(bytes: Uint8Array): void
  digest(): Buffer
  cancel(): void
}

const pools = { CRC32C: [] as IHasher[], CRC64NVME: [] as IHasher[] }

/** A hasher that has seen nothing yet. */
export async function createChecksumHasher(algorithm: ChecksumAlgorithm): Promise<ChecksumHasher> {
  switch (algorithm) {
    case 'CRC32': {
      let value = 0
      return {
        update: (bytes) => {
          value = crc32(bytes, value)
        },
        digest: () => {
          const digest = Buffer.allocUnsafe(4)
          digest.writeUInt32BE(value)
          return digest
        },
        cancel: () => {},
      }
    }
    case 'CRC32C':
    case 'CRC64NVME': {
      const pool = pools[algorithm]
      const hasher =
        pool.pop() ?? (algorithm === 'CRC32C' ? await createCRC32(0x82f63b78) : await createCRC64('9a6c9329ac4bc9b5'))
      hasher.init()
      const release = (): void => {
        if (pool.length < POOL_MAX) pool.push(hasher)
      }
      return {
        update: (bytes) => void hasher.update(bytes),
        digest: () => {
          const digest = Buffer.from(hasher.digest('binary'))
          release()
          return digest
        },
        cancel: release,
      }
    }
    case 'SHA1':
    case 'SHA256': {
      const hash = createHash(algorithm === 'SHA1' ? 'sha1' : 'sha256')
      return { update: (bytes) => void hash.update(bytes), digest: () => hash.digest(), cancel: () => {} }
    }
  }
}

/** The algorithm that a header's or element's word names. */
export function checksumAlgorithmOf(word: string): ChecksumAlgorithm | undefined {
  const upper = word.toUpperCase()
  return CHECKSUM_ALGORITHMS.find((algorithm) => algorithm === upper)
}

/** `x-amz-checksum-crc32` and so on. */
export function checksumHeader(algorithm: ChecksumAlgorithm): string {
  return `x-amz-checksum-${algorithm.toLowerCase()}`
}

/** Whether `value` is base64 of a digest of that algorithm. */
export function isChecksumValue(algorithm: ChecksumAlgorithm, value: string): boolean {
  const bytes = Buffer.from(value, 'base64')
  return bytes.length === DIGEST_BYTES[algorithm] && bytes.toString('base64') === value
}

/** S3's checksum of checksums: the digest of the parts' digests, and how many they are. */
export async function compositeChecksum(algorithm: ChecksumAlgorithm, parts: readonly string[]): Promise<string> {
  const hasher = await createChecksumHasher(algorithm)
  for (const part of parts) hasher.update(Buffer.from(part, 'base64'))
  return `${hasher.digest().toString('base64')}-${parts.length}`
}

/** The checksum of the parts' bytes joined; undefined where the algorithm does not allow it (SHA). */
export function joinedChecksum(
  algorithm: ChecksumAlgorithm,
  parts: readonly { readonly checksum: string; readonly size: number }[],
): string | undefined {
  if (algorithm === 'SHA1' || algorithm === 'SHA256') return undefined
  const polynomial = POLYNOMIALS[algorithm]
  const width = DIGEST_BYTES[algorithm] * 8
  const shifts = new Map<number, bigint>()
  let joined = 0n
  for (const { checksum, size } of parts) {
    // Parts are nearly all of one size, so the shift by it is computed once.
    let shift = shifts.get(size)
    if (shift === undefined) {
      shift = powerOfX(size * 8, polynomial, width)
      shifts.set(size, shift)
    }
    joined = multiply(shift, joined, polynomial, width) ^ BigInt(`0x${Buffer.from(checksum, 'base64').toString('hex')}`)
  }
  return Buffer.from(joined.toString(16).padStart(width / 4, '0'), 'hex').toString('base64')
}

/** The product of two polynomials over GF(2), modulo the generator; all reflected, so 1 is the top bit. */
function multiply(a: bigint, b: bigint, polynomial: bigint, width: number): bigint {
  let product = 0n
  let shifted = b
  for (let bit = 1n << BigInt(width - 1); bit !== 0n; bit >>= 1n) {
    if ((a & bit) !== 0n) product ^= shifted
    shifted = (shifted & 1n) === 0n ? shifted >> 1n : (shifted >> 1n) ^ polynomial
  }
  return product
}

/** x to the power `exponent`, modulo the generator, by squaring. */
function powerOfX(exponent: number, polynomial: bigint, width: number): bigint {
  const one = 1n << BigInt(width - 1)
  let result = one
  let square = one >> 1n
  for (let left = exponent; left > 0; left = Math.floor(left / 2)) {
    if (left % 2 === 1) result = multiply(result, square, polynomial, width)
    square = multiply(square, square, polynomial, width)
  }
  return result
}
