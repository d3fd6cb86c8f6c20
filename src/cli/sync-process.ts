/** The process of `eider sync`: opens both ends, runs the sync until it is over or is told to stop, and tells how it went. */
import { logger, logToFile, logToStderr } from '#base/log.ts'
import { LocalFollower } from '#sync/local-follower.ts'
import { openSync } from '#sync/open-sync.ts'
import type { Prefixes } from '#sync/prefixes.ts'
import { isMissed } from '#sync/tally.ts'
import type { SyncSnapshot } from '#sync/snapshot.ts'
import type { Sync, SyncObserver } from '#sync/sync.ts'
import { EXIT, type ExitCode } from './command.ts'
import { listenError } from './listen-error.ts'
import { stepLogLevelOnSignal } from './log-level-signal.ts'
import { stopSignal } from './stop-signal.ts'
import type { SyncValues } from './sync-ends.ts'
import { type SyncEvents, syncEvents } from './sync-events.ts'
import { keepSyncRecord, type KeptRecord } from './sync-records.ts'
import { type Opened, withSync } from './sync-opened.ts'
import { showPlan } from './sync-plan.ts'
import { summaryLines, SyncScreen } from './sync-screen.ts'
import { settingsOf } from './sync-settings.ts'

const log = logger('cli/sync')

/** Runs the sync that these words mean. @throws OperationError for what keeps it from beginning, or from going on */
export async function runSync(
  paths: readonly string[],
  values: SyncValues,
  extra: Readonly<Record<string, unknown>>,
): Promise<ExitCode> {
  const signal = stopSignal()
  stepLogLevelOnSignal()
  if (values.log === undefined) logToStderr()
  else logToFile(values.log)
  if (values.dryRun) {
    return withSync(paths, values, extra, signal, (opened) => showPlan(opened, paths, values, extra, signal))
  }
  const events = values.json ? syncEvents(process.stdout) : undefined
  try {
    return await withSync(paths, values, extra, signal, (opened) => runOpened(opened, values, events, signal))
  } catch (error) {
    events?.error(error)
    throw error
  }
}

async function runOpened(
  { end, actor, state }: Opened,
  values: SyncValues,
  events: SyncEvents | undefined,
  signal: AbortSignal,
): Promise<ExitCode> {
  const { source, roots, prefixes } = end
  const settings = settingsOf(values, prefixes, state.directory, signal)
  const startedAt = performance.now()
  const shows: Shows = { events, screen: undefined, record: undefined }
  const follower = settings.once || roots.length === 0 ? undefined : new LocalFollower(roots, source)
  const ends = { source, roots, actor, state, follower }
  const sync = await openSync(ends, settings, observerOf(shows))
  const facts = { sources: source.names, target: actor.url, state: state.directory }
  events?.started({ ...facts, pid: process.pid })
  if (events === undefined && process.stderr.isTTY) shows.screen = new SyncScreen(process.stderr, () => sync.snapshot)
  shows.record = keepSyncRecord(
    { ...facts, sources: [...facts.sources], ...(values.log === undefined ? {} : { log: values.log }) },
    sync.snapshot,
  )
  const listener = values.port === undefined ? undefined : await listen(values.port, sync, prefixes)
  try {
    await sync.run()
  } finally {
    await listener?.close()
    shows.screen?.end()
    await shows.record.end()
  }
  const isStopped = settings.once && !sync.isFinished
  if (isStopped) process.stderr.write('eider: stopped before the target was equal; run it again to go on\n')
  const elapsedMs = performance.now() - startedAt
  events?.done(sync.snapshot, elapsedMs)
  if (!values.json) process.stdout.write(`${summaryLines(sync.snapshot, elapsedMs).join('\n')}\n`)
  return isStopped ? EXIT.partly : exitCodeOf(sync)
}

interface Shows {
  readonly events: SyncEvents | undefined
  screen: SyncScreen | undefined
  record: KeptRecord | undefined
}

function observerOf(shows: Shows): SyncObserver {
  return {
    onSnapshot: (snapshot: SyncSnapshot) => {
      shows.events?.progress(snapshot)
      shows.record?.tell(snapshot)
    },
    onSkipped: (skipped) => {
      if (shows.events !== undefined) shows.events.skipped(skipped)
      else log[isMissed(skipped.reason) ? 'warn' : 'debug'](skipped, 'left out')
    },
    onFailed: (failure) => {
      if (shows.events !== undefined) shows.events.failed(failure)
      else log.warn(failure, 'could not be made equal')
    },
  }
}

async function listen(
  port: number,
  sync: Sync,
  prefixes: Prefixes | undefined,
): Promise<{ readonly close: () => Promise<void> }> {
  const queue = async (absolute: string): Promise<boolean> => {
    const path = prefixes?.targetOf(absolute)
    if (path === undefined) return false
    await sync.askDurably(path)
    return true
  }
  // Few syncs listen, and to load what they need for it takes a good part of a short run.
  const { startListener } = await import('#sync/listener.ts')
  try {
    const listener = await startListener({ port, queue })
    log.info({ port: listener.port }, 'POST of an absolute path queues it')
    return listener
  } catch (error) {
    const address = { host: '127.0.0.1', port }
    throw listenError(`listen at 127.0.0.1:${port}`, address, error, '--port')
  }
}

/** Not everything is there where something failed, was left out for a cause, or was kept from being deleted. */
function exitCodeOf({ tally }: Sync): ExitCode {
  const isWhole = tally.failures.length === 0 && tally.missed === 0 && tally.keptBack === 0
  return isWhole ? EXIT.done : EXIT.partly
}
