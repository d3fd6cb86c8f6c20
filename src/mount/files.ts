/**
 * Open files: which handles there are, how a file is opened or created, and when what was written is published (flush,
 * fsync, and the last release for what a mapping wrote after its close). What is in them is `file-content.ts`; which of
 * them the kernel reads and writes itself, `passthrough.ts`.
 */
import { constants } from 'node:fs'

import { assert } from '#base/assert.ts'
import { OperationError } from '#base/errors.ts'
import { timestampNow } from '#base/time.ts'
import type { BackingId, Caller, Handle, MaybePromise, OpenAnswer } from '#fuse/file-system.ts'
import { FOPEN_KEEP_CACHE, FOPEN_PASSTHROUGH } from '#fuse/protocol.ts'

import type { FileContent, FileHandle } from './file-content.ts'
import type { MountState } from './mount-state.ts'
import { newAttributes } from './node-attributes.ts'
import { OpenFile, type Node } from './node.ts'
import type { Publisher } from './publisher.ts'
import { checkPlace, readOnlyError } from './refusals.ts'
import type { Resolver } from './resolver.ts'

/** The bits of open's flags that say what is done with the file. */
const O_ACCMODE = 3

export class Files {
  readonly #state: MountState
  readonly #resolver: Resolver
  readonly #publisher: Publisher
  readonly #content: FileContent
  readonly #handles = new Map<Handle, FileHandle>()
  #handleLast: Handle = 0

  constructor(state: MountState, resolver: Resolver, publisher: Publisher, content: FileContent) {
    this.#state = state
    this.#resolver = resolver
    this.#publisher = publisher
    this.#content = content
  }

  get openCount(): number {
    return this.#handles.size
  }

  open(node: Node, flags: number): MaybePromise<OpenAnswer> {
    // What was removed here or is ahead of the store is known; anything else is asked for once it is older than the validity.
    if (this.#state.isFresh(node)) return this.#opened(node, flags)
    const asked = this.#resolver.revalidate(node)
    if (asked === undefined) return this.#opened(node, flags)
    return asked.then(() => this.#opened(node, flags))
  }

  #opened(node: Node, flags: number): MaybePromise<OpenAnswer> {
    // What is open when a name goes is brought here first; a handle made after that would have nothing to read.
    if (node.leaving !== undefined) return node.leaving.then(() => this.#opened(node, flags))
    if (node.kind !== 'file') {
      const code = node.kind === 'directory' ? 'STORE_IS_DIRECTORY' : 'INPUT_INVALID'
      throw new OperationError(code, `Cannot open "${node.name}": it is a ${node.kind}`)
    }
    // Another file has the name now: at ESTALE the kernel looks the name up anew, and opens that.
    const isHere = node.file?.staged !== undefined || node.file?.backing !== undefined
    if (node.detached !== undefined && !isHere) throw this.#publisher.stale(node)
    if ((flags & constants.O_TRUNC) === 0) return this.#handle(node, flags)
    if (this.#state.readOnly) throw readOnlyError('truncate', node)
    const truncated = this.#content.truncate(node, 0)
    if (truncated === undefined) return this.#handle(node, flags)
    return truncated.then(() => this.#opened(node, flags & ~constants.O_TRUNC))
  }

  #handle(node: Node, flags: number): MaybePromise<OpenAnswer> {
    const access = flags & O_ACCMODE
    const mayWrite = access !== constants.O_RDONLY
    node.file ??= new OpenFile()
    const { file } = node
    file.handles++
    if (mayWrite) file.writers++
    const handle = ++this.#handleLast
    this.#handles.set(handle, { node, file, mayWrite, readAhead: undefined })
    this.#state.openFiles.inc()
    this.#state.table.settle(node)
    const { cached, passthrough } = this.#state
    if (file.staged === undefined) cached.hold(node)
    const failed = (error: unknown): never => {
      void this.release(handle)
      throw error
    }
    try {
      const backing = passthrough.choose(node, file, mayWrite)
      if (!(backing instanceof Promise)) return this.#answer(node, handle, backing)
      return backing.then((id) => this.#answer(node, handle, id), failed)
    } catch (error) {
      return failed(error)
    }
  }

  #answer(node: Node, handle: Handle, backing: BackingId | undefined): OpenAnswer {
    // With a flag about the kernel's own pages the open would fail.
    if (backing !== undefined) return { handle, openFlags: FOPEN_PASSTHROUGH, backing }
    // The kernel may keep the pages that it has only where they are of the version that this handle reads.
    const keep = node.cachedVersion === node.version
    node.cachedVersion = node.version
    return { handle, openFlags: keep ? FOPEN_KEEP_CACHE : 0 }
  }

  /** Makes a file that is here at once, and in the store at its first flush or fsync; or opens what has the name. */
  async create(
    parent: Node,
    name: string,
    mode: number,
    flags: number,
    caller: Caller,
  ): Promise<{ node: Node; opened: OpenAnswer }> {
    const { table, tree } = this.#state
    return tree.shared([parent], async () => {
      // What was seen absent may have been seen by another look since, between that answer and this line.
      const found = (await this.#resolver.lookupForCreate(parent, name)) ?? table.childOf(parent, name)
      if (found !== undefined) {
        if ((flags & constants.O_EXCL) !== 0) {
          throw new OperationError('FILE_EXISTS', `Cannot create "${table.describe(found)}": it exists`)
        }
        return { node: found, opened: await this.#opened(found, flags) }
      }
      checkPlace(this.#state, parent, name)
      const node = table.add(parent, name, {
        kind: 'file',
        version: undefined,
        size: 0,
        modified: timestampNow(),
        attributes: newAttributes(parent, 'file', mode, caller, this.#state.owner),
        validatedAt: this.#state.now(),
        changedAt: 0,
      })
      try {
        this.#publisher.stageEmpty(node).dirty = true
      } catch (error) {
        node.file = undefined
        table.detach(node, 'removed')
        throw error
      }
      table.touch(node)
      this.#state.countDirty(node)
      this.#state.entriesChanged(parent)
      return { node, opened: await this.#handle(node, flags) }
    })
  }

  /**
   * What close(2) returns: resolves when the store has what was written. A process that closes only a copy of the one
   * descriptor that writes goes on writing, and publishes by the close of the last.
   */
  flush(handle: Handle, caller: Caller): MaybePromise<void> {
    const open = this.get(handle)
    const { file, node } = open
    this.#state.passthrough.noticeWrites(node)
    if (!open.mayWrite || (!file.dirty && !file.attributesDirty && file.publishing === undefined)) return undefined
    if (file.writers === 1 && this.#state.holdsOpen(caller.pid, node.id)) return undefined
    return this.#publish(open)
  }

  fsync(handle: Handle): MaybePromise<void> {
    return this.#publish(this.get(handle))
  }

  #publish({ node, file }: FileHandle): MaybePromise<void> {
    this.#state.passthrough.noticeWrites(node)
    if (!file.dirty && !file.attributesDirty && file.publishing === undefined) return undefined
    return this.#publisher.acknowledge(node)
  }

  release(handle: Handle): MaybePromise<void> {
    const open = this.get(handle)
    const { node, file } = open
    this.#handles.delete(handle)
    this.#state.openFiles.dec()
    open.readAhead?.close()
    file.handles--
    if (open.mayWrite) file.writers--
    const { passthrough } = this.#state
    if (file.handles > 0) {
      passthrough.noticeWrites(node)
      return this.#released(node, file)
    }
    if (!passthrough.isBusy(file)) return this.#closed(node, file)
    passthrough.whenIdle(file, () => void this.#closed(node, file))
    return undefined
  }

  /** The kernel is gone, and with it all that it had open. */
  releaseAll(): void {
    for (const handle of [...this.#handles.keys()]) void this.release(handle)
  }

  /** Nobody can read or write the file any more. */
  #closed(node: Node, file: OpenFile): MaybePromise<void> {
    this.#state.passthrough.noticeWrites(node)
    this.#state.passthrough.end(node, file)
    return this.#released(node, file)
  }

  /** A holder of the file less is there. */
  #released(node: Node, file: OpenFile): MaybePromise<void> {
    const isAhead = (file.dirty || file.attributesDirty) && node.detached !== 'removed'
    // What a mapping wrote after the close is published now, with nobody to tell but the log. What a close could not
    // publish is tried again later.
    if (isAhead && file.writers === 0 && !file.failed) return this.#publishLast(node)
    this.#publisher.release(node)
    return undefined
  }

  async #publishLast(node: Node): Promise<void> {
    try {
      await this.#publisher.acknowledge(node)
    } catch (error) {
      this.#state.log.debug({ err: error }, `Cannot publish "${this.#state.table.describe(node)}" at its last close`)
    }
    this.#publisher.release(node)
  }

  /** The open file that a handle names. */
  get(handle: Handle): FileHandle {
    const open = this.#handles.get(handle)
    assert(open !== undefined, `the kernel names a file handle that is open: ${handle}`)
    return open
  }
}
