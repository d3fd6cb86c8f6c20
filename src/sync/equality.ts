/**
 * Whether a source and its target are the same, as far as can be told without reading either: by size, by the time of last
 * modification to the precision that the target keeps, by what was remembered of an earlier sync, or by hashes where asked. Pure.
 * Attributes other than the time are not compared.
 *
 * What was remembered is the strongest: Linux sets `ctime` at every change, and no program can set it otherwise, so a file
 * whose inode, size and times are the remembered ones has the bytes that were sent, and a target that still has the version that
 * was stored then has them too. One thing breaks that, and times in general: a clock ticks every few milliseconds, and a
 * file that is written twice in a tick, before the look and after it, has the same times both times. So a file that was
 * changed no more than a tick before it was looked at is never called the same by its times alone ("racily clean", as in git).
 * Versions, S3's etags among them, name what was stored and are compared with nothing but versions; they are no hashes.
 */
import { compareTimestamps, type Timestamp } from '#base/time.ts'
import type { Version } from '#store/store.ts'

import type { LocalIdentity, TreeEntry } from './tree.ts'

/** `unsure`: only the bytes, or more of the target's attributes than its listing tells, can decide. */
export type Sameness = 'same' | 'different' | 'unsure'

/** The slowest clock that Linux stamps files by: 100 ticks a second. */
export const TICK_NS = 10_000_000

/** A hash of the bytes by its algorithm, as "sha256" and hexadecimal digits. Only those of one algorithm can be compared. */
export interface ContentHash {
  readonly algorithm: string
  readonly digest: string
}

/** What is kept of a source that was sent. */
export interface Remembered {
  readonly size: number
  readonly mtime: Timestamp
  /** Of a local source. */
  readonly identity?: LocalIdentity | undefined
  /** Of a source in a store. */
  readonly sourceVersion?: Version | undefined
  /** When it was looked at: before it was read, and no later than that. */
  readonly lookedAt: Timestamp
  /** What the target answered that it stored. */
  readonly targetVersion?: Version | undefined
}

export interface SamenessRules {
  /** What the target keeps of a modification time: 1 for nanoseconds, 1e9 for whole seconds, 2e9 on FAT. */
  readonly targetPrecisionNs: number
  /**
   * How far apart two changes of a source may be and have one time; `TICK_NS` unless its file system is coarser. Where another
   * machine's clock stamps them, as on NFS, also how far that may be behind this one's.
   */
  readonly sourceGranularityNs: number
  /** Bytes decide, times never do. */
  readonly byHash: boolean
}

/** What is known of the two besides their entries. */
export interface Known {
  /** No later than the look at the source: the start of its scan will do. */
  readonly lookedAt: Timestamp
  readonly remembered?: Remembered | undefined
  /** Of the bytes that each has now. */
  readonly sourceHash?: ContentHash | undefined
  readonly targetHash?: ContentHash | undefined
}

/** Whether the target has what the source has: their paths, which may differ by prefixes, are not looked at. */
export function samenessOf(source: TreeEntry, target: TreeEntry, known: Known, rules: SamenessRules): Sameness {
  if (!mayBeOneKind(source, target)) return 'different'
  if (source.kind === 'directory') return 'same'
  if (source.size !== target.size) return 'different'
  if (known.sourceHash !== undefined && known.sourceHash.algorithm === known.targetHash?.algorithm) {
    return known.sourceHash.digest === known.targetHash.digest ? 'same' : 'different'
  }
  if (rules.byHash) return 'unsure'
  return byMemory(source, target, known, rules) ?? byTimes(source, target, known, rules)
}

/** Undefined where what is remembered, if anything is, does not speak of these two. */
function byMemory(source: TreeEntry, target: TreeEntry, known: Known, rules: SamenessRules): Sameness | undefined {
  const { remembered } = known
  if (remembered === undefined) return undefined
  const isSameTarget = remembered.targetVersion !== undefined && target.version === remembered.targetVersion
  if (source.version !== undefined && remembered.sourceVersion !== undefined) {
    const isSameSource = source.version === remembered.sourceVersion
    return isSameTarget ? (isSameSource ? 'same' : 'different') : undefined
  }
  if (source.mtime === undefined || source.identity === undefined || remembered.identity === undefined) return undefined
  const isSameTime = source.size === remembered.size && compareTimestamps(source.mtime, remembered.mtime) === 0
  // The target has the time that was sent with that version, whether its listing tells it or not.
  if (!isSameTime) return isSameTarget ? 'different' : undefined
  if (!isSameInode(source.identity, remembered.identity)) return 'unsure'
  if (isRacy(remembered.identity.ctime, remembered.lookedAt, rules.sourceGranularityNs)) return 'unsure'
  if (remembered.targetVersion === undefined || target.version === undefined) return undefined
  // Where somebody else wrote the target, or only its attributes, its own time and size tell.
  return isSameTarget ? 'same' : undefined
}

function byTimes(source: TreeEntry, target: TreeEntry, known: Known, rules: SamenessRules): Sameness {
  if (source.mtime === undefined || target.mtime === undefined) return 'unsure'
  if (!isSameToPrecision(source.mtime, target.mtime, rules.targetPrecisionNs)) return 'different'
  // The kernel's own stamp where there is one: a modification time can be set, and one set into the future says nothing.
  const changed = source.identity?.ctime ?? source.mtime
  return isRacy(changed, known.lookedAt, rules.sourceGranularityNs) ? 'unsure' : 'same'
}

/** A listing that does not tell attributes may call a symlink a file. */
function mayBeOneKind(source: TreeEntry, target: TreeEntry): boolean {
  if (source.kind === target.kind) return true
  const kinds = new Set([source.kind, target.kind])
  const isVague = [source, target].some((entry) => entry.kind === 'file' && entry.attributes === undefined)
  return isVague && !kinds.has('directory')
}

/**
 * Whether both are one inode that was not changed in between. Devices are not compared: what is one disk may have another number
 * after each start of the machine.
 */
export function isSameInode(a: LocalIdentity | undefined, b: LocalIdentity | undefined): boolean {
  if (a === undefined || b === undefined) return false
  return a.inode === b.inode && compareTimestamps(a.ctime, b.ctime) === 0
}

/** Whether a file last changed at `changed` may have been changed again, with that same time, after a look at `lookedAt`. */
export function isRacy(changed: Timestamp, lookedAt: Timestamp, granularityNs: number): boolean {
  const seconds = lookedAt.seconds - changed.seconds
  // A file system whose times are whole seconds, or FAT's two.
  const granularity = changed.nanoseconds === 0 ? Math.max(granularityNs, 2e9) : granularityNs
  return seconds * 1e9 + (lookedAt.nanoseconds - changed.nanoseconds) <= granularity
}

/** Whether the two are one time, once what lies below the precision is cut off, as stores and file systems do. */
export function isSameToPrecision(a: Timestamp, b: Timestamp, precisionNs: number): boolean {
  if (precisionNs < 1e9) {
    return (
      a.seconds === b.seconds && Math.floor(a.nanoseconds / precisionNs) === Math.floor(b.nanoseconds / precisionNs)
    )
  }
  const precision = precisionNs / 1e9
  return Math.floor(a.seconds / precision) === Math.floor(b.seconds / precision)
}
