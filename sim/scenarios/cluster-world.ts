/**
 * A whole cluster in a world: a registry, a coordinator, processes that share the 256 shards, and block services with their disks, put
 * together as the daemons put them together (`src/cluster/daemons/`), with the ports of simulated machines. Who works with it is a
 * process of the scenario's own, with a `ClusterClient`.
 */
import { type ErrorCode, isOperationError } from '#base/errors.ts'
import { BLOCK_MESSAGES } from '#cluster/block/block-messages.ts'
import { BlockServer } from '#cluster/block/block-server.ts'
import { Disk } from '#cluster/block/disk.ts'
import type { ServedDisk } from '#cluster/block/served-disk.ts'
import { ClusterMap } from '#cluster/client/cluster-map.ts'
import { ClockTrust, trustedClock } from '#cluster/clock-trust.ts'
import type { ClusterId } from '#cluster/cluster-id.ts'
import { CoordinatorMachine } from '#cluster/coordinator/coordinator-machine.ts'
import { COORDINATOR_MESSAGES } from '#cluster/coordinator/coordinator-messages.ts'
import { CoordinatorRegistration, onceTaken } from '#cluster/coordinator/coordinator-registration.ts'
import { CoordinatorServer, type CoordinatorServerOptions } from '#cluster/coordinator/coordinator-server.ts'
import type { CoordinatorEntry } from '#cluster/coordinator/records.ts'
import type { Effects } from '#cluster/coordinator/turn.ts'
import { SHARDS } from '#cluster/inode-id.ts'
import type { Journal } from '#cluster/journal/journal.ts'
import type { StateBatch } from '#cluster/journal/state.ts'
import { joinCluster, type Membership } from '#cluster/membership.ts'
import { REGISTRY_MESSAGES } from '#cluster/registry/registry-messages.ts'
import { RegistryServer } from '#cluster/registry/registry-server.ts'
import { ShardMachine } from '#cluster/shard/shard-machine.ts'
import { SHARD_MESSAGES } from '#cluster/shard/shard-messages.ts'
import { ShardRegistration } from '#cluster/shard/shard-registration.ts'
import { ShardServer } from '#cluster/shard/shard-server.ts'
import { Caller, type Target } from '#cluster/wire/caller.ts'
import type { MessageTable } from '#cluster/wire/message.ts'
import { frameWords } from '#sim/frame-words.ts'
import type { Machine, Process } from '#sim/process.ts'
import type { Random } from '#sim/random.ts'
import { SimulationFailure } from '#sim/timeline.ts'
import type { Describe } from '#sim/trace.ts'
import type { World } from '#sim/world.ts'

export const REGISTRY_ADDRESS = 'registry:7000'
const REGISTRY: Target = { name: 'the registry', address: () => REGISTRY_ADDRESS }
const LOCATION = 'here'
/** Of the blocks that these scenarios write. */
export const CLASS = 2
/** The coordinator makes directories on one shard after the other: so the cuts between processes lie among the first few. */
const CUT_MAX = 9
/** By which a process may end: it is started again, as by whoever keeps services running. */
const ENDINGS: readonly ErrorCode[] = ['JOURNAL_FAILED', 'DISK_FAILED', 'DISK_FULL', 'LOCAL_FAILED', 'CLOCK_UNTRUSTED']

/** Of a block service, by which its files are found. */
export function diskName(index: number): string {
  return `disk-${index}`
}

/** What of a cluster has a defect that is to be found. */
export interface Plants {
  readonly shardMachine?: ShardMachine
  readonly coordinatorMachine?: CoordinatorMachine
  readonly shardJournal?: (journal: Journal) => Journal
  /** Shards write by whatever time their machine says. */
  readonly trustsAnyClock?: boolean
}

export interface ClusterShape {
  readonly shardProcesses: number
  readonly blockServices: number
  readonly disksEach: number
}

export interface BlockService {
  readonly server: BlockServer
  readonly disks: readonly Disk[]
}

export class ClusterWorld {
  readonly registry: Process<RegistryServer>
  readonly coordinator: Process<CoordinatorServer>
  readonly shards: readonly Process<ShardServer>[]
  readonly blockServices: readonly Process<BlockService>[]
  readonly shardMachine: ShardMachine
  readonly coordinatorMachine: CoordinatorMachine

  constructor(world: World, { shardProcesses, blockServices, disksEach }: ClusterShape, plants: Plants = {}) {
    const random = world.random.named('cluster')
    const { shardMachine = new ShardMachine(), coordinatorMachine = new CoordinatorMachine() } = plants
    const { shardJournal, trustsAnyClock } = plants
    this.shardMachine = shardMachine
    this.coordinatorMachine = coordinatorMachine
    const mayExit = { mayExit: (why: unknown) => isOperationError(why, ...ENDINGS) }
    this.registry = world.process('registry', startRegistry, mayExit)
    const ownMembership = new KeptMembership()
    const doubling = random.happens(0.5) ? random.fraction() : 0
    const watched = new WatchedCoordinator(coordinatorMachine, (why) => world.timeline.fail(why))
    this.coordinator = world.process(
      'coordinator',
      (machine) =>
        startCoordinator(machine, ownMembership, watched, { probability: doubling, random: random.named('doubling') }),
      mayExit,
    )
    this.shards = rangesOf(shardProcesses, random).map(([first, last], index) => {
      const shard = {
        first,
        last,
        process: 100 + index,
        membership: new KeptMembership(),
        shardMachine,
        shardJournal,
        trustsAnyClock,
      }
      return world.process(`shard-${index}`, (machine) => startShard(machine, shard), mayExit)
    })
    this.blockServices = Array.from({ length: blockServices }, (_, index) =>
      world.process(`block-${index}`, (machine) => startBlockService(machine, 200 + index, disksEach), mayExit),
    )
  }

  get processes(): readonly Process[] {
    return [this.registry, this.coordinator, ...this.shards, ...this.blockServices]
  }

  async start(): Promise<void> {
    await this.registry.start()
    await Promise.all(this.processes.slice(1).map((process) => process.start()))
  }

  /** What a process runs, once it does. */
  static async running<R>(world: World, process: Process<R>): Promise<R> {
    while (process.running === undefined) await world.timeline.delay(1000)
    return process.running
  }
}

/** Frames in words, for traces. */
export const describeCluster: Describe = frameWords((host): MessageTable | undefined => {
  if (host.startsWith('shard')) return SHARD_MESSAGES
  if (host.startsWith('block')) return BLOCK_MESSAGES
  if (host === 'registry') return REGISTRY_MESSAGES
  return host === 'coordinator' ? COORDINATOR_MESSAGES : undefined
})

/** A refusal of a step that cannot fail is only logged by the coordinator; here it ends the run. */
class WatchedCoordinator extends CoordinatorMachine {
  readonly #inner: CoordinatorMachine
  readonly #fail: (why: SimulationFailure) => void

  constructor(inner: CoordinatorMachine, fail: (why: SimulationFailure) => void) {
    super()
    this.#inner = inner
    this.#fail = fail
  }

  override apply(batch: StateBatch, entry: CoordinatorEntry): Effects {
    const effects = this.#inner.apply(batch, entry)
    for (const { transaction, step, why } of effects.surprises) {
      const words = `Step ${step} of transaction ${transaction} cannot fail, and was refused: ${why.message}`
      this.#fail(new SimulationFailure(words, { cause: why }))
    }
    return effects
  }
}

/** The shards of each process: all 256, cut at random. */
function rangesOf(processes: number, random: Random): (readonly [first: number, last: number])[] {
  const cuts = new Set<number>()
  while (cuts.size < processes - 1) cuts.add(random.between(1, CUT_MAX))
  const firsts = [0, ...[...cuts].sort((a, b) => a - b)]
  return firsts.map((first, index) => [first, (firsts[index + 1] ?? SHARDS) - 1])
}

async function startRegistry({ surroundings, disk, exit }: Machine): Promise<RegistryServer> {
  const [journal, stored] = [disk.journal('registry'), disk.state('registry')]
  const server = await RegistryServer.open({ surroundings, journal, stored, onFailed: exit })
  await surroundings.network.listen(REGISTRY_ADDRESS, (link) => server.accept(link))
  return server
}

/** In the place of the file in which a process keeps it. */
class KeptMembership implements Membership {
  cluster: ClusterId | undefined

  join(cluster: ClusterId): Promise<void> {
    this.cluster = cluster
    return Promise.resolve()
  }
}

interface Doubling {
  readonly probability: number
  readonly random: Random
}

async function startCoordinator(
  { host, surroundings, disk, exit }: Machine,
  membership: Membership,
  machine: CoordinatorMachine,
  doubling: Doubling,
): Promise<CoordinatorServer> {
  const caller = new Caller(surroundings, { isInternal: true })
  const trust = new ClockTrust(surroundings.clock)
  const introduction = { surroundings, registry: REGISTRY, caller, trust }
  const cluster = await joinCluster('Cannot begin the coordinator', membership, introduction)
  const map = new ClusterMap(surroundings, caller, REGISTRY_ADDRESS, cluster)
  await map.start(Number.POSITIVE_INFINITY)
  const [journal, stored] = [disk.journal('coordinator'), disk.state('coordinator')]
  let isTaken = false
  const shardTarget = (shard: number): Target => onceTaken(map.shard(shard), () => isTaken)
  const asking = doublingCaller(caller, doubling)
  const own = { ...surroundings, clock: trustedClock(surroundings.clock, trust) }
  const options = { surroundings: own, journal, stored, caller: asking, shardTarget, onFailed: exit, machine }
  const server = await CoordinatorServer.open(options)
  const { address } = await surroundings.network.listen(`${host}:0`, (link) => server.accept(link))
  const facts = { cluster, process: 99, place: host, address, location: LOCATION }
  await new CoordinatorRegistration(surroundings, caller, REGISTRY, trust, facts).start(exit)
  isTaken = true
  return server
}

/** Tells some answers twice, the second time just before a later one: a network beneath may do that, however well the one in use keeps it away. */
function doublingCaller(caller: Caller, { probability, random }: Doubling): CoordinatorServerOptions['caller'] {
  let late: (() => void)[] = []
  return {
    start: (target, message, request, options, done) =>
      caller.start(target, message, request, options, (error, reply) => {
        const due = late.filter(() => random.happens(0.5))
        late = late.filter((again) => !due.includes(again))
        for (const again of due) again()
        done(error, reply)
        if (error === undefined && random.happens(probability)) late.push(() => done(error, reply))
      }),
  }
}

interface ShardProcess {
  readonly first: number
  readonly last: number
  readonly process: number
  readonly membership: Membership
  readonly shardMachine: ShardMachine
  readonly shardJournal: Plants['shardJournal']
  readonly trustsAnyClock: boolean | undefined
}

async function startShard({ host, surroundings, disk, exit }: Machine, shard: ShardProcess): Promise<ShardServer> {
  const { first, last, process, membership, shardMachine: machine, shardJournal, trustsAnyClock } = shard
  const trust = new ClockTrust(surroundings.clock)
  const caller = new Caller(surroundings, { isInternal: true })
  const introduction = { surroundings, registry: REGISTRY, caller, trust }
  const join = (): Promise<ClusterId> => joinCluster('Cannot begin shards', membership, introduction)
  const beforeFirst = async (): Promise<void> => void (await join())
  const kept = disk.journal('shard')
  const journal = shardJournal === undefined ? kept : shardJournal(kept)
  const stored = disk.state('shard')
  const options = { surroundings, journal, stored, first, last, onFailed: exit, machine, beforeFirst }
  const server = await ShardServer.open({ ...options, ...(trustsAnyClock !== true && { trust }) })
  const cluster = membership.cluster ?? (await join())
  caller.close()
  const { address } = await surroundings.network.listen(`${host}:0`, (link) => server.accept(link))
  const facts = { cluster, process, place: host, address, location: LOCATION }
  const registration = new ShardRegistration(surroundings, REGISTRY, server, trust, facts)
  await registration.start(exit)
  return server
}

async function startBlockService(
  { host, surroundings, disk: machineDisk }: Machine,
  process: number,
  disksEach: number,
): Promise<BlockService> {
  const { chance } = surroundings
  const trust = new ClockTrust(surroundings.clock)
  const clock = trustedClock(surroundings.clock, trust)
  const served: ServedDisk[] = []
  for (let index = 0; index < disksEach; index++) {
    const disk = await Disk.open({
      files: machineDisk.blocks(diskName(index)),
      reserveBytes: 0,
      now: () => clock.nowMs(),
      random: (count) => chance.bytes(count),
    })
    served.push({ disk, class: CLASS, domain: host, path: diskName(index), fileSystem: 0 })
  }
  const server = new BlockServer({ surroundings, disks: served })
  const address = await server.listen(`${host}:0`)
  await server.register(REGISTRY, { process, address, location: LOCATION }, trust)
  return { server, disks: served.map(({ disk }) => disk) }
}
