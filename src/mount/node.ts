/**
 * One inode of the mount: what is believed about a name in the store, and what has changed here and is not yet in the
 * store. Plain state: the rules are kept by `NodeTable` (the tree), `Resolver` (what the store says) and `Publisher` (what it is
 * told).
 *
 * A node stands for one file, not for one name: when somebody else replaces a file that is open here, the name gets a new
 * node and the old one is `superseded`, as a local disk has it. So all handles of a node read one version, always, and
 * its cached pages are of one version.
 */
import type { OperationError } from '#base/errors.ts'
import type { CachedVersion } from '#cache/file-cache.ts'
import type { NodeId } from '#fuse/file-system.ts'
import type { Timestamp } from '#base/time.ts'
import type { Attributes, Entry, Kind, Version } from '#store/store.ts'

import { AttributeChanges } from './attribute-changes.ts'
import type { Journaled } from './journal.ts'
import { Mutex } from './locks.ts'
import type { Attempt } from './own-puts.ts'
import type { Backing } from './passthrough.ts'
import type { VersionReader } from './reading/version-reader.ts'
import type { SentState, StagedFile } from './staged-file.ts'
import type { TreePageSeat, TreeVisit } from './tree-walk.ts'
import type { Question } from './unanswered.ts'
import type { UploadAhead } from './upload-ahead.ts'
import type { JournaledFile } from './write-back.ts'

/** What a directory knows of its names, beyond the nodes of its children. */
export class DirectoryState {
  readonly children = new Map<string, Node>()
  /** Of the children. */
  subdirectories = 0
  /** When the listing began by which `children` are all there is; -Infinity where that is not known. */
  completeAt = -Infinity
  /** When a listing last had what stores keep for themselves: it is not shown, and the directory is not empty. */
  ownSeenAt = -Infinity
  /** Fetches under way that may still report names as they were. */
  fetches = 0
  /** Names removed here, by the clock of the table, kept while such fetches are under way; see `name-log.ts`. */
  readonly removals = new Map<string, number>()
  /** Names that a call from here is changing in the store just now. */
  readonly changing = new Map<string, Change>()
  /** Names that were removed here, and that the store does not know of yet: gone for everybody who asks here. */
  readonly removing = new Map<string, Leaving>()
  /** Names whose change from here failed, by the clock of the table, kept while such fetches are under way. */
  readonly unsure = new Map<string, number>()
  /** Names seen absent, with when: a create that follows its lookup asks no second time. */
  readonly absences = new Map<string, number>()
  /** When a name was last found absent by asking for it alone. */
  missedAt = -Infinity
  /** Names of whose change from here nobody knows what became of it; see `unanswered.ts`. */
  readonly unanswered = new Map<string, Question>()
  /** The listing that answers for names one after another that are not there, while it runs. */
  relisting: Promise<void> | undefined
  /** It has more entries than such a listing is worth. */
  isLarge = false
  /** Fetches of single names under way, which later askers join. */
  readonly pending = new Map<string, Promise<Node | undefined>>()
  /** The last listing, for fetching attributes ahead of lookups that follow it. */
  walk: AttributeWalk | undefined
  /** The last visit of it by who walks a tree. */
  visit: TreeVisit | undefined
  /** The page of a whole tree that told of it. */
  page: TreePageSeat | undefined
}

/** A name in a directory. */
export interface Place {
  readonly parent: Node
  readonly name: string
}

/** A name that is about to go from the store. */
export interface Leaving {
  /** Has it go now; resolves when it has, or when somebody else's is there and the next look finds it. */
  readonly sent: () => Promise<void>
}

/** The calls from here that change a name in the store. */
export interface Change {
  count: number
  /** Resolves when the last of them has ended, and what is known here says so. */
  readonly ended: Promise<void>
  readonly end: () => void
}

/** How far lookups have followed a listing. */
export interface AttributeWalk {
  /** In the order of the listing; each node knows its position. */
  readonly names: readonly string[]
  /** The position that a reader in order looks up next. */
  next: number
  /** Up to here stats have been asked for. */
  asked: number
  window: number
}

/** A put under way. */
export interface Sending {
  readonly staged: StagedFile
  readonly sent: SentState
  readonly attributes: Attributes
  readonly snapshot: Uint8Array | undefined
}

/** What a file has while it is open, staged or not yet published. */
export class OpenFile {
  handles = 0
  /** Handles that may write. */
  writers = 0
  staged: StagedFile | undefined
  /** The download into a staged file, while it runs. */
  staging: Promise<StagedFile> | undefined
  /** The version of the node in the disk cache, held; undefined without a cache, and where what is staged stands for it. */
  cached: CachedVersion | undefined
  /** What the kernel reads and writes itself, see `passthrough.ts`. */
  backing: Backing | undefined
  /** What has been sent of it while it is written; of a new file, from its first write until it is put. */
  ahead: UploadAhead | undefined
  /** Reads the version of the node for all who have it open. */
  reader: VersionReader | undefined
  /** The staged bytes are not those of the store. */
  dirty = false
  /** The attributes are not those of the store. */
  attributesDirty = false
  /** Of the attributes, since what the store has of them. */
  changes = new AttributeChanges()
  /** What the store has refused of the attributes, until whoever publishes is told. */
  refused: OperationError | undefined
  /** The last write found no room, and its writer was told: what is staged is not what was to be stored. */
  lacksRoom = false
  /** The last publish failed, and its closer was told. */
  failed = false
  /** Why the last publish failed; until one succeeds. */
  failure: string | undefined
  /** What puts that failed have sent, of which one may have taken effect; until one succeeds. */
  attempts: readonly Attempt[] = []
  /** How often its publish has met another writer, since it was last stored; and the name that it had at the first. */
  conflicts = 0
  conflictName: string | undefined
  /** What the journal has of it, and of files whose name it took; see `write-back.ts`. */
  journaled: JournaledFile | undefined
  replaced: Journaled[] = []
  /** As it was found in the journal: a put of that may have taken effect before. */
  replayed: Sending | undefined
  /** What a put under way sends, and the changes of attributes that go with it. */
  sending: Sending | undefined
  sentChanges: AttributeChanges | undefined
  /** A put reads the staged file: writers wait for it. */
  publishing: Promise<void> | undefined
  /** How much of the dirty gauge is this file's. */
  dirtyBytes = 0

  /** Its staged bytes may be changed in place. */
  get isFree(): boolean {
    return this.publishing === undefined && !(this.journaled?.isFixed === true && this.journaled.staged === this.staged)
  }
}

export type Detachment = 'removed' | 'superseded'

export class Node {
  readonly id: NodeId
  /** Fixed once the kernel has seen it; until then a listing may have taken a symlink for a file. */
  kind: Kind
  /** Undefined for the root, and for what has been detached. */
  parent: Node | undefined
  name: string
  /** Why no name leads here any more. */
  detached: Detachment | undefined
  /** The directory where it was when its name got to be somebody else's. */
  origin: Node | undefined
  lookups = 0

  /** What the store has under the name; undefined: nothing yet, this was created here. */
  version: Version | undefined
  size: number
  modified: Timestamp
  /** Undefined where only a listing has told of the node, and listings do not tell. */
  attributes: Attributes | undefined
  /** `modified` is a guess of this machine, as the answers to puts give it. */
  modifiedGuessed = false
  /** Its attributes were asked for so long after `modified` that any change of them since shows in a listing, by its time. */
  isSettled = false
  /** Until then (monotonic) a listing confirms attributes that were stored from here. */
  trustedUntil = -Infinity
  /** When the store was asked (monotonic): the start of the request, so never later than the truth of the answer. */
  validatedAt: number
  /** By the clock of the table: when this node came to be. */
  bornAt = 0
  /** By the clock of the table: when this node was last changed here. */
  changedAt: number
  /** The version that the kernel's cached pages are of. */
  cachedVersion: Version | undefined
  /** Of a symlink, for its version. */
  target: string | undefined
  /** Where the last listing of its directory had it. */
  listPosition = -1
  /** When an entry of this directory last changed here; shown where it is later than the stored time. */
  entriesChanged: Timestamp | undefined

  readonly directory: DirectoryState | undefined
  file: OpenFile | undefined
  /** While the name is about to go to another file, or to none: who opens it now waits, and looks again. */
  leaving: Promise<void> | undefined
  #lock: Mutex | undefined

  constructor(id: NodeId, parent: Node | undefined, name: string, facts: NodeFacts) {
    this.id = id
    this.parent = parent
    this.name = name
    this.kind = facts.kind
    this.version = facts.version
    this.size = facts.size
    this.modified = facts.modified
    this.attributes = facts.attributes
    this.validatedAt = facts.validatedAt
    this.changedAt = facts.changedAt
    this.directory = facts.kind === 'directory' ? new DirectoryState() : undefined
  }

  /** Puts publishes, removals and moves of this node in a row. */
  get lock(): Mutex {
    this.#lock ??= new Mutex()
    return this.#lock
  }

  get lockBusy(): boolean {
    return this.#lock?.busy ?? false
  }

  /** Whether what is known here goes over what the store says: it has changes that the store has not. */
  get isAhead(): boolean {
    return this.version === undefined || (this.file !== undefined && (this.file.dirty || this.file.attributesDirty))
  }
}

/** Where `node` is: nowhere for the root, and for what has been detached. */
export function placesOf({ parent, name }: Node): readonly Place[] {
  return parent === undefined ? [] : [{ parent, name }]
}

export interface NodeFacts {
  readonly kind: Kind
  readonly version: Version | undefined
  readonly size: number
  readonly modified: Timestamp
  readonly attributes: Attributes | undefined
  readonly validatedAt: number
  readonly changedAt: number
}

/** The facts of what the store said. */
export function factsOf(entry: Entry, validatedAt: number): NodeFacts {
  const { kind, version, size, modified, attributes } = entry
  return { kind, version, size, modified, attributes, validatedAt, changedAt: 0 }
}
