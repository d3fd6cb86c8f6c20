/** The coordinator on a real machine: its journal and state in its directory, its port, its registration. */
import { ClusterMap } from '#cluster/client/cluster-map.ts'
import { ClockTrust, trustedClock } from '#cluster/clock-trust.ts'
import { CoordinatorRegistration, onceTaken } from '#cluster/coordinator/coordinator-registration.ts'
import { CoordinatorServer } from '#cluster/coordinator/coordinator-server.ts'
import { joinCluster } from '#cluster/membership.ts'
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

/** Resolves when the registry knows of it. @throws JOURNAL_FAILED, JOURNAL_CORRUPT, ADDRESS_UNUSABLE, CLUSTER_MISMATCH, REGISTRATION_REFUSED */
export async function startCoordinator(options: RegisteredOptions): Promise<Daemon> {
  const { data, listen, registry, location, onFailed } = options
  const surroundings = systemSurroundings(options.network)
  const trust = new ClockTrust(surroundings.clock)
  const target = registryTarget(registry)
  await using opened = new AsyncDisposableStack()
  const caller = opened.adopt(new Caller(surroundings, { isInternal: true }), (each) => each.close())
  // Before anything is asked of shards, which may be those of another cluster.
  const introduction = { surroundings, registry: target, caller, trust }
  const cluster = await joinCluster('Cannot begin the coordinator', await membershipIn(data), introduction)
  const map = opened.adopt(new ClusterMap(surroundings, caller, registry, cluster), (each) => each.stop())
  await map.start(Number.POSITIVE_INFINITY)
  let isTaken = false
  const shardTarget = (shard: number) => onceTaken(map.shard(shard), () => isTaken)
  const own = { ...surroundings, clock: trustedClock(surroundings.clock, trust) }
  const server = opened.adopt(
    await openServer(data, (kept) =>
      CoordinatorServer.open({ surroundings: own, ...kept, caller, shardTarget, onFailed }),
    ),
    (each) => each.close(),
  )
  const listener = await surroundings.network.listen(listen, (link) => server.accept(link))
  opened.defer(() => listener.close())
  const address = advertisedAddress(listener.address, options.advertiseHost)
  const facts = { cluster, process: await processIdOf(data), place: placeOf(data), address, location }
  const registration = new CoordinatorRegistration(surroundings, caller, target, trust, facts)
  opened.defer(() => registration.stop())
  await registration.start(onFailed)
  isTaken = true
  return daemonOf(address, opened)
}
