/**
 * Puts of ours that failed and may have taken effect all the same: what they have sent, so that it is known again when it is
 * found in the store. Of a file that is all here that is its size and digest. Of one that lies over bytes which only the
 * store had, it is the size, the digest of what was written, and the times with their nanoseconds: another machine's
 * edit of the same file has other ones.
 */
import { createHash } from 'node:crypto'

import { compareTimestamps, type Timestamp } from '#base/time.ts'
import type { Attributes, CallOptions, Reading, Store } from '#store/store.ts'

import type { Range } from './ranges.ts'
import type { SentState, StagedFile } from './staged-file.ts'

/** With the times, so many are more than chance gives. */
const RANGES_MAX = 16
const RANGE_BYTES_MAX = 1 << 20
/** So many failed puts of different bytes are remembered. */
const ATTEMPTS_MAX = 16

/** What a put has sent. */
export interface Attempt {
  readonly size: number
  /** SHA-256, in hexadecimal digits. */
  readonly digest: string
  /** Undefined where the digest is of the whole. */
  readonly part: { readonly ranges: readonly Range[]; readonly mtime: Timestamp; readonly ctime: Timestamp } | undefined
}

/**
 * Remembers a put, of a `snapshot` or of the staged file, to which nobody may write meanwhile; undefined where it could not
 * be known again.
 */
export async function attemptOf(
  staged: StagedFile,
  sent: SentState,
  { mtime, ctime }: Attributes,
  snapshot: Uint8Array | undefined,
): Promise<Attempt | undefined> {
  const { size } = sent
  if (snapshot !== undefined) {
    return { size, digest: createHash('sha256').update(snapshot).digest('hex'), part: undefined }
  }
  if (staged.isComplete) return { size, digest: await staged.digest(), part: undefined }
  if (mtime === undefined || ctime === undefined) return undefined
  const ranges = [...sent.dirty.within(0, size)].slice(0, RANGES_MAX).map(shortened)
  return { size, digest: await staged.digest(ranges), part: { ranges, mtime, ctime } }
}

/** One more attempt; the same bytes sent again, as in an outage, are one. */
export function withAttempt(attempts: readonly Attempt[], attempt: Attempt): readonly Attempt[] {
  const others = attempts.filter((other) => !isSame(other, attempt))
  return [...others.slice(1 - ATTEMPTS_MAX), attempt]
}

function isSame(a: Attempt, b: Attempt): boolean {
  if (a.size !== b.size || a.digest !== b.digest) return false
  if (a.part === undefined || b.part === undefined) return a.part === b.part
  return isAt(a.part.mtime, b.part.mtime) && isAt(a.part.ctime, b.part.ctime)
}

function shortened({ start, end }: Range): Range {
  return { start, end: Math.min(end, start + RANGE_BYTES_MAX) }
}

/** Whether what is being read is what one of the attempts has sent. Takes the reading's body, or cancels it. */
export async function isAttempt(
  store: Store,
  reading: Reading,
  attempts: readonly Attempt[],
  options: CallOptions,
): Promise<boolean> {
  const { entry } = reading
  const candidates = attempts.filter(({ size }) => size === entry.size)
  const whole = candidates.filter(({ part }) => part === undefined)
  if (whole.length === 0) reading.cancel()
  else {
    const hash = createHash('sha256')
    for await (const chunk of reading.body) hash.update(chunk)
    const digest = hash.digest('hex')
    if (whole.some((attempt) => attempt.digest === digest)) return true
  }
  for (const { part, digest } of candidates) {
    if (
      part === undefined ||
      !isAt(entry.attributes?.mtime, part.mtime) ||
      !isAt(entry.attributes?.ctime, part.ctime)
    ) {
      continue
    }
    const hash = createHash('sha256')
    for (const { start, end } of part.ranges) {
      const piece = await store.read(entry.path, {
        ...options,
        version: entry.version,
        offset: start,
        length: end - start,
      })
      hash.update(await piece.bytes())
    }
    if (hash.digest('hex') === digest) return true
  }
  return false
}

function isAt(found: Timestamp | undefined, sent: Timestamp): boolean {
  return found !== undefined && compareTimestamps(found, sent) === 0
}
