/**
 * A sync: makes the target equal to the source, and keeps it equal. Everything that tells of a difference (a comparison of the
 * trees, a watcher, whoever names a path) only names the path; one queue holds what is named, and whoever takes a path from
 * it looks at the source then (`decision.ts`), so that it does not matter who told what, when, or how often.
 *
 * A run compares each root with the target's listing, while what differs is sent already; what only the target has is
 * deleted when the comparison is over and sending has not failed. Then, unless it is to be done once, it follows the watchers.
 * Comparisons after the first ask the memory of the sync instead of the target (`state.ts`): the target has one writer.
 */
import { AssertionError } from 'node:assert'
import { setTimeout as delay } from 'node:timers/promises'

import { isOperationError, OperationError, type ErrorCode } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { timestampNow, type Timestamp } from '#base/time.ts'
import { untilAborted } from '#store/abort.ts'
import { Slice } from '#store/directory/listing.ts'
import { compareUtf8, isWithin, parentOf } from '#store/path.ts'

import type { Actor } from './actor.ts'
import { actorListing } from './actor-listing.ts'
import { compare, type Differences } from './comparison.ts'
import type { Decider, Decision } from './decision.ts'
import type { DeleteGuard } from './delete-guard.ts'
import type { Executor } from './executor.ts'
import { Mover } from './mover.ts'
import type { SyncFailure, SyncSnapshot, SyncWatcher } from './snapshot.ts'
import type { SyncSource } from './source.ts'
import type { SyncState } from './state.ts'
import { Tally } from './tally.ts'
import { TargetOnly } from './target-only.ts'
import type { Listing, Skipped, TreeEntry } from './tree.ts'
import type { Change } from './watch/watcher.ts'
import { WorkQueue, type MoveWork, type PathWork } from './work-queue.ts'

const log = logger('sync')
/** A comparison waits while so many paths wait, so that memory does not grow with the tree. */
const WAITING_MAX = 10_000
/** When a comparison began after which all was equal. */
const EQUAL_SINCE = 'equal since'
const RETRY_FIRST_MS = 250
const RETRY_LAST_MS = 30_000
/** A file that is written without being closed is sent that long after a write, and not at each. */
const OPEN_FILE_MS = 1000
const SNAPSHOT_MS = 250
const SETTLED_LOOK_MS = 20
/** What is gone is looked at together, once nothing more goes: how much it is tells whether it is likely to be meant. */
const GONE_MS = 300
const GONE_MS_MAX = 3000
/** Tries of a path in a run that ends; one that stays goes on. */
const TRIES_MAX = 5
/** What another look may find over: the source is another by now, or something else is done to the target nearby. */
const PASSING: readonly ErrorCode[] = [
  'FILE_STALE',
  'STORE_NOT_FOUND',
  'STORE_CONFLICT',
  'STORE_NOT_DIRECTORY',
  'STORE_IS_DIRECTORY',
  'STORE_NOT_EMPTY',
]
/** What fails for every path in the same way. */
const FATAL: readonly ErrorCode[] = [
  'ROOT_CHANGED',
  'DELETES_REFUSED',
  'BUCKET_NOT_FOUND',
  'CREDENTIALS_MISSING',
  'CREDENTIALS_REFUSED',
  'CLOCK_SKEWED',
  'REGION_WRONG',
]

export interface SyncOptions {
  /** Operations under way at most. */
  readonly threads: number
  /** Ends when the target is equal. */
  readonly once: boolean
  readonly deletes: 'never' | 'after' | 'during'
  readonly metadata: boolean
  readonly backupDirectory: string | undefined
  /** Between two comparisons with what is remembered, for what no watcher tells; 0: none. */
  readonly compareEveryMs: number
  /** Another one where other entries take part, or are compared in another way. */
  readonly fingerprint: string
  /** Local directory for what does not fit into memory. */
  readonly scratch: string
  readonly signal: AbortSignal
}

export interface SyncParts {
  readonly source: SyncSource
  readonly actor: Actor
  readonly state: SyncState
  readonly decider: Decider
  readonly executor: Executor
  readonly deleteGuard: DeleteGuard
}

/** Told as it happens. */
export interface SyncObserver {
  /** At most some times a second, and at each change of the phase. */
  readonly onSnapshot?: (snapshot: SyncSnapshot) => void
  readonly onSkipped?: (skipped: Skipped) => void
  readonly onFailed?: (failure: SyncFailure) => void
}

/** What follows the source's changes. */
export interface Follower {
  /** Once it resolves nothing is missed. */
  arm(): Promise<void>
  /** Tells the sync of changes until the signal aborts. Rejects where it can no longer. */
  follow(sync: Pick<Sync, 'take' | 'ask'>, signal: AbortSignal): Promise<void>
  readonly status: SyncWatcher | undefined
  close(): Promise<void>
}

export class Sync {
  readonly tally = new Tally()
  readonly #parts: SyncParts
  readonly #options: SyncOptions
  readonly #observer: SyncObserver
  readonly #follower: Follower | undefined
  readonly #queue = new WorkQueue()
  readonly #mover: Mover
  /** Directories to compare with what is remembered. */
  readonly #subtrees = new Set<string>()
  /** Directories of the target that have to get their attributes, once nothing else is to be done. */
  readonly #touched = new Map<string, 'changed' | 'maybe'>()
  readonly #stop = new AbortController()
  readonly #signal: AbortSignal
  /** A comparison has ended. */
  #isCompared = false
  /** When the last comparison began, until all that it found is known to have been done. */
  #comparedAt: Timestamp | undefined
  /** Files with several names of which not all are known, which others outside of the tree need not be. */
  readonly #linksSought = new Set<string>()
  /** Paths that were told to be gone, and since when. */
  readonly #gone = new Map<string, TreeEntry | undefined>()
  #goneSince = 0
  #goneTimer: NodeJS.Timeout | undefined
  #waiters: (() => void)[] = []
  #timer: NodeJS.Timeout | undefined
  #comparing: Promise<void> | undefined
  #failure: Error | undefined
  #shownAt = 0
  #isShown = false

  constructor(parts: SyncParts, options: SyncOptions, observer: SyncObserver = {}, follower?: Follower) {
    this.#parts = parts
    this.#options = options
    this.#observer = observer
    this.#follower = follower
    this.#signal = AbortSignal.any([options.signal, this.#stop.signal])
    const { deletes, backupDirectory } = options
    const mayReplace = { deletes: deletes !== 'never', backupDirectory }
    this.#mover = new Mover(parts.source, parts.actor, parts.state, mayReplace)
  }

  /**
   * Runs until the target is equal (`once`) or the signal of the options aborts.
   * @throws OperationError for what keeps it from going on; what failed for single paths is in the tally
   */
  async run(): Promise<void> {
    const following = this.#begin()
    try {
      await Promise.race([this.#work(), following])
    } catch (error) {
      if (!this.#options.signal.aborted) throw this.#failure ?? error
    } finally {
      this.#phase('stopping')
      this.#stop.abort()
      clearTimeout(this.#timer)
      clearTimeout(this.#goneTimer)
      await this.#follower?.close()
      await Promise.allSettled([following, this.#comparing])
      while (this.#queue.running > 0) await this.#changed()
      await this.#parts.state.flushed()
    }
    if (this.#failure !== undefined && !this.#options.signal.aborted) throw this.#failure
  }

  get snapshot(): SyncSnapshot {
    this.tally.sentBytes = this.#parts.executor.bytesSent
    return this.tally.snapshot(this.#queue, this.#follower?.status)
  }

  /** What a watcher tells; paths are of the target, and lie within `root`. */
  take(root: string, changes: readonly Change[]): void {
    const at = (path: string): string => (root === '' ? path : path === '' ? root : `${root}/${path}`)
    for (const change of changes) {
      log.trace({ root, change }, 'told')
      switch (change.kind) {
        case 'written':
          if (change.isOpen) this.#queue.addLater(at(change.path), Date.now() + OPEN_FILE_MS)
          else this.ask(at(change.path))
          break
        case 'gone':
          this.#wentAway(at(change.path))
          break
        case 'moved':
          this.#queue.move(at(change.from), at(change.to), change.isDirectory)
          this.ask(at(change.to))
          break
        case 'subtree':
          this.#compareLater(at(change.path))
          break
        case 'lost':
          log.warn({ root }, 'changes came faster than they could be read, so the whole tree is compared')
          this.#compareLater(root)
          break
        case 'root-gone':
          this.#fatal(
            new OperationError(
              'ROOT_CHANGED',
              `Cannot sync "${this.#parts.source.names.join('", "')}": it was removed, moved or unmounted`,
            ),
          )
          break
        case 'skipped':
          this.#skipped({ path: at(change.path), reason: change.reason, detail: change.detail })
      }
    }
    this.#pump()
    if (this.#touched.size > 0 && this.#isAtRest) this.#wake()
  }

  /** `target`: what it was listed as. */
  #wentAway(path: string, target?: TreeEntry): void {
    if (this.#options.deletes === 'never' || path === '' || !this.#takesPart(path)) return
    this.#parts.state.intend({ path, since: Date.now() })
    const now = Date.now()
    if (this.#gone.size === 0) this.#goneSince = now
    this.#gone.set(path, target ?? this.#gone.get(path))
    clearTimeout(this.#goneTimer)
    const wait = Math.max(0, Math.min(GONE_MS, this.#goneSince + GONE_MS_MAX - now))
    this.#goneTimer = setTimeout(() => this.#askSoonForGone(), wait)
  }

  /** Nothing is deleted where all of it together would not be allowed. */
  async #askForGone(): Promise<void> {
    // How much the target has is known once it was compared; and what a comparison that is under way finds belongs together.
    if (!this.#isCompared || this.#comparing !== undefined) {
      this.#goneTimer = setTimeout(() => this.#askSoonForGone(), GONE_MS)
      return
    }
    const gone = [...this.#gone].sort(([a], [b]) => compareUtf8(a, b))
    this.#gone.clear()
    let count = 0
    let within: string | undefined
    for (const [path, target] of gone) {
      if (within !== undefined && isWithin(path, within)) continue
      const looked = await this.#parts.source.look(path, { signal: this.#signal })
      if (looked.is !== 'absent' || (await this.#parts.decider.isElsewhere(path))) continue
      within = path
      count += Math.max(this.#parts.state.countAt(path), target === undefined ? 0 : 1)
    }
    this.#parts.deleteGuard.check(count)
    for (const [path, target] of gone) this.#queue.add(path, target)
    this.#pump()
  }

  #askSoonForGone(): void {
    this.#askForGone().catch((error: unknown) => this.#fatal(error))
  }

  /** `path` of the target is to be made equal: kept until it is done, also over a restart. */
  ask(path: string): void {
    if (path === '' || !this.#takesPart(path)) {
      if (this.#options.metadata && path === '') this.#touch(path, 'maybe')
      return
    }
    this.#parts.state.intend({ path, since: Date.now() })
    this.#queue.add(path)
    this.#pump()
  }

  /** Kept durably when it resolves. */
  async askDurably(path: string): Promise<void> {
    this.ask(path)
    await this.#parts.state.flushed()
  }

  async #begin(): Promise<void> {
    if (this.#follower === undefined) return untilAborted('sync', new Promise(() => undefined), this.#signal)
    await this.#follower.arm()
    const signal = this.#signal
    await untilAborted('follow the source', this.#follower.follow(this, signal), signal)
  }

  async #work(): Promise<void> {
    this.#signal.throwIfAborted()
    await this.#replay()
    await this.#compareAll('target')
    if (this.#options.once) return
    const { compareEveryMs } = this.#options
    const { isLocal } = this.#parts.source
    let next = compareEveryMs === 0 ? Number.POSITIVE_INFINITY : Date.now() + compareEveryMs
    for (;;) {
      this.#phase('watching')
      if (this.#isAtRest) await this.#rest()
      await this.#changedUntil(next)
      if (Date.now() < next) continue
      await this.#compareAll(isLocal ? 'memory' : 'target')
      next = Date.now() + compareEveryMs
    }
  }

  /**
   * What an earlier run meant to do and did not come to. What is gone by now is left to the comparison, which counts all that it
   * would delete.
   */
  async #replay(): Promise<void> {
    const { source, state } = this.#parts
    for (const { path } of state.intents()) {
      const looked = this.#takesPart(path) ? await source.look(path, { signal: this.#signal }) : undefined
      // A run that ends compares all of it anyway.
      if (looked?.is === 'entry' && !this.#options.once) this.#queue.add(path)
      else state.fulfilled(path)
    }
  }

  get #isAtRest(): boolean {
    return this.#comparing === undefined && this.#gone.size === 0 && this.#queue.isResting
  }

  /** Undefined where the last comparison that left nothing was by other rules. */
  #equalSince(): Timestamp | undefined {
    const fact = this.#parts.state.fact(EQUAL_SINCE)
    if (fact === undefined) return undefined
    const [fingerprint, at] = JSON.parse(fact) as [string, Timestamp]
    return fingerprint === this.#options.fingerprint ? at : undefined
  }

  /** Nothing else is to be done for now. */
  async #rest(): Promise<void> {
    await this.#finishDirectories()
    const isEqual = this.#isAtRest && this.#queue.isWhole && this.tally.failures.length === 0
    if (!isEqual || this.#comparedAt === undefined) return
    const comparedAt = this.#comparedAt
    this.#comparedAt = undefined
    await this.#parts.state.setFact(EQUAL_SINCE, JSON.stringify([this.#options.fingerprint, comparedAt]))
  }

  async #compareAll(against: 'target' | 'memory'): Promise<void> {
    const { source, deleteGuard, state, decider } = this.#parts
    const { compared } = this.tally
    Object.assign(compared, { source: 0, target: 0, same: 0 })
    this.#phase('comparing')
    const startedAt = timestampNow()
    decider.equalSince = this.#equalSince()
    const targetOnly = new TargetOnly(this.#options.scratch)
    deleteGuard.beginComparison()
    try {
      for (const root of source.roots) {
        const target = against === 'target' ? this.#targetListing(root) : state.listing(root, new Slice())
        await this.#compare(root, target, targetOnly)
      }
      if (this.#options.metadata) await this.#touchRoots()
      this.#phase('sending')
      await this.#settled()
      await this.#deleteTargetOnly(targetOnly)
      deleteGuard.begin(compared.source)
      this.#isCompared = true
      this.#comparedAt = this.tally.missed === 0 ? startedAt : undefined
      if (!this.#options.once) return
      await this.#askForGone()
      await this.#settled()
      await this.#rest()
    } finally {
      targetOnly.close()
    }
  }

  /** A root is in no listing of its own. */
  async #touchRoots(): Promise<void> {
    const { source, actor, decider } = this.#parts
    for (const root of source.roots) {
      const call = { signal: this.#signal }
      const [looked, target] = [await source.look(root, call), await actor.stat?.(root, call)]
      // A store of flat keys has nothing that could keep them.
      if (looked.is !== 'entry' || looked.entry.kind !== 'directory' || target?.attributes?.mtime === undefined)
        continue
      if (decider.directoryDiffers(looked.entry, target)) this.#touch(root, 'changed')
    }
  }

  async #compare(under: string, target: Listing, targetOnly: TargetOnly | undefined): Promise<void> {
    const { source, decider, actor } = this.#parts
    const { metadata, deletes, backupDirectory } = this.#options
    const pathBytesMax = actor.keeps?.pathBytesMax
    const listing = source.list(under, {
      signal: this.#signal,
      onSkipped: (skipped) => this.#skipped(skipped),
      ...(pathBytesMax === undefined ? {} : { pathBytesMax }),
    })
    const differences: Differences = {
      onDifferent: (path, there, bytes) => this.#queue.add(path, targetOnly === undefined ? undefined : there, bytes),
      onTargetOnly: (entry) => {
        if (deletes === 'never') return
        if (targetOnly === undefined) this.#wentAway(entry.path, entry)
        else targetOnly.add(entry)
      },
      onDirectory: (path) => this.#touch(path, 'changed'),
      room: async () => {
        this.#pump()
        while (this.#queue.waiting > WAITING_MAX && !this.#queue.isResting) await this.#changed()
        if (deletes === 'during' && targetOnly !== undefined) await this.#deleteMeanwhile(targetOnly)
        this.#signal.throwIfAborted()
      },
    }
    const directories = actor.makeDirectory !== undefined && actor.keeps?.directories === true
    const isRootAtRest = source.isLocal && (await this.#isDirectoryAtRest(under))
    await compare({ source: listing, target }, differences, this.tally.compared, {
      ...{ source, decider, metadata, directories, backupDirectory, isRootAtRest },
    })
  }

  async #isDirectoryAtRest(path: string): Promise<boolean> {
    const looked = await this.#parts.source.look(path, { signal: this.#signal })
    const isDirectory = looked.is === 'entry' && looked.entry.kind === 'directory'
    const identity = isDirectory ? looked.entry.identity : undefined
    return identity !== undefined && this.#parts.decider.isOlder(identity)
  }

  #targetListing(root: string): Listing {
    return actorListing(this.#parts.actor, root, {
      scratch: this.#options.scratch,
      signal: this.#signal,
      brief: !this.#options.metadata,
      onSkipped: (skipped) => this.#skipped(skipped),
    })
  }

  /** What is found to be in the target alone goes at once, as long as it is little of what is known of the target by then. */
  async #deleteMeanwhile(targetOnly: TargetOnly): Promise<void> {
    const { deleteGuard } = this.#parts
    const { fileCount, count } = targetOnly
    if (fileCount === 0 || deleteGuard.comparedObjection(count, this.tally.compared) !== undefined) return
    await this.#deletePages(targetOnly, false)
  }

  /** All of it or, where it is more than is likely to be meant, nothing. */
  async #deleteTargetOnly(targetOnly: TargetOnly): Promise<void> {
    const { deleteGuard } = this.#parts
    if (targetOnly.count === 0) return
    const failed = this.tally.failures.length
    if (failed > 0 && this.#options.deletes === 'after') {
      this.tally.keptBack = targetOnly.count
      log.warn({ failed, kept: targetOnly.count }, 'nothing is deleted from the target, as not all could be sent')
      return
    }
    deleteGuard.checkCompared(targetOnly.count, this.tally.compared)
    await this.#deletePages(targetOnly, true)
  }

  async #deletePages(targetOnly: TargetOnly, withDirectories: boolean): Promise<void> {
    const { executor, source } = this.#parts
    for await (const page of targetOnly.pages(withDirectories)) {
      this.#signal.throwIfAborted()
      const left = source.isLocal ? await this.#stillAbsent(page) : page.filter(({ path }) => !this.#queue.has(path))
      const kept = await executor.deleteAll(left)
      this.tally.removed += left.length - kept.size
      this.tally.changed()
      for (const [target, error] of kept) this.#failed(givenUp(target.path), error)
      if (this.#options.metadata) for (const { path } of left) this.#touch(parentOf(path), 'changed')
      this.#show()
    }
  }

  /** Looked at once more, in a root that is proven to be the same: what came meanwhile is made equal instead. */
  async #stillAbsent(page: readonly TreeEntry[]): Promise<readonly TreeEntry[]> {
    const absent: TreeEntry[] = []
    for (const target of page) {
      if (this.#queue.has(target.path)) continue
      const looked = await this.#parts.source.look(target.path, { signal: this.#signal })
      if (looked.is === 'entry') this.#queue.add(target.path, target)
      else if (looked.is === 'absent' && !(await this.#parts.decider.isElsewhere(target.path))) absent.push(target)
    }
    this.#pump()
    return absent
  }

  #compareLater(path: string): void {
    for (const other of this.#subtrees) if (isWithin(path, other)) return
    this.#subtrees.add(path)
    this.#comparing ??= this.#compareSubtrees()
      .catch((error: unknown) => this.#fatal(error))
      .finally(() => {
        this.#comparing = undefined
        this.#wake()
      })
  }

  /** One after another; what they find that is only remembered is looked at as any other path. */
  async #compareSubtrees(): Promise<void> {
    for (const path of this.#subtrees) {
      this.#subtrees.delete(path)
      if (this.#signal.aborted) return
      if (!this.#takesPart(path)) continue
      if (path !== '') this.#queue.add(path)
      try {
        await this.#compare(path, this.#parts.state.listing(path, new Slice()), undefined)
      } catch (error) {
        if (this.#signal.aborted) return
        // It may be gone, or no directory any more: then the look at the path itself finds what is left of it.
        if (isOperationError(error, 'ROOT_CHANGED')) throw error
        log.debug({ err: error, path }, 'a subtree could not be compared')
        if (!isOperationError(error, 'LOCAL_FAILED')) throw error
      }
    }
  }

  /** Within a root, or a root that is a single file. */
  #takesPart(path: string): boolean {
    return this.#parts.source.roots.some((root) => isWithin(path, root))
  }

  #pump(): void {
    clearTimeout(this.#timer)
    while (this.#queue.running < this.#options.threads && !this.#signal.aborted) {
      const work = this.#queue.next(Date.now())
      if (work === undefined) break
      void (work.kind === 'move' ? this.#doMove(work) : this.#doPath(work))
    }
    const at = this.#queue.nextAt
    if (at !== undefined && !this.#signal.aborted) {
      this.#timer = setTimeout(() => this.#pump(), Math.max(1, at - Date.now()))
    }
  }

  async #doPath(work: PathWork): Promise<void> {
    const { path, target } = work
    if (work.tries > 0) this.tally.retried++
    try {
      const decision = await this.#parts.decider.decide(path, target)
      if (decision.do === 'delete' && !this.#isCompared) {
        // Counted with all that goes, once it is known how much there is.
        this.#wentAway(path, decision.target)
        this.#queue.done(path)
      } else await this.#carryOut(work, decision)
    } catch (error) {
      this.#failed(work, error)
    }
    this.#wake()
    this.#pump()
  }

  async #carryOut({ path, tries }: PathWork, decision: Decision): Promise<void> {
    const { executor, state } = this.#parts
    const outcome = await executor.carryOut(decision, tries + 1 < TRIES_MAX)
    log.trace({ path, decision: decision.do, outcome }, 'done')
    if (decision.do === 'skip') this.#skipped(decision.skipped)
    else this.tally.mended(path)
    this.tally.count(outcome)
    if (decision.do === 'remember') this.tally.compared.same++
    if (decision.do === 'send' || decision.do === 'set-attributes') this.#askOtherNames(decision.entry)
    if (outcome !== 'nothing') this.#didChange(path, outcome === 'deleted')
    if (this.#options.metadata) {
      // What came and went again has changed its directory's times all the same.
      this.#touch(parentOf(path), 'maybe')
      if (state.known(`${path}/`) !== undefined) this.#touch(path, outcome === 'nothing' ? 'maybe' : 'changed')
    }
    state.fulfilled(path)
    this.#queue.done(path, outcome === 'changed' ? Date.now() + pauseMs(tries) : undefined)
  }

  /** Of a file with several names; those that were made while nobody looked at the first one are looked for, once. */
  #askOtherNames(entry: TreeEntry): void {
    const names = this.#parts.source.otherNames(entry)
    for (const name of names) this.#queue.add(name)
    const { links, inode } = entry.identity ?? {}
    if (links === undefined || names.length + 1 >= links) return
    const sought = `${inode} ${links}`
    if (this.#linksSought.has(sought)) return
    this.#linksSought.add(sought)
    for (const root of this.#parts.source.roots) this.#compareLater(root)
  }

  async #doMove(move: MoveWork): Promise<void> {
    let isDone = false
    try {
      isDone = await this.#mover.move(move, this.#signal)
    } catch (error) {
      if (isOperationError(error, ...FATAL)) this.#fatal(error)
      else
        log.info(
          { err: error, from: move.from, to: move.to },
          'a rename could not be done as one: its files are compared',
        )
    }
    log.trace({ from: move.from, to: move.to, isDone }, 'moved')
    for (const path of this.#queue.moved(move, isDone)) {
      this.#parts.state.fulfilled(path)
      this.tally.mended(path)
    }
    if (isDone) {
      this.tally.renamed++
      this.#didChange(move.from, true)
      this.#didChange(move.to, false)
    } else this.ask(move.from)
    if (move.isDirectory) {
      if (!isDone) this.#compareLater(move.from)
      this.#compareLater(move.to)
    }
    this.#wake()
    this.#pump()
  }

  /** The directory of what was changed has new times in the target; one that is empty now may have to be made. */
  #didChange(path: string, isGone: boolean): void {
    this.tally.changed()
    const above = parentOf(path)
    if (this.#options.metadata) this.#touch(above, 'changed')
    if (isGone && above !== '' && this.#takesPart(above) && this.#parts.actor.keeps?.directories === true) {
      this.#queue.add(above)
    }
  }

  /** With `maybe` it is looked at whether the source's directory is another than is remembered. */
  #touch(path: string, how: 'changed' | 'maybe'): void {
    if (how === 'changed' || !this.#touched.has(path)) this.#touched.set(path, how)
  }

  #failed(work: PathWork, error: unknown): void {
    const { path, tries } = work
    const isRunning = this.#queue.isRunning(path)
    if (error instanceof AssertionError || isOperationError(error, ...FATAL)) this.#fatal(error)
    if (this.#signal.aborted) {
      if (isRunning) this.#queue.done(path)
      return
    }
    const isPassing = isOperationError(error, ...PASSING)
    const mayRetry = isPassing || !isOperationError(error) || error.retry !== 'never'
    const retries = mayRetry && isRunning && (tries + 1 < TRIES_MAX || !this.#options.once)
    log.debug({ err: error, path, tries, retries }, 'a path could not be made equal')
    if (!retries || tries + 1 === TRIES_MAX) {
      const failure = this.tally.fail(path, error)
      this.#parts.state.intend({ path, since: Date.now(), failure: failure.message })
      this.#observer.onFailed?.(failure)
    }
    if (isRunning) this.#queue.done(path, retries ? Date.now() + pauseMs(tries) : undefined)
  }

  #skipped(skipped: Skipped): void {
    if (this.tally.skip(skipped)) this.#observer.onSkipped?.(skipped)
  }

  /** Times and modes of directories, once what lies in them is done. */
  async #finishDirectories(): Promise<void> {
    while (this.#touched.size > 0 && this.#queue.isResting) {
      const touched = [...this.#touched].slice(0, this.#options.threads)
      for (const [path] of touched) this.#touched.delete(path)
      await Promise.all(touched.map(([path, how]) => this.#finishDirectory(path, how === 'changed')))
      this.#signal.throwIfAborted()
      this.#show()
    }
  }

  async #finishDirectory(path: string, isChanged: boolean): Promise<void> {
    if (!this.#takesPart(path)) return
    try {
      if (await this.#parts.executor.finishDirectory(path, isChanged)) this.tally.count('attributes-set')
    } catch (error) {
      if (isOperationError(error, ...FATAL)) throw error
      if (this.#signal.aborted || isOperationError(error, 'STORE_NOT_FOUND')) return
      this.#failed(givenUp(path), error)
    }
  }

  /**
   * Resolves when all that was asked for until now is done, or has failed and waits for its time: under changes without an end
   * there is always something that was asked for since. In a run that ends, when nothing is left at all.
   */
  async #settled(): Promise<void> {
    const { mark } = this.#queue
    this.#pump()
    const isOver = (): boolean => {
      if (this.#options.once) return this.#comparing === undefined && this.#queue.isEmpty
      return this.#isAtRest || this.#queue.isPast(mark)
    }
    while (!isOver()) {
      await this.#changed()
      // To ask takes a look at all that waits.
      if (!this.#options.once && !this.#queue.isResting) await delay(SETTLED_LOOK_MS)
      this.#signal.throwIfAborted()
    }
  }

  /** Resolves at the next change of what is to be done. */
  #changed(): Promise<void> {
    return new Promise((resolve) => this.#waiters.push(resolve))
  }

  async #changedUntil(at: number): Promise<void> {
    if (this.#touched.size > 0 && this.#isAtRest) return
    let timer: NodeJS.Timeout | undefined
    const due = new Promise<void>((resolve) => {
      if (Number.isFinite(at)) timer = setTimeout(resolve, Math.max(0, at - Date.now()))
    })
    await Promise.race([this.#changed(), due])
    clearTimeout(timer)
    this.#signal.throwIfAborted()
  }

  #wake(): void {
    this.#show()
    const waiters = this.#waiters
    this.#waiters = []
    for (const wake of waiters) wake()
  }

  #fatal(error: unknown): void {
    this.#failure ??= error instanceof Error ? error : new Error(String(error))
    this.#stop.abort(error)
    this.#wake()
  }

  #phase(phase: SyncSnapshot['phase']): void {
    if (this.tally.phase === phase && this.#isShown) return
    this.tally.phase = phase
    this.#shownAt = Number.NEGATIVE_INFINITY
    this.#show()
  }

  #show(): void {
    const now = performance.now()
    if (this.#observer.onSnapshot === undefined || (this.#isShown && now - this.#shownAt < SNAPSHOT_MS)) return
    this.#isShown = true
    this.#shownAt = now
    this.#observer.onSnapshot(this.snapshot)
  }
}

/** Work that is not tried again. */
function givenUp(path: string): PathWork {
  return { kind: 'path', path, target: undefined, bytes: 0, tries: TRIES_MAX }
}

/** With full jitter, so that what failed together does not come back together. */
function pauseMs(tries: number): number {
  return Math.random() * Math.min(RETRY_LAST_MS, RETRY_FIRST_MS * 2 ** tries)
}
