/**
 * A sync: makes the target equal to the source, and keeps it equal. Everything that tells of a difference (a comparison of the
 * trees, a watcher, whoever names a path) only names the path; one queue holds what is named, and whoever takes a path from
 * it looks at the source then (`decision.ts`), so that it does not matter who told what, when, or how often.
 *
 * A run compares each root with the target's listing, while what differs is sent already; what only the target has is
 * deleted when the comparison is over and sending has not failed. Then, unless it is to be done once, it follows the watchers.
 * Comparisons after the first ask the memory of the sync instead of the target (`state.ts`): the target has one writer.
 */
import { setTimeout as delay } from 'node:timers/promises'

import { isOperationError, OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { timestampNow, type Timestamp } from '#base/time.ts'
import { untilAborted } from '#store/abort.ts'
import { Slice } from '#store/directory/listing.ts'
import { isWithin } from '#store/path.ts'

import type { Actor } from './actor.ts'
import { actorListing } from './actor-listing.ts'
import { compare, type Differences } from './comparison.ts'
import type { Decider } from './decision.ts'
import type { DeleteGuard } from './delete-guard.ts'
import { Deletion } from './deletion.ts'
import type { Executor } from './executor.ts'
import { Gone } from './gone.ts'
import { Progress } from './progress.ts'
import type { SyncFailure, SyncSnapshot, SyncWatcher } from './snapshot.ts'
import { takesPart, type SyncSource } from './source.ts'
import type { SyncState } from './state.ts'
import type { Tally } from './tally.ts'
import { TouchedDirectories } from './touched-directories.ts'
import type { Listing, Skipped } from './tree.ts'
import type { Change } from './watch/watcher.ts'
import type { WorkQueue } from './work-queue.ts'
import { Workers } from './workers.ts'

const log = logger('sync')
/** A comparison waits while so many paths wait, so that memory does not grow with the tree. */
const WAITING_MAX = 10_000
/** When a comparison began after which all was equal. */
const EQUAL_SINCE = 'equal since'
/** A file that is written without being closed is sent that long after a write, and not at each. */
const OPEN_FILE_MS = 1000
const SETTLED_LOOK_MS = 20
/** After a comparison that could not be made. */
const COMPARE_AGAIN_MS = 30_000

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
  readonly tally: Tally
  readonly #parts: SyncParts
  /** With a signal that fires also where the sync cannot go on. */
  readonly #options: SyncOptions
  readonly #userSignal: AbortSignal
  readonly #follower: Follower | undefined
  readonly #progress: Progress
  readonly #directories: TouchedDirectories
  readonly #gone: Gone
  readonly #workers: Workers
  readonly #queue: WorkQueue
  readonly #stop = new AbortController()
  /** Directories to compare with what is remembered. */
  readonly #subtrees = new Set<string>()
  /** The comparison of subtrees that is under way. */
  #comparing: Promise<void> | undefined
  /** When the last comparison began, until all that it found is known to have been done. */
  #comparedAt: Timestamp | undefined
  #failure: Error | undefined
  #isFinished = false

  constructor(parts: SyncParts, options: SyncOptions, observer: SyncObserver = {}, follower?: Follower) {
    this.#parts = parts
    this.#userSignal = options.signal
    this.#options = { ...options, signal: AbortSignal.any([options.signal, this.#stop.signal]) }
    this.#follower = follower
    this.#progress = new Progress(observer, () => this.snapshot)
    this.tally = this.#progress.tally
    this.#directories = new TouchedDirectories(parts, this.#options)
    const onFatal = (error: unknown): void => this.#fatal(error)
    this.#gone = new Gone(parts, this.#options, {
      isComparing: () => this.#comparing !== undefined,
      onGone: (gone) => {
        for (const [path, target] of gone) this.#queue.add(path, target)
        this.#workers.pump()
      },
      onFailed: onFatal,
    })
    this.#workers = new Workers(parts, this.#options, {
      ...{ progress: this.#progress, directories: this.#directories, gone: this.#gone, onFatal },
      compareLater: (path) => this.#compareLater(path),
    })
    this.#queue = this.#workers.queue
  }

  /**
   * Runs until the target is equal (`once`) or the signal of the options aborts.
   * @throws OperationError for what keeps it from going on; what failed for single paths is in the tally
   */
  async run(): Promise<void> {
    const following = this.#begin()
    try {
      await Promise.race([this.#work(), following])
      this.#isFinished = true
    } catch (error) {
      if (!this.#userSignal.aborted) throw this.#failure ?? error
    } finally {
      this.#progress.phase('stopping')
      this.#stop.abort()
      this.#gone.stop()
      await this.#follower?.close()
      await Promise.allSettled([following, this.#comparing])
      await this.#workers.ended()
      await this.#parts.state.flushed()
      this.#progress.end()
    }
    if (this.#failure !== undefined && !this.#userSignal.aborted) throw this.#failure
  }

  /** Of a run that ends when the target is equal: whether it came so far. */
  get isFinished(): boolean {
    return this.#isFinished
  }

  get snapshot(): SyncSnapshot {
    this.tally.sentBytes = this.#parts.executor.bytesSent
    this.tally.removed = this.#parts.executor.removed
    const { waiting, running, bytes } = this.#queue
    const pending = { waiting: waiting + this.#directories.count + this.#gone.count, running, bytes }
    return this.tally.snapshot(pending, this.#follower?.status)
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
          this.#gone.add(at(change.path))
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
          this.#progress.skipped({ path: at(change.path), reason: change.reason, detail: change.detail })
      }
    }
    this.#workers.pump()
    if (!this.#directories.isEmpty && this.#isAtRest) this.#workers.wake()
  }

  /** `path` of the target is to be made equal: kept until it is done, also over a restart. */
  ask(path: string): void {
    if (path === '') this.#directories.touch(path, 'maybe')
    if (path === '' || !takesPart(this.#parts.source, path)) return
    this.#parts.state.intend({ path, since: Date.now() })
    this.#queue.add(path)
    this.#workers.pump()
  }

  /** Kept durably when it resolves. */
  async askDurably(path: string): Promise<void> {
    this.ask(path)
    await this.#parts.state.flushed()
  }

  async #begin(): Promise<void> {
    if (this.#follower === undefined) return untilAborted('sync', new Promise(() => undefined), this.#options.signal)
    await this.#follower.arm()
    const signal = this.#options.signal
    await untilAborted('follow the source', this.#follower.follow(this, signal), signal)
  }

  async #work(): Promise<void> {
    this.#options.signal.throwIfAborted()
    await this.#replay()
    if (this.#options.once) return this.#compareAll('target')
    const every = this.#options.compareEveryMs === 0 ? Number.POSITIVE_INFINITY : this.#options.compareEveryMs
    // What is remembered is what the target has once the two were compared.
    let isCompared = await this.#compareIfCan('target')
    let next = Date.now() + (isCompared ? every : Math.min(every, COMPARE_AGAIN_MS))
    for (;;) {
      this.#progress.phase('watching')
      if (this.#isAtRest) await this.#rest()
      await this.#changedUntil(next)
      if (Date.now() < next) continue
      const isDone = await this.#compareIfCan(isCompared && this.#parts.source.isLocal ? 'memory' : 'target')
      isCompared ||= isDone
      next = Date.now() + (isDone ? every : Math.min(every, COMPARE_AGAIN_MS))
    }
  }

  /** False where a side cannot be listed for now: a sync that stays tries again. */
  async #compareIfCan(against: 'target' | 'memory'): Promise<boolean> {
    try {
      await this.#compareAll(against)
      return true
    } catch (error) {
      if (this.#options.signal.aborted || !isOperationError(error) || error.retry === 'never') throw error
      log.warn({ err: error }, 'the trees could not be compared, which is tried again')
      // The tree as a whole, until it was compared.
      this.#progress.failed('', error)
      return false
    }
  }

  /**
   * What an earlier run meant to do and did not come to. What is gone by now is left to the comparison, which counts all that it
   * would delete.
   */
  async #replay(): Promise<void> {
    const { source, state } = this.#parts
    for (const { path } of state.intents()) {
      const looked = takesPart(source, path) ? await source.look(path, { signal: this.#options.signal }) : undefined
      // A run that ends compares all of it anyway.
      if (looked?.is === 'entry' && !this.#options.once) this.#queue.add(path)
      else state.fulfilled(path)
    }
  }

  get #isAtRest(): boolean {
    return this.#comparing === undefined && this.#gone.isEmpty && this.#queue.isResting
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
    await this.#directories.finish({
      isResting: () => this.#queue.isResting,
      onFinished: () => {
        this.tally.count('attributes-set')
        this.#progress.show()
      },
      onFailed: (path, error) => this.#workers.giveUp(path, error),
    })
    const isSettled = this.#queue.isWhole && !this.#workers.isRoomAwaited && !this.#parts.state.holdsWritten
    const isWhole = isSettled && this.tally.failures.length === 0
    const isEqual = this.#isAtRest && isWhole
    if (!isEqual || this.#comparedAt === undefined) return
    const comparedAt = this.#comparedAt
    this.#comparedAt = undefined
    await this.#parts.state.setFact(EQUAL_SINCE, JSON.stringify([this.#options.fingerprint, comparedAt]))
  }

  async #compareAll(against: 'target' | 'memory'): Promise<void> {
    const { source, deleteGuard, state, decider } = this.#parts
    const { compared } = this.tally
    Object.assign(compared, { source: 0, target: 0, same: 0 })
    this.#progress.phase('comparing')
    const startedAt = timestampNow()
    decider.equalSince = this.#equalSince()
    const deletion = new Deletion(this.#parts, this.#options, this.#workers, this.#directories, this.#progress)
    try {
      for (const [index, root] of source.roots.entries()) {
        const target = against === 'target' ? this.#targetListing(root) : state.listing(root, new Slice())
        deletion.beginRoot()
        await this.#compare(root, target, deletion)
        deletion.endRoot(source.names[index] ?? root)
      }
      this.tally.mended('')
      await this.#directories.touchRoots()
      this.#progress.phase('sending')
      await this.#settled()
      await deletion.finish()
      deleteGuard.begin(compared.source)
      this.#gone.isCompared = true
      // Else what lies there is kept with the rest.
      if (this.tally.keptBack === 0) this.#workers.makeRoom()
      this.#comparedAt = this.tally.missed === 0 ? startedAt : undefined
      if (!this.#options.once) return
      await this.#gone.ask()
      await this.#settled()
      await this.#rest()
    } finally {
      deletion.close()
    }
  }

  async #compare(under: string, target: Listing, deletion: Deletion | undefined): Promise<void> {
    const { source, decider, actor } = this.#parts
    const { metadata, backupDirectory, signal } = this.#options
    const pathBytesMax = actor.keeps?.pathBytesMax
    const listing = source.list(under, {
      signal,
      onSkipped: (skipped) => this.#progress.skipped(skipped),
      ...(pathBytesMax === undefined ? {} : { pathBytesMax }),
    })
    const differences: Differences = {
      onDifferent: (path, there, bytes) => this.#queue.add(path, deletion === undefined ? undefined : there, bytes),
      onTargetOnly: (entry) => (deletion === undefined ? this.#gone.add(entry.path, entry) : deletion.add(entry)),
      onKept: (path) => deletion?.keep(path),
      onDirectory: (path) => this.#directories.touch(path, 'changed'),
      room: async () => {
        // First, as it makes room for what is sent.
        await deletion?.meanwhile()
        this.#workers.pump()
        while (this.#queue.waiting > WAITING_MAX && !this.#queue.isResting) await this.#workers.changed()
        signal.throwIfAborted()
      },
    }
    const isRootAtRest = source.isLocal && (await this.#isDirectoryAtRest(under))
    await compare({ source: listing, target }, differences, this.tally.compared, {
      ...{ source, decider, metadata, backupDirectory, isRootAtRest },
      directories: decider.keepsDirectories,
    })
  }

  async #isDirectoryAtRest(path: string): Promise<boolean> {
    const looked = await this.#parts.source.look(path, { signal: this.#options.signal })
    const isDirectory = looked.is === 'entry' && looked.entry.kind === 'directory'
    const identity = isDirectory ? looked.entry.identity : undefined
    return identity !== undefined && this.#parts.decider.isOlder(identity)
  }

  #targetListing(root: string): Listing {
    return actorListing(this.#parts.actor, root, {
      scratch: this.#options.scratch,
      signal: this.#options.signal,
      brief: !this.#options.metadata,
      onSkipped: (skipped) => this.#progress.skipped(skipped),
    })
  }

  #compareLater(path: string): void {
    for (const other of this.#subtrees) if (isWithin(path, other)) return
    this.#subtrees.add(path)
    this.#comparing ??= this.#compareSubtrees()
      .catch((error: unknown) => this.#fatal(error))
      .finally(() => {
        this.#comparing = undefined
        this.#workers.wake()
      })
  }

  /** One after another; what they find that is only remembered is looked at as any other path. */
  async #compareSubtrees(): Promise<void> {
    for (const path of this.#subtrees) {
      this.#subtrees.delete(path)
      if (this.#options.signal.aborted) return
      if (!takesPart(this.#parts.source, path)) continue
      if (path !== '') this.#queue.add(path)
      try {
        await this.#compare(path, this.#parts.state.listing(path, new Slice()), undefined)
      } catch (error) {
        if (this.#options.signal.aborted) return
        // It may be gone, or no directory any more: then the look at the path itself finds what is left of it.
        if (isOperationError(error, 'ROOT_CHANGED')) throw error
        log.debug({ err: error, path }, 'a subtree could not be compared')
        if (!isOperationError(error, 'LOCAL_FAILED')) throw error
      }
    }
  }

  /**
   * Resolves when all that was asked for until now is done, or has failed and waits for its time: under changes without an end
   * there is always something that was asked for since. In a run that ends, when nothing is left at all.
   */
  async #settled(): Promise<void> {
    const { mark } = this.#queue
    this.#workers.pump()
    const isOver = (): boolean => {
      if (this.#options.once) return this.#comparing === undefined && this.#queue.isEmpty
      return this.#isAtRest || this.#queue.isPast(mark)
    }
    while (!isOver()) {
      await this.#workers.changed()
      // To ask takes a look at all that waits.
      if (!this.#options.once && !this.#queue.isResting) await delay(SETTLED_LOOK_MS)
      this.#options.signal.throwIfAborted()
    }
  }

  async #changedUntil(at: number): Promise<void> {
    if (!this.#directories.isEmpty && this.#isAtRest) return
    let timer: NodeJS.Timeout | undefined
    const due = new Promise<void>((resolve) => {
      if (Number.isFinite(at)) timer = setTimeout(resolve, Math.max(0, at - Date.now()))
    })
    await Promise.race([this.#workers.changed(), due])
    clearTimeout(timer)
    this.#options.signal.throwIfAborted()
  }

  #fatal(error: unknown): void {
    this.#failure ??= error instanceof Error ? error : new Error(String(error))
    this.#stop.abort(error)
    this.#workers.wake()
  }
}
