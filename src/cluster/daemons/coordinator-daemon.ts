/** The coordinator on a real machine: its journal and state in its directory, its port, its registration. */
import { isOperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { ClusterMap } from '#cluster/client/cluster-map.ts'
import { CoordinatorServer } from '#cluster/coordinator/coordinator-server.ts'
import { Heartbeat } from '#cluster/heartbeat.ts'
import { registryMessages } from '#cluster/registry/registry-messages.ts'
import { systemSurroundings } from '#cluster/system-surroundings.ts'
import { Caller } from '#cluster/wire/caller.ts'

import { advertisedAddress, daemonOf, openServer, processIdOf, type Daemon, type RegisteredOptions } from './daemon.ts'

const log = logger('cluster/coordinator')
const HEARTBEAT_MS = 10_000

/** Resolves when the registry knows of it. @throws JOURNAL_FAILED, JOURNAL_CORRUPT, ADDRESS_UNUSABLE */
export async function startCoordinator(options: RegisteredOptions): Promise<Daemon> {
  const { data, listen, registry, location, onFailed } = options
  const surroundings = systemSurroundings(options.network)
  await using opened = new AsyncDisposableStack()
  const caller = opened.adopt(new Caller(surroundings, { isInternal: true }), (each) => each.close())
  const map = opened.adopt(new ClusterMap(surroundings, caller, registry), (each) => each.stop())
  await map.start(Number.POSITIVE_INFINITY)
  const shardTarget = (shard: number) => map.shard(shard)
  const server = opened.adopt(
    await openServer(data, (kept) => CoordinatorServer.open({ surroundings, ...kept, caller, shardTarget, onFailed })),
    (each) => each.close(),
  )
  const listener = await surroundings.network.listen(listen, (link) => server.accept(link))
  opened.defer(() => listener.close())
  const address = advertisedAddress(listener.address, options.advertiseHost)
  const facts = { process: await processIdOf(data), address, location }
  const known = Promise.withResolvers<void>()
  let isCutOff = false
  const heartbeat = new Heartbeat(surroundings, HEARTBEAT_MS, async () => {
    try {
      await caller.call(map.registry, registryMessages.registerCoordinator, facts)
      isCutOff = false
      known.resolve()
    } catch (error) {
      if (!isOperationError(error)) throw error
      if (error.code === 'REGISTRATION_REFUSED') known.reject(error)
      // Once for each time that it is away.
      if (!isCutOff && error.code !== 'ABORTED') log.warn({ err: error }, 'Cannot speak with the registry')
      isCutOff = true
    }
  })
  opened.defer(() => heartbeat.stop())
  heartbeat.now()
  await known.promise
  return daemonOf(address, opened)
}
