/** The field's laws over all its elements, and inverses of matrices. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { divide, invert, type Matrix, multiply, multiplyMatrices } from './galois.ts'

const ELEMENTS = Array.from({ length: 256 }, (_, element) => element)
const identity = (size: number): Matrix =>
  Array.from({ length: size }, (_, row) => Uint8Array.from({ length: size }, (_row, column) => Number(row === column)))

/** By hand: the product of polynomials over GF(2), reduced. */
function product(a: number, b: number): number {
  let sum = 0
  for (let bit = 0; bit < 8; bit++) if (b & (1 << bit)) sum ^= a << bit
  for (let bit = 14; bit >= 8; bit--) if (sum & (1 << bit)) sum ^= 0x11d << (bit - 8)
  return sum
}

describe('the field of 256 elements', () => {
  it('multiplies as polynomials modulo 0x11d do, and division undoes it', () => {
    for (const a of ELEMENTS) {
      for (const b of ELEMENTS) {
        const both = product(a, b)
        assert.equal(multiply(a, b), both)
        if (b !== 0) assert.equal(divide(both, b), a)
      }
    }
  })

  it('refuses to divide by 0', () => {
    assert.throws(() => divide(1, 0), /another than 0/)
  })
})

describe('invert', () => {
  it('finds what gives the identity, or that there is none', () => {
    const matrices = fc
      .integer({ min: 1, max: 8 })
      .chain((size) =>
        fc.array(fc.uint8Array({ minLength: size, maxLength: size }), { minLength: size, maxLength: size }),
      )
    fc.assert(
      fc.property(matrices, (matrix) => {
        const inverse = invert(matrix)
        // Hardly any random matrix has none: one is made of it.
        const [first = new Uint8Array(), ...others] = matrix
        assert.equal(invert([...others, others[0] ?? new Uint8Array(first.length)]), undefined)
        fc.pre(inverse !== undefined)
        assert.deepEqual(multiplyMatrices(matrix, inverse), identity(matrix.length))
        assert.deepEqual(multiplyMatrices(inverse, matrix), identity(matrix.length))
      }),
      { seed: 11, numRuns: 300 },
    )
  })

  it('exchanges rows where an element on the diagonal is 0', () => {
    const matrix = [Uint8Array.of(0, 1), Uint8Array.of(1, 0)]
    assert.deepEqual(invert(matrix), matrix)
  })
})
