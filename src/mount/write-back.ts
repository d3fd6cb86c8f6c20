/**
 * Write-back: close and fsync answer when the bytes are durable in the journal on the staging disk; the publish runs in the
 * background, a few files side by side, each again with growing pauses until the store has it. After a crash `replay` brings
 * each file back that was acknowledged: staged, dirty and without a handle, and it is published as if nothing had happened.
 *
 *     dirty --close--> journaled --publish: ok, or removed here--> forgotten
 *                        |--written to--> dirty, on a copy: what the journal vouches for stays as it is
 *                        '--publish: conflict--> as the policy says, then forgotten
 *
 * What is put is what the journal vouches for, also while the copy is being written: so what was acknowledged gets stored
 * however long its writer goes on, and nothing that was not. A file that is larger than UNSHARE_BYTES_MAX is written to in
 * place, as on a local disk: it waits for its next close or fsync. What leaves no room on the staging disk, or is one too
 * many, is published before its close returns.
 *
 * Invariant: the record of a file is removed only when the store has what it vouches for, or something newer, or after
 * another record stands for it; and it is not older than what the store has of the file from here.
 */
import { openSync, constants, fstatSync, statfsSync } from 'node:fs'

import { isOperationError, OperationError } from '#base/errors.ts'
import { timestampNow } from '#base/time.ts'
import type { MaybePromise } from '#fuse/file-system.ts'
import { joinPath, nameOf, parentOf } from '#store/path.ts'
import { IMPLICIT_VERSION, type Attributes, type Entry, type Version } from '#store/store.ts'

import type { Journal, Journaled, LeftRecord } from './journal.ts'
import { Mutex } from './locks.ts'
import type { MountState } from './mount-state.ts'
import { OpenFile, type Node, type Sending } from './node.ts'
import { attemptOf, withAttempt, type Attempt } from './own-puts.ts'
import type { Extent } from './publisher.ts'
import { RangeSet } from './ranges.ts'
import { StagedFile, stagingError } from './staged-file.ts'
import { isSameFile, look, type Ask, type Elsewhere, type Stored } from './unanswered.ts'

/** A copy of so much takes some milliseconds, and nothing where the disk shares blocks. */
const UNSHARE_BYTES_MAX = 16 * 1024 * 1024
/** As many as a store has connections, so that files of one request each take the time of their bytes, not of their answers. */
const PUBLISHES_AT_ONCE = 64
/** What is larger puts its parts side by side already, and counts for so many. */
const SMALL_BYTES_MAX = 16 * 1024 * 1024
const LARGE_WEIGHT = 8
/** So much is left free on the staging disk for what is being written: a tenth of it, at most this. */
const FREE_BYTES_MAX = 1 << 30
const RETRY_MS_MIN = 1000
const RETRY_MS_MAX = 60_000

/** What the journal has of an open file. */
export interface JournaledFile extends Journaled {
  /** Which state of the file it is. */
  readonly generation: number
  readonly attributes: Attributes | undefined
  readonly path: string
  readonly version: Version | undefined
  /** The put that was under way, and that the record knows of. */
  readonly sending: Sending | undefined
  /** Its bytes must not be changed: a writer takes a copy. */
  isFixed: boolean
}

export interface Publishing {
  /** Resolves when the store has that much of the file. */
  readonly publish: (node: Node, extent?: Extent) => Promise<void>
  /** Lets go of a file that nobody holds. */
  readonly release: (node: Node) => void
}

export class WriteBack {
  readonly #state: MountState
  readonly #journal: Journal
  readonly #publishing: Publishing
  readonly #locks = new WeakMap<OpenFile, Mutex>()
  readonly #queue = new Set<Node>()
  readonly #failures = new WeakMap<Node, number>()
  #running = 0
  #started = false

  constructor(state: MountState, journal: Journal, publishing: Publishing) {
    this.#state = state
    this.#journal = journal
    this.#publishing = publishing
  }

  /** Resolves when what was written to `node` survives a crash: here, or in the store where there is no room here. */
  async acknowledge(node: Node): Promise<void> {
    const { file } = node
    if (file === undefined || !file.dirty || node.detached !== undefined) return this.#publishing.publish(node)
    if (await this.#isJournaled(node, file)) this.#enqueue(node)
    else await this.#publishing.publish(node)
  }

  /** Journals a file as it is; false where there is no room for that, or the disk fails. */
  async #isJournaled(node: Node, file: OpenFile): Promise<boolean> {
    try {
      if (!this.#isCurrent(node, file, file.staged) && this.#isFull()) return false
      await this.#write(node, file, () => file.staged)
      return true
    } catch (error) {
      this.#state.log.warn({ err: error }, `Cannot journal "${this.#state.table.describe(node)}"; it is stored at once`)
      return false
    }
  }

  /** Brings the record of a file in line with its name and attributes, where it has one; it goes on to be of the same bytes. */
  async rewrite(node: Node): Promise<void> {
    const { file } = node
    if (file?.journaled !== undefined) await this.#write(node, file, () => file.journaled?.staged)
  }

  /** As `rewrite`, of a file that has another name by now: that is so, whether it can be journaled or not. */
  async renamed(node: Node): Promise<void> {
    try {
      await this.rewrite(node)
    } catch (error) {
      const path = this.#state.table.describe(node)
      this.#state.log.error(
        { err: error, path },
        `Cannot journal the new name of "${path}"; after a crash before it is stored it has its old one`,
      )
      this.#enqueue(node)
    }
  }

  /** The store has a state of the file: the record of that, or of an older one, goes, and a newer one is brought in line. */
  async stored(node: Node, file: OpenFile, generation: number): Promise<void> {
    const { journaled } = file
    if (journaled === undefined || journaled.generation <= generation) {
      this.forget(file)
      return
    }
    try {
      await this.rewrite(node)
    } catch (error) {
      const path = this.#state.table.describe(node)
      this.#state.log.warn({ err: error, path }, `Cannot journal which version of "${path}" is stored`)
    }
  }

  /** What the journal vouches for, as long as it is whole here. */
  acknowledged({ staged, journaled }: OpenFile): StagedFile | undefined {
    if (journaled === undefined) return undefined
    return journaled.staged !== staged || journaled.generation === staged.generation ? journaled.staged : undefined
  }

  /**
   * Of a file that nobody has open any more, and whose last write found no room: goes back to what was acknowledged before;
   * of one that is written in place, to what is here. False where nothing was acknowledged.
   */
  revert(node: Node, file: OpenFile): boolean {
    const { journaled, staged } = file
    if (journaled === undefined || node.detached !== undefined) return false
    if (journaled.staged !== staged) {
      staged?.close()
      file.staged = journaled.staged
      journaled.ownsBytes = false
    }
    file.lacksRoom = false
    file.ahead?.abort()
    file.ahead = undefined
    node.size = journaled.staged.size
    node.cachedVersion = undefined
    this.#state.table.touch(node)
    this.#state.countDirty(node)
    this.#write(node, file, () => file.staged).then(
      () => this.#enqueue(node),
      (error: unknown) => this.#state.log.warn({ err: error }, `Cannot journal "${this.#state.table.describe(node)}"`),
    )
    return true
  }

  /** `node` takes the name of `replaced`: its record, once it has one, stands for that of the other, which stays until then. */
  takeOver(node: Node, replaced: Node): void {
    const { file } = node
    const other = replaced.file
    if (file === undefined || other === undefined) return
    file.replaced.push(...other.replaced, ...(other.journaled === undefined ? [] : [other.journaled]))
    other.replaced = []
    other.journaled = undefined
  }

  /** Drops the records of a file that the store has, or that is gone. */
  forget(file: OpenFile): void {
    const { journaled, replaced } = file
    file.journaled = undefined
    file.replaced = []
    for (const each of replaced) this.#journal.remove(each)
    if (journaled !== undefined) this.#journal.remove(journaled)
  }

  #isFull(): boolean {
    if (this.#state.dirty.size > this.#state.pendingMax) return true
    const { bavail, blocks, bsize } = statfsSync(this.#state.staging.directory)
    return bavail * bsize < Math.min(FREE_BYTES_MAX, (blocks * bsize) / 10)
  }

  /** Writes the record of the bytes that `which` gives, until it is of the file as it is. */
  #write(node: Node, file: OpenFile, which: () => StagedFile | undefined): Promise<void> {
    let lock = this.#locks.get(file)
    if (lock === undefined) {
      lock = new Mutex()
      this.#locks.set(file, lock)
    }
    return lock.run(async () => {
      while (file.dirty && node.detached === undefined) {
        const staged = which()
        if (staged === undefined || this.#isCurrent(node, file, staged)) return
        await this.#writeOnce(node, file, staged)
      }
    })
  }

  #isCurrent(node: Node, { journaled, replaced, sending }: OpenFile, staged: StagedFile | undefined): boolean {
    if (journaled === undefined || staged === undefined || journaled.staged !== staged || replaced.length > 0)
      return false
    // A put of older bytes has begun while the record was written: after a crash it must be known for ours.
    if (sending !== undefined && sending.staged !== staged && journaled.sending !== sending) return false
    const { generation, attributes, path, version } = journaled
    const isSame = generation === staged.generation && attributes === node.attributes && version === node.version
    return isSame && path === this.#state.table.pathOf(node)
  }

  async #writeOnce(node: Node, file: OpenFile, staged: StagedFile): Promise<void> {
    const { journaled: before } = file
    const isSame = before?.staged === staged
    const id = isSame ? before.id : this.#journal.newId()
    const replaced = [...file.replaced, ...(before === undefined || isSame ? [] : [before])]
    const { sending } = file
    const attempts = await this.#attemptsOf(file, staged)
    const { generation, size, baseEnd } = staged
    const { attributes, version } = node
    const path = this.#state.table.pathOf(node)
    const sent = file.sending?.staged === staged ? file.sending.sent.dirty : new RangeSet()
    const dirty = new RangeSet([...staged.dirty.within(0, size), ...sent.within(0, size)])
    const changes = file.sentChanges === undefined ? file.changes : file.sentChanges.with(file.changes)
    const { missing } = staged
    const replaces = replaced.map((each) => each.id)
    const elsewhere = this.#state.unanswered.elsewhereOf(node)
    const place = { path, version, attributes: attributes ?? {}, changes, attempts, replaces, elsewhere }
    const facts = { ...place, size, baseEnd, dirty, missing }
    const dataPath = this.#journal.dataPath(id)
    if (!isSame) staged.giveName(dataPath)
    try {
      await this.#journal.write(id, staged, facts)
    } catch (error) {
      if (!isSame) staged.takeName(dataPath, this.#state.staging.newPath())
      throw error
    }
    // Forgotten while this was written, its bytes have lost their name.
    const isKnown = file.journaled === before
    if (isSame && !isKnown) {
      this.#journal.removeRecord(id)
      return
    }
    const done = replaced.filter((each) => (each === before ? isKnown : file.replaced.includes(each)))
    const ownsBytes = before?.staged === staged && before.ownsBytes
    file.journaled = { id, staged, ownsBytes, generation, attributes, path, version, sending, isFixed: true }
    file.replaced = file.replaced.filter((each) => !replaced.includes(each))
    for (const each of done) this.#journal.remove(each)
    // It was stored, or removed, while the record was written.
    if (!file.dirty || node.detached === 'removed') this.forget(file)
  }

  /** Puts of ours that may be what the store has; one under way of other bytes than `staged` is among them. */
  async #attemptsOf({ attempts, sending }: OpenFile, staged: StagedFile): Promise<readonly Attempt[]> {
    if (sending === undefined || sending.staged === staged) return attempts
    const attempt = await attemptOf(sending.staged, sending.sent, sending.attributes, sending.snapshot)
    return attempt === undefined ? attempts : withAttempt(attempts, attempt)
  }

  /** The staged file for a writer that wants the first `length` bytes of it: another one where the journal vouches for it. */
  writable(file: OpenFile, staged: StagedFile, length: number): StagedFile {
    const { journaled } = file
    if (journaled?.staged !== staged || !journaled.isFixed) return staged
    const size = Math.min(length, staged.size)
    if (size > UNSHARE_BYTES_MAX || !staged.isComplete) {
      journaled.isFixed = false
      return staged
    }
    const copy = this.#state.staging.create()
    try {
      copy.copyOf(staged, size)
    } catch (error) {
      copy.close()
      throw error
    }
    // A put under way goes on with the old one, and what is written from now on is for the next.
    if (file.publishing === undefined) file.ahead?.abort()
    file.publishing = undefined
    file.ahead = undefined
    file.staged = copy
    journaled.ownsBytes = true
    return copy
  }

  /** Runs a change; where the staging disk is full of what is pending, once more after that was stored. */
  withRoom<T>(change: () => MaybePromise<T>): MaybePromise<T> {
    const later = (error: unknown): Promise<T> => {
      const isPending = [...this.#state.dirty].some(({ file }) => file?.journaled !== undefined)
      if (!isPending || !isOperationError(error, 'STAGING_NO_SPACE')) throw error
      return this.#makeRoom().then(change)
    }
    try {
      const changed = change()
      return changed instanceof Promise ? changed.catch(later) : changed
    } catch (error) {
      return later(error)
    }
  }

  async #makeRoom(): Promise<void> {
    const pending = [...this.#state.dirty].filter(({ file }) => file?.journaled !== undefined)
    for (const node of pending) {
      await this.#publishing.publish(node, 'acknowledged')
      this.#publishing.release(node)
    }
  }

  #enqueue(node: Node): void {
    this.#queue.add(node)
    this.#pump()
  }

  #pump(): void {
    for (const node of this.#queue) {
      if (this.#running >= PUBLISHES_AT_ONCE || !this.#started) return
      this.#queue.delete(node)
      const weight = node.size > SMALL_BYTES_MAX ? LARGE_WEIGHT : 1
      this.#running += weight
      void this.#publishOne(node).finally(() => {
        this.#running -= weight
        this.#pump()
      })
    }
  }

  async #publishOne(node: Node): Promise<void> {
    const { file } = node
    if (file === undefined || !node.isAhead) return
    try {
      await this.#publishing.publish(node, 'acknowledged')
      this.#failures.delete(node)
    } catch {
      // The publisher has told the log. What was lost to another writer is settled, and anything else is tried again.
      if (node.isAhead && !this.#state.signal.aborted) this.#tryLater(node)
    }
    this.#publishing.release(node)
  }

  #tryLater(node: Node): void {
    const failures = (this.#failures.get(node) ?? 0) + 1
    this.#failures.set(node, failures)
    setTimeout(() => this.#enqueue(node), Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** (failures - 1))).unref()
  }

  /** Begins to publish. */
  start(): void {
    this.#started = true
    this.#pump()
  }

  /** Takes in what a mount before this one has left; before any request. */
  replay(): void {
    const { left } = this.#journal
    for (const each of left) this.#replay(each)
    if (left.length > 0) {
      this.#state.log.info({ count: left.length }, 'found files in the journal that were not yet stored; storing them')
    }
  }

  #replay({ id, record }: LeftRecord): void {
    const { table } = this.#state
    const { path, version, attributes, changes, attempts } = record
    const parent = this.#directory(parentOf(path))
    const known = table.childOf(parent, nameOf(path))
    // It was superseded when the later one was made: the policy says what becomes of it.
    if (known !== undefined) table.supersede(known)
    const staged = this.#restored(id, record)
    const node = table.add(parent, nameOf(path), {
      ...{ kind: 'file', version, size: staged.size, modified: timestampNow(), attributes },
      ...{ validatedAt: -Infinity, changedAt: 0 },
    })
    const file = new OpenFile()
    node.file = file
    file.staged = staged
    file.dirty = true
    file.attributesDirty = true
    file.changes = changes
    file.attempts = attempts
    const { generation, size } = staged
    const sent = { size, dirty: new RangeSet(staged.dirty.within(0, size)), generation }
    file.replayed = { staged, sent, attributes, snapshot: undefined }
    file.journaled = {
      ...{ id, staged, ownsBytes: false, isFixed: true },
      ...{ generation, attributes, path, version, sending: undefined },
    }
    table.settle(node)
    table.touch(node)
    this.#state.countDirty(node)
    if (record.elsewhere !== undefined) this.#ask(node, record.elsewhere)
    this.#queue.add(node)
  }

  /** It was being moved or removed when the mount before this one died: where it is the store is asked before it is stored. */
  #ask(node: Node, { path: newPath, size, mtime }: Elsewhere): void {
    const { store, table, unanswered } = this.#state
    const { parent, name, version } = node
    if (parent === undefined) return
    const from = { parent, name }
    const to = newPath === undefined ? undefined : { parent: this.#directory(parentOf(newPath)), name: nameOf(newPath) }
    const stored: Stored = { kind: 'file', version, size, attributes: mtime && { mtime } }
    const ask: Ask<Entry | 'gone'> = async (options) => {
      const found = await look(store, joinPath(table.pathOf(parent), name), options)
      if (found?.version === version) return undefined
      if (to === undefined) return found === undefined ? 'gone' : undefined
      const moved = await look(store, joinPath(table.pathOf(to.parent), to.name), options)
      return moved !== undefined && isSameFile(stored, moved) ? moved : undefined
    }
    const late = (found: Entry | 'gone'): void => {
      const { file } = node
      if (node.detached !== undefined || file === undefined) return
      if (found === 'gone') {
        table.detach(node, 'removed')
        file.dirty = false
        file.attributesDirty = false
        this.#state.countDirty(node)
      } else if (to !== undefined) {
        const other = table.childOf(to.parent, to.name)
        if (other !== undefined) table.supersede(other)
        table.move(node, to.parent, to.name)
        node.version = found.version
      }
    }
    unanswered.put(to === undefined ? [from] : [from, to], ask, late)
  }

  #directory(path: string): Node {
    const { table } = this.#state
    let at = table.root
    let walked = ''
    for (const name of path === '' ? [] : path.split('/')) {
      walked = joinPath(walked, name)
      const known = table.childOf(at, name)
      if (known !== undefined && known.directory === undefined) {
        throw new OperationError('LOCAL_FAILED', `Cannot use the journal: "${walked}" is a file and a directory in it`)
      }
      at =
        known ??
        table.add(at, name, {
          ...{ kind: 'directory', version: IMPLICIT_VERSION, size: 0, modified: timestampNow(), attributes: undefined },
          ...{ validatedAt: -Infinity, changedAt: 0 },
        })
    }
    return at
  }

  #restored(id: string, { size, baseEnd, dirty, missing }: LeftRecord['record']): StagedFile {
    let fd: number
    try {
      fd = openSync(this.#journal.dataPath(id), constants.O_RDWR)
    } catch (error) {
      throw stagingError('open', error)
    }
    // A large file may have been cut in place by who died before its close.
    const there = Math.min(size, fstatSync(fd).size)
    return StagedFile.restored(fd, there, { baseEnd, dirty, missing })
  }

  /** To be called when nothing is written any more. */
  close(): Promise<void> {
    this.#started = false
    return this.#journal.close()
  }
}
