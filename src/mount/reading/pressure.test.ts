/** Many readers and writers on little memory: nobody waits for ever, the bound holds, and every byte is right. */
import fc from 'fast-check'
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { isOperationError, OperationError } from '#base/errors.ts'
import { MemoryBudget } from '#base/memory-budget.ts'

import { ReadingPool } from './reading-pool.ts'
import { CacheDouble, content, KIB, MIB, SourceDouble } from './source-double.ts'
import { VersionReader } from './version-reader.ts'

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** Park and Miller's generator: below `bound`. */
function randomFrom(seed: number): (bound: number) => number {
  let state = (seed % 2_147_483_646) + 1
  return (bound) => {
    state = (state * 48_271) % 2_147_483_647
    return state % bound
  }
}

interface World {
  readonly budget: MemoryBudget
  readonly sources: SourceDouble[]
  readonly readers: VersionReader[]
  readonly random: (bound: number) => number
  writing: number
  running: boolean
}

function world(memory: number, files: number, size: number, seed: number, caches: boolean, faults: boolean): World {
  const random = randomFrom(seed)
  const budget = new MemoryBudget(memory)
  const pool = new ReadingPool({ budget, hedge: false })
  const sources = Array.from({ length: files }, (_, index) => {
    const cache = caches && index % 2 === 0 ? new CacheDouble(size) : undefined
    if (cache !== undefined) cache.isAsync = index % 4 === 0
    const source = new SourceDouble(size, cache)
    source.onAsked = (asked) => {
      let turns = 1 + random(6)
      const fails = faults && random(20) === 0
      const step = (): void => {
        if (turns-- > 0) setImmediate(step)
        else if (fails) asked.fail(new OperationError('STORE_UNAVAILABLE', 'Cannot read: no answer'))
        else asked.answer()
      }
      step()
    }
    return source
  })
  const readers = sources.map((source) => new VersionReader(source, pool))
  return { budget, sources, readers, random, writing: 0, running: true }
}

async function read(it: World, index: number, reads: number, mayFail: boolean): Promise<void> {
  const reader = it.readers[index % it.readers.length]
  assert.ok(reader !== undefined)
  const handle = reader.handle()
  let at = index % 3 === 0 ? 0 : it.random(reader.size)
  for (let count = 0; count < reads; count++) {
    // A third reads on, a third jumps, a third does now this and now that.
    if (index % 3 === 1 || (index % 3 === 2 && it.random(4) === 0)) at = it.random(reader.size)
    if (at >= reader.size) at = 0
    const length = Math.min(reader.size - at, 1 + it.random(MIB))
    const abort = new AbortController()
    if (mayFail && it.random(10) === 0) setImmediate(() => abort.abort())
    try {
      // Now and then as what is staged is read, which can be given up.
      const given = await (mayFail && it.random(3) === 0
        ? reader.read(at, length, abort.signal)
        : handle.read(at, length))
      const bytes = given instanceof Uint8Array ? given : Buffer.concat(given)
      assert.ok(content(at, length).equals(bytes), `the bytes at ${at} of ${index}`)
    } catch (error) {
      if (!mayFail || !isOperationError(error, 'STORE_UNAVAILABLE', 'ABORTED')) throw error
    }
    at += length
    if (it.random(3) === 0) await turn()
  }
  handle.close()
}

async function write(it: World, parts: number): Promise<void> {
  for (let count = 0; count < parts; count++) {
    const bytes = 256 * KIB + it.random(2 * MIB)
    const share = await it.budget.reserve(bytes)
    it.writing += bytes
    for (let turns = it.random(8); turns > 0; turns--) await turn()
    it.writing -= bytes
    share.release()
    await turn()
  }
}

async function watch(it: World): Promise<void> {
  while (it.running) {
    const fetching = it.sources.reduce((sum, { openBytes }) => sum + openBytes, 0)
    assert.ok(it.budget.used <= it.budget.bytesMax, `${it.budget.used} bytes are lent`)
    assert.ok(fetching + it.writing <= it.budget.used, 'whatever is under way is lent')
    await turn()
  }
}

async function run(it: World, readers: number, writers: number, reads: number, mayFail: boolean): Promise<void> {
  const watching = watch(it)
  const all = Promise.all([
    ...Array.from({ length: readers }, (_, index) => read(it, index, reads, mayFail)),
    ...Array.from({ length: writers }, () => write(it, reads)),
  ])
  await all.finally(() => {
    it.running = false
  })
  await watching
  // Requests that were given up, and what the cache still writes.
  for (let turns = 0; turns < 20 && it.budget.used > 0; turns++) await turn()
  assert.equal(it.budget.used, 0)
}

test(
  '[S50] 64 readers and 16 writers on 8 MiB all come to their end, within the bound',
  { timeout: 120_000 },
  async () => {
    await run(world(8 * MIB, 8, 24 * MIB, 11, false, false), 64, 16, 20, false)
  },
)

test(
  'under any mix of readers, writers, caches, failures and interrupts the bound holds',
  { timeout: 120_000 },
  async () => {
    const mix = fc.record({
      memory: fc.constantFrom(3, 4, 8, 32),
      readers: fc.integer({ min: 1, max: 24 }),
      writers: fc.integer({ min: 0, max: 6 }),
      files: fc.integer({ min: 1, max: 5 }),
      seed: fc.integer({ min: 1, max: 1_000_000 }),
      caches: fc.boolean(),
      faults: fc.boolean(),
    })
    await fc.assert(
      fc.asyncProperty(mix, async ({ memory, readers, writers, files, seed, caches, faults }) => {
        await run(world(memory * MIB, files, 6 * MIB + 777, seed, caches, faults), readers, writers, 8, faults)
      }),
      { seed: 5, numRuns: 40 },
    )
  },
)

test('sequential readers share the memory: none has more than its part while others wait', async () => {
  const budget = new MemoryBudget(32 * MIB)
  const pool = new ReadingPool({ budget, hedge: false })
  const sources = Array.from({ length: 8 }, () => new SourceDouble(64 * MIB))
  const handles = sources.map((source) => new VersionReader(source, pool).handle())
  const [first] = handles
  assert.ok(first !== undefined)
  for (let at = 0; at < 32 * MIB; at += 128 * KIB) await first.read(at, 128 * KIB)
  const alone = budget.used
  assert.ok(alone > 12 * MIB, `${alone} bytes alone`)
  for (let at = 0; at < 16 * MIB; at += 128 * KIB) {
    for (const [index, handle] of handles.entries()) {
      if (index > 0) await handle.read(at, 128 * KIB)
    }
    assert.ok(budget.used <= 32 * MIB)
  }
  // The first one reads no more: what it has over its part went to the others, who read in long ranges.
  for (const [index, source] of sources.entries()) {
    if (index > 0) assert.ok(source.asked.length <= 40, `${source.asked.length} requests of reader ${index}`)
  }
  const share = await budget.reserve(20 * MIB)
  assert.ok(budget.used <= 32 * MIB)
  share.release()
  for (const handle of handles) handle.close()
  assert.equal(budget.used, 0)
})
