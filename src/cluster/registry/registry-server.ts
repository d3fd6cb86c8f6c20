/**
 * The registry as processes and clients of the cluster see it: takes their heartbeats, tells them where everything is, and shards which disks to
 * write to. What must not be lost goes through the machine, and is told to nobody before it is durable; a heartbeat that
 * tells nothing new costs no write. People see it by `http-api.ts`.
 */
import { OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import type { DiskId } from '#cluster/block/permit.ts'
import { CLOCK_STEP_MS_MAX, ClockSteps } from '#cluster/clock-steps.ts'
import { checkSameCluster, CLUSTER_ID_BYTES, clusterIdOf, type ClusterId } from '#cluster/cluster-id.ts'
import { DurableMachine } from '#cluster/journal/durable-machine.ts'
import type { Journal } from '#cluster/journal/journal.ts'
import type { StoredState } from '#cluster/journal/state.ts'
import type { Cancel, Link, LinkHandler, Surroundings } from '#cluster/surroundings.ts'
import { randomClient } from '#cluster/wire/caller.ts'
import { encode, type ValueOf } from '#cluster/wire/codec.ts'
import { Responder, type Incoming } from '#cluster/wire/responder.ts'

import { clusterHealth, totalsOf } from './cluster-health.ts'
import { HELD_MS, HeldPlaces } from './held-places.ts'
import {
  foundedCluster,
  readRegistry,
  REGISTRY_MACHINE,
  type RefusedDisk,
  type RegistryOutcome,
} from './registry-machine.ts'
import { REGISTRY_MESSAGES, registryMessages as messages } from './registry-messages.ts'
import type { OperatorFlag, RegistryEntry } from './registry-records.ts'
import { diskStatus, isSameRecord, type KnownDisk, RegistryView } from './registry-view.ts'

const log = logger('cluster/registry')

/** Who is silent for so long is stale: far more than a few heartbeats that got lost. */
const STALE_MS = 180_000
/** How often those who are silent are looked for, at most. */
const SWEEP_MS = 5000
/** How often the choice of disks is made again by how full they are. */
const REBALANCE_MS = 10 * 60_000
/** After its own clock was set: who sets one wrongly mostly sees it, and sets it back. Below that for which clients ask on. */
const SETTLED_MS = 15_000

export interface RegistryServerOptions {
  readonly surroundings: Surroundings
  readonly journal: Journal
  readonly stored: StoredState
  /** The journal cannot be written any more: the process is to end. */
  readonly onFailed: (error: OperationError) => void
  readonly staleMs?: number
  /** Of a directory that is empty: the cluster that it is for, whose registry was lost. */
  readonly cluster?: ClusterId
}

type DisksTold = ValueOf<typeof messages.registerDisks.request>
type FlagChanges = { readonly set: readonly OperatorFlag[]; readonly clear: readonly OperatorFlag[] }
type Deliver = (outcome: RegistryOutcome) => void

export class RegistryServer {
  readonly cluster: ClusterId
  readonly view: RegistryView
  readonly #machine: DurableMachine<RegistryEntry, RegistryOutcome>
  readonly #surroundings: Surroundings
  readonly #responder: Responder
  readonly #cancels = new Set<Cancel>()
  readonly #steps: ClockSteps
  readonly #places: HeldPlaces
  /** By the monotonic clock: since when the clock was not set. */
  #settledAt = Number.NEGATIVE_INFINITY
  /** Random: with the version it says what of the map somebody knows. */
  readonly #run: number
  /** The answer with the whole map, as of a version. */
  #map: { readonly version: number; readonly bytes: Buffer } | undefined

  private constructor(
    { surroundings, staleMs = STALE_MS }: RegistryServerOptions,
    machine: DurableMachine<RegistryEntry, RegistryOutcome>,
    cluster: ClusterId,
  ) {
    const { clock } = surroundings
    this.cluster = cluster
    this.#surroundings = surroundings
    this.#steps = new ClockSteps(clock)
    this.#places = new HeldPlaces(() => clock.monotonicMs())
    this.#run = randomClient(surroundings)
    this.#machine = machine
    this.view = new RegistryView(staleMs, () => ({ monotonicMs: clock.monotonicMs(), ms: clock.nowMs() }))
    this.#responder = new Responder(REGISTRY_MESSAGES, (request) => this.#answer(request))
    this.#every(Math.min(SWEEP_MS, staleMs / 4), () => this.view.sweep())
    this.#every(REBALANCE_MS, () => this.view.rebalance())
  }

  /** With all that it knew before. @throws JOURNAL_FAILED, JOURNAL_CORRUPT, CLUSTER_MISMATCH where the directory is that of another cluster than it is to be */
  static async open(options: RegistryServerOptions): Promise<RegistryServer> {
    const machine = await DurableMachine.open({
      machine: REGISTRY_MACHINE,
      journal: options.journal,
      stored: options.stored,
      clock: options.surroundings.clock,
      onFailed: options.onFailed,
    })
    const known = foundedCluster(machine.state)
    const cluster = known ?? options.cluster ?? clusterIdOf(options.surroundings.chance.bytes(CLUSTER_ID_BYTES))
    if (options.cluster !== undefined && options.cluster !== cluster) {
      const detail = `its directory is that of the registry of cluster ${cluster}`
      throw new OperationError(
        'CLUSTER_MISMATCH',
        `Cannot begin the registry of cluster ${options.cluster}: ${detail}`,
        {
          hint: 'Give it an empty directory: what this one knows is of no use to another cluster.',
        },
      )
    }
    const server = new RegistryServer(options, machine, cluster)
    const { allShards, ...all } = readRegistry(machine.state)
    server.view.take(all)
    for (const shards of allShards) server.view.take({ disks: [], refused: [], shards })
    if (known === undefined) await server.#done({ kind: 'founded', cluster })
    await server.#done({ kind: 'started' })
    return server
  }

  /** For `Network.listen`. */
  accept(link: Link): LinkHandler {
    return this.#responder.accept(link)
  }

  /**
   * Says something of a disk for an operator; durable when it resolves.
   * @throws DISK_NOT_FOUND, DISK_FLAG_REFUSED
   */
  setFlags(disk: DiskId, changes: FlagChanges): Promise<KnownDisk> {
    return new Promise((resolve, reject) => {
      const done = (): void => {
        const known = this.view.disk(disk)
        if (known !== undefined) resolve(known)
      }
      this.#setFlags(disk, changes, done, reject)
    })
  }

  /** Everything is durable when it resolves. */
  async close(): Promise<void> {
    for (const cancel of this.#cancels) cancel()
    this.#cancels.clear()
    await this.#machine.close()
  }

  #answer(request: Incoming): void {
    if (request.is(messages.map)) this.#tellMap(request)
    else if (request.is(messages.shardDisks)) this.#tellShardDisks(request)
    else if (request.is(messages.info)) this.#tellInfo(request)
    else if (request.is(messages.registerShards)) this.#registerShards(request)
    else if (request.is(messages.registerCoordinator)) this.#registerCoordinator(request)
    else if (request.is(messages.registerDisks)) this.#registerDisks(request)
    else if (request.is(messages.greet)) this.#greet(request)
    else this.#takeFlags(request)
  }

  #registerShards(request: Incoming): void {
    const { cluster, clock, place, ...shards } = request.read(messages.registerShards)
    const action = `Cannot register shards ${shards.first} to ${shards.last} at ${shards.address}`
    this.#checkCluster(action, cluster)
    const giveBack = this.#places.take(action, { place, ...shards, does: 'serves them' })
    const done = (): void => {
      this.view.heardShards(shards.process, clock)
      request.reply(messages.registerShards, { version: this.view.version, timeMs: this.#timeMs() })
    }
    if (isSameRecord(this.view.shardsOf(shards.process)?.record, shards)) done()
    else {
      this.#submit({ kind: 'shards', ...shards }, done, (error) => {
        giveBack()
        request.refuse(error)
      })
    }
  }

  #registerCoordinator(request: Incoming): void {
    const { cluster, clock, place, ...coordinator } = request.read(messages.registerCoordinator)
    const action = `Cannot register a coordinator at ${coordinator.address}`
    this.#checkCluster(action, cluster)
    const giveBack = this.#places.take(action, { place, ...coordinator, does: 'is the coordinator' })
    const done = (): void => {
      this.view.heardCoordinator(clock)
      request.reply(messages.registerCoordinator, { version: this.view.version, timeMs: this.#timeMs() })
    }
    if (isSameRecord(this.view.coordinator?.record, coordinator)) done()
    else {
      this.#submit({ kind: 'coordinator', ...coordinator }, done, (error) => {
        giveBack()
        request.refuse(error)
      })
    }
  }

  #registerDisks(request: Incoming): void {
    const told = request.read(messages.registerDisks)
    for (const { cluster, path } of told.disks) {
      this.#checkCluster(`Cannot register the disk in ${path} at ${told.address}`, cluster)
    }
    const held: RefusedDisk[] = []
    const free = told.disks.filter(({ disk }) => {
      const why = this.#objection(disk, told.process)
      if (why !== undefined) held.push({ disk, why })
      return why === undefined
    })
    const done: Deliver = ({ refused: byMachine }) => {
      const refused = [...held, ...byMachine]
      for (const each of refused) log.error({ ...each, address: told.address }, 'a disk was not taken')
      const isRefused = new Set(refused.map(({ disk }) => disk))
      for (const disk of free) if (!isRefused.has(disk.disk)) this.view.heardDisk(told.process, disk, told.clock)
      request.reply(messages.registerDisks, { version: this.view.version, timeMs: this.#timeMs(), refused })
    }
    if (free.every((disk) => this.#isKnown(disk, told))) return done({ disks: [], refused: [] })
    const { process, address, location } = told
    const disks = free.map(({ disk, key, class: storageClass, domain, path, fileSystem }) => {
      return { disk, key, class: storageClass, domain, path, fileSystem }
    })
    const atMs = Math.floor(this.#surroundings.clock.nowMs())
    this.#submit({ kind: 'disks', process, address, location, atMs, disks }, done, (error) => request.refuse(error))
  }

  /** A directory that was copied would be served twice, and each would have a part of the blocks. */
  #objection(disk: DiskId, process: number): string | undefined {
    const known = this.view.disk(disk)
    if (known === undefined || known.record.process === process || known.heardMs === undefined) return undefined
    if (this.#surroundings.clock.monotonicMs() - known.heardAt > HELD_MS) return undefined
    return `the process at ${known.record.address} has a disk of this id, in ${known.record.path}`
  }

  #isKnown(told: DisksTold['disks'][number], { process, address, location }: DisksTold): boolean {
    const record = this.view.disk(told.disk)?.record
    return (
      record !== undefined &&
      record.process === process &&
      record.address === address &&
      record.location === location &&
      record.class === told.class &&
      record.domain === told.domain &&
      record.path === told.path &&
      record.fileSystem === told.fileSystem &&
      record.key.equals(told.key)
    )
  }

  #takeFlags(request: Incoming): void {
    const { disk, set, clear } = request.read(messages.setFlags)
    const changes = { set: set.map((flag) => said(flag, disk)), clear: clear.map((flag) => said(flag, disk)) }
    const done = (): void => request.reply(messages.setFlags, { version: this.view.version })
    this.#setFlags(disk, changes, done, (error) => request.refuse(error))
  }

  #setFlags(
    disk: DiskId,
    { set, clear }: FlagChanges,
    deliver: () => void,
    refuse: (error: OperationError) => void,
  ): void {
    const known = this.view.disk(disk)
    const status = known && diskStatus(known)
    if (set.includes('decommissioned') && known !== undefined && !isGone(status)) {
      const message = `Cannot terminate disk ${disk}: it works, and may have blocks that are nowhere else`
      return refuse(new OperationError('DISK_FLAG_REFUSED', message))
    }
    this.#submit(
      { kind: 'flags', disk, set, clear },
      (outcome) => {
        log.info({ disk, set, clear, flags: outcome.disks[0]?.flags }, 'flags of a disk were set')
        deliver()
      },
      refuse,
    )
  }

  #tellMap(request: Incoming): void {
    const { cluster, run, known } = request.read(messages.map)
    if (cluster !== undefined) this.#checkCluster('Cannot tell where everything is', cluster)
    const [{ version }, own] = [this.view, this.#run]
    if (run === own && known === version) return request.reply(messages.map, { run, version, map: undefined })
    if (this.#map?.version !== version) {
      this.#map = { version, bytes: encode(messages.map.reply, { run: own, version, map: this.#mapNow() }) }
    }
    request.replyBytes(this.#map.bytes)
  }

  #mapNow(): NonNullable<ValueOf<typeof messages.map.reply>['map']> {
    const { shards, coordinator, disks } = this.view
    return {
      shards: shards.map(({ record: { first, last, address }, isStale }) => ({ first, last, address, isStale })),
      coordinator: coordinator && { address: coordinator.record.address, isStale: coordinator.isStale },
      disks: disks.map((disk) => {
        const { record, failure, room = NO_ROOM } = disk
        const flags = [...(disk.isStale ? (['stale'] as const) : []), ...record.flags]
        const { disk: id, address, class: storageClass, domain, location } = record
        return { disk: id, address, class: storageClass, domain, location, flags, failure, ...room }
      }),
    }
  }

  #tellShardDisks(request: Incoming): void {
    const { cluster, run, known, first, last } = request.read(messages.shardDisks)
    this.#checkCluster('Cannot tell the disks', cluster)
    const [{ version }, own] = [this.view, this.#run]
    if (first > last) throw new OperationError('INPUT_INVALID', `Cannot tell disks: shard ${first} is after ${last}`)
    if (run === own && known === version) return request.reply(messages.shardDisks, { run, version, disks: undefined })
    const all = this.view.disks.map(({ record: { disk, key, class: storageClass, domain, location } }) => {
      return { disk, key, class: storageClass, domain, location }
    })
    const writable = [...this.view.writable()].flatMap(([storageClass, byShard]) =>
      byShard.slice(first, last + 1).map((disks, index) => ({ shard: first + index, class: storageClass, disks })),
    )
    request.reply(messages.shardDisks, { run: own, version, disks: { all, writable } })
  }

  #tellInfo(request: Incoming): void {
    request.read(messages.info)
    const { cluster, view } = this
    request.reply(messages.info, { cluster, ...totalsOf(view), health: clusterHealth(view).sentence })
  }

  #greet(request: Incoming): void {
    request.read(messages.greet)
    request.reply(messages.greet, { cluster: this.cluster, timeMs: this.#timeMs() })
  }

  #checkCluster(action: string, cluster: ClusterId): void {
    try {
      checkSameCluster(action, cluster, this.cluster)
    } catch (error) {
      // It comes again and again.
      if (this.view.heardStranger(cluster)) log.error({ err: error, cluster }, 'A part of another cluster was refused')
      throw error
    }
  }

  /** Undefined while the clock was set but lately: then nobody is to set theirs by it. */
  #timeMs(): number | undefined {
    const { clock } = this.#surroundings
    const step = this.#steps.stepMs()
    if (Math.abs(step) > CLOCK_STEP_MS_MAX) {
      this.#steps.accept()
      this.#settledAt = clock.monotonicMs() + SETTLED_MS
      log.warn({ aheadMs: Math.round(step) }, 'The clock of the registry was set: it tells nobody the time for a while')
    }
    return clock.monotonicMs() < this.#settledAt ? undefined : Math.floor(clock.nowMs())
  }

  #done(entry: RegistryEntry): Promise<void> {
    return new Promise((resolve, reject) => this.#submit(entry, () => resolve(), reject))
  }

  #submit(entry: RegistryEntry, deliver: Deliver, refuse: (error: OperationError) => void): void {
    if (this.#machine.isFull) {
      const detail = 'too many changes wait to be stored'
      return refuse(new OperationError('CLUSTER_BUSY', `Cannot change what the registry knows: ${detail}`))
    }
    this.#machine.submit(
      entry,
      (outcome) => {
        this.view.take(outcome)
        deliver(outcome)
      },
      refuse,
    )
  }

  #every(ms: number, action: () => void): void {
    const again = (): void => {
      const cancel = this.#surroundings.clock.after(ms, () => {
        this.#cancels.delete(cancel)
        action()
        again()
      })
      this.#cancels.add(cancel)
    }
    again()
  }
}

const NO_ROOM = { capacityBytes: 0, usedBytes: 0, freeBytes: 0, blocks: 0 }

function isGone(status: string | undefined): boolean {
  return status === 'stale' || status === 'failed' || status === 'terminated'
}

/** That a disk is stale is found out, not said. */
function said(flag: OperatorFlag | 'stale', disk: DiskId): OperatorFlag {
  if (flag !== 'stale') return flag
  throw new OperationError('INPUT_INVALID', `Cannot set or clear that disk ${disk} is stale: it is found out`)
}
