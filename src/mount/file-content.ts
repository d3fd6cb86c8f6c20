/**
 * The bytes of open files: read from the store or from the staged file, written into the staged file, cut and extended.
 * All handles of an inode share its staged file and read its one version; of a large file that is edited, what is not
 * staged is read as before. When what was written is published, `files.ts` decides.
 */
import { setImmediate } from 'node:timers/promises'

import { assert } from '#base/assert.ts'
import { isOperationError, OperationError } from '#base/errors.ts'
import { timestampNow } from '#base/time.ts'
import type { Caller, MaybePromise } from '#fuse/file-system.ts'
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE } from '#os/fallocate.ts'
import { HERE_BYTES_MAX } from '#os/file-range.ts'

import { changeAttributes } from './attribute-changes.ts'
import type { MountState } from './mount-state.ts'
import { permissionsOf, withoutPrivileges } from './node-attributes.ts'
import type { Node, OpenFile } from './node.ts'
import type { Publisher } from './publisher.ts'
import type { Range } from './ranges.ts'
import { ReadingPool } from './reading/reading-pool.ts'
import { VersionReader, type Bytes, type ReadHandle } from './reading/version-reader.ts'
import type { StagedFile } from './staged-file.ts'
import { UploadAhead, UploadsAhead, type BeginUpload } from './upload-ahead.ts'

const NO_BYTES = new Uint8Array(0)
/** Files below that size are not watched for being sent ahead. */
const AHEAD_BYTES_MIN = 1 << 20
/** A copy of so much is answered before more is copied: a program that is interrupted waits for no more. */
const COPY_BYTES_MAX = 16 << 20
const COPY_READ_BYTES_MAX = 1 << 20
const SEEK_DATA = 3
const SEEK_HOLE = 4

/** One open of a file. */
export interface FileHandle {
  readonly node: Node
  readonly file: OpenFile
  readonly mayWrite: boolean
  /** Made at the first read that goes to the store. */
  readAhead: ReadHandle | undefined
  /** What `readAhead` belongs to. */
  reader?: VersionReader
}

export class FileContent {
  readonly #state: MountState
  readonly #publisher: Publisher
  readonly #pool: ReadingPool
  readonly #uploads = new UploadsAhead()

  constructor(state: MountState, publisher: Publisher) {
    this.#state = state
    this.#publisher = publisher
    this.#pool = new ReadingPool({ budget: state.memory, hedge: state.hedge })
  }

  /** An answer at once may lie in `into`; then the next read with it overwrites it. */
  read(open: FileHandle, offset: number, size: number, into?: Buffer): MaybePromise<Bytes> {
    const { node, file } = open
    if (file.staged !== undefined) return this.#readStaged(open, file.staged, offset, size)
    if (file.staging !== undefined) return file.staging.then(() => this.read(open, offset, size))
    if (node.detached !== undefined) throw this.#publisher.stale(node)
    const length = Math.min(size, node.size - offset)
    if (length <= 0) return NO_BYTES
    return this.#readStored(open, offset, length, into)
  }

  #readStaged(open: FileHandle, staged: StagedFile, offset: number, size: number): MaybePromise<Bytes> {
    return staged.holds(offset, size) ? staged.read(offset, size) : this.#readLaid(open, staged, offset, size)
  }

  /** What is staged, over what is not. */
  async #readLaid(open: FileHandle, staged: StagedFile, offset: number, size: number): Promise<Bytes> {
    const { node, file } = open
    if (node.detached !== undefined) throw this.#publisher.stale(node)
    const end = Math.min(offset + size, staged.size)
    const fetched = await Promise.all(
      [...staged.missing.within(offset, end)].map(async (range) => {
        const bytes = Buffer.allocUnsafe(range.end - range.start)
        let done = 0
        while (done < bytes.length) {
          const read = await this.#readStored(open, range.start + done, bytes.length - done)
          // The memory of an answer is lent for this turn only.
          for (const part of read instanceof Uint8Array ? [read] : read) {
            bytes.set(part, done)
            done += part.length
          }
        }
        return { start: range.start, bytes }
      }),
    )
    // Closed meanwhile, its descriptor may be another file's.
    if (file.staged !== staged) return this.read(open, offset, size)
    const bytes = staged.read(offset, size)
    for (const piece of fetched) {
      // What was written or cut since is not missing any more.
      for (const { start, end: stop } of staged.missing.within(piece.start, piece.start + piece.bytes.length)) {
        piece.bytes.copy(bytes, start - offset, start - piece.start, stop - piece.start)
      }
    }
    return bytes
  }

  /** Bytes of the version of the node, within it. */
  #readStored(open: FileHandle, offset: number, length: number, into?: Buffer): MaybePromise<Bytes> {
    const reader = this.readerOf(open.node, open.file)
    if (open.readAhead === undefined || open.reader !== reader) {
      open.readAhead?.close()
      open.readAhead = reader.handle()
      open.reader = reader
    }
    return open.readAhead.read(offset, length, into)
  }

  /** What all handles of `node` read the version by that it has in the store. */
  readerOf(node: Node, file: OpenFile): VersionReader {
    if (file.reader !== undefined) return file.reader
    const fetch = (offset: number, length: number, signal: AbortSignal): Promise<Buffer> =>
      this.#fetch(node, offset, length, signal)
    // A getter: the cache lets go of what is staged.
    const source = {
      size: file.staged?.baseEnd ?? node.size,
      fetch,
      get cached() {
        return file.cached
      },
    }
    file.reader = new VersionReader(source, this.#pool)
    return file.reader
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
        await this.#state.unanswered.settled(node)
        const same = node.detached === undefined && node.version === version && table.pathOf(node) === path
        if (same) throw this.#publisher.replaced(node, error)
      }
    }
  }

  /** What a read of a file gives that was staged while the read was under way. */
  async #fetchStaged(node: Node, offset: number, length: number): Promise<Buffer> {
    const staged = node.file?.staged
    if (staged === undefined || !staged.holds(offset, length)) throw this.#publisher.stale(node)
    const bytes = staged.read(offset, length)
    if (bytes.length < length) throw this.#publisher.stale(node)
    return bytes
  }

  /** Writes at `offset`; undefined: at the end. */
  write(open: FileHandle, offset: number | undefined, data: Uint8Array, caller: Caller): MaybePromise<number> {
    const { file, node } = open
    if (file.staged !== undefined && file.isFree) return this.#write(open, file.staged, offset, data, caller)
    // A file that was lost to another, or superseded before its first write, has nothing to write into.
    if (node.detached !== undefined && file.staged === undefined && file.staging === undefined) {
      throw this.#publisher.stale(node)
    }
    return this.#writeLater(open, offset, data, caller)
  }

  #writeLater(open: FileHandle, offset: number | undefined, data: Uint8Array, caller: Caller): Promise<number> {
    const { node } = open
    return this.#whenWritable(node, node.size, (staged) => this.#write(open, staged, offset, data, caller))
  }

  /** Changes the staged file once no put reads it; `length` bytes of what is stored are wanted for that. */
  async #whenWritable<T>(node: Node, length: number, change: (staged: StagedFile) => T): Promise<T> {
    for (;;) {
      let staged = await this.#publisher.stage(node, length)
      if (node.file?.replayed !== undefined) await this.#publisher.rememberReplayed(node.file)
      if (node.file !== undefined) staged = this.#state.journals?.writable(node.file, staged, length) ?? staged
      const publishing = node.file?.publishing
      if (publishing === undefined) return change(staged)
      await publishing
    }
  }

  #write(
    { node, file }: FileHandle,
    staged: StagedFile,
    offset: number | undefined,
    data: Uint8Array,
    caller: Caller,
  ): number {
    const at = offset ?? staged.size
    this.#checkSize(node, at + data.length)
    const before = staged.size
    const written = fitting(file, () => staged.write(at, data))
    this.#sendAhead(node, file, staged, { start: at, end: at + written }, before)
    this.#changed(node, file, staged, caller.uid)
    return written
  }

  /** @throws OperationError `STORE_FILE_TOO_LARGE` */
  #checkSize(node: Node, size: number): void {
    const { fileBytesMax } = this.#state.store.capabilities
    if (size <= fileBytesMax) return
    throw new OperationError('STORE_FILE_TOO_LARGE', `Cannot write "${node.name}": it would pass ${fileBytesMax} bytes`)
  }

  /** Has what was written of a new file sent while more is written. */
  #sendAhead(node: Node, file: OpenFile, staged: StagedFile, { start, end }: Range, sizeBefore: number): void {
    if (file.ahead === undefined) {
      if (this.#state.store.beginUpload === undefined || staged.baseEnd > 0 || staged.size < AHEAD_BYTES_MIN) return
      // From the start on, or on from what was written from the start on.
      const goesOn = start === sizeBefore && staged.dirty.covers(0, start)
      if ((!goesOn && start !== 0) || !staged.isComplete || node.detached !== undefined) return
      file.ahead = new UploadAhead(this.#uploads, staged, goesOn ? start : 0, () => this.#beginUpload(node, file))
    }
    if (node.detached === undefined) {
      file.ahead.wrote(start, end)
    } else {
      file.ahead.abort()
      file.ahead = undefined
    }
  }

  #beginUpload(node: Node, file: OpenFile): ReturnType<BeginUpload> {
    const { store, table, signal } = this.#state
    const path = table.pathOf(node)
    const attributes = file.changes.over(node.attributes ?? {})
    const begun = store.beginUpload?.(path, { attributes, signal })
    assert(begun !== undefined, 'a store that begins uploads goes on doing so')
    return { path, attributes, begun }
  }

  /** Notes that the bytes of a staged file changed: size, times, privileges, dirt. */
  #changed(node: Node, file: OpenFile, staged: StagedFile, uid: number): void {
    const now = timestampNow()
    const mode = permissionsOf(node)
    const kept = uid === 0 ? mode : withoutPrivileges(mode)
    const times = { mtime: now, ctime: now }
    changeAttributes(node, kept === mode ? times : { ...times, mode: kept }, true)
    const wasDirty = file.dirty
    file.dirty = true
    file.failed = false
    file.lacksRoom = false
    if (!wasDirty || node.size !== staged.size || file.dirtyBytes !== staged.dirty.bytes) {
      node.size = staged.size
      this.#state.countDirty(node)
    }
    this.#state.table.touch(node)
  }

  /** Sets the size; the change is published by whoever closes the file, or by the caller where nobody has it open. */
  truncate(node: Node, size: number): MaybePromise<void> {
    this.#checkSize(node, size)
    const { file } = node
    const staged = file?.isFree !== false ? this.#publisher.stage(node, Math.min(size, node.size)) : undefined
    if (staged !== undefined && !(staged instanceof Promise)) return this.#truncate(node, staged, size)
    return this.#whenWritable(node, Math.min(size, node.size), (ready) => this.#truncate(node, ready, size))
  }

  #truncate(node: Node, staged: StagedFile, size: number): void {
    const { file } = node
    assert(file !== undefined, 'a staged file is open')
    const before = staged.size
    staged.truncate(size)
    if (size === 0) {
      file.ahead?.abort()
      file.ahead = undefined
    } else {
      file.ahead?.resized(size, before)
    }
    this.#changed(node, file, staged, 0)
  }

  /** fallocate(2). @throws OperationError `STORE_UNSUPPORTED` for modes that are not of a staged file. */
  allocate(open: FileHandle, offset: number, length: number, mode: number, caller: Caller): MaybePromise<void> {
    const { node, file } = open
    const punches = mode === (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
    const zeroes = (mode & ~FALLOC_FL_KEEP_SIZE) === FALLOC_FL_ZERO_RANGE
    if (!punches && !zeroes && (mode & ~FALLOC_FL_KEEP_SIZE) !== 0) {
      throw new OperationError('STORE_UNSUPPORTED', `Cannot allocate in "${node.name}": mode ${mode} is not supported`)
    }
    const keepSize = (mode & FALLOC_FL_KEEP_SIZE) !== 0
    if (!keepSize) this.#checkSize(node, offset + length)
    const change = (staged: StagedFile): void => {
      const before = staged.generation
      if (punches || zeroes) staged.zero(offset, length, punches, keepSize)
      else staged.allocate(offset, length, keepSize)
      if (staged.generation === before) return
      file.ahead?.changed(offset, offset + length)
      this.#changed(node, file, staged, caller.uid)
    }
    if (file.staged !== undefined && file.isFree) return change(file.staged)
    return this.#whenWritable(node, node.size, change)
  }

  /** lseek(2) for data or for a hole; what is not staged is data. @throws OperationError `FILE_NO_DATA` */
  seek({ node, file }: FileHandle, offset: number, whence: number): number {
    if (whence !== SEEK_DATA && whence !== SEEK_HOLE) {
      throw new OperationError('INPUT_INVALID', `Cannot seek in "${node.name}": whence ${whence} is not supported`)
    }
    let found: number | undefined
    if (file.staged !== undefined) {
      found = whence === SEEK_DATA ? file.staged.seekData(offset) : file.staged.seekHole(offset)
    } else if (offset < node.size) {
      found = whence === SEEK_DATA ? offset : node.size
    }
    if (found !== undefined) return found
    throw new OperationError('FILE_NO_DATA', `Cannot seek in "${node.name}": nothing is at ${offset} or after it`)
  }

  /** copy_file_range(2): at most `COPY_BYTES_MAX` a call, as whoever copies asks again for the rest. */
  async copy(
    from: FileHandle,
    offset: number,
    to: FileHandle,
    at: number,
    size: number,
    caller: Caller,
  ): Promise<number> {
    const length = Math.min(size, COPY_BYTES_MAX, from.node.size - offset)
    if (from.node === to.node && offset < at + length && at < offset + length) {
      throw new OperationError('INPUT_INVALID', `Cannot copy within "${to.node.name}": the ranges overlap`)
    }
    let done = 0
    while (done < length) {
      const copied = await this.#copyPiece(from, offset + done, to, at + done, length - done, caller)
      if (copied === 0) break
      done += copied
      // Others get their turn.
      await setImmediate()
    }
    return done
  }

  async #copyPiece(
    from: FileHandle,
    offset: number,
    to: FileHandle,
    at: number,
    length: number,
    caller: Caller,
  ): Promise<number> {
    const copied = await this.#whenWritable(to.node, to.node.size, (target) =>
      this.#copyHere(from, offset, to, target, at, length, caller),
    )
    if (copied !== undefined) return copied
    const read = await this.read(from, offset, Math.min(length, COPY_READ_BYTES_MAX))
    const bytes = read instanceof Uint8Array ? read : Buffer.concat(read)
    if (bytes.length === 0) return 0
    // Its put may have begun meanwhile, and then the bytes have to outlive this turn.
    if (to.file.isFree && to.file.staged !== undefined) {
      return this.#write(to, to.file.staged, at, bytes, caller)
    }
    return this.#writeLater(to, at, Buffer.from(bytes), caller)
  }

  /** Copies from one staged file to another; undefined where that needs another way. */
  #copyHere(
    { file }: FileHandle,
    offset: number,
    to: FileHandle,
    target: StagedFile,
    at: number,
    size: number,
    caller: Caller,
  ): number | undefined {
    const source = file.staged
    const length = Math.min(size, HERE_BYTES_MAX, (source?.size ?? 0) - offset)
    if (source === undefined || length <= 0 || !source.holds(offset, length)) return undefined
    this.#checkSize(to.node, at + length)
    const before = target.size
    const copied = fitting(to.file, () => target.copyFrom(source, offset, at, length))
    if (copied === undefined || copied === 0) return undefined
    this.#sendAhead(to.node, to.file, target, { start: at, end: at + copied }, before)
    this.#changed(to.node, to.file, target, caller.uid)
    return copied
  }
}

/** Runs a write; notes where it finds no room. */
function fitting<T>(file: OpenFile, write: () => T): T {
  try {
    return write()
  } catch (error) {
    if (isOperationError(error, 'STAGING_NO_SPACE')) file.lacksRoom = true
    throw error
  }
}
