/**
 * What a client knows of where everything is: a copy of the registry's map, fetched anew now and then and whenever something is not where it
 * was. A map that is out of date costs a detour, never a wrong answer.
 */
import { logger } from '#base/log.ts'
import type { DiskId } from '#cluster/block/permit.ts'
import type { ClusterId } from '#cluster/cluster-id.ts'
import { Heartbeat } from '#cluster/heartbeat.ts'
import { SHARDS } from '#cluster/inode-id.ts'
import { registryMessages } from '#cluster/registry/registry-messages.ts'
import { registryTarget } from '#cluster/registry/registry-target.ts'
import type { Address, Surroundings } from '#cluster/surroundings.ts'
import { type CallOptions, type Caller, DEADLINE_MS, type Target } from '#cluster/wire/caller.ts'

import type { Disks, KnownDisk } from './disk-choice.ts'

const log = logger('cluster/client')

const REFRESH_MS = 10_000
/** While something is not where it was, at most so often. */
const REFRESH_MS_MIN = 200
const WAIT_MS = 5000

export class ClusterMap implements Disks {
  readonly registry: Target
  /** The coordinator, wherever it is at the time. */
  readonly coordinator: Target
  readonly #surroundings: Surroundings
  readonly #caller: Caller
  readonly #cluster: ClusterId | undefined
  readonly #refresh: Heartbeat
  readonly #targets = new Map<number, Target>()
  /** By shard. */
  #shards: (Address | undefined)[] = []
  #coordinator: Address | undefined
  #disks = new Map<DiskId, KnownDisk>()
  /** Which run and version of the registry's map this is. */
  #is = { run: 0, known: 0 }
  #waiting: (() => void)[] = []
  #asksAt = Number.NEGATIVE_INFINITY
  #isAskedAgain = false

  /** @param cluster of a part of one: the map of another is none for it */
  constructor(surroundings: Surroundings, caller: Caller, registry: Address, cluster?: ClusterId) {
    this.#surroundings = surroundings
    this.#cluster = cluster
    this.#caller = caller
    this.registry = registryTarget(registry)
    this.coordinator = {
      name: 'the coordinator',
      address: () => this.#coordinator,
      isLost: () => this.#askAgain(),
    }
    this.#refresh = new Heartbeat(surroundings, {
      pauseMs: () => REFRESH_MS,
      beat: () => this.#ask(),
      log,
      what: 'Asking the registry where everything is',
    })
  }

  /** Fetches the map for the first time. @throws CLUSTER_UNREACHABLE, WIRE_REFUSED, CLUSTER_MISMATCH */
  async start(deadlineMs = DEADLINE_MS): Promise<void> {
    await this.#fetch({ deadlineMs })
    this.#refresh.now()
  }

  stop(): void {
    this.#refresh.stop()
    for (const resolve of this.#waiting.splice(0)) resolve()
  }

  /** The process that serves the shard, wherever that is at the time. */
  shard(shard: number): Target {
    const known = this.#targets.get(shard)
    if (known !== undefined) return known
    const target: Target = {
      name: `shard ${shard}`,
      address: () => {
        const address = this.#shards[shard]
        if (address === undefined) this.#askAgain()
        return address
      },
      isLost: () => this.#askAgain(),
    }
    this.#targets.set(shard, target)
    return target
  }

  find(disk: DiskId): KnownDisk | undefined {
    return this.#disks.get(disk)
  }

  all(): Iterable<KnownDisk> {
    return this.#disks.values()
  }

  /** Settles when the map was asked for again, or that has failed, or takes too long. */
  refresh(): Promise<void> {
    return new Promise((resolve) => {
      const cancel = this.#surroundings.clock.after(WAIT_MS, resolve)
      this.#waiting.push(() => {
        cancel()
        resolve()
      })
      this.#askAgain()
    })
  }

  #askAgain(): void {
    if (this.#isAskedAgain) return
    this.#isAskedAgain = true
    const { clock } = this.#surroundings
    clock.after(Math.max(0, this.#asksAt + REFRESH_MS_MIN - clock.monotonicMs()), () => {
      this.#isAskedAgain = false
      this.#refresh.now()
    })
  }

  async #ask(): Promise<void> {
    const waiting = this.#waiting.splice(0)
    try {
      await this.#fetch({})
    } finally {
      for (const resolve of waiting) resolve()
    }
  }

  async #fetch(options: CallOptions): Promise<void> {
    this.#asksAt = this.#surroundings.clock.monotonicMs()
    const request = { cluster: this.#cluster, ...this.#is }
    const { run, version, map } = await this.#caller.call(this.registry, registryMessages.map, request, options)
    this.#is = { run, known: version }
    if (map === undefined) return
    const shards: (Address | undefined)[] = Array.from({ length: SHARDS })
    // A process that is silent may only be cut off from the registry.
    for (const { first, last, address } of map.shards) shards.fill(address, first, last + 1)
    this.#shards = shards
    this.#coordinator = map.coordinator?.address
    this.#disks = new Map(map.disks.map((disk) => [disk.disk, disk]))
  }
}
