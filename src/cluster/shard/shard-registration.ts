/** How a shard process makes itself known to the registry, and hears from it of the disks and of the time. */
import { isOperationError, OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import type { ClockTrust } from '#cluster/clock-trust.ts'
import type { ClusterId } from '#cluster/cluster-id.ts'
import { Heartbeat } from '#cluster/heartbeat.ts'
import { registryMessages } from '#cluster/registry/registry-messages.ts'
import type { Address, Clock, Surroundings } from '#cluster/surroundings.ts'
import { Caller, type Target } from '#cluster/wire/caller.ts'

import type { ShardServer } from './shard-server.ts'

const log = logger('cluster/shard')

const HEARTBEAT_MS = 10_000
/** While nothing can be written. */
const HEARTBEAT_HELD_MS = 1000
/** New disks, and such as are full or gone, are heard of this soon. */
const DISKS_MS = 500
/** For so long somebody who needs more disks waits for the registry. */
const LEARN_MS = 1000

export interface ShardFacts {
  readonly cluster: ClusterId
  /** Of the process, from its first start on. */
  readonly process: number
  /** What tells its directory from a copy of it. */
  readonly place: string
  readonly address: Address
  readonly location: string
}

export class ShardRegistration {
  readonly #caller: Caller
  readonly #clock: Clock
  readonly #registry: Target
  readonly #server: ShardServer
  readonly #trust: ClockTrust
  readonly #facts: ShardFacts
  readonly #heartbeat: Heartbeat
  readonly #disks: Heartbeat
  readonly #taken = Promise.withResolvers<void>()
  #isTaken = false
  #onLost: (error: OperationError) => void = () => undefined
  /** Which run and version of what the registry knows of disks is known here. */
  #learned = { run: 0, known: 0 }

  /** @param trust that of the server */
  constructor(surroundings: Surroundings, registry: Target, server: ShardServer, trust: ClockTrust, facts: ShardFacts) {
    const { clock } = surroundings
    this.#caller = new Caller(surroundings, { isInternal: true })
    this.#clock = clock
    this.#registry = registry
    this.#server = server
    this.#trust = trust
    this.#facts = facts
    this.#heartbeat = new Heartbeat(surroundings, {
      pauseMs: () => (trust.isTrusted ? HEARTBEAT_MS : HEARTBEAT_HELD_MS),
      beat: () => this.#register(),
      log,
      what: 'The registration of the shards',
    })
    this.#disks = new Heartbeat(surroundings, {
      pauseMs: () => DISKS_MS,
      beat: () => this.#learn(),
      log,
      what: 'Hearing of the disks',
    })
    trust.onChanged = () => this.#heartbeat.now()
    server.learnMore = () =>
      new Promise((resolve) => {
        const cancel = clock.after(LEARN_MS, resolve)
        void this.#disks.joined().then(() => {
          cancel()
          resolve()
        })
      })
  }

  /**
   * Resolves when the registry knows of the shards.
   * @param onLost another process has them by now, with the same directory or a copy of it: this one must not go on serving. It may be called again
   * @throws REGISTRATION_REFUSED where another process has them; CLUSTER_MISMATCH; ABORTED where it is stopped
   */
  start(onLost: (error: OperationError) => void): Promise<void> {
    this.#onLost = onLost
    // Nobody needs to wait for it.
    this.#taken.promise.catch(() => undefined)
    this.#heartbeat.now()
    this.#disks.now()
    return this.#taken.promise
  }

  stop(): void {
    this.#taken.reject(new OperationError('ABORTED', 'Cannot register the shards: the process ends'))
    this.#heartbeat.stop()
    this.#disks.stop()
    this.#caller.close()
  }

  async #register(): Promise<void> {
    const { first, last } = this.#server
    const request = { ...this.#facts, clock: this.#trust.state, first, last }
    const askedAt = this.#clock.monotonicMs()
    try {
      const { timeMs } = await this.#caller.call(this.#registry, registryMessages.registerShards, request)
      this.#trust.compare(askedAt, timeMs)
      this.#isTaken = true
      this.#taken.resolve()
    } catch (error) {
      if (this.#isTaken && isOperationError(error, 'REGISTRATION_REFUSED')) this.#onLost(error)
      if (isOperationError(error, 'REGISTRATION_REFUSED', 'CLUSTER_MISMATCH')) this.#taken.reject(error)
      throw error
    }
  }

  async #learn(): Promise<void> {
    const { first, last } = this.#server
    const { cluster } = this.#facts
    const request = { cluster, ...this.#learned, first, last }
    const { run, version, disks } = await this.#caller.call(this.#registry, registryMessages.shardDisks, request)
    if (disks !== undefined) await this.#server.learn(disks)
    this.#learned = { run, known: version }
  }
}
