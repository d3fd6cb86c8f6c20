/**
 * Open files: their handles, reads from the store or from the staged file, writes into the staged file, and when what was
 * written is published (flush, fsync, and the last release for what a mapping wrote after its close).
 *
 * All handles of an inode share its staged file and read its one version.
 */
import { constants } from 'node:fs'

import { assert } from '#base/assert.ts'
import { isOperationError, OperationError } from '#base/errors.ts'
import { timestampNow } from '#base/time.ts'
import type { Caller, Handle, MaybePromise, OpenAnswer } from '#fuse/file-system.ts'
import { FOPEN_KEEP_CACHE } from '#fuse/protocol.ts'
import { joinPath } from '#store/path.ts'

import { changeAttributes } from './attribute-changes.ts'
import type { MountState } from './mount-state.ts'
import { newAttributes, permissionsOf, withoutPrivileges } from './node-attributes.ts'
import { OpenFile, type Node } from './node.ts'
import type { Publisher } from './publisher.ts'
import { ReadAhead } from './read-ahead.ts'
import type { Resolver } from './resolver.ts'
import type { StagedFile } from './staging.ts'

const NO_BYTES = new Uint8Array(0)
/** The bits of open's flags that say what is done with the file. */
const O_ACCMODE = 3

interface FileHandle {
  readonly node: Node
  readonly file: OpenFile
  readonly mayWrite: boolean
  readonly appends: boolean
  /** Made at the first read that goes to the store. */
  readAhead: ReadAhead | undefined
}

export class Files {
  readonly #state: MountState
  readonly #resolver: Resolver
  readonly #publisher: Publisher
  readonly #handles = new Map<Handle, FileHandle>()
  #handleLast: Handle = 0

  constructor(state: MountState, resolver: Resolver, publisher: Publisher) {
    this.#state = state
    this.#resolver = resolver
    this.#publisher = publisher
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
    if (node.detached !== undefined && node.file?.staged === undefined) throw this.#publisher.stale(node)
    if ((flags & constants.O_TRUNC) === 0) return this.#handle(node, flags)
    if (this.#state.readOnly) throw readOnlyError('truncate', node)
    const truncated = this.truncate(node, 0)
    if (truncated === undefined) return this.#handle(node, flags)
    return truncated.then(() => this.#opened(node, flags & ~constants.O_TRUNC))
  }

  #handle(node: Node, flags: number): OpenAnswer {
    const access = flags & O_ACCMODE
    const mayWrite = access !== constants.O_RDONLY
    node.file ??= new OpenFile()
    const { file } = node
    file.handles++
    if (mayWrite) file.writers++
    const handle = ++this.#handleLast
    const appends = mayWrite && (flags & constants.O_APPEND) !== 0
    this.#handles.set(handle, { node, file, mayWrite, appends, readAhead: undefined })
    this.#state.openFiles.inc()
    this.#state.table.settle(node)
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
      checkPathLength(this.#state, parent, name)
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
      return { node, opened: this.#handle(node, flags) }
    })
  }

  read(handle: Handle, offset: number, size: number): MaybePromise<Uint8Array | readonly Uint8Array[]> {
    const open = this.#get(handle)
    const { node, file } = open
    if (file.staged !== undefined) return file.staged.read(offset, size)
    if (file.staging !== undefined) return file.staging.then((staged) => staged.read(offset, size))
    if (node.detached !== undefined) throw this.#publisher.stale(node)
    const length = Math.min(size, node.size - offset)
    if (length <= 0) return NO_BYTES
    open.readAhead ??= new ReadAhead(
      (from, count, signal) => this.#fetch(node, from, count, signal),
      this.#state.memory,
    )
    return open.readAhead.read(offset, length, node.size)
  }

  /** Exactly `length` bytes of the version of `node`. */
  async #fetch(node: Node, offset: number, length: number, signal: AbortSignal): Promise<Buffer> {
    const { store, table, tree } = this.#state
    for (;;) {
      const moving = tree.settled(node)
      if (moving !== undefined) await moving
      const { version } = node
      if (version === undefined || node.detached !== undefined) return this.#fetchStaged(node, offset, length)
      const path = table.pathOf(node)
      try {
        const reading = await store.read(path, { version, offset, length, signal })
        const bytes = await reading.bytes()
        if (bytes.length === length) return bytes
        throw new OperationError('STORE_CORRUPT', `Cannot read "${path}": ${bytes.length} of ${length} bytes came`)
      } catch (error) {
        if (!isOperationError(error, 'STORE_CONFLICT', 'STORE_NOT_FOUND')) throw error
        // Maybe a move or a change of attributes from here gave the file another path or version meanwhile.
        await node.lock.idle()
        const moved = tree.settled(node)
        if (moved !== undefined) await moved
        const same = node.detached === undefined && node.version === version && table.pathOf(node) === path
        if (same) throw this.#publisher.replaced(node, error)
      }
    }
  }

  /** What a read of a file gives that was staged while the read was under way. */
  async #fetchStaged(node: Node, offset: number, length: number): Promise<Buffer> {
    const staged = node.file?.staged
    if (staged === undefined) throw this.#publisher.stale(node)
    return Buffer.from(staged.read(offset, length))
  }

  write(handle: Handle, offset: number, data: Uint8Array, caller: Caller): MaybePromise<number> {
    const open = this.#get(handle)
    const { file, node } = open
    if (file.staged !== undefined && file.publishing === undefined)
      return this.#write(open, file.staged, offset, data, caller)
    // A file that was lost to another, or superseded before its first write, has nothing to write into.
    if (node.detached !== undefined && file.staged === undefined && file.staging === undefined) {
      throw this.#publisher.stale(node)
    }
    return this.#writeLater(open, offset, data, caller)
  }

  async #writeLater(open: FileHandle, offset: number, data: Uint8Array, caller: Caller): Promise<number> {
    return this.#write(open, await this.#writable(open.node, open.node.size), offset, data, caller)
  }

  /** The staged file, once no put reads it. */
  async #writable(node: Node, length: number): Promise<StagedFile> {
    for (;;) {
      const staged = await this.#publisher.stage(node, length)
      const publishing = node.file?.publishing
      if (publishing === undefined) return staged
      await publishing
    }
  }

  #write(open: FileHandle, staged: StagedFile, offset: number, data: Uint8Array, caller: Caller): number {
    const { node, file } = open
    // The kernel's idea of the end can be older than what another handle has appended.
    const at = open.appends ? staged.size : offset
    const { fileBytesMax } = this.#state.store.capabilities
    if (at + data.length > fileBytesMax) {
      throw new OperationError(
        'STORE_FILE_TOO_LARGE',
        `Cannot write "${node.name}": it would pass ${fileBytesMax} bytes`,
      )
    }
    const written = staged.write(at, data)
    this.#changed(node, file, staged, caller.uid)
    return written
  }

  /** Notes that the bytes of a staged file changed: size, times, privileges, dirt. */
  #changed(node: Node, file: OpenFile, staged: StagedFile, uid: number): void {
    const now = timestampNow()
    const mode = permissionsOf(node)
    const kept = uid === 0 ? mode : withoutPrivileges(mode)
    const times = { mtime: now, ctime: now }
    changeAttributes(node, kept === mode ? times : { ...times, mode: kept })
    const wasDirty = file.dirty
    file.dirty = true
    file.failed = false
    if (!wasDirty || node.size !== staged.size) {
      node.size = staged.size
      this.#state.countDirty(node)
    }
    this.#state.table.touch(node)
  }

  /** Sets the size; the change is published by whoever closes the file, or by the caller where nobody has it open. */
  truncate(node: Node, size: number): MaybePromise<void> {
    const { fileBytesMax } = this.#state.store.capabilities
    if (size > fileBytesMax) {
      throw new OperationError('STORE_FILE_TOO_LARGE', `Cannot extend "${node.name}" past ${fileBytesMax} bytes`)
    }
    const { file } = node
    const staged = file?.publishing === undefined ? this.#publisher.stage(node, Math.min(size, node.size)) : undefined
    if (staged !== undefined && !(staged instanceof Promise)) return this.#truncate(node, staged, size)
    return this.#writable(node, Math.min(size, node.size)).then((ready) => this.#truncate(node, ready, size))
  }

  #truncate(node: Node, staged: StagedFile, size: number): void {
    const { file } = node
    assert(file !== undefined, 'a staged file is open')
    staged.truncate(size)
    node.size = size
    this.#changed(node, file, staged, 0)
  }

  /**
   * What close(2) returns: resolves when the store has what was written. A process that closes only a copy of the one
   * descriptor that writes goes on writing, and publishes by the close of the last.
   */
  flush(handle: Handle, caller: Caller): MaybePromise<void> {
    const open = this.#get(handle)
    const { file, node } = open
    if (!open.mayWrite || (!file.dirty && !file.attributesDirty && file.publishing === undefined)) return undefined
    if (file.writers === 1 && this.#state.holdsOpen(caller.pid, node.id)) return undefined
    return this.#publish(open)
  }

  fsync(handle: Handle): MaybePromise<void> {
    return this.#publish(this.#get(handle))
  }

  #publish({ node, file }: FileHandle): MaybePromise<void> {
    if (!file.dirty && !file.attributesDirty && file.publishing === undefined) return undefined
    return this.#publisher.publish(node)
  }

  release(handle: Handle): MaybePromise<void> {
    const open = this.#get(handle)
    const { node, file } = open
    this.#handles.delete(handle)
    this.#state.openFiles.dec()
    open.readAhead?.close()
    file.handles--
    if (open.mayWrite) file.writers--
    const isAhead = (file.dirty || file.attributesDirty) && node.detached !== 'removed'
    // What a mapping wrote after the close is published now, with nobody to tell but the log. What a close could not
    // publish is tried again later.
    if (isAhead && file.writers === 0 && !file.failed) return this.#publishLast(node)
    this.#publisher.release(node)
    return undefined
  }

  async #publishLast(node: Node): Promise<void> {
    try {
      await this.#publisher.publish(node)
    } catch (error) {
      this.#state.log.debug({ err: error }, `Cannot publish "${this.#state.table.describe(node)}" at its last close`)
    }
    this.#publisher.release(node)
  }

  #get(handle: Handle): FileHandle {
    const open = this.#handles.get(handle)
    assert(open !== undefined, `the kernel names a file handle that is open: ${handle}`)
    return open
  }
}

/** @throws OperationError `STORE_NAME_TOO_LONG` before anything is written that the store could not hold in the end. */
export function checkPathLength(state: MountState, parent: Node, name: string): void {
  const { pathBytesMax } = state.store.capabilities
  const path = joinPath(state.table.pathOf(parent), name)
  if (path.length * 3 <= pathBytesMax || Buffer.byteLength(path) <= pathBytesMax) return
  throw new OperationError(
    'STORE_NAME_TOO_LONG',
    `Cannot use "${name.slice(0, 40)}" there: the path has ${Buffer.byteLength(path)} bytes, the store holds ${pathBytesMax}`,
  )
}

/** @throws nothing: makes the error for a change under a read-only mount. */
export function readOnlyError(action: string, node: Node): OperationError {
  return new OperationError('STORE_READ_ONLY', `Cannot ${action} "${node.name}": the mount is read-only`)
}
