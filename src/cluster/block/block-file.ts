/**
 * One block as a file: the bytes of the block from offset 0, so that pages of the block are pages of the file, and a trailer
 * with a checksum for each (docs/formats/blocks.md). Written once, under a temporary name, from a stream whose length
 * and checksum were declared before; read in ranges of which every page that is touched is checked.
 *
 * Not here: names, when a file is a block of the disk (`disk.ts`), and what failures of the file system mean.
 */
import { OperationError } from '#base/errors.ts'
import type { BufferMemory } from '#cluster/erasure/buffer-memory.ts'
import { checkAborted, untilAborted } from '#store/abort.ts'

import type { BlockFiles, NewFile, StoredFile } from './block-files.ts'
import { type BlockId, blockName, blockPath } from './block-id.ts'
import { decodeTrailer, encodeTrailer, sizeOfFile, type Trailer, trailerBytes } from './block-trailer.ts'
import { badPages, PAGE_BYTES, PageSums, wholeOf } from './page-sums.ts'
import type { BlockFacts } from './permit.ts'
import { WorkSlots } from './work-slots.ts'

/** Bytes gathered for one call: enough that the call is not what takes the time, little enough for many writes at once. */
const GATHER_BYTES = 256 << 10
/** Pieces gathered for one call, so that a source of tiny ones costs no more memory than its bytes are worth. */
const GATHER_PIECES_MAX = 64
/** Bytes of one uncached read. */
const VERIFY_BYTES = 1 << 20
/** Buffers for uncached reads that a disk has: as many as keep it busy. */
const BUFFERS_MAX = 4

/** The most that one ranged read gives. */
export const FETCH_BYTES_MAX = 4 << 20

/**
 * What a ranged read gives: all of the range, each page of it checked; or the pages that are not what was written. Bytes in memory that
 * was given for them are to be released.
 */
export type RangeRead =
  | { readonly outcome: 'whole'; readonly bytes: Uint8Array; readonly release?: () => void }
  | { readonly outcome: 'bad-pages'; readonly pages: readonly number[] }

/** What a check of a whole block gives. */
export type BlockCheck =
  | { readonly outcome: 'whole'; readonly facts: BlockFacts }
  | { readonly outcome: 'bad-pages'; readonly pages: readonly number[] }

/**
 * Memory for uncached reads, bounded and used again. A buffer whose read failed is not: a call that was given up may still
 * write to it.
 */
export class VerifyBuffers {
  readonly #files: BlockFiles
  readonly #idle: Uint8Array[] = []
  /** Who waits is one of the operations under way on the disk, which has a bound of its own. */
  readonly #slots = new WorkSlots(BUFFERS_MAX, Number.POSITIVE_INFINITY)

  constructor(files: BlockFiles) {
    this.#files = files
  }

  use<T>(work: (buffer: Uint8Array) => Promise<T>): Promise<T> {
    const withBuffer = async (): Promise<T> => {
      const buffer = this.#idle.pop() ?? this.#files.allocate(VERIFY_BYTES)
      const result = await work(buffer)
      this.#idle.push(buffer)
      return result
    }
    return this.#slots.run('read a block back', withBuffer, undefined)
  }
}

/**
 * Writes the block to a new file at `path`, syncs it, and reads it back; the file's name is not yet durable. Where that
 * fails, the file is closed and left to the caller to remove.
 * @throws INPUT_INVALID where the bytes are not those declared, BLOCK_IO_FAILED where they come back as others, ABORTED, and what
 *   calls of the file system throw
 */
export async function writeBlockFile(
  files: BlockFiles,
  buffers: VerifyBuffers,
  path: string,
  facts: BlockFacts,
  bytes: AsyncIterable<Uint8Array>,
  signal?: AbortSignal,
): Promise<void> {
  const action = `write block ${blockName(facts.id)}`
  const file = await files.create(path)
  try {
    const sums = await appendAll(file, action, facts, bytes, signal)
    const trailer = encodeTrailer({ ...facts, sums })
    await file.append([trailer])
    await file.sync()
    checkAborted(action, signal)
    await buffers.use((buffer) => readBack(file, action, facts.size, sums, trailer, buffer))
  } catch (error) {
    // The first failure says more than one of closing after it.
    await file.close().catch(() => undefined)
    throw error
  }
  await file.close()
}

/** The bytes of the source, to the end of the file; the sums of their pages. */
async function appendAll(
  file: NewFile,
  action: string,
  facts: BlockFacts,
  source: AsyncIterable<Uint8Array>,
  signal: AbortSignal | undefined,
): Promise<Uint32Array> {
  const pages = new PageSums(facts.size)
  let gathered: Uint8Array[] = []
  let gatheredBytes = 0
  // One call at a time, while the next bytes come in.
  let writing: Promise<void> = Promise.resolve()
  const flush = async (): Promise<void> => {
    await writing
    writing = file.append(gathered)
    // It is waited for later; until then its failure must not count as one that nobody heard of.
    writing.catch(() => undefined)
    gathered = []
    gatheredBytes = 0
  }
  try {
    for await (const piece of pieces(action, source, signal)) {
      if (piece.length === 0) continue
      if (pages.taken + piece.length > facts.size) throw notDeclared(action, `more than ${facts.size} bytes came`)
      pages.add(piece)
      gathered.push(piece)
      gatheredBytes += piece.length
      if (gatheredBytes >= GATHER_BYTES || gathered.length >= GATHER_PIECES_MAX) await flush()
    }
    if (pages.taken < facts.size) throw notDeclared(action, `only ${pages.taken} of ${facts.size} bytes came`)
    const crc = pages.whole()
    if (crc !== facts.crc) throw notDeclared(action, `their crc32c is ${hex(crc)}, not ${hex(facts.crc)}`)
    if (gathered.length > 0) await flush()
  } finally {
    // The file is closed next, which must not be while a call writes to it. Its failure is thrown unless another was first.
    await writing.catch(() => undefined)
  }
  await writing
  return pages.sums
}

/** What the source gives, until the signal fires; its failures are not taken for the disk's. */
async function* pieces(
  action: string,
  source: AsyncIterable<Uint8Array>,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  const iterator = source[Symbol.asyncIterator]()
  let isDone = false
  try {
    for (;;) {
      const next = await untilAborted(action, iterator.next(), signal)
      if (next.done === true) break
      yield next.value
    }
    isDone = true
  } catch (error) {
    isDone = !(error instanceof OperationError && error.code === 'ABORTED')
    if (error instanceof OperationError) throw error
    throw new OperationError('INPUT_INVALID', `Cannot ${action}: its bytes broke off`, { cause: error })
  } finally {
    // Not waited for: a source that hangs would end only when its own deadline does. What it says then is nobody's.
    if (!isDone) void iterator.return?.().catch(() => undefined)
  }
}

function notDeclared(action: string, detail: string): OperationError {
  return new OperationError('INPUT_INVALID', `Cannot ${action}: its bytes are not those declared: ${detail}`)
}

function hex(crc: number): string {
  return crc.toString(16).padStart(8, '0')
}

async function readBack(
  file: NewFile,
  action: string,
  size: number,
  sums: Uint32Array,
  trailer: Buffer,
  buffer: Uint8Array,
): Promise<void> {
  const total = size + trailer.length
  for (let at = 0; at < total; at += buffer.length) {
    const got = await file.readBack(at, buffer)
    const here = Math.min(buffer.length, total - at)
    const data = Math.max(0, Math.min(here, size - at))
    const isSame =
      got === here &&
      badPages(buffer.subarray(0, data), sums, at / PAGE_BYTES).length === 0 &&
      trailer.subarray(at + data - size, at + here - size).equals(buffer.subarray(data, here))
    if (!isSame) {
      throw new OperationError('BLOCK_IO_FAILED', `Cannot ${action}: the disk gives back other bytes than were written`)
    }
  }
}

/** The file of a block, open to be read, its trailer checked. */
export class BlockFile {
  readonly #file: StoredFile
  readonly trailer: Trailer

  private constructor(file: StoredFile, trailer: Trailer) {
    this.#file = file
    this.trailer = trailer
  }

  /** @throws BLOCK_NOT_FOUND, BLOCK_CUT, BLOCK_CORRUPT, and what calls of the file system throw */
  static async open(files: BlockFiles, id: BlockId): Promise<BlockFile> {
    const file = await openBlock(files, id, 'cached')
    try {
      const size = sizeOf(file, id)
      const bytes = Buffer.allocUnsafe(trailerBytes(size))
      if ((await file.read(size, bytes)) < bytes.length) throw cutError(id)
      return new BlockFile(file, trailerOf(bytes, id, size))
    } catch (error) {
      await file.close().catch(() => undefined)
      throw error
    }
  }

  /**
   * `length` bytes from `offset` on, 1 to `FETCH_BYTES_MAX` of them and all within the block.
   * @param memory where they are to lie
   * @throws INPUT_INVALID, BLOCK_CUT, and what calls of the file system throw
   */
  async read(offset: number, length: number, memory?: BufferMemory): Promise<RangeRead> {
    const { id, size, sums } = this.trailer
    const isRange = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length > 0
    if (!isRange || offset + length > size || length > FETCH_BYTES_MAX) {
      const why = length > FETCH_BYTES_MAX ? `more than ${FETCH_BYTES_MAX}` : `not within its ${size}`
      const detail = `${length} bytes at ${offset} are ${why}`
      throw new OperationError('INPUT_INVALID', `Cannot read block ${blockName(id)}: ${detail}`)
    }
    const first = Math.floor(offset / PAGE_BYTES)
    const start = first * PAGE_BYTES
    const end = Math.min(size, Math.ceil((offset + length) / PAGE_BYTES) * PAGE_BYTES)
    const bytes = memory?.take(end - start) ?? Buffer.allocUnsafe(end - start)
    // Where this fails, the memory is lost: a call that was given up may still write to it.
    const count = await this.#file.read(start, bytes)
    const pages = count < bytes.length ? [] : badPages(bytes, sums, first)
    if (count === bytes.length && pages.length === 0) {
      const range = bytes.subarray(offset - start, offset - start + length)
      return { outcome: 'whole', bytes: range, ...(memory === undefined ? {} : { release: () => memory.give(bytes) }) }
    }
    memory?.give(bytes)
    if (count < bytes.length) throw cutError(id)
    return { outcome: 'bad-pages', pages }
  }

  close(): Promise<void> {
    return this.#file.close()
  }
}

/**
 * Reads a whole block from its device and compares it with all its checksums.
 * @throws BLOCK_NOT_FOUND, BLOCK_CUT, BLOCK_CORRUPT where the trailer is damaged, ABORTED, and what calls of the file system throw
 */
export async function checkBlockFile(
  files: BlockFiles,
  buffers: VerifyBuffers,
  id: BlockId,
  signal?: AbortSignal,
): Promise<BlockCheck> {
  const file = await openBlock(files, id, 'uncached')
  try {
    const size = sizeOf(file, id)
    return await buffers.use(async (buffer) => {
      const trailer = await readTrailer(file, id, size, buffer)
      const pages: number[] = []
      for (let at = 0; at < size; at += buffer.length) {
        checkAborted(`check block ${blockName(id)}`, signal)
        const here = Math.min(buffer.length, size - at)
        if ((await file.read(at, buffer)) < here) throw cutError(id)
        pages.push(...badPages(buffer.subarray(0, here), trailer.sums, at / PAGE_BYTES))
      }
      if (pages.length > 0) return { outcome: 'bad-pages', pages }
      if (wholeOf(trailer.sums, size) !== trailer.crc) {
        throw new OperationError('BLOCK_CORRUPT', `Cannot use block ${blockName(id)}: its checksums are of two blocks`)
      }
      return { outcome: 'whole', facts: { id, size, crc: trailer.crc } }
    })
  } finally {
    await file.close()
  }
}

/** By uncached reads, which begin at pages. */
async function readTrailer(file: StoredFile, id: BlockId, size: number, buffer: Uint8Array): Promise<Trailer> {
  const bytes = Buffer.allocUnsafe(trailerBytes(size))
  let at = size - (size % PAGE_BYTES)
  for (let filled = 0; filled < bytes.length; at += buffer.length) {
    const got = await file.read(at, buffer)
    const skipped = Math.max(0, size - at)
    if (got <= skipped) throw cutError(id)
    bytes.set(buffer.subarray(skipped, Math.min(got, skipped + bytes.length - filled)), filled)
    filled += got - skipped
  }
  return trailerOf(bytes, id, size)
}

async function openBlock(files: BlockFiles, id: BlockId, how: 'cached' | 'uncached'): Promise<StoredFile> {
  const file = await files.open(blockPath(id), how)
  if (file !== undefined) return file
  throw new OperationError('BLOCK_NOT_FOUND', `Cannot use block ${blockName(id)}: it is not there`)
}

function sizeOf(file: StoredFile, id: BlockId): number {
  const size = sizeOfFile(file.bytes)
  if (size === undefined) throw cutError(id)
  return size
}

function cutError(id: BlockId): OperationError {
  return new OperationError('BLOCK_CUT', `Cannot use block ${blockName(id)}: its file has lost its end`)
}

function trailerOf(bytes: Buffer, id: BlockId, size: number): Trailer {
  const trailer = decodeTrailer(bytes, id, size)
  if (trailer === 'cut') throw cutError(id)
  if (trailer !== 'damaged') return trailer
  throw new OperationError('BLOCK_CORRUPT', `Cannot use block ${blockName(id)}: its trailer is damaged`)
}
