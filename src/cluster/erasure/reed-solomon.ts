/**
 * Reed-Solomon codes over GF(2^8): D blocks of data and P of parity, any D of which give all the others. Systematic: the data
 * blocks are the data itself. With one data block every other is its copy, which is what mirroring is.
 *
 * The coefficient of parity block p and data block d is a Cauchy matrix's, 1 / ((D + p) xor d), with its columns scaled until its first
 * row is all ones, and its rows until its first column is: (D + p) (D xor d) / (D ((D + p) xor d)). Every square part of a
 * Cauchy matrix can be inverted, and scaling rows and columns by anything but 0 keeps it so; that, for the identity above such a
 * matrix, is the same as that any D rows can be inverted. So the first parity block is the XOR of the data, and the parity blocks of D + P
 * begin with those of D and less.
 */
import { assert } from '#base/assert.ts'
import { divide, invert, type Matrix, multiply, multiplyMatrices } from './galois.ts'
import { BLOCKS_MAX, kernelForBlocks } from './kernel.ts'
import { prepareProduct, type Product } from './product.ts'

/** Products kept per code, by which blocks are there and which are wanted: a missing disk or two make a handful. */
const PRODUCTS_MAX = 128

/** All rows of a code: the identity, then one for each parity block. */
export function generatorMatrix(data: number, parity: number): Matrix {
  const identity = Array.from({ length: data }, (_, row) =>
    Uint8Array.from({ length: data }, (_row, d) => (d === row ? 1 : 0)),
  )
  const rows = Array.from({ length: parity }, (_, p) =>
    Uint8Array.from({ length: data }, (_row, d) =>
      divide(multiply(data + p, data ^ d), multiply(data, (data + p) ^ d)),
    ),
  )
  return [...identity, ...rows]
}

/** One code: how many data blocks, how many parity blocks. Immutable but for what it remembers to be faster. */
export class ReedSolomon {
  readonly data: number
  readonly parity: number
  readonly #matrix: Matrix
  readonly #encoding: Product
  /** The least lately used first. */
  readonly #products = new Map<string, Product>()

  /** 1 to 15 data blocks, 1 to 15 parity blocks. */
  constructor(data: number, parity: number) {
    for (const count of [data, parity]) {
      assert(Number.isInteger(count) && count >= 1 && count <= BLOCKS_MAX, 'a code has 1 to 15 data and parity blocks')
    }
    this.data = data
    this.parity = parity
    this.#matrix = generatorMatrix(data, parity)
    this.#encoding = prepareProduct(this.#matrix.slice(data))
  }

  /** The parity blocks of data blocks of one length. */
  encode(blocks: readonly Uint8Array[]): Uint8Array[] {
    const parity = newBlocks(this.parity, blocks[0]?.length ?? 0)
    this.encodeInto(blocks, parity)
    return parity
  }

  /** Writes the parity blocks into those given: without a copy for blocks that lie in a `CodingMemory`, the same for all. */
  encodeInto(blocks: readonly Uint8Array[], parity: readonly Uint8Array[]): void {
    assert(blocks.length === this.data, 'all data blocks are given to be encoded')
    assert(parity.length === this.parity, 'there is a block for each parity')
    kernelForBlocks(blocks, parity).multiply(this.#encoding, blocks, parity)
  }

  /**
   * The wanted blocks, data or parity, from any D that are there; undefined stands for one that is missing.
   *
   * @throws AssertionError where fewer than D are there
   */
  reconstruct(blocks: readonly (Uint8Array | undefined)[], wanted: readonly number[]): Uint8Array[] {
    const length = blocks.find((block) => block !== undefined)?.length ?? 0
    const targets = newBlocks(wanted.length, length)
    this.reconstructInto(blocks, wanted, targets)
    return targets
  }

  /** Writes the wanted blocks into those given, as `encodeInto` does. @throws AssertionError where fewer than D blocks are there */
  reconstructInto(
    blocks: readonly (Uint8Array | undefined)[],
    wanted: readonly number[],
    targets: readonly Uint8Array[],
  ): void {
    assert(blocks.length === this.data + this.parity, 'there is a place for each block of the code')
    if (wanted.length === 0) return
    const chosen: number[] = []
    const sources: Uint8Array[] = []
    for (const [index, block] of blocks.entries()) {
      if (block === undefined || chosen.length === this.data) continue
      chosen.push(index)
      sources.push(block)
    }
    assert(chosen.length === this.data, 'as many blocks are there as the code has data blocks')
    kernelForBlocks(sources, targets).multiply(this.#productOf(chosen, wanted), sources, targets)
  }

  #productOf(chosen: readonly number[], wanted: readonly number[]): Product {
    const key = `${chosen.join()} ${wanted.join()}`
    const known = this.#products.get(key)
    const product = known ?? prepareProduct(this.#rowsOf(chosen, wanted))
    if (known !== undefined) this.#products.delete(key)
    this.#products.set(key, product)
    for (const oldest of this.#products.keys()) {
      if (this.#products.size <= PRODUCTS_MAX) break
      this.#products.delete(oldest)
    }
    return product
  }

  #rowsOf(chosen: readonly number[], wanted: readonly number[]): Matrix {
    const inverse = invert(chosen.map((index) => this.#row(index)))
    assert(inverse !== undefined, 'any D rows of a code can be inverted')
    return multiplyMatrices(
      wanted.map((index) => this.#row(index)),
      inverse,
    )
  }

  #row(index: number): Uint8Array {
    const row = this.#matrix[index]
    assert(row !== undefined, 'a block of a code is one of its D + P')
    return row
  }
}

function newBlocks(count: number, length: number): Uint8Array[] {
  return Array.from({ length: count }, () => Buffer.allocUnsafeSlow(length))
}
