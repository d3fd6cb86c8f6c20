import assert from 'node:assert/strict'
import { test } from 'node:test'

import fc from 'fast-check'

import { EventQueue, type Life, type QueuedEvent } from './event-queue.ts'

const life: Life = { name: 'a', alive: true, pausedUntilUs: 0 }

function takeAll(queue: EventQueue): void {
  for (let event = queue.take(Infinity); event !== undefined; event = queue.take(Infinity)) {
    const { action } = event
    event.action = undefined
    action?.()
  }
}

test('events happen by time, and those of one time in the order in which they were added', () => {
  const step = fc.oneof(
    { weight: 5, arbitrary: fc.record({ add: fc.integer({ min: 0, max: 30 }) }) },
    { weight: 2, arbitrary: fc.record({ take: fc.integer({ min: 0, max: 40 }) }) },
    { weight: 2, arbitrary: fc.record({ cancel: fc.nat() }) },
    { weight: 1, arbitrary: fc.constant({ sweep: true }) },
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
      const queue = new EventQueue()
      const events: QueuedEvent[] = []
      let model: { readonly at: number; readonly number: number }[] = []
      for (const each of steps) {
        if ('add' in each) {
          const at = queue.nowUs + each.add
          model.push({ at, number: events.length })
          events.push(queue.add(at, () => undefined, life))
        } else if ('take' in each) {
          const until = queue.nowUs + each.take
          const expected = model.toSorted((a, b) => a.at - b.at || a.number - b.number)[0]
          const event = queue.take(until)
          if (expected === undefined || expected.at > until) {
            assert.equal(event, undefined)
            continue
          }
          assert.ok(event !== undefined && event === events[expected.number])
          assert.equal(queue.nowUs, expected.at)
          event.action = undefined
          model = model.filter((other) => other !== expected)
        } else if ('cancel' in each) {
          if (events.length === 0) continue
          const number = each.cancel % events.length
          const event = events[number]
          if (event !== undefined) queue.cancel(event)
          model = model.filter((other) => other.number !== number)
        } else queue.sweep()
      }
    }),
    { seed: 11, numRuns: 500 },
  )
})

test('cancelled events do not pile up', () => {
  const queue = new EventQueue()
  for (let index = 0; index < 100_000; index++) queue.cancel(queue.add(1_000_000 + index, () => undefined, life))
  assert.ok(queue.size < 5000, `${queue.size} are left`)
  assert.equal(queue.take(Infinity), undefined)
})

test('what a life had planned that is over is swept away', () => {
  const queue = new EventQueue()
  const other: Life = { name: 'b', alive: true, pausedUntilUs: 0 }
  const happened: number[] = []
  for (let at = 0; at < 100; at++) queue.add(at, () => happened.push(at), at % 3 === 0 ? life : other)
  other.alive = false
  queue.sweep()
  assert.equal(queue.size, 34)
  takeAll(queue)
  assert.deepEqual(
    happened,
    Array.from({ length: 34 }, (_, index) => index * 3),
  )
})
