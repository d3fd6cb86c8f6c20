import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import { isOperationError, OperationError, type ErrorCode } from '#base/errors.ts'
import { setLogLevel } from '#base/log.ts'

import { Caller, type Target } from './caller.ts'
import { struct, u32 } from './codec.ts'
import { readHeader } from './envelope.ts'
import { type Faults, NO_FAULTS, TestWorld } from './loopback-fixture.ts'
import { message, MessageTable } from './message.ts'
import { Responder, type Incoming } from './responder.ts'

setLogLevel('silent')

const number = struct({ value: u32 })
const add = message('add', { kind: 1, does: 'write', request: number, reply: number, meaning: '' })
const TABLE = new MessageTable('Test', { add })

/** Does each request once by its id, as machines do, and counts. */
class Adder {
  readonly done = new Map<string, number>()
  readonly taken: string[] = []
  /** By slot: the request that is under way. */
  readonly slots = new Map<number, string>()
  readonly slotsSeen = new Set<number>()
  /** Only where no call is given up and no copy comes late. */
  isSlotChecked = false
  refuse: (value: number) => ErrorCode | undefined = () => undefined
  /** Answers after so long; Infinity: never. */
  takesMs: (value: number) => number = () => 1
  readonly #world: TestWorld

  constructor(world: TestWorld) {
    this.#world = world
  }

  readonly handle = (request: Incoming): void => {
    const { client, slot, sequence } = request.header
    const id = `${client}:${slot}:${sequence}`
    const { value } = request.read(add)
    this.taken.push(id)
    this.slotsSeen.add(slot)
    assert.ok(!this.isSlotChecked || (this.slots.get(slot) ?? id) === id, 'a slot is of one call at a time')
    this.slots.set(slot, id)
    const code = this.refuse(value)
    if (code !== undefined) throw new OperationError(code, 'Cannot add: told not to')
    if (!this.done.has(id)) this.done.set(id, value)
    const ms = this.takesMs(value)
    if (ms === Infinity) return
    this.#world.after(ms, () => {
      this.slots.delete(slot)
      request.reply(add, { value: (this.done.get(id) ?? 0) + 1 })
    })
  }
}

async function newWorld(
  seed = 1,
): Promise<{ world: TestWorld; adder: Adder; target: Target & { at: string | undefined; lost: string[] } }> {
  const world = new TestWorld(seed)
  const adder = new Adder(world)
  const listener = await world.network.listen('here:0', new Responder(TABLE, adder.handle).accept)
  const lost: string[] = []
  const target = {
    name: 'the adder',
    at: listener.address as string | undefined,
    lost,
    address(): string | undefined {
      return this.at
    },
    isLost: (address: string) => void lost.push(address),
  }
  return { world, adder, target }
}

async function codeOf(promise: Promise<unknown>): Promise<ErrorCode | 'done'> {
  try {
    await promise
    return 'done'
  } catch (error) {
    assert.ok(isOperationError(error))
    return error.code
  }
}

describe('Caller', () => {
  test('[S163] 10,000 calls at once go through 64 slots, each done once and none left', async () => {
    const { world, adder, target } = await newWorld()
    adder.isSlotChecked = true
    const caller = new Caller(world, { slots: 64 })
    const calls = Array.from({ length: 10_000 }, (_, value) => caller.call(target, add, { value }, { deadlineMs: 1e9 }))
    const replies = await world.wait(Promise.all(calls))
    assert.deepEqual(
      replies.map(({ value }) => value),
      calls.map((_, index) => index + 1),
    )
    assert.equal(adder.done.size, 10_000)
    assert.equal(adder.taken.length, 10_000)
    assert.equal(adder.slotsSeen.size, 64)
  })

  test('[S163] a slot is of one call at a time, also where calls come as others end', async () => {
    const { world, adder, target } = await newWorld()
    adder.isSlotChecked = true
    const caller = new Caller(world, { slots: 16 })
    const chain = async (first: number): Promise<void> => {
      for (let at = 0; at < 20; at++) await caller.call(target, add, { value: first + at }, { deadlineMs: 1e9 })
    }
    await world.wait(Promise.all(Array.from({ length: 50 }, (_, index) => chain(index * 20))))
    assert.equal(adder.done.size, 1000)
    assert.ok(adder.slotsSeen.size <= 16)
  })

  const bad: Record<string, Faults> = {
    loss: { ...NO_FAULTS, loss: 0.3 },
    doubling: { ...NO_FAULTS, doubling: 0.5 },
    reordering: { ...NO_FAULTS, lateMs: 3000 },
    'cut links': { ...NO_FAULTS, cut: 0.02 },
    'all of it': { loss: 0.1, doubling: 0.2, lateMs: 1500, cut: 0.01 },
  }
  for (const [what, faults] of Object.entries(bad)) {
    test(`[S163] under ${what} every call ends once, and its effect is one`, async () => {
      const { world, adder, target } = await newWorld(7)
      world.faults = faults
      const caller = new Caller(world, { slots: 32 })
      let ends = 0
      const calls = Array.from({ length: 500 }, (_, value) => caller.call(target, add, { value }, { deadlineMs: 1e9 }))
      for (const call of calls) void call.then(() => ends++)
      const replies = await world.wait(Promise.all(calls))
      assert.deepEqual(
        replies.map(({ value }) => value),
        calls.map((_, index) => index + 1),
      )
      assert.equal(adder.done.size, 500)
      await world.pass(20_000)
      assert.equal(ends, 500)
    })
  }

  test('[S163] a lost answer is asked for under the same id', async () => {
    const { world, adder, target } = await newWorld()
    let lost = 0
    world.loses = (_, from) => from === 'answerer' && lost++ < 3
    const caller = new Caller(world)
    assert.deepEqual(await world.wait(caller.call(target, add, { value: 5 })), { value: 6 })
    assert.equal(adder.taken.length, 4)
    assert.equal(new Set(adder.taken).size, 1)
  })

  test('[S163] ends at its deadline, with what stood in the way', async () => {
    const { world, adder, target } = await newWorld()
    const caller = new Caller(world)
    adder.takesMs = () => Infinity
    const code = await world.wait(codeOf(caller.call(target, add, { value: 1 }, { deadlineMs: 5000 })), 5100)
    assert.equal(code, 'CLUSTER_UNREACHABLE')
    assert.equal(adder.done.size, 1)
    adder.refuse = () => 'NAME_LOCKED'
    assert.equal(
      await world.wait(codeOf(caller.call(target, add, { value: 1 }, { deadlineMs: 5000 })), 5100),
      'NAME_LOCKED',
    )
    target.at = undefined
    const incomplete = caller.call(target, add, { value: 1 }, { deadlineMs: 5000 })
    assert.equal(await world.wait(codeOf(incomplete), 5100), 'CLUSTER_INCOMPLETE')
    target.at = 'nobody:1'
    const nobody = caller.call(target, add, { value: 1 }, { deadlineMs: 5000 })
    assert.equal(await world.wait(codeOf(nobody), 5100), 'CLUSTER_UNREACHABLE')
    assert.ok(target.lost.includes('nobody:1'))
  })

  test('[S163] ends by its signal, also one that was given before or that comes while it waits for a slot', async () => {
    const { world, adder, target } = await newWorld()
    adder.takesMs = () => Infinity
    const caller = new Caller(world, { slots: 1 })
    const controllers = [new AbortController(), new AbortController()] as const
    const codes = controllers.map(({ signal }) =>
      codeOf(caller.call(target, add, { value: 1 }, { signal, deadlineMs: Infinity })),
    )
    const dead = codeOf(caller.call(target, add, { value: 2 }, { signal: AbortSignal.abort(), deadlineMs: Infinity }))
    assert.equal(await world.wait(dead), 'ABORTED')
    await world.until(() => adder.taken.length === 1)
    controllers[1].abort()
    assert.equal(await world.wait(codes[1] as Promise<string>, 1000), 'ABORTED')
    controllers[0].abort()
    assert.equal(await world.wait(codes[0] as Promise<string>, 1000), 'ABORTED')
    adder.takesMs = () => 1
    assert.equal(await world.wait(codeOf(caller.call(target, add, { value: 3 })), 1000), 'done')
    assert.deepEqual([...adder.done.values()], [1, 3])
  })

  test('[S163] what waits for a slot ends at its deadline', async () => {
    const { world, adder, target } = await newWorld()
    adder.takesMs = () => Infinity
    const caller = new Caller(world, { slots: 1 })
    caller.start(target, add, { value: 1 }, { deadlineMs: Infinity }, () => assert.fail('it is not answered'))
    const waits = caller.call(target, add, { value: 2 }, { deadlineMs: 1000 })
    assert.equal(await world.wait(codeOf(waits), 1100), 'CLUSTER_UNREACHABLE')
    assert.equal(adder.done.size, 1)
  })

  test('[S163] the end of the caller ends all calls, those that wait, too', async () => {
    const { world, adder, target } = await newWorld()
    adder.takesMs = () => Infinity
    const caller = new Caller(world, { slots: 2 })
    const codes = [1, 2, 3, 4].map((value) => codeOf(caller.call(target, add, { value }, { deadlineMs: Infinity })))
    await world.until(() => adder.taken.length === 2)
    caller.close()
    assert.deepEqual(await world.wait(Promise.all(codes)), ['ABORTED', 'ABORTED', 'ABORTED', 'ABORTED'])
    assert.equal(adder.done.size, 2)
    await world.until(() => world.links.every((link) => !link.isOpen))
  })

  test('waits where it is told "later", and goes on at once where it is told no', async () => {
    const { world, adder, target } = await newWorld()
    const caller = new Caller(world)
    let times = 0
    adder.refuse = () => (times++ < 5 ? 'CLUSTER_BUSY' : undefined)
    assert.equal(await world.wait(codeOf(caller.call(target, add, { value: 1 })), 2000), 'done')
    assert.equal(times, 6)
    assert.equal(new Set(adder.taken).size, 1)
    adder.refuse = () => 'NAME_TAKEN'
    assert.equal(await world.wait(codeOf(caller.call(target, add, { value: 1 })), 100), 'NAME_TAKEN')
  })

  test('[S163] goes to where the one is that answers, when it is told that it is elsewhere', async () => {
    const { world, adder, target } = await newWorld()
    const there = await world.network.listen('there:1', new Responder(TABLE, adder.handle).accept)
    const caller = new Caller(world)
    const first = target.at as string
    adder.refuse = () => 'SHARD_ELSEWHERE'
    const call = codeOf(caller.call(target, add, { value: 1 }))
    await world.until(() => target.lost.length > 0)
    assert.deepEqual(target.lost.slice(0, 1), [first])
    adder.refuse = () => undefined
    target.at = there.address
    assert.equal(await world.wait(call), 'done')
    assert.equal(new Set(adder.taken).size, 1)
  })

  test('connects again after the other side has been away', async () => {
    const { world, adder, target } = await newWorld()
    const caller = new Caller(world)
    await world.wait(caller.call(target, add, { value: 1 }))
    for (const link of world.links) link.cut()
    await world.wait(caller.call(target, add, { value: 2 }))
    assert.equal(adder.done.size, 2)
    assert.ok(target.lost.length > 0)
  })

  test('does not send again what the network has not taken yet', async () => {
    const { world, adder, target } = await newWorld()
    const caller = new Caller(world)
    await world.wait(caller.call(target, add, { value: 1 }))
    const own = world.links.find(({ side }) => side === 'asker')
    assert.ok(own !== undefined)
    let sent = 0
    world.loses = (frame) => readHeader(frame).what === 'request' && ++sent > 0
    const call = codeOf(caller.call(target, add, { value: 2 }, { deadlineMs: Infinity }))
    own.bytesWaiting = 1
    await world.pass(10_000)
    assert.equal(sent, 1)
    own.bytesWaiting = 0
    world.loses = () => false
    assert.equal(await world.wait(call, 11_000), 'done')
    assert.equal(adder.done.size, 2)
  })

  test('an answer to nobody, or of another kind, is passed over; what is no message closes the link', async () => {
    const { world, adder, target } = await newWorld()
    const caller = new Caller(world)
    await world.wait(caller.call(target, add, { value: 1 }))
    adder.takesMs = () => 500
    const call = codeOf(caller.call(target, add, { value: 2 }))
    await world.until(() => adder.done.size === 2)
    const own = world.links.find(({ side }) => side === 'asker')
    const other = world.links.find(({ side }) => side === 'answerer')
    const stray = Buffer.alloc(30)
    for (const what of [1, 2, 3, 4]) {
      stray[0] = what
      other?.send(Buffer.from(stray))
    }
    await world.pass(10)
    assert.equal(own?.isOpen, true)
    other?.send(Buffer.alloc(3))
    await world.until(() => own !== undefined && !own.isOpen)
    assert.equal(await world.wait(call), 'done')
    assert.equal(adder.done.size, 2)
  })

  test('two calls at a time under one id are a defect of who asks', async () => {
    const { world, target } = await newWorld()
    const caller = new Caller(world)
    const id = { client: 5, slot: 0, sequence: 1 }
    const first = caller.call(target, add, { value: 1 }, { id })
    await assert.rejects(caller.call(target, add, { value: 1 }, { id }), /request id/)
    assert.equal(await world.wait(codeOf(first)), 'done')
    assert.equal(await world.wait(codeOf(caller.call(target, add, { value: 1 }, { id }))), 'done')
  })
})
