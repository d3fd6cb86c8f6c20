/**
 * Redundancy and checksums on one core: the codes against ISA-L (Debian's libisal2) through the same process, CRC32C against hash-wasm
 * and ISA-L, both against what the cluster asks for. Steps of some milliseconds run in turns and the fastest counts: what disturbs a step
 * only ever makes it slower.
 */
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createCRC32 } from 'hash-wasm'
import { type Against, type Scenario, rowOf } from '#bench/sync/row.ts'
import type { BenchRow } from '#bench/table.ts'
import { CodingMemory } from '#cluster/erasure/coding-memory.ts'
import { crc32c, crc32cAppend, crc32cPages } from '#cluster/erasure/crc32c.ts'
import { pseudoRandom } from '#cluster/erasure/pseudo-random.ts'
import { generatorMatrix, ReedSolomon } from '#cluster/erasure/reed-solomon.ts'

const ROUNDS = 60
const STEP_MS = 4
const PAGE_BYTES = 4096
const MEMORY_BYTES = 64 << 20
const LIBRARY = ['x86_64', 'aarch64']
  .map((cpu) => `/usr/lib/${cpu}-linux-gnu/libisal.so.2`)
  .find((path) => existsSync(path))

const CODES = [
  [10, 4],
  [4, 2],
  [2, 1],
] as const
const BLOCK_BYTES = [65_536, 1 << 20] as const
/** GB of data a second that the cluster asks for, of the widest code. */
const LIMITED = { data: 10, copied: 4, inPlace: 6 } as const
const ISA_L_SHARE = 1 / 3
const CRC_GB_MIN = 4

interface IsaL {
  readonly encode: (blocks: readonly Uint8Array[], parity: readonly Uint8Array[]) => () => void
  readonly crc32c: (bytes: Uint8Array) => () => number
}

interface Koffi {
  load(path: string): { func(definition: string): (...args: unknown[]) => number }
  address(value: Uint8Array): bigint
}

/** Undefined where it is not installed. */
function openIsaL(): IsaL | undefined {
  if (LIBRARY === undefined) return undefined
  const koffi = createRequire(import.meta.url)('koffi') as Koffi
  const library = koffi.load(LIBRARY)
  const initTables = library.func('void ec_init_tables(int k, int rows, uint8_t *a, _Out_ uint8_t *tables)')
  const encodeData = library.func(
    'void ec_encode_data(int length, int k, int rows, uint8_t *tables, uint64_t *data, uint64_t *coding)',
  )
  const iscsi = library.func('uint32_t crc32_iscsi(uint8_t *bytes, int length, uint32_t before)')
  const addresses = (blocks: readonly Uint8Array[]): BigUint64Array =>
    BigUint64Array.from(blocks, (block) => koffi.address(block))
  return {
    encode: (blocks, parity) => {
      const [k, rows, length] = [blocks.length, parity.length, blocks[0]?.length ?? 0]
      const tables = Buffer.alloc(32 * k * rows)
      initTables(k, rows, Buffer.concat(generatorMatrix(k, rows).slice(k)), tables)
      const [from, to] = [addresses(blocks), addresses(parity)]
      return () => void encodeData(length, k, rows, tables, from, to)
    },
    crc32c: (bytes) => () => ~iscsi(bytes, bytes.length, 0xffffffff) >>> 0,
  }
}

const isaL = openIsaL()

/** GB a second of calls that each take so many bytes, over some milliseconds. */
function rateOf(bytes: number, call: () => void): () => number {
  let calls = 1
  return () => {
    for (;;) {
      const before = performance.now()
      for (let index = 0; index < calls; index++) call()
      const ms = performance.now() - before
      if (ms >= STEP_MS / 2) return (calls * bytes) / ms / 1e6
      calls *= 2
    }
  }
}

/** The best of each; the order turns, so that none is always the one after the other. */
function bestOf<Name extends string>(
  steps: Readonly<Partial<Record<Name, () => number>>>,
): Partial<Record<Name, number>> {
  const best: Partial<Record<Name, number>> = {}
  const names = Object.keys(steps) as Name[]
  for (let round = 0; round < ROUNDS; round++) {
    for (const name of round % 2 === 0 ? names : names.toReversed()) {
      best[name] = Math.max(best[name] ?? 0, steps[name]?.() ?? 0)
    }
  }
  return best
}

function lent(memory: CodingMemory, count: number, length: number): Uint8Array[] {
  return Array.from({ length: count }, () => {
    const block = memory.allocate(length)
    if (block === undefined) throw new Error('The memory is too small for the blocks')
    return block
  })
}

function same(a: readonly Uint8Array[], b: readonly Uint8Array[], what: string): void {
  if (!Buffer.concat(a).equals(Buffer.concat(b))) throw new Error(`Not the same: ${what}`)
}

/** One code with blocks of one length: the rates, after what each step makes was seen to be right. */
function codeRates(data: number, parity: number, blockBytes: number): BenchRow[] {
  const code = new ReedSolomon(data, parity)
  const memory = new CodingMemory(MEMORY_BYTES)
  const blocks = Array.from({ length: data }, (_, index) => pseudoRandom(index, blockBytes))
  const made = Array.from({ length: parity }, () => Buffer.allocUnsafeSlow(blockBytes))
  const theirs = made.map(() => Buffer.allocUnsafeSlow(blockBytes))
  const [heldBlocks, heldMade, found] = [data, parity, parity].map((count) => lent(memory, count, blockBytes)) as [
    Uint8Array[],
    Uint8Array[],
    Uint8Array[],
  ]
  for (const [index, block] of heldBlocks.entries()) block.set(blocks[index] ?? [])
  const encodeIsaL = isaL?.encode(blocks, theirs)
  const all = [...heldBlocks, ...heldMade]
  const lost = Array.from({ length: parity }, (_, index) => index)
  const steps = {
    copied: () => code.encodeInto(blocks, made),
    inPlace: () => code.encodeInto(heldBlocks, heldMade),
    one: () => code.reconstructInto([undefined, ...all.slice(1)], [0], found.slice(0, 1)),
    all: () => code.reconstructInto([...lost.map(() => undefined), ...all.slice(parity)], lost, found),
    ...(encodeIsaL === undefined ? {} : { isaL: encodeIsaL }),
  }
  for (const step of Object.values(steps)) step()
  same(made, heldMade, 'parity made in place')
  same(found, blocks.slice(0, parity), 'what is rebuilt')
  if (encodeIsaL !== undefined) same(made, theirs, "ISA-L's parity")

  const bytes = data * blockBytes
  const best = bestOf<keyof typeof steps>(
    Object.fromEntries(Object.entries(steps).map(([name, step]) => [name, rateOf(bytes, step)])),
  )
  const name = `${data}+${parity}, blocks of ${blockBytes / 1024} KiB`
  const row = (what: string, eider: number | undefined, against: Partial<Against>): BenchRow =>
    rowOf({
      ...{
        name: `${name}: ${what}`,
        unit: 'GB/s of data',
        better: 'more',
        eider: eider ?? Number.NaN,
      },
      ...{ other: best.isaL, otherName: 'ISA-L', ...against },
    })
  const limits = data === LIMITED.data ? LIMITED : undefined
  return [
    ...(limits === undefined
      ? []
      : [
          row('encode with copies', best.copied, {
            other: limits.copied,
            otherName: 'limit',
            target: 1,
          }),
          row('encode in place', best.inPlace, {
            other: limits.inPlace,
            otherName: 'limit',
            target: 1,
          }),
        ]),
    row('encode with copies', best.copied, { target: ISA_L_SHARE }),
    row('encode in place', best.inPlace, { target: ISA_L_SHARE }),
    row('rebuild one', best.one, { note: 'in place; ISA-L encodes' }),
    ...(parity === 1 ? [] : [row(`rebuild ${parity}`, best.all, { note: 'in place; ISA-L encodes' })]),
  ]
}

async function checksums(): Promise<BenchRow[]> {
  const hasher = await createCRC32(0x82f63b78)
  const rows: BenchRow[] = []
  for (const length of [PAGE_BYTES, 1 << 20]) {
    const bytes = pseudoRandom(length, length)
    const [held = new Uint8Array()] = lent(new CodingMemory(MEMORY_BYTES), 1, length)
    held.set(bytes)
    const out = new Uint32Array(length / PAGE_BYTES)
    const isaLCrc = isaL?.crc32c(bytes)
    if (isaLCrc !== undefined && isaLCrc() !== crc32c(bytes)) throw new Error("Not the same: ISA-L's CRC")
    const best = bestOf({
      held: rateOf(length, () => crc32c(held)),
      copied: rateOf(length, () => crc32c(bytes)),
      pages: rateOf(length, () => crc32cPages(bytes, PAGE_BYTES, out)),
      heldPages: rateOf(length, () => crc32cPages(held, PAGE_BYTES, out)),
      hashWasm: rateOf(length, () => hasher.init().update(bytes).digest('binary')),
      ...(isaLCrc === undefined ? {} : { isaL: rateOf(length, () => void isaLCrc()) }),
    })
    const name = `CRC32C of ${length / 1024} KiB`
    const limit = {
      unit: 'GB/s',
      better: 'more',
      other: CRC_GB_MIN,
      otherName: 'limit',
      target: 1,
    } as const
    rows.push(
      rowOf({ ...limit, name: `${name}, copied`, eider: best.copied ?? Number.NaN }),
      rowOf({ ...limit, name: `${name}, in place`, eider: best.held ?? Number.NaN }),
      rowOf({ ...limit, name: `${name}, by page, copied`, eider: best.pages ?? Number.NaN }),
      rowOf({ ...limit, name: `${name}, by page, in place`, eider: best.heldPages ?? Number.NaN }),
      rowOf({
        ...{ name, unit: 'GB/s', better: 'more', eider: best.copied ?? Number.NaN },
        ...{ other: best.hashWasm, otherName: 'hash-wasm', target: 1 },
      }),
      rowOf({
        ...{ name, unit: 'GB/s', better: 'more', eider: best.copied ?? Number.NaN },
        ...{ other: best.isaL, otherName: 'ISA-L', note: 'carry-less multiplication' },
      }),
    )
  }
  const appends = bestOf({
    append: rateOf(1e9, () => void crc32cAppend(0x12345678, 0x9abcdef0, PAGE_BYTES)),
  })
  rows.push({
    name: 'CRC32C appended from two CRCs, million/s',
    figures: { eider: (appends.append ?? Number.NaN) / 1e6 },
  })
  return rows
}

export const ERASURE: readonly Scenario[] = [
  {
    name: 'erasure',
    run: async () => [
      ...CODES.flatMap(([data, parity]) => BLOCK_BYTES.flatMap((bytes) => codeRates(data, parity, bytes))),
      ...(await checksums()),
    ],
  },
]
