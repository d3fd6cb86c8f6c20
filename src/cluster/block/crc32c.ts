/**
 * CRC32C (Castagnoli), as iSCSI, ext4 and the storage classes of clouds use it: reflected polynomial 0x82f63b78, and
 * the crc of "123456789" is 0xe3069283. Eight tables, so that eight bytes are taken at a time.
 */
const POLYNOMIAL = 0x82f63b78
const TABLE_COUNT = 8
const tables = makeTables()

/** One after another, of 256 each. */
function makeTables(): Uint32Array {
  const made = new Uint32Array(TABLE_COUNT * 256)
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 1 ? (crc >>> 1) ^ POLYNOMIAL : crc >>> 1
    made[byte] = crc
  }
  for (let index = 256; index < made.length; index++) {
    const before = made[index - 256] ?? 0
    made[index] = (before >>> 8) ^ (made[before & 0xff] ?? 0)
  }
  return made
}

/** The crc of what `crc` is of with `bytes` after it. */
export function crc32c(bytes: Uint8Array, crc = 0): number {
  const at = (table: number, index: number): number => tables[table * 256 + (index & 0xff)] ?? 0
  const byte = (index: number): number => bytes[index] ?? 0
  let state = ~crc >>> 0
  let i = 0
  for (const end = bytes.length - 7; i < end; i += 8) {
    const low = state ^ (byte(i) | (byte(i + 1) << 8) | (byte(i + 2) << 16) | (byte(i + 3) << 24))
    state =
      at(7, low) ^
      at(6, low >>> 8) ^
      at(5, low >>> 16) ^
      at(4, low >>> 24) ^
      at(3, byte(i + 4)) ^
      at(2, byte(i + 5)) ^
      at(1, byte(i + 6)) ^
      at(0, byte(i + 7))
  }
  for (; i < bytes.length; i++) state = (state >>> 8) ^ at(0, state ^ byte(i))
  return ~state >>> 0
}

/** The crc of each page of `bytes`, the last one perhaps short, into `out`. */
export function crc32cPages(bytes: Uint8Array, pageBytes: number, out: Uint32Array): void {
  for (let page = 0, at = 0; at < bytes.length; page++, at += pageBytes) {
    out[page] = crc32c(bytes.subarray(at, at + pageBytes))
  }
}

/** The crc of one string after another, from their crcs `a` and `b`. */
export function crc32cAppend(a: number, b: number, lengthOfB: number): number {
  // Each row is what a bit of the crc becomes when a zero bit follows; squaring doubles how many follow.
  let matrix = new Uint32Array(32)
  matrix[0] = POLYNOMIAL
  for (let bit = 1; bit < 32; bit++) matrix[bit] = 1 << (bit - 1)
  let crc = a
  for (let bits = lengthOfB * 8; bits > 0; bits = Math.floor(bits / 2)) {
    if (bits % 2 === 1) crc = times(matrix, crc)
    const squared: Uint32Array<ArrayBuffer> = matrix.map((row) => times(matrix, row))
    matrix = squared
  }
  return (crc ^ b) >>> 0
}

function times(matrix: Uint32Array, vector: number): number {
  let sum = 0
  for (let bit = 0, rest = vector; rest !== 0; bit++, rest >>>= 1) if ((rest & 1) === 1) sum ^= matrix[bit] ?? 0
  return sum >>> 0
}
