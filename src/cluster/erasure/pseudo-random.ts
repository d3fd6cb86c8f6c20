/** Bytes for tests and benchmarks: the same for the same seed, and without any pattern that a code could fall for. */

/** That many bytes (SplitMix32). */
export function pseudoRandom(seed: number, length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length)
  let state = seed | 0
  for (let index = 0; index < length; index++) {
    state = (state + 0x9e3779b9) | 0
    let mixed = Math.imul(state ^ (state >>> 16), 0x21f0aaad)
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97)
    bytes[index] = mixed >>> 15
  }
  return bytes
}
