/**
 * Directory churn on one shard: clients make, replace, rename and remove small files in one directory, each under names of its
 * own, so that each knows at any time what its names must lead to. All that was done carries the time of the shard, by which the
 * history is compared with a model as of many times.
 */
import { isOperationError } from '#base/errors.ts'
import { crc32c } from '#cluster/erasure/crc32c.ts'
import { type InodeId, ROOT_INODE } from '#cluster/inode-id.ts'
import { ShardMachine } from '#cluster/shard/shard-machine.ts'
import { SHARD_MESSAGES, shardMessages } from '#cluster/shard/shard-messages.ts'
import { ShardServer } from '#cluster/shard/shard-server.ts'
import { Caller, type Target } from '#cluster/wire/caller.ts'
import { ANYTHING, type Edge, NOTHING, type NameGuard } from '#cluster/wire/forms.ts'
import type { Message } from '#cluster/wire/message.ts'
import { asOfEquals, type NameEvent } from '#sim/checkers/as-of-equals.ts'
import { oneOwner } from '#sim/checkers/one-owner.ts'
import { replaysEqually } from '#sim/checkers/replays-equally.ts'
import { type FaultKind, ORDINARY_FAULTS } from '#sim/faults.ts'
import { frameWords } from '#sim/frame-words.ts'
import type { Machine, Process } from '#sim/process.ts'
import type { Random } from '#sim/random.ts'
import type { Scenario, Simulation } from '#sim/scenario.ts'
import { SimulationFailure } from '#sim/timeline.ts'
import type { World } from '#sim/world.ts'

const ADDRESS = 'shard:7000'
const SHARD: Target = { name: 'the shard', address: () => ADDRESS }
const CLIENTS = 3
const WORKERS_EACH = 2
const STEPS_EACH = 25
const THINK_MS_MAX = 2000
const CHECKPOINTS = 12
const PROCEEDS_WITHIN_MS = 90_000
const ATTRIBUTES = { mode: 0o644, uid: 0, gid: 0, mtime: undefined, atime: undefined }
/** Whose order by bytes of UTF-8 is not that of their UTF-16 units. */
const ENDINGS = ['', 'z', 'é', '\uffee', '\u{10000}']

interface Entry {
  readonly inode: InodeId
  readonly created: number
}

/** One that works under names of its own, in the directory that all share. */
class Worker {
  readonly events: NameEvent[] = []
  readonly #machine: Machine
  readonly #caller: Caller
  readonly #names: readonly string[]
  /** What each name leads to. */
  readonly #entries = new Map<string, Entry>()

  constructor(machine: Machine, caller: Caller, number: number) {
    this.#machine = machine
    this.#caller = caller
    this.#names = ENDINGS.map((ending) => `${number}${ending}`)
  }

  async work(): Promise<void> {
    const { chance, clock } = this.#machine.surroundings
    for (let step = 0; step < STEPS_EACH; step++) {
      if (chance.below(3) === 0) await new Promise<void>((resolve) => clock.after(chance.below(THINK_MS_MAX), resolve))
      const name = this.#anyName()
      const entry = this.#entries.get(name)
      const what = chance.below(6)
      if (what === 0) await this.#look(name)
      else if (what === 1 && entry !== undefined) await this.#unlink(name, entry)
      else if (what === 2 && entry !== undefined) await this.#rename(name, entry)
      else if (what === 3) await this.#construct(name)
      else await this.#create(name, entry)
    }
    for (const name of this.#names) await this.#look(name)
  }

  #anyName(): string {
    return this.#names[this.#machine.surroundings.chance.below(this.#names.length)] ?? ''
  }

  #ask<Q, R>(message: Message<Q, R>, request: Q): Promise<R> {
    return this.#caller.call(SHARD, message, request, { deadlineMs: Infinity })
  }

  #happened(stampUs: number, name: string, inode: InodeId | undefined): void {
    this.events.push({ stampUs, name, inode })
    if (inode === undefined) this.#entries.delete(name)
    else this.#entries.set(name, { inode, created: stampUs })
  }

  /** One that holds, mostly the strictest. */
  #guard(before: Entry | undefined): NameGuard {
    if (this.#machine.surroundings.chance.below(3) === 0) return ANYTHING
    return before === undefined ? NOTHING : { how: 'is', inode: before.inode }
  }

  async #look(name: string): Promise<void> {
    const entry = this.#entries.get(name)
    let found: Entry | undefined
    try {
      found = await this.#ask(shardMessages.lookup, { directory: ROOT_INODE, name })
    } catch (error) {
      if (!isOperationError(error, 'NAME_NOT_FOUND')) throw error
    }
    if (found?.inode === entry?.inode && found?.created === entry?.created) return
    const told = `${found?.inode} of ${found?.created}, and ${entry?.inode} of ${entry?.created} was acknowledged`
    throw new SimulationFailure(`${JSON.stringify(name)} leads to ${told}`)
  }

  async #create(name: string, before: Entry | undefined): Promise<void> {
    const bytes = this.#machine.surroundings.chance.bytes(1 + this.#machine.surroundings.chance.below(100))
    const content = {
      type: 'file',
      attributes: ATTRIBUTES,
      size: bytes.length,
      crc: crc32c(bytes),
      bytes,
      xattrs: [],
    } as const
    const place = { directory: ROOT_INODE, name, guard: this.#guard(before) }
    const { inode, created } = await this.#ask(shardMessages.create, { ...place, ...content })
    this.#happened(created, name, inode)
  }

  async #construct(name: string): Promise<void> {
    const { file, cookie } = await this.#ask(shardMessages.construct, {
      type: 'file',
      attributes: ATTRIBUTES,
      note: name,
    })
    const bytes = Buffer.from(name)
    const span = { offset: 0, size: bytes.length, crc: crc32c(bytes), bytes }
    await this.#ask(shardMessages.addInline, { file, cookie, ...span })
    if (this.#machine.surroundings.chance.below(4) === 0) {
      await this.#ask(shardMessages.scrap, { file, cookie })
      return
    }
    const guard = this.#guard(this.#entries.get(name))
    const link = { file, cookie, directory: ROOT_INODE, name, guard, size: bytes.length }
    const { created } = await this.#ask(shardMessages.link, link)
    this.#happened(created, name, file)
  }

  async #unlink(name: string, { inode, created }: Entry): Promise<void> {
    const { removed } = await this.#ask(shardMessages.unlink, { directory: ROOT_INODE, name, inode, created })
    this.#happened(removed, name, undefined)
  }

  async #rename(name: string, { inode, created }: Entry): Promise<void> {
    const newName = this.#anyName()
    if (newName === name) return
    const guard = this.#guard(this.#entries.get(newName))
    const place = { directory: ROOT_INODE, name, inode, created, newName, guard }
    const renamed = await this.#ask(shardMessages.rename, place)
    this.#happened(renamed.created, name, undefined)
    this.#happened(renamed.created, newName, inode)
  }
}

async function startShard({ surroundings, disk, exit }: Machine, machine: ShardMachine): Promise<ShardServer> {
  const [journal, stored] = [disk.journal('shard'), disk.state('shard')]
  const server = await ShardServer.open({ surroundings, journal, stored, first: 0, last: 0, onFailed: exit, machine })
  await surroundings.network.listen(ADDRESS, (link) => server.accept(link))
  return server
}

interface Client {
  readonly caller: Caller
  readonly workers: readonly Worker[]
  readonly done: Promise<unknown>
}

function startClient(machine: Machine, number: number): Client {
  const caller = new Caller(machine.surroundings, { slots: WORKERS_EACH })
  const workers = Array.from(
    { length: WORKERS_EACH },
    (_, each) => new Worker(machine, caller, number * WORKERS_EACH + each),
  )
  return { caller, workers, done: Promise.all(workers.map((worker) => worker.work())) }
}

/** All pages, which have so few entries that there are many. */
async function pages<T>(
  random: Random,
  ask: (last: T | undefined, limit: number) => Promise<{ readonly found: readonly T[]; readonly isLast: boolean }>,
): Promise<T[]> {
  const all: T[] = []
  for (;;) {
    const { found, isLast } = await ask(all.at(-1), random.between(1, 20))
    all.push(...found)
    if (isLast) return all
  }
}

async function check(caller: Caller, events: readonly NameEvent[], random: Random): Promise<readonly Edge[]> {
  const directory = ROOT_INODE
  const listed = await pages(random, async (last: { name: string; inode: InodeId } | undefined, limit) => {
    const request = { directory, after: last?.name ?? '', limit, withStatus: random.happens(0.5) }
    const { entries, isLast } = await caller.call(SHARD, shardMessages.list, request)
    return { found: entries, isLast }
  })
  asOfEquals(events, Infinity, listed)
  for (let checkpoint = 0; checkpoint < CHECKPOINTS && events.length > 0; checkpoint++) {
    const asOf = random.pick(events).stampUs - random.below(2)
    const then = await pages(random, async (last: { name: string; inode: InodeId } | undefined, limit) => {
      const request = { directory, asOf, after: last?.name ?? '', limit }
      const { entries, isLast } = await caller.call(SHARD, shardMessages.listAsOf, request)
      return { found: entries, isLast }
    })
    asOfEquals(events, asOf, then)
  }
  return pages(random, async (last: Edge | undefined, limit) => {
    const from = { name: last?.name ?? '', time: last === undefined ? 0 : last.created + 1 }
    const request = { directory, ...from, isBackwards: false, isSameName: false, limit }
    const { edges, isLast } = await caller.call(SHARD, shardMessages.history, request)
    return { found: edges, isLast }
  })
}

function build(world: World, shardMachine: ShardMachine): Simulation {
  const shard = world.process('shard', (its) => startShard(its, shardMachine), {
    mayExit: (why) => isOperationError(why, 'JOURNAL_FAILED'),
  })
  const clients = Array.from({ length: CLIENTS }, (_, number) =>
    world.process(`client-${number}`, (machine) => startClient(machine, number)),
  )
  const random = world.random.named('check')
  return {
    run: async (isUp) => {
      await shard.start()
      const running = await Promise.all(clients.map((client) => client.start()))
      isUp()
      await Promise.all(running.map(({ done }) => done))
    },
    check: async () => {
      shard.kill()
      while (shard.running === undefined) await world.timeline.delay(1000)
      const running = clients.flatMap((client) => client.running ?? [])
      const [first] = running
      if (first === undefined) throw new SimulationFailure('No client is there any more')
      const events = running.flatMap(({ workers }) => workers.flatMap((worker) => worker.events))
      events.sort((a, b) => a.stampUs - b.stampUs)
      const edges = await check(first.caller, events, random)
      const visit = { what: 'files', after: 0, limit: 10_000 } as const
      const { inodes } = await first.caller.call(SHARD, shardMessages.visit, visit)
      oneOwner(
        inodes.map(({ inode }) => inode),
        edges,
      )
      replaysEqually(shardMachine, await shard.disk.journal('shard').all(), shard.running.state)
    },
    describe: frameWords((host) => (host === 'shard' ? SHARD_MESSAGES : undefined)),
    // What clients know is in their memory alone.
    spares: (kind: FaultKind, { name }: Process) => (kind === 'kills' || kind === 'power-cuts') && name !== 'shard',
  }
}

/** @param machine what the shard runs: the right one, or one with a defect that is to be found */
export function shardFiles(machine = new ShardMachine()): Scenario {
  return {
    name: 'shard-files',
    faults: [...ORDINARY_FAULTS, 'full-disks', 'disk-errors'],
    proceedsWithinMs: PROCEEDS_WITHIN_MS,
    build: (world) => build(world, machine),
  }
}
