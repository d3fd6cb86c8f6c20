/**
 * Carries out what was decided about a path, and remembers what the target has then. Nothing is remembered that was not
 * done, and nothing of a file shows that was changed while it was sent.
 */
import { createHash } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'

import { isOperationError, OperationError } from '#base/errors.ts'
import { timestampNow } from '#base/time.ts'
import { isWithin, joinPath, parentOf } from '#store/path.ts'
import { type Attributes, type CallOptions, sortKey, type Source } from '#store/store.ts'

import type { Actor, FileToSend } from './actor.ts'
import { entriesUnder } from './actor-listing.ts'
import { callOptions } from './call-options.ts'
import type { Bandwidth } from './bandwidth.ts'
import { hashSource } from './content-hash.ts'
import { knownDirectory, knownOf, type Decision } from './decision.ts'
import type { DeleteGuard } from './delete-guard.ts'
import { type ContentHash, isRacy, isSameInode, TICK_NS } from './equality.ts'
import type { OpenSource, SyncSource } from './source.ts'
import { NO_SIZE, type SyncState } from './state.ts'
import type { Known } from './state-record.ts'
import type { TreeEntry } from './tree.ts'

/** Files up to that are read at once, in the event loop: a hop to the thread pool costs more than reading them. */
const WHOLE_BYTES_MAX = 1 << 20
const DELETE_BATCH = 1000

export interface ExecutorOptions {
  readonly metadata: boolean
  /** Reads back what was sent, and compares. */
  readonly verify: boolean
  readonly deletes: boolean
  /** In the target: what is replaced or deleted goes there. */
  readonly backupDirectory: string | undefined
  readonly bandwidth: Bandwidth | undefined
  /** What autosync calls a path: with the leading `/` that prefixes may leave. */
  readonly keyOf: (path: string) => string
  readonly signal?: AbortSignal
}

/** What a target tells of what it has stored. */
type Stored = Pick<TreeEntry, 'version'>

/** What came of it. `changed`: it is another by now, and has to be looked at again. */
export type Outcome = 'nothing' | 'sent' | 'changed' | 'deleted' | 'made-directory' | 'attributes-set'

export class Executor {
  readonly #source: SyncSource
  readonly #actor: Actor
  readonly #state: SyncState
  readonly #deletes: DeleteGuard
  readonly #options: ExecutorOptions
  readonly #call: CallOptions
  /** Bytes that were handed over, in all. */
  bytesSent = 0
  /** Entries of the target that were deleted, for whatever reason. */
  removed = 0

  constructor(source: SyncSource, actor: Actor, state: SyncState, deletes: DeleteGuard, options: ExecutorOptions) {
    this.#source = source
    this.#actor = actor
    this.#state = state
    this.#deletes = deletes
    this.#options = options
    this.#call = callOptions(options)
  }

  /**
   * With `waits`, a file that somebody has open for writing is not sent now: it is likely to be whole soon.
   * @throws OperationError, and what the actor throws
   */
  async carryOut(decision: Decision, waits = false): Promise<Outcome> {
    switch (decision.do) {
      case 'nothing':
      case 'skip':
        return 'nothing'
      case 'remember':
        this.#state.remember(decision.path, decision.known)
        return 'nothing'
      case 'send':
        return this.#send(decision.entry, decision.replaced, waits)
      case 'link':
        return this.#link(decision.entry, decision.leadsTo, decision.replaced)
      case 'make-directory':
        return this.#makeDirectory(decision.entry, decision.replaced)
      case 'set-attributes':
        return this.#setAttributes(decision)
      case 'delete':
        return this.#delete(decision.target)
    }
  }

  /**
   * Gives a directory of the target what its source has, once all that lies in it is done. Where nothing was changed in the
   * target's (`isChanged`), only if the source's is another than is remembered.
   */
  async finishDirectory(path: string, isChanged: boolean): Promise<boolean> {
    const actor = this.#actor
    const looked = await this.#source.look(path, this.#call)
    if (looked.is !== 'entry' || looked.entry.kind !== 'directory' || actor.setAttributes === undefined) return false
    const { entry } = looked
    const lookedAt = timestampNow()
    if (!isChanged && isSameInode(this.#state.known(`${path}/`)?.identity, entry.identity)) return false
    const attributes = await this.#source.attributesOf(path, this.#call)
    const done = await actor.setAttributes({ ...entry, attributes: undefined }, attributes, this.#call)
    this.#remember(`${path}/`, entry, lookedAt, done?.version)
    return true
  }

  /**
   * Deletes entries of the target in that order, which the guard was asked about. Gives those that failed, and why; a directory
   * stays where something that takes no part lies in it, or came meanwhile.
   */
  async deleteAll(targets: readonly TreeEntry[]): Promise<ReadonlyMap<TreeEntry, unknown>> {
    const failed = new Map<TreeEntry, unknown>()
    for (let start = 0; start < targets.length; start += DELETE_BATCH) {
      const batch = targets.slice(start, start + DELETE_BATCH)
      const errors = await this.#deleteBatch(batch)
      for (const [index, target] of batch.entries()) {
        const error = errors[index]
        if (error === undefined) this.#forget(target)
        else if (!isOperationError(error, 'STORE_NOT_EMPTY')) failed.set(target, error)
      }
    }
    return failed
  }

  async #deleteBatch(batch: readonly TreeEntry[]): Promise<readonly unknown[]> {
    if (this.#actor.deleteAll !== undefined && this.#options.backupDirectory === undefined) {
      const answers = await this.#actor.deleteAll(batch, this.#call)
      for (const error of answers) if (error === undefined) this.removed++
      return answers.map((error) => (isGone(error) ? undefined : error))
    }
    const errors: unknown[] = []
    for (const target of batch) {
      try {
        await this.#deleteOne(target)
        errors.push(undefined)
      } catch (error) {
        errors.push(error)
      }
    }
    return errors
  }

  async #send(entry: TreeEntry, replaced: TreeEntry | undefined, waits: boolean): Promise<Outcome> {
    const { path } = entry
    await this.#clearKind(path, replaced)
    const open = await this.#openSettled(entry)
    const { lookedAt } = open
    try {
      if (open.isWritten && waits) {
        throw new OperationError('FILE_STALE', `Cannot send "${path}": it is being written`)
      }
      // An answer that is lost may be that of an upload that was done.
      this.#state.doubt(path)
      const known = await this.#upload(open, replaced, lookedAt)
      if (replaced === undefined) this.#deletes.added(1)
      this.#state.remember(path, known)
      this.#state.written(path, open.isWritten)
      this.#rememberAbove(path, lookedAt)
    } finally {
      open.close()
    }
    return (await this.#isStill(open.entry)) ? 'sent' : 'changed'
  }

  async #upload(open: OpenSource, replaced: TreeEntry | undefined, lookedAt: Known['lookedAt']): Promise<Known> {
    const { entry } = open
    const { bandwidth, metadata, verify } = this.#options
    const whole = await open.whole(WHOLE_BYTES_MAX)
    const hash: ContentHash | undefined =
      whole === undefined
        ? undefined
        : { algorithm: 'sha256', digest: createHash('sha256').update(whole).digest('hex') }
    const mtime = entry.mtime ?? lookedAt
    const attributes: Attributes = metadata ? (entry.attributes ?? { mtime }) : { mtime }
    let counted = 0
    const count = (bytes: number): void => {
      counted += bytes
      this.bytesSent += bytes
    }
    let isCounted = false
    const stream = (): AsyncIterable<Uint8Array> => {
      const bytes = whole === undefined ? open.bytes.stream() : once(whole)
      const paced = bandwidth === undefined ? bytes : bandwidth.paced(bytes, this.#options.signal)
      // An actor may read the file once for its hash and once more to send it.
      if (isCounted) return paced
      isCounted = true
      return countedBy(paced, count)
    }
    const source = (): Source => {
      if (bandwidth !== undefined) return { kind: 'stream', stream: stream(), size: entry.size }
      if (!isCounted) count(entry.size)
      isCounted = true
      return whole ?? open.bytes.source()
    }
    const { path } = entry
    const file: FileToSend = {
      path,
      key: this.#options.keyOf(path),
      size: entry.size,
      mtime,
      attributes,
      replaced,
      stream,
      source,
    }
    await this.#backUp(path, replaced)
    let stored: Stored | undefined
    try {
      stored = await this.#making(path, () => this.#actor.upload(file, this.#call))
    } catch (error) {
      this.bytesSent -= counted
      throw error
    }
    const sent = hash ?? (verify ? (await hashSource(this.#source, entry, this.#call)).hash : undefined)
    if (verify && sent !== undefined) await this.#verify(file, stored?.version, sent)
    return { ...knownOf(entry, mtime, lookedAt), targetVersion: stored?.version, hash: sent }
  }

  /** Tried again once room was made: the source has a directory where the target has a file, or the other way round. */
  async #making(path: string, make: () => Promise<Stored | void> | undefined): Promise<Stored | undefined> {
    try {
      return (await make()) ?? undefined
    } catch (error) {
      if (!(await this.#makeRoom(path, error))) throw error
      return (await make()) ?? undefined
    }
  }

  /** What the target has at the path, or above it, goes where it is in the way, as the error says; false where nothing is. */
  async #makeRoom(path: string, error: unknown): Promise<boolean> {
    // A server may say no more than that something else is there.
    const isVague = isOperationError(error, 'STORE_CONFLICT')
    const there = isVague ? await this.#actor.stat?.(path, this.#call) : undefined
    if (isOperationError(error, 'STORE_IS_DIRECTORY') || there?.kind === 'directory') {
      await this.#deleteTree(path)
      return true
    }
    return (isVague || isOperationError(error, 'STORE_NOT_DIRECTORY')) && this.#clearAbove(path)
  }

  async #verify(file: FileToSend, version: TreeEntry['version'], sent: ContentHash): Promise<void> {
    if (this.#actor.hash === undefined) {
      throw new OperationError('STORE_UNSUPPORTED', `Cannot verify "${file.path}": this target cannot be read back`)
    }
    const stored: TreeEntry = {
      path: file.path,
      kind: 'file',
      size: file.size,
      mtime: file.mtime,
      ...(version === undefined ? {} : { version }),
    }
    const found = await this.#actor.hash(stored, sent.algorithm, this.#call)
    if (found?.digest === sent.digest) return
    throw new OperationError('STORE_CORRUPT', `Cannot verify "${file.path}": the target has other bytes than were sent`)
  }

  /** A large file is opened when its times tell of every later change: to send it twice costs more than to wait for a tick. */
  async #openSettled(entry: TreeEntry): Promise<OpenSource> {
    const open = await this.#source.open(entry, this.#call)
    const { ctime } = open.entry.identity ?? {}
    const isSettled = ctime === undefined || !isRacy(ctime, open.lookedAt, this.#source.granularityNs)
    if (isSettled || open.isWritten || entry.size <= WHOLE_BYTES_MAX) return open
    open.close()
    await delay(Math.ceil((2 * TICK_NS) / 1e6))
    return this.#source.open(entry, this.#call)
  }

  async #isStill(entry: TreeEntry): Promise<boolean> {
    if (!this.#source.isLocal) return true
    const looked = await this.#source.look(entry.path, this.#call)
    if (looked.is !== 'entry') return false
    return looked.entry.size === entry.size && isSameInode(looked.entry.identity, entry.identity)
  }

  async #link(entry: TreeEntry, leadsTo: string, replaced: TreeEntry | undefined): Promise<Outcome> {
    const { path } = entry
    const lookedAt = timestampNow()
    await this.#clearKind(path, replaced)
    await this.#backUp(path, replaced)
    const mtime = entry.mtime ?? lookedAt
    const attributes = this.#options.metadata ? await this.#source.attributesOf(path, this.#call) : { mtime }
    const stored = await this.#making(path, () => this.#actor.symlink?.(path, leadsTo, attributes, this.#call))
    if (replaced === undefined) this.#deletes.added(1)
    this.#remember(path, entry, lookedAt, stored?.version)
    this.#rememberAbove(path, lookedAt)
    return 'sent'
  }

  async #makeDirectory(entry: TreeEntry, replaced: TreeEntry | undefined): Promise<Outcome> {
    const { path } = entry
    const lookedAt = timestampNow()
    if (replaced !== undefined && replaced.kind !== 'directory') await this.#replaceByDirectory(replaced)
    const make = async (): Promise<Stored | undefined> =>
      (await this.#actor.makeDirectory?.(path, {}, this.#call)) ?? undefined
    let made: Stored | undefined
    try {
      made = await make()
    } catch (error) {
      if (!isOperationError(error, 'STORE_NOT_DIRECTORY')) throw error
      if (!(await this.#clearAbove(`${path}/.`))) throw error
      made = await make()
    }
    this.#rememberMade(entry, lookedAt, made?.version)
    this.#rememberAbove(path, lookedAt)
    return 'made-directory'
  }

  async #setAttributes({ entry, target, known }: Extract<Decision, { do: 'set-attributes' }>): Promise<Outcome> {
    const lookedAt = timestampNow()
    const { metadata } = this.#options
    const open = await this.#source.open(entry, this.#call)
    open.close()
    const mtime = open.entry.mtime ?? lookedAt
    const attributes = metadata ? (open.entry.attributes ?? { mtime }) : { mtime }
    const done = (await this.#actor.setAttributes?.(target, attributes, this.#call)) ?? undefined
    const version = done?.version ?? target.version
    this.#state.remember(entry.path, {
      ...knownOf(open.entry, mtime, lookedAt),
      ...known,
      lookedAt,
      targetVersion: version,
    })
    return (await this.#isStill(open.entry)) ? 'attributes-set' : 'changed'
  }

  async #delete(target: TreeEntry): Promise<Outcome> {
    if (target.kind === 'directory') {
      await this.#deleteGone(target.path)
      return 'deleted'
    }
    this.#deletes.take(1)
    try {
      await this.#deleteOne(target)
    } catch (error) {
      // What is remembered is older than what was done, as after SIGKILL.
      if (!isOperationError(error, 'STORE_IS_DIRECTORY')) throw error
      await this.#deleteGone(target.path)
    }
    this.#state.forget(target.path)
    return 'deleted'
  }

  async #deleteOne(target: TreeEntry): Promise<void> {
    const { backupDirectory } = this.#options
    try {
      if (backupDirectory !== undefined && target.kind !== 'directory') await this.#moveAside(target, backupDirectory)
      else await this.#actor.delete(target, this.#call)
      this.removed++
    } catch (error) {
      if (this.#actor.stat === undefined) {
        if (isGone(error)) return
        throw error
      }
      if (!isGone(error) && !isOperationError(error, 'STORE_CONFLICT')) throw error
      const now = await this.#actor.stat(target.path, { ...this.#call, expected: target.kind })
      if (now === undefined) return
      // It is there, so what is missing, or in the way, is where it should be kept.
      if (isGone(error)) throw error
      // The version that is remembered is not the one that is there: the source has neither.
      if (backupDirectory !== undefined) await this.#moveAside(now, backupDirectory)
      else await this.#actor.delete(now, this.#call)
      this.removed++
    }
  }

  /** Tried again once what was kept before and is in the way has got another name. */
  async #keeping(backupDirectory: string, path: string, keep: (to: string) => Promise<void>): Promise<void> {
    const to = joinPath(backupDirectory, path)
    try {
      await keep(to)
    } catch (error) {
      const isInTheWay = isOperationError(error, 'STORE_NOT_DIRECTORY', 'STORE_IS_DIRECTORY', 'STORE_CONFLICT')
      if (!isInTheWay || !(await this.#clearBackup(backupDirectory, to))) throw error
      await keep(to)
    }
  }

  /** A kept file where a directory has to be, or the other way round, becomes `NAME~1`, or the next that is free. */
  async #clearBackup(backupDirectory: string, to: string): Promise<boolean> {
    const actor = this.#actor
    if (actor.stat === undefined || actor.rename === undefined) return false
    for (let at = to; at !== backupDirectory; at = parentOf(at)) {
      const there = await actor.stat(at, this.#call)
      if (there === undefined || (there.kind === 'directory') !== (at === to)) continue
      let name = `${at}~1`
      for (let next = 2; (await actor.stat(name, this.#call)) !== undefined; next++) name = `${at}~${next}`
      await actor.rename(there, name, this.#call)
      return true
    }
    return false
  }

  #moveAside(target: TreeEntry, backupDirectory: string): Promise<void> {
    return this.#keeping(backupDirectory, target.path, (to) => this.#moveTo(target, to))
  }

  async #moveTo(target: TreeEntry, to: string): Promise<void> {
    if (this.#actor.rename !== undefined) await this.#actor.rename(target, to, this.#call)
    else {
      await this.#actor.copy?.(target, to, this.#call)
      await this.#actor.delete(target, this.#call)
    }
  }

  /** A copy, so that the path never is without a file: its new one replaces it. */
  async #backUp(path: string, replaced: TreeEntry | undefined): Promise<void> {
    const { backupDirectory } = this.#options
    if (backupDirectory === undefined) return
    // Somebody else may have put something there that is not known.
    let there = replaced ?? (await this.#actor.stat?.(path, this.#call))
    for (;;) {
      if (there === undefined || there.kind === 'directory') return
      const kept = there
      try {
        await this.#keeping(backupDirectory, path, async (to) => this.#actor.copy?.(kept, to, this.#call))
        return
      } catch (error) {
        there = await this.#actor.stat?.(path, this.#call)
        const isAnother = there === undefined || there.version !== kept.version
        if (!isAnother || !(isGone(error) || isOperationError(error, 'STORE_CONFLICT'))) throw error
      }
    }
  }

  /** A directory that the source has no more, with all in it that takes part. */
  async #deleteGone(path: string): Promise<void> {
    const found = await entriesUnder(this.#actor, path, this.#call)
    const targets = found.filter((entry) => this.#takesPart(entry)).toReversed()
    if (this.#actor.keeps?.directories === true) targets.push({ path, kind: 'directory', size: 0, mtime: undefined })
    await this.#deleteUnder(path, targets)
  }

  /** All that the target has at the path, whoever put it there, makes room for what the source has. */
  async #deleteTree(path: string): Promise<void> {
    if (!this.#options.deletes) {
      throw new OperationError(
        'STORE_IS_DIRECTORY',
        `Cannot replace the directory "${path}" of the target: --delete never keeps what lies in it`,
      )
    }
    if (this.#deletes.isCounting) throw new RoomWaits(path)
    const found = await entriesUnder(this.#actor, path, this.#call)
    const protectedOne = found.find((entry) => !this.#takesPart(entry))
    if (protectedOne !== undefined) {
      throw new OperationError(
        'STORE_NOT_EMPTY',
        `Cannot replace the directory "${path}" of the target: "${protectedOne.path}" in it is left out of the sync`,
      )
    }
    await this.#deleteUnder(path, [...found.toReversed(), { path, kind: 'directory', size: 0, mtime: undefined }])
  }

  /** Not what the filter leaves out, and not what is kept of before. */
  #takesPart({ path, kind }: TreeEntry): boolean {
    const { backupDirectory } = this.#options
    const isBackup = backupDirectory !== undefined && isWithin(path, backupDirectory)
    return !isBackup && this.#source.admits(path, kind === 'directory')
  }

  /** All of the targets, which lie at or under the path, or it fails. */
  async #deleteUnder(path: string, targets: readonly TreeEntry[]): Promise<void> {
    this.#deletes.take(targets.length)
    const [first] = await this.deleteAll(targets)
    if (first !== undefined) throw first[1]
    // Directories that no listing tells of, as nobody made them, went with what lay in them.
    this.#state.forgetUnder(path)
  }

  /** Deletes a file of the target at a path above, where the source has a directory; false where there is none. */
  async #clearAbove(path: string): Promise<boolean> {
    if (this.#actor.stat === undefined) return false
    for (let above = parentOf(path); above !== ''; above = parentOf(above)) {
      const there = await this.#actor.stat(above, this.#call)
      if (there === undefined || there.kind === 'directory') continue
      const looked = await this.#source.look(above, this.#call)
      if (looked.is !== 'entry' || looked.entry.kind !== 'directory') return false
      await this.#replaceByDirectory(there)
      return true
    }
    return false
  }

  /** The source has something of another kind there, so nothing is lost that it has: no cap counts it. */
  async #replaceByDirectory(target: TreeEntry): Promise<void> {
    try {
      await this.#deleteOne(target)
    } catch (error) {
      // It has one already.
      if (!isOperationError(error, 'STORE_IS_DIRECTORY')) throw error
    }
    this.#state.forget(target.path)
  }

  /** Before a file takes the place of a directory. */
  async #clearKind(path: string, replaced: TreeEntry | undefined): Promise<void> {
    if (replaced?.kind === 'directory') await this.#deleteTree(path)
  }

  /** Unless something else was put there since. */
  #forget(target: TreeEntry): void {
    const key = sortKey(target)
    const known = this.#state.known(key)
    if (known?.targetVersion !== undefined && target.version !== undefined && known.targetVersion !== target.version)
      return
    this.#state.forget(key)
  }

  /** The directories that the target made for it: they have to go with what they are at the source. */
  #rememberAbove(path: string, lookedAt: Known['lookedAt']): void {
    const { directories, flat } = this.#actor.keeps ?? {}
    if (directories !== true) return
    this.#deletes.added(this.#state.rememberAbove(path, lookedAt, flat === true ? NO_SIZE : 0))
  }

  /** With its device alone, as nothing was done about its attributes. */
  #rememberMade(entry: TreeEntry, lookedAt: Known['lookedAt'], targetVersion: Known['targetVersion']): void {
    this.#deletes.added(1)
    this.#state.remember(`${entry.path}/`, { ...knownDirectory(entry, lookedAt), targetVersion })
  }

  #remember(key: string, entry: TreeEntry, lookedAt: Known['lookedAt'], targetVersion: TreeEntry['version']): void {
    this.#state.remember(key, { ...knownOf(entry, entry.mtime ?? lookedAt, lookedAt), targetVersion })
  }
}

async function* countedBy(
  stream: AsyncIterable<Uint8Array>,
  count: (bytes: number) => void,
): AsyncGenerator<Uint8Array, void, undefined> {
  for await (const chunk of stream) {
    count(chunk.length)
    yield chunk
  }
}

/** A directory of the target is in the way, and how much is to be deleted is not known yet: it is to be tried after that. */
export class RoomWaits extends Error {
  override name = 'RoomWaits'

  constructor(path: string) {
    super(`"${path}" waits until it is known how much is to be deleted`)
  }
}

function isGone(error: unknown): boolean {
  return isOperationError(error, 'STORE_NOT_FOUND', 'STORE_NOT_DIRECTORY')
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array, void, undefined> {
  if (bytes.length > 0) yield bytes
}
