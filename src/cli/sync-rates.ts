/** How fast a sync goes, smoothed over some seconds, and how long it will yet take. Pure but for the samples that are kept. */
import type { SyncSnapshot } from '#sync/snapshot.ts'

/** Long enough that one file after another does not make the figure jump, short enough that it tells of now. */
const WINDOW_MS = 5000
/** Samples that are closer than that tell nothing more. */
const STEP_MS = 250
/** Below that a rate is chance. */
const SPAN_MS_MIN = 500

export interface Rates {
  readonly bytesPerSecond: number
  /** Operations of any kind. */
  readonly filesPerSecond: number
  /** Until all that is known is done; undefined where that cannot be told, as more may be found or nothing moves. */
  readonly secondsLeft?: number
}

interface Sample {
  readonly atMs: number
  readonly files: number
  readonly bytes: number
}

export class RateMeter {
  /** In order of time; from just before the window on. */
  #samples: Sample[] = []

  /** Takes a look at `nowMs`, of a clock that does not go back. */
  rates(snapshot: SyncSnapshot, nowMs: number): Rates {
    const now: Sample = { atMs: nowMs, files: doneCount(snapshot), bytes: snapshot.sentBytes }
    while ((this.#samples[1]?.atMs ?? nowMs) <= nowMs - WINDOW_MS) this.#samples.shift()
    const [first = now] = this.#samples
    const last = this.#samples.at(-1)
    if (last === undefined || nowMs - last.atMs >= STEP_MS) this.#samples.push(now)
    const spanMs = nowMs - first.atMs
    if (spanMs < SPAN_MS_MIN) return { bytesPerSecond: 0, filesPerSecond: 0 }
    // What is tried again may be taken back from the bytes that were sent.
    const bytesPerSecond = (Math.max(0, now.bytes - first.bytes) * 1000) / spanMs
    const filesPerSecond = (Math.max(0, now.files - first.files) * 1000) / spanMs
    const secondsLeft = timeLeft(snapshot, bytesPerSecond, filesPerSecond)
    return { bytesPerSecond, filesPerSecond, ...(secondsLeft === undefined ? {} : { secondsLeft }) }
  }
}

/** Operations that are done with, the failed ones among them. */
export function doneCount(snapshot: SyncSnapshot): number {
  const { sent, renamed, removed, madeDirectories, attributesSet, failed } = snapshot
  return sent + renamed + removed + madeDirectories + attributesSet + failed
}

/** The larger of what the bytes need and what the files need: small files are bound by their number, large ones by their bytes. */
function timeLeft(snapshot: SyncSnapshot, bytesPerSecond: number, filesPerSecond: number): number | undefined {
  const { phase, queued, inFlight, queuedBytes } = snapshot
  if (phase !== 'sending' && phase !== 'stopping') return undefined
  const files = queued + inFlight
  if (files === 0) return 0
  const forBytes = queuedBytes === 0 ? 0 : queuedBytes / bytesPerSecond
  // One large file that is under way for long says nothing of the rate of files.
  const forFiles = queued === 0 ? 0 : files / filesPerSecond
  const seconds = Math.max(forBytes, forFiles)
  return Number.isFinite(seconds) ? seconds : undefined
}
