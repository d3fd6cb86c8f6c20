import fc from 'fast-check'
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { MemoryBudget, type Share } from './memory-budget.ts'

const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

test('who waits for memory gets it in the order of asking, and nobody slips past', async () => {
  const budget = new MemoryBudget(10)
  const first = await budget.reserve(8)
  const order: number[] = []
  const shares: Share[] = []
  for (const bytes of [7, 1, 2]) {
    void budget.reserve(bytes).then((share) => {
      order.push(bytes)
      shares.push(share)
    })
  }
  await settle()
  assert.equal(budget.tryReserve(1), undefined)
  assert.equal(budget.lacking, 5)
  first.release()
  await settle()
  assert.deepEqual(order, [7, 1, 2])
  assert.equal(budget.used, 10)
  for (const share of shares) share.release()
  assert.equal(budget.used, 0)
})

test('holders of spare memory are told of a shortage, and of nothing else', async () => {
  const budget = new MemoryBudget(10)
  const spare: Share[] = []
  const told: number[] = []
  const leave = budget.addHolder((bytes) => {
    told.push(bytes)
    for (let left = bytes; left > 0;) {
      const share = spare.pop()
      if (share === undefined) return
      left -= share.bytes
      share.release()
    }
  })
  for (let index = 0; index < 10; index++) {
    const share = budget.tryReserve(1)
    assert.ok(share !== undefined)
    spare.push(share)
  }
  assert.equal(budget.tryReserve(1), undefined)
  assert.deepEqual(told, [])
  const share = await budget.reserve(4)
  assert.deepEqual(told, [4])
  assert.equal(budget.used, 10)
  share.release()
  leave()
  assert.ok(budget.tryReserve(4) !== undefined)
})

test('a share larger than the bound is lent alone', async () => {
  const budget = new MemoryBudget(10)
  const small = await budget.reserve(1)
  const large: Share[] = []
  void budget.reserve(30).then((share) => large.push(share))
  await settle()
  assert.equal(large.length, 0)
  small.release()
  await settle()
  assert.equal(large[0]?.bytes, 30)
  assert.equal(budget.tryReserve(1), undefined)
  large[0]?.release()
  assert.equal(budget.used, 0)
})

test('a part of a share is given back by itself', async () => {
  const budget = new MemoryBudget(10)
  const share = await budget.reserve(10)
  const part = share.split(4)
  part.release()
  assert.equal(budget.used, 6)
  share.release()
  assert.equal(budget.used, 0)
})

test('giving up ends a wait, and lets the next one go on', async () => {
  const budget = new MemoryBudget(10)
  const held = await budget.reserve(8)
  const abort = new AbortController()
  const waiting = budget.reserve(9, abort.signal)
  const next = budget.reserve(2)
  abort.abort()
  await assert.rejects(waiting, { code: 'ABORTED' })
  assert.equal((await next).bytes, 2)
  await assert.rejects(budget.reserve(9, abort.signal), { code: 'ABORTED' })
  held.release()
})

test('under any order of asking, giving back and giving up, the bound holds and everybody is served', async () => {
  const step = fc.record({
    bytes: fc.integer({ min: 1, max: 12 }),
    what: fc.constantFrom('reserve', 'try', 'spare', 'release', 'abort'),
  })
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
      const budget = new MemoryBudget(10)
      const held: Share[] = []
      const spare: Share[] = []
      const waits: AbortController[] = []
      let open = 0
      budget.addHolder((bytes) => {
        for (let left = bytes; left > 0 && spare.length > 0;) {
          const share = spare.pop()
          left -= share?.bytes ?? 0
          share?.release()
        }
      })
      const check = (): void => assert.ok(budget.used <= 12 && (budget.used <= 10 || held.length + spare.length <= 1))
      for (const { bytes, what } of steps) {
        if (what === 'reserve') {
          const abort = new AbortController()
          waits.push(abort)
          open++
          budget
            .reserve(bytes, abort.signal)
            .then(
              (share) => held.push(share),
              () => undefined,
            )
            .finally(() => open--)
        } else if (what === 'abort') waits.pop()?.abort()
        else if (what === 'release') held.shift()?.release()
        else {
          const share = budget.tryReserve(bytes)
          if (share !== undefined) (what === 'try' ? held : spare).push(share)
        }
        await settle()
        check()
      }
      while (open > 0 || held.length > 0) {
        const share = held.shift()
        assert.ok(share !== undefined, 'somebody waits and nobody holds')
        share.release()
        await settle()
        check()
      }
      for (const share of spare) share.release()
      assert.equal(budget.used, 0)
    }),
    { seed: 7, numRuns: 150 },
  )
})
