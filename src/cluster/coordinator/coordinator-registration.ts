/** How the coordinator makes itself known to the registry, and hears from it of the time. */
import { isOperationError, OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import type { ClockTrust } from '#cluster/clock-trust.ts'
import type { ClusterId } from '#cluster/cluster-id.ts'
import { Heartbeat } from '#cluster/heartbeat.ts'
import { registryMessages } from '#cluster/registry/registry-messages.ts'
import type { Address, Clock, Surroundings } from '#cluster/surroundings.ts'
import type { Caller, Target } from '#cluster/wire/caller.ts'

const log = logger('cluster/coordinator')

const HEARTBEAT_MS = 10_000

export interface CoordinatorFacts {
  readonly cluster: ClusterId
  /** Of the process, from its first start on. */
  readonly process: number
  /** What tells its directory from a copy of it. */
  readonly place: string
  readonly address: Address
  readonly location: string
}

/**
 * A target that is nowhere until the registry has taken the coordinator: one that is refused, as a copy of the directory of another, must not have asked
 * anything of shards, since it asks under the numbers that the other goes on to use.
 */
export function onceTaken(target: Target, isTaken: () => boolean): Target {
  return {
    name: target.name,
    address: () => (isTaken() ? target.address() : undefined),
    isLost: (address) => target.isLost?.(address),
  }
}

export class CoordinatorRegistration {
  readonly #clock: Clock
  readonly #caller: Caller
  readonly #registry: Target
  readonly #trust: ClockTrust
  readonly #facts: CoordinatorFacts
  readonly #heartbeat: Heartbeat
  readonly #taken = Promise.withResolvers<void>()
  #isTaken = false
  #onLost: (error: OperationError) => void = () => undefined

  /** @param caller is closed by whoever gave it */
  constructor(
    surroundings: Surroundings,
    caller: Caller,
    registry: Target,
    trust: ClockTrust,
    facts: CoordinatorFacts,
  ) {
    this.#clock = surroundings.clock
    this.#caller = caller
    this.#registry = registry
    this.#trust = trust
    this.#facts = facts
    const what = 'The registration of the coordinator'
    this.#heartbeat = new Heartbeat(surroundings, {
      pauseMs: () => HEARTBEAT_MS,
      beat: () => this.#register(),
      log,
      what,
    })
    trust.onChanged = () => this.#heartbeat.now()
  }

  /**
   * Resolves when the registry knows of it.
   * @param onLost another process is the coordinator by now, with the same directory or a copy of it: this one must not go on. It may be called again
   * @throws REGISTRATION_REFUSED where another process is the coordinator; CLUSTER_MISMATCH; ABORTED where it is stopped
   */
  start(onLost: (error: OperationError) => void): Promise<void> {
    this.#onLost = onLost
    // Nobody needs to wait for it.
    this.#taken.promise.catch(() => undefined)
    this.#heartbeat.now()
    return this.#taken.promise
  }

  stop(): void {
    this.#heartbeat.stop()
    this.#taken.reject(new OperationError('ABORTED', 'Cannot register the coordinator: the process ends'))
  }

  async #register(): Promise<void> {
    const request = { ...this.#facts, clock: this.#trust.state }
    const askedAt = this.#clock.monotonicMs()
    try {
      const { timeMs } = await this.#caller.call(this.#registry, registryMessages.registerCoordinator, request)
      this.#trust.compare(askedAt, timeMs)
      this.#isTaken = true
      this.#taken.resolve()
    } catch (error) {
      if (this.#isTaken && isOperationError(error, 'REGISTRATION_REFUSED')) this.#onLost(error)
      if (isOperationError(error, 'REGISTRATION_REFUSED', 'CLUSTER_MISMATCH')) this.#taken.reject(error)
      throw error
    }
  }
}
