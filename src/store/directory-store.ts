/**
 * A local directory as a store (`file:///dir`): files are files, attributes are the file system's own, and other
 * programs may look on and write too.
 *
 * A put writes a temporary file under `.eider/tmp` of the same file system, makes it durable, and renames it into
 * place; so a file is absent or complete for everybody, also after a crash. "Look at the guard, then change" is one
 * synchronous step under the lock of the path (`directory/locks.ts`): guards are atomic among all users of Eider on the
 * directory. Against other programs a put with `ABSENT` is atomic too (the kernel refuses to replace); the other guards
 * are looked at some microseconds before the change. Where the file system has no locks between processes, they are
 * `checked`.
 *
 * Every change is durable when its call resolves: the file by fsync before the rename, the directories by fsync after.
 */
import { close, closeSync, constants, openSync, statfs } from 'node:fs'
import { promisify } from 'node:util'

import { OperationError } from '#base/errors.ts'
import { makeDirectoryAt, openAt, readLinkAt } from '#os/at.ts'
import { tryLock, unlock } from '#os/flock.ts'
import { inodePath } from '#os/inode.ts'
import { statusOf, type Status } from '#os/status.ts'
import { xattrNamesOf, xattrsWork } from '#os/xattr.ts'

import { checkAborted } from './abort.ts'
import { applyAttributes, checkXattrNames, keptAttributes, keptAttributesOf } from './directory/attributes.ts'
import { attempt, Changes } from './directory/changes.ts'
import { toSync, type DirectoryToSync } from './directory/directory-syncs.ts'
import { entryOf, kindOf, NOTHING_KEPT, sameBytes } from './directory/entry.ts'
import { failure } from './directory/failure.ts'
import { listDirectory } from './directory/listing.ts'
import { exchangeStep, renameStep, type VersionChange } from './directory/moving.ts'
import { removeLeftovers } from './directory/own-area.ts'
import { MemoryReading, readFrom } from './directory/reading.ts'
import { removeEmptyAt, removeFileAt, removeMany } from './directory/removing.ts'
import { openSegments } from './directory/stored-segments.ts'
import { checkGuard, inodeEntry, lookUp, makePlace, openPlace, openToRead, withInode } from './directory/tree.ts'
import { writeSource } from './directory/write-source.ts'
import { linkTarget } from './link-target.ts'
import { checkPath, OWN_NAME } from './path.ts'
import {
  isStored,
  type Attributes,
  type CallOptions,
  type Capabilities,
  type CopyOptions,
  type Entry,
  type ExchangeOptions,
  type GuardStrength,
  type ListOptions,
  type MutateOptions,
  type PutOptions,
  type Reading,
  type ReadOptions,
  type Removal,
  type RenameOptions,
  type Source,
  type Space,
  type SpecialKind,
  type Store,
  type Version,
} from './store.ts'

/** PATH_MAX of Linux without its NUL. */
const PATH_BYTES_MAX = 4095
/** What ext4 holds with 4 KiB blocks; the kernel tells where a file system holds less. */
const FILE_BYTES_MAX = 16 * 2 ** 40

export interface DirectoryStoreOptions {
  /** Makes and removes nothing of its own in the directory; changes must not be asked for. */
  readonly readOnly?: boolean
  readonly signal?: AbortSignal
}

/** Opens the directory `root`, which must exist, and removes what dead processes left unfinished in it. */
export async function openDirectoryStore(root: string, options: DirectoryStoreOptions = {}): Promise<Store> {
  const action = `open the directory "${root}"`
  checkAborted(action, options.signal)
  let fd: number
  try {
    fd = openSync(root, constants.O_RDONLY | constants.O_DIRECTORY)
  } catch (error) {
    throw failure(error, action)
  }
  try {
    const locks = locksWork(fd)
    // Without locks, what a dead process left cannot be told from what a live one is writing.
    if (locks && options.readOnly !== true) removeLeftovers(fd)
    const strength: GuardStrength = locks ? 'atomic' : 'checked'
    const capabilities: Capabilities = {
      guards: { create: 'atomic', replace: strength, remove: strength, copy: strength },
      listingOrdered: true,
      listingComplete: true,
      renameAtomic: true,
      attributes: xattrsWork(inodePath(fd)),
      specials: true,
      checkAttributes: (path, kind, { xattrs }) =>
        checkXattrNames(xattrs ?? new Map(), kind, `set attributes of "${path}"`),
      pathBytesMax: PATH_BYTES_MAX,
      fileBytesMax: FILE_BYTES_MAX,
    }
    return new DirectoryStore(root, fd, capabilities)
  } catch (error) {
    closeSync(fd)
    throw failure(error, action)
  }
}

/** Whether processes can lock each other out; false on file systems without locks. */
function locksWork(root: number): boolean {
  // A descriptor of its own: the lock is tried on the root, and a second store may be trying just now too.
  const fd = openAt(root, '.', constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    if (tryLock(fd)) unlock(fd)
    return true
  } catch {
    return false
  } finally {
    closeSync(fd)
  }
}

class DirectoryStore implements Store {
  readonly url: string
  readonly capabilities: Capabilities
  readonly #root: number
  readonly #changes: Changes
  #closed = false

  constructor(path: string, root: number, capabilities: Capabilities) {
    this.url = `file://${encodeURI(path)}`
    this.#root = root
    this.capabilities = capabilities
    this.#changes = new Changes(root, capabilities.guards.replace === 'atomic')
  }

  async stat(path: string, options: CallOptions = {}): Promise<Entry> {
    const action = `stat "${path}"`
    enter(path, action, options.signal)
    return withInode(this.#root, path, action, (fd, status) => inodeEntry(path, fd, status, action))
  }

  async *list(path: string, options: ListOptions = {}): AsyncGenerator<readonly Entry[]> {
    enter(path, `list "${path}"`, options.signal)
    yield* listDirectory(this.#root, path, options)
  }

  async read(path: string, options: ReadOptions = {}): Promise<Reading> {
    const action = `read "${path}"`
    enter(path, action, options.signal)
    const opened = openToRead(this.#root, path, action)
    if (opened === undefined) return this.#readSymlink(path, action, options)
    const { fd, status } = opened
    let entry: Entry
    try {
      entry = fileEntry(path, fd, status)
      checkVersion(action, entry, options)
    } catch (error) {
      closeSync(fd)
      throw failure(error, action)
    }
    const offset = Math.min(options.offset ?? 0, status.size)
    const length = Math.min(options.length ?? status.size, status.size - offset)
    return readFrom(fd, status, entry, offset, length, options.signal)
  }

  async readLink(path: string, options: CallOptions = {}): Promise<string> {
    const action = `read the link "${path}"`
    enter(path, action, options.signal)
    return withInode(this.#root, path, action, (fd, status) => {
      if (kindOf(status) !== 'symlink') {
        inodeEntry(path, fd, status, action)
        throw new OperationError('INPUT_INVALID', `Cannot ${action}: it is not a symlink`)
      }
      return linkTarget(path, readLinkAt(fd, ''))
    })
  }

  async put(path: string, source: Source, options: PutOptions): Promise<Entry> {
    const action = `put "${path}"`
    enter(path, action, options.signal)
    return attempt(action, async () => {
      const isInMemory = source instanceof Uint8Array
      // What is in memory costs little more to write in vain than to be asked about before.
      if (!isInMemory || options.guard.kind !== 'any' || path === '') this.#changes.checkEarly(path, action, options)
      const place = (): Promise<Entry> =>
        this.#changes.placeFile(path, action, options, (fd) => this.#fill(fd, path, action, source, options.signal))
      // A stream lasts as long as its sender likes, and must not keep others waiting.
      const isStream = !isInMemory && source.kind === 'stream'
      return isStream ? place() : this.#changes.slots.run(action, options.signal, place)
    })
  }

  async symlink(path: string, target: string, options: PutOptions): Promise<Entry> {
    const action = `make the symlink "${path}"`
    enter(path, action, options.signal)
    if (target === '' || target.includes('\0') || !target.isWellFormed()) {
      throw new OperationError('INPUT_INVALID', `Cannot ${action}: its target is empty, or not text`)
    }
    return attempt(action, async () => {
      this.#changes.checkEarly(path, action, options)
      return this.#changes.placeSymlink(path, target, action, options)
    })
  }

  async makeSpecial(path: string, kind: SpecialKind, options: PutOptions): Promise<Entry> {
    const action = `make the ${kind} "${path}"`
    enter(path, action, options.signal)
    return attempt(action, async () => {
      this.#changes.checkEarly(path, action, options)
      return this.#changes.placeSpecial(path, kind, action, options)
    })
  }

  async makeDirectory(path: string, options: PutOptions): Promise<Entry> {
    const action = `make the directory "${path}"`
    enter(path, action, options.signal)
    if (path === '') {
      if (options.guard.kind === 'absent') throw new OperationError('STORE_CONFLICT', `Cannot ${action}: it is there`)
      return this.setAttributes(path, options.attributes ?? {}, options)
    }
    return this.#changes.change([path], action, options.signal, (syncs) => {
      const found = lookUp(this.#root, path)
      checkGuard(action, found, options.guard)
      if (found !== undefined && kindOf(found) !== 'directory') {
        throw new OperationError('STORE_NOT_DIRECTORY', `Cannot ${action}: something else is there`)
      }
      const { dir, name } = makePlace(this.#root, path, syncs)
      syncs.push(toSync(dir))
      if (found === undefined) makeDirectoryAt(dir, name, 0o777)
      const fd = openAt(dir, name, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW)
      syncs.push(toSync(fd))
      applyAttributes(fd, options.attributes ?? {}, action, found === undefined)
      const status = statusOf(fd)
      return entryOf(path, 'directory', status, keptAttributesOf(fd, status))
    })
  }

  async setAttributes(path: string, changes: Attributes, options: MutateOptions): Promise<Entry> {
    const action = `set attributes of "${path}"`
    enter(path, action, options.signal)
    return this.#changes.change([path], action, options.signal, (syncs) =>
      withInode(this.#root, path, action, (fd, status) => {
        inodeEntry(path, fd, status, action)
        checkGuard(action, status, options.guard)
        applyAttributes(fd, changes, action, false)
        this.#syncInode(path, fd, syncs)
        return inodeEntry(path, fd, statusOf(fd), action)
      }),
    )
  }

  async copy(from: string, to: string, options: CopyOptions): Promise<Entry> {
    const action = `copy "${from}" to "${to}"`
    enter(from, action, options.signal)
    enter(to, action, options.signal)
    return attempt(action, async () => {
      const opened = openToRead(this.#root, from, action)
      if (opened === undefined) return this.#copySymlink(from, to, action, options)
      const { fd, status } = opened
      try {
        const entry = fileEntry(from, fd, status)
        checkVersion(action, entry, options)
        this.#changes.checkEarly(to, action, options)
        const attributes = options.attributes ?? entry.attributes ?? {}
        return await this.#changes.placeFile(to, action, { ...options, attributes }, async (target) => {
          const segments = [{ fd, offset: 0, length: status.size }]
          await writeSource(target, to, { kind: 'file', segments }, options.signal)
          if (!sameBytes(statusOf(fd), status)) {
            throw new OperationError('STORE_CONFLICT', `Cannot ${action}: the source was changed meanwhile`)
          }
        })
      } finally {
        closeSync(fd)
      }
    })
  }

  async rename(from: string, to: string, options: RenameOptions): Promise<Entry> {
    const action = `rename "${from}" to "${to}"`
    if (from === '' || to === '') throw new OperationError('INPUT_INVALID', `Cannot ${action}: the root stays`)
    enter(from, action, options.signal)
    enter(to, action, options.signal)
    const { entry, changes } = await this.#changes.change([from, to], action, options.signal, (syncs) =>
      renameStep(this.#root, from, to, action, options, syncs),
    )
    tell(changes, options.onVersionChanged)
    return entry
  }

  async exchange(path: string, other: string, options: ExchangeOptions): Promise<void> {
    const action = `exchange "${path}" and "${other}"`
    if (path === '' || other === '') throw new OperationError('INPUT_INVALID', `Cannot ${action}: the root stays`)
    enter(path, action, options.signal)
    enter(other, action, options.signal)
    const changes = await this.#changes.change([path, other], action, options.signal, (syncs) =>
      exchangeStep(this.#root, path, other, action, options, syncs),
    )
    tell(changes, options.onVersionChanged)
  }

  async remove(path: string, options: MutateOptions): Promise<void> {
    const action = `remove "${path}"`
    if (path === '') throw new OperationError('STORE_IS_DIRECTORY', `Cannot ${action}: it is the root`)
    enter(path, action, options.signal)
    await this.#changes.change([path], action, options.signal, (syncs) => {
      const place = openPlace(this.#root, path)
      syncs.push(toSync(place.dir))
      removeFileAt(place, action, options.guard)
    })
  }

  async removeDirectory(path: string, options: CallOptions = {}): Promise<void> {
    const action = `remove the directory "${path}"`
    if (path === '') throw new OperationError('INPUT_INVALID', `Cannot ${action}: it is the root`)
    enter(path, action, options.signal)
    await this.#changes.change([path], action, options.signal, (syncs) => {
      const place = openPlace(this.#root, path)
      syncs.push(toSync(place.dir))
      removeEmptyAt(place, action)
    })
  }

  async removeAll(
    removals: readonly Removal[],
    options: CallOptions = {},
  ): Promise<readonly (OperationError | undefined)[]> {
    checkAborted(`remove ${removals.length} entries`, options.signal)
    return removeMany(this.#changes, this.#root, removals, options.signal, (path, action) =>
      enter(path, action, undefined),
    )
  }

  async space(options: CallOptions = {}): Promise<Space | undefined> {
    checkAborted('look for room', options.signal)
    const { bsize, blocks, bavail } = await promisify(statfs)(inodePath(this.#root))
    return { bytesTotal: bsize * blocks, bytesFree: bsize * bavail }
  }

  async close(): Promise<void> {
    // A second close would close a descriptor that is somebody else's by then.
    if (this.#closed) return
    this.#closed = true
    await this.#changes.close()
    await promisify(close)(this.#root)
  }

  async #fill(
    fd: number,
    path: string,
    action: string,
    source: Source,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    if (source instanceof Uint8Array || source.kind === 'stream') {
      await writeSource(fd, path, source, signal)
      return
    }
    for (const segment of source.segments) if (isStored(segment)) enter(segment.path, action, signal)
    const opened = openSegments(this.#root, source.segments, action)
    try {
      await writeSource(fd, path, { ...source, segments: opened.segments }, signal)
      opened.check()
    } finally {
      opened.close()
    }
  }

  #readSymlink(path: string, action: string, options: ReadOptions): Reading {
    const [entry, target] = this.#symlinkAt(path, action)
    checkVersion(action, entry, options)
    const start = Math.min(options.offset ?? 0, target.length)
    return new MemoryReading(entry, target.subarray(start, start + (options.length ?? target.length)), options.signal)
  }

  #symlinkAt(path: string, action: string): readonly [Entry, Buffer] {
    return withInode(this.#root, path, action, (fd, status) => [
      inodeEntry(path, fd, status, action),
      readLinkAt(fd, ''),
    ])
  }

  async #copySymlink(from: string, to: string, action: string, options: CopyOptions): Promise<Entry> {
    const [entry, target] = this.#symlinkAt(from, action)
    checkVersion(action, entry, options)
    const attributes = options.attributes ?? entry.attributes ?? {}
    return this.symlink(to, target.toString(), { ...options, attributes })
  }

  /** Adds what makes a change of the inode durable: its own fsync, or its directory's where it cannot be opened. */
  #syncInode(path: string, fd: number, syncs: DirectoryToSync[]): void {
    const status = statusOf(fd)
    const kind = kindOf(status)
    try {
      if (kind === 'file' || kind === 'directory') {
        syncs.push({ fd: openSync(inodePath(fd), constants.O_RDONLY | constants.O_NONBLOCK), id: status.id })
        return
      }
    } catch {
      // A file that its owner may not read: as for what must not be opened.
    }
    // The journal of its directory has it too, on most systems.
    const { dir } = openPlace(this.#root, path)
    syncs.push(toSync(dir))
  }
}

function enter(path: string, action: string, signal: AbortSignal | undefined): void {
  checkPath(path)
  if (path.length * 3 > PATH_BYTES_MAX && Buffer.byteLength(path) > PATH_BYTES_MAX) {
    throw new OperationError('STORE_NAME_TOO_LONG', `Cannot use "${path.slice(0, 40)}…": the path is too long`)
  }
  if (path.startsWith(OWN_NAME) && (path.length === OWN_NAME.length || path.charCodeAt(OWN_NAME.length) === 47)) {
    throw new OperationError('STORE_NAME_INVALID', `Cannot ${action}: "${OWN_NAME}" is the store's own`)
  }
  checkAborted(action, signal)
}

function checkVersion(action: string, entry: Entry, { version }: ReadOptions): void {
  if (version === undefined || version === entry.version) return
  throw new OperationError('STORE_CONFLICT', `Cannot ${action}: the stored version is another`)
}

/** The entry of a file that is open for reading. */
function fileEntry(path: string, fd: number, status: Status): Entry {
  const names = xattrNamesOf(fd)
  return entryOf(path, 'file', status, names.length === 0 ? NOTHING_KEPT : keptAttributes(inodePath(fd), names))
}

function tell(
  changes: readonly VersionChange[],
  onVersionChanged: ((path: string, before: Version, after: Version) => void) | undefined,
): void {
  if (onVersionChanged === undefined) return
  for (const { path, before, after } of changes) onVersionChanged(path, before, after)
}
