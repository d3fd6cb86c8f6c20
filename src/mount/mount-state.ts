/**
 * What all parts of one mount share: the store, the inode table, the locks, the staging area, the settings and the
 * figures. It decides nothing; see `store-file-system.ts` for who does.
 */
import { counter, gauge } from '#base/metrics.ts'
import { logger } from '#base/log.ts'
import { MemoryBudget } from '#base/memory-budget.ts'
import { timestampNow } from '#base/time.ts'
import type { AttributeIndex } from '#cache/attribute-index.ts'
import type { FileCache } from '#cache/file-cache.ts'
import type { Store } from '#store/store.ts'

import { CachedVersions } from './cached-versions.ts'
import type { OnConflict } from './conflict-policy.ts'
import type { HoldsOpen } from './descriptors.ts'
import { isDying } from './dying.ts'
import { TreeLock } from './locks.ts'
import { NodeTable } from './node-table.ts'
import type { Node } from './node.ts'
import type { Owner } from './node-attributes.ts'
import type { Journal } from './journal.ts'
import { pendingFilesMax } from './pending-files.ts'
import { Passthrough } from './passthrough.ts'
import type { StagingArea } from './staging.ts'
import { Unanswered } from './unanswered.ts'
import type { WriteBack } from './write-back.ts'

/** What a file system over a store is made of. */
export interface StoreFileSystemOptions {
  readonly store: Store
  readonly staging: StagingArea
  /** How long what the store said is believed. */
  readonly validityMs: number
  readonly readOnly: boolean
  /** Owner of what the store tells no owner of. */
  readonly owner: Owner
  /** Fires when the mount ends, and gives up what is under way. */
  readonly signal: AbortSignal
  /** Versions of files on local disk; of this process, and closed by who opened it. */
  readonly cache?: FileCache
  /** What was once told of entries whose listings do not tell it; closed by who opened it. */
  readonly attributeIndex?: AttributeIndex
  /** Of this process; the mount makes one where absent. */
  readonly memory?: MemoryBudget
  /** Whether ranges whose request is slow are asked for a second time; not where absent. */
  readonly hedge?: boolean
  /** Whether a process that closes a descriptor has another one of that file; not asked where absent. */
  readonly holdsOpen?: HoldsOpen
  /** Whether the thread that waits in a call is being killed; asked of the kernel where absent. */
  readonly isDying?: (pid: number) => boolean
  /** Of files that were closed and are not yet in the store; closed with the file system. */
  readonly journal?: Journal
  /** Whether closes are answered when the journal has the file; else it only stores what it has. */
  readonly writeBack?: boolean
  /** With what somebody else has changed meanwhile; `fail` where absent. */
  readonly onConflict?: OnConflict
  /** A monotonic clock in milliseconds; a test may bring its own. */
  readonly now?: () => number
}

const log = logger('mount')
const MEMORY_BYTES_MAX = 256 * 1024 * 1024

export class MountState {
  readonly store: Store
  readonly staging: StagingArea
  readonly validityMs: number
  readonly readOnly: boolean
  readonly owner: Owner
  readonly signal: AbortSignal
  readonly now: () => number
  readonly holdsOpen: HoldsOpen
  readonly isDying: (pid: number) => boolean
  readonly table = new NodeTable()
  readonly tree = new TreeLock()
  readonly memory: MemoryBudget
  readonly hedge: boolean
  readonly onConflict: OnConflict
  readonly journal: Journal | undefined
  /** Of whom the journal is; undefined without one. */
  journals: WriteBack | undefined
  readonly #acknowledgesEarly: boolean
  readonly attributeIndex: AttributeIndex | undefined
  readonly cached: CachedVersions
  readonly passthrough: Passthrough = new Passthrough(this)
  readonly unanswered: Unanswered = new Unanswered(this)
  readonly log = log
  readonly openFiles = gauge('eider_mount_open_files')
  readonly published = {
    ok: counter('eider_mount_published_total', 'ok'),
    conflict: counter('eider_mount_published_total', 'conflict'),
    keptBoth: counter('eider_mount_published_total', 'kept-both'),
    replaced: counter('eider_mount_published_total', 'replaced'),
    failed: counter('eider_mount_published_total', 'failed'),
  }
  readonly #dirtyGauge = gauge('eider_mount_dirty_bytes')
  /** Files with bytes or attributes that are not yet in the store. */
  readonly dirty = new Set<Node>()
  dirtyBytes = 0
  /** More files than that do not wait for the store, where that can be helped. */
  readonly pendingMax = pendingFilesMax()

  /** How many files the store has last refused or not answered for, and why it was one of them; undefined where none. */
  get failing(): { readonly files: number; readonly error: string } | undefined {
    const errors = [...this.dirty].flatMap(({ file }) => file?.failure ?? [])
    const [error] = errors
    return error === undefined ? undefined : { files: errors.length, error }
  }

  constructor(options: StoreFileSystemOptions) {
    this.store = options.store
    this.staging = options.staging
    this.validityMs = options.validityMs
    this.readOnly = options.readOnly
    this.owner = options.owner
    this.signal = options.signal
    this.attributeIndex = options.attributeIndex
    this.now = options.now ?? (() => performance.now())
    this.holdsOpen = options.holdsOpen ?? (() => false)
    this.isDying = options.isDying ?? isDying
    this.cached = new CachedVersions(options.cache, this.table)
    this.hedge = options.hedge ?? false
    this.journal = options.journal
    this.#acknowledgesEarly = options.writeBack ?? false
    this.onConflict = options.onConflict ?? 'fail'
    this.memory = options.memory ?? new MemoryBudget(MEMORY_BYTES_MAX)
  }

  /** Undefined where a close waits for the store. */
  get writeBack(): WriteBack | undefined {
    return this.#acknowledgesEarly ? this.journals : undefined
  }

  /** How long what is known of `node` may still be believed; 0 where the store must be asked. */
  validFor(node: Node): number {
    if (node.detached !== undefined || node.isAhead) return this.validityMs
    return Math.max(0, node.validatedAt + this.validityMs - this.now())
  }

  /** Whether what is known of `node` is all there, and may be believed. */
  isFresh(node: Node): boolean {
    return node.attributes !== undefined && this.validFor(node) > 0
  }

  /** How long the listing of a directory may still be believed to be all there is; 0 where it may not. */
  listingValidFor(directory: Node): number {
    const { completeAt } = directory.directory ?? { completeAt: -Infinity }
    return Math.max(0, completeAt + this.validityMs - this.now())
  }

  /** Brings the gauge and the set of dirty files in line with `node`. */
  countDirty(node: Node): void {
    const { file } = node
    const isDirty = file !== undefined && (file.dirty || file.attributesDirty)
    if (isDirty) this.dirty.add(node)
    else this.dirty.delete(node)
    if (file === undefined) return
    if (!isDirty) this.journals?.forget(file)
    const bytes = file.dirty ? (file.staged?.dirty.bytes ?? 0) : 0
    if (bytes === file.dirtyBytes) return
    const change = bytes - file.dirtyBytes
    this.dirtyBytes += change
    file.dirtyBytes = bytes
    this.#dirtyGauge.inc(change)
  }

  /** Notes that an entry of `directory` came or went: its times say so here. */
  entriesChanged(directory: Node): void {
    directory.entriesChanged = timestampNow()
  }
}
