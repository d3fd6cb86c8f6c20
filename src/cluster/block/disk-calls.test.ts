import assert from 'node:assert/strict'
import { test } from 'node:test'

import { DiskCalls, type Done } from './disk-calls.ts'
import { codeOf } from './disk-fixture.ts'

/** Calls of which the test says when they end. */
class Held {
  readonly started: Done<number>[] = []
  readonly start = (done: Done<number>): void => {
    this.started.push(done)
  }
}

test('a disk has a part of the threads at a time, and the rest of its calls wait their turn', async () => {
  const disks = [new DiskCalls(), new DiskCalls(), new DiskCalls()]
  const held = new Held()
  const [first] = disks
  assert.ok(first !== undefined)
  const results = [1, 2, 3].map(() => first.run('read', held.start))
  assert.equal(held.started.length, 1, 'three disks have a thread each of four')
  held.started[0]?.(null, 10)
  assert.equal(held.started.length, 2)
  held.started[1]?.(new Error('read'), 0)
  await assert.rejects(results[1] ?? Promise.resolve(), /read/)
  held.started[2]?.(null, 30)
  assert.deepEqual([await results[0], await results[2]], [10, 30])
  for (const disk of disks) disk.end()
})

test('a call that does not end in time is told, with all that waits behind it and comes after', async () => {
  const calls = new DiskCalls(20)
  const held = new Held()
  const late: number[] = []
  const outcomes = [1, 2, 3, 4, 5].map(() => codeOf(calls.run('open', held.start, (value) => late.push(value))))
  assert.equal(held.started.length, 3, 'one disk has all threads but one')
  assert.deepEqual(await Promise.all(outcomes), Array(5).fill('ETIMEDOUT'))
  assert.equal(await codeOf(calls.run('open', held.start)), 'ETIMEDOUT')
  assert.equal(held.started.length, 3, 'no more threads are taken')
  held.started[0]?.(null, 7)
  assert.deepEqual(late, [7], 'what was opened too late is handed over to be closed')
  calls.end()
})
