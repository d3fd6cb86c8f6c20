/** A shard process on a real machine: its journal and state in its directory, its port, its registration. */
import { ShardRegistration } from '#cluster/shard/shard-registration.ts'
import { ShardServer } from '#cluster/shard/shard-server.ts'
import { registryTarget } from '#cluster/registry/registry-target.ts'
import { systemSurroundings } from '#cluster/system-surroundings.ts'

import { advertisedAddress, daemonOf, openServer, processIdOf, type Daemon, type RegisteredOptions } from './daemon.ts'
import { roomAt } from './room.ts'

export interface ShardDaemonOptions extends RegisteredOptions {
  /** Of the 256 shards: which are here. */
  readonly first: number
  readonly last: number
  /** Kept free on the file system of its directory. */
  readonly reserveBytes: number
}

/** Resolves when the registry knows of it. @throws JOURNAL_FAILED, JOURNAL_CORRUPT, ADDRESS_UNUSABLE, INPUT_INVALID */
export async function startShard(options: ShardDaemonOptions): Promise<Daemon> {
  const { data, listen, first, last, registry, location, reserveBytes, onFailed } = options
  const surroundings = systemSurroundings(options.network)
  await using opened = new AsyncDisposableStack()
  const server = opened.adopt(
    await openServer(data, (kept) =>
      ShardServer.open({ surroundings, ...kept, first, last, onFailed, hasRoom: roomAt(data, reserveBytes) }),
    ),
    (each) => each.close(),
  )
  const listener = await surroundings.network.listen(listen, (link) => server.accept(link))
  opened.defer(() => listener.close())
  const address = advertisedAddress(listener.address, options.advertiseHost)
  const facts = { process: await processIdOf(data), address, location }
  const registration = new ShardRegistration(surroundings, registryTarget(registry), server, facts)
  opened.defer(() => registration.stop())
  await registration.start()
  return daemonOf(address, opened)
}
