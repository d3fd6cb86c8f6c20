/**
 * From staged files to the store. A publish is one `put` under the guard of the version that was opened (`ABSENT` for what
 * was created here), with the attributes of the inode; one runs at a time per inode, and writers wait while it reads the
 * staged bytes. It resolves when the store has them: that is what close and fsync return.
 *
 * States of a file, by what is ahead of the store:
 *
 *     clean --stage()--> staged --write--> dirty --publish: ok--> staged --last close--> clean
 *                                            |--publish: conflict--> lost: kept under conflicts/, ESTALE
 *                                            |--publish: failed--> dirty: the error goes to the closer, tried again later
 *
 * Invariant: staged bytes that the store does not have are dropped only for a file that was removed here, or after they
 * were kept under `conflicts/` and a line in the log said where.
 */
import { createHash } from 'node:crypto'

import { assert } from '#base/assert.ts'
import { isOperationError, OperationError } from '#base/errors.ts'
import { timestampNow } from '#base/time.ts'
import { ABSENT, ifVersion, type Attributes, type Entry, type Reading, type Source } from '#store/store.ts'

import { AttributeChanges } from './attribute-changes.ts'
import type { MountState } from './mount-state.ts'
import { stateOf } from './node-table.ts'
import { OpenFile, placesOf, type Node } from './node.ts'
import type { StagedFile } from './staging.ts'

/** So many failed puts of different bytes are remembered. */
const ATTEMPTS_MAX = 4
const NO_BYTES = new Uint8Array(0)

export class Publisher {
  readonly #state: MountState

  constructor(state: MountState) {
    this.#state = state
  }

  /**
   * The staged file of `node`, its first `length` bytes fetched where there is none yet (by default all of them).
   * @throws OperationError `FILE_STALE` where the store no more has the version.
   */
  stage(node: Node, length: number = node.size): StagedFile | Promise<StagedFile> {
    if (node.file?.staged !== undefined) return node.file.staged
    if (node.detached !== undefined) throw this.stale(node)
    if (length === 0) return this.#stagedEmpty(node)
    node.file ??= new OpenFile()
    const { file } = node
    file.staging ??= this.#download(node, length).finally(() => {
      file.staging = undefined
    })
    return file.staging
  }

  /** Stages a file that was just created. */
  stageEmpty(node: Node): OpenFile {
    node.file = new OpenFile()
    node.file.changes.isNew = true
    this.#stagedEmpty(node)
    return node.file
  }

  #stagedEmpty(node: Node): StagedFile {
    const staged = this.#state.staging.create()
    node.file ??= new OpenFile()
    node.file.staged = staged
    return staged
  }

  /** The error of a handle whose file is no more to be had. */
  stale(node: Node, cause?: unknown): OperationError {
    const message = `Cannot use "${this.#state.table.describe(node)}": somebody else has replaced or removed it`
    return new OperationError('FILE_STALE', message, { cause })
  }

  /** As `stale`, where the store has just said so: the next look at the name asks what it has now. */
  replaced(node: Node, cause: unknown): OperationError {
    if (node.detached === undefined && !node.isAhead) this.#state.table.supersede(node)
    return this.stale(node, cause)
  }

  /** Tries again where the version or the path was another only because of a change made here meanwhile. */
  async #download(node: Node, length: number): Promise<StagedFile> {
    const { table, tree } = this.#state
    for (;;) {
      const { version } = node
      const path = table.pathOf(node)
      try {
        return await this.#downloadOnce(node, length)
      } catch (error) {
        if (!isOperationError(error, 'STORE_CONFLICT', 'STORE_NOT_FOUND')) throw error
        await tree.settled(node)
        // Not the lock of the node: its holder may be waiting for this.
        if (node.parent !== undefined) await stateOf(node.parent).changing.get(node.name)?.ended
        if (node.detached !== undefined) throw this.stale(node, error)
        if (node.version === version && table.pathOf(node) === path) throw this.replaced(node, error)
      }
    }
  }

  async #downloadOnce(node: Node, length: number): Promise<StagedFile> {
    const { store, table, signal } = this.#state
    const { file, version } = node
    assert(file !== undefined && version !== undefined, 'what is downloaded is open and in the store')
    const expected = Math.min(length, node.size)
    const staged = this.#state.staging.create()
    try {
      const reading = await store.read(table.pathOf(node), { version, length, signal })
      await staged.fill(reading.body)
      if (staged.size !== expected) {
        throw new OperationError('STORE_CORRUPT', `Cannot fetch "${node.name}": ${staged.size} bytes came`)
      }
    } catch (error) {
      staged.close()
      if (file.staged !== undefined) return file.staged
      throw error
    }
    // A truncation to nothing needs no bytes and did not wait: its file, and what was written to it since, is the newer.
    if (file.staged === undefined) file.staged = staged
    else staged.close()
    return file.staged
  }

  /** Puts what is ahead of the store into it. Claims the tree. */
  async publish(node: Node): Promise<void> {
    await this.#state.tree.shared([node], () => this.publishClaimed(node))
  }

  /** As `publish`, for who has claimed the tree already. */
  publishClaimed(node: Node): Promise<void> {
    return node.lock.run(async () => {
      while (node.file !== undefined && (node.file.dirty || node.file.attributesDirty)) {
        await this.#publishOnce(node, node.file)
      }
      const refused = node.file?.refused
      if (node.file !== undefined) node.file.refused = undefined
      if (refused !== undefined) throw refused
    })
  }

  async #publishOnce(node: Node, file: OpenFile): Promise<void> {
    if (node.detached === 'removed') {
      this.#settle(node, file)
      return
    }
    if (node.detached === 'superseded') {
      await this.lose(node, file, 'another has replaced it since it was opened')
      return
    }
    if (!file.dirty && !this.#state.store.capabilities.attributes) {
      file.attributesDirty = false
      this.#state.countDirty(node)
      return
    }
    let withBytes = file.dirty
    let changes: AttributeChanges | undefined
    let sent: Attributes = {}
    try {
      const stored = this.#mustAsk(node, file) ? await this.#storedAttributes(node) : (node.attributes ?? {})
      if (node.detached !== undefined) return
      // From here to the start of the put nothing waits, so these are the changes up to the bytes that it sends.
      withBytes = file.dirty
      changes = file.changes
      file.changes = new AttributeChanges()
      file.attributesDirty = false
      sent = withBytes || changes.isNew ? changes.over(stored) : changes.alone(stored)
      const entry = withBytes ? await this.#put(node, file, sent) : await this.#setAttributes(node, sent)
      this.published(node, entry, sent)
      if (withBytes) file.dirty = false
      file.failed = false
      this.#state.countDirty(node)
      this.#state.published.ok.inc()
    } catch (error) {
      file.attributesDirty = true
      if (changes !== undefined) {
        changes.add(file.changes)
        file.changes = changes
      }
      if (this.#giveUpXattrs(node, file, error, sent)) return
      let failure = error
      let isLost = !withBytes && isOperationError(error, 'STORE_NOT_FOUND')
      if (isOperationError(error, 'STORE_CONFLICT')) {
        try {
          if (await this.#isOurs(node, file)) return
          isLost = true
        } catch (unanswered) {
          // Whose it is nobody knows yet: that is a publish that failed, and is tried again.
          failure = unanswered
        }
      }
      if (isLost) {
        await this.lose(node, file, failure)
        return
      }
      file.failed = true
      this.#state.published.failed.inc()
      // Nobody is there to write it anew, and trying again cannot help: it goes where its owner finds it.
      if (file.handles === 0 && isOperationError(failure) && failure.retry === 'never' && failure.code !== 'ABORTED') {
        await this.lose(node, file, failure.message)
      }
      const path = this.#state.table.describe(node)
      this.#state.log.error({ err: failure, path }, `Cannot publish "${path}"; what was written stays staged`)
      throw failure
    }
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
      return (await store.stat(table.pathOf(node), { signal })).attributes ?? {}
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

  async #put(node: Node, file: OpenFile, attributes: Attributes): Promise<Entry> {
    const { staged } = file
    assert(staged !== undefined, 'what is dirty is staged')
    const { promise, resolve } = Promise.withResolvers<void>()
    file.publishing = promise
    try {
      const length = staged.size
      const source: Source =
        length === 0 ? NO_BYTES : { kind: 'file', segments: [{ fd: staged.fd, offset: 0, length }] }
      const guard = node.version === undefined ? ABSENT : ifVersion(node.version)
      const { store, table, signal } = this.#state
      const entry = await store.put(table.pathOf(node), source, { guard, attributes, signal })
      file.attempts = []
      return entry
    } catch (error) {
      // It may have taken effect all the same: the next try must know it for ours.
      if (isOperationError(error) && error.retry !== 'never') {
        file.attempts = [...file.attempts.slice(1 - ATTEMPTS_MAX), { size: staged.size, digest: await staged.digest() }]
      }
      throw error
    } finally {
      file.publishing = undefined
      resolve()
    }
  }

  /**
   * Before the name of `node` is changed, for who holds its lock: where a put failed and may have taken effect all the same,
   * asks the store, so that what it left there goes with the name.
   */
  async learnStored(node: Node): Promise<void> {
    if (node.file !== undefined && node.detached === undefined) await this.#isOurs(node, node.file)
  }

  /**
   * After a conflict: whether what is stored is an earlier put of ours, which took effect and lost its answer. Then that is
   * the version to go on from, and no conflict.
   */
  async #isOurs(node: Node, file: OpenFile): Promise<boolean> {
    if (file.attempts.length === 0) return false
    const reading = await this.#readStored(node)
    if (reading === undefined) return false
    const { table } = this.#state
    if (!file.attempts.some(({ size }) => size === reading.length)) {
      reading.cancel()
      return false
    }
    const hash = createHash('sha256')
    for await (const chunk of reading.body) hash.update(chunk)
    const digest = hash.digest('hex')
    if (!file.attempts.some((attempt) => attempt.size === reading.length && attempt.digest === digest)) return false
    node.version = reading.entry.version
    table.touch(node)
    return true
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
    return table.changing(placesOf(node), () => store.setAttributes(table.pathOf(node), changes, { guard, signal }))
  }

  /** Takes in what the store answered to a change made here. `sent` is what it was given, where that goes over the answer. */
  published(node: Node, entry: Entry, sent?: Attributes): void {
    const cachedIsCurrent = node.cachedVersion === node.version
    const { table } = this.#state
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

  /**
   * Gives up bytes that may not be published, after they were kept; the name goes back to what the store has.
   * @throws OperationError `STORE_CONFLICT` always.
   */
  async lose(node: Node, file: OpenFile, reason: unknown): Promise<never> {
    const { log, published, staging, table } = this.#state
    const cause = reason instanceof Error ? { cause: reason } : {}
    const why = typeof reason === 'string' ? reason : 'the stored version is not the one that was opened'
    const path = table.describe(node)
    let message = `Cannot publish the attributes of "${path}": ${why}`
    published.conflict.inc()
    if (file.dirty && file.staged !== undefined) {
      const kept = await staging.keep(file.staged, node.name, node.attributes?.mtime ?? timestampNow())
      message = `Cannot publish "${path}": ${why}; what was written is kept in "${kept}"`
    }
    log.warn({ path }, message)
    if (node.detached === undefined) table.supersede(node)
    file.staged?.close()
    file.staged = undefined
    this.#settle(node, file)
    throw new OperationError('STORE_CONFLICT', message, cause)
  }

  /** Drops what a file has here and nobody holds any more. To be called whenever one holder less is there. */
  release(node: Node): void {
    const { file } = node
    if (file === undefined || file.handles > 0 || file.staging !== undefined || node.lockBusy) return
    if ((file.dirty || file.attributesDirty) && node.detached !== 'removed') return
    file.staged?.close()
    file.staged = undefined
    this.#settle(node, file)
    node.file = undefined
    this.#state.table.settle(node)
  }

  #settle(node: Node, file: OpenFile): void {
    file.dirty = false
    file.attributesDirty = false
    file.changes = new AttributeChanges()
    file.refused = undefined
    this.#state.countDirty(node)
  }

  /**
   * Before the name of an open file goes away: has its bytes here, so that it stays readable and writable.
   * A file whose version the store has lost already is left: its readers get ESTALE. So is one for which there is no room
   * here: a full disk must not keep anybody from removing files.
   */
  async keepReadable(node: Node): Promise<void> {
    if (node.kind !== 'file' || node.file === undefined || node.file.handles === 0) return
    try {
      await this.stage(node)
    } catch (error) {
      if (isOperationError(error, 'FILE_STALE')) return
      if (!isOperationError(error, 'STAGING_NO_SPACE')) throw error
      this.#state.log.warn(
        { err: error },
        `Cannot keep "${node.name}" readable for who has it open; its name goes all the same`,
      )
    }
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
  async keepAll(): Promise<string[]> {
    const { dirty, log, staging, table } = this.#state
    const left: string[] = []
    for (const node of [...dirty]) {
      const { file } = node
      if (file === undefined || node.detached === 'removed') continue
      const path = table.describe(node)
      if (!file.dirty || file.staged === undefined) {
        log.error({ path }, `Cannot publish the attributes of "${path}", and attributes cannot be kept`)
        left.push(path)
        continue
      }
      try {
        const kept = await staging.keep(file.staged, node.name, node.attributes?.mtime ?? timestampNow())
        log.warn({ path, kept }, `Cannot publish "${path}": the mount ends; what was written is kept in "${kept}"`)
        if (node.detached === undefined) table.supersede(node)
        file.staged.close()
        file.staged = undefined
        this.#settle(node, file)
      } catch (error) {
        log.error({ err: error, path }, `Cannot keep what was written to "${path}"`)
        left.push(path)
      }
    }
    return left
  }

  /** As `keepAll`, without a wait, for a process that ends at once. */
  keepAtOnce(): void {
    const { dirty, log, staging, table } = this.#state
    for (const node of dirty) {
      const { file } = node
      if (file?.staged === undefined || !file.dirty || node.detached === 'removed') continue
      const path = table.describe(node)
      try {
        const kept = staging.keepAtOnce(file.staged, node.name, node.attributes?.mtime ?? timestampNow())
        log.error({ path, kept }, `Cannot publish "${path}": the process ends; what was written is kept in "${kept}"`)
      } catch (error) {
        log.fatal({ err: error, path }, `Cannot keep what was written to "${path}", and it is lost`)
      }
    }
  }
}
