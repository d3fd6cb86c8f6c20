import assert from 'node:assert/strict'
import { afterEach, describe, it } from 'node:test'

import { isOperationError, type OperationError } from '#base/errors.ts'
import { setLogLevel } from '#base/log.ts'
import type { DiskId } from '#cluster/block/permit.ts'
import { MemoryJournal, type MemoryDisk, PROMPT_DISK } from '#cluster/journal/memory-journal.ts'
import { MemoryState } from '#cluster/journal/memory-state.ts'
import type { ClusterId } from '#cluster/cluster-id.ts'
import type { Clock, LinkHandler, Surroundings } from '#cluster/surroundings.ts'
import { decode, type ValueOf } from '#cluster/wire/codec.ts'
import { bodyOf, decodeError, encodeRequest, readHeader } from '#cluster/wire/envelope.ts'
import type { Message } from '#cluster/wire/message.ts'

import { clusterHealth, totalsOf } from './cluster-health.ts'
import { REGISTRY_MACHINE } from './registry-machine.ts'
import { registryMessages as messages } from './registry-messages.ts'
import { shownCluster } from './registry-status.ts'
import { RegistryServer, type RegistryServerOptions } from './registry-server.ts'
import { diskStatus } from './registry-view.ts'

// Refusals are what is tested, and each is logged.
setLogLevel('silent')

type ToldDisk = Omit<ValueOf<typeof messages.registerDisks.request>['disks'][number], 'cluster'>
/** What somebody knows of the map. */
interface Known {
  readonly run: number
  readonly version: number
}
type Heartbeat = ValueOf<typeof messages.registerShards.reply>
const UNKNOWN: Known = { run: 0, version: 0 }
const CLOCK = { isTrusted: true, aheadMs: 0 }

/** Time that goes on when a test says so. */
class Time implements Clock {
  /** By how much the time of day was set ahead. */
  aheadMs = 0
  #now = 0
  readonly #due = new Set<{ readonly at: number; readonly action: () => void }>()

  nowMs(): number {
    return 1_800_000_000_000 + this.#now + this.aheadMs
  }

  monotonicMs(): number {
    return this.#now
  }

  sleptMs(): number {
    return 0
  }

  after(ms: number, action: () => void): () => void {
    const timer = { at: this.#now + ms, action }
    this.#due.add(timer)
    return () => this.#due.delete(timer)
  }

  soon(action: () => void): void {
    setImmediate(action)
  }

  pass(ms: number): void {
    const end = this.#now + ms
    for (;;) {
      const [next] = [...this.#due].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)
      if (next === undefined) break
      this.#due.delete(next)
      this.#now = next.at
      next.action()
    }
    this.#now = end
  }
}

/** Each thing that is drawn is another. */
let drawn = 0

class Registry {
  readonly time = new Time()
  readonly journal: MemoryJournal
  readonly stored: MemoryState
  readonly server: RegistryServer
  readonly #handler: LinkHandler
  readonly #answers = new Map<number, (frame: Buffer) => void>()
  #sequence = 0

  private constructor(server: RegistryServer, time: Time, journal: MemoryJournal, stored: MemoryState) {
    this.server = server
    this.time = time
    this.journal = journal
    this.stored = stored
    this.#handler = server.accept({
      peer: 'test',
      bytesWaiting: 0,
      send: (...parts) => {
        const frame = Buffer.concat(parts)
        this.#answers.get(readHeader(frame).sequence)?.(frame)
      },
      close: () => undefined,
    })
  }

  static async start(
    journal = new MemoryJournal(),
    stored = new MemoryState(),
    options: Pick<RegistryServerOptions, 'cluster'> = {},
  ): Promise<Registry> {
    const time = new Time()
    const surroundings: Surroundings = {
      clock: time,
      chance: { bytes: (count) => Buffer.alloc(count, ++drawn), below: () => 0 },
      network: {
        listen: () => Promise.reject(new Error('no network')),
        connect: () => {
          throw new Error('no network')
        },
      },
    }
    const onFailed = (error: OperationError): void => {
      throw error
    }
    const server = await RegistryServer.open({ surroundings, journal, stored, onFailed, ...options })
    const started = new Registry(server, time, journal, stored)
    running.add(started)
    return started
  }

  /** What a process of the cluster is answered. */
  ask<Q, R>(message: Message<Q, R>, request: Q, isInternal = true): Promise<R> {
    const sequence = ++this.#sequence
    const facts = { client: 7, slot: 0, sequence, kind: message.kind, shard: 0, isInternal }
    return new Promise((resolve, reject) => {
      this.#answers.set(sequence, (frame) => {
        if (readHeader(frame).what === 'reply') resolve(decode(message.reply, bodyOf(frame)))
        else reject(decodeError(bodyOf(frame)))
      })
      this.#handler.onFrame(encodeRequest(facts, message.request, request))
    })
  }

  disks(number: number, ...told: ToldDisk[]): Promise<ValueOf<typeof messages.registerDisks.reply>> {
    const { cluster } = this.server
    const disks = told.map((each) => ({ cluster, ...each }))
    const request = { process: number, address: `10.0.0.${number}:1`, location: '', clock: CLOCK, disks }
    return this.ask(messages.registerDisks, request)
  }

  shards(process = 100, first = 0, last = 255, facts: object = {}): Promise<Heartbeat> {
    const { cluster } = this.server
    const told = { address: '10.0.1.1:1', location: '', clock: CLOCK, ...facts }
    const request = { cluster, process, place: `place ${process}`, first, last, ...told }
    return this.ask(messages.registerShards, request)
  }

  coordinator(facts: object = {}): Promise<Heartbeat> {
    const { cluster } = this.server
    const told = { address: '10.0.1.2:1', location: '', clock: CLOCK, ...facts }
    const request = { cluster, process: 101, place: 'place 101', ...told }
    return this.ask(messages.registerCoordinator, request)
  }

  map({ run, version }: Known = UNKNOWN, isInternal = false): Promise<ValueOf<typeof messages.map.reply>> {
    return this.ask(messages.map, { cluster: undefined, run, known: version }, isInternal)
  }

  shardDisks(
    first: number,
    last: number,
    { run, version }: Known = UNKNOWN,
  ): Promise<ValueOf<typeof messages.shardDisks.reply>> {
    return this.ask(messages.shardDisks, { cluster: this.server.cluster, run, known: version, first, last })
  }

  async all(count: number): Promise<void> {
    await this.shards()
    await this.coordinator()
    for (let number = 1; number <= count; number++) await this.disks(number, disk(number))
  }

  get health(): readonly [string, string] {
    const { state, sentence } = clusterHealth(this.server.view)
    return [state, sentence]
  }

  statuses(): string {
    return this.server.view.disks.map(diskStatus).join(' ')
  }
}

const GB = 1e9
function disk(id: number, facts: Partial<ToldDisk> = {}): ToldDisk {
  return {
    disk: id as DiskId,
    key: Buffer.alloc(32, id),
    class: 2,
    domain: `rack-${id}`,
    path: `/srv/${id}`,
    fileSystem: 0,
    failure: '',
    capacityBytes: 100 * GB,
    usedBytes: 10 * GB,
    freeBytes: 90 * GB,
    blocks: 10,
    ...facts,
  }
}

const running = new Set<Registry>()
afterEach(async () => {
  for (const each of running) await each.server.close()
  running.clear()
})

const refusedBy = (code: string) => (error: unknown) => isOperationError(error) && error.code === code
const id = (number: number): DiskId => number as DiskId

describe('RegistryServer', () => {
  it('tells clients where everything is, again only where something is different', async () => {
    const registry = await Registry.start()
    await registry.all(2)
    const { run, version, map } = await registry.map()
    assert.deepEqual(map?.shards, [{ first: 0, last: 255, address: '10.0.1.1:1', isStale: false }])
    assert.deepEqual(map?.coordinator, { address: '10.0.1.2:1', isStale: false })
    assert.deepEqual(
      map?.disks.map((each) => [each.disk, each.address, each.domain, each.flags, each.freeBytes]),
      [
        [1, '10.0.0.1:1', 'rack-1', [], 90 * GB],
        [2, '10.0.0.2:1', 'rack-2', [], 90 * GB],
      ],
    )
    assert.deepEqual(await registry.map({ run, version }), { run, version, map: undefined })
    await registry.disks(1, disk(1, { failure: 'EIO' }))
    const next = await registry.map({ run, version })
    assert(next.version > version)
    assert.equal(next.map?.disks[0]?.failure, 'EIO')
  })

  it('takes heartbeats that tell nothing new without a write, and counts no version for bytes', async () => {
    const registry = await Registry.start()
    await registry.all(3)
    const { last } = registry.journal
    const { version } = registry.server.view
    for (let round = 0; round < 50; round++) {
      await registry.all(3)
      await registry.disks(1, disk(1, { usedBytes: round * GB }))
      registry.time.pass(10_000)
    }
    assert.equal(registry.journal.last, last)
    assert.equal(registry.server.view.version, version)
    assert.equal(registry.server.view.disk(id(1))?.room?.usedBytes, 49 * GB)
  })

  it('counts who is silent for three minutes as stale, and as there again with its next heartbeat', async () => {
    const registry = await Registry.start()
    await registry.all(3)
    registry.time.pass(170_000)
    await registry.disks(1, disk(1))
    assert.equal(registry.statuses(), 'ok ok ok')
    registry.time.pass(15_000)
    assert.equal(registry.statuses(), 'ok stale stale')
    const { version, map } = await registry.map()
    assert.deepEqual(
      map?.disks.map(({ flags }) => flags),
      [[], ['stale'], ['stale']],
    )
    assert.deepEqual([map?.coordinator?.isStale, map?.shards[0]?.isStale], [true, true])
    const { disks } = await registry.shardDisks(3, 3)
    assert.deepEqual(disks?.writable, [{ shard: 3, class: 2, disks: [1] }])
    await registry.all(3)
    assert.equal(registry.statuses(), 'ok ok ok')
    assert(registry.server.view.version > version)
  })

  it('knows everything after a start, takes nobody for stale until their time has passed, and has higher versions', async () => {
    const before = await Registry.start()
    await before.all(2)
    await before.server.setFlags(id(2), { set: ['no-write'], clear: [] })
    const seen = await before.map()
    const { version } = seen
    const registry = await Registry.start(before.journal.crash(false), before.stored.crash(false))
    running.delete(before)
    assert(registry.server.view.version > version)
    assert.equal(registry.statuses(), 'ok drained')
    assert.equal(registry.server.view.disk(id(1))?.heardMs, undefined)
    const { disks } = await registry.shardDisks(0, 0, seen)
    assert.deepEqual(disks?.writable, [{ shard: 0, class: 2, disks: [1] }])
    assert.deepEqual(disks?.all[1]?.key, Buffer.alloc(32, 2))
    registry.time.pass(170_000)
    assert.equal(registry.statuses(), 'ok drained')
    registry.time.pass(20_000)
    assert.equal(registry.statuses(), 'stale stale')
  })

  it('tells nobody of what is not durable yet', async () => {
    let isSlow = false
    const waiting: (() => void)[] = []
    const slow: MemoryDisk = {
      write: () =>
        isSlow
          ? new Promise<void>((resolve) => {
              waiting.push(resolve)
            })
          : PROMPT_DISK.write(0),
    }
    const registry = await Registry.start(new MemoryJournal(slow))
    isSlow = true
    let isAnswered = false
    const answered = registry.disks(1, disk(1)).then(() => (isAnswered = true))
    while (waiting.length === 0) await new Promise((resolve) => setImmediate(resolve))
    const { map } = await registry.map()
    assert.deepEqual(map?.disks, [])
    assert.equal(isAnswered, false)
    isSlow = false
    for (const go of waiting) go()
    await answered
    assert.equal((await registry.map()).map?.disks.length, 1)
  })

  it('refuses a disk that another process has, or that has another key, and takes the ones beside it', async () => {
    const registry = await Registry.start()
    await registry.disks(1, disk(1), disk(2))
    const { refused } = await registry.disks(9, disk(1), disk(3))
    assert.deepEqual(
      refused.map((each) => each.disk),
      [1],
    )
    assert.match(refused[0]?.why ?? '', /10\.0\.0\.1:1 has a disk of this id, in \/srv\/1/)
    const again = await registry.disks(1, disk(1, { key: Buffer.alloc(32, 5) }), disk(2))
    assert.deepEqual(again.refused, [{ disk: 1, why: 'a disk of this id is known with another key' }])
    // Moved to another machine, where its old one does not have it any more.
    registry.time.pass(30_000)
    assert.deepEqual((await registry.disks(9, disk(1), disk(3))).refused, [])
    assert.equal(registry.server.view.disk(id(1))?.record.address, '10.0.0.9:1')
  })

  it('[S169] refuses a process that was heard of elsewhere lately, and takes it there once the other is silent', async () => {
    const registry = await Registry.start()
    await registry.all(1)
    const copy = { place: 'of a copy', address: '10.0.9.9:1' }
    const { last } = registry.journal
    const parts = [
      [(facts: object) => registry.shards(100, 0, 255, facts), 'serves them at 10.0.1.1:1'],
      [(facts: object) => registry.coordinator(facts), 'is the coordinator at 10.0.1.2:1'],
    ] as const
    const told = (does: string) => (error: unknown) =>
      isOperationError(error, 'REGISTRATION_REFUSED') &&
      error.message.endsWith(`a process that has the same directory, or a copy of it, ${does}`) &&
      error.hint.includes('try again in 25 seconds')
    // What is refused does not count as heard of, however often it comes.
    for (const waitMs of [0, 12_000, 12_000, 1000]) {
      registry.time.pass(waitMs)
      for (const [register, does] of parts) await assert.rejects(register(copy), told(does))
    }
    assert.equal(registry.journal.last, last)
    assert.equal((await registry.map()).map?.shards[0]?.address, '10.0.1.1:1')
    registry.time.pass(1)
    for (const [register] of parts) await register(copy)
    const { map } = await registry.map()
    assert.deepEqual([map?.shards[0]?.address, map?.coordinator?.address], ['10.0.9.9:1', '10.0.9.9:1'])
    for (const [register] of parts) await assert.rejects(register({}), refusedBy('REGISTRATION_REFUSED'))
  })

  it('[S169] takes who starts again in the same place at once, at whatever address', async () => {
    const registry = await Registry.start()
    await registry.all(1)
    await registry.shards(100, 0, 255, { address: '10.0.1.1:2' })
    await registry.coordinator({ address: '10.0.1.2:2' })
    const { map } = await registry.map()
    assert.deepEqual([map?.shards[0]?.address, map?.coordinator?.address], ['10.0.1.1:2', '10.0.1.2:2'])
  })

  it('[S169] takes one of two that come at once', async () => {
    const registry = await Registry.start()
    const copy = { place: 'of a copy', address: '10.0.9.9:1' }
    const [first, second] = await Promise.allSettled([registry.shards(), registry.shards(100, 0, 255, copy)])
    assert.deepEqual([first?.status, second?.status], ['fulfilled', 'rejected'])
    assert.equal((await registry.map()).map?.shards[0]?.address, '10.0.1.1:1')
  })

  it('[S169] keeps no place for who is refused for another reason', async () => {
    const registry = await Registry.start()
    await registry.shards(100, 0, 127)
    await assert.rejects(registry.shards(102, 127, 255, { place: 'wrong' }), refusedBy('REGISTRATION_REFUSED'))
    await registry.shards(102, 128, 255)
  })

  it('writes to no disk that is full, failed, drained, unread, terminated or stale', async () => {
    const registry = await Registry.start()
    await registry.all(7)
    await registry.disks(1, disk(1, { freeBytes: 100_000_000 }))
    await registry.disks(2, disk(2, { failure: 'EIO' }))
    await registry.server.setFlags(id(3), { set: ['no-write'], clear: [] })
    await registry.server.setFlags(id(4), { set: ['no-read'], clear: [] })
    await registry.disks(5, disk(5, { failure: 'EIO' }))
    await registry.server.setFlags(id(5), { set: ['decommissioned'], clear: [] })
    registry.time.pass(150_000)
    for (const number of [1, 3, 4, 7])
      await registry.disks(number, disk(number, number === 1 ? { freeBytes: 100_000_000 } : {}))
    await registry.disks(2, disk(2, { failure: 'EIO' }))
    registry.time.pass(60_000)
    assert.equal(registry.statuses(), 'full failed drained unread terminated stale ok')
    const { disks } = await registry.shardDisks(0, 255)
    assert.equal(disks?.writable.length, 256)
    for (const { disks: chosen } of disks?.writable ?? []) assert.deepEqual(chosen, [7])
    // Not at once again, where it goes to and fro.
    await registry.disks(1, disk(1, { freeBytes: 200_000_000 }))
    assert.equal(registry.statuses().split(' ')[0], 'full')
    await registry.disks(1, disk(1, { freeBytes: 300_000_000 }))
    assert.equal(registry.statuses().split(' ')[0], 'ok')
  })

  it('terminates only a disk that is silent or has failed, and lets nobody say that one is stale', async () => {
    const registry = await Registry.start()
    await registry.all(1)
    const flags = (set: ('stale' | 'no-write' | 'decommissioned')[], disks = 1): Promise<unknown> =>
      registry.ask(messages.setFlags, { disk: id(disks), set, clear: [] }, false)
    await assert.rejects(flags(['decommissioned']), refusedBy('DISK_FLAG_REFUSED'))
    await assert.rejects(flags(['stale']), refusedBy('INPUT_INVALID'))
    await assert.rejects(flags(['no-write'], 2), refusedBy('DISK_NOT_FOUND'))
    registry.time.pass(200_000)
    await flags(['decommissioned'])
    await flags(['decommissioned'])
    assert.equal(registry.statuses(), 'terminated')
    await registry.disks(1, disk(1))
    assert.equal(registry.statuses(), 'terminated')
  })

  it('[S165] is one cluster from its first start on, and takes nothing of another', async () => {
    const registry = await Registry.start()
    const { cluster } = registry.server
    await registry.all(1)
    assert.deepEqual((await registry.ask(messages.greet, {})).cluster, cluster)
    const other = { cluster: 'f'.repeat(32) as ClusterId }
    const { last } = registry.journal
    const { version } = registry.server.view
    const told = (error: unknown): boolean =>
      isOperationError(error, 'CLUSTER_MISMATCH') &&
      error.message.includes(other.cluster) &&
      error.message.includes(cluster)
    await assert.rejects(registry.shards(100, 0, 255, other), told)
    await assert.rejects(registry.coordinator(other), told)
    await assert.rejects(registry.disks(2, disk(2), { ...disk(3), ...other }), told)
    const learn = { ...other, run: 0, known: 0, first: 0, last: 255 }
    await assert.rejects(registry.ask(messages.shardDisks, learn), told)
    await assert.rejects(registry.ask(messages.map, { ...other, run: 0, known: 0 }), told)
    assert.equal(registry.journal.last, last)
    assert.equal(registry.server.view.version, version)
    const words = `Parts of another cluster, ${other.cluster}, come here and are refused; `
    assert.deepEqual([registry.health[0], registry.health[1].slice(0, words.length)], ['degraded', words])
    registry.time.pass(170_000)
    await registry.all(1)
    registry.time.pass(15_000)
    assert.equal(registry.health[0], 'good', 'nobody does so any more')
    const again = await Registry.start(registry.journal.crash(false), registry.stored.crash(false))
    running.delete(registry)
    assert.equal(again.server.cluster, cluster)
    assert.notEqual((await Registry.start()).server.cluster, cluster, 'another one is another cluster')
  })

  it('[S165] becomes a cluster where it was begun before there were ids', async () => {
    const journal = new MemoryJournal()
    await journal.append(1, [REGISTRY_MACHINE.encode({ kind: 'started' })])
    const registry = await Registry.start(journal)
    const { cluster } = registry.server
    const again = await Registry.start(registry.journal.crash(false), registry.stored.crash(false))
    running.delete(registry)
    assert.equal(again.server.cluster, cluster)
  })

  it('[S165] takes the place of one that was lost where it is told so, and only where nothing is known yet', async () => {
    const lost = await Registry.start()
    await lost.all(1)
    const { cluster } = lost.server
    const registry = await Registry.start(new MemoryJournal(), new MemoryState(), { cluster })
    assert.equal(registry.server.cluster, cluster)
    const all = { cluster }
    await registry.shards(100, 0, 255, all)
    const kept = [registry.journal.crash(false), registry.stored.crash(false)] as const
    running.delete(registry)
    const again = await Registry.start(...kept, { cluster })
    const { last } = again.journal
    const left = [again.journal.crash(false), again.stored.crash(false)] as const
    running.delete(again)
    const wrong = Registry.start(...left, { cluster: 'e'.repeat(32) as ClusterId })
    await assert.rejects(
      wrong,
      (error) => isOperationError(error, 'CLUSTER_MISMATCH') && error.message.includes(cluster),
    )
    assert.equal(left[0].last, last)
  })

  it('[S165] tells all anew to those who know of another run of it, whatever their versions', async () => {
    const before = await Registry.start()
    await before.all(3)
    const known = await before.map()
    const { run } = await before.shardDisks(0, 255)
    // Emptied, and begun anew for the same cluster: as many things happen, and not the same.
    const { cluster } = before.server
    const after = await Registry.start(new MemoryJournal(), new MemoryState(), { cluster })
    await after.all(2)
    await after.disks(9, disk(9))
    const { version } = after.server.view
    assert.equal(version, known.version, 'the versions come out alike')
    const next = await after.map({ run: known.run, version })
    assert.deepEqual(
      next.map?.disks.map((each) => each.disk),
      [1, 2, 9],
    )
    assert.deepEqual(
      (await after.shardDisks(0, 255, { run, version })).disks?.all.map((each) => each.disk),
      [1, 2, 9],
    )
    assert.equal((await after.map(next)).map, undefined)
    // Put back to a copy: what was told of since then is told under the same numbers as something else.
    const [journal, stored] = [after.journal.crash(false), after.stored.crash(false)]
    const seen = await after.map()
    running.delete(after)
    const copy = await Registry.start(journal, stored)
    assert.ok((await copy.map({ run: seen.run, version: copy.server.view.version })).map !== undefined)
  })

  it('[S166] tells its time with each heartbeat, but not while its own clock was just set', async () => {
    const registry = await Registry.start()
    const told = async (): Promise<readonly (number | undefined)[]> => {
      const heartbeats = [await registry.shards(), await registry.coordinator(), await registry.disks(1, disk(1))]
      return [...new Set([...heartbeats, await registry.ask(messages.greet, {})].map(({ timeMs }) => timeMs))]
    }
    assert.deepEqual(await told(), [registry.time.nowMs()])
    registry.time.aheadMs = 9_000
    assert.deepEqual(await told(), [registry.time.nowMs()], 'nobody minds so little')
    registry.time.aheadMs = 86_400_000
    assert.deepEqual(await told(), [undefined])
    registry.time.pass(14_000)
    assert.deepEqual(await told(), [undefined])
    registry.time.aheadMs = 0
    assert.deepEqual(await told(), [undefined], 'it was set once more')
    registry.time.pass(14_000)
    assert.deepEqual(await told(), [undefined])
    registry.time.pass(1000)
    assert.deepEqual(await told(), [registry.time.nowMs()])
  })

  it('answers clients no registration and no keys', async () => {
    const registry = await Registry.start()
    const internal = [
      [messages.shardDisks, { cluster: registry.server.cluster, run: 0, known: 0, first: 0, last: 0 }],
      [messages.registerDisks, { process: 1, address: '', location: '', clock: CLOCK, disks: [] }],
      [messages.greet, {}],
    ] as const
    for (const [message, request] of internal) {
      await assert.rejects(registry.ask<unknown, unknown>(message, request, false), refusedBy('REQUEST_REFUSED'))
    }
  })

  it('has other disks written to once others are emptier', async () => {
    const registry = await Registry.start()
    await registry.disks(1, disk(1, { domain: 'a' }), disk(2, { domain: 'a' }))
    const { run, version } = await registry.shardDisks(0, 255)
    await registry.disks(1, disk(1, { domain: 'a', freeBytes: 10 * GB }), disk(2, { domain: 'a' }))
    assert.equal((await registry.shardDisks(0, 255, { run, version })).disks, undefined)
    for (let minute = 0; minute < 11; minute++) {
      registry.time.pass(60_000)
      await registry.disks(1, disk(1, { domain: 'a', freeBytes: 10 * GB }), disk(2, { domain: 'a' }))
    }
    const { disks } = await registry.shardDisks(0, 255, { run, version })
    const firsts = disks?.writable.map((each) => each.disks[0]) ?? []
    assert.equal(firsts.filter((first) => first === 1).length, 26)
  })
})

describe('the health of the whole', () => {
  it('is said in one sentence', async () => {
    const registry = await Registry.start()
    assert.deepEqual(registry.health, [
      'down',
      'Nothing has registered yet: start the shards, the coordinator and disks.',
    ])
    await registry.shards(100, 0, 99)
    assert.deepEqual(registry.health, [
      'down',
      'No disk has registered; shards 100 to 255 are missing; the coordinator is missing. No disk takes new blocks.',
    ])
    await registry.shards(102, 100, 255)
    await registry.coordinator()
    await registry.disks(1, disk(1))
    assert.deepEqual(registry.health, [
      'good',
      'The disk, 256 shards and the coordinator are there. Files are kept as a single copy: no disk may fail.',
    ])
    await registry.disks(2, disk(2))
    assert.match(registry.health[1], /^All 2 disks, .* Files are kept as 2 copies: any one failure domain may fail\.$/)
    for (const number of [3, 4]) await registry.disks(number, disk(number))
    assert.deepEqual(registry.health, [
      'good',
      'All 4 disks, 256 shards and the coordinator are there. Files are kept as 2+1: any one failure domain may fail.',
    ])
    await registry.server.setFlags(id(4), { set: ['no-write'], clear: [] })
    assert.deepEqual(registry.health, [
      'good',
      'All 4 disks (1 drained), 256 shards and the coordinator are there. Files are kept as 2+1: any one failure domain may fail.',
    ])
    await registry.disks(1, disk(1, { failure: 'EIO' }))
    assert.deepEqual(registry.health, [
      'degraded',
      '1 of 4 disks has failed (1 drained); 256 shards and the coordinator are there. New files are kept as 2 copies: any one failure domain may fail.',
    ])
    registry.time.pass(200_000)
    await registry.disks(2, disk(2))
    assert.deepEqual(registry.health, [
      'down',
      '3 of 4 disks are silent; shards 0 to 99 and 100 to 255 are silent; the coordinator is silent. New files are kept as a single copy: no disk may fail.',
    ])
  })

  it('[S167] calls nothing there that was not heard of since the start', async () => {
    const before = await Registry.start()
    await before.all(3)
    await before.server.setFlags(id(3), { set: ['no-write'], clear: [] })
    const registry = await Registry.start(before.journal.crash(false), before.stored.crash(false))
    running.delete(before)
    const kept = 'New files are kept as 2 copies: any one failure domain may fail.'
    assert.deepEqual(registry.health, [
      'degraded',
      `3 of 3 disks are not heard of yet (1 drained); shards 0 to 255 are not heard of yet; the coordinator is not heard of yet. ${kept}`,
    ])
    const { cluster, view } = registry.server
    const shown = shownCluster(cluster, view, 0)
    assert.deepEqual(
      [...shown.disks, ...shown.shards, shown.coordinator].map((each) => each?.status),
      ['unheard', 'unheard', 'drained', 'unheard', 'unheard'],
    )
    await registry.disks(1, disk(1))
    await registry.shards()
    assert.deepEqual(registry.health, [
      'degraded',
      `2 of 3 disks are not heard of yet (1 drained); the coordinator is not heard of yet; 256 shards are there. ${kept}`,
    ])
    await registry.all(3)
    assert.equal(registry.health[0], 'good')
    assert.deepEqual(
      shownCluster(cluster, view, 0).disks.map(({ status }) => status),
      ['ok', 'ok', 'drained'],
    )
  })

  it('[S166] says whose clock is off, and by how much', async () => {
    const registry = await Registry.start()
    await registry.all(1)
    const off = { clock: { isTrusted: false, aheadMs: -3 * 86_400_000 } }
    await registry.shards(100, 0, 255, off)
    assert.deepEqual(registry.health, [
      'down',
      'The clock of shards 0 to 255 is 3 days behind that of the registry, and they take no writes; the disk, 256 shards and the coordinator are there. Files are kept as a single copy: no disk may fail.',
    ])
    await registry.shards()
    await registry.coordinator(off)
    assert.deepEqual(registry.health, [
      'degraded',
      'The clock of the coordinator is 3 days behind that of the registry; the disk, 256 shards and the coordinator are there. Files are kept as a single copy: no disk may fail.',
    ])
    const { cluster, view } = registry.server
    const { coordinator } = shownCluster(cluster, view, 0)
    assert.deepEqual([coordinator?.status, coordinator?.clockAheadMs], ['skewed', -3 * 86_400_000])
    await registry.coordinator()
    assert.equal(registry.health[0], 'good')
  })

  it('says it for each class where they differ', async () => {
    const registry = await Registry.start()
    await registry.all(6)
    await registry.disks(7, disk(7, { class: 3 }))
    assert.match(
      registry.health[1],
      /Files are kept by class: those of class 2 as 4\+2: any two failure domains may fail; those of class 3 as a single copy: no disk may fail\.$/,
    )
  })

  it('says where failure domains lie on one file system', async () => {
    const registry = await Registry.start()
    await registry.shards()
    await registry.coordinator()
    await registry.disks(1, disk(1, { fileSystem: 5 }), disk(2, { fileSystem: 5 }), disk(3, { fileSystem: 5 }))
    assert.deepEqual(registry.health, [
      'good',
      'All 3 disks, 256 shards and the coordinator are there. Files are kept as 2+1: any one failure domain may fail, though not the one file system that all disks are on.',
    ])
    await registry.disks(4, disk(4, { fileSystem: 6 }))
    assert.match(registry.health[1], /any one failure domain may fail\.$/)
  })

  it('counts free bytes that disks share once', async () => {
    const registry = await Registry.start()
    await registry.disks(1, disk(1, { fileSystem: 5 }), disk(2, { fileSystem: 5 }), disk(3))
    assert.deepEqual(totalsOf(registry.server.view), {
      disks: 3,
      domains: 3,
      capacityBytes: 210 * GB,
      usedBytes: 30 * GB,
      freeBytes: 180 * GB,
    })
    const { health, cluster, ...totals } = await registry.ask(messages.info, {}, false)
    assert.equal(cluster, registry.server.cluster)
    assert.deepEqual(totals, totalsOf(registry.server.view))
    assert.match(health, /^No shard has registered; the coordinator is missing; all 3 disks are there\. /)
  })
})
