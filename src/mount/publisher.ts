/**
 * From staged files to the store. A publish is one `put` under the guard of the version that was opened (`ABSENT` for what
 * was created here), with the attributes of the inode; one runs at a time per inode, and writers wait while it reads the
 * staged bytes. It resolves when the store has them: that is what close and fsync return.
 *
 * States of a file, by what is ahead of the store:
 *
 *     clean --stage()--> staged --write--> dirty --publish: ok--> staged --last close--> clean
 *                                            |--a write finds no room--> not published (ENOSPC) --last close--> dropped
 *                                            |--publish: conflict--> by the policy: lost (kept under conflicts/, ESTALE),
 *                                            |                       or dirty under another name or version
 *                                            |--publish: failed--> dirty: the error goes to the closer, tried again later
 *
 * Invariant: staged bytes that the store does not have are dropped only for a file that was removed here, after they were kept
 * under `conflicts/` and a line in the log said where, or where its writer was told that they do not fit on this disk.
 */
import { assert } from '#base/assert.ts'
import { isOperationError, OperationError, type ErrorCode } from '#base/errors.ts'
import { ABSENT, ifVersion, type Attributes, type Entry, type Reading, type Source } from '#store/store.ts'

import { AttributeChanges } from './attribute-changes.ts'
import { ConflictCopies } from './conflict-copies.ts'
import { ConflictPolicy, type Resolution } from './conflict-policy.ts'
import type { MountState } from './mount-state.ts'
import { OpenFile, placesOf, type Node } from './node.ts'
import { attemptOf, isAttempt, withAttempt } from './own-puts.ts'
import { planSegments } from './publish-plan.ts'
import type { SentState, StagedFile } from './staged-file.ts'
import { Stager } from './stager.ts'
import { askChanged } from './unanswered.ts'
import type { UploadAhead } from './upload-ahead.ts'
import { WriteBack } from './write-back.ts'

const NO_BYTES = new Uint8Array(0)
/**
 * What is smaller is put from memory, so that nobody who writes waits for the put: a store reads it into memory anyway. All
 * together are bounded; what does not fit is read from the staged file.
 */
const SNAPSHOT_BYTES_MAX = 1 << 20
const SNAPSHOTS_BYTES_MAX = 8 << 20
/**
 * Why a file can never be stored as it is. Whatever else a store answers is about the account, the clock, the room or the
 * network: that passes, or somebody mends it, and the file is stored then.
 */
const OF_THE_FILE: readonly ErrorCode[] = [
  'STORE_NOT_FOUND',
  'STORE_NOT_DIRECTORY',
  'STORE_IS_DIRECTORY',
  'STORE_NAME_INVALID',
  'STORE_NAME_TOO_LONG',
  'STORE_FILE_TOO_LARGE',
  'STORE_ATTRIBUTES_TOO_LARGE',
  'STORE_UNSUPPORTED',
]

/** What of a file is put: all that was written, or only what the journal vouches for. */
export type Extent = 'all' | 'acknowledged'

export class Publisher {
  readonly #state: MountState
  readonly #stager: Stager
  readonly #copies: ConflictCopies
  readonly #policy: ConflictPolicy
  /** Bytes of files that are put from memory just now. */
  #snapshotBytes = 0

  constructor(state: MountState) {
    this.#state = state
    this.#stager = new Stager(state)
    if (state.journal !== undefined) {
      const publish = (node: Node, extent?: Extent): Promise<void> => this.publish(node, extent)
      const release = (node: Node): void => this.release(node)
      state.journals = new WriteBack(state, state.journal, { publish, release })
    }
    this.#policy = new ConflictPolicy(state, this.#stager)
    this.#copies = new ConflictCopies(state, this.#stager, (node, file) => this.#settle(node, file))
  }

  /**
   * The staged file of `node`, laid over the first `length` bytes of what is stored (by default all of them): a small one
   * has them all.
   * @throws OperationError `FILE_STALE` where the store no more has the version.
   */
  stage(node: Node, length: number = node.size): StagedFile | Promise<StagedFile> {
    return this.#stager.stage(node, length)
  }

  /** Stages a file that was just created. */
  stageEmpty(node: Node): OpenFile {
    node.file = new OpenFile()
    node.file.changes.isNew = true
    this.#stager.stageEmpty(node)
    return node.file
  }

  /** The error of a handle whose file is no more to be had. */
  stale(node: Node, cause?: unknown): OperationError {
    return this.#stager.stale(node, cause)
  }

  /** As `stale`, where the store has just said so: the next look at the name asks what it has now. */
  replaced(node: Node, cause: unknown): OperationError {
    return this.#stager.replaced(node, cause)
  }

  /**
   * Before the name of an open file goes away: has its bytes here, so that it stays readable and writable.
   * A file whose version the store has lost already is left: its readers get ESTALE. So is one for which there is no room
   * here: a full disk must not keep anybody from removing files.
   */
  keepReadable(node: Node): Promise<void> {
    return this.#stager.keepReadable(node)
  }

  /** What close and fsync wait for: that the store has the file, or with write-back the journal. Claims the tree. */
  async acknowledge(node: Node): Promise<void> {
    const { writeBack } = this.#state
    this.#checkRoom(node)
    return writeBack === undefined ? this.publish(node) : writeBack.acknowledge(node)
  }

  /** @throws OperationError `STAGING_NO_SPACE` where what is staged lacks what found no room. */
  #checkRoom(node: Node): void {
    const { file } = node
    if (file === undefined || !file.dirty || !file.lacksRoom || node.detached === 'removed') return
    const path = this.#state.table.describe(node)
    const message = `Cannot publish "${path}": a write to it found no room on the staging disk; what is stored stays as it was`
    throw new OperationError('STAGING_NO_SPACE', message)
  }

  /** Puts what is ahead of the store into it. Claims the tree. */
  async publish(node: Node, extent: Extent = 'all'): Promise<void> {
    // What lost its name may get one there again, see `conflict-policy.ts`.
    const at = node.parent ?? node.origin
    await this.#state.tree.shared(at === undefined ? [node] : [node, at], () => this.publishClaimed(node, extent))
  }

  /** As `publish`, for who has claimed the tree already. */
  publishClaimed(node: Node, extent: Extent = 'all'): Promise<void> {
    return node.lock.run(async () => {
      // Once is enough: what is written meanwhile is for the next, or somebody who goes on writing would keep this for ever.
      while (node.file !== undefined && (node.file.dirty || node.file.attributesDirty)) {
        if (await this.#publishOnce(node, node.file, extent)) break
      }
      const refused = node.file?.refused
      if (node.file !== undefined) node.file.refused = undefined
      if (refused !== undefined) throw refused
    })
  }

  /** Whether it is done; else something was learnt, by which another try may do. */
  async #publishOnce(node: Node, file: OpenFile, extent: Extent): Promise<boolean> {
    if (file.dirty && this.#toBePut(file, extent) === undefined) return true
    try {
      await this.#state.unanswered.settled(node)
    } catch (error) {
      return this.#failed(node, file, error, file.dirty)
    }
    if (node.detached === 'removed') {
      this.#settle(node, file)
      return true
    }
    if (this.#toBePut(file, extent) === file.staged) this.#checkRoom(node)
    if (node.detached === 'superseded') {
      return this.#superseded(node, file)
    }
    if (!file.dirty && !this.#state.store.capabilities.attributes) {
      file.attributesDirty = false
      this.#state.countDirty(node)
      return true
    }
    let withBytes = file.dirty
    let changes: AttributeChanges | undefined
    let sent: Attributes = {}
    try {
      const stored = this.#mustAsk(node, file) ? await this.#storedAttributes(node) : (node.attributes ?? {})
      let ahead = await this.#sentAhead(node, file)
      if (node.detached !== undefined) return false
      const staged = this.#toBePut(file, extent)
      if (file.dirty && staged === undefined) return true
      if (staged !== file.staged) ahead = undefined
      // From here to the start of the put nothing waits, so these are the changes up to the bytes that it sends.
      withBytes = file.dirty
      changes = file.changes
      file.sentChanges = changes
      file.changes = new AttributeChanges()
      file.attributesDirty = false
      if (withBytes && ahead !== undefined) sent = changes.overBegun(stored, ahead.attributes)
      else sent = withBytes || changes.isNew ? changes.over(stored) : changes.alone(stored)
      let generation: number | undefined
      let entry: Entry
      if (withBytes) {
        assert(staged !== undefined, 'what is dirty is staged')
        const put = await this.#put(node, file, staged, sent, ahead)
        entry = put.entry
        generation = put.generation
      } else entry = await this.#setAttributes(node, sent)
      this.published(node, entry, sent)
      file.failed = false
      file.failure = undefined
      file.conflicts = 0
      file.conflictName = undefined
      this.#state.countDirty(node)
      this.#state.published.ok.inc()
      if (generation !== undefined) await this.#state.journals?.stored(node, file, generation)
      return true
    } catch (error) {
      file.attributesDirty = true
      if (changes !== undefined) {
        changes.add(file.changes)
        file.changes = changes
      }
      if (this.#giveUpXattrs(node, file, error, sent)) return false
      return await this.#failed(node, file, error, withBytes)
    } finally {
      file.sentChanges = undefined
    }
  }

  /** Somebody else's has the name by now. As `#failed`. */
  async #superseded(node: Node, file: OpenFile): Promise<boolean> {
    let resolution: Resolution
    try {
      resolution = await this.#policy.resolve(node, file)
    } catch (error) {
      return this.#failed(node, file, error, file.dirty)
    }
    if (resolution === 'lost') return this.#copies.lose(node, file, 'another has replaced it since it was opened')
    if (resolution === 'done') this.#settle(node, file)
    return resolution === 'done'
  }

  /** After a publish that failed: whether it is done all the same, or can be tried again at once. @throws otherwise */
  async #failed(node: Node, file: OpenFile, error: unknown, withBytes: boolean): Promise<boolean> {
    let failure = error
    let isLost = !withBytes && isOperationError(error, 'STORE_NOT_FOUND')
    if (isOperationError(error, 'STORE_CONFLICT')) {
      try {
        if (await this.#isOurs(node, file)) return false
        const resolution = await this.#policy.resolve(node, file)
        if (resolution === 'done') this.#settle(node, file)
        if (resolution !== 'lost') return resolution === 'done'
        isLost = true
      } catch (unanswered) {
        // Whose it is nobody knows yet: that is a publish that failed, and is tried again.
        failure = unanswered
      }
    }
    if (isLost) return this.#copies.lose(node, file, failure)
    file.failed = true
    file.failure = failure instanceof Error ? failure.message : String(failure)
    this.#state.countDirty(node)
    this.#state.published.failed.inc()
    // Nobody is there to write it anew, and trying again cannot help: it goes where its owner finds it.
    if (file.handles === 0 && isOperationError(failure) && this.#isForGood(file, failure)) {
      await this.#copies.lose(node, file, failure.message)
    }
    const path = this.#state.table.describe(node)
    this.#state.log.error({ err: failure, path }, `Cannot publish "${path}"; what was written stays staged`)
    throw failure
  }

  /** Whether a refusal is the end of a file: of too many that wait, also one that may pass, where its closer was told. */
  #isForGood({ journaled }: OpenFile, { code, retry }: OperationError): boolean {
    if (OF_THE_FILE.includes(code)) return true
    const isTooMany = this.#state.dirty.size > this.#state.pendingMax
    return isTooMany && journaled === undefined && retry === 'never' && code !== 'ABORTED'
  }

  /** What there is to put; undefined where only what is written just now, and was not acknowledged. */
  #toBePut(file: OpenFile, extent: Extent): StagedFile | undefined {
    return extent === 'all' ? file.staged : this.#state.journals?.acknowledged(file)
  }

  /** What was sent of the file while it was written, where that can become what is stored. */
  async #sentAhead(node: Node, file: OpenFile): Promise<UploadAhead | undefined> {
    const { ahead } = file
    if (ahead === undefined || !file.dirty) return undefined
    const canCommit = await ahead.canCommit(this.#state.table.describe(node))
    if (canCommit && file.ahead === ahead && ahead.isSending) return ahead
    if (file.ahead === ahead) this.#endAhead(file)
    return undefined
  }

  #endAhead(file: OpenFile): void {
    file.ahead?.abort()
    file.ahead = undefined
  }

  /** Whether what is sent goes over attributes that may no more be what is stored: others change them, too. */
  #mustAsk(node: Node, { dirty, changes }: OpenFile): boolean {
    const { store, validityMs } = this.#state
    if (changes.isNew || node.version === undefined || !store.capabilities.attributes) return false
    return (dirty || changes.hasXattrs) && node.validatedAt + validityMs <= this.#state.now()
  }

  async #storedAttributes(node: Node): Promise<Attributes> {
    const { store, table, signal } = this.#state
    try {
      return (await store.stat(table.pathOf(node), { expected: node.kind, signal })).attributes ?? {}
    } catch (error) {
      // The guard of what is sent decides on what that means.
      if (isOperationError(error, 'STORE_NOT_FOUND', 'STORE_NOT_DIRECTORY')) return {}
      throw error
    }
  }

  /**
   * Whether a publish that the store has refused for its attributes can go without some of them: the bytes must not wait for
   * an extended attribute. Whoever publishes is told of it once they are stored.
   */
  #giveUpXattrs(node: Node, file: OpenFile, error: unknown, sent: Attributes): boolean {
    if (!isOperationError(error, 'STORE_ATTRIBUTES_TOO_LARGE', 'STORE_UNSUPPORTED')) return false
    if (!file.changes.giveUpXattrs(sent)) return false
    // What is known here has them; the next try asks for those that are stored.
    node.validatedAt = -Infinity
    file.refused = error
    const path = this.#state.table.describe(node)
    this.#state.log.error({ err: error, path }, `Cannot store all attributes of "${path}"; it goes without them`)
    return true
  }

  /** Gives what the store said, and which state of the file it has. */
  async #put(
    node: Node,
    file: OpenFile,
    staged: StagedFile,
    attributes: Attributes,
    ahead: UploadAhead | undefined,
  ): Promise<{ entry: Entry; generation: number }> {
    const snapshot = ahead === undefined && file.backing === undefined ? this.#snapshotOf(staged) : undefined
    const { promise, resolve } = Promise.withResolvers<void>()
    if (snapshot === undefined && staged === file.staged) file.publishing = promise
    let sent: SentState | undefined
    staged.hold()
    try {
      if (file.backing !== undefined) await file.backing.settle()
      sent = staged.sending()
      file.sending = { staged, sent, attributes, snapshot }
      const { store, table, signal } = this.#state
      const path = table.pathOf(node)
      const guard = node.version === undefined ? ABSENT : ifVersion(node.version)
      const options = { guard, attributes, signal }
      const entry =
        ahead === undefined
          ? await store.put(path, snapshot ?? this.#sourceOf(node, staged, sent), options)
          : await ahead.commit(sent.size, options)
      staged.stored()
      file.dirty = file.staged !== staged || staged.generation !== sent.generation
      file.attempts = []
      file.replayed = undefined
      ahead?.end()
      if (file.ahead === ahead) file.ahead = undefined
      file.reader = undefined
      return { entry, generation: sent.generation }
    } catch (error) {
      if (isOperationError(error, 'STORE_CONFLICT')) {
        ahead?.end()
        this.#endAhead(file)
      }
      if (sent !== undefined) {
        staged.notStored(sent)
        // It may have taken effect all the same: the next try must know it for ours.
        if (isOperationError(error) && error.retry !== 'never') {
          const attempt = await attemptOf(staged, sent, attributes, snapshot)
          if (attempt !== undefined) file.attempts = withAttempt(file.attempts, attempt)
        }
      }
      throw error
    } finally {
      this.#snapshotBytes -= snapshot?.length ?? 0
      file.sending = undefined
      staged.close()
      if (file.publishing === promise) file.publishing = undefined
      resolve()
    }
  }

  /** The bytes of a small file, where memory for them is left. */
  #snapshotOf(staged: StagedFile): Uint8Array | undefined {
    const { size } = staged
    if (size > SNAPSHOT_BYTES_MAX || !staged.isComplete) return undefined
    if (size === 0) return NO_BYTES
    if (this.#snapshotBytes + size > SNAPSHOTS_BYTES_MAX) return undefined
    this.#snapshotBytes += size
    return staged.read(0, size)
  }

  /** What is put of a file that nobody may write to meanwhile. */
  #sourceOf(node: Node, staged: StagedFile, { size, dirty }: SentState): Source {
    if (size === 0) return NO_BYTES
    const { fd, baseEnd, missing } = staged
    const { version } = node
    const { store, table, staging } = this.#state
    const base = version === undefined ? undefined : { path: table.pathOf(node), version }
    const copies = store.beginUpload !== undefined && size > staging.wholeBytesMax
    return { kind: 'file', segments: planSegments({ fd, size, baseEnd, dirty, missing }, base, copies) }
  }

  /**
   * Before the name of `node` is changed, for who holds its lock: where a put failed and may have taken effect all the same,
   * asks the store, so that what it left there goes with the name. So it does where nobody knows whether it has the name.
   */
  async learnStored(node: Node): Promise<void> {
    await this.#state.unanswered.settled(node)
    if (node.file !== undefined && node.detached === undefined) await this.#isOurs(node, node.file)
  }

  /**
   * After a conflict: whether what is stored is an earlier put of ours, which took effect and lost its answer. Then that is
   * the version to go on from, and no conflict.
   */
  async #isOurs(node: Node, file: OpenFile): Promise<boolean> {
    await this.rememberReplayed(file)
    if (file.attempts.length === 0) return false
    const reading = await this.#readStored(node)
    if (reading === undefined) return false
    const { store, signal, table } = this.#state
    if (!(await isAttempt(store, reading, file.attempts, { signal }))) return false
    node.version = reading.entry.version
    table.touch(node)
    return true
  }

  /**
   * Before a file is changed that was found in the journal: a put of it before the crash may have taken effect, and what it
   * sent can be known only as long as it is as it was.
   */
  async rememberReplayed(file: OpenFile): Promise<void> {
    const { replayed } = file
    if (replayed === undefined) return
    const attempt = await attemptOf(replayed.staged, replayed.sent, replayed.attributes, undefined)
    if (file.replayed !== replayed) return
    file.replayed = undefined
    if (attempt !== undefined) file.attempts = withAttempt(file.attempts, attempt)
  }

  /** What is stored under the name now; undefined where that is no file. */
  async #readStored(node: Node): Promise<Reading | undefined> {
    const { store, table, signal } = this.#state
    try {
      return await store.read(table.pathOf(node), { signal })
    } catch (error) {
      if (isOperationError(error, 'STORE_NOT_FOUND', 'STORE_NOT_DIRECTORY', 'STORE_IS_DIRECTORY')) return undefined
      throw error
    }
  }

  #setAttributes(node: Node, changes: Attributes): Promise<Entry> {
    assert(node.version !== undefined, 'attributes alone go to what is in the store')
    const { store, table, signal } = this.#state
    const guard = ifVersion(node.version)
    const places = placesOf(node)
    const ask = askChanged(this.#state, node, changes)
    const late = (entry: Entry): void => this.published(node, entry)
    return table.changing(places, async () => {
      const setting = store.setAttributes(table.pathOf(node), changes, { guard, expected: node.kind, signal })
      return setting.catch((error: unknown) => this.#state.unanswered.resultOf(places, error, ask, late))
    })
  }

  /** Takes in what the store answered to a change made here. `sent` is what it was given, where that goes over the answer. */
  published(node: Node, entry: Entry, sent?: Attributes): void {
    const cachedIsCurrent = node.cachedVersion === node.version
    const { table } = this.#state
    if (node.version !== entry.version) this.#state.cached.drop(node)
    node.version = entry.version
    if (cachedIsCurrent) node.cachedVersion = entry.version
    node.modified = entry.modified
    node.modifiedGuessed = true
    // What was changed here while the call ran is newer than what the store answers.
    const stored = { ...sent, ...entry.attributes }
    node.attributes = node.file === undefined ? stored : node.file.changes.over(stored)
    node.validatedAt = this.#state.now()
    table.touch(node)
  }

  /** Drops what a file has here and nobody holds any more. To be called whenever one holder less is there. */
  release(node: Node): void {
    const { file } = node
    if (file === undefined || file.handles > 0 || file.staging !== undefined || node.lockBusy) return
    if (file.dirty && file.lacksRoom && node.detached !== 'removed') {
      const path = this.#state.table.describe(node)
      this.#state.log.warn(
        { path },
        `Dropped what was written to "${path}": not all of it found room on the staging disk`,
      )
      if (this.#state.journals?.revert(node, file) === true) return
      this.#copies.drop(node, file)
    }
    if ((file.dirty || file.attributesDirty) && node.detached !== 'removed') return
    if (file.staged !== undefined) this.#state.cached.adopt(node, file.staged)
    this.#state.cached.drop(node)
    file.staged?.close()
    file.staged = undefined
    this.#settle(node, file)
    node.file = undefined
    this.#state.table.settle(node)
  }

  /** As `release`, once nobody has the lock of the node any more. */
  releaseLater(node: Node): void {
    void node.lock.idle().then(() => this.release(node))
  }

  #settle(node: Node, file: OpenFile): void {
    file.dirty = false
    file.attributesDirty = false
    file.changes = new AttributeChanges()
    file.refused = undefined
    file.failure = undefined
    file.conflicts = 0
    file.conflictName = undefined
    this.#endAhead(file)
    this.#state.countDirty(node)
  }

  /** Publishes what is dirty; gives the errors of what could not be. */
  async publishAll(which: (node: Node) => boolean = () => true): Promise<unknown[]> {
    const errors: unknown[] = []
    const queue = [...this.#state.dirty].filter(which)
    const worker = async (): Promise<void> => {
      for (let node = queue.pop(); node !== undefined; node = queue.pop()) {
        try {
          await this.publish(node)
          this.release(node)
        } catch (error) {
          errors.push(error)
        }
      }
    }
    // A few at a time: each puts its parts side by side already.
    await Promise.all(Array.from({ length: 8 }, worker))
    return errors
  }

  /**
   * Keeps what could not be published, at the end of a mount. Gives the paths of what could not even be kept: it stays
   * dirty, so another try may do.
   */
  keepAll(): Promise<string[]> {
    return this.#copies.keepAll()
  }

  /** As `keepAll`, without a wait, for a process that ends at once. */
  keepAtOnce(): void {
    this.#copies.keepAtOnce()
  }
}
