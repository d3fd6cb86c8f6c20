/**
 * What the parts of a sync say to each other about trees: entries of a side, and the order in which both sides list them.
 * Plain data. Paths are relative to the root of their side, and in order of sort keys (`#store/path.ts`): the order in which S3
 * lists, a directory sorted as its name plus `/`.
 */
import type { Timestamp } from '#base/time.ts'
import type { Attributes, Kind, Version } from '#store/store.ts'

/** What of a local file tells that it is the same one, unchanged: what `mtime` alone does not. */
export interface LocalIdentity {
  readonly device: number
  readonly inode: number
  readonly ctime: Timestamp
  /** Names that a file has, where it has several. */
  readonly links?: number
}

export interface TreeEntry {
  readonly path: string
  readonly kind: Kind
  /** Bytes of a file; of a symlink's target; 0 for a directory. */
  readonly size: number
  /** Undefined where the side does not tell. */
  readonly mtime: Timestamp | undefined
  /** Of a local side. */
  readonly identity?: LocalIdentity
  /** Of a store. */
  readonly version?: Version
  /** Undefined where a listing does not tell them. */
  readonly attributes?: Attributes | undefined
}

/** What could not be listed or sent, and why: counted, named, and no reason to delete anything. */
export interface Skipped {
  /** As it can be shown: bytes that are no UTF-8 are escaped. */
  readonly path: string
  readonly reason:
    | 'not-utf8'
    | 'special'
    | 'unreadable'
    | 'symlink'
    | 'vanished'
    | 'too-long'
    | 'other-file-system'
    /** A store has something that no path can name, as an object `a//b`, or whose name is that of something else. */
    | 'invalid-name'
  readonly detail: string
}

/**
 * One side's tree: pages of entries in order, each as soon as it is known. It ends by throwing where it breaks off; what it goes
 * past without listing it is told as `Skipped`, and no proof that nothing is there.
 */
export type Listing = AsyncIterable<readonly TreeEntry[]>
