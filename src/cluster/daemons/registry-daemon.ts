/** The registry on a real machine: its journal and state in its directory, and its port for processes, programs and people alike. */
import { openLmdbJournal } from '#cluster/journal/lmdb-journal.ts'
import { openLmdbState } from '#cluster/journal/lmdb-state.ts'
import { RegistryHttp } from '#cluster/registry/http-api.ts'
import { RegistryServer } from '#cluster/registry/registry-server.ts'
import { systemSurroundings } from '#cluster/system-surroundings.ts'

import { advertisedAddress, makeDataDirectory, type Daemon, type DaemonOptions } from './daemon.ts'

export interface RegistryDaemonOptions extends DaemonOptions {
  /** Who is silent for so long is stale. */
  readonly staleMs?: number
}

/** @throws JOURNAL_FAILED, JOURNAL_CORRUPT, ADDRESS_UNUSABLE */
export async function startRegistry(options: RegistryDaemonOptions): Promise<Daemon> {
  const { data, listen, network, staleMs, onFailed } = options
  makeDataDirectory(data)
  // Nobody connects before the server is there.
  const faces: { http?: RegistryHttp } = {}
  const surroundings = systemSurroundings({ ...network, foreign: (socket) => faces.http?.handle(socket) })
  const journal = await openLmdbJournal(data)
  const stored = await openLmdbState(data)
  const patience = staleMs === undefined ? {} : { staleMs }
  const server = await RegistryServer.open({ surroundings, journal, stored, onFailed, ...patience })
  faces.http = new RegistryHttp({ server, clock: surroundings.clock, secret: network?.secret })
  const listener = await surroundings.network
    .listen(listen, (link) => server.accept(link))
    .catch(async (error: unknown) => {
      // Its timers would keep the process from ending.
      await server.close()
      throw error
    })
  return {
    address: advertisedAddress(listener.address, options.advertiseHost),
    async close() {
      faces.http?.close()
      await listener.close()
      await server.close()
    },
  }
}
