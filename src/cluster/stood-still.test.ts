/** Clients that were stopped: by real sockets and a clock that leaps, as it does for a process that goes on after SIGSTOP. */
import assert from 'node:assert/strict'
import { randomBytes, randomInt } from 'node:crypto'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { test, type TestContext } from 'node:test'

import { BLOCK_MESSAGES, blockMessages } from './block/block-messages.ts'
import { BlockCaller } from './client/block-caller.ts'
import { afterRunning } from './stood-still.ts'
import { Caller } from './wire/caller.ts'
import { type Incoming, Responder } from './wire/responder.ts'
import { codeOf, network, StandingClock, until } from './wire/tcp-fixture.ts'

const IN_TIME = { timeout: 20_000 }
/** So much of it passes before the client stops, and it is late by so much when it goes on. */
const DEADLINE_MS = 8000
const STOPPED_MS = 20_000
const STEP_MS = 50

interface Stopped {
  readonly clock: StandingClock
  /** What the service was asked, and has not answered. */
  readonly asked: Incoming[]
  /** By the caller of blocks, and by that of all else. */
  readonly asks: readonly (() => Promise<unknown>)[]
}

async function stopped(context: TestContext): Promise<Stopped> {
  const clock = new StandingClock()
  const asked: Incoming[] = []
  const responder = new Responder(BLOCK_MESSAGES, (request) => void asked.push(request))
  const listener = await network().listen('127.0.0.1:0', responder.accept)
  const chance = { bytes: (count: number) => randomBytes(count), below: (below: number) => randomInt(below) }
  const surroundings = { clock, chance, network: network({}, clock) }
  const [blocks, caller] = [new BlockCaller(surroundings), new Caller(surroundings)]
  context.after(() => {
    blocks.close()
    caller.close()
    return listener.close()
  })
  const target = { name: 'a block service', address: () => listener.address }
  const options = { deadlineMs: DEADLINE_MS }
  const asks = [
    () => blocks.ask(target, blockMessages.disks, {}, options),
    () => caller.call(target, blockMessages.disks, {}, options),
  ]
  return { clock, asked, asks }
}

test('time in which a client did not run is no silence of who it asked', IN_TIME, async (context) => {
  const { clock, asked, asks } = await stopped(context)
  for (const ask of asks) {
    asked.length = 0
    const answer = ask()
    await until(() => asked.length === 1)
    for (let count = 0; count < 3; count++) {
      clock.forward(STEP_MS)
      clock.forward(STOPPED_MS)
      await nextTurn()
    }
    assert.equal(asked.length, 1, 'it is not asked again')
    asked[0]?.reply(blockMessages.disks, { disks: [] })
    assert.deepEqual(await answer, { disks: [] })
  }
})

test('time in which it ran is: the deadline holds', IN_TIME, async (context) => {
  const { clock, asked, asks } = await stopped(context)
  for (const ask of asks) {
    asked.length = 0
    const code = ask().catch(codeOf)
    await until(() => asked.length === 1)
    clock.forward(STEP_MS)
    clock.forward(STOPPED_MS)
    for (let ms = 0; ms < DEADLINE_MS; ms += STEP_MS) {
      clock.forward(STEP_MS)
      await nextTurn()
    }
    assert.equal(await code, 'CLUSTER_UNREACHABLE')
    assert.ok(asked.length > 1, 'it was asked again meanwhile')
  }
})

test('a timer waits anew where it is late by far, and can be cancelled still', () => {
  const clock = new StandingClock()
  let fired = 0
  const cancel = [5000, 5000].map((ms) => afterRunning(clock, ms, () => fired++))
  clock.forward(STOPPED_MS)
  assert.equal(fired, 0)
  cancel[0]?.()
  clock.forward(4999)
  assert.equal(fired, 0)
  clock.forward(2)
  assert.deepEqual([fired, clock.timers], [1, 0])
})
