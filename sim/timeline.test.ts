import assert from 'node:assert/strict'
import { test } from 'node:test'

import type { Life } from './event-queue.ts'
import { SimulationFailure, Timeline } from './timeline.ts'

const HOUR_US = 3_600_000_000

async function deep(levels: number): Promise<void> {
  if (levels > 0) await deep(levels - 1)
}

async function* numbers(): AsyncGenerator<number> {
  for (let number = 0; number < 5; number++) yield number
}

test('code that an event set going has come to a standstill before the next event', async () => {
  const timeline = new Timeline()
  let between = 0
  async function worker(): Promise<void> {
    for (let round = 0; round < 200; round++) {
      await timeline.delay(round % 7)
      const before = timeline.eventCount
      await deep(50)
      for await (const number of numbers()) await Promise.all([deep(number), Promise.race([deep(3), deep(9)])])
      await new Promise<void>((resolve) => queueMicrotask(resolve))
      await Promise.reject(new Error('one')).catch(() => undefined)
      if (timeline.eventCount !== before) between++
    }
  }
  await timeline.until('the work', Promise.all([worker(), worker(), worker()]), HOUR_US)
  assert.equal(between, 0)
})

test('events without promises follow each other without a turn of the event loop', async () => {
  const timeline = new Timeline()
  let turns = 0
  const count = (): void => {
    turns++
    turning = setImmediate(count)
  }
  let turning = setImmediate(count)
  const done = new Promise<void>((resolve) => {
    let events = 0
    const next = (): void => {
      if (++events === 50_000) resolve()
      else timeline.at(timeline.nowUs + 1, next)
    }
    next()
  })
  await timeline.until('the events', done, HOUR_US)
  clearImmediate(turning)
  assert.ok(turns < 50, `${turns} turns for 50,000 events`)
})

test('a run that takes too long, has nothing left to do, or throws, fails and says what did', async () => {
  const never = new Promise<void>(() => undefined)
  const slow = new Timeline()
  const again = (): void => slow.at(slow.nowUs + 1000, again)
  again()
  await assert.rejects(slow.until('it', never, 50_000), { message: 'it did not end within 0.05 s' })
  assert.equal(slow.nowUs, 50_000)

  await assert.rejects(new Timeline().until('it', never, HOUR_US), /nothing is left to happen/)

  const broken = new Timeline()
  const life: Life = { name: 'shard 3', alive: true, pausedUntilUs: 0 }
  const cause = new Error('no such thing')
  broken.at(
    5,
    () => {
      throw cause
    },
    life,
  )
  await assert.rejects(broken.until('it', never, HOUR_US), (error) => {
    assert.ok(error instanceof SimulationFailure)
    assert.equal(error.message, 'shard 3 threw: Error: no such thing')
    return error.cause === cause
  })
})

test('what goes on for ever at one time is ended', async () => {
  const never = new Promise<void>(() => undefined)
  const still = new Timeline()
  const again = (): void => still.at(still.nowUs, again)
  again()
  await assert.rejects(still.until('it', never, HOUR_US), /Time does not go on/)

  const promises = new Timeline()
  let isOver = false
  promises.at(5, () => {
    void (async () => {
      while (!isOver) await deep(1)
    })()
  })
  await assert.rejects(promises.until('it', never, HOUR_US), /Promises go on for ever/)
  isOver = true
})

test('what is paused happens later, all of it, in its order', async () => {
  const timeline = new Timeline()
  const life: Life = { name: 'a', alive: true, pausedUntilUs: 1000 }
  const happened: string[] = []
  for (const at of [30, 10, 20]) timeline.at(at, () => happened.push(`${at} at ${timeline.nowUs}`), life)
  timeline.at(500, () => happened.push('other'))
  await timeline.until('it', timeline.delay(2000), HOUR_US)
  assert.deepEqual(happened, ['other', '10 at 1000', '20 at 1000', '30 at 1000'])
})

test('to a life that is over nothing happens, and its waits never end', async () => {
  const timeline = new Timeline()
  const life: Life = { name: 'a', alive: true, pausedUntilUs: 0 }
  const happened: string[] = []
  timeline.at(20, () => happened.push('event'), life)
  timeline.after(20, () => happened.push('timer'), life)
  void timeline.delay(20, life).then(() => happened.push('wait'))
  timeline.at(10, () => timeline.end(life))
  timeline.at(15, () => timeline.at(16, () => happened.push('late'), life))
  await timeline.until('it', timeline.delay(100), HOUR_US)
  assert.deepEqual(happened, [])
})
