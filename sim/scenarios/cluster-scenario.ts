/**
 * What the scenarios of whole clusters have in common: clients with workers that change one tree, killed and started again like everybody else, and
 * in the end all that must hold of the tree, its history, the coordinator, the journals and the blocks.
 */
import { isOperationError } from '#base/errors.ts'
import { ClusterClient } from '#cluster/client/cluster-client.ts'
import { ClusterFiles } from '#cluster/client/cluster-files.ts'
import { gathered } from '#cluster/client/span-reader.ts'
import type { DiskId } from '#cluster/block/permit.ts'
import { inodeShard, ROOT_INODE, shownInode, type InodeId } from '#cluster/inode-id.ts'
import { REGISTRY_MACHINE } from '#cluster/registry/registry-machine.ts'
import { shardMessages } from '#cluster/shard/shard-messages.ts'
import { type Edge, NO_INODE, NOTHING } from '#cluster/wire/forms.ts'
import { acknowledgedSurvives } from '#sim/checkers/acknowledged-survives.ts'
import { asOfEquals, type NameEvent } from '#sim/checkers/as-of-equals.ts'
import { blocksHeld, type HeldDisk, nothingElseHeld } from '#sim/checkers/blocks-held.ts'
import { coordinatorRests } from '#sim/checkers/coordinator-rests.ts'
import { forgottenOrBack } from '#sim/checkers/forgotten-or-back.ts'
import { historyExplained } from '#sim/checkers/history-explained.ts'
import { noLockLeft } from '#sim/checkers/no-lock-left.ts'
import { oneOwner } from '#sim/checkers/one-owner.ts'
import { oneTree } from '#sim/checkers/one-tree.ts'
import { readsWereTrue } from '#sim/checkers/reads-were-true.ts'
import { replaysEqually } from '#sim/checkers/replays-equally.ts'
import type { FaultKind } from '#sim/faults.ts'
import { NO_FRAME_FAULTS } from '#sim/network.ts'
import type { Machine, Process } from '#sim/process.ts'
import type { Random } from '#sim/random.ts'
import type { Simulation } from '#sim/scenario.ts'
import { SimulationFailure } from '#sim/timeline.ts'
import { collect } from '#sim/workloads/collect.ts'
import { forget } from '#sim/workloads/forget.ts'
import { Scrubber } from '#sim/workloads/scrubber.ts'
import { TreeLog } from '#sim/workloads/tree-log.ts'
import { chunksOf, type TreeShape, TreeWorker } from '#sim/workloads/tree-worker.ts'
import type { World } from '#sim/world.ts'

import { type ClusterContents, contentsOf } from './cluster-contents.ts'
import {
  ClusterWorld,
  describeCluster,
  diskName,
  type ClusterShape,
  type Plants,
  REGISTRY_ADDRESS,
} from './cluster-world.ts'

/** Something fresh must succeed in so long, once all faults are over. */
const FRESH_US_MAX = 60_000_000
const SETTLED_US_MAX = 120_000_000
/** While history is let go of. */
const FORGETTING_FAULTS = { loss: 0.02, answerLoss: 0.1, duplication: 0.1, reordering: 0.1, spike: 0 }
const FORGETTING_KILL_US_MAX = 3_000_000
const FORGOTTEN_US_MAX = 300_000_000
const COLLECTED_US_MAX = 300_000_000
/** Beyond the age from which on blocks may be erased. */
const OLD_ENOUGH_MS = 2 * 3_600_000
const POLL_US = 20_000
const PAGE_ENTRIES_MAX = 5

/** Of which each world has one: from clients that get into each other's way to such that hardly meet. */
export const THINK_MS_MAX: readonly number[] = [50, 500, 2000, 4000]
/** Of which each client has one: some give up soon, and never hear what became of what they asked for. */
export const PATIENCE_MS: readonly number[] = [300, 1000, 5000, 30_000, Infinity]

export interface ClusterWork {
  readonly cluster: ClusterShape
  readonly tree: TreeShape
  readonly clients: number
  readonly workersEach: number
  /** Beside the workers: those that swap blocks while they work. */
  readonly scrubbersEach: number
  /** Of all workers of a client together. */
  readonly stepsEach: number
  readonly thinkMsMax: number
  readonly patienceMs: readonly number[]
  /** On how many of the block services blocks rot: no more than spans have blocks of parity. */
  readonly rotten: number
  /** Times as of which each directory is compared. */
  readonly checkpoints: number
}

/** A client, over all lives of its process. */
interface Job {
  stepsLeft: number
  readonly patienceMs: number
  readonly done: PromiseWithResolvers<void>
}

/** What a client's process runs. */
interface RunningClient {
  readonly client: ClusterClient
  readonly files: ClusterFiles
}

export class ClusterSimulation implements Simulation {
  readonly describe = describeCluster
  readonly #world: World
  readonly #work: ClusterWork
  readonly #cluster: ClusterWorld
  readonly #log = new TreeLog()
  readonly #jobs: readonly Job[]
  readonly #clients: readonly Process<RunningClient>[]
  /** Of somebody who looks at everything in the end. */
  readonly #auditor: Process<RunningClient>

  constructor(world: World, work: ClusterWork, plants: Plants = {}) {
    this.#world = world
    this.#work = work
    const random = world.random.named('work')
    this.#cluster = new ClusterWorld(world, work.cluster, plants)
    this.#jobs = Array.from({ length: work.clients }, () => ({
      stepsLeft: work.stepsEach,
      patienceMs: random.pick(work.patienceMs),
      done: Promise.withResolvers<void>(),
    }))
    this.#clients = this.#jobs.map((job, index) =>
      world.process(`client-${index}`, (machine) => this.#startClient(machine, job)),
    )
    this.#auditor = world.process('auditor', (machine) => connect(machine, Infinity))
  }

  async run(isUp: () => void): Promise<void> {
    await this.#cluster.start()
    await Promise.all([...this.#clients, this.#auditor].map((client) => client.start()))
    isUp()
    await Promise.all(this.#jobs.map(({ done }) => done.promise))
  }

  async check(): Promise<void> {
    const cluster = this.#cluster
    // Whoever looks after disks starts a service again whose disk has failed; and what was not durable shows.
    for (const process of cluster.processes) process.kill()
    await this.#within('what clients have left to the coordinator', SETTLED_US_MAX, () => this.#settled())
    const contents = await this.#contents()
    await this.#checkTree(contents)
    historyExplained(this.#log.operations, contents.edges, contents.makers)
    readsWereTrue(this.#log.reads, contents.edges)
    const auditor = await ClusterWorld.running(this.#world, this.#auditor)
    await this.#checkDirectories(auditor.client, contents)
    await this.#checkFiles(auditor, contents)
    await this.#checkForgetting(auditor, contents)
    if (cluster.blockServices.length > 0) await this.#checkAfterCollection(auditor)
    await this.#within('something fresh', FRESH_US_MAX, () => this.#doSomethingFresh(auditor))
    await this.#checkJournals()
  }

  spares(kind: FaultKind, process: Process): boolean {
    if (kind === 'rot') return !this.#cluster.blockServices.slice(0, this.#work.rotten).some((each) => each === process)
    return process === this.#auditor
  }

  async #startClient(machine: Machine, job: Job): Promise<RunningClient> {
    const running = await connect(machine, job.patienceMs)
    const { client, files } = running
    const { tree, workersEach, scrubbersEach } = this.#work
    const hands = [
      ...Array.from({ length: workersEach }, () => new TreeWorker(client, files, this.#log, tree)),
      ...Array.from({ length: scrubbersEach }, () => new Scrubber(client, files, this.#log)),
    ]
    Promise.all(hands.map((each) => this.#workOn(machine, each, job))).then(() => job.done.resolve(), job.done.reject)
    return running
  }

  async #workOn(
    { surroundings: { clock, chance } }: Machine,
    worker: { step(): Promise<void> },
    job: Job,
  ): Promise<void> {
    const { thinkMsMax } = this.#work
    while (job.stepsLeft > 0) {
      job.stepsLeft--
      if (chance.below(3) === 0) await new Promise<void>((resolve) => clock.after(chance.below(thinkMsMax), resolve))
      await worker.step()
    }
  }

  async #within<T>(what: string, us: number, work: () => Promise<T>): Promise<T> {
    const { timeline } = this.#world
    const late = timeline.delay(us).then(() => {
      throw new SimulationFailure(`${what} took longer than ${us / 1e6} s`)
    })
    return Promise.race([work(), late])
  }

  /** Everybody runs, and the coordinator has nothing left to do. */
  async #settled(): Promise<void> {
    const { processes, coordinator } = this.#cluster
    for (;;) {
      await Promise.all(processes.map((process) => ClusterWorld.running(this.#world, process)))
      if (coordinator.running?.openTransactions === 0) return
      await this.#world.timeline.delay(POLL_US)
    }
  }

  async #contents(): Promise<ClusterContents> {
    const shards = await Promise.all(this.#cluster.shards.map((shard) => ClusterWorld.running(this.#world, shard)))
    return contentsOf(shards.map(({ state }) => state))
  }

  async #checkTree(contents: ClusterContents): Promise<void> {
    const coordinator = await ClusterWorld.running(this.#world, this.#cluster.coordinator)
    noLockLeft(contents)
    coordinatorRests(coordinator.state, contents.owners)
    oneTree(contents)
    oneOwner(contents.files, contents.edges)
  }

  /** What clients are told of directories, now, then, and while they were changed, is what there is. */
  async #checkDirectories(client: ClusterClient, { edges, owners }: ClusterContents): Promise<void> {
    const random = this.#world.random.named('check')
    const events = new Map<InodeId, NameEvent[]>()
    for (const { directory, name, inode, created } of edges.toSorted((a, b) => a.created - b.created)) {
      const event = { stampUs: created, name, inode: inode === 0 ? undefined : inode }
      const ofDirectory = events.get(directory)
      if (ofDirectory === undefined) events.set(directory, [event])
      else ofDirectory.push(event)
    }
    for (const { directory, asOf, entries } of this.#log.listings)
      asOfEquals(events.get(directory) ?? [], asOf, entries)
    const one = random.pick([...owners.keys()])
    const ofOne = edges.filter(({ directory }) => directory === one)
    acknowledgedSurvives(ofOne.map(edgeInWords), (await historyOf(client, one, random)).map(edgeInWords))
    for (const [directory, owner] of owners) {
      const all = events.get(directory) ?? []
      if (owner !== 0 || directory === ROOT_INODE) asOfEquals(all, Infinity, await listed(client, directory, random))
      for (let count = 0; count < this.#work.checkpoints && all.length > 0; count++) {
        const asOf = random.pick(all).stampUs - random.below(2)
        asOfEquals(all, asOf, await listed(client, directory, random, asOf))
      }
    }
  }

  /** All files that anything owns have the bytes that were written; lost is only what rot has taken too much of. */
  async #checkFiles({ client, files }: RunningClient, { files: owned, spans, index }: ClusterContents): Promise<void> {
    const damaged = blocksHeld(spans, index, await this.#disks())
    const lost = new Set<InodeId>()
    for (const [{ file, record }, count] of damaged) if (count > (record.blocks?.parity ?? 0)) lost.add(file)
    const worker = new TreeWorker(client, files, this.#log, this.#work.tree)
    for (const file of owned) {
      try {
        await worker.checkContent(file)
      } catch (error) {
        if (!isOperationError(error, 'SPANS_LOST') || !lost.has(file)) throw error
      }
    }
  }

  async #disks(): Promise<Map<DiskId, HeldDisk>> {
    const disks = new Map<DiskId, HeldDisk>()
    for (const service of this.#cluster.blockServices) {
      const running = await ClusterWorld.running(this.#world, service)
      for (const [number, { id }] of running.disks.entries()) {
        const name = diskName(number)
        const rotten = service.disk.rotten.get(name) ?? new Set<string>()
        disks.set(id, { files: service.disk.blocks(name), rotten })
      }
    }
    return disks
  }

  /** History is let go of while frames are lost and come twice, and shards and coordinator die. */
  async #checkForgetting(auditor: RunningClient, { edges, owners, files }: ClusterContents): Promise<void> {
    const { timeline, network, random: all } = this.#world
    const random = all.named('forgetting')
    Object.assign(network.faults, FORGETTING_FAULTS)
    const removed = [...owners].flatMap(([directory, owner]) =>
      owner === NO_INODE && directory !== ROOT_INODE ? [directory] : [],
    )
    const work = { isOver: false }
    const killing = (async () => {
      while (!work.isOver) {
        await timeline.delay(random.below(FORGETTING_KILL_US_MAX))
        random.pick([this.#cluster.coordinator, ...this.#cluster.shards]).kill()
      }
    })()
    const forgetting = forget(auditor.client, edges, removed, random)
    const fates = await this.#within('forgetting', FORGOTTEN_US_MAX, () => forgetting)
    work.isOver = true
    await killing
    Object.assign(network.faults, NO_FRAME_FAULTS)
    await this.#within('what is forgotten', SETTLED_US_MAX, () => this.#settled())
    const after = await this.#contents()
    await this.#checkTree(after)
    forgottenOrBack(fates, after.edges, new Set(after.files))
    if (files.length > 0) await this.#checkFiles(auditor, after)
  }

  /** What nobody finished is removed, once its blocks are old enough: nothing else goes with it, and nothing of it stays. */
  async #checkAfterCollection(auditor: RunningClient): Promise<void> {
    for (const { clockError } of this.#cluster.processes) clockError.sleptMs += OLD_ENOUGH_MS
    const before = await this.#contents()
    await this.#within('the collection', COLLECTED_US_MAX, () =>
      collect(auditor.client, new Set(before.transients.map(inodeShard))),
    )
    const after = await this.#contents()
    const [left] = after.transients
    if (left !== undefined) throw new SimulationFailure(`Transient file ${shownInode(left)} is left`)
    nothingElseHeld(after.index, await this.#disks())
    await this.#checkFiles(auditor, after)
  }

  async #doSomethingFresh({ client, files }: RunningClient): Promise<void> {
    const attributes = { mode: 0o755, uid: 0, gid: 0, mtime: undefined, atime: undefined }
    const bytes = Buffer.alloc(this.#work.tree.bytesMax, 'fresh')
    const { inode } = await client.makeDirectory({ directory: ROOT_INODE, name: 'fresh' }, attributes)
    const { policy } = this.#work.tree
    const to = { directory: inode, name: 'file', attributes, guard: NOTHING, policy }
    for (;;) {
      try {
        await files.write(to, chunksOf(bytes))
        break
      } catch (error) {
        if (!isOperationError(error, 'DISKS_MISSING')) throw error
        await this.#world.timeline.delay(POLL_US * 50)
      }
    }
    const place = await client.find('/fresh/file')
    const read = await gathered(files.read(place.inode))
    if (!read.equals(bytes)) throw new SimulationFailure('What was written after the faults is not what is read')
    await client.remove(place)
    await client.remove(await client.find('/fresh'))
  }

  async #checkJournals(): Promise<void> {
    const { shards, coordinator, registry, shardMachine, coordinatorMachine } = this.#cluster
    for (const shard of shards) {
      await shard.running?.close()
      replaysEqually(shardMachine, await shard.disk.journal('shard').all(), shard.disk.state('shard'))
    }
    await coordinator.running?.close()
    const entries = await coordinator.disk.journal('coordinator').all()
    replaysEqually(coordinatorMachine, entries, coordinator.disk.state('coordinator'))
    await registry.running?.close()
    replaysEqually(REGISTRY_MACHINE, await registry.disk.journal('registry').all(), registry.disk.state('registry'))
  }
}

async function connect({ surroundings }: Machine, deadlineMs: number): Promise<RunningClient> {
  const client = await ClusterClient.connect({
    surroundings,
    registry: REGISTRY_ADDRESS,
    location: 'here',
    deadlineMs,
    contactMs: Infinity,
  })
  return { client, files: new ClusterFiles(client) }
}

/** All edges of a directory, page by page. */
async function historyOf(client: ClusterClient, directory: InodeId, random: Random): Promise<readonly Edge[]> {
  const found: Edge[] = []
  for (;;) {
    const last = found.at(-1)
    const from = { name: last?.name ?? '', time: last === undefined ? 0 : last.created + 1 }
    const page = {
      directory,
      ...from,
      isBackwards: false,
      isSameName: false,
      limit: random.between(1, PAGE_ENTRIES_MAX),
    }
    const { edges, isLast } = await client.ask(directory, shardMessages.history, page)
    found.push(...edges)
    if (isLast) return found
  }
}

function edgeInWords({ name, inode, created, state }: Edge): string {
  return `${state} ${JSON.stringify(name)} of ${created}, inode ${inode}`
}

/** Page by page, of so few entries that there are many. */
async function listed(
  client: ClusterClient,
  directory: InodeId,
  random: Random,
  asOf?: number,
): Promise<{ readonly name: string; readonly inode: InodeId }[]> {
  const found: { readonly name: string; readonly inode: InodeId }[] = []
  for (;;) {
    const page = { directory, after: found.at(-1)?.name ?? '', limit: random.between(1, PAGE_ENTRIES_MAX) }
    const { entries, isLast } =
      asOf === undefined
        ? await client.ask(directory, shardMessages.list, { ...page, withStatus: random.happens(0.5) })
        : await client.ask(directory, shardMessages.listAsOf, { ...page, asOf })
    found.push(...entries)
    if (isLast) return found
  }
}
