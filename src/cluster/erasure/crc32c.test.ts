/** CRC32C against the table method bit by bit, at every length and alignment that the folding treats differently, and its algebra against direct computation. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { CodingMemory } from './coding-memory.ts'
import { crc32c, crc32cAppend, crc32cPages, crc32cWithoutZeros, crc32cXor, crc32cZeros } from './crc32c.ts'
import { pseudoRandom } from './pseudo-random.ts'

const SEED = 32
const BYTES = pseudoRandom(SEED, 1 << 18)
const CRC = fc.integer({ min: 0, max: 0xffffffff })
/** Where folding begins, where one run of it ends, and where a piece that is passed through ends. */
const EDGES = [1760, 55 * 16 + 512 * 16, 2 * 512 * 16, 65_536, 131_072]

/** One bit at a time, from the polynomial x^32 + x^28 + x^27 + … + 1 alone. */
function slowly(bytes: Uint8Array, before = 0): number {
  let crc = ~before
  for (const byte of bytes) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1
  }
  return ~crc >>> 0
}

describe('crc32c', () => {
  it('gives the published values', () => {
    const vectors: [Uint8Array, number][] = [
      [Buffer.from('123456789'), 0xe3069283],
      [new Uint8Array(), 0],
      // RFC 3720, B.4
      [new Uint8Array(32), 0x8a9136aa],
      [new Uint8Array(32).fill(0xff), 0x62a8ab43],
      [Uint8Array.from({ length: 32 }, (_, index) => index), 0x46dd794e],
      [Uint8Array.from({ length: 32 }, (_, index) => 31 - index), 0x113fdb5c],
    ]
    for (const [bytes, crc] of vectors) assert.equal(crc32c(bytes), crc)
  })

  it('gives the CRC of any length up to two pages', () => {
    let expected = 0
    for (let length = 0; length <= 8192; length++) {
      assert.equal(crc32c(BYTES.subarray(3, 3 + length)), expected, `${length} bytes`)
      expected = slowly(BYTES.subarray(3 + length, 4 + length), expected)
    }
  })

  it('gives the CRC around each length at which it goes another way', () => {
    for (const edge of EDGES) {
      for (let length = edge - 17; length <= edge + 17; length++) {
        const bytes = BYTES.subarray(5, 5 + length)
        assert.equal(crc32c(bytes, length), slowly(bytes, length), `${length} bytes`)
      }
    }
  })

  it('goes on from the CRC of what came before, wherever the bytes begin and lie', () => {
    const memory = new CodingMemory(1 << 19)
    const block = memory.allocate(BYTES.length)
    assert(block !== undefined)
    block.set(BYTES)
    fc.assert(
      fc.property(fc.nat(1 << 16), fc.nat(1 << 17), CRC, fc.nat(1 << 17), (at, length, before, cut) => {
        const bytes = BYTES.subarray(at, at + length)
        const crc = crc32c(bytes, before)
        assert.equal(crc, crc32c(bytes.subarray(cut), crc32c(bytes.subarray(0, cut), before)))
        assert.equal(crc, crc32c(block.subarray(at, at + length), before))
        assert.equal(crc, crc32c(Buffer.from(bytes), before))
      }),
      { seed: SEED, numRuns: 300 },
    )
    assert(Buffer.compare(block, BYTES) === 0, 'the bytes are only read')
  })

  it('notices any flipped bit of a page', () => {
    const page = BYTES.slice(0, 4096)
    const crc = crc32c(page)
    for (let bit = 0; bit < 8 * page.length; bit += 13) {
      page[bit >> 3] = (page[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      assert.notEqual(crc32c(page), crc, `bit ${bit}`)
      page[bit >> 3] = (page[bit >> 3] ?? 0) ^ (1 << (bit & 7))
    }
  })
})

describe('crc32cPages', () => {
  it('gives the CRC of each page and of a short last one', () => {
    const memory = new CodingMemory(1 << 19)
    const block = memory.allocate(BYTES.length)
    assert(block !== undefined)
    block.set(BYTES)
    const pageSizes = fc.oneof(
      fc.constant(4096),
      fc.integer({ min: 1, max: 9000 }),
      fc.integer({ min: 65_000, max: 140_000 }),
    )
    fc.assert(
      fc.property(fc.nat(300), fc.nat(200_000), pageSizes, (at, length, pageBytes) => {
        const count = Math.ceil(length / pageBytes)
        const expected = Array.from({ length: count }, (_, page) =>
          crc32c(BYTES.subarray(at + page * pageBytes, at + Math.min(length, (page + 1) * pageBytes))),
        )
        for (const source of [BYTES, block]) {
          const out = new Uint32Array(count + 1).fill(7)
          crc32cPages(source.subarray(at, at + length), pageBytes, out)
          const all = [...expected, 7]
          assert.equal(
            out.findIndex((crc, page) => crc !== all[page]),
            -1,
            'the first page with another CRC',
          )
        }
      }),
      {
        seed: SEED,
        numRuns: 100,
        examples: [
          [0, 64, 10],
          [0, 0, 4096],
          [1, 200_000, 1],
        ],
      },
    )
  })

  it('refuses pages of no bytes and too few places', () => {
    assert.throws(() => crc32cPages(BYTES, 0, new Uint32Array(1)), /a page has bytes/)
    assert.throws(() => crc32cPages(BYTES, 4096, new Uint32Array(63)), /a place for the CRC of each page/)
  })
})

describe('the algebra of CRC32C', () => {
  const string = fc.tuple(fc.nat(1 << 16), fc.nat(5000)).map(([at, length]) => BYTES.subarray(at, at + length))

  it('knows the CRC of one string after another', () => {
    fc.assert(
      fc.property(string, string, (a, b) => {
        assert.equal(crc32cAppend(crc32c(a), crc32c(b), b.length), crc32c(Buffer.concat([a, b])))
      }),
      { seed: SEED, numRuns: 500 },
    )
  })

  it('knows the CRC of an XOR', () => {
    fc.assert(
      fc.property(string, fc.nat(1 << 16), (a, at) => {
        const b = BYTES.subarray(at, at + a.length)
        const both = a.map((byte, index) => byte ^ (b[index] ?? 0))
        assert.equal(crc32cXor(crc32c(a), crc32c(b), a.length), crc32c(both))
      }),
      { seed: SEED, numRuns: 500 },
    )
  })

  it('knows the CRC of a string that zeros follow', () => {
    fc.assert(
      fc.property(string, fc.nat(5000), (a, count) => {
        assert.equal(crc32cZeros(crc32c(a), count), crc32c(Buffer.concat([a, Buffer.alloc(count)])))
      }),
      { seed: SEED, numRuns: 500 },
    )
  })

  it('knows the CRC of a string that zeros followed', () => {
    fc.assert(
      fc.property(string, fc.nat(5000), (a, count) => {
        assert.equal(crc32cWithoutZeros(crc32c(Buffer.concat([a, Buffer.alloc(count)])), count), crc32c(a))
      }),
      { seed: SEED, numRuns: 500 },
    )
  })

  it('does so for lengths that no memory holds', () => {
    fc.assert(
      fc.property(CRC, fc.maxSafeNat(), fc.maxSafeNat(), (crc, one, other) => {
        const [a, b] = [Math.floor(one / 2), Math.floor(other / 2)]
        assert.equal(crc32cZeros(crc32cZeros(crc, a), b), crc32cZeros(crc, a + b))
        assert.equal(crc32cAppend(crc, crc32cZeros(0, a), a), crc32cZeros(crc, a))
        assert.equal(crc32cWithoutZeros(crc32cZeros(crc, a), a), crc)
      }),
      { seed: SEED, numRuns: 500 },
    )
  })

  it('refuses lengths that are none', () => {
    for (const length of [-1, 0.5, Number.NaN])
      assert.throws(() => crc32cAppend(1, 2, length), /a length is a whole number/)
  })
})
