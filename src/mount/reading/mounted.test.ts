/** Reads of a whole file system, with its cache and its memory, counted at the store. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

import { OperationError } from '#base/errors.ts'
import { MemoryBudget } from '#base/memory-budget.ts'
import { openFileCache } from '#cache/open-file-cache.ts'
import { CALLER, O_RDONLY, rig } from '#mount/kernel-double.ts'
import { openMemoryStore } from '#store/memory-store.ts'
import { ABSENT, type Store } from '#store/store.ts'

import { content, KIB, MIB } from './source-double.ts'

const PIECE = 128 * KIB

/** Holds reads back until they are let go, and notes them. */
function gated(store: Store): { asked: number[]; bytesOpen: () => number; open: () => void } {
  const original = store.read.bind(store)
  const { promise, resolve } = Promise.withResolvers<void>()
  const asked: number[] = []
  let bytes = 0
  const read: Store['read'] = async (path, options) => {
    asked.push(options?.length ?? -1)
    bytes += options?.length ?? 0
    try {
      await promise
      return await original(path, options)
    } finally {
      bytes -= options?.length ?? 0
    }
  }
  Object.assign(store, { read })
  return { asked, bytesOpen: () => bytes, open: resolve }
}

test('[S54] a read whose caller is interrupted ends after a while, and the other who waits gets the bytes', async (context) => {
  const store = openMemoryStore()
  await store.put('file', content(0, MIB), { guard: ABSENT })
  await using it = await rig(store)
  const gate = gated(store)
  const file = await it.kernel.open('file', O_RDONLY)
  const other = await it.kernel.open('file', O_RDONLY)
  const interrupt = new AbortController()
  context.mock.timers.enable({ apis: ['setTimeout'] })
  const left = Promise.resolve(it.fs.read(file.node, file.handle, 0, PIECE, { ...CALLER, signal: interrupt.signal }))
  const stays = it.kernel.read(other, 0, PIECE)
  interrupt.abort(new OperationError('ABORTED', 'Cannot finish the request'))
  context.mock.timers.tick(2000)
  await assert.rejects(left, { code: 'ABORTED' })
  gate.open()
  assert.ok((await stays).equals(content(0, PIECE)))
  assert.deepEqual(gate.asked, [PIECE])
})

test('[S50] what readers of many files have under way lies under the bound of the mount', async () => {
  const store = openMemoryStore()
  for (let index = 0; index < 16; index++) await store.put(`f${index}`, content(index, 4 * MIB), { guard: ABSENT })
  await using it = await rig(store, { memory: new MemoryBudget(4 * MIB) })
  const gate = gated(store)
  const files = await Promise.all(Array.from({ length: 16 }, (_, index) => it.kernel.open(`f${index}`, O_RDONLY)))
  const reads = files.map((file) => it.kernel.read(file, 2 * MIB, MIB))
  await new Promise((resolve) => setImmediate(resolve))
  assert.equal(gate.bytesOpen(), 4 * MIB)
  assert.equal(it.fs.status.memoryBytes, 4 * MIB)
  gate.open()
  for (const [index, read] of reads.entries()) assert.ok((await read).equals(content(index + 2 * MIB, MIB)))
  for (const file of files) await it.kernel.close(file)
  assert.equal(it.fs.status.memoryBytes, 0)
})

test('[S51] with a cache on disk every byte is asked for once, by ranges, by all, and after a remount', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'eider-cache-'))
  const size = 12 * MIB + 4321
  const store = openMemoryStore()
  await store.put('file', content(0, size), { guard: ABSENT })
  const gate = gated(store)
  gate.open()
  const sum = (): number => gate.asked.reduce((total, length) => total + length, 0)
  try {
    for (const round of ['cold', 'after a remount']) {
      const cache = await openFileCache({ storeUrl: store.url, directory, bytesMax: 64 * MIB, bytesFreeMin: 0 })
      try {
        await using it = await rig(store, { cache })
        const file = await it.kernel.open('file', O_RDONLY)
        const other = await it.kernel.open('file', O_RDONLY)
        for (const at of [7 * MIB + 5, 3 * MIB, 7 * MIB + 200]) {
          assert.ok((await it.kernel.read(other, at, 5000)).equals(content(at, 5000)), round)
          await turns(() => it.fs.status.memoryBytes === 0)
        }
        for (let at = 0; at < size; at += PIECE) {
          const length = Math.min(PIECE, size - at)
          assert.ok((await it.kernel.read(file, at, PIECE)).equals(content(at, length)), round)
        }
        await it.kernel.close(other)
        await turns(() => cache.status.bytes >= size)
        await it.kernel.close(file)
        await turns(() => it.fs.status.memoryBytes === 0)
      } finally {
        await cache.close()
      }
      assert.equal(sum(), size, round)
    }
  } finally {
    rmSync(directory, { recursive: true })
  }
})

/** Lets the loop go round until what is waited for has come. */
async function turns(isThere: () => boolean): Promise<void> {
  for (let count = 0; !isThere(); count++) {
    assert.ok(count < 100_000, 'what is waited for comes')
    await new Promise((resolve) => setImmediate(resolve))
  }
}
