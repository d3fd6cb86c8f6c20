/**
 * Do what waits in the queue, so many at a time: each takes a path, decides about it, carries that out, and notes what follows from
 * it (other names of the file, directories to finish, another try). What may not be done by itself is handed on: a removal before
 * the target was compared to `gone.ts`, a subtree to be compared to the sync.
 */
import { isOperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { parentOf } from '#store/path.ts'

import type { Decision } from './decision.ts'
import type { Gone } from './gone.ts'
import { RoomWaits } from './executor.ts'
import { Mover } from './mover.ts'
import type { Progress } from './progress.ts'
import { isFatal, mayPass, pauseMs, TRIES_MAX } from './retry.ts'
import { takesPart } from './source.ts'
import type { SyncOptions, SyncParts } from './sync.ts'
import type { TouchedDirectories } from './touched-directories.ts'
import type { TreeEntry } from './tree.ts'
import { WorkQueue, type MoveWork, type PathWork } from './work-queue.ts'

const log = logger('sync')
/** What waits for a store that was away is tried within that time once it is back. */
const BACK_MS = 1000

/** Where workers hand on what is not theirs to do. */
export interface WorkerEnds {
  readonly progress: Progress
  readonly directories: TouchedDirectories
  readonly gone: Gone
  /** The directory is to be compared with what is remembered. */
  readonly compareLater: (path: string) => void
  /** The sync cannot go on: its signal fires before this returns. */
  readonly onFatal: (error: unknown) => void
}

export class Workers {
  readonly queue = new WorkQueue()
  readonly #parts: SyncParts
  readonly #options: SyncOptions
  readonly #ends: WorkerEnds
  readonly #mover: Mover
  /** Files with several names of which not all are known, which others outside of the tree need not be. */
  readonly #linksSought = new Set<string>()
  /** Paths where a directory of the target is in the way, until it is known how much is to be deleted. */
  readonly #waitForRoom = new Set<string>()
  /** The last that was tried failed for what fails many alike, as a store that cannot be reached. */
  #isAway = false
  #waiters: (() => void)[] = []
  #timer: NodeJS.Timeout | undefined

  constructor(parts: SyncParts, options: SyncOptions, ends: WorkerEnds) {
    this.#parts = parts
    this.#options = options
    this.#ends = ends
    const { deletes, backupDirectory } = options
    const mayReplace = { deletes: deletes !== 'never', backupDirectory }
    this.#mover = new Mover(parts.source, parts.actor, parts.state, mayReplace)
  }

  /** Begins what can be begun. To be called after something was added to the queue. */
  pump(): void {
    clearTimeout(this.#timer)
    const { threads, signal } = this.#options
    while (this.queue.running < threads && !signal.aborted) {
      const work = this.queue.next(Date.now())
      if (work === undefined) break
      void (work.kind === 'move' ? this.#doMove(work) : this.#doPath(work))
    }
    const at = this.queue.nextAt
    if (at !== undefined && !signal.aborted) {
      this.#timer = setTimeout(() => this.pump(), Math.max(1, at - Date.now()))
    }
  }

  /** Resolves at the next change of what is to be done. */
  changed(): Promise<void> {
    return new Promise((resolve) => this.#waiters.push(resolve))
  }

  /** What is to be done has changed. */
  wake(): void {
    this.#ends.progress.show()
    const waiters = this.#waiters
    this.#waiters = []
    for (const wake of waiters) wake()
  }

  /** Once the signal has fired: resolves when nothing is under way. */
  async ended(): Promise<void> {
    clearTimeout(this.#timer)
    while (this.queue.running > 0) await this.changed()
  }

  /** Something is to be done once it is known how much is to be deleted. */
  get isRoomAwaited(): boolean {
    return this.#waitForRoom.size > 0
  }

  /** It is known how much is to be deleted, and what was found in the target alone is gone. */
  makeRoom(): void {
    for (const path of this.#waitForRoom) this.queue.add(path)
    this.#waitForRoom.clear()
    this.pump()
  }

  /** What failed at the path outside of the queue: it is not tried again. */
  giveUp(path: string, error: unknown): void {
    if (isFatal(error)) this.#ends.onFatal(error)
    if (this.#options.signal.aborted) return
    log.debug({ err: error, path }, 'a path could not be made equal')
    this.#tellFailed(path, error)
  }

  async #doPath(work: PathWork): Promise<void> {
    const { path, target } = work
    const { gone, progress } = this.#ends
    if (work.tries > 0) progress.tally.retried++
    try {
      const decision = await this.#parts.decider.decide(path, target)
      if (decision.do === 'delete' && !gone.isCompared) {
        // Counted with all that goes, once it is known how much there is.
        gone.add(path, decision.target)
        this.queue.done(path)
      } else await this.#carryOut(work, decision)
    } catch (error) {
      if (error instanceof RoomWaits) {
        this.#waitForRoom.add(path)
        this.queue.done(path)
      } else this.#failed(work, error)
    }
    this.wake()
    this.pump()
  }

  async #carryOut({ path, tries }: PathWork, decision: Decision): Promise<void> {
    const { executor, state } = this.#parts
    const { progress, directories } = this.#ends
    const { tally } = progress
    const outcome = await executor.carryOut(decision, tries + 1 < TRIES_MAX)
    log.trace({ path, decision: decision.do, outcome }, 'done')
    if (this.#isAway && outcome !== 'nothing') {
      this.#isAway = false
      this.queue.hasten(Date.now(), BACK_MS)
    }
    if (decision.do === 'skip') progress.skipped(decision.skipped)
    else tally.mended(path)
    tally.count(outcome)
    if (decision.do === 'remember') tally.compared.same++
    if (decision.do === 'send' || decision.do === 'set-attributes') this.#askOtherNames(decision.entry)
    if (outcome !== 'nothing') this.#didChange(path, outcome === 'deleted')
    if (this.#options.metadata) {
      // What came and went again has changed its directory's times all the same.
      directories.touch(parentOf(path), 'maybe')
      if (state.known(`${path}/`) !== undefined) directories.touch(path, outcome === 'nothing' ? 'maybe' : 'changed')
    }
    state.fulfilled(path)
    this.queue.done(path, outcome === 'changed' ? Date.now() + pauseMs(tries) : undefined)
  }

  /** Of a file with several names; those that were made while nobody looked at the first one are looked for, once. */
  #askOtherNames(entry: TreeEntry): void {
    const { source } = this.#parts
    const names = source.otherNames(entry)
    for (const name of names) this.queue.add(name)
    const { links, inode } = entry.identity ?? {}
    if (links === undefined || names.length + 1 >= links) return
    const sought = `${inode} ${links}`
    if (this.#linksSought.has(sought)) return
    this.#linksSought.add(sought)
    for (const root of source.roots) this.#ends.compareLater(root)
  }

  async #doMove(move: MoveWork): Promise<void> {
    const { from, to, isDirectory } = move
    const { tally } = this.#ends.progress
    let isDone = false
    try {
      isDone = await this.#mover.move(move, this.#options.signal)
    } catch (error) {
      if (isFatal(error)) this.#ends.onFatal(error)
      else log.info({ err: error, from, to }, 'a rename could not be done as one: its files are compared')
    }
    log.trace({ from, to, isDone }, 'moved')
    for (const path of this.queue.moved(move, isDone)) {
      this.#parts.state.fulfilled(path)
      tally.mended(path)
    }
    if (isDone) {
      tally.renamed++
      this.#didChange(from, true)
      this.#didChange(to, false)
    } else {
      this.#parts.state.intend({ path: from, since: Date.now() })
      this.queue.add(from)
    }
    if (isDirectory) {
      if (!isDone) this.#ends.compareLater(from)
      this.#ends.compareLater(to)
    }
    this.wake()
    this.pump()
  }

  /** The directory of what was changed has new times in the target; one that is empty now may have to be made. */
  #didChange(path: string, isGone: boolean): void {
    const { source, actor } = this.#parts
    const above = parentOf(path)
    this.#ends.progress.tally.changed()
    this.#ends.directories.touch(above, 'changed')
    if (isGone && above !== '' && takesPart(source, above) && actor.keeps?.directories === true) this.queue.add(above)
  }

  #failed({ path, tries }: PathWork, error: unknown): void {
    const { once, signal } = this.#options
    const isRunning = this.queue.isRunning(path)
    if (isFatal(error)) this.#ends.onFatal(error)
    if (signal.aborted) {
      if (isRunning) this.queue.done(path)
      return
    }
    if (isOperationError(error) && error.retry === 'backoff') this.#isAway = true
    // Others that were being sent at the time may have had the room that one of them would have been enough for.
    const isCrowded = isOperationError(error, 'STORE_NO_SPACE') && tries === 0 && this.queue.running > 1
    const retries = (mayPass(error) || isCrowded) && isRunning && (tries + 1 < TRIES_MAX || !once)
    log.debug({ err: error, path, tries, retries }, 'a path could not be made equal')
    if (!retries || tries + 1 === TRIES_MAX) this.#tellFailed(path, error)
    if (isRunning) this.queue.done(path, retries ? Date.now() + pauseMs(tries) : undefined)
  }

  #tellFailed(path: string, error: unknown): void {
    const failure = this.#ends.progress.failed(path, error)
    this.#parts.state.intend({ path, since: Date.now(), failure: failure.message })
  }
}
