/**
 * The WebAssembly module that computes checksums and products, over one memory of its own: what the code needs first, then slots
 * through which blocks that live elsewhere are passed piece by piece, then room for blocks that live here and are computed on in
 * place (`CodingMemory` hands it out). A memory never grows: growing would detach every view of it. Nothing here waits, so no two
 * computations ever share the slots.
 */
import { assert } from '#base/assert.ts'
import { CRC32C_AREA_BYTES, crc32cFunctions, fillCrc32cArea } from './crc32c-code.ts'
import { COEFFICIENT_BYTES, COLUMN_BYTES, kernelName, multiplyFunctions, ROWS_MAX } from './multiply-code.ts'
import type { Pass, Product } from './product.ts'
import { assemble } from './wasm-assembler.ts'

/** What is used of the engine's WebAssembly, which TypeScript declares only along with the DOM. */
declare const WebAssembly: {
  readonly Memory: new (pages: { initial: number; maximum: number }) => { readonly buffer: ArrayBuffer }
  readonly Module: new (bytes: Uint8Array) => object
  readonly Instance: new (module: object, imports: object) => { readonly exports: object }
  readonly validate: (bytes: Uint8Array) => boolean
}

type Multiply = (sources: number, sourcesEnd: number, targets: number, coefficients: number, length: number) => void
interface Code {
  readonly crc32c: (address: number, length: number, crc: number) => number
  readonly crc32cPages: (address: number, length: number, pageBytes: number, out: number) => void
  readonly [multiply: `encode${number}` | `multiply${number}`]: Multiply | undefined
}

/** The most blocks that a product reads, and the most that it makes. */
export const BLOCKS_MAX = 15
/** To which a block's address is rounded up: a line of the cache. */
export const ALIGNMENT_BYTES = 64
const WASM_PAGE_BYTES = 65_536
/** Of each block in one pass: the pieces of 30 blocks stay in the second cache. */
const PIECE_BYTES = 16_384
/** Blocks that lie a power of two apart fall into the same few places of the first cache, and push each other out; so this lies between. */
export const STAGGER_BYTES = 192
const SLOT_BYTES = PIECE_BYTES + STAGGER_BYTES
/** Of a message that is passed through. */
const MESSAGE_PIECE_BYTES = 65_536
/** In one call. */
const PAGES_MAX = 1024

const POINTERS_AT = aligned(CRC32C_AREA_BYTES)
const TARGET_POINTERS_AT = POINTERS_AT + 4 * (BLOCKS_MAX + 1)
const COEFFICIENTS_AT = aligned(TARGET_POINTERS_AT + 4 * (BLOCKS_MAX + 1))
const SLOTS_AT = aligned(COEFFICIENTS_AT + BLOCKS_MAX * BLOCKS_MAX * COEFFICIENT_BYTES)
const PAGE_CRCS_AT = SLOTS_AT + MESSAGE_PIECE_BYTES
const ROOM_AT = SLOTS_AT + 2 * BLOCKS_MAX * SLOT_BYTES

let code: { readonly module: object } | undefined
/** For bytes that lie in no kernel's memory. */
let shared: Kernel | undefined
/** By memory; and the one that was found last, since the next bytes are most often there, too. */
const kernels = new WeakMap<ArrayBufferLike, Kernel>()
let lastFound: Kernel | undefined

/** The kernel in whose memory these bytes lie, otherwise the one that is there for bytes of elsewhere. */
export function kernelFor(bytes: Uint8Array): Kernel {
  return kernelHolding(bytes) ?? (shared ??= new Kernel(0))
}

/** The kernel for a product of these blocks: one in whose memory any of them lies, otherwise the one for bytes of elsewhere. */
export function kernelForBlocks(sources: readonly Uint8Array[], targets: readonly Uint8Array[]): Kernel {
  for (const blocks of [sources, targets]) {
    for (const block of blocks) {
      const found = kernelHolding(block)
      if (found !== undefined) return found
    }
  }
  return (shared ??= new Kernel(0))
}

function kernelHolding({ buffer }: Uint8Array): Kernel | undefined {
  if (lastFound?.bytes.buffer === buffer) return lastFound
  const found = kernels.get(buffer)
  if (found !== undefined) lastFound = found
  return found
}

/** The code over one memory. */
export class Kernel {
  /** The whole memory. */
  readonly bytes: Uint8Array<ArrayBuffer>
  /** From where on it is room for blocks. */
  readonly roomAt = ROOM_AT
  readonly #pointers: Uint32Array
  readonly #pageCrcs: Uint32Array
  readonly #code: Code
  /** Whose coefficients are in place. */
  #product: Product | undefined

  constructor(roomBytes: number) {
    const pages = Math.ceil((ROOM_AT + roomBytes) / WASM_PAGE_BYTES)
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages })
    code ??= { module: new WebAssembly.Module(assembled()) }
    this.#code = new WebAssembly.Instance(code.module, { m: { m: memory } }).exports as Code
    this.bytes = new Uint8Array(memory.buffer)
    this.#pointers = new Uint32Array(memory.buffer, POINTERS_AT, 2 * (BLOCKS_MAX + 1))
    this.#pageCrcs = new Uint32Array(memory.buffer, PAGE_CRCS_AT, PAGES_MAX)
    fillCrc32cArea(this.bytes)
    kernels.set(memory.buffer, this)
  }

  /** The CRC after these bytes. */
  crc32c(bytes: Uint8Array, before: number): number {
    const { length } = bytes
    if (this.#holds(bytes)) return this.#code.crc32c(bytes.byteOffset, length, before) >>> 0
    if (length <= MESSAGE_PIECE_BYTES) {
      this.bytes.set(bytes, SLOTS_AT)
      return this.#code.crc32c(SLOTS_AT, length, before) >>> 0
    }
    let crc = before
    for (let at = 0; at < length; at += MESSAGE_PIECE_BYTES) {
      const piece = bytes.subarray(at, at + MESSAGE_PIECE_BYTES)
      this.bytes.set(piece, SLOTS_AT)
      crc = this.#code.crc32c(SLOTS_AT, piece.length, crc)
    }
    return crc >>> 0
  }

  /** The CRC of each page, of which the last may be short. */
  crc32cPages(bytes: Uint8Array, pageBytes: number, out: Uint32Array): void {
    const held = this.#holds(bytes)
    const pagesAtOnce = held ? PAGES_MAX : Math.min(PAGES_MAX, Math.floor(MESSAGE_PIECE_BYTES / pageBytes))
    const pages = Math.ceil(bytes.length / pageBytes)
    if (pagesAtOnce === 0) {
      for (let page = 0; page < pages; page++) {
        out[page] = this.crc32c(bytes.subarray(page * pageBytes, (page + 1) * pageBytes), 0)
      }
      return
    }
    for (let page = 0; page < pages; page += pagesAtOnce) {
      const count = Math.min(pagesAtOnce, pages - page)
      const at = page * pageBytes
      const length = Math.min(count * pageBytes, bytes.length - at)
      if (!held) this.bytes.set(part(bytes, at, length), SLOTS_AT)
      this.#code.crc32cPages(held ? bytes.byteOffset + at : SLOTS_AT, length, pageBytes, PAGE_CRCS_AT)
      for (let index = 0; index < count; index++) out[page + index] = this.#pageCrcs[index] ?? 0
    }
  }

  /**
   * Fills the targets with the product of the matrix and the sources. All are equally long; no target shares bytes with another block. Those that
   * lie in this kernel's memory are read and written where they are, the others are passed through.
   */
  multiply(product: Product, sources: readonly Uint8Array[], targets: readonly Uint8Array[]): void {
    const length = sources[0]?.length ?? 0
    assert(sources.length === product.sourceCount, 'a product is given as many blocks as its matrix has columns')
    assert(targets.length === product.targetCount, 'a product is given as many targets as its matrix has rows')
    for (const block of sources) assert(block.length === length, 'the blocks of a product are equally long')
    for (const block of targets) assert(block.length === length, 'the blocks of a product are equally long')
    for (const { row, source } of product.copies) targets[row]?.set(sources[source] ?? new Uint8Array())
    const { passes } = product
    if (passes.length === 0) return
    if (this.#product !== product) {
      this.bytes.set(product.coefficients, COEFFICIENTS_AT)
      this.#product = product
    }
    const computed = passes.flatMap(({ rows }) => rows.map((row) => targets[row] ?? new Uint8Array()))
    const inPlace = passes.length === 1 && [...sources, ...computed].every((block) => this.#holds(block))
    // The kernel takes whole columns; what is left is passed through slots, which have room for a column more.
    const whole = length - (length % COLUMN_BYTES)
    const pieceBytes = inPlace ? Math.max(whole, COLUMN_BYTES) : PIECE_BYTES
    for (let at = 0; at < whole; at += pieceBytes) {
      this.#piece(passes, sources, computed, at, Math.min(pieceBytes, whole - at))
    }
    if (whole < length) this.#piece(passes, sources, computed, whole, length - whole)
  }

  #piece(
    passes: readonly Pass[],
    sources: readonly Uint8Array[],
    targets: readonly Uint8Array[],
    at: number,
    length: number,
  ): void {
    const columns = length % COLUMN_BYTES === 0
    for (const [index, block] of sources.entries()) {
      const held = columns && this.#holds(block)
      const slot = SLOTS_AT + index * SLOT_BYTES
      if (!held) this.bytes.set(part(block, at, length), slot)
      this.#pointers[index] = held ? block.byteOffset + at : slot
    }
    for (const [index, block] of targets.entries()) {
      const held = columns && this.#holds(block)
      this.#pointers[BLOCKS_MAX + 1 + index] = held ? block.byteOffset + at : targetSlot(index)
    }
    let done = 0
    for (const { rows, ones, coefficientsAt } of passes) {
      const multiply = this.#code[kernelName(rows.length, ones)]
      assert(multiply !== undefined && rows.length <= ROWS_MAX, 'there is a kernel for each number of rows')
      multiply(
        POINTERS_AT,
        POINTERS_AT + 4 * sources.length,
        TARGET_POINTERS_AT + 4 * done,
        COEFFICIENTS_AT + coefficientsAt,
        columns ? length : length + COLUMN_BYTES - (length % COLUMN_BYTES),
      )
      done += rows.length
    }
    for (const [index, block] of targets.entries()) {
      if (columns && this.#holds(block)) continue
      block.set(part(this.bytes, targetSlot(index), length), at)
    }
  }

  #holds(block: Uint8Array): boolean {
    return block.buffer === this.bytes.buffer
  }
}

function assembled(): Uint8Array {
  // A relaxed look-up is one instruction of x86, a plain one two; their results are the same for indexes below 16.
  const relaxed = assemble([...crc32cFunctions(0), ...multiplyFunctions(true)])
  return WebAssembly.validate(relaxed) ? relaxed : assemble([...crc32cFunctions(0), ...multiplyFunctions(false)])
}

function targetSlot(index: number): number {
  return SLOTS_AT + (BLOCKS_MAX + index) * SLOT_BYTES
}

function part(block: Uint8Array, at: number, length: number): Uint8Array {
  return at === 0 && length === block.length ? block : block.subarray(at, at + length)
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT_BYTES) * ALIGNMENT_BYTES
}
