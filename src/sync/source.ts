/**
 * The port of what is synced: a tree that can be listed, looked at path by path, and read. Paths are those of the target
 * (`prefixes.ts`). Two keep it: local paths (`local-source.ts`) and a store (`store-source.ts`).
 */
import type { Timestamp } from '#base/time.ts'
import { isWithin } from '#store/path.ts'
import type { Attributes, CallOptions } from '#store/store.ts'

import type { FileToSend } from './actor.ts'
import type { Listing, Skipped, TreeEntry } from './tree.ts'

/** What is at a path just now. */
export type Looked =
  | { readonly is: 'entry'; readonly entry: TreeEntry }
  /** Nothing is there, in a root that is proven to be the same one. */
  | { readonly is: 'absent' }
  /** The filter, or its kind, leaves it out: the target's is left as it is. */
  | { readonly is: 'left-out' }
  | { readonly is: 'skipped'; readonly skipped: Skipped }

/** A listing of one root or of what lies under one of its directories. Iterate it once. */
export interface SourceListing extends Listing {
  /** Whether `path`, which the listing has passed without naming it, is not there. To be asked before anything is deleted. */
  provesAbsence(path: string): boolean
}

export interface SourceListOptions extends CallOptions {
  readonly onSkipped?: (skipped: Skipped) => void
  readonly pathBytesMax?: number
}

/** A file that is open to be sent: all bytes are of what `entry` says. To be closed. */
export interface OpenSource {
  /** As it was when it was opened. */
  readonly entry: TreeEntry
  /** Every change of the bytes after this shows in the times of the entry, unless `isRacy` calls it too close. */
  readonly lookedAt: Timestamp
  /** Somebody has it open for writing: a write that is under way shows in no time of the file. */
  readonly isWritten: boolean
  readonly bytes: Pick<FileToSend, 'stream' | 'source'>
  /** The whole of a small file; undefined where it is too large to be held. @throws OperationError `FILE_STALE` */
  whole(bytesMax: number): Promise<Uint8Array | undefined>
  close(): void
}

export interface SyncSource {
  /** For messages, without secrets. */
  readonly names: readonly string[]
  /** What the target has of each root: where its content is. In order of sort keys; none lies within another. */
  readonly roots: readonly string[]
  /** To look at a path costs no request. */
  readonly isLocal: boolean
  /** How far apart two changes may be and have one time, in nanoseconds. */
  readonly granularityNs: number
  /** What is under `under`, a root or a directory in one. @throws OperationError where it cannot be listed */
  list(under: string, options: SourceListOptions): SourceListing
  /** Whether an entry of that path and kind would take part: what the filter leaves out is not deleted from the target. */
  admits(path: string, isDirectory: boolean): boolean
  /** Whether `admits` may say no of anything at all. */
  readonly isFiltered: boolean
  /** Other paths, of those that were listed or looked at, that are names of the same file (hard links). */
  otherNames(entry: TreeEntry): readonly string[]
  /** @throws OperationError `ROOT_CHANGED` where the root is another than at the start */
  look(path: string, options: CallOptions): Promise<Looked>
  /** @throws OperationError `FILE_STALE` where it is not the one that `entry` says, or `STORE_NOT_FOUND` where it is gone */
  open(entry: TreeEntry, options: CallOptions): Promise<OpenSource>
  /** Nothing lies in the directory, whether it takes part or not. */
  isEmpty(path: string, options: CallOptions): Promise<boolean>
  readLink(path: string, options: CallOptions): Promise<string>
  /** All that a directory or a symlink has to keep with `--metadata`. */
  attributesOf(path: string, options: CallOptions): Promise<Attributes>
  close(): Promise<void>
}

/** Whether the path lies within a root, or is a root that is a single file. */
export function takesPart({ roots }: Pick<SyncSource, 'roots'>, path: string): boolean {
  return roots.some((root) => isWithin(path, root))
}
