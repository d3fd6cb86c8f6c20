/** The process of a daemon of the cluster: starts it, says where it is, and ends it in order when told to, or when it cannot go on. */
import { hostname } from 'node:os'

import type { OperationError } from '#base/errors.ts'
import { logger, logToFile, logToStderr } from '#base/log.ts'
import type { Daemon, RegisteredOptions } from '#cluster/daemons/daemon.ts'

import { clusterSecurity } from './cluster-options.ts'
import { EXIT, type ExitCode } from './command.ts'
import type { DAEMON_OPTIONS } from './daemon-options.ts'
import { stepLogLevelOnSignal } from './log-level-signal.ts'
import { type CommonOptions, formatHostPort, type HostPort, type OptionValues } from './options.ts'
import { type Facts, tellReady } from './readiness.ts'
import { stopped, stopSignal } from './stop-signal.ts'

const log = logger('cli/cluster')

export interface RunningDaemon extends Daemon {
  /** One line for people. */
  readonly announcement: string
  /** For who started this process. */
  readonly facts?: Facts
}

/** Serves until a signal. @throws OperationError for what keeps it from serving, or from going on */
export async function runDaemon(
  values: { readonly log: string | undefined },
  start: (onFailed: (error: OperationError) => void, signal: AbortSignal) => Promise<RunningDaemon>,
): Promise<ExitCode> {
  const signal = stopSignal()
  stepLogLevelOnSignal()
  if (values.log === undefined) logToStderr()
  else logToFile(values.log)
  const failed = Promise.withResolvers<OperationError>()
  const starting = start(failed.resolve, signal)
  // Who waits for a registry that never comes can still be told to end.
  const daemon = await Promise.race([starting, failed.promise, stopped(signal)])
  if (daemon === undefined) return EXIT.done
  if (!('close' in daemon)) throw daemon
  try {
    process.stdout.write(`${daemon.announcement}\n`)
    log.info({ address: daemon.address }, 'serving')
    await tellReady({ address: daemon.address, ...daemon.facts })
    const failure = await Promise.race([failed.promise, stopped(signal)])
    if (failure !== undefined) throw failure
    log.info({ reason: String(signal.reason) }, 'ending')
  } finally {
    await daemon.close()
  }
  return EXIT.done
}

/** What the options say to every daemon that registers. @throws OperationError `USAGE` */
export async function registeredOptions(
  values: OptionValues<typeof DAEMON_OPTIONS & CommonOptions>,
  data: string,
  onFailed: (error: OperationError) => void,
): Promise<RegisteredOptions> {
  const { registry, listen, advertise, location } = values
  return {
    data,
    listen: formatHostPort(listen),
    advertiseHost: advertise ?? advertisedHost(listen),
    network: await clusterSecurity(values),
    registry: formatHostPort(registry),
    location,
    onFailed,
  }
}

/** Of who listens everywhere nobody could tell the others where; the name of the machine is the best guess. */
export function advertisedHost({ host }: HostPort): string | undefined {
  return host === '0.0.0.0' || host === '::' ? hostname() : undefined
}
