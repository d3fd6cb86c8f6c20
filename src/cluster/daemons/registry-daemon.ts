/** The registry on a real machine: its journal and state in its directory, and its port for processes, programs and people alike. */
import { RegistryHttp } from '#cluster/registry/http-api.ts'
import { RegistryServer } from '#cluster/registry/registry-server.ts'
import { systemSurroundings } from '#cluster/system-surroundings.ts'

import { advertisedAddress, daemonOf, openServer, type Daemon, type DaemonOptions } from './daemon.ts'

export interface RegistryDaemonOptions extends DaemonOptions {
  /** Who is silent for so long is stale. */
  readonly staleMs?: number
}

/** @throws JOURNAL_FAILED, JOURNAL_CORRUPT, ADDRESS_UNUSABLE */
export async function startRegistry(options: RegistryDaemonOptions): Promise<Daemon> {
  const { data, listen, network, staleMs, onFailed } = options
  // Nobody connects before the server is there.
  const faces: { http?: RegistryHttp } = {}
  const surroundings = systemSurroundings({ ...network, foreign: (socket) => faces.http?.handle(socket) })
  const patience = staleMs === undefined ? {} : { staleMs }
  await using opened = new AsyncDisposableStack()
  const server = opened.adopt(
    await openServer(data, (kept) => RegistryServer.open({ surroundings, ...kept, onFailed, ...patience })),
    (each) => each.close(),
  )
  const http = new RegistryHttp({ server, clock: surroundings.clock, secret: network?.secret })
  faces.http = http
  const listener = await surroundings.network.listen(listen, (link) => server.accept(link))
  opened.defer(() => listener.close())
  opened.defer(() => http.close())
  return daemonOf(advertisedAddress(listener.address, options.advertiseHost), opened)
}
