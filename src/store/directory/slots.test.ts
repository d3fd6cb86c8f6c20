/** The bound on work under way. */
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { rejectsWith } from '#store/suite/case.ts'

import { Slots } from './slots.ts'

test('slots: never more under way than there are, all served in order, also when some give up or fail', async () => {
  const slots = new Slots(3)
  let underWay = 0
  let most = 0
  const served: number[] = []
  const controllers = Array.from({ length: 30 }, () => new AbortController())
  const runs = controllers.map((controller, index) =>
    slots.run('work', controller.signal, async () => {
      most = Math.max(most, ++underWay)
      await new Promise((resolve) => setImmediate(resolve))
      served.push(index)
      underWay--
      if (index % 7 === 0) throw new RangeError('failed')
    }),
  )
  for (const index of [5, 11, 29]) {
    controllers[index]?.abort()
    await rejectsWith(runs[index] ?? Promise.resolve(), 'ABORTED')
  }
  await Promise.allSettled(runs)
  assert.equal(most, 3)
  const expected = Array.from({ length: 30 }, (_, index) => index).filter((index) => ![5, 11, 29].includes(index))
  assert.deepEqual(served, expected)
  // Every slot has come back.
  await Promise.all([1, 2, 3].map(() => slots.run('work', undefined, async () => undefined)))
})
