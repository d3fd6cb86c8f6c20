/** That any D of the D + P blocks give back all the others: of the matrix for all codes, of the blocks for codes, losses, lengths and places. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { AssertionError } from '#base/assert.ts'
import { CodingMemory } from './coding-memory.ts'
import { crc32c } from './crc32c.ts'
import { invert, type Matrix, multiply } from './galois.ts'
import { pseudoRandom } from './pseudo-random.ts'
import { generatorMatrix, ReedSolomon } from './reed-solomon.ts'

const SEED = 1960
const COUNTS = Array.from({ length: 15 }, (_, index) => index + 1)
const COUNT = fc.integer({ min: 1, max: 15 })
/** In bytes, of the pieces in which blocks are passed through. */
const PIECE = 16_384
const BYTES = pseudoRandom(SEED, 1 << 20)
/** By the code as it was first released: what is stored depends on them. */
const KNOWN_DATA = 4_264_870_407
const KNOWN_PARITY = [1_800_590_921, 2_762_108_352, 1_158_067_006, 4_016_071_856]

/** All ways to choose so many of the first numbers. */
function choices(count: number, of: number, from = 0): number[][] {
  if (count === 0) return [[]]
  return Array.from({ length: of - count - from + 1 }, (_, index) => from + index).flatMap((first) =>
    choices(count - 1, of, first + 1).map((others) => [first, ...others]),
  )
}

function dataBlocks(count: number, length: number, at = 1): Uint8Array[] {
  return Array.from({ length: count }, (_, index) => {
    const start = (at + index * (length + 7)) % (BYTES.length - length)
    return BYTES.subarray(start, start + length)
  })
}

/** By the matrix, byte for byte. */
function slowParity(data: readonly Uint8Array[], parity: number): Uint8Array[] {
  const rows = generatorMatrix(data.length, parity).slice(data.length)
  return rows.map((row) =>
    Uint8Array.from(data[0] ?? [], (_, at) =>
      data.reduce((sum, block, index) => sum ^ multiply(row[index] ?? 0, block[at] ?? 0), 0),
    ),
  )
}

/** Told by the first byte that differs: a report of all that do would take minutes to make. */
function assertSame(made: readonly Uint8Array[], expected: readonly (Uint8Array | undefined)[], what: string): void {
  assert.equal(made.length, expected.length, what)
  for (const [index, block] of made.entries()) {
    const other = expected[index] ?? new Uint8Array()
    assert.equal(block.length, other.length, `${what}: block ${index}`)
    const at = Buffer.compare(block, other) === 0 ? -1 : block.findIndex((byte, offset) => byte !== other[offset])
    assert.equal(at, -1, `${what}: block ${index} differs from byte ${at} on`)
  }
}

function isSingular(rows: Matrix): boolean {
  return invert(rows) === undefined
}

describe('the matrix of a code', () => {
  it('has parity whose first row, and whose first column, is all ones', () => {
    for (const data of COUNTS) {
      const [first, ...others] = generatorMatrix(data, 15).slice(data)
      assert.deepEqual(first, new Uint8Array(data).fill(1))
      for (const row of others) assert.equal(row[0], 1)
    }
  })

  it('begins with the parity of a code with less', () => {
    for (const data of COUNTS) {
      for (const parity of COUNTS) {
        assert.deepEqual(generatorMatrix(data, 15).slice(0, data + parity), generatorMatrix(data, parity))
      }
    }
  })

  it('has the rows that the description of the format shows', () => {
    const page = readFileSync('docs/formats/redundancy.md', 'utf8')
    for (const [data, parity] of [
      [4, 2],
      [10, 4],
    ] as const) {
      for (const row of generatorMatrix(data, parity).slice(data)) {
        const shown = Array.from(row, (element) => element.toString(16).padStart(2, '0')).join(' ')
        assert(page.includes(shown), `${data}+${parity}: ${shown}`)
      }
    }
  })

  it('is made of ones alone for mirrors', () => {
    assert.deepEqual(generatorMatrix(1, 15), Array<Uint8Array>(16).fill(Uint8Array.of(1)))
  })

  it('has no square part of parity, up to five by five, that cannot be inverted, whatever the code', () => {
    // That any D of the D + P rows can be inverted is the same as that any square part of the parity rows can be.
    for (const data of [2, 3, 4, 5, 6, 7]) {
      const rows = generatorMatrix(data, 5).slice(data)
      for (let size = 1; size <= Math.min(data, 5); size++) {
        for (const chosen of choices(size, 5)) {
          for (const columns of choices(size, data)) {
            const part = chosen.map((row) => Uint8Array.from(columns, (column) => rows[row]?.[column] ?? 0))
            assert(!isSingular(part), `${data} data blocks, rows ${chosen.join()}, columns ${columns.join()}`)
          }
        }
      }
    }
  })

  it('can be inverted for every choice of D rows, of every code of up to 14 blocks', () => {
    for (const data of COUNTS) {
      for (const parity of COUNTS.filter((count) => data + count <= 14)) {
        const rows = generatorMatrix(data, parity)
        for (const chosen of choices(data, data + parity)) {
          const part = chosen.map((row) => rows[row] ?? new Uint8Array())
          assert(!isSingular(part), `${data}+${parity}, rows ${chosen.join()}`)
        }
      }
    }
  })

  it('can be inverted for choices of D rows at random, of every code', () => {
    for (const data of COUNTS) {
      for (const parity of COUNTS) {
        const rows = generatorMatrix(data, parity)
        const subsets = fc.shuffledSubarray([...rows], { minLength: data, maxLength: data })
        fc.assert(
          fc.property(subsets, (part) => !isSingular(part)),
          { seed: SEED, numRuns: 20 },
        )
      }
    }
  })
})

describe('ReedSolomon', () => {
  it('makes the parity that its matrix says, and the XOR first, for every code', () => {
    for (const data of COUNTS) {
      for (const parity of COUNTS) {
        const blocks = dataBlocks(data, 77)
        const made = new ReedSolomon(data, parity).encode(blocks)
        assertSame(made, slowParity(blocks, parity), `${data}+${parity}`)
        const xor = blocks.reduce((a, b) => a.map((byte, at) => byte ^ (b[at] ?? 0)))
        assertSame(made.slice(0, 1), [xor], `the first of ${data}+${parity}`)
      }
    }
  })

  it('makes the parity of blocks of any length', () => {
    const lengths = [...Array(301).keys(), PIECE - 1, PIECE, PIECE + 1, PIECE + 33, 3 * PIECE + 95]
    for (const [data, parity] of [
      [10, 4],
      [3, 7],
    ] as const) {
      const code = new ReedSolomon(data, parity)
      for (const length of lengths) {
        const blocks = dataBlocks(data, length, length)
        assertSame(code.encode(blocks), slowParity(blocks, parity), `${length} bytes`)
      }
    }
  })

  it('gives the same parity for the same data as ever', () => {
    const data = dataBlocks(10, 4096, 0)
    const parity = new ReedSolomon(10, 4).encode(data)
    assert.equal(crc32c(Buffer.concat(data)), KNOWN_DATA)
    assert.deepEqual(
      parity.map((block) => crc32c(block)),
      KNOWN_PARITY,
    )
  })

  it('gives back all losses of every code of up to eight blocks', () => {
    for (const data of COUNTS) {
      for (const parity of COUNTS.filter((count) => data + count <= 8)) {
        const code = new ReedSolomon(data, parity)
        const blocks = dataBlocks(data, 45)
        const all = [...blocks, ...code.encode(blocks)]
        for (let lost = 0; lost <= parity; lost++) {
          for (const missing of choices(lost, all.length)) {
            const there = all.map((block, index) => (missing.includes(index) ? undefined : block))
            const expected = missing.map((index) => all[index])
            assertSame(code.reconstruct(there, missing), expected, `${data}+${parity} without ${missing.join()}`)
          }
        }
      }
    }
  })

  it('gives back losses of any code, wherever its blocks lie, of any length', () => {
    const memory = new CodingMemory(8 << 20)
    const cases = fc.record({
      data: COUNT,
      parity: COUNT,
      length: fc.oneof(fc.nat(300), fc.integer({ min: PIECE - 40, max: 2 * PIECE + 100 })),
      at: fc.nat(1000),
      random: fc.integer(),
    })
    fc.assert(
      fc.property(cases, ({ data, parity, length, at, random }) => {
        const chance = pseudoRandom(random, 100).values()
        const rooms: Uint8Array[] = []
        const lent: Uint8Array[] = []
        const placed = (block: Uint8Array | undefined): Uint8Array => {
          const size = block?.length ?? length
          // With a byte more at each end, which nobody may touch.
          const borrowed = (chance.next().value ?? 0) < 128 ? memory.allocate(size + 2) : undefined
          if (borrowed !== undefined) lent.push(borrowed)
          const room = borrowed ?? new Uint8Array(size + 2)
          rooms.push(room.fill(0x5a))
          const inner = room.subarray(1, size + 1)
          if (block !== undefined) inner.set(block)
          return inner
        }
        const code = new ReedSolomon(data, parity)
        const plainData = dataBlocks(data, length, at)
        const blocks = plainData.map((block) => placed(block))
        const made = Array.from({ length: parity }, () => placed(undefined))
        code.encodeInto(blocks, made)
        assertSame(made, code.encode(plainData), 'parity')
        const all = [...blocks, ...made]
        const lost = all
          .map((_, index) => ({ index, by: chance.next().value ?? 0 }))
          .toSorted((a, b) => a.by - b.by)
          .slice(0, parity)
          .map(({ index }) => index)
        const there = all.map((block, index) => (lost.includes(index) ? undefined : block))
        const found = lost.map(() => placed(undefined))
        code.reconstructInto(there, lost, found)
        assertSame(
          found,
          lost.map((index) => all[index]),
          `without ${lost.join()}`,
        )
        for (const room of rooms) assert.deepEqual([room[0], room.at(-1)], [0x5a, 0x5a])
        for (const room of lent) memory.release(room)
      }),
      { seed: SEED, numRuns: 200 },
    )
  })

  it('gives back what is there, too, when it is wanted', () => {
    const code = new ReedSolomon(4, 2)
    const blocks = dataBlocks(4, 100)
    const all = [...blocks, ...code.encode(blocks)]
    assertSame(code.reconstruct(all, [5, 0, 3, 4]), [all[5], all[0], all[3], all[4]], 'wanted')
    assert.deepEqual(code.reconstruct(all, []), [])
  })

  it('remembers ways of losing blocks without ever confusing them', () => {
    const code = new ReedSolomon(10, 4)
    const blocks = dataBlocks(10, 64)
    const all = [...blocks, ...code.encode(blocks)]
    // More ways than it remembers, each met twice; the same one block is wanted whichever other is missing.
    const ways = choices(2, 14).flatMap((missing) => [missing, missing.toReversed()])
    for (const missing of [...ways, ...ways]) {
      const there = all.map((block, index) => (missing.includes(index) ? undefined : block))
      for (const wanted of [missing, missing.slice(0, 1)]) {
        const expected = wanted.map((index) => all[index])
        assertSame(code.reconstruct(there, wanted), expected, `${wanted.join()} without ${missing.join()}`)
      }
    }
  })

  it('refuses to reconstruct from fewer than D blocks', () => {
    const code = new ReedSolomon(4, 2)
    const [a, b, c] = dataBlocks(3, 10)
    assert.throws(() => code.reconstruct([a, b, undefined, undefined, c, undefined], [2]), AssertionError)
    assert.throws(() => code.reconstruct([], [2]), AssertionError)
  })

  it('refuses blocks of different lengths, too many or too few of them, and codes that are none', () => {
    const code = new ReedSolomon(2, 1)
    const [a = new Uint8Array(), b = new Uint8Array()] = dataBlocks(2, 10)
    assert.throws(() => code.encode([a, b.subarray(1)]), AssertionError)
    assert.throws(() => code.encode([new Uint8Array(), b]), AssertionError)
    assert.throws(() => code.encode([a]), AssertionError)
    assert.throws(() => code.encodeInto([a, b], []), AssertionError)
    assert.throws(() => code.reconstruct([a, undefined, b], [3]), AssertionError)
    for (const [data, parity] of [
      [0, 1],
      [1, 0],
      [16, 1],
      [1, 16],
      [1.5, 1],
    ] as const) {
      assert.throws(() => new ReedSolomon(data, parity), AssertionError)
    }
  })
})
