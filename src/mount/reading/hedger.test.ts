import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'

import { OperationError } from '#base/errors.ts'
import { MemoryBudget } from '#base/memory-budget.ts'
import { countsBy } from '#base/metrics.ts'

import { Hedger } from './hedger.ts'

const KIB = 1024
const LENGTH = 128 * KIB

interface Open {
  readonly signal: AbortSignal
  readonly answer: (bytes: Buffer) => void
  readonly fail: (error: Error) => void
}

class Rig {
  ms = 0
  readonly budget = new MemoryBudget(1024 * KIB)
  readonly open: Open[] = []
  asked = 0
  readonly #context: TestContext
  readonly #hedger = new Hedger(this.budget, () => this.ms)

  constructor(context: TestContext) {
    this.#context = context
    context.mock.timers.enable({ apis: ['setTimeout'] })
  }

  fetch(signal = new AbortController().signal): Promise<Buffer> {
    const ask = (given: AbortSignal): Promise<Buffer> => {
      this.asked++
      return new Promise((resolve, reject) => {
        given.addEventListener('abort', () => reject(new OperationError('ABORTED', 'Cannot read: given up')))
        this.open.push({ signal: given, answer: resolve, fail: reject })
      })
    }
    return this.#hedger.fetch(LENGTH, ask, signal)
  }

  pass(ms: number): void {
    this.ms += ms
    this.#context.mock.timers.tick(ms)
  }

  /** Answers that take 10 ms each, until it is known what is slow and there are tokens. */
  async warm(count = 64): Promise<void> {
    for (let index = 0; index < count; index++) {
      const bytes = this.fetch()
      this.ms += 10
      this.open.pop()?.answer(Buffer.alloc(1))
      await bytes
    }
    this.asked = 0
  }
}

const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

test('[S52] a range that takes longer than 95 of 100 is asked for a second time, and the first answer counts', async (context) => {
  const it = new Rig(context)
  await it.warm()
  const before = (await countsBy('eider_mount_hedged_total')).get('won') ?? 0
  const bytes = it.fetch()
  it.pass(9)
  assert.equal(it.asked, 1)
  it.pass(2)
  assert.equal(it.asked, 2)
  assert.ok(it.budget.used === LENGTH, 'the second buffer is counted')
  it.open[1]?.answer(Buffer.from('second'))
  assert.equal((await bytes).toString(), 'second')
  assert.equal(it.open[0]?.signal.aborted, true)
  await settle()
  assert.equal(it.budget.used, 0)
  assert.equal((await countsBy('eider_mount_hedged_total')).get('won'), before + 1)
})

test('where the first answers after all the second is given up', async (context) => {
  const it = new Rig(context)
  await it.warm()
  const bytes = it.fetch()
  it.pass(20)
  it.open[0]?.answer(Buffer.from('first'))
  assert.equal((await bytes).toString(), 'first')
  assert.equal(it.open[1]?.signal.aborted, true)
  await settle()
  assert.equal(it.budget.used, 0)
})

test('of two requests that both fail the error is told, and one that fails leaves it to the other', async (context) => {
  const it = new Rig(context)
  await it.warm()
  const broken = new OperationError('STORE_UNAVAILABLE', 'Cannot read: broken')
  const one = it.fetch()
  it.pass(20)
  it.open[0]?.fail(broken)
  await settle()
  it.open[1]?.answer(Buffer.from('second'))
  assert.equal((await one).toString(), 'second')
  it.open.length = 0
  const both = it.fetch()
  it.pass(20)
  it.open[1]?.fail(broken)
  await settle()
  it.open[0]?.fail(broken)
  await assert.rejects(both, { code: 'STORE_UNAVAILABLE' })
  it.open.length = 0
  const stale = it.fetch()
  it.pass(20)
  it.open[0]?.fail(new OperationError('FILE_STALE', 'Cannot read: replaced'))
  await assert.rejects(stale, { code: 'FILE_STALE' })
  await settle()
  assert.equal(it.budget.used, 0)
})

test('[S52] second requests are one in twenty at most, however slow all is', async (context) => {
  const it = new Rig(context)
  await it.warm(400)
  for (let index = 0; index < 400; index++) {
    const bytes = it.fetch()
    it.pass(15)
    for (const { answer } of it.open.splice(0)) answer(Buffer.alloc(1))
    await bytes
  }
  // Ten were saved up.
  assert.ok(it.asked >= 405 && it.asked <= 430, `${it.asked} for 400`)
})

test('nothing is asked twice before the times are known, nor without memory', async (context) => {
  const it = new Rig(context)
  const early = it.fetch()
  it.pass(60_000)
  assert.equal(it.asked, 1)
  it.open.pop()?.answer(Buffer.alloc(1))
  await early
  await it.warm()
  const all = await it.budget.reserve(1024 * KIB)
  const bytes = it.fetch()
  it.pass(100)
  assert.equal(it.asked, 1)
  it.open.pop()?.answer(Buffer.alloc(1))
  await bytes
  all.release()
})

test('giving up gives up both', async (context) => {
  const it = new Rig(context)
  await it.warm()
  const abort = new AbortController()
  const bytes = it.fetch(abort.signal)
  it.pass(20)
  abort.abort()
  await assert.rejects(bytes, { code: 'ABORTED' })
  assert.deepEqual(
    it.open.map(({ signal }) => signal.aborted),
    [true, true],
  )
  await settle()
  assert.equal(it.budget.used, 0)
})
