import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import { isOperationError, type ErrorCode, type OperationError } from '#base/errors.ts'
import { setLogLevel } from '#base/log.ts'
import { blockTimeMs } from '#cluster/block/block-id.ts'
import type { DiskId } from '#cluster/block/permit.ts'
import { ClockTrust } from '#cluster/clock-trust.ts'
import { crc32c } from '#cluster/erasure/crc32c.ts'
import { makeInodeId, ROOT_INODE } from '#cluster/inode-id.ts'
import { MemoryJournal, PROMPT_DISK, type MemoryDisk } from '#cluster/journal/memory-journal.ts'
import { MemoryState } from '#cluster/journal/memory-state.ts'
import type { Listener } from '#cluster/surroundings.ts'
import { Caller, type Target } from '#cluster/wire/caller.ts'
import { decode } from '#cluster/wire/codec.ts'
import { bodyOf, decodeError, encodeRequest, readHeader, type RequestFacts } from '#cluster/wire/envelope.ts'
import { NO_FAULTS, TestWorld } from '#cluster/wire/loopback-fixture.ts'
import type { Message } from '#cluster/wire/message.ts'

import { addSpanOf, ANYTHING, ATTRIBUTES, digestOf, keyOfDisk, NOTHING, receiptsOf, spanOf } from './shard-fixture.ts'
import { shardMessages as m } from './shard-messages.ts'
import { ShardServer, type ShardDisks } from './shard-server.ts'

setLogLevel('silent')

const ADDRESS = 'shard:1'

/** A shard process in a world of its own, which can end at any moment and start again. */
class TestProcess {
  readonly world: TestWorld
  readonly target: Target = { name: 'the shard', address: () => ADDRESS }
  readonly failures: OperationError[] = []
  /** Of the next start. */
  trust: ClockTrust | undefined
  beforeFirst: () => Promise<void> = () => Promise.resolve()
  journal: MemoryJournal
  stored: MemoryState
  #server: ShardServer | undefined
  #listener: Listener | undefined
  readonly #range: readonly [first: number, last: number]

  constructor(world = new TestWorld(), disk: MemoryDisk = PROMPT_DISK, range: readonly [number, number] = [0, 3]) {
    this.world = world
    this.journal = new MemoryJournal(disk)
    this.stored = new MemoryState(disk)
    this.#range = range
  }

  static async started(...parts: ConstructorParameters<typeof TestProcess>): Promise<TestProcess> {
    const process = new TestProcess(...parts)
    await process.world.wait(process.start())
    return process
  }

  get server(): ShardServer {
    assert.ok(this.#server !== undefined, 'the process has started')
    return this.#server
  }

  async start(): Promise<void> {
    const { journal, stored, world } = this
    const [first, last] = this.#range
    const onFailed = (error: OperationError): void => void this.failures.push(error)
    const asked = { beforeFirst: this.beforeFirst, ...(this.trust !== undefined && { trust: this.trust }) }
    const server = await ShardServer.open({ surroundings: world, journal, stored, first, last, onFailed, ...asked })
    this.#server = server
    this.#listener = await world.network.listen(ADDRESS, (link) => server.accept(link))
  }

  /** As by SIGKILL, with or without what was just being written. */
  async kill(isKept: boolean): Promise<void> {
    this.journal = this.journal.crash(isKept)
    this.stored = this.stored.crash(isKept)
    await this.#listener?.close()
  }

  async stop(): Promise<void> {
    await this.#listener?.close()
    await this.world.wait(this.server.close())
  }

  /** Frame by frame, as no client would. */
  connect(): Raw {
    return new Raw(this.world)
  }
}

class Raw {
  readonly #world: TestWorld
  readonly #link
  readonly answers: Buffer[] = []
  isClosed = false

  constructor(world: TestWorld) {
    this.#world = world
    this.#link = world.network.connect(ADDRESS, {
      onFrame: (frame) => void this.answers.push(frame),
      onClosed: () => {
        this.isClosed = true
      },
    })
  }

  send(frame: Buffer): void {
    this.#link.send(frame)
  }

  async ask<Q, R>(facts: Partial<RequestFacts>, message: Message<Q, R>, request: Q): Promise<R | ErrorCode> {
    const all = { client: 9, slot: 0, sequence: 1, kind: message.kind, shard: 0, isInternal: false, ...facts }
    const before = this.answers.length
    this.send(encodeRequest(all, message.request, request))
    await this.#world.until(() => this.answers.length > before)
    const answer = this.answers.at(-1) as Buffer
    return readHeader(answer).what === 'reply'
      ? decode(message.reply, bodyOf(answer))
      : decodeError(bodyOf(answer)).code
  }
}

function newFile(name: string, content = ''): typeof FILE {
  const bytes = Buffer.from(content)
  return { ...FILE, name, size: bytes.length, crc: crc32c(bytes), bytes }
}
const FILE = {
  directory: ROOT_INODE,
  name: '',
  guard: ANYTHING,
  type: 'file' as const,
  attributes: ATTRIBUTES,
  size: 0,
  crc: 0,
  bytes: Buffer.alloc(0),
  xattrs: [],
}

function disksOf(count: number, domain = (disk: number): string => `host${disk}`): ShardDisks {
  const ids = Array.from({ length: count }, (_, index) => (index + 1) as DiskId)
  return {
    all: ids.map((disk) => ({ disk, key: Buffer.from(keyOfDisk(disk).key), class: 2, domain: domain(disk) })),
    writable: [{ shard: 0, class: 2, disks: ids }],
  }
}

async function codeOf(promise: Promise<unknown>): Promise<ErrorCode | 'done'> {
  try {
    await promise
    return 'done'
  } catch (error) {
    assert.ok(isOperationError(error), String(error))
    return error.code
  }
}

describe('requests', () => {
  test('[S150] a doubled request is done once, and answered twice alike, also after a restart', async () => {
    const process = await TestProcess.started()
    const raw = process.connect()
    const first = await raw.ask({}, m.create, newFile('a', 'x'))
    const second = await raw.ask({}, m.create, newFile('a', 'x'))
    assert.deepEqual(second, first)
    assert.notEqual(typeof first, 'string')
    await process.kill(false)
    await process.world.wait(process.start())
    assert.deepEqual(await process.connect().ask({}, m.create, newFile('a', 'x')), first)
    const history = { directory: ROOT_INODE, name: 'a', time: 0, isBackwards: false, isSameName: true, limit: 9 }
    const found = await process.connect().ask({}, m.history, history)
    assert.equal(typeof found === 'string' ? 0 : found.edges.length, 1)
  })

  test('[S150] a late copy of an older request is refused, and one of a refused request stays refused', async () => {
    const process = await TestProcess.started()
    const raw = process.connect()
    await raw.ask({ sequence: 1 }, m.create, newFile('a'))
    const taken = { ...newFile('a'), guard: NOTHING }
    assert.equal(await raw.ask({ sequence: 2 }, m.create, taken), 'NAME_TAKEN')
    const found = await raw.ask({ sequence: 3 }, m.lookup, { directory: ROOT_INODE, name: 'a' })
    assert.ok(typeof found !== 'string')
    const { inode, created } = found
    await raw.ask({ slot: 1 }, m.unlink, { directory: ROOT_INODE, name: 'a', inode, created })
    // The name is free by now; but who asked was told no, and has gone on.
    assert.equal(await raw.ask({ sequence: 2 }, m.create, taken), 'NAME_TAKEN')
    await raw.ask({ sequence: 4 }, m.create, newFile('b'))
    assert.equal(await raw.ask({ sequence: 2 }, m.create, taken), 'REQUEST_STALE')
    assert.equal(await raw.ask({ sequence: 1 }, m.create, newFile('a')), 'REQUEST_STALE')
    assert.equal(await raw.ask({ sequence: 5 }, m.lookup, { directory: ROOT_INODE, name: 'a' }), 'NAME_NOT_FOUND')
  })

  test('[S160] who is told "later" asks again under the same id, and is served then', async () => {
    const process = await TestProcess.started()
    const [raw, coordinator] = [process.connect(), process.connect()]
    const made = await raw.ask({}, m.create, newFile('a'))
    assert.ok(typeof made !== 'string')
    const edge = { directory: ROOT_INODE, name: 'a', target: made.inode, created: made.created }
    const internal = { client: 77, isInternal: true }
    await coordinator.ask({ ...internal, sequence: 1 }, m.lockEdge, edge)
    assert.equal(await raw.ask({ sequence: 2 }, m.unlink, { ...edge, inode: made.inode }), 'NAME_LOCKED')
    await coordinator.ask({ ...internal, sequence: 2 }, m.unlockEdge, { ...edge, hasLeft: false })
    assert.equal(typeof (await raw.ask({ sequence: 2 }, m.unlink, { ...edge, inode: made.inode })), 'object')
  })

  test('[S162] what is for another shard, not for clients, or not well formed is refused, with nothing changed', async () => {
    const process = await TestProcess.started()
    const raw = process.connect()
    await raw.ask({}, m.create, newFile('a'))
    const before = digestOf(process.server.state, true)
    assert.equal(await raw.ask({ shard: 4 }, m.stat, { inode: ROOT_INODE }), 'SHARD_ELSEWHERE')
    assert.equal(await raw.ask({ shard: 4, sequence: 9 }, m.create, newFile('b')), 'SHARD_ELSEWHERE')
    const inode = makeInodeId('file', 2, 1)
    assert.equal(await raw.ask({ shard: 1 }, m.stat, { inode }), 'INPUT_INVALID')
    assert.equal(await raw.ask({}, m.makeTransient, { file: inode }), 'REQUEST_REFUSED')
    for (const message of Object.values(m) as Message[]) {
      const facts = { client: 9, slot: 0, sequence: 5, kind: message.kind, shard: 0, isInternal: true }
      const frame = encodeRequest(facts, m.createDirectory.reply, {})
      raw.send(Buffer.concat([frame, Buffer.alloc(300, 0xff)]))
    }
    const answered = raw.answers.length + Object.keys(m).length
    await process.world.until(() => raw.answers.length === answered)
    for (const answer of raw.answers.slice(-Object.keys(m).length)) {
      assert.equal(decodeError(bodyOf(answer)).code, 'WIRE_MALFORMED')
    }
    assert.equal(digestOf(process.server.state, true), before)
    // What the process does itself cannot be asked for.
    for (const kind of [0xf0, 0xf1, 0xf2]) {
      assert.equal(await raw.ask({ kind, isInternal: true }, m.stat, { inode: ROOT_INODE }), 'WIRE_KIND_UNKNOWN')
    }
    assert.equal(typeof (await raw.ask({}, m.stat, { inode: ROOT_INODE })), 'object')
  })

  test('[S152] nothing is answered before the journal has it, a read of it no sooner', async () => {
    const world = new TestWorld()
    const pending: (() => void)[] = []
    let isPrompt = true
    const disk: MemoryDisk = {
      write: () => (isPrompt ? Promise.resolve() : new Promise((resolve) => void pending.push(resolve))),
    }
    const process = await TestProcess.started(world, disk)
    isPrompt = false
    const [writer, reader] = [process.connect(), process.connect()]
    const facts = { client: 9, slot: 0, sequence: 1, shard: 0, isInternal: false }
    writer.send(encodeRequest({ ...facts, kind: m.create.kind }, m.create.request, newFile('a')))
    await world.until(() => pending.length === 1)
    const name = { directory: ROOT_INODE, name: 'a' }
    reader.send(encodeRequest({ ...facts, kind: m.lookup.kind }, m.lookup.request, name))
    const other = { ...name, name: 'b' }
    reader.send(encodeRequest({ ...facts, kind: m.lookup.kind }, m.lookup.request, other))
    await world.pass(100)
    // Of "b" nobody has heard; still its directory has changed with "a".
    assert.deepEqual([writer.answers.length, reader.answers.length], [0, 0])
    pending.shift()?.()
    await world.until(() => writer.answers.length === 1 && reader.answers.length === 2)
    assert.deepEqual(process.failures, [])
  })

  test('[S164] times increase strictly while the clock goes back, and over a restart', async () => {
    const process = await TestProcess.started()
    const { world } = process
    const times: number[] = []
    for (let round = 0; round < 4; round++) {
      const raw = process.connect()
      for (let at = 0; at < 5; at++) {
        const made = await raw.ask({ client: round + 1, sequence: at + 1 }, m.create, newFile(`${round} ${at}`))
        times.push(typeof made === 'string' ? 0 : made.created)
        world.skewMs -= 1000
      }
      await process.kill(false)
      await process.world.wait(process.start())
    }
    for (const [index, time] of times.entries()) assert.ok(time > (times[index - 1] ?? 0))
  })
})

describe('the clock of a shard', () => {
  const DAY_MS = 86_400_000
  const create = (raw: Raw, sequence: number) => raw.ask({ sequence }, m.create, newFile(`${sequence}`))
  /** The registry says that its time is `aheadMs` before that of the shard. */
  const confirm = ({ world: { clock }, trust }: TestProcess, aheadMs = 0): void =>
    trust?.compare(clock.monotonicMs(), Math.floor(clock.nowMs()) - aheadMs)

  async function trusting(): Promise<TestProcess> {
    const process = new TestProcess()
    process.trust = new ClockTrust(process.world.clock)
    confirm(process)
    await process.world.wait(process.start())
    return process
  }

  test('[S166] takes no writes while it is set wrongly, and none of what it says then stays', async () => {
    const process = await trusting()
    const { world } = process
    const raw = process.connect()
    const first = await create(raw, 1)
    assert.ok(typeof first !== 'string')
    for (const skewMs of [9 * DAY_MS, -9 * DAY_MS]) {
      world.skewMs = skewMs
      const before = digestOf(process.server.state)
      assert.equal(await create(raw, 2), 'CLOCK_UNTRUSTED')
      assert.equal(
        await raw.ask({ sequence: 2 }, m.unlink, { ...first, directory: ROOT_INODE, name: '1' }),
        'CLOCK_UNTRUSTED',
      )
      assert.equal(digestOf(process.server.state), before)
      // What was done already is answered on, and so are reads.
      assert.deepEqual(await create(raw, 1), first)
      assert.equal(typeof (await raw.ask({}, m.lookup, { directory: ROOT_INODE, name: '1' })), 'object')
    }
    // What it must write itself gets the time that it would be.
    world.skewMs = 9 * DAY_MS
    await world.wait(process.server.learn(disksOf(3)))
    world.skewMs = 0
    const second = await create(raw, 2)
    assert.ok(typeof second !== 'string', String(second))
    assert.ok(second.created > first.created && second.created - world.clock.nowMs() * 1000 < 1e6)
  })

  test('[S166] takes them again as soon as the registry agrees, also by another time', async () => {
    const process = await trusting()
    const { world } = process
    const raw = process.connect()
    world.skewMs = DAY_MS
    assert.equal(await create(raw, 1), 'CLOCK_UNTRUSTED')
    confirm(process, DAY_MS)
    assert.equal(await create(raw, 1), 'CLOCK_UNTRUSTED')
    confirm(process)
    const made = await create(raw, 1)
    assert.ok(typeof made !== 'string' && Math.abs(made.created - world.clock.nowMs() * 1000) < 1e6)
  })

  test('[S166] takes none after a start before it is compared, and goes on without the registry after that', async () => {
    const process = await trusting()
    const first = await create(process.connect(), 1)
    assert.ok(typeof first !== 'string')
    await process.kill(true)
    process.trust = new ClockTrust(process.world.clock)
    process.world.skewMs = 9 * DAY_MS
    await process.world.wait(process.start())
    const raw = process.connect()
    assert.equal(await create(raw, 2), 'CLOCK_UNTRUSTED')
    await process.world.wait(process.server.learn(disksOf(3)))
    process.world.skewMs = 0
    confirm(process)
    await process.world.pass(3 * DAY_MS)
    const second = await create(raw, 2)
    assert.ok(typeof second !== 'string' && Math.abs(second.created - process.world.clock.nowMs() * 1000) < 1e6)
  })

  test('[S166] does not begin by a clock that is off, and not before it knows', async () => {
    const process = new TestProcess()
    const trust = new ClockTrust(process.world.clock)
    process.trust = trust
    process.world.skewMs = 9 * DAY_MS
    let asked = 0
    const beforeFirst = (): Promise<void> => {
      asked++
      confirm(process, process.world.skewMs)
      return Promise.resolve()
    }
    process.beforeFirst = beforeFirst
    assert.equal(await codeOf(process.world.wait(process.start())), 'CLOCK_UNTRUSTED')
    assert.equal(process.journal.last, 0)
    process.world.skewMs = 0
    await process.world.wait(process.start())
    assert.equal(asked, 2)
    await process.kill(true)
    await process.world.wait(process.start())
    assert.equal(asked, 2, 'it has begun')
  })

  test('[S166] a client only waits while it is set for a moment', async () => {
    const process = await trusting()
    const { world } = process
    world.skewMs = 9 * DAY_MS
    const caller = new Caller(world)
    const made = caller.call(process.target, m.create, newFile('late'))
    await world.pass(5000)
    world.skewMs = 0
    const { created } = await world.wait(made)
    assert.ok(Math.abs(created - world.clock.nowMs() * 1000) < 5e6)
    caller.close()
  })
})

describe('a shard process', () => {
  test('begins with a root where shard 0 is its own, and serves only what its directory was made for', async () => {
    const process = await TestProcess.started()
    const stat = await process.connect().ask({}, m.stat, { inode: ROOT_INODE })
    assert.equal(typeof stat === 'string' ? '' : stat.type, 'directory')
    await process.stop()
    const { journal, stored, world } = process
    const options = {
      surroundings: world,
      journal: journal.crash(false),
      stored: stored.crash(false),
      onFailed: assert.fail,
    }
    await assert.rejects(ShardServer.open({ ...options, first: 0, last: 2 }), { code: 'INPUT_INVALID' })
    const other = await TestProcess.started(new TestWorld(), PROMPT_DISK, [7, 9])
    assert.equal(
      await other.connect().ask({ shard: 7 }, m.stat, { inode: makeInodeId('directory', 7, 0) }),
      'INODE_NOT_FOUND',
    )
  })

  test('ends with all in its state and nothing that is still due', async () => {
    const process = await TestProcess.started()
    const raw = process.connect()
    await raw.ask({}, m.create, newFile('a'))
    const digest = digestOf(process.server.state)
    // In the middle of looking for what can be forgotten.
    await process.world.pass(60_000)
    await process.stop()
    assert.equal(process.stored.applied, process.journal.last)
    assert.notEqual(digestOf(process.stored), digest, 'it has been looking')
    await assert.rejects(
      process.world.until(() => false, 3600e3),
      /something is still due/,
    )
  })

  test('forgets answers after an hour, however many there are, and those to the cluster never', async () => {
    const process = await TestProcess.started()
    const raw = process.connect()
    const clients = 2500
    for (let client = 1; client <= clients; client++) {
      const facts = { client, slot: 0, sequence: 1, kind: m.scrap.kind, shard: 0, isInternal: client === 1 }
      const request = { file: makeInodeId('file', 0, 1), cookie: Buffer.alloc(16) }
      raw.send(encodeRequest(facts, m.scrap.request, request))
    }
    await process.world.until(() => raw.answers.length === clients)
    const sessions = (): number => {
      let count = 0
      process.server.state.range('c', 'd', () => ++count > 0)
      return count
    }
    assert.ok(sessions() >= clients)
    await process.world.pass(3600e3 + 150_000)
    // That of the cluster, and its own.
    assert.equal(sessions(), 2)
  })

  test('[S161] gives spans the disks that the registry says, and keeps a file on its own', async () => {
    const process = await TestProcess.started()
    const { world, server } = process
    const raw = process.connect()
    let sequence = 0
    const ask = <Q, R>(message: Message<Q, R>, request: Q): Promise<R | ErrorCode> =>
      raw.ask({ sequence: ++sequence }, message, request)
    const own = await ask(m.construct, { type: 'file', attributes: ATTRIBUTES, note: '' })
    assert.ok(typeof own !== 'string')
    const span = spanOf(50_000, 2, 1)
    assert.equal(await ask(m.addSpan, addSpanOf(own, 0, span)), 'DISKS_MISSING')
    await world.wait(server.learn(disksOf(20, (disk) => `host${disk % 10}`)))
    const first = await ask(m.addSpan, addSpanOf(own, 0, span))
    assert.ok(typeof first !== 'string', String(first))
    const disks = first.blocks.map(({ disk }) => disk)
    assert.equal(new Set(disks.map((disk) => disk % 10)).size, 3)
    assert.ok(first.blocks.every(({ block }) => Math.abs(blockTimeMs(block) - world.clock.nowMs()) < 1000))
    await ask(m.certify, { ...own, offset: 0, receipts: receiptsOf(span, first.blocks) })
    const second = await ask(m.addSpan, addSpanOf(own, 50_000, span))
    assert.ok(typeof second !== 'string', String(second))
    assert.deepEqual(
      second.blocks.map(({ disk }) => disk),
      disks,
    )
    await ask(m.certify, { ...own, offset: 50_000, receipts: receiptsOf(span, second.blocks) })
    const avoided = { ...addSpanOf(own, 100_000, span), avoidDomains: [`host${(disks[0] ?? 0) % 10}`] }
    const third = await ask(m.addSpan, avoided)
    assert.ok(typeof third !== 'string', String(third))
    assert.ok(third.blocks.every(({ disk }) => disk % 10 !== (disks[0] ?? 0) % 10))
    const entries = process.journal.last
    await world.wait(server.learn(disksOf(20, (disk) => `host${disk % 10}`)))
    assert.equal(process.journal.last, entries, 'what it knows already is no entry')
  })

  test('[S161] looks for more disks before it refuses a span, and only then', async () => {
    const process = await TestProcess.started()
    const { server } = process
    const raw = process.connect()
    let looked = 0
    server.learnMore = async () => {
      looked++
      await server.learn(disksOf(3, (disk) => `host${disk}`))
    }
    const own = await raw.ask({ sequence: 1 }, m.construct, { type: 'file', attributes: ATTRIBUTES, note: '' })
    assert.ok(typeof own !== 'string')
    const span = spanOf(50_000, 2, 1)
    const added = await raw.ask({ sequence: 2 }, m.addSpan, addSpanOf(own, 0, span))
    assert.ok(typeof added !== 'string', String(added))
    assert.equal(looked, 1)
    const again = await raw.ask({ sequence: 3 }, m.addSpan, addSpanOf(own, 0, span))
    assert.ok(typeof again !== 'string', String(again))
    assert.equal(looked, 1)
  })
})

describe('under faults', () => {
  test('[S150] [S152] [S163] every create, rename and unlink takes effect once, whatever the network and the process do', async () => {
    for (const seed of [1, 2, 3, 4, 5, 6]) {
      const world = new TestWorld(seed)
      const disk: MemoryDisk = {
        write: () => new Promise((resolve) => void world.after(world.chance.below(20), resolve)),
      }
      const process = await TestProcess.started(world, disk)
      world.faults = { loss: 0.05, doubling: 0.1, lateMs: seed % 2 === 0 ? 200 : 0, cut: 0.005 }
      let running = 0
      const writer = async (number: number): Promise<void> => {
        running++
        const caller = new Caller(world)
        const ask = <Q, R>(message: Message<Q, R>, request: Q): Promise<R> =>
          caller.call(process.target, message, request, { deadlineMs: 1e9 })
        for (let round = 0; round < 15; round++) {
          const [name, newName] = [`${number} ${round}`, `${number} ${round} new`]
          // Each name is this writer's alone: so any other outcome than success is an effect that came twice.
          const made = await ask(m.create, { ...newFile(name, name), guard: NOTHING })
          const { inode, created } = made
          const moved = await ask(m.rename, { directory: ROOT_INODE, name, inode, created, newName, guard: NOTHING })
          if (round % 2 === 0) {
            await ask(m.unlink, { directory: ROOT_INODE, name: newName, inode, created: moved.created })
          }
        }
        running--
      }
      const writers = [1, 2, 3].map(writer)
      const killer = async (): Promise<void> => {
        for (let kills = 0; kills < 6 && running > 0; kills++) {
          await new Promise<void>((resolve) => void world.after(300 + world.chance.below(1000), resolve))
          await process.kill(world.happens(0.5))
          await new Promise<void>((resolve) => void world.after(world.chance.below(500), resolve))
          await process.start()
        }
      }
      await world.wait(Promise.all([...writers, killer()]))
      world.faults = NO_FAULTS
      const caller = new Caller(world)
      const page = { directory: ROOT_INODE, after: '', limit: 10_000, withStatus: false }
      const { entries } = await world.wait(caller.call(process.target, m.list, page))
      const expected = [1, 2, 3].flatMap((number) =>
        Array.from({ length: 7 }, (_, index) => `${number} ${2 * index + 1} new`),
      )
      assert.deepEqual(
        entries.map(({ name }) => name),
        expected.toSorted(),
      )
      const whole = { directory: ROOT_INODE, name: '', time: 0, isBackwards: false, isSameName: false, limit: 10_000 }
      const { edges } = await world.wait(caller.call(process.target, m.history, whole))
      // Of each: left, removed; current, or owned and removed.
      assert.equal(edges.length, 3 * (15 * 2 + 7 + 8 * 2))
    }
  })

  test('a journal that fails ends the process without an answer, and nothing is told that is not so', async () => {
    const world = new TestWorld()
    let isBroken = false
    const disk: MemoryDisk = { write: () => (isBroken ? Promise.reject(new Error('no room')) : Promise.resolve()) }
    const process = await TestProcess.started(world, disk)
    const raw = process.connect()
    await raw.ask({}, m.create, newFile('a'))
    isBroken = true
    const facts = { client: 9, slot: 0, sequence: 2, kind: m.create.kind, shard: 0, isInternal: false }
    raw.send(encodeRequest(facts, m.create.request, newFile('b')))
    await world.until(() => process.failures.length > 0)
    await world.pass(1000)
    assert.equal(raw.answers.length, 1)
    assert.deepEqual(
      process.failures.map(({ code }) => code),
      ['JOURNAL_FAILED'],
    )
    isBroken = false
    await process.kill(false)
    await process.world.wait(process.start())
    const code = codeOf(new Caller(world).call(process.target, m.lookup, { directory: ROOT_INODE, name: 'b' }))
    assert.equal(await world.wait(code), 'NAME_NOT_FOUND')
  })
})
