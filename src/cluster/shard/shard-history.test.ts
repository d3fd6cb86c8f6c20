import assert from 'node:assert/strict'
import { test } from 'node:test'

import { isOperationError } from '#base/errors.ts'
import { setLogLevel } from '#base/log.ts'
import { crc32c } from '#cluster/erasure/crc32c.ts'
import { ROOT_INODE, type InodeId } from '#cluster/inode-id.ts'
import { MemoryJournal } from '#cluster/journal/memory-journal.ts'
import { MemoryState } from '#cluster/journal/memory-state.ts'
import { Caller } from '#cluster/wire/caller.ts'
import { NO_INODE } from '#cluster/wire/forms.ts'
import { NO_FAULTS, TestWorld } from '#cluster/wire/loopback-fixture.ts'
import type { Message } from '#cluster/wire/message.ts'

import { ANYTHING, ATTRIBUTES, digestOf, NOTHING } from './shard-fixture.ts'
import { shardMessages as m } from './shard-messages.ts'
import { ShardServer } from './shard-server.ts'

setLogLevel('silent')

const WRITERS = 5
const ROUNDS = 50
const OPERATIONS = 10_000
const NAMES = 60
const ADDRESS = 'shard:1'
const directory = ROOT_INODE

/** What one answer says: from that time on the name led there. */
interface Event {
  readonly time: number
  readonly name: string
  readonly inode: InodeId
}

class Writer {
  readonly #world: TestWorld
  readonly #caller: Caller
  readonly #events: Event[]
  readonly counts: Record<string, number>

  constructor(world: TestWorld, events: Event[], counts: Record<string, number>) {
    this.#world = world
    this.#caller = new Caller(world)
    this.#events = events
    this.counts = counts
  }

  ask<Q, R>(message: Message<Q, R>, request: Q): Promise<R> {
    const target = { name: 'the shard', address: () => ADDRESS }
    return this.#caller.call(target, message, request, { deadlineMs: 1e9 })
  }

  async work(count: number): Promise<void> {
    for (let at = 0; at < count; at++) {
      const what = (['create', 'create', 'overwrite', 'unlink', 'rename'] as const)[this.#below(5)] ?? 'create'
      try {
        await this.#do(what, this.#name(), this.#name())
        this.counts[what] = (this.counts[what] ?? 0) + 1
      } catch (error) {
        assert.ok(isOperationError(error), String(error))
        this.counts[error.code] = (this.counts[error.code] ?? 0) + 1
      }
    }
  }

  async #do(what: 'create' | 'overwrite' | 'unlink' | 'rename', name: string, newName: string): Promise<void> {
    const guard = what === 'create' ? NOTHING : ANYTHING
    if (what === 'create' || what === 'overwrite') {
      const bytes = Buffer.from(name)
      const file = { type: 'file' as const, attributes: ATTRIBUTES, size: bytes.length, crc: crc32c(bytes), bytes }
      const { inode, created } = await this.ask(m.create, { directory, name, guard, ...file, xattrs: [] })
      this.#events.push({ time: created, name, inode })
      return
    }
    const { inode, created } = await this.ask(m.lookup, { directory, name })
    const known = { directory, name, inode, created }
    if (what === 'unlink') {
      const { removed } = await this.ask(m.unlink, known)
      this.#events.push({ time: removed, name, inode: NO_INODE })
    } else {
      const renamed = await this.ask(m.rename, { ...known, newName, guard })
      this.#events.push(
        { time: renamed.created, name, inode: NO_INODE },
        { time: renamed.created, name: newName, inode },
      )
    }
  }

  #name(): string {
    return `name ${this.#below(NAMES)}`
  }

  #below(below: number): number {
    return this.#world.chance.below(below)
  }
}

function replayed(events: readonly Event[], asOf: number): [string, InodeId][] {
  const names = new Map<string, InodeId>()
  for (const { time, name, inode } of events) {
    if (time > asOf) break
    if (inode === NO_INODE) names.delete(name)
    else names.set(name, inode)
  }
  return [...names].toSorted(([a], [b]) => (a < b ? -1 : 1))
}

test('[S149] [S150] [S153] 5 writers, 10,000 creates, overwrites, renames and unlinks: every checkpoint is as it was', async () => {
  const world = new TestWorld(149)
  const [journal, stored] = [new MemoryJournal(), new MemoryState()]
  const options = { surroundings: world, first: 0, last: 0, onFailed: assert.fail }
  const server = await world.wait(ShardServer.open({ ...options, journal, stored }))
  await world.network.listen(ADDRESS, (link) => server.accept(link))
  world.faults = { ...NO_FAULTS, loss: 0.002, doubling: 0.05, cut: 0.0005 }

  const events: Event[] = []
  const counts: Record<string, number> = {}
  const writers = Array.from({ length: WRITERS }, () => new Writer(world, events, counts))
  const reader = new Writer(world, [], {})
  const checkpoints: { readonly time: number; readonly names: unknown }[] = []
  for (let round = 0; round < ROUNDS; round++) {
    await world.wait(Promise.all(writers.map((writer) => writer.work(OPERATIONS / WRITERS / ROUNDS))))
    const all = { directory, after: '', limit: 10_000, withStatus: false }
    const { entries } = await world.wait(reader.ask(m.list, all))
    const { mtime } = await world.wait(reader.ask(m.stat, { inode: directory }))
    checkpoints.push({ time: mtime, names: entries.map(({ name, inode }) => [name, inode]) })
  }
  for (const what of ['create', 'overwrite', 'unlink', 'rename', 'NAME_TAKEN', 'NAME_NOT_FOUND']) {
    assert.ok((counts[what] ?? 0) > 500, `${what} happened often: ${JSON.stringify(counts)}`)
  }

  // Answers come in another order than what they tell of has happened.
  const inOrder = events.toSorted((a, b) => a.time - b.time)
  const listed = async (asOf: number, limit: number): Promise<[string, InodeId][]> => {
    const found: [string, InodeId][] = []
    for (let after = '', isLast = false; !isLast;) {
      const page = await world.wait(reader.ask(m.listAsOf, { directory, asOf, after, limit }))
      found.push(...page.entries.map(({ name, inode }): [string, InodeId] => [name, inode]))
      isLast = page.isLast
      after = page.entries.at(-1)?.name ?? after
    }
    return found
  }
  for (const { time, names } of checkpoints) {
    const found = await listed(time, 7)
    assert.deepEqual(found, names)
    assert.deepEqual(found, replayed(inOrder, time))
  }
  for (let at = 0; at < inOrder.length; at += 97) {
    const { time } = inOrder[at] as Event
    for (const asOf of [time - 1, time]) assert.deepEqual(await listed(asOf, 1000), replayed(inOrder, asOf))
  }

  // All of it from the journal and from what was stored on the way.
  const before = digestOf(server.state)
  const again = await world.wait(
    ShardServer.open({ ...options, journal: journal.crash(false), stored: stored.crash(false) }),
  )
  assert.equal(digestOf(again.state), before)
})
