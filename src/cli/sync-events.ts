/**
 * What a sync tells to programs (`--json`): one JSON object a line, each with `event` and `time`. Counts are those of
 * `SyncSnapshot` by the same names. Who reads it no more does not stop the sync; the log says so.
 */
import type { Writable } from 'node:stream'
import { isOperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import type { SyncFailure, SyncSnapshot } from '#sync/snapshot.ts'
import type { Skipped } from '#sync/tree.ts'
import { RateMeter } from './sync-rates.ts'

const log = logger('cli/sync')

const PROGRESS_MS = 1000

export interface SyncStarted {
  readonly sources: readonly string[]
  readonly target: string
  /** Where the sync keeps what it knows. */
  readonly state: string
  readonly pid: number
}

export interface SyncEvents {
  started(facts: SyncStarted): void
  /** As often as one likes: written at most once a second, and at a change of phase. */
  progress(snapshot: SyncSnapshot): void
  failed(failure: SyncFailure): void
  /** The sync ends for this. */
  error(error: unknown): void
  skipped(skipped: Skipped): void
  done(snapshot: SyncSnapshot, elapsedMs: number): void
}

/** Events on that stream, such as `process.stdout`. */
export function syncEvents(stream: Writable): SyncEvents {
  const meter = new RateMeter()
  let isBroken = false
  let progressAtMs = Number.NEGATIVE_INFINITY
  let phase: SyncSnapshot['phase'] | undefined
  let last: SyncSnapshot | undefined
  let later: NodeJS.Timeout | undefined
  stream.on('error', (error) => {
    if (!isBroken) log.warn({ err: error }, 'nobody reads the events any more; the sync goes on')
    isBroken = true
  })
  const write = (event: string, facts: object): void => {
    if (!isBroken) stream.write(`${JSON.stringify({ event, time: new Date().toISOString(), ...facts })}\n`)
  }
  const progress = (snapshot: SyncSnapshot): void => {
    last = snapshot
    const nowMs = performance.now()
    const wait = progressAtMs + PROGRESS_MS - nowMs
    // What is told last is written, too, though nothing may follow it for hours; where the reader is slow, once it has read.
    if (snapshot.phase === phase && (wait > 0 || stream.writableNeedDrain)) {
      later ??= setTimeout(tellLast, Math.max(wait, PROGRESS_MS / 10)).unref()
      return
    }
    clearTimeout(later)
    later = undefined
    const rates = meter.rates(snapshot, nowMs)
    progressAtMs = nowMs
    phase = snapshot.phase
    // Failures have events of their own.
    write('progress', { ...snapshot, failures: undefined, ...rates })
  }
  const tellLast = (): void => {
    later = undefined
    if (last !== undefined && !isBroken) progress(last)
  }
  return {
    started: (facts) => write('started', facts),
    progress,
    failed: (failure) => write('failed', failure),
    error: (error) => {
      clearTimeout(later)
      if (!isOperationError(error)) return
      const { code, message, hint } = error
      write('error', { code, message, hint })
    },
    skipped: ({ path, reason, detail }) => write('skipped', { path, reason, detail }),
    done: (snapshot, elapsedMs) => {
      clearTimeout(later)
      write('done', { ...snapshot, failures: undefined, phase: undefined, elapsedMs: Math.round(elapsedMs) })
    },
  }
}
