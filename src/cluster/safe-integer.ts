/** Safe integers as unsigned 64-bit ones, little-endian, without a BigInt. */

export function writeSafeInteger(into: Buffer, value: number, offset: number): void {
  into.writeUInt32LE(value >>> 0, offset)
  into.writeUInt32LE(Math.floor(value / 2 ** 32), offset + 4)
}

/** Undefined where what is there is larger. */
export function readSafeInteger(from: Buffer, offset: number): number | undefined {
  const value = from.readUInt32LE(offset + 4) * 2 ** 32 + from.readUInt32LE(offset)
  return Number.isSafeInteger(value) ? value : undefined
}
