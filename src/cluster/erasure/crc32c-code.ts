/**
 * The CRC32C of bytes in a WebAssembly memory, as code and tables. WebAssembly has no carry-less multiplication, and tables of
 * remainders give no more than a byte or two a cycle. So most of a long message is folded away first, by nothing but XOR: a multiple of
 * the CRC's polynomial with only ten terms says that a bit can be taken out of a message, with the CRC unchanged, by flipping nine
 * later ones. Squaring a polynomial over GF(2) doubles its powers and keeps its terms: so the same rule holds for vectors of
 * 16 bytes (the 128th power of the multiple), and for words of 8 (the 64th) and of 4 bytes (the 32nd). Folding by vectors leaves
 * 55 of them, which become 55 words of 8 bytes, which become 55 of 4; only these 220 bytes, and what is not a multiple of
 * 16, go through sixteen tables of 256 remainders. Idea: Russell, "Chorba: a novel CRC32 implementation", arXiv 2412.16398.
 *
 * The message is only read. What folding takes out of place i is message[i] and what the places before it put there, f[i] =
 * message[i] ^ f[i - 10] ^ f[i - 13] ^ …; the f are kept in the area, after a history of zeros that is zero again after each call.
 */
import {
  call,
  type Code,
  copy,
  doWhile,
  fill,
  get,
  i32,
  i64,
  type Local,
  loopWhile,
  seq,
  set,
  v128,
  type WasmFunction,
  when,
} from './wasm-assembler.ts'

/** CRC32C's polynomial (Castagnoli), the lowest power of x in the highest bit, x^32 left out. */
export const POLYNOMIAL = 0x82f63b78
/**
 * x^55 + x^45 + x^42 + x^26 + x^24 + x^19 + x^9 + x^5 + x^3 + 1 is a multiple of it: how many places further each of the nine others is.
 * It was searched for: no multiple of ten terms that leaves room for vectors to be computed side by side (10 places) is shorter.
 */
const TAPS: readonly number[] = [10, 13, 29, 31, 36, 46, 50, 52, 55]
const PLACES = 55

const SLICES = 16
/** Where folding begins to pay. */
const FOLDED_BYTES_MIN = 2 * PLACES * 16
/** Vectors folded before the history is moved back to its place: small enough to stay in the first cache. */
const RUN_VECTORS = 512

interface Unit {
  readonly bytes: number
  readonly load: (address: Code, offset?: number) => Code
  readonly store: (address: Code, value: Code, offset?: number) => Code
  readonly xor: (a: Code, b: Code) => Code
}
const VECTOR: Unit = { bytes: 16, ...v128 }
const LONG: Unit = { bytes: 8, ...i64 }
const WORD: Unit = { bytes: 4, ...i32 }

/** Where things are in the area: what is folded of each unit, for vectors after a history, and then what is left. */
const TABLES_BYTES = SLICES * 1024
const VECTORS_AT = TABLES_BYTES
const VECTORS_LEFT_AT = VECTORS_AT + (PLACES + RUN_VECTORS) * VECTOR.bytes
const LONGS_AT = VECTORS_LEFT_AT + PLACES * VECTOR.bytes
const LONGS_LEFT_AT = LONGS_AT + PLACES * LONG.bytes
const WORDS_AT = LONGS_LEFT_AT + PLACES * LONG.bytes
const WORDS_LEFT_AT = WORDS_AT + PLACES * WORD.bytes
/** What the code needs in its memory, from the address that it is made for. */
export const CRC32C_AREA_BYTES = WORDS_LEFT_AT + PLACES * WORD.bytes

/** The table of single bytes: of each, the remainder that it leaves. */
export const BYTE_TABLE: Uint32Array = Uint32Array.from({ length: 256 }, (_, byte) => {
  let remainder = byte
  for (let bit = 0; bit < 8; bit++) remainder = (remainder >>> 1) ^ (remainder & 1 ? POLYNOMIAL : 0)
  return remainder >>> 0
})

/** Writes the tables to the beginning of the area, which is zero otherwise: of each byte, the remainder when 0 to 15 zeros follow. */
export function fillCrc32cArea(area: Uint8Array): void {
  const words = new Uint32Array(area.buffer, area.byteOffset, SLICES * 256)
  words.set(BYTE_TABLE)
  for (let index = 256; index < words.length; index++) {
    const shorter = words[index - 256] ?? 0
    words[index] = (shorter >>> 8) ^ (BYTE_TABLE[shorter & 0xff] ?? 0)
  }
}

const [ADDRESS, LENGTH, CRC] = [0, 1, 2] as const
/** Of what is folded; of what is folded away, a history before; of what is left. */
const [SOURCE, FOLDED, LEFT] = [3, 4, 5] as const
const [RUN_END, MESSAGE_END, RUNS] = [6, 7, 8] as const
const [PAGE_BYTES, OUT] = [2, 3] as const

/**
 * Two functions, to be the first of their module. `crc32c(address, length, crc)` gives the CRC after more bytes;
 * `crc32cPages(address, length, pageBytes, out)` stores the CRC of each page, the last of which may be short, as words from `out` on.
 */
export function crc32cFunctions(area: number): WasmFunction[] {
  const flipped = set(CRC, i32.xor(get(CRC), i32.const(-1)))
  return [
    {
      ...{ name: 'crc32c', result: 'i32', parameterCount: 3 },
      types: Array<'i32'>(9).fill('i32'),
      body: seq(
        flipped,
        when(
          i32.atLeast(get(LENGTH), i32.const(FOLDED_BYTES_MIN)),
          seq(
            foldedVectors(area),
            foldedWords(LONG, area + VECTORS_LEFT_AT, area + LONGS_AT),
            foldedWords(WORD, area + LONGS_LEFT_AT, area + WORDS_AT),
            // Begun a word earlier, 55 words are a multiple of 16 bytes; zeros before a message change no remainder.
            set(CRC, i32.const(0)),
            set(SOURCE, i32.const(area + WORDS_LEFT_AT - WORD.bytes)),
            i32.store(get(SOURCE), i32.const(0)),
            doWhile(several(area, SOURCE), i32.lessThan(get(SOURCE), i32.const(area + CRC32C_AREA_BYTES))),
          ),
        ),
        loopWhile(i32.atLeast(get(LENGTH), i32.const(SLICES)), seq(several(area, ADDRESS), moved(LENGTH, -SLICES))),
        loopWhile(get(LENGTH), seq(one(area), moved(LENGTH, -1))),
        flipped,
        get(CRC),
      ),
    },
    {
      ...{ name: 'crc32cPages', result: undefined, parameterCount: 4 },
      types: Array<'i32'>(4).fill('i32'),
      body: loopWhile(
        get(LENGTH),
        seq(
          when(i32.lessThan(get(LENGTH), get(PAGE_BYTES)), set(PAGE_BYTES, get(LENGTH))),
          i32.store(get(OUT), call(0, get(ADDRESS), get(PAGE_BYTES), i32.const(0))),
          moved(OUT, 4),
          set(ADDRESS, i32.add(get(ADDRESS), get(PAGE_BYTES))),
          set(LENGTH, i32.sub(get(LENGTH), get(PAGE_BYTES))),
        ),
      ),
    },
  ]
}

/** Leaves 55 vectors of the whole ones of the message; `ADDRESS` and `LENGTH` then say what comes after these. */
function foldedVectors(area: number): Code {
  const history = area + VECTORS_AT
  const historyBytes = PLACES * VECTOR.bytes
  return seq(
    set(SOURCE, get(ADDRESS)),
    set(ADDRESS, i32.add(get(ADDRESS), i32.and(get(LENGTH), i32.const(-VECTOR.bytes)))),
    set(LENGTH, i32.and(get(LENGTH), i32.const(VECTOR.bytes - 1))),
    set(MESSAGE_END, i32.sub(get(ADDRESS), i32.const(historyBytes))),
    // What came before the message is added to its first bytes, where nothing was folded to yet.
    v128.store(i32.const(history), v128.xor(v128.load(get(SOURCE)), v128.ofI32(get(CRC))), historyBytes),
    moved(SOURCE, VECTOR.bytes),
    set(FOLDED, i32.const(history + VECTOR.bytes)),
    set(RUN_END, i32.add(get(SOURCE), i32.const((RUN_VECTORS - 1) * VECTOR.bytes))),
    set(RUNS, i32.const(0)),
    loopWhile(
      i32.lessThan(get(RUN_END), get(MESSAGE_END)),
      seq(
        doWhile(foldedVector(), i32.lessThan(get(SOURCE), get(RUN_END))),
        copy(i32.const(history), get(FOLDED), i32.const(historyBytes)),
        set(FOLDED, i32.const(history)),
        moved(RUN_END, RUN_VECTORS * VECTOR.bytes),
        moved(RUNS, 1),
      ),
    ),
    doWhile(foldedVector(), i32.lessThan(get(SOURCE), get(MESSAGE_END))),
    leftVectors(area + VECTORS_LEFT_AT),
    when(get(RUNS), fill(i32.const(history), i32.const(0), i32.const(historyBytes))),
  )
}

/** Leaves 55 of 110 words, without a loop: where everything is, and what hears of what, is known beforehand. */
function foldedWords(unit: Unit, source: number, target: number): Code {
  return Array.from({ length: 2 * PLACES }, (_, place) => {
    const heardOf = TAPS.map((tap) => place - tap).filter((from) => from >= 0 && from < PLACES)
    const sum = heardOf.reduce(
      (before, from) => unit.xor(before, unit.load(i32.const(target + from * unit.bytes))),
      unit.load(i32.const(source + place * unit.bytes)),
    )
    return unit.store(i32.const(target + place * unit.bytes), sum)
  })
}

/** One vector more; `FOLDED` is the farthest that it hears of. */
function foldedVector(): Code {
  return seq(
    v128.store(get(FOLDED), heard(TAPS), PLACES * VECTOR.bytes),
    moved(SOURCE, VECTOR.bytes),
    moved(FOLDED, VECTOR.bytes),
  )
}

/** The last 55 vectors, which are not folded: each hears only of those that lie before all of them, by ever fewer taps. */
function leftVectors(target: number): Code {
  return seq(
    set(LEFT, i32.const(target)),
    TAPS.map((tap, index) =>
      doWhile(
        seq(
          v128.store(get(LEFT), heard(TAPS.slice(index))),
          ...[SOURCE, FOLDED, LEFT].map((local) => moved(local, VECTOR.bytes)),
        ),
        i32.lessThan(get(LEFT), i32.const(target + tap * VECTOR.bytes)),
      ),
    ),
  )
}

function heard(taps: readonly number[]): Code {
  return taps.reduce(
    (sum, tap) => v128.xor(sum, v128.load(get(FOLDED), (PLACES - tap) * VECTOR.bytes)),
    v128.load(get(SOURCE)),
  )
}

/** As many bytes as there are tables. */
function several(area: number, address: Local): Code {
  const remainders = Array.from({ length: SLICES }, (_, place) => {
    const index = place % 4
    const word = place < 4 ? get(CRC) : i32.load(get(address), place - index)
    const byte = index === 0 ? word : i32.shr(word, i32.const(8 * index))
    return remainderOf(area, SLICES - 1 - place, i32.and(byte, i32.const(0xff)))
  })
  return seq(
    set(CRC, i32.xor(get(CRC), i32.load(get(address)))),
    // What does not wait for the CRC so far comes first.
    set(
      CRC,
      remainders.toReversed().reduce((a, b) => i32.xor(a, b)),
    ),
    moved(address, SLICES),
  )
}

function one(area: number): Code {
  const byte = i32.and(i32.xor(get(CRC), i32.load8(get(ADDRESS))), i32.const(0xff))
  return seq(set(CRC, i32.xor(i32.shr(get(CRC), i32.const(8)), remainderOf(area, 0, byte))), moved(ADDRESS, 1))
}

/** Of a byte that zeros follow. */
function remainderOf(area: number, zeros: number, byte: Code): Code {
  return i32.load(i32.shl(byte, i32.const(2)), area + zeros * 1024)
}

function moved(local: Local, by: number): Code {
  return set(local, i32.add(get(local), i32.const(by)))
}
