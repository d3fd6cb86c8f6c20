/**
 * What a sync tells to programs (`--json`): one JSON object a line, each with `event` and `time`. Counts are those of
 * `SyncSnapshot` by the same names. Who reads it no more does not stop the sync; the log says so.
 */
import type { Writable } from 'node:stream'
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
  skipped(skipped: Skipped): void
  done(snapshot: SyncSnapshot, elapsedMs: number): void
}

/** Events on that stream, such as `process.stdout`. */
export function syncEvents(stream: Writable): SyncEvents {
  const meter = new RateMeter()
  let isBroken = false
  let progressAtMs = Number.NEGATIVE_INFINITY
  let phase: SyncSnapshot['phase'] | undefined
  stream.on('error', (error) => {
    if (!isBroken) log.warn({ err: error }, 'nobody reads the events any more; the sync goes on')
    isBroken = true
  })
  const write = (event: string, facts: object): void => {
    if (!isBroken) stream.write(`${JSON.stringify({ event, time: new Date().toISOString(), ...facts })}\n`)
  }
  return {
    started: (facts) => write('started', facts),
    progress: (snapshot) => {
      const nowMs = performance.now()
      if (snapshot.phase === phase && nowMs - progressAtMs < PROGRESS_MS) return
      const rates = meter.rates(snapshot, nowMs)
      // Where the reader is slow, the next one tells it all.
      if (stream.writableNeedDrain && snapshot.phase === phase) return
      progressAtMs = nowMs
      phase = snapshot.phase
      // Failures have events of their own.
      write('progress', { ...snapshot, failures: undefined, ...rates })
    },
    failed: (failure) => write('failed', failure),
    skipped: ({ path, reason, detail }) => write('skipped', { path, reason, detail }),
    done: (snapshot, elapsedMs) =>
      write('done', { ...snapshot, failures: undefined, phase: undefined, elapsedMs: Math.round(elapsedMs) }),
  }
}
