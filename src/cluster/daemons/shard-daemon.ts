/** A shard process on a real machine: its journal and state in its directory, its port, its registration. */
import { openLmdbJournal } from '#cluster/journal/lmdb-journal.ts'
import { openLmdbState } from '#cluster/journal/lmdb-state.ts'
import { ShardRegistration } from '#cluster/shard/shard-registration.ts'
import { ShardServer } from '#cluster/shard/shard-server.ts'
import { systemSurroundings } from '#cluster/system-surroundings.ts'

import {
  advertisedAddress,
  closedUnless,
  makeDataDirectory,
  processIdOf,
  registryTarget,
  type Daemon,
  type RegisteredOptions,
} from './daemon.ts'

export interface ShardDaemonOptions extends RegisteredOptions {
  /** Of the 256 shards: which are here. */
  readonly first: number
  readonly last: number
}

/** Resolves when the registry knows of it. @throws JOURNAL_FAILED, JOURNAL_CORRUPT, ADDRESS_UNUSABLE, INPUT_INVALID */
export async function startShard(options: ShardDaemonOptions): Promise<Daemon> {
  const { data, listen, first, last, registry, location, onFailed } = options
  makeDataDirectory(data)
  const surroundings = systemSurroundings(options.network)
  const journal = await openLmdbJournal(data)
  const stored = await openLmdbState(data)
  const server = await ShardServer.open({ surroundings, journal, stored, first, last, onFailed })
  const listener = await surroundings.network.listen(listen, (link) => server.accept(link))
  const address = advertisedAddress(listener.address, options.advertiseHost)
  const facts = { process: await processIdOf(data), address, location }
  const registration = new ShardRegistration(surroundings, registryTarget(registry), server, facts)
  const close = async (): Promise<void> => {
    registration.stop()
    await listener.close()
    await server.close()
  }
  return closedUnless(registration.start(), { address, close })
}
