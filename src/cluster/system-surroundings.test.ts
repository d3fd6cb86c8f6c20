import assert from 'node:assert/strict'
import { mock, test } from 'node:test'

import { systemSurroundings } from './system-surroundings.ts'

test('the clock follows that of the machine, with a fraction that never goes back within it', () => {
  const { clock } = systemSurroundings()
  let last = 0
  for (let count = 0; count < 200_000; count++) {
    const before = Date.now()
    const now = clock.nowMs()
    assert.ok(now >= before && now < Date.now() + 1)
    assert.ok(now >= last)
    last = now
  }
  const fractions = new Set(Array.from({ length: 1000 }, () => clock.nowMs() % 1))
  assert.ok(fractions.size > 1)
})

test('the clock follows jumps of that of the machine', () => {
  const { clock } = systemSurroundings()
  const real = Date.now
  for (const jump of [3_600_000, -3_600_000, 0]) {
    mock.method(Date, 'now', () => real() + jump)
    const now = clock.nowMs()
    assert.ok(Math.abs(now - Date.now()) < 1000)
    mock.restoreAll()
  }
})

test('how long the machine has slept stays the same while it does not', () => {
  const { clock } = systemSurroundings()
  const first = clock.sleptMs()
  const until = clock.monotonicMs() + 300
  // Another process may come between the two looks that it takes, not each time.
  const off: number[] = []
  while (clock.monotonicMs() < until) off.push(Math.abs(clock.sleptMs() - first))
  assert.ok(Math.min(...off.slice(-50)) < 100, String(off.slice(-50)))
})

test('timers fire once, may be cancelled, and may be longer than those of the runtime', () => {
  mock.timers.enable({ apis: ['setTimeout'] })
  try {
    const { clock } = systemSurroundings()
    let fired = 0
    const most = 2 ** 31 - 1
    clock.after(most + 1000, () => fired++)
    const cancel = clock.after(most + 1000, () => assert.fail('was cancelled'))
    mock.timers.tick(most)
    cancel()
    cancel()
    mock.timers.tick(999)
    assert.equal(fired, 0)
    mock.timers.tick(1)
    assert.equal(fired, 1)
    mock.timers.tick(most)
    assert.equal(fired, 1)
  } finally {
    mock.timers.reset()
  }
})

test('chance gives as many bytes as are asked for, and each number below a bound', () => {
  const { chance } = systemSurroundings()
  assert.equal(chance.bytes(32).length, 32)
  assert.notDeepEqual(chance.bytes(32), chance.bytes(32))
  const seen = new Set(Array.from({ length: 1000 }, () => chance.below(3)))
  assert.deepEqual(
    [...seen].toSorted((a, b) => a - b),
    [0, 1, 2],
  )
  assert.equal(chance.below(1), 0)
})

test('a network comes with it', async () => {
  const { network } = systemSurroundings()
  const listener = await network.listen('127.0.0.1:0', (link) => ({
    onFrame: (frame) => link.send(frame),
    onClosed: () => undefined,
  }))
  const frame = await new Promise<Buffer>((resolve) => {
    const link = network.connect(listener.address, {
      onFrame(got) {
        resolve(got)
        link.close()
      },
      onClosed: () => undefined,
    })
    link.send(Buffer.from('to '), Buffer.from('myself'))
  })
  assert.equal(frame.toString(), 'to myself')
  await listener.close()
})
