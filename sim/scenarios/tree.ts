/**
 * A tree that several clients change at once, across shards: they make, move and remove directories, and make, move, replace and
 * remove files, under few names, so that they get into each other's way all the time. Each is told what became of what it asked
 * for, so it is known in the end what must be there, though not where.
 */
import { isOperationError } from '#base/errors.ts'
import { CoordinatorMachine } from '#cluster/coordinator/coordinator-machine.ts'
import { COORDINATOR_MESSAGES, coordinatorMessages } from '#cluster/coordinator/coordinator-messages.ts'
import { CoordinatorServer } from '#cluster/coordinator/coordinator-server.ts'
import { type InodeId, inodeShard, inodeType, ROOT_INODE, shownInode } from '#cluster/inode-id.ts'
import { ShardMachine } from '#cluster/shard/shard-machine.ts'
import { SHARD_MESSAGES, shardMessages } from '#cluster/shard/shard-messages.ts'
import { ShardServer } from '#cluster/shard/shard-server.ts'
import { Caller, type Target } from '#cluster/wire/caller.ts'
import { ANYTHING, NO_INODE } from '#cluster/wire/forms.ts'
import type { Message } from '#cluster/wire/message.ts'
import { noLockLeft } from '#sim/checkers/no-lock-left.ts'
import { oneOwner } from '#sim/checkers/one-owner.ts'
import { oneTree } from '#sim/checkers/one-tree.ts'
import { replaysEqually } from '#sim/checkers/replays-equally.ts'
import { type FaultKind, ORDINARY_FAULTS } from '#sim/faults.ts'
import { frameWords } from '#sim/frame-words.ts'
import type { Machine, Process } from '#sim/process.ts'
import type { Scenario, Simulation } from '#sim/scenario.ts'
import { type DirectoryEdge, type ShardView, viewOf } from '#sim/shard-view.ts'
import { SimulationFailure } from '#sim/timeline.ts'
import type { World } from '#sim/world.ts'

const SHARD_PROCESSES = 2
const SHARDS_EACH = 256 / SHARD_PROCESSES
const CLIENTS = 2
const WORKERS_EACH = 3
const STEPS_EACH = 20
const THINK_MS_MAX = 2000
const NAMES = ['a', 'b', 'c', 'd', 'e', 'f']
const LISTED = 20
const PROCEEDS_WITHIN_MS = 180_000
const ATTRIBUTES = { mode: 0o755, uid: 0, gid: 0, mtime: undefined, atime: undefined }

const COORDINATOR: Target = { name: 'the coordinator', address: () => 'coordinator:7000' }
const SHARD_TARGETS: readonly Target[] = Array.from({ length: SHARD_PROCESSES }, (_, process) => ({
  name: `shard process ${process}`,
  address: () => `shard-${process}:7000`,
}))

function shardTarget(shard: number): Target {
  const target = SHARD_TARGETS[Math.floor(shard / SHARDS_EACH)]
  if (target === undefined) throw new SimulationFailure(`There is no shard ${shard}`)
  return target
}

/** What all clients together were told. */
class Told {
  /** Every one that was ever made; those that are gone are asked for, too. */
  readonly directories: InodeId[] = [ROOT_INODE]
  readonly removed = new Set<InodeId>()
  readonly files = new Set<InodeId>()
  /** Of the files: those that were unlinked, or replaced by others. */
  readonly past = new Set<InodeId>()

  replaced(inode: InodeId): void {
    if (inode !== NO_INODE) this.past.add(inode)
  }

  /** Everything that was made is there once, as current or as history, just as it was said. */
  check({ owners, edges }: ShardView): void {
    for (const directory of this.directories.slice(1)) {
      const isLive = (owners.get(directory) ?? NO_INODE) !== NO_INODE
      if (isLive !== this.removed.has(directory)) continue
      throw new SimulationFailure(`${shownInode(directory)} is ${isLive ? 'there' : 'gone'}, and should not be`)
    }
    const found = new Map<InodeId, DirectoryEdge>()
    for (const edge of edges) if (edge.state === 'current' || edge.state === 'owned') found.set(edge.inode, edge)
    for (const file of this.files) {
      const state = found.get(file)?.state
      if (state === (this.past.has(file) ? 'owned' : 'current')) continue
      throw new SimulationFailure(`${shownInode(file)} is ${state ?? 'nowhere'}, and should not be`)
    }
  }
}

class Worker {
  readonly #machine: Machine
  readonly #caller: Caller
  readonly #told: Told

  constructor(machine: Machine, caller: Caller, told: Told) {
    this.#machine = machine
    this.#caller = caller
    this.#told = told
  }

  async work(): Promise<void> {
    const { chance, clock } = this.#machine.surroundings
    for (let step = 0; step < STEPS_EACH; step++) {
      if (chance.below(3) === 0) await new Promise<void>((resolve) => clock.after(chance.below(THINK_MS_MAX), resolve))
      try {
        await this.#step()
      } catch (error) {
        // Others were faster, mostly. What is wrong with that shows in what is there in the end.
        if (!isOperationError(error) || isOperationError(error, 'CLUSTER_UNREACHABLE', 'WIRE_MALFORMED')) throw error
      }
    }
  }

  async #step(): Promise<void> {
    const directory = this.#any(this.#told.directories)
    const what = this.#machine.surroundings.chance.below(10)
    if (what < 2) return this.#makeDirectory(directory)
    if (what < 4) return this.#createFile(directory)
    const request = { directory, after: '', limit: LISTED, withStatus: false }
    const { entries } = await this.#askShard(directory, shardMessages.list, request)
    if (entries.length === 0) return
    const { inode, name, created } = this.#any(entries)
    const to = this.#any(this.#told.directories)
    const toName = this.#any(NAMES)
    const isDirectory = inodeType(inode) === 'directory'
    const move = { inode, from: directory, fromName: name, created, to, toName, guard: ANYTHING }
    if (isDirectory && what < 6) {
      await this.#askCoordinator(coordinatorMessages.removeDirectory, {
        owner: directory,
        name,
        directory: inode,
        created,
      })
      this.#told.removed.add(inode)
    } else if (isDirectory) await this.#askCoordinator(coordinatorMessages.moveDirectory, move)
    else if (what < 5) {
      await this.#askShard(directory, shardMessages.unlink, { directory, name, inode, created })
      this.#told.past.add(inode)
    } else if (to === directory) {
      const rename = { directory, name, inode, created, newName: toName, guard: ANYTHING }
      this.#told.replaced((await this.#askShard(directory, shardMessages.rename, rename)).replaced)
    } else this.#told.replaced((await this.#askCoordinator(coordinatorMessages.moveFile, move)).replaced)
  }

  async #makeDirectory(owner: InodeId): Promise<void> {
    const request = { owner, name: this.#any(NAMES), attributes: ATTRIBUTES }
    this.#told.directories.push((await this.#askCoordinator(coordinatorMessages.makeDirectory, request)).inode)
  }

  async #createFile(directory: InodeId): Promise<void> {
    const content = {
      type: 'file',
      attributes: ATTRIBUTES,
      size: 0,
      crc: 0,
      bytes: Buffer.alloc(0),
      xattrs: [],
    } as const
    const request = { directory, name: this.#any(NAMES), guard: ANYTHING, ...content }
    const { inode, replaced } = await this.#askShard(directory, shardMessages.create, request)
    this.#told.files.add(inode)
    this.#told.replaced(replaced)
  }

  #any<T>(of: readonly T[]): T {
    const chosen = of[this.#machine.surroundings.chance.below(of.length)]
    if (chosen === undefined) throw new SimulationFailure('There is nothing to choose from')
    return chosen
  }

  #askCoordinator<Q, R>(message: Message<Q, R>, request: Q): Promise<R> {
    return this.#caller.call(COORDINATOR, message, request, { deadlineMs: Infinity })
  }

  #askShard<Q, R>(inode: InodeId, message: Message<Q, R>, request: Q): Promise<R> {
    const shard = inodeShard(inode)
    return this.#caller.call(shardTarget(shard), message, request, { shard, deadlineMs: Infinity })
  }
}

async function startShard(
  { surroundings, disk, exit, host }: Machine,
  process: number,
  machine: ShardMachine,
): Promise<ShardServer> {
  const [journal, stored] = [disk.journal('shard'), disk.state('shard')]
  const [first, last] = [process * SHARDS_EACH, (process + 1) * SHARDS_EACH - 1]
  const server = await ShardServer.open({ surroundings, journal, stored, first, last, onFailed: exit, machine })
  await surroundings.network.listen(`${host}:7000`, (link) => server.accept(link))
  return server
}

async function startCoordinator(
  { surroundings, disk, exit, host }: Machine,
  machine: CoordinatorMachine,
): Promise<CoordinatorServer> {
  const [journal, stored] = [disk.journal('coordinator'), disk.state('coordinator')]
  const caller = new Caller(surroundings, { isInternal: true })
  const server = await CoordinatorServer.open({
    surroundings,
    journal,
    stored,
    caller,
    shardTarget,
    onFailed: exit,
    machine,
  })
  await surroundings.network.listen(`${host}:7000`, (link) => server.accept(link))
  return server
}

/** What the processes run: the right ones, or some with a defect that is to be found. */
interface Machines {
  readonly shard: ShardMachine
  readonly coordinator: CoordinatorMachine
}

function build(world: World, machines: Machines): Simulation {
  const told = new Told()
  const mayExit = (why: unknown): boolean => isOperationError(why, 'JOURNAL_FAILED')
  const shards = Array.from({ length: SHARD_PROCESSES }, (_, number) =>
    world.process(`shard-${number}`, (its) => startShard(its, number, machines.shard), { mayExit }),
  )
  const coordinator = world.process('coordinator', (its) => startCoordinator(its, machines.coordinator), { mayExit })
  const clients = Array.from({ length: CLIENTS }, (_, number) =>
    world.process(`client-${number}`, (its) => {
      const caller = new Caller(its.surroundings, { slots: WORKERS_EACH })
      const workers = Array.from({ length: WORKERS_EACH }, () => new Worker(its, caller, told).work())
      return { done: Promise.all(workers) }
    }),
  )
  const daemons: readonly Process<ShardServer | CoordinatorServer>[] = [...shards, coordinator]
  return {
    run: async (isUp) => {
      await Promise.all(daemons.map((process) => process.start()))
      const running = await Promise.all(clients.map((client) => client.start()))
      isUp()
      await Promise.all(running.map(({ done }) => done))
    },
    check: async () => {
      for (const process of daemons) process.kill()
      while (daemons.some(({ running }) => running === undefined)) await world.timeline.delay(1000)
      while ((coordinator.running?.openTransactions ?? 1) > 0) await world.timeline.delay(100_000)
      const states = shards.flatMap(({ running }) => (running === undefined ? [] : [running.state]))
      const view = viewOf(states)
      noLockLeft(view)
      oneTree(view)
      oneOwner(view.files, view.edges)
      told.check(view)
      for (const { disk, running } of shards) {
        if (running !== undefined) replaysEqually(machines.shard, await disk.journal('shard').all(), running.state)
      }
      const { running } = coordinator
      if (running === undefined) throw new SimulationFailure('The coordinator has ended')
      replaysEqually(machines.coordinator, await coordinator.disk.journal('coordinator').all(), running.state)
    },
    describe: frameWords((host) => {
      if (host.startsWith('shard')) return SHARD_MESSAGES
      return host === 'coordinator' ? COORDINATOR_MESSAGES : undefined
    }),
    // What clients know is in their memory alone.
    spares: (kind: FaultKind, { name }: Process) =>
      (kind === 'kills' || kind === 'power-cuts') && name.startsWith('client'),
  }
}

export function tree({
  shard = new ShardMachine(),
  coordinator = new CoordinatorMachine(),
}: Partial<Machines> = {}): Scenario {
  return {
    name: 'tree',
    faults: [...ORDINARY_FAULTS, 'full-disks', 'disk-errors'],
    proceedsWithinMs: PROCEEDS_WITHIN_MS,
    build: (world) => build(world, { shard, coordinator }),
  }
}
