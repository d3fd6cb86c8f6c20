/** Each kernel against single products, with relaxed look-ups and with those that every engine has. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { multiply } from './galois.ts'
import { COEFFICIENT_BYTES, kernelName, multiplyFunctions, ROWS_MAX } from './multiply-code.ts'
import { prepareProduct } from './product.ts'
import { pseudoRandom } from './pseudo-random.ts'
import { assemble } from './wasm-assembler.ts'

declare const WebAssembly: {
  readonly Memory: new (pages: { initial: number }) => { readonly buffer: ArrayBuffer }
  readonly Module: new (bytes: Uint8Array) => object
  readonly Instance: new (module: object, imports: object) => { readonly exports: object }
}

const LENGTH = 96
const SOURCES = 5
const [POINTERS, TARGET_POINTERS, COEFFICIENTS, BLOCKS, TARGETS] = [0, 64, 128, 4096, 8192] as const

for (const relaxed of [true, false]) {
  describe(`the kernels with ${relaxed ? 'relaxed' : 'plain'} look-ups`, () => {
    const memory = new WebAssembly.Memory({ initial: 1 })
    const module = new WebAssembly.Module(assemble(multiplyFunctions(relaxed)))
    const kernels = new WebAssembly.Instance(module, { m: { m: memory } }).exports as Readonly<
      Record<string, (...args: number[]) => void>
    >
    const bytes = new Uint8Array(memory.buffer)
    for (const ones of [true, false]) {
      for (let rows = 1; rows <= ROWS_MAX; rows++) {
        it(`multiply ${rows} rows${ones ? ' that begin with ones' : ''}`, () => {
          const random = pseudoRandom(rows, ROWS_MAX * SOURCES)
          const matrix = Array.from({ length: rows }, (_, row) =>
            Uint8Array.from({ length: SOURCES }, (_row, source) =>
              ones && (row === 0 || source === 0) ? 1 : (random[row * SOURCES + source] ?? 0),
            ),
          )
          const { passes, coefficients } = prepareProduct(matrix)
          assert.deepEqual(passes, [{ rows: [...Array(rows).keys()], ones, coefficientsAt: 0 }])
          const blocks = Array.from({ length: SOURCES }, (_, index) => pseudoRandom(index, LENGTH))
          const pointers = new Uint32Array(memory.buffer)
          bytes.fill(0xee, TARGETS)
          bytes.set(coefficients, COEFFICIENTS)
          for (const [index, block] of blocks.entries()) {
            bytes.set(block, BLOCKS + 128 * index)
            pointers[POINTERS / 4 + index] = BLOCKS + 128 * index
          }
          for (let row = 0; row < rows; row++) pointers[TARGET_POINTERS / 4 + row] = TARGETS + 128 * row
          const kernel = kernels[kernelName(rows, ones)]
          kernel?.(POINTERS, POINTERS + 4 * SOURCES, TARGET_POINTERS, COEFFICIENTS, LENGTH)
          for (const [row, factors] of matrix.entries()) {
            const expected = Uint8Array.from({ length: 128 }, (_, at) =>
              at < LENGTH
                ? blocks.reduce((sum, block, source) => sum ^ multiply(factors[source] ?? 0, block[at] ?? 0), 0)
                : 0xee,
            )
            assert.deepEqual(bytes.slice(TARGETS + 128 * row, TARGETS + 128 * (row + 1)), expected)
          }
        })
      }
    }
  })
}

describe('a prepared product', () => {
  it('computes no row that only repeats a block, and the others four at a time', () => {
    const identity = Array.from({ length: 6 }, (_, row) =>
      Uint8Array.from({ length: 6 }, (_row, at) => Number(at === row)),
    )
    const others = Array.from({ length: 5 }, (_, row) => new Uint8Array(6).fill(row + 2))
    const { copies, passes, coefficients } = prepareProduct([...others.slice(0, 2), ...identity, ...others.slice(2)])
    assert.deepEqual(
      copies,
      identity.map((_, source) => ({ row: source + 2, source })),
    )
    assert.deepEqual(
      passes.map(({ rows }) => rows),
      [[0, 1, 8, 9], [10]],
    )
    assert.equal(coefficients.length, 5 * 6 * COEFFICIENT_BYTES)
  })
})
