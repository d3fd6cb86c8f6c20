/**
 * Bytes to values and back: one codec for each form that a field can have, put together to those of messages and records. All numbers
 * are little-endian; no number is a BigInt. What comes from outside is checked here once: lengths, bounds, choices, UTF-8. Bytes that
 * were read are views of what they were read from.
 *
 * Each codec can say its form in words, from which the tables of docs/formats are made.
 */
import { isUtf8 } from 'node:buffer'

import { assert } from '#base/assert.ts'
import { OperationError } from '#base/errors.ts'
import { readSafeInteger, writeSafeInteger } from '#cluster/safe-integer.ts'

export interface Codec<T> {
  /** @throws OperationError `INPUT_INVALID` for a text, bytes or a list that is too long */
  write(to: ByteWriter, value: T): void
  /** @throws OperationError `WIRE_MALFORMED` */
  read(from: ByteReader): T
  /** For people: `u32`, `list of at most 16 (u8, text of at most 255 bytes)`. */
  readonly form: string
}

/** What a codec is one of. */
export type ValueOf<C> = C extends Codec<infer T> ? T : never

const SCRATCH_BYTES = 16_384
const SCRATCH_BYTES_MAX = 1 << 20

/** Bytes that grow as they are written. */
export class ByteWriter {
  #bytes: Buffer
  #length = 0

  constructor(capacity = 256) {
    this.#bytes = Buffer.allocUnsafe(capacity)
  }

  get length(): number {
    return this.#length
  }

  /** Room for so many bytes: where they begin. `bytes` is to be asked for after that. */
  reserve(count: number): number {
    const at = this.#length
    const end = at + count
    if (end > this.#bytes.length) {
      const larger = Buffer.allocUnsafe(Math.max(end, this.#bytes.length * 2))
      this.#bytes.copy(larger, 0, 0, at)
      this.#bytes = larger
    }
    this.#length = end
    return at
  }

  /** All that there is room for, of which `length` are written. */
  get bytes(): Buffer {
    return this.#bytes
  }

  /** What was written, which stays as it is; nothing more may be written. */
  finish(): Buffer {
    return this.#bytes.subarray(0, this.#length)
  }

  /** What was written, in memory of just that size; the writer can be used again. */
  take(): Buffer {
    const taken = Buffer.allocUnsafe(this.#length)
    this.#bytes.copy(taken, 0, 0, this.#length)
    this.#length = 0
    // One large value must not keep its memory for ever.
    if (this.#bytes.length > SCRATCH_BYTES_MAX) this.#bytes = Buffer.allocUnsafe(SCRATCH_BYTES)
    return taken
  }
}

/** Bytes that are read from their start to their end. */
export class ByteReader {
  readonly bytes: Buffer
  #at: number
  readonly #end: number

  constructor(bytes: Buffer, start = 0, end = bytes.length) {
    this.bytes = bytes
    this.#at = start
    this.#end = end
  }

  get remaining(): number {
    return this.#end - this.#at
  }

  /** Where the next so many bytes begin, which count as read. @throws OperationError `WIRE_MALFORMED` */
  take(count: number): number {
    const at = this.#at
    if (count > this.#end - at) throw malformed(`${count} bytes were expected where ${this.#end - at} are left`)
    this.#at = at + count
    return at
  }

  /** @throws OperationError `WIRE_MALFORMED` where something is left */
  expectEnd(): void {
    if (this.remaining > 0) throw malformed(`${this.remaining} bytes are left over`)
  }
}

/** Used again and again: most values are much smaller than what would have to be reserved for them. */
let scratch: ByteWriter | undefined

/** What `write` writes, in memory of just that size. */
export function written(write: (to: ByteWriter) => void): Buffer {
  const writer = scratch ?? new ByteWriter(SCRATCH_BYTES)
  // Where `write` fails, the half of it is left behind with the writer.
  scratch = undefined
  write(writer)
  const bytes = writer.take()
  scratch = writer
  return bytes
}

export function encode<T>(codec: Codec<T>, value: T): Buffer {
  return written((writer) => codec.write(writer, value))
}

/** @throws OperationError `WIRE_MALFORMED` where the bytes are not just such a value */
export function decode<T>(codec: Codec<T>, bytes: Buffer): T {
  const reader = new ByteReader(bytes)
  const value = codec.read(reader)
  reader.expectEnd()
  return value
}

/** What somebody wants to be sent may come from outside, too. */
function tooLarge(detail: string): OperationError {
  return new OperationError('INPUT_INVALID', `Cannot write a message: ${detail}`)
}

export function malformed(detail: string): OperationError {
  return new OperationError('WIRE_MALFORMED', `Cannot read a message: ${detail}`)
}

function isWhole(value: number, max: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= max
}

/** The same bytes, under another type that names what they mean. */
export function branded<B extends T, T>(codec: Codec<T>, form = codec.form): Codec<B> {
  return { write: (to, value) => codec.write(to, value), read: (from) => codec.read(from) as B, form }
}

/** A value that must hold more than its form says. @param isValid of what was read */
export function checked<T>(codec: Codec<T>, form: string, isValid: (value: T) => boolean): Codec<T> {
  return {
    write: (to, value) => {
      assert(isValid(value), `a field is ${form}`)
      codec.write(to, value)
    },
    read: (from) => {
      const value = codec.read(from)
      if (!isValid(value)) throw malformed(`${String(value)} is not ${form}`)
      return value
    },
    form,
  }
}

export const u8: Codec<number> = {
  write(to, value) {
    assert(isWhole(value, 0xff), 'an u8 has 8 bits')
    const at = to.reserve(1)
    to.bytes[at] = value
  },
  read: (from) => from.bytes[from.take(1)] ?? 0,
  form: 'u8',
}

export const u16: Codec<number> = {
  write(to, value) {
    const at = to.reserve(2)
    to.bytes.writeUInt16LE(value, at)
  },
  read: (from) => from.bytes.readUInt16LE(from.take(2)),
  form: 'u16',
}

export const u32: Codec<number> = {
  write(to, value) {
    const at = to.reserve(4)
    to.bytes.writeUInt32LE(value, at)
  },
  read: (from) => from.bytes.readUInt32LE(from.take(4)),
  form: 'u32',
}

/** A whole number from 0 to 2^53 - 1 in eight bytes: ids, sizes, times in microseconds. */
export const u53: Codec<number> = {
  write(to, value) {
    assert(isWhole(value, Number.MAX_SAFE_INTEGER), 'an u53 is a safe integer')
    const at = to.reserve(8)
    writeSafeInteger(to.bytes, value, at)
  },
  read(from) {
    const value = readSafeInteger(from.bytes, from.take(8))
    if (value === undefined) throw malformed('a number is larger than 2^53 - 1')
    return value
  },
  form: 'u53',
}

export const boolean: Codec<boolean> = {
  write: (to, value) => u8.write(to, value ? 1 : 0),
  read(from) {
    const value = u8.read(from)
    if (value > 1) throw malformed(`${value} is neither 0 nor 1`)
    return value === 1
  },
  form: 'boolean (u8, 0 or 1)',
}

/** One of few words, as its index. */
export function choice<const W extends string>(...words: readonly W[]): Codec<W> {
  const indexes = new Map<string, number>(words.map((word, index) => [word, index]))
  return {
    write(to, value) {
      const index = indexes.get(value)
      assert(index !== undefined, 'a word is one of the choice')
      u8.write(to, index)
    },
    read(from) {
      const index = u8.read(from)
      const word = words[index]
      if (word === undefined) throw malformed(`${index} is none of ${words.join(', ')}`)
      return word
    },
    form: `u8: ${words.map((word, index) => `${index} ${word}`).join(', ')}`,
  }
}

/** UTF-8, its length in bytes before it (u8 up to 255 bytes, u32 beyond). */
export function text(bytesMax: number): Codec<string> {
  const length = bytesMax <= 0xff ? u8 : u32
  return {
    write(to, value) {
      const count = Buffer.byteLength(value)
      if (count > bytesMax) throw tooLarge(`a text has at most ${bytesMax} bytes, and this one has ${count}`)
      length.write(to, count)
      const at = to.reserve(count)
      to.bytes.write(value, at, count, 'utf8')
    },
    read(from) {
      const count = length.read(from)
      if (count > bytesMax) throw malformed(`a text has ${count} bytes, and may have ${bytesMax}`)
      const at = from.take(count)
      const value = from.bytes.toString('utf8', at, at + count)
      // What is not UTF-8 is decoded to this, which a text may have in it, too.
      if (value.includes('\uFFFD') && !isUtf8(from.bytes.subarray(at, at + count)))
        throw malformed('a text is no UTF-8')
      return value
    },
    form: `text of at most ${bytesMax} bytes (${length.form} length, UTF-8)`,
  }
}

/** Bytes, their count (u32) before them. */
export function blob(bytesMax: number): Codec<Buffer> {
  return {
    write(to, value) {
      if (value.length > bytesMax) throw tooLarge(`there are ${value.length} bytes, and may be ${bytesMax}`)
      u32.write(to, value.length)
      const at = to.reserve(value.length)
      value.copy(to.bytes, at)
    },
    read(from) {
      const count = u32.read(from)
      if (count > bytesMax) throw malformed(`there are ${count} bytes, and may be ${bytesMax}`)
      const at = from.take(count)
      return from.bytes.subarray(at, at + count)
    },
    form: `bytes, at most ${bytesMax} (u32 length)`,
  }
}

/** Just so many bytes. */
export function fixedBytes(count: number): Codec<Buffer> {
  return {
    write(to, value) {
      assert(value.length === count, `there are ${count} bytes`)
      const at = to.reserve(count)
      value.copy(to.bytes, at)
    },
    read(from) {
      const at = from.take(count)
      return from.bytes.subarray(at, at + count)
    },
    form: `${count} bytes`,
  }
}

/** Items, their count (u32) before them. */
export function list<T>(item: Codec<T>, countMax: number): Codec<readonly T[]> {
  return {
    write(to, values) {
      if (values.length > countMax) throw tooLarge(`a list has ${values.length} items, and may have ${countMax}`)
      u32.write(to, values.length)
      for (const value of values) item.write(to, value)
    },
    read(from) {
      const count = u32.read(from)
      // Each item has a byte at least: so nobody makes this reserve memory for what is not there.
      if (count > countMax || count > from.remaining) throw malformed(`a list of ${count} items is too long`)
      const values: T[] = []
      for (let index = 0; index < count; index++) values.push(item.read(from))
      return values
    },
    form: `list of at most ${countMax} (u32 count) of ${inWords(item)}`,
  }
}

/** A value that may be missing: 0, or 1 and the value. */
export function optional<T>(codec: Codec<T>): Codec<T | undefined> {
  return {
    write(to, value) {
      u8.write(to, value === undefined ? 0 : 1)
      if (value !== undefined) codec.write(to, value)
    },
    read: (from) => (boolean.read(from) ? codec.read(from) : undefined),
    form: `optional (u8, 0 or 1) ${inWords(codec)}`,
  }
}

/** Fields by name, one after the other. */
export type Fields = Readonly<Record<string, Codec<unknown>>>
export type StructOf<F extends Fields> = { readonly [K in keyof F]: ValueOf<F[K]> }
export interface StructCodec<T> extends Codec<T> {
  readonly fields: Fields
}

export function struct<F extends Fields>(fields: F): StructCodec<StructOf<F>> {
  const entries = Object.entries(fields)
  return {
    write(to, value) {
      for (const [name, codec] of entries) codec.write(to, value[name])
    },
    read(from) {
      const value: Record<string, unknown> = {}
      for (const [name, codec] of entries) value[name] = codec.read(from)
      return value as StructOf<F>
    },
    form: entries.map(([name, codec]) => `${name}: ${inWords(codec)}`).join('; '),
    fields,
  }
}

/** One of several structs, told apart by the word in their field `kind`, which goes first as its index. */
export function variants<V extends Readonly<Record<string, StructCodec<object>>>>(
  of: V,
): Codec<{ [K in keyof V & string]: { readonly kind: K } & ValueOf<V[K]> }[keyof V & string]> {
  type Value = { [K in keyof V & string]: { readonly kind: K } & ValueOf<V[K]> }[keyof V & string]
  const words = Object.keys(of)
  const kind = choice(...words)
  return {
    write(to, value: Value) {
      kind.write(to, value.kind)
      of[value.kind]?.write(to, value)
    },
    read(from) {
      const word = kind.read(from)
      return { kind: word, ...of[word]?.read(from) } as Value
    },
    form: words.map((word, index) => `${index} ${word} (${of[word]?.form})`).join(' or '),
  }
}

function inWords(codec: Codec<unknown>): string {
  return 'fields' in codec ? `(${codec.form})` : codec.form
}
