/**
 * How a block service makes itself known: tells the registry at once and then every ten seconds which disks it has, how much is on
 * them and which have failed; that is its heartbeat, too. A disk that does not tell its room in time is told of as it was last, so
 * that one that hangs keeps nobody from hearing of the others. New disks join the cluster of the registry before it hears of them.
 */
import { isOperationError, OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import type { ClockTrust } from '#cluster/clock-trust.ts'
import { checkSameCluster } from '#cluster/cluster-id.ts'
import { Heartbeat } from '#cluster/heartbeat.ts'
import { greet } from '#cluster/membership.ts'
import type { Surroundings } from '#cluster/surroundings.ts'
import { registryMessages } from '#cluster/registry/registry-messages.ts'
import { Caller, type Target } from '#cluster/wire/caller.ts'
import type { ValueOf } from '#cluster/wire/codec.ts'

import type { Usage } from './disk-usage.ts'
import type { DiskId } from './permit.ts'
import { failureOf, type RegistrationFacts, type ServedDisk } from './served-disk.ts'

const log = logger('cluster/block')

export const HEARTBEAT_MS = 10_000
/** How long disks have to tell their room. */
const ROOM_MS_MAX = 2000
const ANSWER_MS_MAX = 30_000

type Room = Pick<Usage, 'capacityBytes' | 'usedBytes' | 'freeBytes' | 'blocks'>
const NO_ROOM: Room = { capacityBytes: 0, usedBytes: 0, freeBytes: 0, blocks: 0 }

export class BlockRegistration {
  readonly #surroundings: Surroundings
  readonly #registry: Target
  readonly #trust: ClockTrust
  readonly #facts: RegistrationFacts
  readonly #disks: readonly ServedDisk[]
  readonly #caller: Caller
  /** As each disk told last. */
  readonly #rooms = new Map<DiskId, Room>()
  /** Disks that are telling. */
  readonly #asked = new Map<DiskId, Promise<void>>()
  readonly #refused = new Set<DiskId>()
  /** Disks that could not keep which cluster they belong to. */
  readonly #unfit = new Set<DiskId>()
  readonly #known = Promise.withResolvers<void>()
  readonly #heartbeat: Heartbeat
  #isStopped = false

  constructor(
    surroundings: Surroundings,
    registry: Target,
    trust: ClockTrust,
    facts: RegistrationFacts,
    disks: readonly ServedDisk[],
  ) {
    this.#surroundings = surroundings
    this.#registry = registry
    this.#trust = trust
    this.#facts = facts
    this.#disks = disks
    this.#caller = new Caller(surroundings, { isInternal: true })
    this.#heartbeat = new Heartbeat(surroundings, {
      pauseMs: () => HEARTBEAT_MS,
      beat: () => this.#tell(),
      log,
      what: 'The registration of the disks',
    })
    trust.onChanged = () => this.#heartbeat.now()
  }

  /** Resolves when the registry has taken it up. @throws CLUSTER_MISMATCH; ABORTED where `stop` comes first */
  start(): Promise<void> {
    // Nobody needs to wait for it.
    this.#known.promise.catch(() => undefined)
    this.now()
    return this.#known.promise
  }

  /** Something has changed that cannot wait for the next time. */
  now(): void {
    this.#heartbeat.now()
  }

  stop(): void {
    this.#isStopped = true
    this.#heartbeat.stop()
    this.#caller.close()
    this.#known.reject(new OperationError('ABORTED', 'Cannot register the disks: the block service ends'))
  }

  async #tell(): Promise<void> {
    const { clock } = this.#surroundings
    try {
      await this.#join()
      await this.#askRooms()
      if (this.#isStopped) return
      const request = { ...this.#facts, clock: this.#trust.state, disks: this.#told() }
      const askedAt = clock.monotonicMs()
      const options = { deadlineMs: ANSWER_MS_MAX }
      const { refused, timeMs } = await this.#caller.call(
        this.#registry,
        registryMessages.registerDisks,
        request,
        options,
      )
      this.#trust.compare(askedAt, timeMs)
      for (const { disk, why } of refused) {
        if (!this.#refused.has(disk)) log.error({ disk, why }, 'The registry does not take a disk')
      }
      this.#refused.clear()
      for (const { disk } of refused) this.#refused.add(disk)
      this.#known.resolve()
    } catch (error) {
      if (isOperationError(error, 'CLUSTER_MISMATCH')) this.#known.reject(error)
      throw error
    }
  }

  /** Disks without a cluster join that of the registry, unless others here belong to another one. */
  async #join(): Promise<void> {
    const all = this.#disks.map(({ disk }) => disk)
    const fresh = all.filter(({ cluster, failure }) => cluster === undefined && failure === undefined)
    if (fresh.length === 0) return
    const options = { deadlineMs: ANSWER_MS_MAX }
    const [surroundings, registry] = [this.#surroundings, this.#registry]
    const registrys = await greet({ surroundings, registry, caller: this.#caller, trust: this.#trust }, options)
    for (const { disk, path } of this.#disks) {
      if (disk.cluster !== undefined) checkSameCluster(`Cannot register the disk in ${path}`, disk.cluster, registrys)
    }
    const joined = fresh.map((disk) =>
      disk.join(registrys).catch((error: unknown) => {
        if (!isOperationError(error)) throw error
        if (!this.#unfit.has(disk.id)) log.error({ err: error, disk: disk.id }, 'A disk cannot join the cluster')
        this.#unfit.add(disk.id)
      }),
    )
    await Promise.all(joined)
  }

  #told(): ValueOf<typeof registryMessages.registerDisks.request>['disks'] {
    return this.#disks.flatMap(({ disk, class: storageClass, domain, path, fileSystem }) => {
      const { cluster } = disk
      if (cluster === undefined) return []
      const { capacityBytes, usedBytes, freeBytes, blocks } = this.#rooms.get(disk.id) ?? NO_ROOM
      const key = Buffer.from(disk.identity.key)
      const failure = failureOf(disk)
      const room = { capacityBytes, usedBytes, freeBytes, blocks }
      return [{ cluster, disk: disk.id, key, class: storageClass, domain, path, fileSystem, failure, ...room }]
    })
  }

  /** Resolves when all disks have told, or had their time. */
  #askRooms(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const cancel = this.#surroundings.clock.after(ROOM_MS_MAX, resolve)
    const told = this.#disks.map(({ disk }) => {
      const asked =
        this.#asked.get(disk.id) ??
        disk
          .usage()
          .then((room) => void this.#rooms.set(disk.id, room))
          // Why it cannot tell is its failure, which is told; a disk that is only busy is as it was.
          .catch(() => undefined)
          .finally(() => this.#asked.delete(disk.id))
      this.#asked.set(disk.id, asked)
      return asked
    })
    void Promise.all(told).then(() => {
      cancel()
      resolve()
    })
    return promise
  }
}
