/** The process of `eider serve s3`: opens the store, serves it until it is told to stop, and lets requests under way end. */
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { logger, logToFile, logToStderr } from '#base/log.ts'
import { type Gateway, type GatewayOptions, startGateway } from '#gateway/gateway.ts'
import { openStore } from '#store/open-store.ts'
import { EXIT, type ExitCode } from './command.ts'
import { gatewayCredentials, type GatewayCredentials } from './gateway-credentials.ts'
import { holdLock } from './held-lock.ts'
import { listenError } from './listen-error.ts'
import { stepLogLevelOnSignal } from './log-level-signal.ts'
import { serveMetrics } from './metrics-server.ts'
import { type CommonOptions, formatHostPort, type HostPort, type OptionValues } from './options.ts'
import { stateDirectory } from './places.ts'
import { tellReady } from './readiness.ts'
import type { SERVE_S3_OPTIONS } from './serve-s3.ts'
import { stopped, stopSignal } from './stop-signal.ts'
import { s3OptionsOf } from './store-options.ts'

const log = logger('cli/serve-s3')

/** Serves until a signal. @throws OperationError for what keeps it from serving. */
export async function serveGateway(
  url: string,
  values: OptionValues<typeof SERVE_S3_OPTIONS & CommonOptions>,
): Promise<ExitCode> {
  const signal = stopSignal()
  stepLogLevelOnSignal()
  if (values.log === undefined) logToStderr()
  else logToFile(values.log)
  const store = await openStore(url, { signal, s3: s3OptionsOf(values) })
  try {
    const credentials = gatewayCredentials(url, {
      accessKey: values.accessKey,
      secretKey: values.secretKey,
      file: values.credentials,
    })
    const stagingDirectory = values.staging ?? usualStaging(url)
    holdLock(
      join(stagingDirectory, '.lock'),
      `serve ${store.url}`,
      `another gateway works with '${stagingDirectory}'`,
      'One gateway serves a store to all clients; give a second one a directory of its own with --staging.',
    )
    const gateway = await listening(values.listen, {
      store,
      accessKey: credentials.accessKey,
      secretKey: credentials.secretKey,
      stagingDirectory,
    })
    try {
      const metrics =
        values.metrics === undefined ? undefined : await serveMetrics(values.metrics, () => !signal.aborted)
      const endpoint = `http://${formatHostPort(gateway.address)}`
      announce(store.url, endpoint, credentials)
      if (!isLoopback(gateway.address.host)) {
        log.warn(
          { endpoint },
          'this address is not of this machine alone, and bodies go unencrypted: put a proxy with TLS before it',
        )
      }
      log.info({ endpoint, metrics: metrics && formatHostPort(metrics.address) }, 'serving')
      await tellReady({ endpoint, accessKey: credentials.accessKey })
      await stopped(signal)
      log.info({ reason: String(signal.reason) }, 'letting requests end')
    } finally {
      await gateway.close()
    }
  } finally {
    await store.close()
  }
  return EXIT.done
}

async function listening(address: HostPort, options: Omit<GatewayOptions, 'host' | 'port'>): Promise<Gateway> {
  try {
    return await startGateway({ ...options, ...address })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).syscall === undefined) throw error
    throw listenError(`listen at ${formatHostPort(address)}`, address, error, '--listen')
  }
}

/** On standard output, for people and scripts; the secret only where it was made just now. */
function announce(store: string, endpoint: string, { accessKey, secretKey, file, made }: GatewayCredentials): void {
  const lines = [`Serving ${store} at ${endpoint}`]
  if (made) lines.push(`Made a key pair, kept in ${file}:`, `  access key  ${accessKey}`, `  secret key  ${secretKey}`)
  else lines.push(`Access key ${accessKey}${file === undefined ? '' : `; its secret is in ${file}`}`)
  process.stdout.write(`${lines.join('\n')}\n`)
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || host.startsWith('127.')
}

/** On the disk of a directory store, so that a finished upload is copied within the kernel, sharing blocks where it can. */
function usualStaging(url: string): string {
  if (url.startsWith('file:')) return join(fileURLToPath(url), '.eider', 'uploads')
  return join(stateDirectory(), 'uploads', createHash('sha256').update(url).digest('hex').slice(0, 24))
}
