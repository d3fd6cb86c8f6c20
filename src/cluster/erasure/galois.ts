/**
 * The field of 256 elements, GF(2^8) modulo x^8 + x^4 + x^3 + x^2 + 1, and square matrices over it. Elements are bytes, their sum is
 * XOR. Plain and slow enough to be read: whole blocks go through the kernel in `multiply-code.ts`.
 */
import { assert } from '#base/assert.ts'

/** Rows of elements. */
export type Matrix = readonly Uint8Array[]

/** The polynomial, as most Reed-Solomon codes have it; x generates all elements but 0. */
const POLYNOMIAL = 0x11d
const ORDER = 255

/** By exponent: that power of x, twice over, so that a sum of two logarithms needs no reduction. */
const POWERS = new Uint8Array(2 * ORDER)
/** By element, but 0: of which power it is. */
const LOGARITHMS = new Uint8Array(256)
for (let exponent = 0, element = 1; exponent < ORDER; exponent++) {
  POWERS[exponent] = element
  POWERS[exponent + ORDER] = element
  LOGARITHMS[element] = exponent
  element = (element << 1) ^ (element & 0x80 ? POLYNOMIAL : 0)
}

/** The product of two elements. */
export function multiply(a: number, b: number): number {
  if (a === 0 || b === 0) return 0
  return POWERS[logarithm(a) + logarithm(b)] ?? 0
}

/** The quotient of two elements, the second of which is not 0. */
export function divide(a: number, b: number): number {
  assert(b !== 0, 'an element of the field is divided by another than 0')
  if (a === 0) return 0
  return POWERS[logarithm(a) + ORDER - logarithm(b)] ?? 0
}

function logarithm(element: number): number {
  return LOGARITHMS[element] ?? 0
}

/** The product of two matrices; the first has as many columns as the second has rows. */
export function multiplyMatrices(a: Matrix, b: Matrix): Matrix {
  return a.map((row) => {
    assert(row.length === b.length, 'the matrices of a product fit each other')
    const product = new Uint8Array(b[0]?.length ?? 0)
    for (const [index, other] of b.entries()) addMultiple(product, other, row[index] ?? 0)
    return product
  })
}

/** The inverse of a square matrix, undefined where it has none. */
export function invert(matrix: Matrix): Matrix | undefined {
  const size = matrix.length
  // By Gauss and Jordan: beside each row, the row of the identity, which becomes that of the inverse.
  const rows = matrix.map((row, index) => {
    assert(row.length === size, 'an inverted matrix is square')
    const both = new Uint8Array(2 * size)
    both.set(row)
    both[size + index] = 1
    return both
  })
  for (let column = 0; column < size; column++) {
    const found = rows.findIndex((row, index) => index >= column && row[column] !== 0)
    const pivot = rows[found]
    const replaced = rows[column]
    if (pivot === undefined || replaced === undefined) return undefined
    rows[found] = replaced
    rows[column] = pivot
    scale(pivot, divide(1, pivot[column] ?? 0))
    for (const row of rows) if (row !== pivot) addMultiple(row, pivot, row[column] ?? 0)
  }
  return rows.map((row) => row.slice(size))
}

function scale(row: Uint8Array, factor: number): void {
  for (let index = 0; index < row.length; index++) row[index] = multiply(row[index] ?? 0, factor)
}

function addMultiple(target: Uint8Array, row: Uint8Array, factor: number): void {
  if (factor === 0) return
  for (let index = 0; index < row.length; index++) {
    target[index] = (target[index] ?? 0) ^ multiply(row[index] ?? 0, factor)
  }
}
