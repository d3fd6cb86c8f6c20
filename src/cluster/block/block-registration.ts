/**
 * How a block service makes itself known: tells the registry at once and then every ten seconds which disks it has, how much is on
 * them and which have failed; that is its heartbeat, too. A disk that does not tell its room in time is told of as it was last, so
 * that one that hangs keeps nobody from hearing of the others.
 */
import { isOperationError, OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { Heartbeat } from '#cluster/heartbeat.ts'
import type { Surroundings } from '#cluster/surroundings.ts'
import { registryMessages } from '#cluster/registry/registry-messages.ts'
import { Caller, type Target } from '#cluster/wire/caller.ts'

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
  readonly #facts: RegistrationFacts
  readonly #disks: readonly ServedDisk[]
  readonly #caller: Caller
  /** As each disk told last. */
  readonly #rooms = new Map<DiskId, Room>()
  /** Disks that are telling. */
  readonly #asked = new Map<DiskId, Promise<void>>()
  readonly #refused = new Set<DiskId>()
  readonly #known = Promise.withResolvers<void>()
  readonly #heartbeat: Heartbeat
  #isCutOff = false
  #isStopped = false

  constructor(surroundings: Surroundings, registry: Target, facts: RegistrationFacts, disks: readonly ServedDisk[]) {
    this.#surroundings = surroundings
    this.#registry = registry
    this.#facts = facts
    this.#disks = disks
    this.#caller = new Caller(surroundings, { isInternal: true })
    this.#heartbeat = new Heartbeat(surroundings, HEARTBEAT_MS, () => this.#tell())
  }

  /** Resolves when the registry has taken it up. @throws ABORTED where `stop` comes first */
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
    await this.#askRooms()
    if (this.#isStopped) return
    const disks = this.#disks.map(({ disk, class: storageClass, domain, path, fileSystem }) => {
      const { capacityBytes, usedBytes, freeBytes, blocks } = this.#rooms.get(disk.id) ?? NO_ROOM
      const key = Buffer.from(disk.identity.key)
      const failure = failureOf(disk)
      const room = { capacityBytes, usedBytes, freeBytes, blocks }
      return { disk: disk.id, key, class: storageClass, domain, path, fileSystem, failure, ...room }
    })
    try {
      const request = { ...this.#facts, disks }
      const { refused } = await this.#caller.call(this.#registry, registryMessages.registerDisks, request, {
        deadlineMs: ANSWER_MS_MAX,
      })
      for (const { disk, why } of refused) {
        if (!this.#refused.has(disk)) log.error({ disk, why }, 'The registry does not take a disk')
      }
      this.#refused.clear()
      for (const { disk } of refused) this.#refused.add(disk)
      this.#isCutOff = false
      this.#known.resolve()
    } catch (error) {
      if (!isOperationError(error)) throw error
      // Once for each time that it is away.
      if (!this.#isCutOff && !this.#isStopped) log.warn({ err: error }, 'Cannot tell the registry of the disks')
      this.#isCutOff = true
    }
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
