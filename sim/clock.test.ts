import assert from 'node:assert/strict'
import { test } from 'node:test'

import { ClockError, EPOCH_MS, SimulatedClock } from './clock.ts'
import type { Life } from './event-queue.ts'
import { Timeline } from './timeline.ts'

const life: Life = { name: 'a', alive: true, pausedUntilUs: 0 }

test('a clock that is right tells simulated time, to the microsecond', async () => {
  const timeline = new Timeline()
  const clock = new SimulatedClock(timeline, life, new ClockError())
  await timeline.until('it', new Promise<void>((resolve) => clock.after(1.5, resolve)), 1e9)
  assert.equal(clock.nowMs(), EPOCH_MS + 1.5)
  assert.equal(clock.monotonicMs(), 1.5)
})

test('a wrong clock jumps and goes too fast; its monotonic one never goes back', async () => {
  const timeline = new Timeline()
  const error = new ClockError()
  const clock = new SimulatedClock(timeline, life, error)
  error.rate = 2
  await timeline.until('it', new Promise<void>((resolve) => clock.after(1000, resolve)), 1e9)
  assert.equal(timeline.nowUs, 500_000)
  assert.equal(clock.monotonicMs(), 1000)
  error.rate = 1
  error.offsetMs = -5000
  assert.equal(clock.monotonicMs(), 1000)
  assert.equal(clock.nowMs(), EPOCH_MS - 4500)
})

test('soon is after everything that has arrived by now', async () => {
  const timeline = new Timeline()
  const clock = new SimulatedClock(timeline, life, new ClockError())
  const order: string[] = []
  timeline.at(10, () => {
    clock.soon(() => order.push('soon'))
    timeline.at(11, () => order.push('later'))
  })
  timeline.at(10, () => order.push('second of that time'))
  await timeline.until('it', timeline.delay(20), 1e9)
  assert.deepEqual(order, ['second of that time', 'soon', 'later'])
})

test('a timer that is cancelled does not fire, and cancelling late does nothing', async () => {
  const timeline = new Timeline()
  const clock = new SimulatedClock(timeline, life, new ClockError())
  const fired: number[] = []
  const cancels = [1, 2, 3].map((ms) => clock.after(ms, () => fired.push(ms)))
  cancels[1]?.()
  await timeline.until('it', timeline.delay(10_000), 1e9)
  for (const cancel of cancels) cancel()
  assert.deepEqual(fired, [1, 3])
})
