/** The faulty store: the suite through it, and its own promises. */
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { isOperationError } from '#base/errors.ts'

import { openFaultyStore } from './faulty-store.ts'
import { openMemoryStore } from './memory-store.ts'
import { runStoreSuite } from './store-suite.ts'
import { ANY, type Store } from './store.ts'
import { rejectsWith } from './suite/case.ts'

runStoreSuite('faulty with delays, over memory', async () => {
  const store = openFaultyStore(openMemoryStore(), { seed: 3, rates: { delay: 0.05 }, delayMsMax: 2 })
  return { store, close: () => store.close() }
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
