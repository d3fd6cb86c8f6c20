import assert from 'node:assert/strict'
import { test } from 'node:test'

import { OperationError } from '#base/errors.ts'
import { MemoryBudget } from '#base/memory-budget.ts'
import { countsBy } from '#base/metrics.ts'
import type { MaybePromise } from '#fuse/file-system.ts'

import { ReadingPool } from './reading-pool.ts'
import { CacheDouble, content, KIB, MIB, SourceDouble, type Asked } from './source-double.ts'
import { VersionReader } from './version-reader.ts'

const PIECE = 128 * KIB

function made(
  size: number,
  memory = 256 * MIB,
  cached?: CacheDouble,
): { source: SourceDouble; budget: MemoryBudget; reader: VersionReader } {
  const source = new SourceDouble(size, cached)
  const budget = new MemoryBudget(memory)
  return { source, budget, reader: new VersionReader(source, new ReadingPool({ budget, hedge: false })) }
}

const wasted = async (): Promise<number> => (await countsBy('eider_mount_prefetch_wasted_bytes_total')).get('') ?? 0

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

async function check(
  answer: MaybePromise<Uint8Array | readonly Uint8Array[]>,
  offset: number,
  length: number,
): Promise<void> {
  const given = await answer
  const bytes = given instanceof Uint8Array ? given : Buffer.concat(given)
  assert.ok(content(offset, length).equals(bytes), `the bytes at ${offset}`)
}

const ranges = (asked: readonly Asked[]): [number, number][] => asked.map(({ offset, length }) => [offset, length])

test('[S51] the first read asks for just its bytes, also at the start of a large file', async () => {
  const { source, reader, budget } = made(1024 * MIB)
  const handle = reader.handle()
  await check(handle.read(0, PIECE), 0, PIECE)
  assert.deepEqual(ranges(source.asked), [[0, PIECE]])
  await turn()
  assert.equal(budget.used, 0)
})

test('[S53] a sequential reader is fetched ahead of, each byte once, and answered without a wait in the end', async () => {
  const size = 100 * MIB + 12_345
  const { source, reader, budget } = made(size)
  const handle = reader.handle()
  let waits = 0
  for (let at = 0; at < size; at += PIECE) {
    const length = Math.min(PIECE, size - at)
    const answer = handle.read(at, PIECE)
    if (answer instanceof Promise) waits++
    await check(answer, at, length)
    if (at % MIB === 0) await turn()
  }
  assert.equal(source.fetchedBytes, size)
  assert.ok(source.asked.length <= 50, `${source.asked.length} requests`)
  assert.ok(waits <= 12, `${waits} waits`)
  handle.close()
  await turn()
  assert.equal(budget.used, 0)
})

test('a large file read from the start has eight requests under way after five round trips', async () => {
  const { source, reader } = made(1024 * MIB)
  source.onAsked = () => undefined
  const handle = reader.handle()
  let at = 0
  for (let trips = 0; trips < 5; trips++) {
    // The kernel has two requests of a sequential reader under way.
    const reads = [handle.read(at, PIECE), handle.read(at + PIECE, PIECE)]
    await turn()
    for (const asked of [...source.open]) asked.answer()
    await check(reads[0] ?? [], at, PIECE)
    await check(reads[1] ?? [], at + PIECE, PIECE)
    for (at += 2 * PIECE; ; at += PIECE) {
      const answer = handle.read(at, PIECE)
      if (answer instanceof Promise) break
      await check(answer, at, PIECE)
    }
    await turn()
  }
  assert.ok(source.open.size >= 8, `${source.open.size} under way`)
  handle.close()
})

test('[S51] cold random reads cost one request each and no byte more than they ask for', async () => {
  const { source, reader } = made(1024 * MIB)
  const handle = reader.handle()
  let seed = 1
  for (let count = 0; count < 500; count++) {
    seed = (seed * 48_271) % 2_147_483_647
    const at = (seed % 8191) * PIECE
    await check(handle.read(at, PIECE), at, PIECE)
  }
  assert.ok(source.asked.length <= 510, `${source.asked.length} requests`)
  assert.ok(source.fetchedBytes <= 520 * PIECE, `${source.fetchedBytes / PIECE} pieces`)
})

test('what the kernel splits in pieces side by side is one request', async () => {
  const { source, reader } = made(1024 * MIB)
  const handle = reader.handle()
  const at = 77 * MIB
  // Out of order, too.
  const answers = [3, 0, 1, 2].map((index) => [index, handle.read(at + index * 32 * KIB, 32 * KIB)] as const)
  for (const [index, answer] of answers) await check(answer, at + index * 32 * KIB, 32 * KIB)
  assert.deepEqual(ranges(source.asked), [[at, 128 * KIB]])
})

test('[S51] many readers of the same bytes share one request', async () => {
  const { source, reader, budget } = made(64 * MIB)
  source.onAsked = () => undefined
  const handles = Array.from({ length: 20 }, () => reader.handle())
  const answers = handles.map((handle) => handle.read(5 * MIB, PIECE))
  await turn()
  const late = reader.handle().read(5 * MIB + 1000, 1000)
  await turn()
  assert.deepEqual(ranges(source.asked), [[5 * MIB, PIECE]])
  for (const asked of source.open) asked.answer()
  for (const answer of answers) await check(answer, 5 * MIB, PIECE)
  await check(late, 5 * MIB + 1000, 1000)
  for (const handle of handles) handle.close()
  assert.equal(budget.used, 0)
})

test('a second sequential reader of a file reads what is there for the first', async () => {
  const { source, reader } = made(64 * MIB)
  const first = reader.handle()
  const second = reader.handle()
  for (let at = 0; at < 64 * MIB; at += PIECE) {
    await check(first.read(at, PIECE), at, PIECE)
    await check(second.read(at, PIECE), at, PIECE)
  }
  assert.equal(source.fetchedBytes, 64 * MIB)
})

test('a reader that waits gives up alone, and the request goes on for the others', async () => {
  const { source, reader, budget } = made(64 * MIB)
  source.onAsked = () => undefined
  const abort = new AbortController()
  const left = reader.read(0, PIECE, abort.signal)
  const stays = reader.handle().read(0, PIECE)
  await turn()
  abort.abort()
  await assert.rejects(left, { code: 'ABORTED' })
  assert.equal(source.asked[0]?.signal.aborted, false)
  source.asked[0]?.answer()
  await check(stays, 0, PIECE)
  const abortAll = new AbortController()
  const alone = reader.read(9 * MIB, PIECE, abortAll.signal)
  await turn()
  abortAll.abort()
  await assert.rejects(alone, { code: 'ABORTED' })
  await turn()
  assert.equal(source.asked[1]?.signal.aborted, true)
  await turn()
  assert.equal(budget.used, 0)
})

test('[S21] once the version is gone its reader gets ESTALE, and before that bytes of it alone', async () => {
  const { source, reader, budget } = made(64 * MIB)
  const handle = reader.handle()
  for (let at = 0; at < MIB; at += PIECE) await check(handle.read(at, PIECE), at, PIECE)
  const there = source.fetchedBytes
  source.onAsked = ({ fail }) => fail(new OperationError('FILE_STALE', 'Cannot read: replaced'))
  for (let at = MIB; at < there; at += PIECE)
    await check(handle.read(at, Math.min(PIECE, there - at)), at, Math.min(PIECE, there - at))
  await assert.rejects(async () => handle.read(there, PIECE), { code: 'FILE_STALE' })
  await assert.rejects(async () => handle.read(there - 1000, PIECE), { code: 'FILE_STALE' })
  handle.close()
  await turn()
  assert.equal(budget.used, 0)
})

test('a read that meets a request ahead of it that fails asks once itself', async () => {
  const { source, reader } = made(64 * MIB)
  const handle = reader.handle()
  await check(handle.read(0, PIECE), 0, PIECE)
  source.onAsked = () => undefined
  const second = handle.read(PIECE, PIECE)
  await turn()
  const [, ahead] = source.asked
  assert.ok(ahead !== undefined && ahead.length > PIECE)
  ahead.fail(new OperationError('STORE_UNAVAILABLE', 'Cannot read: no answer'))
  await turn()
  for (const asked of [...source.open]) asked.answer()
  await check(second, PIECE, PIECE)
  source.onAsked = ({ fail }) => fail(new OperationError('STORE_UNAVAILABLE', 'Cannot read: no answer'))
  const asked = source.asked.length
  await assert.rejects(async () => handle.read(50 * MIB, PIECE), { code: 'STORE_UNAVAILABLE' })
  assert.equal(source.asked.length, asked + 1)
})

test('a jump gives up what is on its way, and counts what was fetched for nothing', async () => {
  const wastedBefore = await wasted()
  const { source, reader, budget } = made(1024 * MIB)
  const handle = reader.handle()
  await check(handle.read(0, PIECE), 0, PIECE)
  source.onAsked = () => undefined
  const second = handle.read(PIECE, PIECE)
  await turn()
  source.asked[1]?.answer()
  await check(second, PIECE, PIECE)
  assert.ok(source.open.size > 0)
  const jumped = handle.read(500 * MIB, PIECE)
  await turn()
  assert.deepEqual(ranges([...source.open]), [[500 * MIB, PIECE]])
  source.asked.at(-1)?.answer()
  await check(jumped, 500 * MIB, PIECE)
  await turn()
  assert.equal(budget.used, 0)
  // Of two ranges of 1 MiB one piece was read.
  assert.equal((await wasted()) - wastedBefore, 2 * MIB - PIECE)
})

test('with a cache what was fetched is kept in whole blocks, and asked for once', async () => {
  const size = 8 * MIB + 1000
  const cache = new CacheDouble(size)
  const { source, reader, budget } = made(size, 64 * MIB, cache)
  const random = reader.handle()
  await check(random.read(5 * MIB + 100, 5000), 5 * MIB + 100, 5000)
  assert.deepEqual(ranges(source.asked), [[5 * MIB, PIECE]])
  await turn()
  assert.equal(budget.used, 0)
  await check(random.read(5 * MIB + 9000, 9000), 5 * MIB + 9000, 9000)
  assert.equal(source.asked.length, 1)
  const handle = reader.handle()
  for (let at = 0; at < size; at += PIECE) {
    await check(handle.read(at, PIECE), at, Math.min(PIECE, size - at))
    await turn()
  }
  assert.equal(source.fetchedBytes, size)
  assert.equal(cache.missedBytes, size)
  assert.ok(cache.isWhole)
  const before = source.asked.length
  const again = reader.handle()
  for (let at = 0; at < size; at += PIECE) await check(again.read(at, PIECE), at, Math.min(PIECE, size - at))
  cache.isAsync = true
  await check(again.read(MIB, PIECE), MIB, PIECE)
  assert.equal(source.asked.length, before)
  handle.close()
  again.close()
  await turn()
  assert.equal(budget.used, 0)
})

test('a block that the cache finds corrupt is fetched again, with what lies around it read from the cache', async () => {
  const cache = new CacheDouble(4 * MIB)
  const { source, reader } = made(4 * MIB, 64 * MIB, cache)
  await cache.keep(0, content(0, 4 * MIB))
  cache.corrupt.add(3)
  const handle = reader.handle()
  await check(handle.read(2 * PIECE, 3 * PIECE), 2 * PIECE, 3 * PIECE)
  assert.ok(source.fetchedBytes <= 3 * PIECE)
  await turn()
  assert.ok(cache.isWhole)
})

test('a disk slower than the store gets most of what is read in order, as less is fetched ahead of it', async () => {
  const cache = new CacheDouble(64 * MIB)
  const { source, reader } = made(64 * MIB, 48 * MIB, cache)
  const keep = cache.keep.bind(cache)
  let writing = Promise.resolve()
  // One write after another, each slower than the fetch of as much.
  cache.keep = (offset, bytes) => {
    writing = writing.then(async () => {
      for (let turns = 0; turns < 20; turns++) await turn()
      await keep(offset, bytes)
    })
    return writing
  }
  const handle = reader.handle()
  for (let at = 0; at < 64 * MIB; at += PIECE) {
    await check(handle.read(at, PIECE), at, PIECE)
    await turn()
  }
  await writing
  assert.ok(cache.blocks.size >= (64 * 8 * 8) / 10, `${cache.blocks.size} of ${64 * 8} blocks were kept`)
  assert.equal(source.fetchedBytes, 64 * MIB)
  handle.close()
})

test('a reader does not wait for the cache, and a full one costs nothing but the cache', async () => {
  const cache = new CacheDouble(16 * MIB)
  const { source, reader, budget } = made(16 * MIB, 16 * MIB, cache)
  let open = (): void => undefined
  cache.gate = new Promise((resolve) => {
    open = resolve
  })
  const handle = reader.handle()
  for (let at = 0; at < 16 * MIB; at += PIECE) {
    await check(handle.read(at, PIECE), at, PIECE)
    await turn()
    assert.ok(budget.used <= 16 * MIB)
  }
  assert.equal(source.fetchedBytes, 16 * MIB)
  cache.isFull = true
  open()
  await turn()
  handle.close()
  await turn()
  assert.equal(budget.used, 0)
})

test('a long read for staging goes in ranges side by side, under the bound', async () => {
  const { source, reader, budget } = made(100 * MIB, 32 * MIB)
  source.onAsked = (asked) => setImmediate(asked.answer)
  const bytes = await reader.read(3 * MIB + 5, 40 * MIB)
  assert.ok(bytes.equals(content(3 * MIB + 5, 40 * MIB)))
  assert.ok(source.openBytesMax > 4 * MIB && source.openBytesMax <= 32 * MIB)
  assert.equal(source.fetchedBytes, 40 * MIB)
  await turn()
  assert.equal(budget.used, 0)
})
