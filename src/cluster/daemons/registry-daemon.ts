/** The registry on a real machine: its journal and state in its directory, and its port for processes, programs and people alike. */
import type { ClusterId } from '#cluster/cluster-id.ts'
import { RegistryHttp } from '#cluster/registry/http-api.ts'
import { RegistryServer } from '#cluster/registry/registry-server.ts'
import { systemSurroundings } from '#cluster/system-surroundings.ts'

import { advertisedAddress, daemonOf, openServer, type Daemon, type DaemonOptions } from './daemon.ts'

export interface RegistryDaemonOptions extends DaemonOptions {
  /** Who is silent for so long is stale. */
  readonly staleMs?: number
  /** Of an empty directory: the cluster whose registry was lost, and is to be this one. */
  readonly cluster?: ClusterId | undefined
}

/** @throws JOURNAL_FAILED, JOURNAL_CORRUPT, ADDRESS_UNUSABLE, CLUSTER_MISMATCH */
export async function startRegistry(options: RegistryDaemonOptions): Promise<Daemon> {
  const { data, listen, network, staleMs, cluster, onFailed } = options
  // Nobody connects before the server is there.
  const faces: { http?: RegistryHttp } = {}
  const surroundings = systemSurroundings({ ...network, foreign: (socket) => faces.http?.handle(socket) })
  const chosen = { ...(staleMs !== undefined && { staleMs }), ...(cluster !== undefined && { cluster }) }
  await using opened = new AsyncDisposableStack()
  const server = opened.adopt(
    await openServer(data, (kept) => RegistryServer.open({ surroundings, ...kept, onFailed, ...chosen })),
    (each) => each.close(),
  )
  const http = new RegistryHttp({ server, clock: surroundings.clock, secret: network?.secret })
  faces.http = http
  const listener = await surroundings.network.listen(listen, (link) => server.accept(link))
  opened.defer(() => listener.close())
  opened.defer(() => http.close())
  return daemonOf(advertisedAddress(listener.address, options.advertiseHost), opened)
}
