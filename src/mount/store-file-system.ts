/**
 * A file system over a store: the `FileSystem` that a FUSE session serves. It turns node ids and handles into nodes and
 * hands each call to the part that answers for it; it keeps no state of its own but the open directories.
 *
 *     names -> Resolver -> NodeTable          what is believed, and for how long
 *     Files -> Publisher -> StagingArea       what is written, until the store has it
 *     Namespace, Renaming, Metadata           changes that go to the store at once
 *
 * Calls that the kernel makes often (lookup, getattr, read and write of staged files) answer at once wherever what is
 * known is fresh. Interrupts of mutations are not passed on: one given up half-way may have happened or not, and programs
 * expect the calls of a local disk, which do not end by EINTR. Only who is being killed is not held up by one.
 */
import { assert } from '#base/assert.ts'
import type { FileCacheStatus } from '#cache/file-cache.ts'
import { OperationError } from '#base/errors.ts'
import type {
  AttributeRequest,
  AttributesAnswer,
  BackingFiles,
  Caller,
  DirectorySink,
  EntryAnswer,
  FileSystem,
  Handle,
  KernelNotifier,
  MaybePromise,
  NegativeAnswer,
  NodeId,
  OpenAnswer,
  StatfsAnswer,
} from '#fuse/file-system.ts'

import { DirectoryHandle } from './directory-handle.ts'
import { Exchanging } from './exchanging.ts'
import { FileContent } from './file-content.ts'
import { Files } from './files.ts'
import { Metadata } from './metadata.ts'
import { MountState, type StoreFileSystemOptions } from './mount-state.ts'
import { Namespace } from './namespace.ts'
import { S_IFIFO, S_IFMT, S_IFREG, S_IFSOCK, statOf } from './node-attributes.ts'
import type { Node, OpenFile } from './node.ts'
import { patiently, untilKilled } from './patience.ts'
import { Publisher } from './publisher.ts'
import { readOnlyError } from './refusals.ts'
import { Renaming } from './renaming.ts'
import { Resolver } from './resolver.ts'
import { TreeWalks } from './tree-walks.ts'
import { mayHaveHappened } from './unanswered.ts'

const RENAME_EXCHANGE = 2
/** The largest read, and the rest of the two cached blocks at its ends, which are read whole to be checked. */
const READ_BUFFER_BYTES = (1 << 20) + 2 * (128 << 10)
/** One page of a listing of S3. */
const RELIST_ENTRIES_MAX = 1000

/** What a mount has in hand. */
export interface StoreFileSystemStatus {
  readonly openFiles: number
  readonly dirtyFiles: number
  readonly dirtyBytes: number
  /** Of the dirty files those whose last put failed, and why one of them did. */
  readonly failing: { readonly files: number; readonly error: string } | undefined
  readonly knownNodes: number
  readonly memoryBytes: number
  readonly memoryBytesMax: number
  readonly cache: FileCacheStatus | undefined
}

export class StoreFileSystem implements FileSystem {
  readonly #state: MountState
  readonly #resolver: Resolver
  readonly #walks: TreeWalks
  readonly #publisher: Publisher
  readonly #content: FileContent
  readonly #files: Files
  readonly #namespace: Namespace
  readonly #renaming: Renaming
  readonly #exchanging: Exchanging
  readonly #metadata: Metadata
  readonly #directories = new Map<Handle, DirectoryHandle>()
  /** For cached bytes that are given at once: new memory for each answer takes as long as the copy into it. */
  readonly #readBuffer = Buffer.allocUnsafeSlow(READ_BUFFER_BYTES)
  #directoryLast: Handle = 0

  constructor(options: StoreFileSystemOptions) {
    this.#state = new MountState(options)
    this.#resolver = new Resolver(this.#state, (directory) =>
      new DirectoryHandle(directory, this.#state, this.#resolver).learn(RELIST_ENTRIES_MAX),
    )
    this.#walks = new TreeWalks(this.#state, this.#resolver)
    this.#publisher = new Publisher(this.#state)
    this.#content = new FileContent(this.#state, this.#publisher)
    this.#files = new Files(this.#state, this.#resolver, this.#publisher, this.#content)
    this.#namespace = new Namespace(this.#state, this.#resolver, this.#publisher)
    this.#renaming = new Renaming(this.#state, this.#resolver, this.#publisher, this.#namespace)
    this.#exchanging = new Exchanging(this.#state, this.#resolver, this.#publisher, this.#namespace)
    this.#metadata = new Metadata(this.#state, this.#resolver, this.#publisher, this.#content, this.#namespace)
  }

  get status(): StoreFileSystemStatus {
    return {
      openFiles: this.#files.openCount,
      dirtyFiles: this.#state.dirty.size,
      dirtyBytes: this.#state.dirtyBytes,
      failing: this.#state.failing,
      knownNodes: this.#state.table.size,
      memoryBytes: this.#state.memory.used,
      memoryBytesMax: this.#state.memory.bytesMax,
      cache: this.#state.cached.status,
    }
  }

  /** Has the kernel read and write what it can itself; undefined: it cannot. Before this is called it is asked nothing. */
  passThrough(files: BackingFiles | undefined): void {
    this.#state.passthrough.use(files)
  }

  /**
   * Has the kernel ask anew about names that are found to be another's, and about those of whose change nobody knows what
   * became of it, and of what they led to.
   */
  notifyBy(kernel: KernelNotifier): void {
    const { log, table } = this.#state
    const failed = (error: unknown): void => log.debug({ err: error }, 'cannot have the kernel forget a name')
    table.onSuperseded = (parent, name) => void kernel.invalidateEntry(parent.id, name).catch(failed)
    table.onUnsure = (places, error) => {
      if (!mayHaveHappened(error)) return
      for (const { parent, name } of places) {
        kernel.invalidateEntry(parent.id, name).catch(failed)
        const known = table.childOf(parent, name)
        if (known !== undefined) kernel.invalidateNode(known.id, -1, 0).catch(failed)
      }
    }
  }

  /** To be called when no request can come any more, before the last `publishAll`. */
  disconnected(): void {
    this.#files.releaseAll()
    this.#state.passthrough.stop()
  }

  /** Resolves when nothing is put into the cache any more. */
  cacheSettled(): Promise<void> {
    return this.#state.cached.settled()
  }

  /** Takes in, before the first request, what a mount before this one has left in the journal. */
  replay(): void {
    this.#state.journals?.replay()
  }

  /** Begins to store what is in the journal. */
  start(): void {
    this.#state.journals?.start()
  }

  /** To be called at the very end. */
  async closeJournal(): Promise<void> {
    await this.#state.journals?.close()
  }

  /** Publishes all that is dirty; gives the errors of what could not be, which stays staged. */
  async publishAll(): Promise<unknown[]> {
    this.#state.passthrough.noticeAll()
    const removed = this.#namespace.flushRemovals().then(
      () => [],
      (error: unknown) => [error],
    )
    return [...(await this.#publisher.publishAll()), ...(await removed)]
  }

  /** Tries again to publish what nobody has open any more: its close has failed. */
  publishFailed(): Promise<unknown[]> {
    const { journals } = this.#state
    // What the journal vouches for is in a queue of its own.
    const isQueued = (file: OpenFile): boolean =>
      file.journaled !== undefined && journals?.acknowledged(file) === file.staged
    return this.#publisher.publishAll(({ file }) => file?.handles === 0 && !isQueued(file))
  }

  /** Keeps what could not be published under `conflicts/`, at the very end; gives the paths of what could not be kept. */
  keepUnpublished(): Promise<string[]> {
    this.#state.passthrough.noticeAll()
    return this.#publisher.keepAll()
  }

  /** Gives up, at the very end, what was removed here and could not be removed from the store; gives its paths. */
  giveUpRemovals(): readonly string[] {
    return this.#namespace.giveUpRemovals()
  }

  /** As `keepUnpublished`, for a process that ends at once. */
  keepAtOnce(): void {
    this.#state.passthrough.noticeAll()
    this.#publisher.keepAtOnce()
  }

  // Names.

  lookup(parent: NodeId, name: string, caller: Caller): MaybePromise<EntryAnswer | NegativeAnswer> {
    const directory = this.#state.table.directory(parent)
    const found = this.#resolver.lookup(directory, name)
    if (!(found instanceof Promise)) return this.#lookupAnswer(directory, found)
    return patiently(found, caller.signal).then((node) => this.#lookupAnswer(directory, node))
  }

  #lookupAnswer(directory: Node, node: Node | undefined): EntryAnswer | NegativeAnswer {
    if (node === undefined) return { negativeValidMs: Math.floor(this.#state.listingValidFor(directory)) }
    return this.#entryAnswer(node)
  }

  forget(node: NodeId, count: number): void {
    this.#state.table.forget(node, count)
  }

  symlink(parent: NodeId, name: string, target: string, caller: Caller): Promise<EntryAnswer> {
    const directory = this.#changing(parent, 'make a symlink in', true)
    return this.#change(caller, this.#namespace.symlink(directory, name, target, caller)).then((node) => {
      node.target = target
      return this.#entryAnswer(node)
    })
  }

  async mknod(
    parent: NodeId,
    name: string,
    mode: number,
    _rdev: number,
    umask: number,
    caller: Caller,
  ): Promise<EntryAnswer> {
    const directory = this.#changing(parent, 'make a file in', true)
    const type = mode & S_IFMT
    if (type === S_IFREG || type === 0) {
      const made = this.#namespace.makeFile(directory, name, mode & ~umask, caller)
      return this.#entryAnswer(await this.#change(caller, made))
    }
    const kind = type === S_IFIFO ? 'fifo' : type === S_IFSOCK ? 'socket' : undefined
    if (kind === undefined || !this.#state.store.capabilities.specials) {
      const what = kind ?? 'device'
      throw new OperationError('OPERATION_NOT_PERMITTED', `Cannot make "${name}": the store holds no ${what}s`)
    }
    const made = this.#namespace.makeSpecial(directory, name, kind, mode & ~umask, caller)
    return this.#entryAnswer(await this.#change(caller, made))
  }

  async mkdir(parent: NodeId, name: string, mode: number, umask: number, caller: Caller): Promise<EntryAnswer> {
    const directory = this.#changing(parent, 'make a directory in', true)
    const made = this.#namespace.makeDirectory(directory, name, mode & ~umask, caller)
    return this.#entryAnswer(await this.#change(caller, made))
  }

  unlink(parent: NodeId, name: string, caller: Caller): Promise<void> {
    return this.#change(caller, this.#namespace.unlink(this.#changing(parent, 'unlink in', true), name, caller))
  }

  rmdir(parent: NodeId, name: string, caller: Caller): Promise<void> {
    const directory = this.#changing(parent, 'remove a directory in', true)
    return this.#change(caller, this.#namespace.removeDirectory(directory, name, caller))
  }

  rename(
    parent: NodeId,
    name: string,
    newParent: NodeId,
    newName: string,
    flags: number,
    caller?: Caller,
  ): Promise<void> {
    const from = { parent: this.#changing(parent, 'rename in', true), name }
    const to = { parent: this.#changing(newParent, 'rename to', true), name: newName }
    if (flags === RENAME_EXCHANGE) return this.#change(caller, this.#exchanging.exchange(from, to))
    return this.#change(caller, this.#renaming.rename(from, to, flags))
  }

  link(node: NodeId): never {
    const { name } = this.#state.table.get(node)
    throw new OperationError('OPERATION_NOT_PERMITTED', `Cannot link "${name}": stores hold no hard links`)
  }

  // Attributes.

  getattr(node: NodeId, _handle: Handle | undefined, caller: Caller): MaybePromise<AttributesAnswer> {
    const found = this.#state.table.get(node)
    const asked = this.#resolver.revalidate(found)
    if (asked === undefined) return this.#attributesAnswer(found)
    return patiently(asked, caller.signal).then(() => {
      // The name leads to another file, or to none: this one is no more. A handle of it still has its attributes.
      if (found.detached !== undefined && found.file === undefined) throw this.#publisher.stale(found)
      return this.#attributesAnswer(found)
    })
  }

  async setattr(node: NodeId, request: AttributeRequest, caller?: Caller): Promise<AttributesAnswer> {
    const found = this.#changing(node, 'change')
    await this.#change(caller, this.#setattr(found, request))
    return this.#attributesAnswer(found)
  }

  async #setattr(found: Node, request: AttributeRequest): Promise<void> {
    await this.#metadata.setattr(found, request)
    const { file } = found
    // A size that was set while nobody has the file open has no close to publish it.
    if (file !== undefined && file.writers === 0 && (file.dirty || file.attributesDirty)) {
      await this.#publisher.acknowledge(found)
      this.#publisher.release(found)
    }
  }

  readlink(node: NodeId, caller: Caller): Promise<string> {
    return patiently(this.#metadata.readlink(this.#state.table.get(node)), caller.signal)
  }

  getxattr(node: NodeId, name: string): MaybePromise<Uint8Array> {
    return this.#metadata.getxattr(this.#state.table.get(node), name)
  }

  listxattr(node: NodeId): MaybePromise<readonly string[]> {
    return this.#metadata.listxattr(this.#state.table.get(node))
  }

  setxattr(node: NodeId, name: string, value: Uint8Array, flags: number, caller?: Caller): Promise<void> {
    return this.#change(caller, this.#metadata.setxattr(this.#changing(node, 'change'), name, value, flags))
  }

  removexattr(node: NodeId, name: string, caller?: Caller): Promise<void> {
    return this.#change(caller, this.#metadata.removexattr(this.#changing(node, 'change'), name))
  }

  statfs(): Promise<StatfsAnswer> {
    return this.#metadata.statfs()
  }

  // Open files.

  open(node: NodeId, flags: number, caller?: Caller): MaybePromise<OpenAnswer> {
    const opening = this.#files.open(this.#state.table.get(node), flags)
    if (!(opening instanceof Promise)) return opening
    return this.#change(caller, opening, ({ handle }) => this.#abandon(handle))
  }

  /** What goes on though its caller was killed. */
  #change<T>(caller: Caller | undefined, work: Promise<T>, late?: (value: T) => void): Promise<T> {
    if (caller === undefined) return work
    return untilKilled(work, caller, this.#state.isDying, late)
  }

  /** Closes a file that nobody has got. */
  #abandon(handle: Handle): void {
    void Promise.resolve(this.#files.release(handle)).catch((error: unknown) => {
      this.#state.log.warn({ err: error }, 'Cannot close a file whose opener was killed')
    })
  }

  async create(
    parent: NodeId,
    name: string,
    mode: number,
    umask: number,
    flags: number,
    caller: Caller,
  ): Promise<EntryAnswer & OpenAnswer> {
    const directory = this.#changing(parent, 'create a file in', true)
    const creating = this.#files.create(directory, name, mode & ~umask, flags, caller)
    const { node, opened } = await this.#change(caller, creating, ({ opened: { handle } }) => this.#abandon(handle))
    return { ...this.#entryAnswer(node), ...opened }
  }

  read(_node: NodeId, handle: Handle, offset: number, size: number, caller: Caller): ReturnType<FileSystem['read']> {
    const bytes = this.#content.read(this.#files.get(handle), offset, size, this.#readBuffer)
    return bytes instanceof Promise ? patiently(bytes, caller.signal) : bytes
  }

  write(
    _node: NodeId,
    handle: Handle,
    offset: number,
    data: Uint8Array,
    caller: Caller,
    appends: boolean,
  ): MaybePromise<number> {
    const open = this.#files.get(handle)
    const at = appends ? undefined : offset
    const { journals } = this.#state
    if (journals === undefined) return this.#content.write(open, at, data, caller)
    return journals.withRoom(() => this.#content.write(open, at, data, caller))
  }

  fallocate(
    _node: NodeId,
    handle: Handle,
    offset: number,
    length: number,
    mode: number,
    caller: Caller,
  ): MaybePromise<void> {
    const open = this.#files.get(handle)
    const { journals } = this.#state
    if (journals === undefined) return this.#content.allocate(open, offset, length, mode, caller)
    return journals.withRoom(() => this.#content.allocate(open, offset, length, mode, caller))
  }

  lseek(_node: NodeId, handle: Handle, offset: number, whence: number): number {
    return this.#content.seek(this.#files.get(handle), offset, whence)
  }

  copyFileRange(
    _node: NodeId,
    handle: Handle,
    offset: number,
    _outNode: NodeId,
    outHandle: Handle,
    outOffset: number,
    length: number,
    caller: Caller,
  ): Promise<number> {
    return this.#content.copy(this.#files.get(handle), offset, this.#files.get(outHandle), outOffset, length, caller)
  }

  flush(_node: NodeId, handle: Handle, caller: Caller): MaybePromise<void> {
    return this.#files.flush(handle, caller)
  }

  fsync(_node: NodeId, handle: Handle): MaybePromise<void> {
    if (this.#namespace.removalsLeft === 0) return this.#files.fsync(handle)
    return this.#namespace.flushRemovals().then(() => this.#files.fsync(handle))
  }

  release(_node: NodeId, handle: Handle): MaybePromise<void> {
    return this.#files.release(handle)
  }

  // Open directories.

  opendir(node: NodeId): OpenAnswer {
    const handle = ++this.#directoryLast
    const directory = this.#state.table.directory(node)
    this.#directories.set(handle, new DirectoryHandle(directory, this.#state, this.#resolver, this.#walks))
    return { handle, openFlags: 0 }
  }

  readdir(
    _node: NodeId,
    handle: Handle,
    offset: number,
    plus: boolean,
    sink: DirectorySink,
    caller: Caller,
  ): Promise<void> {
    const directory = this.#directory(handle)
    const answer = plus ? (node: Node): EntryAnswer => this.#describe(node) : undefined
    return patiently(directory.read(offset, sink, answer), caller.signal)
  }

  async releasedir(_node: NodeId, handle: Handle): Promise<void> {
    const directory = this.#directory(handle)
    this.#directories.delete(handle)
    await directory.close()
  }

  /** Names are in the store when the calls that made them have returned; removals may be queued. */
  fsyncdir(): MaybePromise<void> {
    return this.#namespace.removalsLeft === 0 ? undefined : this.#namespace.flushRemovals()
  }

  #directory(handle: Handle): DirectoryHandle {
    const directory = this.#directories.get(handle)
    assert(directory !== undefined, `the kernel names a directory handle that is open: ${handle}`)
    return directory
  }

  /** The node of a change. @throws OperationError `STORE_READ_ONLY` */
  #changing(node: NodeId, action: string, isDirectory = false): Node {
    const found = isDirectory ? this.#state.table.directory(node) : this.#state.table.get(node)
    if (this.#state.readOnly) throw readOnlyError(action, found)
    // A change of a name or of attributes goes by what is ahead of the store.
    this.#state.passthrough.noticeAll()
    return found
  }

  /** An entry answer, with the reference that it gives the kernel. */
  #entryAnswer(node: Node): EntryAnswer {
    this.#state.table.reference(node)
    return this.#describe(node)
  }

  #describe(node: Node): EntryAnswer {
    this.#state.passthrough.noticeWrites(node)
    const validMs = this.#validMs(node)
    // Ids are never used twice within a mount, so the generation, which would tell two uses apart, stays 0.
    const attributes = statOf(node, this.#state.owner, this.#state.listingValidFor(node) > 0)
    return { attributes, attributesValidMs: validMs, generation: 0, entryValidMs: validMs }
  }

  #attributesAnswer(node: Node): AttributesAnswer {
    this.#state.passthrough.noticeWrites(node)
    const attributes = statOf(node, this.#state.owner, this.#state.listingValidFor(node) > 0)
    return { attributes, attributesValidMs: this.#validMs(node) }
  }

  /** What is left of the validity, so that the kernel's copy of an answer does not live longer than ours. */
  #validMs(node: Node): number {
    return Math.floor(this.#state.validFor(node))
  }
}
