/** One run of a verb of `eider fs`: the cluster connected, the output, and what is told once however often it happens. */
import { setTimeout as sleep } from 'node:timers/promises'

import { isOperationError, OperationError } from '#base/errors.ts'
import { setLogLevel } from '#base/log.ts'
import { ClusterClient } from '#cluster/client/cluster-client.ts'
import { ClusterFiles } from '#cluster/client/cluster-files.ts'
import type { SpanForm } from '#cluster/client/redundancy-choice.ts'
import { systemSurroundings } from '#cluster/system-surroundings.ts'
import type { NewAttributes } from '#cluster/client/cluster-client.ts'

import { clusterSecurity } from '#cli/cluster-options.ts'
import { EXIT, type ExitCode } from '#cli/command.ts'
import { failureOf } from '#cli/failure.ts'
import type { FsValues } from './options.ts'
import { FsOutput, OutputClosed } from './output.ts'
import { parseTime, shownTime } from './time.ts'
import { COMMON_OPTIONS, formatHostPort } from '#cli/options.ts'
import { stopped, stopSignal } from '#cli/stop-signal.ts'

const CLEANING_UP_MS = 1000
/** A shard's clock may be ahead of that of this machine by so much: times that it gave are not still to come. */
const CLOCK_US = 60e6
/** Where none is asked for. */
const FS_LOG_LEVEL = COMMON_OPTIONS.logLevel.default

export interface FsSession {
  readonly client: ClusterClient
  readonly files: ClusterFiles
  readonly out: FsOutput
  readonly isJson: boolean
  /** Fires when the user ends it. */
  readonly signal: AbortSignal
  /** On standard error, once for each text. */
  warn(text: string): void
}

/** Connects, works, and ends in order. @throws CLUSTER_UNREACHABLE, WIRE_REFUSED, and what the work throws */
export async function inSession<T>(
  values: FsValues,
  work: (session: FsSession) => Promise<T>,
): Promise<T | typeof EXIT.failed> {
  const signal = stopSignal()
  // What the client logs at other levels is told as a warning or as the failure; who asks for a level gets it.
  if (values.logLevel === FS_LOG_LEVEL) setLogLevel('error')
  const client = await connect(values)
  const warned = new Set<string>()
  const session: FsSession = {
    client,
    files: new ClusterFiles(client),
    out: new FsOutput(),
    isJson: values.json,
    signal,
    warn(text) {
      if (!warned.has(text)) process.stderr.write(`warning: ${text}\n`)
      warned.add(text)
    },
  }
  try {
    const result = await Promise.race([work(session), givenUp(signal)])
    await session.out.flush()
    return result
  } catch (error) {
    if (error instanceof OutputClosed) return EXIT.failed
    await session.out.flush()
    // What was given up for it says nothing that its user does not know.
    if (isOperationError(error, 'ABORTED') && signal.aborted) throw interrupted(signal, error)
    throw error
  } finally {
    client.close()
  }
}

/** Rejects some time after the user ends it: what writes files cleans up meanwhile, all else just stops. */
async function givenUp(signal: AbortSignal): Promise<never> {
  await stopped(signal)
  await sleep(CLEANING_UP_MS)
  throw interrupted(signal)
}

function interrupted(signal: AbortSignal, cause?: Error): OperationError {
  const hint = 'What was done before stays, and no file is half written.'
  return new OperationError('ABORTED', `Cannot finish: ${String(signal.reason)}`, { cause, hint })
}

async function connect(values: FsValues): Promise<ClusterClient> {
  const registry = formatHostPort(values.registry)
  const surroundings = systemSurroundings(await clusterSecurity(values))
  try {
    return await ClusterClient.connect({ surroundings, registry, location: values.location, contactMs: values.timeout })
  } catch (error) {
    if (!isOperationError(error, 'CLUSTER_UNREACHABLE', 'WIRE_REFUSED', 'WIRE_VERSION')) throw error
    const options = { cause: error, hint: error.hint }
    if (error.code === 'CLUSTER_UNREACHABLE') {
      options.hint = 'Start it with "eider registry", or say with --registry HOST:PORT where it is.'
    }
    throw new OperationError(error.code, `Cannot reach the registry at ${registry}: ${detailOf(error)}`, options)
  }
}

/** What is at the bottom of it, without the actions that failed for it. */
function detailOf(error: Error): string {
  if (error.cause instanceof Error) return detailOf(error.cause)
  return /^Cannot [^:]*(?::\d+[^:]*)?: (.*)$/.exec(error.message)?.[1] ?? error.message
}

/** Says aloud what is less safe than it should be. */
export function warnOfSpan(session: FsSession, { isSingleCopy, isDegraded, data, parity }: SpanForm): void {
  if (isSingleCopy) {
    session.warn(
      'only one copy is kept of what is written, as there is only one failure domain with room: its loss loses it',
    )
  } else if (isDegraded) {
    const copies = data === 1 ? `${parity + 1} copies` : `${data}+${parity} blocks`
    session.warn(
      `too few failure domains take blocks: what is written is kept as ${copies} for now, fewer than the policy says`,
    )
  }
}

/** The time that is looked back to; says aloud where that is none to look back to. @throws USAGE */
export function pastTime(session: Pick<FsSession, 'warn'>, text: string): number
export function pastTime(session: Pick<FsSession, 'warn'>, text: string | undefined): number | undefined
export function pastTime(session: Pick<FsSession, 'warn'>, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const time = parseTime(text)
  if (time > Date.now() * 1000 + CLOCK_US) {
    session.warn(`${shownTime(time)} is still to come: what there is now is taken for what there will be then`)
  }
  return time
}

/** What new files and directories of this user have. */
export function ownAttributes(permissions: number): NewAttributes {
  const mode = permissions & ~process.umask()
  return { mode, uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0, mtime: undefined, atime: undefined }
}

/** Does it for each; tells failures as they happen, and goes on. */
export async function forEach(items: readonly string[], work: (item: string) => Promise<void>): Promise<ExitCode> {
  if (items.length === 1) {
    await work(items[0] ?? '')
    return EXIT.done
  }
  let failed = 0
  for (const item of items) {
    try {
      await work(item)
    } catch (error) {
      if (!isOperationError(error) || error.code === 'ABORTED') throw error
      failed++
      tellFailure(error)
    }
  }
  return exitOf(failed, items.length)
}

/** On standard error, as the failure of one of many. */
export function tellFailure(error: unknown): void {
  const { message, hint } = failureOf(error)
  process.stderr.write(`eider: ${message}\n${hint === '' ? '' : `  hint: ${hint}\n`}`)
}

export function exitOf(failed: number, all: number): ExitCode {
  if (failed === 0) return EXIT.done
  return failed === all ? EXIT.failed : EXIT.partly
}
