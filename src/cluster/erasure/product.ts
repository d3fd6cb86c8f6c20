/**
 * A matrix over GF(2^8) made ready to be multiplied with blocks again and again: rows that only repeat a block are told from those that
 * are computed, these are put into passes of as many rows as the kernel takes, and its tables of coefficients are filled in.
 */
import { assert } from '#base/assert.ts'
import { type Matrix, multiply } from './galois.ts'
import { COEFFICIENT_BYTES, ROWS_MAX } from './multiply-code.ts'

/** Rows that are computed together. */
export interface Pass {
  /** Which rows of the matrix. */
  readonly rows: readonly number[]
  /** Whether the first of them, and the first coefficient of each, are all ones. */
  readonly ones: boolean
  /** Where its tables begin in those of the product. */
  readonly coefficientsAt: number
}

/** What the kernel is given. */
export interface Product {
  /** As many as the matrix has rows. */
  readonly targetCount: number
  /** As many as it has columns. */
  readonly sourceCount: number
  readonly copies: readonly { readonly row: number; readonly source: number }[]
  readonly passes: readonly Pass[]
  /** By pass, then by block, then by row: the products of the coefficient with each low and each high nibble. */
  readonly coefficients: Uint8Array
}

/** Makes a matrix ready. */
export function prepareProduct(matrix: Matrix): Product {
  const sourceCount = matrix[0]?.length ?? 0
  const repeated = matrix.map(blockRepeatedBy)
  const computed = matrix.flatMap((_, row) => (repeated[row] === undefined ? [row] : []))
  const coefficients = new Uint8Array(computed.length * sourceCount * COEFFICIENT_BYTES)
  const passes: Pass[] = []
  let at = 0
  for (let done = 0; done < computed.length; done += ROWS_MAX) {
    const rows = computed.slice(done, done + ROWS_MAX)
    const factors = rows.map((row) => matrix[row] ?? new Uint8Array())
    const ones = factors[0]?.every(isOne) === true && factors.every(([first]) => first === 1)
    passes.push({ rows, ones, coefficientsAt: at })
    for (let source = 0; source < sourceCount; source++) {
      for (const row of factors) {
        const factor = row[source]
        assert(factor !== undefined, 'all rows of a matrix are equally long')
        for (let nibble = 0; nibble < 16; nibble++) {
          coefficients[at + nibble] = multiply(factor, nibble)
          coefficients[at + 16 + nibble] = multiply(factor, nibble << 4)
        }
        at += COEFFICIENT_BYTES
      }
    }
  }
  const copies = repeated.flatMap((source, row) => (source === undefined ? [] : [{ row, source }]))
  return { targetCount: matrix.length, sourceCount, copies, passes, coefficients }
}

/** The block that the row's result is equal to, undefined where it has to be computed. */
function blockRepeatedBy(row: Uint8Array): number | undefined {
  const first = row.findIndex((factor) => factor !== 0)
  return first !== -1 && row[first] === 1 && row.lastIndexOf(1) === first && row.every((factor) => factor <= 1)
    ? first
    : undefined
}

function isOne(factor: number): boolean {
  return factor === 1
}
