import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import fc from 'fast-check'

import { isOperationError } from '#base/errors.ts'
import { BLOCK_MESSAGES } from '#cluster/block/block-messages.ts'
import { COORDINATOR_MESSAGES } from '#cluster/coordinator/coordinator-messages.ts'
import { REGISTRY_MESSAGES } from '#cluster/registry/registry-messages.ts'
import { decodeEntry } from '#cluster/shard/shard-entry.ts'
import { SHARD_MESSAGES } from '#cluster/shard/shard-messages.ts'

import {
  blob,
  boolean,
  ByteWriter,
  checked,
  choice,
  decode,
  encode,
  fixedBytes,
  list,
  optional,
  struct,
  text,
  u16,
  u32,
  u53,
  u8,
  variants,
  type Codec,
} from './codec.ts'
import { timeUs } from './forms.ts'

const TABLES = [SHARD_MESSAGES, COORDINATOR_MESSAGES, BLOCK_MESSAGES, REGISTRY_MESSAGES]

/** Values as the words for a form describe them: so those words are all that a reader has to know. */
class Forms {
  readonly #words: string
  #at = 0

  constructor(words: string) {
    this.#words = words
  }

  static valuesOf(words: string): fc.Arbitrary<unknown> {
    const forms = new Forms(words)
    const values = forms.#fields()
    assert.equal(forms.#at, words.length, `all of the form is read: ${words.slice(forms.#at)}`)
    return values
  }

  /** `name: form; name: form` */
  #fields(): fc.Arbitrary<unknown> {
    const fields: Record<string, fc.Arbitrary<unknown>> = {}
    for (let name = this.#match(/(\w+): /y); name !== undefined; name = this.#match(/; (\w+): /y)) {
      fields[name[1] ?? ''] = this.#form()
    }
    return fc.record(fields, { noNullPrototype: true })
  }

  #form(): fc.Arbitrary<unknown> {
    if (this.#match(/\(/y)) {
      const fields = this.#fields()
      assert.ok(this.#match(/\)/y))
      return fields
    }
    if (this.#match(/optional \(u8, 0 or 1\) /y)) return fc.option(this.#form(), { nil: undefined })
    const items = this.#match(/list of at most (\d+) \(u32 count\) of /y)
    if (items !== undefined) return fc.array(this.#form(), { maxLength: Math.min(Number(items[1]), 4) })
    const words = this.#match(/u8: ((?:\d+ [\w-]+(?:, )?)+)/y)
    if (words !== undefined) return fc.constantFrom(...(words[1] ?? '').split(', ').map((each) => each.split(' ')[1]))
    const letters = this.#match(/text of at most (\d+) bytes \(u(?:8|32) length, UTF-8\)/y)
    if (letters !== undefined) return textOf(Number(letters[1]))
    const bytes = this.#match(/bytes, at most (\d+) \(u32 length\)/y)
    if (bytes !== undefined) return bytesOf(0, Math.min(Number(bytes[1]), 40))
    if (this.#match(/cluster id \(16 bytes\)/y)) return bytesOf(16, 16).map((each) => each.toString('hex'))
    const fixed = this.#match(/(\d+) bytes/y)
    if (fixed !== undefined) return bytesOf(Number(fixed[1]), Number(fixed[1]))
    return this.#scalar()
  }

  #scalar(): fc.Arbitrary<unknown> {
    if (this.#match(/boolean \(u8, 0 or 1\)/y)) return fc.boolean()
    const inode = fc.integer({ min: 2 ** 51, max: Number.MAX_SAFE_INTEGER })
    if (this.#match(/inode or 0 \(u53\)/y)) return fc.oneof(fc.constant(0), inode)
    if (this.#match(/inode \(u53\)/y)) return inode
    if (this.#match(/block id \(u53\)/y)) return fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER })
    if (this.#match(/disk id \(u53\)/y) || this.#match(/u53/y)) return fc.maxSafeNat()
    if (this.#match(/(?:time|difference) \(f64, whole (?:microseconds since 1970|milliseconds)\)/y)) {
      return fc.maxSafeInteger().map((each) => each + 0)
    }
    const bits = this.#match(/u(8|16|32)/y)
    assert.ok(bits !== undefined, `a form is known: ${this.#words.slice(this.#at)}`)
    return fc.integer({ min: 0, max: 2 ** Number(bits[1]) - 1 })
  }

  #match(pattern: RegExp): RegExpExecArray | undefined {
    pattern.lastIndex = this.#at
    const found = pattern.exec(this.#words) ?? undefined
    if (found !== undefined) this.#at = pattern.lastIndex
    return found
  }
}

function textOf(bytesMax: number): fc.Arbitrary<string> {
  const any = fc.string({ unit: 'binary', maxLength: 12 }).filter((each) => Buffer.byteLength(each) <= bytesMax)
  return fc.oneof(any, fc.constantFrom('', '\ufeff', '\ufffd', 'x'.repeat(bytesMax)))
}

function bytesOf(minLength: number, maxLength: number): fc.Arbitrary<Buffer> {
  return fc.uint8Array({ minLength, maxLength }).map((bytes) => Buffer.from(bytes))
}

/** What of it reads is written as it was; what does not is WIRE_MALFORMED, and nothing else. */
function readAndWriteAgain(codec: Codec<unknown>, bytes: Buffer): 'read' | 'refused' {
  let value: unknown
  try {
    value = decode(codec, bytes)
  } catch (error) {
    assert.ok(isOperationError(error, 'WIRE_MALFORMED'), String(error))
    return 'refused'
  }
  assert.deepEqual(encode(codec, value), bytes)
  return 'read'
}

interface Change {
  readonly how: 'flip' | 'set' | 'cut' | 'add' | 'large'
  readonly at: number
  readonly to: number
}
const CHANGES: fc.Arbitrary<readonly Change[]> = fc.array(
  fc.record({
    how: fc.constantFrom('flip' as const, 'set' as const, 'cut' as const, 'add' as const, 'large' as const),
    at: fc.nat({ max: 10_000 }),
    to: fc.nat({ max: 255 }),
  }),
  { minLength: 1, maxLength: 3 },
)

function changed(bytes: Buffer, changes: readonly Change[]): Buffer {
  let all = Buffer.from(bytes)
  for (const { how, at: anywhere, to } of changes) {
    const at = all.length === 0 ? 0 : anywhere % all.length
    if (how === 'cut') all = all.subarray(0, at)
    else if (how === 'add') all = Buffer.concat([all.subarray(0, at), Buffer.of(to), all.subarray(at)])
    else if (how === 'large' && all.length >= 4) all.writeUInt32LE(0xffff_ffff, Math.min(at, all.length - 4))
    else if (all.length > 0) all[at] = how === 'set' ? to : (all[at] ?? 0) ^ (1 << (to % 8))
  }
  return all
}

describe('every message', () => {
  for (const table of TABLES) {
    for (const { name, request, reply } of table.messages) {
      test(`[S162] ${table.title}, ${name}: has one form in bytes, and bytes that are none are refused`, () => {
        for (const codec of [request, reply]) {
          const values = Forms.valuesOf(codec.form)
          let refused = 0
          fc.assert(
            fc.property(values, CHANGES, (value, changes) => {
              const bytes = encode(codec, value)
              assert.deepEqual(decode(codec, bytes), value)
              if (readAndWriteAgain(codec, changed(bytes, changes)) === 'refused') refused++
            }),
            { seed: 162, numRuns: 100 },
          )
          assert.ok(refused > 0)
          fc.assert(
            fc.property(bytesOf(0, 200), (bytes) => void readAndWriteAgain(codec, bytes)),
            { seed: 163, numRuns: 100 },
          )
        }
      })
    }
  }

  test('[S162] makes nobody reserve memory for what is not there', () => {
    for (const { messages } of TABLES) {
      for (const { request, reply } of messages) {
        for (const codec of [request, reply]) {
          // A frame of 2 MiB whose counts are all as high as can be.
          const bytes = Buffer.alloc(2 * 1024 ** 2)
          for (const fill of [0x00, 0x01, 0x7f, 0xff]) {
            bytes.fill(fill)
            assert.equal(readAndWriteAgain(codec, bytes), 'refused')
          }
        }
      }
    }
  })
})

test('[S162] an entry of a journal that is damaged is refused', () => {
  fc.assert(
    fc.property(bytesOf(0, 60), (bytes) => {
      try {
        decodeEntry(bytes)
      } catch (error) {
        assert.ok(isOperationError(error, 'WIRE_MALFORMED'), String(error))
      }
    }),
    { seed: 164, numRuns: 2000 },
  )
})

describe('codecs', () => {
  const refused: readonly (readonly [string, Codec<unknown>, readonly number[]])[] = [
    ['a number beyond 2^53 - 1', u53, [0, 0, 0, 0, 0, 0, 0x20, 0]],
    ['a number far beyond', u53, [255, 255, 255, 255, 255, 255, 255, 255]],
    ['a boolean of 2', boolean, [2]],
    ['a word that is none', choice('a', 'b'), [2]],
    ['a text that is longer than it may be', text(3), [4, 97, 97, 97, 97]],
    ['a text that ends before its length', text(3), [3, 97, 97]],
    ['a text that is no UTF-8', text(9), [1, 0xff]],
    ['a text with half a surrogate', text(9), [3, 0xed, 0xa0, 0x80]],
    ['a text with an overlong NUL', text(9), [2, 0xc0, 0x80]],
    ['bytes that are more than there may be', blob(1), [2, 0, 0, 0, 1, 2]],
    ['bytes that are not there', blob(9), [9, 0, 0, 0, 1]],
    ['fixed bytes that are too few', fixedBytes(2), [1]],
    ['a list that is too long', list(u8, 1), [2, 0, 0, 0, 1, 2]],
    ['a list of more than is there', list(u8, 9), [5, 0, 0, 0, 1, 2]],
    ['an optional value of 2', optional(u8), [2, 1]],
    ['a struct that goes on', struct({ a: u8 }), [1, 2]],
    ['a time with a fraction', timeUs, [...doubleOf(0.5)]],
    ['a time that is no number', timeUs, [...doubleOf(Number.NaN)]],
    ['an endless time', timeUs, [...doubleOf(Infinity)]],
    ['a time beyond what is exact', timeUs, [...doubleOf(2 ** 53)]],
    ['a value that does not hold what it should', checked(u8, 'even', (value) => value % 2 === 0), [3]],
    ['nothing', u16, []],
    ['too little', u32, [1, 2, 3]],
  ]
  for (const [what, codec, bytes] of refused) {
    test(`[S162] refuse ${what}`, () => {
      assert.throws(() => decode(codec, Buffer.from(bytes)), { code: 'WIRE_MALFORMED' })
    })
  }

  test('do not write what they would not read', () => {
    const bad: readonly (readonly [Codec<never>, unknown])[] = [
      [u8, 256],
      [u8, -1],
      [u16, 65_536],
      [u32, 2 ** 32],
      [u53, 2 ** 53],
      [u53, 0.5],
      [text(3), 'ää'],
      [blob(1), Buffer.alloc(2)],
      [fixedBytes(2), Buffer.alloc(3)],
      [list(u8, 1), [1, 2]],
      [choice('a'), 'b'],
    ].map(([codec, value]) => [codec as Codec<never>, value] as const)
    for (const [codec, value] of bad) assert.throws(() => encode(codec, value as never))
  })

  test('of several structs are told apart by their kind', () => {
    const either = variants({ number: struct({ value: u8 }), none: struct({}) })
    for (const value of [{ kind: 'number', value: 7 } as const, { kind: 'none' } as const]) {
      assert.deepEqual(decode(either, encode(either, value)), value)
    }
    assert.throws(() => decode(either, Buffer.of(2)), { code: 'WIRE_MALFORMED' })
  })

  test('bytes that were read are those that came in, without a copy', () => {
    const bytes = encode(blob(100), Buffer.from('abc'))
    const value = decode(blob(100), bytes)
    bytes.fill(0x7a)
    assert.equal(value.toString(), 'zzz')
  })

  test('a writer grows, and keeps what was written', () => {
    const writer = new ByteWriter(1)
    for (let count = 0; count < 1000; count++) u32.write(writer, count)
    const bytes = writer.finish()
    assert.equal(bytes.length, 4000)
    for (let count = 0; count < 1000; count++) assert.equal(bytes.readUInt32LE(4 * count), count)
  })
})

function doubleOf(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeDoubleLE(value)
  return bytes
}
