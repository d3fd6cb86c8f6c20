/**
 * A small assembler for WebAssembly: instructions are functions that return their bytes, operands first, so that a kernel
 * reads like the expression that it computes, and nothing but its source is kept. It knows the instructions that the kernels of
 * this folder use and no others, checks no types (the engine does, when it compiles the module), and imports one memory, `m.m`.
 * Encodings: WebAssembly Core Specification 3.0, sections 5.4 (instructions) and 5.5 (modules).
 */

/** Instructions, encoded: bytes and parts, which are joined once, when the module is assembled. */
export type Code = readonly (number | Code)[]
/** The number of a parameter or local of the function around it. */
export type Local = number
export type ValueType = 'i32' | 'i64' | 'v128'

export interface WasmFunction {
  /** As which it is exported. */
  readonly name: string
  readonly result: 'i32' | undefined
  /** Of the parameters, then of the locals. */
  readonly types: readonly ValueType[]
  readonly parameterCount: number
  readonly body: Code
}

const VALUE_TYPES = { i32: 0x7f, i64: 0x7e, v128: 0x7b } as const
const NO_RESULT = 0x40
const SIMD = 0xfd

export function seq(...parts: readonly Code[]): Code {
  return parts
}

export function get(local: Local): Code {
  return [0x20, unsigned(local)]
}

export function set(local: Local, value: Code): Code {
  return [value, 0x21, unsigned(local)]
}

/** Runs the body, and again while the condition then holds. */
export function doWhile(body: Code, condition: Code): Code {
  return [0x03, NO_RESULT, body, condition, 0x0d, 0, 0x0b]
}

export function when(condition: Code, then: Code): Code {
  return [condition, 0x04, NO_RESULT, then, 0x0b]
}

/** Runs the body while the condition holds. */
export function loopWhile(condition: Code, body: Code): Code {
  return when(condition, doWhile(body, condition))
}

/** Calls the function of that number in its module. */
export function call(index: number, ...args: readonly Code[]): Code {
  return [args, 0x10, unsigned(index)]
}

export function copy(to: Code, from: Code, length: Code): Code {
  return [to, from, length, 0xfc, 10, 0, 0]
}

export function fill(at: Code, byte: Code, length: Code): Code {
  return [at, byte, length, 0xfc, 11, 0]
}

export const i32 = {
  const: (value: number): Code => [0x41, signed(value | 0)],
  load: (address: Code, offset = 0): Code => [address, 0x28, 0, unsigned(offset)],
  load8: (address: Code, offset = 0): Code => [address, 0x2d, 0, unsigned(offset)],
  store: (address: Code, value: Code, offset = 0): Code => [address, value, 0x36, 0, unsigned(offset)],
  /** Unsigned. */
  lessThan: (a: Code, b: Code): Code => [a, b, 0x49],
  /** Unsigned. */
  atLeast: (a: Code, b: Code): Code => [a, b, 0x4f],
  add: (a: Code, b: Code): Code => [a, b, 0x6a],
  sub: (a: Code, b: Code): Code => [a, b, 0x6b],
  and: (a: Code, b: Code): Code => [a, b, 0x71],
  xor: (a: Code, b: Code): Code => [a, b, 0x73],
  shl: (a: Code, b: Code): Code => [a, b, 0x74],
  shr: (a: Code, b: Code): Code => [a, b, 0x76],
}

export const i64 = {
  load: (address: Code, offset = 0): Code => [address, 0x29, 0, unsigned(offset)],
  store: (address: Code, value: Code, offset = 0): Code => [address, value, 0x37, 0, unsigned(offset)],
  xor: (a: Code, b: Code): Code => [a, b, 0x85],
}

export const v128 = {
  load: (address: Code, offset = 0): Code => [address, SIMD, 0x00, 0, unsigned(offset)],
  store: (address: Code, value: Code, offset = 0): Code => [address, value, SIMD, 0x0b, 0, unsigned(offset)],
  /** The byte in each of the 16 lanes. */
  splat: (byte: number): Code => [i32.const(byte), SIMD, 0x0f],
  /** The value in lane 0 of four, zeros in the others. */
  ofI32: (value: Code): Code => [SIMD, 0x0c, Array<number>(16).fill(0), value, SIMD, 0x1c, 0],
  and: (a: Code, b: Code): Code => [a, b, SIMD, unsigned(0x4e)],
  xor: (a: Code, b: Code): Code => [a, b, SIMD, unsigned(0x51)],
  /** Each of eight 16-bit lanes shifted right. */
  shr16: (a: Code, count: number): Code => [a, i32.const(count), SIMD, unsigned(0x8d)],
  /** For each byte of the indexes, all below 16, that byte of the table. */
  swizzle: (table: Code, indexes: Code, relaxed: boolean): Code => [
    table,
    indexes,
    SIMD,
    unsigned(relaxed ? 0x100 : 0x0e),
  ],
}

/** A module that imports a memory as `m.m` and exports the functions. */
export function assemble(functions: readonly WasmFunction[]): Uint8Array {
  const types = functions.map(({ types: all, parameterCount, result }) =>
    bytesOf([
      0x60,
      [parameterCount, all.slice(0, parameterCount).map((type) => VALUE_TYPES[type])],
      result === undefined ? [0] : [1, VALUE_TYPES[result]],
    ]),
  )
  const bodies = functions.map(({ types: all, parameterCount, body }) => {
    const locals = all.slice(parameterCount).map((type) => [1, VALUE_TYPES[type]])
    return sized(bytesOf([unsigned(locals.length), locals, body, 0x0b]))
  })
  const memory = bytesOf([text('m'), text('m'), 0x02, 0x00, 0])
  const exported = functions.map(({ name }, index) => bytesOf([text(name), 0x00, unsigned(index)]))
  return Buffer.concat([
    bytesOf([0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0]),
    section(1, types),
    section(2, [memory]),
    section(
      3,
      [...functions.keys()].map((index) => bytesOf(unsigned(index))),
    ),
    section(7, exported),
    section(10, bodies),
  ])
}

function section(id: number, items: readonly Uint8Array[]): Uint8Array {
  return Buffer.concat([Buffer.of(id), sized(Buffer.concat([bytesOf(unsigned(items.length)), ...items]))])
}

function sized(bytes: Uint8Array): Uint8Array {
  return Buffer.concat([bytesOf(unsigned(bytes.length)), bytes])
}

function text(value: string): Code {
  return [...sized(Buffer.from(value))]
}

function bytesOf(code: Code): Uint8Array {
  const bytes: number[] = []
  append(code, bytes)
  return Buffer.from(bytes)
}

function append(code: Code, bytes: number[]): void {
  for (const part of code) {
    if (typeof part === 'number') bytes.push(part)
    else append(part, bytes)
  }
}

function unsigned(value: number): Code {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, unsigned(value >>> 7)]
}

function signed(value: number): Code {
  return value >= -64 && value < 64 ? [value & 0x7f] : [(value & 0x7f) | 0x80, signed(value >> 7)]
}
