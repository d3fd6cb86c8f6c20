/** How a shard process makes itself known to the registry, and hears from it of the disks. */
import { isOperationError, OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { Heartbeat } from '#cluster/heartbeat.ts'
import { registryMessages } from '#cluster/registry/registry-messages.ts'
import type { Address, Surroundings } from '#cluster/surroundings.ts'
import { Caller, type Target } from '#cluster/wire/caller.ts'

import type { ShardServer } from './shard-server.ts'

const log = logger('cluster/shard')

const HEARTBEAT_MS = 10_000
/** New disks, and such as are full or gone, are heard of this soon. */
const DISKS_MS = 500
/** For so long somebody who needs more disks waits for the registry. */
const LEARN_MS = 1000

export interface ShardFacts {
  /** Of the process, from its first start on. */
  readonly process: number
  readonly address: Address
  readonly location: string
}

export class ShardRegistration {
  readonly #caller: Caller
  readonly #registry: Target
  readonly #server: ShardServer
  readonly #facts: ShardFacts
  readonly #heartbeat: Heartbeat
  readonly #disks: Heartbeat
  readonly #known = Promise.withResolvers<void>()
  #version = 0
  #learning: Promise<void> | undefined
  #isCutOff = false
  #isStopped = false

  constructor(surroundings: Surroundings, registry: Target, server: ShardServer, facts: ShardFacts) {
    this.#caller = new Caller(surroundings, { isInternal: true })
    this.#registry = registry
    this.#server = server
    this.#facts = facts
    this.#heartbeat = new Heartbeat(surroundings, HEARTBEAT_MS, () => this.#told(() => this.#register()))
    this.#disks = new Heartbeat(surroundings, DISKS_MS, () => this.#learnOnce())
    const { clock } = surroundings
    server.learnMore = () =>
      new Promise((resolve) => {
        const cancel = clock.after(LEARN_MS, resolve)
        void this.#learnOnce().then(() => {
          cancel()
          resolve()
        })
      })
  }

  /** Resolves when the registry knows of the shards. @throws REGISTRATION_REFUSED where another process has them; ABORTED where it is stopped */
  start(): Promise<void> {
    // Nobody needs to wait for it.
    this.#known.promise.catch(() => undefined)
    this.#heartbeat.now()
    this.#disks.now()
    return this.#known.promise
  }

  stop(): void {
    this.#isStopped = true
    this.#known.reject(new OperationError('ABORTED', 'Cannot register the shards: the process ends'))
    this.#heartbeat.stop()
    this.#disks.stop()
    this.#caller.close()
  }

  async #register(): Promise<void> {
    const { first, last } = this.#server
    await this.#caller.call(this.#registry, registryMessages.registerShards, { ...this.#facts, first, last })
    this.#known.resolve()
  }

  /** Who asks meanwhile gets the same answer. */
  #learnOnce(): Promise<void> {
    this.#learning ??= this.#told(() => this.#learn()).finally(() => {
      this.#learning = undefined
    })
    return this.#learning
  }

  async #learn(): Promise<void> {
    const { first, last } = this.#server
    const request = { known: this.#version, first, last }
    const { version, disks } = await this.#caller.call(this.#registry, registryMessages.shardDisks, request)
    if (disks !== undefined) await this.#server.learn(disks)
    this.#version = version
  }

  async #told(work: () => Promise<void>): Promise<void> {
    try {
      await work()
      this.#isCutOff = false
    } catch (error) {
      if (!isOperationError(error)) throw error
      if (error.code === 'REGISTRATION_REFUSED') this.#known.reject(error)
      // Once for each time that it is away.
      if (!this.#isCutOff && !this.#isStopped) log.warn({ err: error }, 'Cannot speak with the registry')
      this.#isCutOff = true
    }
  }
}
