/**
 * The bytes of open files: read from the store or from the staged file, written into the staged file, cut and extended.
 * All handles of an inode share its staged file and read its one version. When what was written is published, `files.ts`
 * decides.
 */
import { assert } from '#base/assert.ts'
import { isOperationError, OperationError } from '#base/errors.ts'
import { timestampNow } from '#base/time.ts'
import type { Caller, MaybePromise } from '#fuse/file-system.ts'

import { changeAttributes } from './attribute-changes.ts'
import type { MountState } from './mount-state.ts'
import { permissionsOf, withoutPrivileges } from './node-attributes.ts'
import type { Node, OpenFile } from './node.ts'
import type { Publisher } from './publisher.ts'
import { ReadingPool } from './reading/reading-pool.ts'
import { VersionReader, type ReadHandle } from './reading/version-reader.ts'
import type { StagedFile } from './staging.ts'

const NO_BYTES = new Uint8Array(0)

/** One open of a file. */
export interface FileHandle {
  readonly node: Node
  readonly file: OpenFile
  readonly mayWrite: boolean
  readonly appends: boolean
  /** Made at the first read that goes to the store. */
  readAhead: ReadHandle | undefined
}

export class FileContent {
  readonly #state: MountState
  readonly #publisher: Publisher
  readonly #pool: ReadingPool
  readonly #readers = new WeakMap<OpenFile, VersionReader>()

  constructor(state: MountState, publisher: Publisher) {
    this.#state = state
    this.#publisher = publisher
    this.#pool = new ReadingPool({ budget: state.memory, hedge: state.hedge })
  }

  read(open: FileHandle, offset: number, size: number): MaybePromise<Uint8Array | readonly Uint8Array[]> {
    const { node, file } = open
    if (file.staged !== undefined) return file.staged.read(offset, size)
    if (file.staging !== undefined) return file.staging.then((staged) => staged.read(offset, size))
    if (node.detached !== undefined) throw this.#publisher.stale(node)
    const length = Math.min(size, node.size - offset)
    if (length <= 0) return NO_BYTES
    open.readAhead ??= this.readerOf(node, file).handle()
    return open.readAhead.read(offset, length)
  }

  /** What all handles of `node` read the version by that it has in the store. */
  readerOf(node: Node, file: OpenFile): VersionReader {
    let reader = this.#readers.get(file)
    if (reader === undefined) {
      const fetch = (offset: number, length: number, signal: AbortSignal): Promise<Buffer> =>
        this.#fetch(node, offset, length, signal)
      // A getter: the cache lets go of what is staged.
      const source = {
        size: node.size,
        fetch,
        get cached() {
          return file.cached
        },
      }
      reader = new VersionReader(source, this.#pool)
      this.#readers.set(file, reader)
    }
    return reader
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

  write(open: FileHandle, offset: number, data: Uint8Array, caller: Caller): MaybePromise<number> {
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
}
