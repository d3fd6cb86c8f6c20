/**
 * The Store port: where a tree of files can live. A store holds immutable versions of files under paths (see
 * `path.ts`); every consumer (mount, sync, tier, volumes, gateway) is written against this interface, and every
 * implementation passes `store-suite.ts`.
 *
 * Rules that hold for every store:
 * - A file is absent or complete. A put that fails, is aborted or is cut leaves the file as it was.
 * - Every mutation takes a guard; a guard that does not hold is `STORE_CONFLICT` and changes nothing. A store whose
 *   server cannot check guards checks them itself first and says so in `capabilities`; none ignores them.
 * - A call that failed with a retryable code may have taken effect (a time-out after success). The store itself
 *   resolves what it can: a put that finds its own bytes in place has succeeded.
 * - Directories above a path come into being as they are needed, as S3's do; a store may also hold them by themselves.
 * - Every call takes an `AbortSignal` and rejects with `ABORTED` soon after it fires.
 */
import type { OperationError } from '#base/errors.ts'
import type { Timestamp } from '#base/time.ts'

/** Names one immutable version of one file (S3: the etag, without quotes; others: opaque). */
export type Version = string & { readonly [versionBrand]: true }
declare const versionBrand: unique symbol

/** The version of a directory that exists only because something lies under it. */
export const IMPLICIT_VERSION = '' as Version

export type Kind = 'file' | 'directory' | 'symlink' | SpecialKind
/** What has a name and attributes but no bytes: its reader makes of it what the kernel makes of such inodes. */
export type SpecialKind = 'fifo' | 'socket'

/** Whether an entry of that kind has no bytes and is no directory. */
export function isSpecial(kind: Kind): kind is SpecialKind {
  return kind === 'fifo' || kind === 'socket'
}

/** POSIX facts about an entry. What a store was never told is absent, and its reader supplies a default. */
export interface Attributes {
  /** Permission bits with setuid, setgid and sticky: 0 to 0o7777; the type is the entry's `kind`. */
  readonly mode?: number
  readonly uid?: number
  readonly gid?: number
  readonly atime?: Timestamp
  readonly mtime?: Timestamp
  readonly ctime?: Timestamp
  /** Extended attributes by full name (`user.x`). In a change, the whole new set. */
  readonly xattrs?: ReadonlyMap<string, Uint8Array>
}

export interface Entry {
  /** Relative to the root of the store. */
  readonly path: string
  readonly kind: Kind
  /** Bytes of a file; of a symlink's target; 0 for a directory. */
  readonly size: number
  readonly version: Version
  /** When the store took this version, by the store's clock. */
  readonly modified: Timestamp
  /**
   * Undefined when a listing does not tell them: then `kind` may say `file` for what `stat` calls a symlink, and only
   * `stat` knows. Always defined in the answer of any other call.
   */
  readonly attributes: Attributes | undefined
}

/** What must hold for a mutation to happen: nothing, that the path is free, or that it holds just this version. */
export type Guard =
  | { readonly kind: 'any' }
  | { readonly kind: 'absent' }
  | { readonly kind: 'version'; readonly version: Version }
export const ANY: Guard = { kind: 'any' }
export const ABSENT: Guard = { kind: 'absent' }
/** The guard that holds while `version` is the current one. */
export function ifVersion(version: Version): Guard {
  return { kind: 'version', version }
}

/**
 * Bytes for a put. A file, and a chunk that a stream has given, must not change until the put has ended; a descriptor is
 * read by offset and not closed.
 */
export type Source =
  | Uint8Array
  | {
      readonly kind: 'file'
      readonly segments: readonly Segment[]
      /**
       * Called once every byte of local segments was read, before anything shows: where it throws, as it does for a file that
       * was changed meanwhile, nothing is stored and the put rejects with that. Not together with stored segments.
       */
      readonly check?: () => void
    }
  /** Where `size` is given and the stream has another length, nothing is stored and the put is `INPUT_INVALID`. */
  | {
      readonly kind: 'stream'
      readonly stream: AsyncIterable<Uint8Array>
      readonly size?: number
      /**
       * Told of each chunk that the store has no more use for, by stores that can tell; its memory can then be freed at
       * once, where else a gigabyte of chunks costs a third of a second of garbage collections.
       */
      readonly release?: (chunk: Uint8Array) => void
    }

/** A piece of a source: bytes of a local file, or bytes that the store has. */
export type Segment = FileSegment | StoredSegment

export interface FileSegment {
  readonly fd: number
  readonly offset: number
  readonly length: number
}

/**
 * Bytes of a stored version, which a store takes from there without moving them through here where it can. A put with one
 * whose version is gone stores nothing, and is `STORE_CONFLICT`.
 */
export interface StoredSegment {
  readonly path: string
  readonly version: Version
  readonly offset: number
  readonly length: number
}

/** Whether a segment is of a stored version. */
export function isStored(segment: Segment): segment is StoredSegment {
  return 'version' in segment
}

/** What an upload is begun with. */
export interface UploadOptions extends CallOptions {
  /** As far as they are known: what `commit` gives goes over them, and may then cost a copy within the store. */
  readonly attributes: Attributes
}

/**
 * A put whose bytes are sent while its file is still being written. Nothing shows at the path, and no guard is looked at,
 * until `commit`. Ends by `commit` or by `abort`; one that is left by a process that died is given up by the store's own means
 * or by the next opening of the store.
 */
export interface Upload {
  /** Where part `index`, from 0, lies in the file; the last one may be shorter. */
  part(index: number): { readonly offset: number; readonly length: number }
  /** Sends a whole part from the descriptor; sent again, the later bytes count. Several may be under way. */
  send(index: number, fd: number, options?: CallOptions): Promise<void>
  /**
   * Sends the parts of `source` that were not sent, and those named in `changed`, and puts the file in place as `put` does.
   * After a failure the upload is as it was, unless the code is `STORE_CONFLICT`: then it has been given up.
   */
  commit(source: FileSegment, changed: ReadonlySet<number>, options: PutOptions): Promise<Entry>
  /** Gives up all that was sent. Never rejects. */
  abort(): Promise<void>
}

/** One entry that `removeAll` is to remove: this version of it. Given once more, as the same object, it may have been removed. */
export interface Removal {
  readonly path: string
  readonly kind: Kind
  readonly version: Version
  /** As far as it is known: tells it, where it is asked for again, from what others have made since. */
  readonly modified?: Timestamp
}

export interface CallOptions {
  readonly signal?: AbortSignal
}

export interface StatOptions extends CallOptions {
  /** What was there when it was last heard of: a store that has to look for each kind apart looks for this one first. */
  readonly expected?: Kind
}

export interface ListOptions extends CallOptions {
  /** All that lies under the directory, rather than its own entries only. Implicit directories may be left out then. */
  readonly recursive?: boolean
  /** Only entries whose sort key, relative to the directory, starts with this. */
  readonly prefix?: string
  /** Only entries whose sort key, relative to the directory, is greater: any string, it need not be an entry's. */
  readonly after?: string
  /** At most about so many entries a page; a store may give fewer. */
  readonly pageEntries?: number
  /** Extended attributes, and owners that are kept in them, may be left out: a look at each entry less. */
  readonly brief?: boolean
  /**
   * Told of what is there and left out, as no path can name it or its name is that of something else: each before the page that
   * would have had it. `path` is for people: bytes that are no text are escaped in it, and it need not be one that a call takes.
   * Not told: the store's own, and what the store never holds.
   */
  readonly onHidden?: (hidden: Hidden) => void
}

/** What a store has and cannot show, and why. */
export interface Hidden {
  readonly path: string
  readonly detail: string
}

export interface TreeOptions extends CallOptions {
  /** Only entries whose sort key, relative to the directory, is greater: any string, it need not be an entry's. */
  readonly after?: string
  /** About so many at most; as many as one request gives where absent. */
  readonly pageEntries?: number
}

/** What lies next under a directory, at all depths. */
export interface TreePage {
  /** In order of sort keys. What follows is greater than the last of them; where there is none, nothing is known. */
  readonly entries: readonly Entry[]
  /** Nothing follows. */
  readonly isLast: boolean
}

export interface ReadOptions extends CallOptions {
  /** Read this version or fail with `STORE_CONFLICT` (`STORE_NOT_FOUND` where the path is gone). */
  readonly version?: Version
  /** From here; at or past the end reads nothing. 0 where absent. */
  readonly offset?: number
  /** At most so many bytes; to the end where absent. */
  readonly length?: number
}

/** A read that has begun: all its bytes are of one version. Take the body once, by iteration or by `bytes`, or cancel. */
export interface Reading {
  /** The version being read, with attributes. */
  readonly entry: Entry
  /** How many bytes the body has. */
  readonly length: number
  /**
   * Chunks in order; throws `STORE_CORRUPT` or another code where bytes are missing or wrong: never a short read. A chunk
   * that fills its buffer is its taker's alone, who may free or transfer the memory.
   */
  readonly body: AsyncIterable<Uint8Array>
  /** The whole body in one buffer of `length` bytes; one that it fills is its taker's alone, as with chunks. */
  bytes(): Promise<Buffer>
  /** Gives the rest up and frees what it holds. Needed only where the body is not read to its end. */
  cancel(): void
}

export interface PutOptions extends CallOptions {
  readonly guard: Guard
  readonly attributes?: Attributes
  /** With `ABSENT`: the caller has just seen that nothing is there, so the store need not look before its server decides. */
  readonly seenAbsent?: boolean
}

export interface MutateOptions extends StatOptions {
  readonly guard: Guard
}

export interface RenameOptions extends StatOptions {
  /** Of the source. */
  readonly guard: Guard
  /** Of the target. A directory replaces only an empty directory, else `STORE_NOT_EMPTY`. */
  readonly targetGuard: Guard
  /**
   * Told of each file whose version the move changed, by its new path, before the call resolves. A store whose moves keep
   * versions never calls it; what it is not told of has the version that it had.
   */
  readonly onVersionChanged?: (path: string, before: Version, after: Version) => void
}

export interface ExchangeOptions extends CallOptions {
  readonly guard: Guard
  /** Of the second path. */
  readonly otherGuard: Guard
  /** As for a rename. */
  readonly onVersionChanged?: (path: string, before: Version, after: Version) => void
}

export interface CopyOptions extends CallOptions {
  /** Of the source; absent: whatever is current. */
  readonly version?: Version
  /** Of the target. */
  readonly guard: Guard
  /** Replaces the source's where given. */
  readonly attributes?: Attributes
}

/** `atomic`: the server decides. `checked`: looked at just before, so a race of milliseconds remains. */
export type GuardStrength = 'atomic' | 'checked'

/** What a store can do, found out rather than assumed. A consumer adapts and tells the user what is weaker. */
export interface Capabilities {
  readonly guards: {
    /** A put with `ABSENT`. */
    readonly create: GuardStrength
    /** A put with a version. */
    readonly replace: GuardStrength
    readonly remove: GuardStrength
    /** The target of a copy or rename. */
    readonly copy: GuardStrength
  }
  /** Listings come in order of sort keys. */
  readonly listingOrdered: boolean
  /** Listings carry attributes and exact kinds. */
  readonly listingComplete: boolean
  /** Rename of a file, and of a directory, is one step that no reader sees the middle of. */
  readonly renameAtomic: boolean
  /** Modes, owners, times and extended attributes are kept. */
  readonly attributes: boolean
  /** Fifos and sockets are kept. */
  readonly specials: boolean
  /**
   * Throws for attributes that no put of such an entry would take, as far as the store knows without asking, and with
   * room for whatever modes, owners and times the entry may get later: `STORE_ATTRIBUTES_TOO_LARGE`, `STORE_UNSUPPORTED`.
   */
  readonly checkAttributes: (path: string, kind: Kind, attributes: Attributes) => void
  /** Longest path in bytes of UTF-8. */
  readonly pathBytesMax: number
  /** Largest file in bytes. */
  readonly fileBytesMax: number
}

/** Room in a store, where it has a bound. */
export interface Space {
  readonly bytesTotal: number
  readonly bytesFree: number
}

export interface Store {
  /** For messages: the URL it was opened by, without secrets. */
  readonly url: string
  readonly capabilities: Capabilities

  /** @throws OperationError `STORE_NOT_FOUND`. The root always exists. */
  stat(path: string, options?: StatOptions): Promise<Entry>
  /** Pages of entries in sort-key order. @throws OperationError `STORE_NOT_FOUND`, `STORE_NOT_DIRECTORY`, before the first page. */
  list(path: string, options?: ListOptions): AsyncIterable<readonly Entry[]>
  /**
   * What lies under a directory at all depths, one page for one request: each directory, also one that is there only because
   * of what lies under it, before its entries. Of what is not there, nothing. Absent where listing each directory by itself
   * costs no more.
   */
  readonly listTree?: (path: string, options?: TreeOptions) => Promise<TreePage>
  /**
   * Begins to read a file; of a symlink, its target as bytes. @throws OperationError `STORE_NOT_FOUND`, `STORE_IS_DIRECTORY`,
   * `STORE_CONFLICT`, and `INPUT_INVALID` for a fifo or socket, which `copy` refuses, too.
   */
  read(path: string, options?: ReadOptions): Promise<Reading>
  /** The target of a symlink. @throws OperationError `INPUT_INVALID` for anything else. */
  readLink(path: string, options?: CallOptions): Promise<string>

  /** Replaces or creates a whole file; durable when it resolves. */
  put(path: string, source: Source, options: PutOptions): Promise<Entry>
  symlink(path: string, target: string, options: PutOptions): Promise<Entry>
  /** Makes an entry without bytes. @throws OperationError `STORE_UNSUPPORTED` where the store keeps none. */
  makeSpecial(path: string, kind: SpecialKind, options: PutOptions): Promise<Entry>
  /**
   * Begins a put of a large file that is still being written; absent where nothing would be gained. Such a store also takes
   * stored segments in a put without moving their bytes.
   */
  readonly beginUpload?: (path: string, options: UploadOptions) => Promise<Upload>
  /** Makes a directory that stays without entries. With `ABSENT`, one that exists (even implicitly) is a conflict. */
  makeDirectory(path: string, options: PutOptions): Promise<Entry>
  /** Changes the attributes that are given, and leaves the others and the bytes. The answer may have a new version. */
  setAttributes(path: string, changes: Attributes, options: MutateOptions): Promise<Entry>
  /** Copies a file (not a directory) within the store, without moving its bytes through here where it can. */
  copy(from: string, to: string, options: CopyOptions): Promise<Entry>
  /** Moves a file, a symlink or a directory with all that lies under it. */
  rename(from: string, to: string, options: RenameOptions): Promise<Entry>
  /** Gives each of two entries, of any kind, the other's name. @throws OperationError as `rename` does. */
  exchange(path: string, other: string, options: ExchangeOptions): Promise<void>
  /**
   * Removes many entries in few requests. A directory goes as it is named: the caller has seen that it is empty, and where
   * entries came meanwhile a store of flat keys leaves it there by them, any other reports `STORE_NOT_EMPTY`. Gives, for each,
   * the error that kept it, `STORE_NOT_FOUND` and `STORE_CONFLICT` included. Rejects only where nothing is known of any.
   */
  removeAll(removals: readonly Removal[], options?: CallOptions): Promise<readonly (OperationError | undefined)[]>
  /** Removes a file or symlink. @throws OperationError `STORE_IS_DIRECTORY`, `STORE_NOT_FOUND`. */
  remove(path: string, options: MutateOptions): Promise<void>
  /** Removes an empty directory. @throws OperationError `STORE_NOT_EMPTY`, `STORE_NOT_DIRECTORY`, `STORE_NOT_FOUND`. */
  removeDirectory(path: string, options?: CallOptions): Promise<void>

  /** Undefined where the store has no bound that it knows of. */
  space(options?: CallOptions): Promise<Space | undefined>
  /**
   * Finishes, or takes back, moves and exchanges of this process that were cut short, where they take several steps: before it is
   * asked what became of one. @throws where that is not over; what each one's names have may then change later.
   */
  readonly finishMoves?: (options?: CallOptions) => Promise<void>
  /** From now on an outage is waited out for some seconds only, by calls under way, too: whoever calls is about to end. */
  readonly hurry?: () => void
  close(): Promise<void>
}

/** What listings are ordered by: the path, with `/` after it for a directory. */
export function sortKey(entry: Pick<Entry, 'path' | 'kind'>): string {
  return entry.kind === 'directory' ? `${entry.path}/` : entry.path
}
