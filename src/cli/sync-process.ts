/** The process of `eider sync`: opens both ends, runs the sync until it is over or is told to stop, and tells how it went. */
import { join } from 'node:path'
import { logger, logToFile, logToStderr } from '#base/log.ts'
import { startListener } from '#sync/listener.ts'
import { LocalFollower } from '#sync/local-follower.ts'
import { openSync, type SyncSettings } from '#sync/open-sync.ts'
import type { Prefixes } from '#sync/prefixes.ts'
import type { SyncSnapshot } from '#sync/snapshot.ts'
import { SyncState } from '#sync/state.ts'
import type { Sync, SyncObserver } from '#sync/sync.ts'
import { EXIT, type ExitCode } from './command.ts'
import { holdLock } from './held-lock.ts'
import { listenError } from './listen-error.ts'
import { stepLogLevelOnSignal } from './log-level-signal.ts'
import { stopSignal } from './stop-signal.ts'
import {
  checkApart,
  linksOf,
  openSource,
  openTarget,
  type SourceEnd,
  stateDirectoryOf,
  type SyncValues,
} from './sync-ends.ts'
import { type SyncEvents, syncEvents } from './sync-events.ts'
import { keepSyncRecord, type KeptRecord } from './sync-records.ts'
import { summaryLines, SyncScreen } from './sync-screen.ts'

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
  const end = await openSource(paths, values, signal)
  try {
    checkApart(end.roots, values)
    const actor = await openTarget(values, extra, signal)
    try {
      const directory = stateDirectoryOf(values, end.source, actor)
      const free = holdLock(
        join(directory, '.lock'),
        `sync to ${actor.url}`,
        'another sync of these paths to that target is running',
        'Wait for it or end it; for a second one of other paths, --state names another directory.',
      )
      const state = await SyncState.open(directory)
      try {
        return await runOpened({ end, actor, state }, values, signal)
      } finally {
        await state.close()
        free()
      }
    } finally {
      await actor.close?.()
    }
  } finally {
    await end.source.close()
  }
}

interface Opened {
  readonly end: SourceEnd
  readonly actor: Awaited<ReturnType<typeof openTarget>>
  readonly state: SyncState
}

async function runOpened({ end, actor, state }: Opened, values: SyncValues, signal: AbortSignal): Promise<ExitCode> {
  const { source, roots, prefixes } = end
  const settings = settingsOf(values, prefixes, state.directory, signal)
  const startedAt = performance.now()
  const shows: Shows = { events: undefined, screen: undefined, record: undefined }
  const follower = settings.once || roots.length === 0 ? undefined : new LocalFollower(roots, source)
  const ends = { source, roots, actor, state, follower }
  const sync = await openSync(ends, settings, observerOf(shows))
  const facts = { sources: source.names, target: actor.url, state: state.directory }
  if (values.json) {
    shows.events = syncEvents(process.stdout)
    shows.events.started({ ...facts, pid: process.pid })
  } else if (process.stderr.isTTY) shows.screen = new SyncScreen(process.stderr, () => sync.snapshot)
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
    shows.record.end()
  }
  const elapsedMs = performance.now() - startedAt
  shows.events?.done(sync.snapshot, elapsedMs)
  if (!values.json) process.stdout.write(`${summaryLines(sync.snapshot, elapsedMs).join('\n')}\n`)
  return exitCodeOf(sync)
}

interface Shows {
  events: SyncEvents | undefined
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
      else log.info(skipped, 'left out')
    },
    onFailed: (failure) => {
      if (shows.events !== undefined) shows.events.failed(failure)
      else log.warn(failure, 'could not be made equal')
    },
  }
}

function settingsOf(
  values: SyncValues,
  prefixes: Prefixes | undefined,
  directory: string,
  signal: AbortSignal,
): SyncSettings {
  const { once, threads, metadata, checksum, verify, bandwidth, interval } = values
  return {
    ...{ once, threads, metadata, checksum, verify, signal },
    links: linksOf(values),
    deletes: values.delete,
    deleteRules: { isMeant: values.yesDelete, countMax: values.deleteMax, percentMax: values.deletePercent },
    backupDirectory: values.backupDir?.replace(/^\/+|\/+$/g, ''),
    bytesPerSecond: bandwidth,
    compareEveryMs: interval,
    scratch: join(directory, 'scratch'),
    keyOf: (path) => {
      const absolute = prefixes?.sourceOf(path)
      return absolute === undefined ? path : (prefixes?.keyOf(absolute) ?? path)
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
  const isWhole = tally.failures.length === 0 && tally.skippedForCause === 0 && tally.keptBack === 0
  return isWhole ? EXIT.done : EXIT.partly
}
