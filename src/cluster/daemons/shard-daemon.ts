/** A shard process on a real machine: its journal and state in its directory, its port, its registration. */
import { ClockTrust } from '#cluster/clock-trust.ts'
import type { ClusterId } from '#cluster/cluster-id.ts'
import { type Introduction, joinCluster, type Membership } from '#cluster/membership.ts'
import { ShardRegistration } from '#cluster/shard/shard-registration.ts'
import { ShardServer } from '#cluster/shard/shard-server.ts'
import { registryTarget } from '#cluster/registry/registry-target.ts'
import { systemSurroundings } from '#cluster/system-surroundings.ts'
import { Caller } from '#cluster/wire/caller.ts'

import {
  advertisedAddress,
  daemonOf,
  membershipIn,
  openServer,
  processIdOf,
  type Daemon,
  type RegisteredOptions,
} from './daemon.ts'
import { placeOf } from './place.ts'
import { roomAt } from './room.ts'

export interface ShardDaemonOptions extends RegisteredOptions {
  /** Of the 256 shards: which are here. */
  readonly first: number
  readonly last: number
  /** Kept free on the file system of its directory. */
  readonly reserveBytes: number
}

/**
 * Resolves when the registry knows of it.
 * @throws JOURNAL_FAILED, JOURNAL_CORRUPT, ADDRESS_UNUSABLE, INPUT_INVALID, CLUSTER_MISMATCH, REGISTRATION_REFUSED; CLOCK_UNTRUSTED where its directory is
 * new
 */
export async function startShard(options: ShardDaemonOptions): Promise<Daemon> {
  const { data, listen, first, last, registry, location, reserveBytes, onFailed } = options
  const surroundings = systemSurroundings(options.network)
  const trust = new ClockTrust(surroundings.clock)
  const target = registryTarget(registry)
  await using opened = new AsyncDisposableStack()
  const membership = await membershipIn(data)
  const join = (): Promise<ClusterId> =>
    joined(`Cannot begin shards ${first} to ${last}`, membership, { surroundings, registry: target, trust })
  const own = { first, last, trust, onFailed, hasRoom: roomAt(data, reserveBytes) }
  const beforeFirst = async (): Promise<void> => void (await join())
  const server = opened.adopt(
    await openServer(data, (kept) => ShardServer.open({ surroundings, ...kept, ...own, beforeFirst })),
    (each) => each.close(),
  )
  // Who belongs to it already can serve before the registry is heard of.
  const cluster = membership.cluster ?? (await join())
  const listener = await surroundings.network.listen(listen, (link) => server.accept(link))
  opened.defer(() => listener.close())
  const address = advertisedAddress(listener.address, options.advertiseHost)
  const facts = { cluster, process: await processIdOf(data), place: placeOf(data), address, location }
  const registration = new ShardRegistration(surroundings, target, server, trust, facts)
  opened.defer(() => registration.stop())
  await registration.start(onFailed)
  return daemonOf(address, opened)
}

async function joined(
  action: string,
  part: Membership,
  { surroundings, registry, trust }: Omit<Introduction, 'caller'>,
): Promise<ClusterId> {
  const caller = new Caller(surroundings, { isInternal: true })
  try {
    return await joinCluster(action, part, { surroundings, registry, caller, trust })
  } finally {
    caller.close()
  }
}
