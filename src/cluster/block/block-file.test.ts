import assert from 'node:assert/strict'
import { test } from 'node:test'

import fc from 'fast-check'

import { OperationError } from '#base/errors.ts'

import { BlockFile, type BlockCheck, checkBlockFile, VerifyBuffers, writeBlockFile } from './block-file.ts'
import { blockPath } from './block-id.ts'
import { BLOCK_BYTES_MAX, blockFileBytes, sizeOfFile } from './block-trailer.ts'
import { crc32c } from '#cluster/erasure/crc32c.ts'
import { codeOf, factsOf, idAt, madeUp, stream } from './disk-fixture.ts'
import { MemoryBlockFiles } from './memory-block-files.ts'
import { PAGE_BYTES, PageSums } from './page-sums.ts'

const id = idAt()
const path = blockPath(id)

async function filesWith(bytes: Uint8Array, pieceBytes?: number): Promise<MemoryBlockFiles> {
  const files = new MemoryBlockFiles()
  await files.makeDirectory(path.slice(0, 2))
  await writeBlockFile(files, new VerifyBuffers(files), path, factsOf(id, bytes), stream(bytes, pieceBytes))
  return files
}

/** What a reader of the whole block is told: nothing, the pages that are bad, or the code of an error. */
async function complaint(files: MemoryBlockFiles, size: number): Promise<string | readonly number[] | undefined> {
  try {
    const file = await BlockFile.open(files, id)
    const read = await file.read(0, size)
    await file.close()
    return read.outcome === 'whole' ? undefined : read.pages
  } catch (error) {
    assert.ok(error instanceof OperationError)
    return error.code
  }
}

async function checked(files: MemoryBlockFiles): Promise<BlockCheck | string> {
  try {
    return await checkBlockFile(files, new VerifyBuffers(files), id)
  } catch (error) {
    assert.ok(error instanceof OperationError)
    return error.code
  }
}

/** As docs/formats/blocks.md defines it, bit by bit. */
function plainCrc(bytes: Uint8Array): number {
  let crc = 0xffffffff
  for (const byte of bytes) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1
  }
  return ~crc >>> 0
}

const anySize = fc.oneof(
  fc.integer({ min: 1, max: 3 * PAGE_BYTES }),
  fc.constantFrom(1, 4095, 4096, 4097, 8192, 1 << 20, (1 << 20) + 1, (1 << 20) - 1),
)

test('the checksum of the whole is that of its pages, however the bytes come', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 20_000 }), fc.array(fc.integer({ min: 1, max: 6000 })), (size, cuts) => {
      const bytes = madeUp(size)
      const sums = new PageSums(size)
      let at = 0
      for (const cut of cuts) {
        sums.add(bytes.subarray(at, at + cut))
        at = Math.min(size, at + cut)
      }
      sums.add(bytes.subarray(at))
      assert.equal(sums.whole(), crc32c(bytes))
      for (const [page, sum] of sums.sums.entries()) {
        assert.equal(sum, crc32c(bytes.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES)))
      }
    }),
    { seed: 3 },
  )
})

test('the length of a file tells the size of its block', () => {
  let lengthBefore = 0
  for (let size = 1; size <= 20_000; size++) {
    const length = blockFileBytes(size)
    assert.equal(sizeOfFile(length), size)
    for (let between = lengthBefore + 1; between < length; between++) assert.equal(sizeOfFile(between), undefined)
    lengthBefore = length
  }
  assert.equal(sizeOfFile(blockFileBytes(BLOCK_BYTES_MAX)), BLOCK_BYTES_MAX)
  assert.equal(sizeOfFile(blockFileBytes(BLOCK_BYTES_MAX) + 1), undefined)
})

test('a block file is what docs/formats/blocks.md says', async () => {
  for (const size of [1, 4096, 10_000]) {
    const bytes = madeUp(size)
    const file = (await filesWith(bytes)).bytesOf(path) ?? Buffer.alloc(0)
    const rest = file.length - 36
    assert.equal(rest - 4 * Math.ceil(rest / 4100), size)
    assert.ok(file.subarray(0, size).equals(bytes))
    const trailer = file.subarray(size)
    assert.equal(trailer.toString('latin1', 0, 8), 'EIDERBLK')
    assert.equal(trailer.readUInt32LE(8), 1)
    assert.equal(trailer.readUInt32LE(12), plainCrc(bytes))
    assert.equal(trailer.readBigUInt64LE(16), BigInt(id))
    assert.equal(trailer.readBigUInt64LE(24), BigInt(size))
    const pages = Math.ceil(size / 4096)
    for (let page = 0; page < pages; page++) {
      assert.equal(trailer.readUInt32LE(32 + 4 * page), plainCrc(bytes.subarray(4096 * page, 4096 * (page + 1))))
    }
    assert.equal(trailer.readUInt32LE(32 + 4 * pages), plainCrc(trailer.subarray(0, 32 + 4 * pages)))
    assert.equal(trailer.length, 36 + 4 * pages)
  }
})

test('a range gives the bytes that were written, and costs one read of the pages that it touches', async () => {
  await fc.assert(
    fc.asyncProperty(
      anySize,
      fc.nat(),
      fc.nat(),
      fc.integer({ min: 1, max: 100_000 }),
      async (size, from, to, piece) => {
        const bytes = madeUp(size)
        const files = await filesWith(bytes, Math.max(piece, Math.ceil(size / 300)))
        const offset = from % size
        const length = 1 + (to % (size - offset))
        const file = await BlockFile.open(files, id)
        const reads = files.counts.get('read') ?? 0
        const read = await file.read(offset, length)
        assert.equal(files.counts.get('read'), reads + 1)
        assert.equal(read.outcome, 'whole')
        assert.ok(read.outcome === 'whole' && bytes.subarray(offset, offset + length).equals(read.bytes))
        await file.close()
        assert.deepEqual(await checked(files), { outcome: 'whole', facts: factsOf(id, bytes) })
        assert.equal(files.openCount, 0)
      },
    ),
    { seed: 4, numRuns: 200 },
  )
})

test('a damaged page spoils the ranges that touch it, by its number, and no others', async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 40_000 }), fc.nat(), fc.nat(), fc.nat(), async (size, at, from, to) => {
      const files = await filesWith(madeUp(size))
      const stored = files.bytesOf(path)
      assert.ok(stored !== undefined)
      const position = at % size
      stored[position] = (stored[position] ?? 0) ^ 0x10
      const bad = Math.floor(position / PAGE_BYTES)
      const offset = from % size
      const length = 1 + (to % (size - offset))
      const file = await BlockFile.open(files, id)
      const touches = Math.floor(offset / PAGE_BYTES) <= bad && bad <= Math.floor((offset + length - 1) / PAGE_BYTES)
      const read = await file.read(offset, length)
      assert.deepEqual(read.outcome === 'whole' ? [] : read.pages, touches ? [bad] : [])
      assert.deepEqual(await checked(files), { outcome: 'bad-pages', pages: [bad] })
    }),
    { seed: 5, numRuns: 100 },
  )
})

test('every byte of a block file matters: whichever is flipped, a reader and a check are told', async () => {
  for (const size of [1, 100, PAGE_BYTES, PAGE_BYTES + 1]) {
    const files = await filesWith(madeUp(size))
    const stored = files.bytesOf(path)
    assert.ok(stored !== undefined)
    for (let at = 0; at < stored.length; at++) {
      const right = stored[at] ?? 0
      stored[at] = right ^ (1 << (at % 8))
      const expected = at < size ? [Math.floor(at / PAGE_BYTES)] : 'BLOCK_CORRUPT'
      assert.deepEqual(await complaint(files, size), expected, `byte ${at} of ${size}`)
      const check = await checked(files)
      assert.deepEqual(typeof check === 'string' ? check : 'pages' in check && check.pages, expected)
      stored[at] = right
    }
    assert.equal(await complaint(files, size), undefined)
  }
})

test('a file that is cut or lengthened, to whatever length, is told as that', async () => {
  const size = PAGE_BYTES + 200
  const whole = Buffer.from((await filesWith(madeUp(size))).bytesOf(path) ?? [])
  for (let length = 0; length <= whole.length + 50; length++) {
    if (length === whole.length) continue
    const files = new MemoryBlockFiles()
    await files.makeDirectory(path.slice(0, 2))
    files.place(path, Buffer.concat([whole, Buffer.alloc(50)]).subarray(0, length))
    assert.equal(await complaint(files, size), 'BLOCK_CUT', `cut to ${length} of ${whole.length}`)
    assert.equal(await checked(files), 'BLOCK_CUT', `cut to ${length} of ${whole.length}`)
  }
})

test('a file that shrinks while it is open is told as cut', async () => {
  const bytes = madeUp(20_000)
  const files = await filesWith(bytes)
  const file = await BlockFile.open(files, id)
  files.place(path, bytes.subarray(0, 5000))
  assert.equal(await codeOf(file.read(0, 20_000)), 'BLOCK_CUT')
  assert.equal((await file.read(0, 4096)).outcome, 'whole')
})

test('the block of another id, or of none, is not taken for this one', async () => {
  const files = await filesWith(madeUp(300))
  const other = idAt(undefined, 1)
  assert.equal(await codeOf(BlockFile.open(files, other)), 'BLOCK_NOT_FOUND')
  files.place(blockPath(other), files.bytesOf(path) ?? Buffer.alloc(0))
  assert.equal(await codeOf(BlockFile.open(files, other)), 'BLOCK_CORRUPT')
})

test('ranges outside of the block are refused', async () => {
  const file = await BlockFile.open(await filesWith(madeUp(5000)), id)
  const wrong = [
    [0, 0],
    [0, 5001],
    [-1, 2],
    [5000, 1],
    [0.5, 1],
    [0, Number.NaN],
    [2 ** 53, 1],
  ] as const
  for (const [offset, length] of wrong) assert.equal(await codeOf(file.read(offset, length)), 'INPUT_INVALID')
  assert.equal((await file.read(4999, 1)).outcome, 'whole')
})

test('bytes that are not those declared are refused, and the file is closed', async () => {
  const bytes = madeUp(10_000)
  const facts = factsOf(id, bytes)
  async function* broken(): AsyncGenerator<Uint8Array> {
    yield bytes.subarray(0, 5000)
    throw Object.assign(new Error('socket'), { code: 'EIO', errno: -5 })
  }
  const sources: Record<string, AsyncIterable<Uint8Array>> = {
    short: stream(bytes.subarray(1)),
    long: stream(Buffer.concat([bytes, bytes]), 700),
    other: stream(madeUp(10_000, 2)),
    none: stream(Buffer.alloc(0)),
    broken: broken(),
  }
  for (const [name, source] of Object.entries(sources)) {
    const files = new MemoryBlockFiles()
    await files.makeDirectory(path.slice(0, 2))
    const written = writeBlockFile(files, new VerifyBuffers(files), path, facts, source)
    assert.equal(await codeOf(written), 'INPUT_INVALID', name)
    assert.equal(files.openCount, 0, name)
  }
})

test('a source that hangs is left when the caller gives up', async () => {
  const files = new MemoryBlockFiles()
  await files.makeDirectory(path.slice(0, 2))
  const giveUp = new AbortController()
  let isLeft = false
  const source: AsyncIterable<Uint8Array> = {
    [Symbol.asyncIterator]: () => ({
      next: () => {
        queueMicrotask(() => giveUp.abort())
        return new Promise(() => undefined)
      },
      return: () => {
        isLeft = true
        return Promise.resolve({ done: true, value: undefined })
      },
    }),
  }
  const facts = factsOf(id, madeUp(100))
  const written = writeBlockFile(files, new VerifyBuffers(files), path, facts, source, giveUp.signal)
  assert.equal(await codeOf(written), 'ABORTED')
  assert.ok(isLeft)
  assert.equal(files.openCount, 0)
})
