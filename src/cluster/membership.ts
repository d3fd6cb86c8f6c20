/**
 * How a part comes to belong to a cluster, and is kept from working with another: one that is new asks the registry which cluster it is,
 * and keeps that durably before it tells anything of itself. From then on it says so with all that it tells and asks.
 */
import { checkSameCluster, type ClusterId } from './cluster-id.ts'
import type { ClockTrust } from './clock-trust.ts'
import { registryMessages } from './registry/registry-messages.ts'
import type { Surroundings } from './surroundings.ts'
import type { CallOptions, Caller, Target } from './wire/caller.ts'

/** Until it is asked again what time it is. */
const PAUSE_MS = 1000

/** Where a part keeps which cluster it belongs to. */
export interface Membership {
  /** Undefined while it is new. */
  readonly cluster: ClusterId | undefined
  /** Durable when it resolves. */
  join(cluster: ClusterId): Promise<void>
}

export interface Introduction {
  readonly surroundings: Surroundings
  readonly registry: Target
  /** Of an internal process. */
  readonly caller: Caller
  /** Of the process. It is compared. */
  readonly trust: ClockTrust
}

/** Asks which cluster the registry is of, and what time it is there. @throws CLUSTER_UNREACHABLE, ABORTED, WIRE_REFUSED */
export async function greet(
  { surroundings: { clock }, registry, caller, trust }: Introduction,
  options: CallOptions = {},
): Promise<ClusterId> {
  const askedAt = clock.monotonicMs()
  const { cluster, timeMs } = await caller.call(registry, registryMessages.greet, {}, options)
  trust.compare(askedAt, timeMs)
  return cluster
}

/**
 * The cluster that the part belongs to, once the registry has answered, however long that takes, and the clock was compared. One that is new joins.
 * @param action for people: `Cannot ...`
 * @throws CLUSTER_MISMATCH, WIRE_REFUSED
 */
export async function joinCluster(action: string, part: Membership, introduction: Introduction): Promise<ClusterId> {
  const { clock } = introduction.surroundings
  const ask = (): Promise<ClusterId> => greet(introduction, { deadlineMs: Number.POSITIVE_INFINITY })
  let registrys = await ask()
  // Who waited long for the answer knows no time by it, and a registry whose clock was just set tells none.
  while (introduction.trust.state === undefined) {
    await new Promise<void>((resolve) => void clock.after(PAUSE_MS, resolve))
    registrys = await ask()
  }
  if (part.cluster !== undefined) {
    checkSameCluster(action, part.cluster, registrys)
    return part.cluster
  }
  await part.join(registrys)
  return registrys
}
