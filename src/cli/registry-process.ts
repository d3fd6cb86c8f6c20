/** The process of `eider registry`: serves until it is told to stop, and ends with everything that it knows in place. */
import { join } from 'node:path'

import { collectDefaultMetrics } from 'prom-client'

import type { OperationError } from '#base/errors.ts'
import { logger, logToFile, logToStderr } from '#base/log.ts'
import { registry as metrics } from '#base/metrics.ts'
import { openLmdbJournal } from '#cluster/journal/lmdb-journal.ts'
import { openLmdbState } from '#cluster/journal/lmdb-state.ts'
import type { Journal } from '#cluster/journal/journal.ts'
import { RegistryHttp } from '#cluster/registry/http-api.ts'
import { RegistryServer } from '#cluster/registry/registry-server.ts'
import { systemSurroundings } from '#cluster/system-surroundings.ts'

import { clusterSecurity } from './cluster-options.ts'
import { EXIT, type ExitCode } from './command.ts'
import { stepLogLevelOnSignal } from './log-level-signal.ts'
import { type CommonOptions, formatHostPort, type OptionValues } from './options.ts'
import { stateDirectory } from './places.ts'
import { tellReady } from './readiness.ts'
import type { REGISTRY_OPTIONS } from './registry.ts'
import { stopped, stopSignal } from './stop-signal.ts'

const log = logger('cli/registry')

/** Serves until a signal. @throws OperationError for what keeps it from serving, or from going on. */
export async function serveRegistry(values: OptionValues<typeof REGISTRY_OPTIONS & CommonOptions>): Promise<ExitCode> {
  const signal = stopSignal()
  stepLogLevelOnSignal()
  if (values.log === undefined) logToStderr()
  else logToFile(values.log)
  const security = await clusterSecurity(values)
  const serving: { http?: RegistryHttp } = {}
  const surroundings = systemSurroundings({
    ...security,
    foreign: (socket) => {
      if (serving.http === undefined) socket.destroy()
      else serving.http.handle(socket)
    },
  })
  const failed = Promise.withResolvers<OperationError>()
  const directory = values.data ?? join(stateDirectory(), 'registry')
  const journal = await openLmdbJournal(directory)
  const server = await RegistryServer.open({
    surroundings,
    journal,
    stored: await storedBeside(journal, directory),
    onFailed: failed.resolve,
    staleMs: values.staleAfter,
  })
  try {
    const http = new RegistryHttp({ server, clock: surroundings.clock, secret: security.secret })
    serving.http = http
    const listener = await surroundings.network.listen(formatHostPort(values.listen), (link) => server.accept(link))
    try {
      collectDefaultMetrics({ register: metrics })
      const page = `${security.tls === undefined ? 'http' : 'https'}://${listener.address}/`
      process.stdout.write(`Registry at ${listener.address}; its page is ${page}\n`)
      log.info({ address: listener.address, directory }, 'serving')
      await tellReady({ address: listener.address, page })
      const failure = await Promise.race([failed.promise, stopped(signal)])
      if (failure !== undefined) throw failure
      log.info({ reason: String(signal.reason) }, 'ending')
    } finally {
      http.close()
      await listener.close()
    }
  } finally {
    await server.close()
  }
  return EXIT.done
}

async function storedBeside(journal: Journal, directory: string): ReturnType<typeof openLmdbState> {
  try {
    return await openLmdbState(directory)
  } catch (error) {
    await journal.close()
    throw error
  }
}
