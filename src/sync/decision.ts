/**
 * What is to be done about one path: the source is looked at, the target as far as it is needed, and nothing is changed. The
 * same decision is shown by a dry run and carried out by a sync.
 */
import { compareTimestamps, timestampNow, type Timestamp } from '#base/time.ts'
import { parentOf } from '#store/path.ts'
import type { Attributes, CallOptions } from '#store/store.ts'

import type { Actor } from './actor.ts'
import { callOptions } from './call-options.ts'
import { hashSource } from './content-hash.ts'
import {
  type ContentHash,
  isSameInode,
  isSameToPrecision,
  samenessOf,
  type Sameness,
  type SamenessRules,
} from './equality.ts'
import type { SyncSource } from './source.ts'
import { NO_SIZE, type SyncState } from './state.ts'
import { entryOfKnown, type Known } from './state-record.ts'
import type { LocalIdentity, Skipped, TreeEntry } from './tree.ts'

/** A `ctime` within so many seconds of a comparison is looked at more closely. */
const CLOCK_SECONDS = 3

export type Decision =
  | { readonly do: 'nothing' }
  /** Equal, and to be remembered as such. */
  | { readonly do: 'remember'; readonly path: string; readonly known: Known }
  | { readonly do: 'skip'; readonly skipped: Skipped }
  | { readonly do: 'send'; readonly entry: TreeEntry; readonly replaced: TreeEntry | undefined }
  | {
      readonly do: 'link'
      readonly entry: TreeEntry
      readonly leadsTo: string
      readonly replaced: TreeEntry | undefined
    }
  | { readonly do: 'make-directory'; readonly entry: TreeEntry; readonly replaced: TreeEntry | undefined }
  /** The bytes are equal, and what is kept with them is not. */
  | {
      readonly do: 'set-attributes'
      readonly entry: TreeEntry
      readonly target: TreeEntry
      readonly known: Known | undefined
    }
  | { readonly do: 'delete'; readonly target: TreeEntry }

export interface DecisionOptions {
  readonly rules: SamenessRules
  /** Whether mode, owner and extended attributes are kept, too. */
  readonly metadata: boolean
  readonly links: 'skip' | 'keep' | 'follow'
  readonly deletes: boolean
  readonly signal?: AbortSignal
}

export class Decider {
  readonly #source: SyncSource
  readonly #actor: Actor
  readonly #state: SyncState
  readonly #options: DecisionOptions
  readonly #call: CallOptions

  constructor(source: SyncSource, actor: Actor, state: SyncState, options: DecisionOptions) {
    this.#source = source
    this.#actor = actor
    this.#state = state
    this.#options = options
    this.#call = callOptions(options)
  }

  /** `listed`: what the target had when it was listed, `null` for nothing; undefined where what is remembered has to do. */
  async decide(path: string, listed: TreeEntry | null | undefined): Promise<Decision> {
    const { deletes, links } = this.#options
    const looked = await this.#source.look(path, this.#call)
    if (looked.is === 'left-out') return { do: 'nothing' }
    if (looked.is === 'skipped') return { do: 'skip', skipped: looked.skipped }
    // It may be gone before anything is done about what the target had.
    if (listed !== undefined && listed !== null) this.#state.doubt(path)
    if (looked.is === 'absent') {
      if (await this.isElsewhere(path)) {
        const detail = 'the file system that it was on is not mounted'
        return { do: 'skip', skipped: { path, reason: 'other-file-system', detail } }
      }
      const target = deletes ? await this.#leftOf(path, listed) : undefined
      return target === undefined ? { do: 'nothing' } : { do: 'delete', target }
    }
    const { entry } = looked
    if (entry.kind === 'directory') return this.#directory(entry, listed)
    if (entry.kind === 'symlink') {
      if (links === 'keep' && this.#actor.symlink !== undefined) return this.#link(entry, listed)
      return { do: 'skip', skipped: { path, reason: 'symlink', detail: 'a symlink' } }
    }
    return this.#file(entry, listed)
  }

  /**
   * All was equal, and remembered, in a comparison that began then: a file with an older `ctime` is the one that was compared, and
   * equal if its target still has its size and time, and no directory above it was changed since (`isAtRest`): what is moved
   * or put in place keeps its own `ctime`. That spares a look at what is remembered of it.
   */
  equalSince: Timestamp | undefined

  /** Devices that the roots have been on: what was on another one was on a file system that was mounted within. */
  rootDevices: ReadonlySet<number> = new Set()

  /** Whether what is not there was on a file system within the tree that is not mounted now: then it may well be there. */
  async isElsewhere(path: string): Promise<boolean> {
    if (this.rootDevices.size === 0) return false
    const file = this.#state.known(path)
    const own = (file ?? this.#state.known(`${path}/`))?.identity?.device
    let device = own === undefined || this.rootDevices.has(own) ? undefined : own
    // A directory that is gone may have had such a file system in it.
    if (file === undefined) device ??= this.#state.otherDeviceUnder(path, this.rootDevices)
    if (device === undefined) return false
    for (let above = path; !this.#source.roots.includes(above) && above !== '';) {
      above = parentOf(above)
      const looked = await this.#source.look(above, this.#call)
      if (looked.is === 'entry') return this.rootDevices.has(looked.entry.identity?.device ?? device)
    }
    return true
  }

  /** Whether two listed entries are equal, without asking anybody. What is equal is remembered: its removal must be known as one. */
  sameness(source: TreeEntry, target: TreeEntry, lookedAt: Known['lookedAt'], isAtRest = false): Sameness {
    if (isAtRest && this.#isUnchangedSince(source, target)) return 'same'
    const remembered = this.#state.known(source.path)
    const sameness = samenessOf(source, target, { lookedAt, remembered }, this.#options.rules)
    const { metadata } = this.#options
    const isKnown = remembered !== undefined && remembered.targetVersion === target.version
    if (sameness !== 'same' || (isKnown && (!metadata || source.identity !== undefined))) return sameness
    const isSame = !metadata || this.#haveSameAttributes(source.attributes, target.attributes) === true
    if (!isSame) return 'unsure'
    const mtime = source.mtime ?? target.mtime ?? lookedAt
    this.#state.remember(source.path, { ...knownOf(source, mtime, lookedAt), targetVersion: target.version })
    return 'same'
  }

  /** Whether an inode was not changed since all was equal. */
  isOlder({ ctime }: LocalIdentity): boolean {
    return this.equalSince !== undefined && ctime.seconds + CLOCK_SECONDS <= this.equalSince.seconds
  }

  #isUnchangedSince(source: TreeEntry, target: TreeEntry): boolean {
    const { rules, metadata } = this.#options
    const { identity, mtime } = source
    if (this.equalSince === undefined || rules.byHash || mtime === undefined || target.mtime === undefined) return false
    if (identity === undefined || source.kind !== 'file' || target.kind !== 'file') return false
    if (source.size !== target.size || !isSameToPrecision(mtime, target.mtime, rules.targetPrecisionNs)) return false
    if (!this.isOlder(identity)) return false
    return !metadata || this.#haveSameAttributes(source.attributes, target.attributes) === true
  }

  /** Whether a directory has to have its attributes set; also where that is not known. */
  directoryDiffers(source: TreeEntry, target: TreeEntry): boolean {
    if (target.attributes !== undefined) return this.#haveSameAttributes(source.attributes, target.attributes) !== true
    const known = this.#state.known(`${source.path}/`)
    return !isSameInode(known?.identity, source.identity)
  }

  async #file(entry: TreeEntry, listed: TreeEntry | null | undefined): Promise<Decision> {
    const { path } = entry
    const { metadata, rules } = this.#options
    let lookedAt = timestampNow()
    const known = this.#state.known(path)
    const target = listed === null ? undefined : (listed ?? this.#remembered(path))
    if (target === undefined || target.kind === 'directory') return { do: 'send', entry, replaced: target }
    const first = samenessOf(entry, target, { lookedAt, remembered: known }, rules)
    const isRemembered = known?.targetVersion !== undefined && known.targetVersion === target.version
    // Versions of a store need not change with attributes; the times of an inode do.
    if (first === 'same' && isRemembered && (!metadata || entry.identity !== undefined)) return { do: 'nothing' }
    const asked = first === 'unsure' || metadata ? await this.#asked(target, known) : target
    if (asked === undefined) return { do: 'send', entry, replaced: undefined }
    let sameness = first === 'unsure' ? samenessOf(entry, asked, { lookedAt, remembered: known }, rules) : first
    let hash: ContentHash | undefined
    if (sameness === 'unsure') {
      const theirs = await this.#targetHash(asked, known)
      const ours = theirs === undefined ? undefined : await hashSource(this.#source, entry, this.#call)
      hash = ours?.hash
      if (ours !== undefined) {
        // One that somebody is writing, through a mapping above all, may get other bytes and keep its times.
        lookedAt = ours.lookedAt
        this.#state.written(path, ours.isWritten)
      }
      sameness = hash === undefined ? 'different' : hash.digest === theirs?.digest ? 'same' : 'different'
    }
    if (sameness === 'different' || entry.mtime === undefined) return { do: 'send', entry, replaced: asked }
    const now: Known = {
      ...knownOf(entry, entry.mtime, lookedAt),
      targetVersion: asked.version,
      hash: hash ?? (known?.targetVersion === asked.version ? known?.hash : undefined),
    }
    const isSameTime = asked.mtime === undefined || isSameToPrecision(entry.mtime, asked.mtime, rules.targetPrecisionNs)
    const kept = metadata ? this.#haveSameAttributes(await this.#sourceAttributes(entry), asked.attributes) : isSameTime
    if (kept === false && this.#actor.setAttributes !== undefined) {
      return { do: 'set-attributes', entry, target: asked, known: now }
    }
    return known !== undefined && isUnchanged(known, now) ? { do: 'nothing' } : { do: 'remember', path, known: now }
  }

  async #link(entry: TreeEntry, listed: TreeEntry | null | undefined): Promise<Decision> {
    const { path } = entry
    const lookedAt = timestampNow()
    const known = this.#state.known(path)
    const target = listed === null ? undefined : (listed ?? this.#remembered(path))
    const isKnown = known?.kind === 'symlink' && target?.version !== undefined && target.version === known.targetVersion
    if (isKnown && entry.mtime !== undefined && isUnchanged(known, knownOf(entry, entry.mtime, lookedAt))) {
      return { do: 'nothing' }
    }
    const leadsTo = await this.#source.readLink(path, this.#call)
    if (target !== undefined && target.kind !== 'directory' && this.#actor.readLink !== undefined) {
      const asked = await this.#asked(target, undefined)
      // One that was made anew leads to the same place with other times.
      const isKept = !this.#options.metadata || this.#haveSameAttributes(entry.attributes, asked?.attributes) !== false
      if (asked?.kind === 'symlink' && isKept && (await this.#actor.readLink(path, this.#call)) === leadsTo) {
        const mtime = entry.mtime ?? lookedAt
        return { do: 'remember', path, known: { ...knownOf(entry, mtime, lookedAt), targetVersion: asked.version } }
      }
    }
    return { do: 'link', entry, leadsTo, replaced: target }
  }

  async #directory(entry: TreeEntry, listed: TreeEntry | null | undefined): Promise<Decision> {
    const { path } = entry
    if (this.#actor.makeDirectory === undefined || listed?.kind === 'directory') return { do: 'nothing' }
    const file = this.#state.known(path)
    const replaced = listed ?? (file === undefined ? undefined : entryOfKnown(path, file))
    if (replaced !== undefined) return { do: 'make-directory', entry, replaced }
    const known = this.#state.known(`${path}/`)
    if (listed === undefined && known !== undefined && known.size !== NO_SIZE) return { do: 'nothing' }
    // What lies in it makes it, unless it has to have attributes of its own.
    if (!this.#options.metadata && !(await this.#isBare(path))) return { do: 'nothing' }
    return { do: 'make-directory', entry, replaced: undefined }
  }

  /** Both have it: its removal must be known as one. */
  rememberDirectory(source: TreeEntry, lookedAt: Known['lookedAt']): void {
    const key = `${source.path}/`
    if (this.#state.known(key) !== undefined) return
    this.#state.remember(key, knownDirectory(source, lookedAt))
  }

  /** What the target has of something that is gone; undefined where that is nothing. */
  async #leftOf(path: string, listed: TreeEntry | null | undefined): Promise<TreeEntry | undefined> {
    const target = listed ?? this.#remembered(path)
    if (target !== undefined) return target
    if (this.#state.holdsUnder(path)) return { path, kind: 'directory', size: 0, mtime: undefined }
    return this.#state.isDoubted(path) ? this.#actor.stat?.(path, this.#call) : undefined
  }

  /** Whether a directory has nothing that would make it in the target. */
  async #isBare(path: string): Promise<boolean> {
    if (this.#actor.keeps?.flat === true) return this.#source.isEmpty(path, this.#call)
    for await (const page of this.#source.list(path, this.#call)) {
      if (page.some((entry) => this.takes(entry))) return false
    }
    return true
  }

  /** Whether the target holds directories by themselves. */
  get keepsDirectories(): boolean {
    return this.#actor.makeDirectory !== undefined && this.#actor.keeps?.directories === true
  }

  /** Whether an entry of a listing is something to be sent: not a symlink that is left out. */
  takes({ kind }: TreeEntry): boolean {
    return kind !== 'symlink' || (this.#options.links === 'keep' && this.#actor.symlink !== undefined)
  }

  #remembered(path: string): TreeEntry | undefined {
    for (const key of [path, `${path}/`]) {
      const known = this.#state.known(key)
      if (known !== undefined) return entryOfKnown(path, known)
    }
    return undefined
  }

  /** The target with all that it tells; undefined where it is gone. What is remembered of it needs no question. */
  async #asked(target: TreeEntry, known: Known | undefined): Promise<TreeEntry | undefined> {
    const { metadata } = this.#options
    if (this.#actor.stat === undefined || (target.attributes !== undefined && !metadata)) return target
    if (known?.targetVersion !== undefined && known.targetVersion === target.version && !metadata) return target
    return this.#actor.stat(target.path, { ...this.#call, expected: target.kind })
  }

  /** Of what is there: remembered, or read where hashes are asked for. */
  async #targetHash(target: TreeEntry, known: Known | undefined): Promise<ContentHash | undefined> {
    if (this.#options.rules.byHash) return this.#actor.hash?.(target, 'sha256', this.#call)
    return known?.hash !== undefined && known.targetVersion === target.version ? known.hash : undefined
  }

  async #sourceAttributes(entry: TreeEntry): Promise<Attributes> {
    const open = await this.#source.open(entry, this.#call)
    open.close()
    return open.entry.attributes ?? {}
  }

  /** Undefined where one side does not tell. */
  #haveSameAttributes(source: Attributes | undefined, target: Attributes | undefined): boolean | undefined {
    if (source === undefined || target === undefined) return undefined
    if (source.mode !== target.mode || source.uid !== target.uid || source.gid !== target.gid) return false
    if (source.mtime !== undefined) {
      if (target.mtime === undefined) return false
      if (!isSameToPrecision(source.mtime, target.mtime, this.#options.rules.targetPrecisionNs)) return false
    }
    return source.xattrs === undefined || haveSameXattrs(source.xattrs, target.xattrs ?? new Map())
  }
}

/** What is kept of an entry that was made equal. */
export function knownOf(entry: TreeEntry, mtime: Known['mtime'], lookedAt: Known['lookedAt']): Known {
  const { kind, size, identity, version } = entry
  return {
    kind: kind === 'directory' || kind === 'symlink' ? kind : 'file',
    size,
    mtime,
    lookedAt,
    ...(identity === undefined ? { sourceVersion: version } : { identity }),
  }
}

/** What is kept of a directory of whose attributes nothing is known: of its identity the device alone, that no inode is compared. */
export function knownDirectory({ mtime, identity }: TreeEntry, lookedAt: Known['lookedAt']): Known {
  const nothing = { inode: 0, ctime: { seconds: 0, nanoseconds: 0 } }
  return {
    kind: 'directory',
    size: 0,
    mtime: mtime ?? lookedAt,
    lookedAt,
    ...(identity === undefined ? {} : { identity: { device: identity.device, ...nothing } }),
  }
}

/** Whether `now` tells nothing that was not known; a later look at what was racy does. */
function isUnchanged(known: Known, now: Known): boolean {
  return (
    known.targetVersion === now.targetVersion &&
    known.sourceVersion === now.sourceVersion &&
    known.size === now.size &&
    compareTimestamps(known.mtime, now.mtime) === 0 &&
    known.identity?.inode === now.identity?.inode &&
    known.identity?.device === now.identity?.device &&
    (known.identity === undefined ||
      now.identity === undefined ||
      compareTimestamps(known.identity.ctime, now.identity.ctime) === 0) &&
    (known.identity === undefined || now.hash === known.hash)
  )
}

function haveSameXattrs(a: ReadonlyMap<string, Uint8Array>, b: ReadonlyMap<string, Uint8Array>): boolean {
  const kept = [...b].filter(([name]) => name.startsWith('user.') && !name.startsWith('user.eider.'))
  if (a.size !== kept.length) return false
  return kept.every(([name, value]) => {
    const other = a.get(name)
    return other !== undefined && Buffer.compare(other, value) === 0
  })
}
