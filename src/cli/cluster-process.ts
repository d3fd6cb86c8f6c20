/**
 * The parts of `eider cluster`: the registry first, as the others register with it, then all others at once. In one process they still speak over
 * the network of this machine, so nothing is different but how much memory they take. With `--processes` each is one that this one starts, starts again
 * where it ends by itself, and ends.
 */
import type { ChildProcess } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'

import { OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { IDENTITY_FILE } from '#cluster/block/disk-identity.ts'
import type { ClusterId } from '#cluster/cluster-id.ts'
import { startBlockService } from '#cluster/daemons/block-daemon.ts'
import { startCoordinator } from '#cluster/daemons/coordinator-daemon.ts'
import { clusterIn, type Daemon } from '#cluster/daemons/daemon.ts'
import { startRegistry } from '#cluster/daemons/registry-daemon.ts'
import { startShard } from '#cluster/daemons/shard-daemon.ts'

import { clusterIdGiven, clusterSecurity } from './cluster-options.ts'
import type { CLUSTER_COMMAND_OPTIONS } from './cluster.ts'
import type { ExitCode } from './command.ts'
import { METADATA_RESERVE } from './daemon-options.ts'
import { advertisedHost, runDaemon, type RunningDaemon } from './daemon-process.ts'
import { type CommonOptions, formatHostPort, type OptionValues } from './options.ts'
import { startReady } from './readiness.ts'

const log = logger('cli/cluster')

/** What the parts log, they log here. */
const STDERR = 2
/** Options of this command are none of theirs. */
const ENVIRONMENT = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !name.startsWith('EIDER_') || name === 'EIDER_LOG_LEVEL'),
)

type Values = OptionValues<typeof CLUSTER_COMMAND_OPTIONS & CommonOptions>

/** A part that ended by itself is started again after that; each time twice as long, up to the most. */
const PAUSE_MS = 100
const PAUSE_MS_MAX = 10_000
/** One that has run for so long is counted as sound again. */
const SOUND_MS = 60_000

/** Runs until a signal. @throws OperationError for what keeps it from starting, or from going on */
export async function runCluster(values: Values): Promise<ExitCode> {
  const cluster = await clusterIdGiven(values.clusterId)
  if (cluster === undefined) await checkRegistry(values.data)
  return runDaemon(values, (onFailed, signal) =>
    values.processes ? startProcesses(values, signal) : startAll(values, cluster, onFailed),
  )
}

/** A registry that begins anew beside parts that are there would be that of another cluster, and refuse them all. @throws CLUSTER_MISMATCH */
async function checkRegistry(data: string): Promise<void> {
  const own = await clusterIn(join(data, 'shards'))
  if (own === undefined || existsSync(join(data, 'registry'))) return
  const detail = `its shards are of cluster ${own}, and the directory of its registry is gone`
  throw new OperationError('CLUSTER_MISMATCH', `Cannot start the cluster in ${data}: ${detail}`, {
    hint: `Bring that directory back, or begin the registry anew for them by --cluster-id ${own}: only what people have said of disks is lost.`,
  })
}

function metadataReserve({ reserve }: Values): number {
  return Math.min(reserve, METADATA_RESERVE)
}

interface ChosenDisk {
  readonly number: number
  /** Its directory. */
  readonly path: string
}

/** Of the disks, those that there are already, and as many more as are wanted. One that is left out would look lost. */
function disksOf({ data, disk, disks }: Values): readonly ChosenDisk[] {
  const place = disk ?? data
  const names = existsSync(place) ? readdirSync(place) : []
  const numbers = names.flatMap((name) => {
    const number = Number(/^disk-([1-9]\d{0,3})$/.exec(name)?.[1] ?? 0)
    return number > 0 && existsSync(join(place, name, IDENTITY_FILE)) ? [number] : []
  })
  const all = new Set([...Array.from({ length: disks }, (_, index) => index + 1), ...numbers])
  return [...all].sort((a, b) => a - b).map((number) => ({ number, path: join(place, `disk-${number}`) }))
}

async function startAll(
  values: Values,
  cluster: ClusterId | undefined,
  onFailed: (error: OperationError) => void,
): Promise<RunningDaemon> {
  const { data, listen, advertise, reserve } = values
  const disks = disksOf(values)
  const network = await clusterSecurity(values)
  const advertiseHost = advertise ?? advertisedHost(listen)
  const started: Daemon[] = []
  const close = async (): Promise<void> => {
    // Who registers ends before the registry.
    for (const daemon of started.splice(0).toReversed()) await daemon.close()
  }
  const keep = async (starting: Promise<Daemon>): Promise<Daemon> => {
    const daemon = await starting
    started.push(daemon)
    return daemon
  }
  const common = { network, advertiseHost, onFailed }
  try {
    const registry = await keep(
      startRegistry({ ...common, data: join(data, 'registry'), listen: formatHostPort(listen), cluster }),
    )
    // Its parts are on this machine, whatever others call it; but certificates are for names.
    const host = network.tls === undefined ? listen.host : (advertiseHost ?? listen.host)
    const own = { host, port: Number(registry.address.slice(registry.address.lastIndexOf(':') + 1)) }
    const parts = {
      ...common,
      registry: formatHostPort(own),
      location: 'default',
      listen: formatHostPort({ host: listen.host, port: 0 }),
    }
    const starting = [
      keep(
        startShard({
          ...parts,
          data: join(data, 'shards'),
          first: 0,
          last: 255,
          reserveBytes: metadataReserve(values),
        }),
      ),
      keep(startCoordinator({ ...parts, data: join(data, 'coordinator') })),
      ...disks.map(({ path, number }) =>
        keep(
          startBlockService({
            ...parts,
            data: join(data, `block-service-${number}`),
            disks: [{ path, class: 2, domain: `disk-${number}` }],
            reserveBytes: reserve,
          }),
        ),
      ),
    ]
    const ends = await Promise.allSettled(starting)
    const failure = ends.find((end) => end.status === 'rejected')
    if (failure !== undefined) throw failure.reason
    return { address: registry.address, announcement: announcementOf(values, disks.length, registry.address), close }
  } catch (error) {
    await close()
    throw error
  }
}

function announcementOf(values: Values, disks: number, address: string): string {
  const page = `${values.tlsCert === undefined ? 'http' : 'https'}://${address}/`
  const given = address === '127.0.0.1:8600' ? '' : ` --registry ${address}`
  const security = values.secretFile === undefined ? '' : ` --secret-file ${values.secretFile}`
  return [
    `The cluster in ${values.data} is ready. Its registry is ${address}, its page ${page}`,
    ...(disks > values.disks ? [`It has ${disks} disks already, and all of them are served.`] : []),
    `Try: eider fs ls /${given}${security}`,
  ].join('\n')
}

/** One part as a process of its own. */
class Part {
  #words: readonly string[]
  readonly #signal: AbortSignal
  #child: ChildProcess | undefined
  #isEnding = false
  #ended: Promise<void> = Promise.resolve()
  #pauseMs = PAUSE_MS

  constructor(words: readonly string[], signal: AbortSignal) {
    this.#words = words
    this.#signal = signal
  }

  /** Resolves when it is ready, with where it is. @throws ChildFailure */
  async start(): Promise<string> {
    const begunAt = performance.now()
    const { child, facts } = await startReady(this.#words, {
      errors: STDERR,
      environment: ENVIRONMENT,
      signal: this.#signal,
    })
    this.#child = child
    this.#ended = new Promise((resolve) => {
      child.once('exit', (code, by) => {
        resolve()
        if (this.#isEnding || this.#signal.aborted) return
        if (performance.now() - begunAt > SOUND_MS) this.#pauseMs = PAUSE_MS
        log.error({ part: this.#words[0], code, signal: by }, 'A part of the cluster has ended, and is started again')
        this.#restartLater()
      })
    })
    const { address } = facts
    if (address === undefined) throw new OperationError('LOCAL_FAILED', `Cannot tell where "${this.#words[0]}" is`)
    return address
  }

  /** From the next start on. */
  startAs(words: readonly string[]): void {
    this.#words = words
  }

  async end(): Promise<void> {
    this.#isEnding = true
    this.#child?.kill('SIGTERM')
    await this.#ended
  }

  #restartLater(): void {
    setTimeout(() => {
      if (this.#isEnding || this.#signal.aborted) return
      this.start().catch((error: unknown) => {
        log.error({ err: error, part: this.#words[0] }, 'A part of the cluster cannot be started')
        this.#restartLater()
      })
    }, this.#pauseMs)
    this.#pauseMs = Math.min(PAUSE_MS_MAX, this.#pauseMs * 2)
  }
}

async function startProcesses(values: Values, signal: AbortSignal): Promise<RunningDaemon> {
  const { data, listen, advertise, reserve, clusterId } = values
  const disks = disksOf(values)
  const parts: Part[] = []
  const close = async (): Promise<void> => {
    const [first, ...others] = parts.splice(0)
    await Promise.all(others.map((part) => part.end()))
    await first?.end()
  }
  const security = securityWords(values)
  const start = (...words: readonly string[]): Promise<string> => {
    const part = new Part([...words, ...security], signal)
    parts.push(part)
    return part.start()
  }
  try {
    const registryWords = ['registry', '--data', join(data, 'registry'), ...security, '--listen']
    const chosen = clusterId === undefined ? [] : ['--cluster-id', clusterId]
    const registry = new Part([...registryWords, formatHostPort(listen), ...chosen], signal)
    parts.push(registry)
    const address = await registry.start()
    // The parts go on asking there, also where the port was any that is free.
    registry.startAs([...registryWords, address])
    const host = advertise ?? advertisedHost(listen)
    const common = [
      ...['--registry', address, '--listen', formatHostPort({ host: listen.host, port: 0 })],
      ...(host === undefined ? [] : ['--advertise', host]),
    ]
    const starting = [
      start('shard', '--data', join(data, 'shards'), '--reserve', String(metadataReserve(values)), ...common),
      start('coordinator', '--data', join(data, 'coordinator'), ...common),
      ...disks.map(({ path, number }) =>
        start(
          ...['block-service', path, '--domain', `disk-${number}`, '--reserve', String(reserve)],
          ...['--data', join(data, `block-service-${number}`), ...common],
        ),
      ),
    ]
    const ends = await Promise.allSettled(starting)
    const failure = ends.find((end) => end.status === 'rejected')
    if (failure !== undefined) throw failure.reason
    return { address, announcement: announcementOf(values, disks.length, address), close }
  } catch (error) {
    await close()
    throw error
  }
}

function securityWords({ secretFile, tlsKey, tlsCert, tlsCa }: Values): string[] {
  const words = { '--secret-file': secretFile, '--tls-key': tlsKey, '--tls-cert': tlsCert, '--tls-ca': tlsCa }
  return Object.entries(words).flatMap(([flag, value]) => (value === undefined ? [] : [flag, value]))
}
