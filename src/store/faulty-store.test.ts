/** The faulty store: the suite through it, and its own promises. */
import assert from 'node:assert/strict'
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

import { isOperationError } from '#base/errors.ts'

import { openFaultyStore, OUTSIDER_BYTES } from './faulty-store.ts'
import { openMemoryStore } from './memory-store.ts'
import { runStoreSuite } from './store-suite.ts'
import { ABSENT, ANY, type Removal, type Store } from './store.ts'
import { assertContent, assertGone, noise, rejectsWith } from './suite/case.ts'
import { withUploads } from './suite/upload-double.ts'

runStoreSuite('faulty with delays, over memory', async () => {
  const store = openFaultyStore(openMemoryStore(), { seed: 3, rates: { delay: 0.05 }, delayMsMax: 2 })
  return { store, close: () => store.close() }
})

runStoreSuite('faulty with delays, over memory with uploads', async () => {
  const uploads = withUploads(openMemoryStore(), 100_000)
  const store = openFaultyStore(uploads, { seed: 4, rates: { delay: 0.05 }, delayMsMax: 2 })
  return {
    store,
    close: async () => {
      assert.equal(uploads.uploadsOpen.size, 0, 'no upload is left open')
      await store.close()
    },
  }
})

/** The outcome of each of many calls. */
async function outcomesOf(store: Store): Promise<string[]> {
  const outcomes: string[] = []
  for (let index = 0; index < 300; index++) {
    try {
      const path = `file-${index % 10}`
      if (index % 3 === 0) await store.put(path, Buffer.alloc(10), { guard: ANY })
      else if (index % 3 === 1) await (await store.read(path)).bytes()
      else await store.stat(path)
      outcomes.push('done')
    } catch (error) {
      if (!isOperationError(error)) throw error
      outcomes.push(error.code)
    }
  }
  return outcomes
}

const RATES = { error: 0.1, lost: 0.1, throttled: 0.1, cut: 0.2, conflict: 0.05 }

test('faulty: one seed gives the same faults, another gives others', async () => {
  const first = await outcomesOf(openFaultyStore(openMemoryStore(), { seed: 7, rates: RATES }))
  const again = await outcomesOf(openFaultyStore(openMemoryStore(), { seed: 7, rates: RATES }))
  const other = await outcomesOf(openFaultyStore(openMemoryStore(), { seed: 8, rates: RATES }))
  assert.deepEqual(again, first)
  assert.notDeepEqual(other, first)
  for (const code of ['done', 'STORE_UNAVAILABLE', 'STORE_TIMEOUT', 'STORE_THROTTLED']) {
    assert.ok(first.includes(code), `${code} occurs`)
  }
})

test('faulty: without rates and orders nothing happens, and faults are counted', async () => {
  const store = openFaultyStore(openMemoryStore())
  await store.put('file', Buffer.alloc(1), { guard: ANY })
  assert.equal(store.faultCount, 0)
  store.failNext('any', { kind: 'throttled' })
  store.failNext('put', { kind: 'error', code: 'STORE_NO_SPACE' })
  await rejectsWith(store.stat('file'), 'STORE_THROTTLED')
  await store.stat('file')
  await rejectsWith(store.put('file', Buffer.alloc(1), { guard: ANY }), 'STORE_NO_SPACE')
  assert.equal(store.faultCount, 2)
})

test('faulty: an abort ends a delay', async () => {
  const store = openFaultyStore(openMemoryStore())
  store.failNext('stat', { kind: 'delay', ms: 600_000 })
  const controller = new AbortController()
  const stat = store.stat('', { signal: controller.signal })
  controller.abort()
  await rejectsWith(stat, 'ABORTED')
})

test('faulty: an exchange that times out after success has happened', async () => {
  const store = openFaultyStore(openMemoryStore())
  await store.put('a', Buffer.from('was a'), { guard: ABSENT })
  await store.put('b/c', Buffer.from('was c'), { guard: ABSENT })
  store.failNext('exchange', { kind: 'lost' })
  await rejectsWith(store.exchange('a', 'b', { guard: ANY, otherGuard: ANY }), 'STORE_TIMEOUT')
  await assertContent(store, 'b', Buffer.from('was a'))
  await assertContent(store, 'a/c', Buffer.from('was c'))
  const { version } = await store.stat('b')
  store.failNext('exchange', { kind: 'conflict' })
  const guards = { guard: { kind: 'version', version }, otherGuard: ANY } as const
  await rejectsWith(store.exchange('b', 'a', guards), 'STORE_CONFLICT')
  await assertContent(store, 'a/c', Buffer.from('was c'))
})

test('faulty: a removal in bulk fails in part, and what failed is still there', async () => {
  const store = openFaultyStore(openMemoryStore())
  const removals: Removal[] = []
  for (let index = 0; index < 5; index++) {
    removals.push(await store.put(`file-${index}`, noise(10, index), { guard: ABSENT }))
  }
  store.failNext('removeAll', { kind: 'partial', code: 'STORE_UNAVAILABLE' })
  const outcomes = await store.removeAll(removals)
  const failed = 'STORE_UNAVAILABLE'
  assert.deepEqual(
    outcomes.map((outcome) => outcome?.code),
    [failed, undefined, failed, undefined, failed],
  )
  for (const index of [0, 2, 4]) await assertContent(store, `file-${index}`, noise(10, index))
  for (const index of [1, 3]) await assertGone(store, `file-${index}`)
  store.failNext('removeAll', { kind: 'lost' })
  await rejectsWith(store.removeAll(removals), 'STORE_TIMEOUT')
  for (const index of [0, 2, 4]) await assertGone(store, `file-${index}`)
  let partial = 0
  const random = openFaultyStore(openMemoryStore(), { seed: 5, rates: { error: 0.5 } })
  for (let round = 0; round < 50; round++) {
    const found = await random.removeAll(removals).catch(() => [])
    if (found.some((outcome) => outcome?.code === 'STORE_TIMEOUT' || outcome?.code === failed)) partial++
  }
  assert.ok(partial > 0, 'the rates fail some in part')
})

test('faulty: parts and ends of uploads fail, are lost, and meet others', async () => {
  const inner = withUploads(openMemoryStore(), 4)
  const store = openFaultyStore(inner)
  assert.equal(openFaultyStore(openMemoryStore()).beginUpload, undefined)
  const directory = mkdtempSync(join(tmpdir(), 'eider-faulty-'))
  const fd = openSync(join(directory, 'file'), 'w+')
  try {
    writeSync(fd, 'twelve bytes')
    const source = { fd, offset: 0, length: 12 }
    const none: ReadonlySet<number> = new Set()
    const upload = await store.beginUpload?.('file', { attributes: {} })
    assert.ok(upload !== undefined)
    store.failNext('uploadSend', { kind: 'error', code: 'STORE_UNAVAILABLE' })
    await rejectsWith(upload.send(0, fd), 'STORE_UNAVAILABLE')
    await upload.send(0, fd)
    store.failNext('uploadCommit', { kind: 'throttled' })
    await rejectsWith(upload.commit(source, none, { guard: ABSENT }), 'STORE_THROTTLED')
    await assertGone(store, 'file')
    store.failNext('uploadCommit', { kind: 'lost' })
    await rejectsWith(upload.commit(source, none, { guard: ABSENT }), 'STORE_TIMEOUT')
    await assertContent(store, 'file', Buffer.from('twelve bytes'))
    const second = await store.beginUpload?.('other', { attributes: {} })
    assert.ok(second !== undefined)
    store.failNext('uploadCommit', { kind: 'conflict' })
    await rejectsWith(second.commit(source, none, { guard: ABSENT }), 'STORE_CONFLICT')
    await assertContent(store, 'other', OUTSIDER_BYTES)
    store.failNext('beginUpload', { kind: 'error', code: 'STORE_UNAVAILABLE' })
    await rejectsWith(store.beginUpload?.('third', { attributes: {} }) ?? Promise.resolve(), 'STORE_UNAVAILABLE')
    assert.equal(inner.uploadsOpen.size, 0)
  } finally {
    closeSync(fd)
    rmSync(directory, { recursive: true, force: true })
  }
})
