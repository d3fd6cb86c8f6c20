/**
 * Random numbers from a seed: the same ones in every run, on every machine (sfc32 by Chris Doty-Humphrey, seeded by splitmix32).
 *
 * A generator gives others by name. They depend on the names alone, not on what was drawn before, so that a part of
 * a world that draws once more changes nothing for the others.
 */
import { assert } from '#base/assert.ts'

const TWO_32 = 2 ** 32

/** FNV-1a over the characters of a text, from `basis` on. */
export function hashText(basis: number, text: string): number {
  let hash = basis | 0
  for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193)
  return hash
}

export class Random {
  readonly #key: number
  #a: number
  #b: number
  #c: number
  #count = 1

  /** @param seed a whole number; all of its 53 bits matter */
  constructor(seed: number) {
    assert(Number.isSafeInteger(seed) && seed >= 0, 'a seed is a whole number')
    let mixing = (seed ^ Math.imul(Math.floor(seed / TWO_32) + 1, 0x85ebca6b)) | 0
    const mixed = (): number => {
      mixing = (mixing + 0x9e3779b9) | 0
      let bits = Math.imul(mixing ^ (mixing >>> 16), 0x21f0aaad)
      bits = Math.imul(bits ^ (bits >>> 15), 0x735a2d97)
      return bits ^ (bits >>> 15)
    }
    this.#a = mixed()
    this.#b = mixed()
    this.#c = mixed()
    this.#key = mixed()
    for (let index = 0; index < 12; index++) this.bits()
  }

  /** 32 random bits, as a signed number. */
  bits(): number {
    const sum = (((this.#a + this.#b) | 0) + this.#count) | 0
    this.#count = (this.#count + 1) | 0
    this.#a = this.#b ^ (this.#b >>> 9)
    this.#b = (this.#c + (this.#c << 3)) | 0
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) | 0
    return sum
  }

  /** From 0 up to but not including 1. */
  fraction(): number {
    return (this.bits() >>> 0) / TWO_32
  }

  /** A whole number from 0 to `below` - 1. */
  below(below: number): number {
    assert(Number.isSafeInteger(below) && below > 0, 'a choice is among one or more')
    if (below <= TWO_32) return Math.floor(((this.bits() >>> 0) / TWO_32) * below)
    return Math.floor((((this.bits() >>> 11) * TWO_32 + (this.bits() >>> 0)) / 2 ** 53) * below)
  }

  /** A whole number from `least` to `most`. */
  between(least: number, most: number): number {
    return least + this.below(most - least + 1)
  }

  /** True so often. Draws nothing where it is never. */
  happens(probability: number): boolean {
    return probability > 0 && this.fraction() < probability
  }

  pick<T>(of: readonly T[]): T {
    const chosen = of[this.below(of.length)]
    assert(chosen !== undefined, 'a choice is among values')
    return chosen
  }

  /** How long until the next of things that happen once in `mean`, without memory; at most ten times that. */
  interval(mean: number): number {
    return Math.min(10, -Math.log(1 - this.fraction())) * mean
  }

  bytes(count: number): Buffer {
    const bytes = Buffer.allocUnsafe(count)
    for (let index = 0; index < count; index++) bytes[index] = this.bits()
    return bytes
  }

  /** A generator of its own, by its name. */
  named(name: string): Random {
    return new Random(hashText(this.#key, name) >>> 0)
  }
}
