import assert from 'node:assert/strict'
import { suite, test, type TestContext } from 'node:test'

import { OperationError } from '#base/errors.ts'
import { inodeShard, ROOT_INODE, type InodeId } from '#cluster/inode-id.ts'
import { MemoryJournal } from '#cluster/journal/memory-journal.ts'
import { MemoryState } from '#cluster/journal/memory-state.ts'
import { shardMessages } from '#cluster/shard/shard-messages.ts'
import { ShardServer } from '#cluster/shard/shard-server.ts'
import type { Clock, Surroundings } from '#cluster/surroundings.ts'
import { systemSurroundings } from '#cluster/system-surroundings.ts'
import { Caller, type Target } from '#cluster/wire/caller.ts'
import { encodeRequest, readHeader } from '#cluster/wire/envelope.ts'
import { ANYTHING, NOTHING } from '#cluster/wire/forms.ts'

import { ATTRIBUTES, openRecords, ShardWorld } from './coordinator-fixture.ts'
import { coordinatorMessages } from './coordinator-messages.ts'
import { CoordinatorServer } from './coordinator-server.ts'
import { refused } from './scene-fixture.ts'

const { makeDirectory, removeDirectory, moveFile, moveDirectory } = coordinatorMessages

const failing = (error: OperationError): void => assert.fail(error)

/** Shards in two processes and a coordinator, with a network of this machine between them. */
async function realCluster(context: TestContext) {
  const surroundings = systemSurroundings()
  const internal = new Caller(surroundings, { isInternal: true })
  const shards = await Promise.all(
    [0, 128].map(async (first) => {
      const memory = { journal: new MemoryJournal(), stored: new MemoryState() }
      const server = await ShardServer.open({ surroundings, ...memory, first, last: first + 127, onFailed: failing })
      const listener = await surroundings.network.listen('127.0.0.1:0', (link) => server.accept(link))
      return { server, listener }
    }),
  )
  const shardTarget = (shard: number): Target => {
    const listener = shards[shard < 128 ? 0 : 1]?.listener
    return { name: `shard ${shard}`, address: () => listener?.address }
  }
  let groups = 0
  const journal = new MemoryJournal({
    write: () => {
      groups++
      return new Promise((resolve) => {
        setImmediate(resolve)
      })
    },
  })
  const server = await CoordinatorServer.open({
    surroundings,
    journal,
    stored: new MemoryState(),
    caller: internal,
    shardTarget,
    onFailed: failing,
  })
  const listener = await surroundings.network.listen('127.0.0.1:0', (link) => server.accept(link))
  const client = new Caller(surroundings)
  context.after(async () => {
    client.close()
    await listener.close()
    await server.close()
    internal.close()
    for (const each of shards) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      await each.listener.close()
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      await each.server.close()
    }
  })
  const target: Target = { name: 'the coordinator', address: () => listener.address }
  return {
    client,
    target,
    server,
    journal,
    groups: () => groups,
    make: async (owner: InodeId, name: string): Promise<InodeId> =>
      (await client.call(target, makeDirectory, { owner, name, attributes: ATTRIBUTES })).inode,
    lookup: (directory: InodeId, name: string) => {
      const shard = inodeShard(directory)
      return client.call(shardTarget(shard), shardMessages.lookup, { directory, name }, { shard })
    },
  }
}

suite('a coordinator among real processes', () => {
  test('makes, moves and removes directories', async (context) => {
    const { client, target, make, lookup, server } = await realCluster(context)
    const [a, b] = [await make(ROOT_INODE, 'a'), await make(ROOT_INODE, 'b')]
    const c = await make(a, 'c')
    const { created } = await lookup(a, 'c')
    const move = { inode: c, from: a, fromName: 'c', created, to: b, toName: 'd', guard: NOTHING }
    const moved = await client.call(target, moveDirectory, move)
    assert.equal((await lookup(b, 'd')).inode, c)
    await assert.rejects(lookup(a, 'c'), refused('NAME_NOT_FOUND'))
    await assert.rejects(client.call(target, moveFile, { ...move, guard: ANYTHING }), refused('FILE_EXPECTED'))
    await assert.rejects(make(b, 'd'), refused('NAME_TAKEN'))
    const removal = { owner: b, name: 'd', directory: c, created: moved.created }
    await client.call(target, removeDirectory, removal)
    await assert.rejects(make(c, 'x'), refused('INODE_NOT_FOUND'))
    assert.deepEqual(openRecords(server.state), [])
  })

  test('does what is independent side by side, and makes it durable together', async (context) => {
    const { make, groups, journal, server } = await realCluster(context)
    const parents = await Promise.all(Array.from({ length: 64 }, (_, index) => make(ROOT_INODE, `p${index}`)))
    const [entriesBefore, groupsBefore] = [journal.last, groups()]
    const made = await Promise.all(parents.flatMap((parent) => [make(parent, 'x'), make(parent, 'y')]))
    assert.equal(new Set(made).size, 128)
    assert.equal(new Set(made.map(inodeShard)).size, 128)
    // The request and the answers to its two steps.
    assert.equal(journal.last - entriesBefore, 3 * 128)
    assert.ok(groups() - groupsBefore < 128, `${groups() - groupsBefore} groups for ${3 * 128} entries`)
    assert.equal(server.openTransactions, 0)
  })
})

/** A coordinator whose steps wait for the test, and whose timers run when the test says so. */
class Stage {
  readonly world = new ShardWorld()
  readonly frames: Buffer[] = []
  readonly failures: OperationError[] = []
  readonly asked: Parameters<Caller['start']>[] = []
  readonly timers: { readonly ms: number; readonly action: () => void }[] = []
  server: CoordinatorServer | undefined
  #sequence = 0

  async open(): Promise<this> {
    const clock: Clock = {
      nowMs: () => 1e12,
      monotonicMs: () => 0,
      sleptMs: () => 0,
      after: (ms, action) => {
        const timer = { ms, action }
        this.timers.push(timer)
        return () => void this.timers.splice(this.timers.indexOf(timer), 1)
      },
      soon: (action) => void setImmediate(action),
    }
    const network: Surroundings['network'] = {
      listen: () => assert.fail('there is no network'),
      connect: () => assert.fail('there is no network'),
    }
    this.server = await CoordinatorServer.open({
      surroundings: { clock, network, chance: { bytes: (count) => Buffer.alloc(count, 3), below: () => 0 } },
      journal: new MemoryJournal(),
      stored: new MemoryState(),
      caller: { start: (...call) => void this.asked.push(call as Parameters<Caller['start']>) },
      shardTarget: (shard) => ({ name: `shard ${shard}`, address: () => undefined }),
      onFailed: (error) => this.failures.push(error),
    })
    return this
  }

  /** @return the frame, to send it again */
  send(name: string): Buffer {
    const id = { client: 5, slot: 0, sequence: ++this.#sequence }
    const request = { owner: ROOT_INODE, name, attributes: ATTRIBUTES }
    const facts = { ...id, kind: makeDirectory.kind, shard: 0, isInternal: false }
    const frame = encodeRequest(facts, makeDirectory.request, request)
    this.sendAgain(frame)
    return frame
  }

  sendAgain(frame: Buffer): void {
    const link = {
      peer: 'test',
      bytesWaiting: 0,
      send: (...parts: readonly Uint8Array[]) => void this.frames.push(Buffer.concat(parts)),
      close: () => assert.fail('the link is fine'),
    }
    this.server?.accept(link).onFrame(Buffer.from(frame))
  }

  /** The next call to a shard. */
  async call(): Promise<{ id: unknown; name: string; answer: (error?: OperationError) => void }> {
    await turns(() => this.asked.length > 0)
    const [call] = this.asked.splice(0, 1)
    assert.ok(call)
    const [, message, request, { shard = 0, id }, done] = call
    assert.ok(id)
    return {
      id,
      name: message.name,
      answer: (error) => {
        if (error !== undefined) return done(error, undefined)
        const given = this.world.answer({ shard, message, request, id })
        if ('refusal' in given) done(given.refusal, undefined)
        else done(undefined, message.name === 'createEdge' ? { created: 1, replaced: 0 } : {})
      },
    }
  }
}

async function turns(condition: () => boolean): Promise<void> {
  for (let turn = 0; turn < 100; turn++) {
    if (condition()) return
    // oxlint-disable-next-line no-await-in-loop -- turn after turn
    await new Promise((resolve) => {
      setImmediate(resolve)
    })
  }
  assert.fail('it never comes to that')
}

suite('a coordinator and the answers that it gets', () => {
  for (const code of ['WIRE_REFUSED', 'CLUSTER_UNREACHABLE', 'REQUEST_REFUSED', 'JOURNAL_FAILED'] as const) {
    test(`asks a step again under its id where ${code} says nothing of it`, async () => {
      const stage = await new Stage().open()
      stage.send('x')
      const first = await stage.call()
      const pauses = stage.timers.length
      first.answer(new OperationError(code, 'Cannot ask: something is wrong'))
      assert.equal(stage.timers.length, pauses + 1)
      stage.timers.pop()?.action()
      const second = await stage.call()
      assert.deepEqual([second.id, second.name], [first.id, 'createDirectory'])
      second.answer()
      ;(await stage.call()).answer()
      await turns(() => stage.frames.length === 1)
      assert.equal(readHeader(stage.frames[0] ?? Buffer.alloc(0)).what, 'reply')
      await stage.server?.close()
    })
  }

  test('ends where a shard knows later requests of it: its directory is an old copy', async () => {
    const stage = await new Stage().open()
    stage.send('x')
    ;(await stage.call()).answer(new OperationError('REQUEST_STALE', 'Cannot do a request again'))
    assert.deepEqual(
      stage.failures.map(({ code }) => code),
      ['JOURNAL_CORRUPT'],
    )
    assert.deepEqual(stage.frames, [])
    // It takes nothing on any more.
    stage.send('y')
    assert.equal(readHeader(stage.frames[0] ?? Buffer.alloc(0)).what, 'refusal')
    await stage.server?.close()
  })

  test('answers every copy of a request once it is done', async () => {
    const stage = await new Stage().open()
    const frame = stage.send('x')
    stage.sendAgain(frame)
    ;(await stage.call()).answer()
    stage.sendAgain(frame)
    ;(await stage.call()).answer()
    await turns(() => stage.frames.length === 3)
    const [first, ...others] = stage.frames
    for (const other of others) assert.deepEqual(other, first)
    assert.deepEqual(stage.asked, [])
    await stage.server?.close()
  })

  test('is told nothing new by what comes after its end', async () => {
    const stage = await new Stage().open()
    stage.send('x')
    const { answer } = await stage.call()
    await stage.server?.close()
    answer()
    assert.deepEqual(stage.frames, [])
    assert.deepEqual(stage.timers, [])
  })
})
