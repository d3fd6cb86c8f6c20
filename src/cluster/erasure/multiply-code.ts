/**
 * Products of a matrix over GF(2^8) with blocks in a WebAssembly memory, as code: up to four rows of the result in one pass over the
 * blocks. A byte times a constant is looked up by its two nibbles, 16 bytes with one instruction; 32 bytes of each block
 * are taken at a time, so that the sums of four rows stay in registers while one block after the other is added.
 *
 * There are two kinds: for any matrix, and for one whose first row and first column are all ones, as those that encode are: there
 * the first row is nothing but XOR, and the first block needs no look-up.
 */
import { type Code, get, i32, type Local, loopWhile, seq, set, v128, type WasmFunction } from './wasm-assembler.ts'

/** Rows of one pass: their sums and what is looked up fill the 16 registers. */
export const ROWS_MAX = 4
/** What a pass takes of each block at a time. */
export const COLUMN_BYTES = 32
/** Two tables of 16 products, of a coefficient with each low and each high nibble. */
export const COEFFICIENT_BYTES = 32

const [SOURCES, SOURCES_END, TARGETS, TABLES, LENGTH] = [0, 1, 2, 3, 4] as const
const [COLUMN, SOURCE, TABLE, ADDRESS, FIRST_LOCAL] = [5, 6, 7, 8, 9] as const
const HALVES = [0, 16] as const

/** As which the kernel of so many rows is exported. */
export function kernelName(rows: number, ones: boolean): `encode${number}` | `multiply${number}` {
  return `${ones ? 'encode' : 'multiply'}${rows}`
}

/**
 * Each is `(sources, sourcesEnd, targets, tables, length)`: where the addresses of the blocks begin and end, where those of the rows
 * of the result begin, where the coefficients begin (of the first block for each row, of the second, …), and how many bytes, a multiple of 32.
 */
export function multiplyFunctions(relaxed: boolean): WasmFunction[] {
  const rows = Array.from({ length: ROWS_MAX }, (_, index) => index + 1)
  return [false, true].flatMap((ones) => rows.map((count) => kernel(count, ones, relaxed)))
}

function kernel(rows: number, ones: boolean, relaxed: boolean): WasmFunction {
  let locals: number = FIRST_LOCAL
  const vector = (): Local => locals++
  const [mask, table] = [vector(), vector()]
  const halves = HALVES.map((offset) => ({
    offset,
    ...{ low: vector(), high: vector() },
    sums: Array.from({ length: rows }, vector),
  }))
  const address = set(ADDRESS, i32.add(i32.load(get(SOURCE)), get(COLUMN)))
  const nextSource = seq(moved(SOURCE, 4), moved(TABLE, rows * COEFFICIENT_BYTES))

  const first = ones
    ? seq(
        address,
        ...halves.flatMap(({ offset, sums, low }) => [
          set(low, v128.load(get(ADDRESS), offset)),
          ...sums.map((sum) => set(sum, get(low))),
        ]),
        nextSource,
      )
    : halves.flatMap(({ sums }) => sums.flatMap((sum) => set(sum, v128.splat(0))))

  const lookedUp = (row: number, nibble: 'low' | 'high'): Code =>
    seq(
      set(table, v128.load(get(TABLE), row * COEFFICIENT_BYTES + (nibble === 'low' ? 0 : 16))),
      ...halves.map((half) => added(half.sums[row] ?? 0, v128.swizzle(get(table), get(half[nibble]), relaxed))),
    )
  const tabled = Array.from({ length: rows }, (_, row) => row).slice(ones ? 1 : 0)
  const other = seq(
    address,
    ...halves.flatMap(({ offset, low, high, sums }) => [
      set(low, v128.load(get(ADDRESS), offset)),
      ...(ones ? [added(sums[0] ?? 0, get(low))] : []),
      ...(tabled.length === 0
        ? []
        : [set(high, v128.and(v128.shr16(get(low), 4), get(mask))), set(low, v128.and(get(low), get(mask)))]),
    ]),
    ...tabled.flatMap((row) => [lookedUp(row, 'low'), lookedUp(row, 'high')]),
    nextSource,
  )

  const stored = Array.from({ length: rows }, (_, row) =>
    seq(
      set(ADDRESS, i32.add(i32.load(get(TARGETS), 4 * row), get(COLUMN))),
      ...halves.map(({ offset, sums }) => v128.store(get(ADDRESS), get(sums[row] ?? 0), offset)),
    ),
  )
  return {
    ...{ name: kernelName(rows, ones), result: undefined, parameterCount: 5 },
    types: [...Array<'i32'>(FIRST_LOCAL).fill('i32'), ...Array<'v128'>(locals - FIRST_LOCAL).fill('v128')],
    body: seq(
      set(mask, v128.splat(0x0f)),
      loopWhile(
        i32.lessThan(get(COLUMN), get(LENGTH)),
        seq(
          set(SOURCE, get(SOURCES)),
          set(TABLE, get(TABLES)),
          first,
          loopWhile(i32.lessThan(get(SOURCE), get(SOURCES_END)), other),
          ...stored,
          moved(COLUMN, COLUMN_BYTES),
        ),
      ),
    ),
  }
}

function added(sum: Local, value: Code): Code {
  return set(sum, v128.xor(get(sum), value))
}

function moved(local: Local, by: number): Code {
  return set(local, i32.add(get(local), i32.const(by)))
}
