/**
 * Local paths as what is synced. Each call begins at its root, which is opened anew and proven to be the directory that it was
 * at the start, by device and inode: what is not found in it is gone, and not just unmounted. Files are opened beneath it without
 * following a symlink on the way down, so that nobody who renames meanwhile leads a sync out of its tree.
 */
import { closeSync, constants, openSync, readSync, realpathSync } from 'node:fs'

import { OperationError } from '#base/errors.ts'
import { compareTimestamps, timestampNow, type Timestamp } from '#base/time.ts'
import { O_PATH, openAt, openBeneath, readEntries, readLinkAt } from '#os/at.ts'
import { inodePath } from '#os/inode.ts'
import { SystemCallError } from '#os/libc.ts'
import { S_IFLNK, S_IFMT, S_IFREG, statusOf, type Status } from '#os/status.ts'
import { hasWriters } from '#os/writers.ts'
import { xattrGet, xattrNamesOf } from '#os/xattr.ts'
import { readAt } from '#store/file-segments.ts'
import { linkTarget } from '#store/link-target.ts'
import { isWithin, joinPath, OWN_NAME, parentOf } from '#store/path.ts'
import type { Attributes, Source } from '#store/store.ts'

import { TICK_NS } from './equality.ts'
import type { Filter, TreeFilter } from './filters.ts'
import { HardLinks } from './hard-links.ts'
import type { Prefixes, Root } from './prefixes.ts'
import { localEntry } from './local-entry.ts'
import { Scan } from './scan.ts'
import type { Looked, OpenSource, SourceListing, SourceListOptions, SyncSource } from './source.ts'
import type { Skipped, TreeEntry } from './tree.ts'

const CHUNK_BYTES = 256 << 10
/** Some entries of a directory. */
const LOOK_BYTES = 1024
const READ_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
const LOOK_FLAGS = O_PATH | constants.O_NOFOLLOW
const GONE = new Set(['ENOENT', 'ENOTDIR', 'ELOOP'])

/** What becomes of symlinks: left out, kept as such, or, to files, sent as the files that they lead to. */
export type LinkPolicy = 'skip' | 'keep' | 'follow'

export interface LocalSourceOptions {
  readonly prefixes: Prefixes
  readonly filter: Filter
  readonly links: LinkPolicy
  readonly oneFileSystem?: boolean
  /** Absolute paths of this program's own, without symlinks: left out, as what a sync writes would be sent for ever. */
  readonly own?: readonly string[]
  /** Reads extended attributes of what is sent, too. */
  readonly xattrs?: boolean
}

/** Of what is not entered: it proves nothing. */
const NOTHING: SourceListing = { provesAbsence: () => false, async *[Symbol.asyncIterator]() {} }

interface LocalRoot extends Root {
  readonly filter: TreeFilter
  /** Device and inode at the start; of a file the directory that it is in. */
  readonly id: string
  readonly device: number
  /** The directory whose descriptor paths are opened beneath. */
  readonly directory: string
}

export class LocalSource implements SyncSource {
  readonly names: readonly string[]
  readonly roots: readonly string[]
  readonly isLocal = true
  readonly granularityNs = TICK_NS
  readonly #roots: readonly LocalRoot[]
  readonly #options: LocalSourceOptions
  readonly #names = new HardLinks()

  /** @throws OperationError `INPUT_INVALID` where a root is not there. */
  constructor(options: LocalSourceOptions) {
    this.#options = options
    this.#roots = options.prefixes.roots.map((root) => {
      const directory = root.isDirectory ? root.source : directoryOf(root.source)
      const { id, device } = statusAtStart(directory)
      return {
        ...root,
        directory,
        id,
        device,
        filter: withoutOwn(options.filter.at(root.source), ownIn(root.source, options.own ?? [])),
      }
    })
    this.names = this.#roots.map(({ source }) => source)
    this.roots = this.#roots.map(({ target }) => target)
  }

  list(under: string, options: SourceListOptions): SourceListing {
    const root = this.#rootOf(under)
    if (!root.isDirectory) return this.#listFile(root, options)
    const status = this.#statusAt(root, under)
    if (this.#options.oneFileSystem === true && typeof status === 'object' && status.device !== root.device)
      return NOTHING
    closeSync(this.#open(root))
    const { links, oneFileSystem } = this.#options
    const onSkipped = ({ path, ...rest }: Skipped): void =>
      options.onSkipped?.({ path: joinPath(root.target, path), ...rest })
    const scan = new Scan(root.source, {
      under: relativeTo(root.target, under),
      filter: root.filter,
      oneFileSystem: oneFileSystem ?? false,
      followFiles: links === 'follow',
      ...(options.pathBytesMax === undefined
        ? {}
        : { pathBytesMax: options.pathBytesMax - (root.target === '' ? 0 : Buffer.byteLength(root.target) + 1) }),
      onSkipped,
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    })
    const leftOut = new Set<string>()
    return {
      provesAbsence: (path) => scan.provesAbsence(relativeTo(root.target, path)) && !isUnder(path, leftOut),
      [Symbol.asyncIterator]: () => this.#noted(mapped(scan, root.target), leftOut),
    }
  }

  admits(path: string, isDirectory: boolean): boolean {
    const root = this.#roots.find(({ target }) => isWithin(path, target))
    if (root === undefined) return false
    return path === root.target || root.filter.reaches(relativeTo(root.target, path), isDirectory)
  }

  get isFiltered(): boolean {
    return !this.#options.filter.isEmpty
  }

  otherNames(entry: TreeEntry): readonly string[] {
    const names = this.#names.of(entry)
    return names.filter((path) => path !== entry.path)
  }

  async look(path: string): Promise<Looked> {
    const root = this.#rootOf(path)
    const status = this.#statusAt(root, path)
    if (status === undefined) return { is: 'absent' }
    if (status === 'ELOOP') return this.#options.links === 'keep' ? { is: 'absent' } : { is: 'left-out' }
    if (typeof status === 'string') {
      return { is: 'skipped', skipped: { path, reason: 'unreadable', detail: status } }
    }
    const entry = localEntry(path, status)
    if (this.#options.oneFileSystem === true && status.device !== root.device) {
      // The directory that is mounted on takes part, and nothing in it.
      if (entry?.kind !== 'directory' || this.#isMountedIn(root, path)) return { is: 'left-out' }
    }
    if (entry !== undefined) this.#names.note(entry)
    if (path !== root.target && !root.filter.reaches(relativeTo(root.target, path), entry?.kind === 'directory')) {
      return { is: 'left-out' }
    }
    if (entry === undefined) {
      return { is: 'skipped', skipped: { path, reason: 'special', detail: 'a fifo, socket or device' } }
    }
    if (entry.kind === 'symlink' && this.#options.links === 'follow') return this.#follow(root, path)
    return { is: 'entry', entry }
  }

  /** Whether the directory above is on another file system than the root. */
  #isMountedIn(root: LocalRoot, path: string): boolean {
    const above = this.#statusAt(root, parentOf(path))
    return typeof above === 'object' && above.device !== root.device
  }

  async open({ path }: TreeEntry): Promise<OpenSource> {
    const root = this.#rootOf(path)
    const lookedAt = timestampNow()
    const fd = this.#openFile(root, path)
    try {
      const status = statusOf(fd)
      if ((status.mode & S_IFMT) !== S_IFREG) throw changed(path, 'it is no file any more')
      const entry = requiredEntry(path, status)
      const now =
        this.#options.xattrs === true ? { ...entry, attributes: { ...entry.attributes, xattrs: xattrsOf(fd) } } : entry
      const isWritten = hasWriters(fd) === true
      // The kernel stamps a write when it begins: of one that is under way no time will tell when it ended.
      return new OpenFile(now, fd, status, isWritten ? status.ctime : lookedAt, isWritten)
    } catch (error) {
      closeSync(fd)
      throw error
    }
  }

  async isEmpty(path: string): Promise<boolean> {
    let isEmpty = true
    try {
      withFd(this.#openBeneath(this.#rootOf(path), path, READ_FLAGS | constants.O_DIRECTORY), (fd) => {
        const buffer = Buffer.allocUnsafe(LOOK_BYTES)
        while (isEmpty && readEntries(fd, buffer, () => (isEmpty = false)));
      })
    } catch (error) {
      throw this.#failure(path, error)
    }
    return isEmpty
  }

  async readLink(path: string): Promise<string> {
    const root = this.#rootOf(path)
    try {
      return withFd(this.#openBeneath(root, path, LOOK_FLAGS), (fd) => linkTarget(path, readLinkAt(fd, '')))
    } catch (error) {
      throw this.#failure(path, error)
    }
  }

  /** All that a directory or symlink has to keep, extended attributes included where they are asked for. */
  async attributesOf(path: string): Promise<Attributes> {
    const root = this.#rootOf(path)
    try {
      return withFd(this.#openBeneath(root, path, LOOK_FLAGS), (fd) => {
        const status = statusOf(fd)
        const kept = requiredEntry(path, status).attributes ?? {}
        // Those of a symlink itself are not for users to set.
        if (this.#options.xattrs !== true || (status.mode & S_IFMT) === S_IFLNK) return kept
        return { ...kept, xattrs: xattrsAt(inodePath(fd)) }
      })
    } catch (error) {
      throw this.#failure(path, error)
    }
  }

  async close(): Promise<void> {}

  /** `leftOut` gets the symlinks that are: what the target has under such a name may be what it leads to. */
  async *#noted(
    listing: AsyncIterable<readonly TreeEntry[]>,
    leftOut: Set<string>,
  ): AsyncGenerator<readonly TreeEntry[], void, undefined> {
    const { links } = this.#options
    for await (const page of listing) {
      for (const entry of page) {
        if (entry.identity?.links !== undefined) this.#names.note(entry)
        if (entry.kind === 'symlink' && links !== 'keep') leftOut.add(entry.path)
      }
      yield page
    }
  }

  async *#fileListing(root: LocalRoot, options: SourceListOptions): AsyncGenerator<readonly TreeEntry[]> {
    const looked = await this.look(root.target)
    if (looked.is === 'entry') yield [looked.entry]
    else if (looked.is === 'skipped') options.onSkipped?.(looked.skipped)
  }

  #listFile(root: LocalRoot, options: SourceListOptions): SourceListing {
    const listing = this.#fileListing(root, options)
    return { provesAbsence: () => true, [Symbol.asyncIterator]: () => listing }
  }

  #rootOf(path: string): LocalRoot {
    const root = this.#roots.find(({ target }) => isWithin(path, target))
    if (root !== undefined) return root
    throw new OperationError('INPUT_INVALID', `Cannot look at "${path}": it lies in none of the paths that are synced`)
  }

  /** A descriptor of the root, to be closed. @throws OperationError `ROOT_CHANGED` */
  #open(root: LocalRoot): number {
    let fd: number
    try {
      fd = openSync(root.directory, O_PATH | constants.O_DIRECTORY)
    } catch (error) {
      throw new OperationError('ROOT_CHANGED', `Cannot sync "${root.source}": it is not there any more`, {
        cause: error,
      })
    }
    if (statusOf(fd).id === root.id) return fd
    closeSync(fd)
    throw new OperationError(
      'ROOT_CHANGED',
      `Cannot sync "${root.source}": another directory is there than at the start`,
    )
  }

  #openBeneath(root: LocalRoot, path: string, flags: number): number {
    const below = root.isDirectory ? relativeTo(root.target, path) : nameIn(root.source)
    return withFd(this.#open(root), (fd) => (below === '' ? openAt(fd, '.', flags) : openBeneath(fd, below, flags)))
  }

  /** Undefined where nothing is; why it cannot be looked at. */
  #statusAt(root: LocalRoot, path: string): Status | string | undefined {
    try {
      return withFd(this.#openBeneath(root, path, LOOK_FLAGS), statusOf)
    } catch (error) {
      if (error instanceof OperationError) throw error
      const code = codeOf(error)
      // A symlink has taken the place of a directory above.
      if (code === 'ELOOP' || code === 'EACCES') return code
      if (code !== undefined && GONE.has(code)) return undefined
      throw this.#failure(path, error)
    }
  }

  /** What a symlink leads to, where that is a file: one that leads nowhere, or to a directory, is left out. */
  #follow(root: LocalRoot, path: string): Looked {
    try {
      const fd = openSync(pathOnDisk(root, path), O_PATH)
      const entry = withFd(fd, (open) => localEntry(path, statusOf(open)))
      if (entry?.kind === 'file') return { is: 'entry', entry }
    } catch (error) {
      const code = codeOf(error)
      if (code === undefined || !GONE.has(code)) throw this.#failure(path, error)
    }
    const detail = 'a symlink that leads to no file'
    return { is: 'skipped', skipped: { path, reason: 'symlink', detail } }
  }

  #openFile(root: LocalRoot, path: string): number {
    try {
      if (this.#options.links !== 'follow') return this.#openBeneath(root, path, READ_FLAGS)
      closeSync(this.#open(root))
      return openSync(pathOnDisk(root, path), constants.O_RDONLY | constants.O_NONBLOCK)
    } catch (error) {
      throw this.#failure(path, error)
    }
  }

  #failure(path: string, error: unknown): unknown {
    if (error instanceof OperationError) return error
    const code = codeOf(error)
    if (code === undefined) return error
    if (GONE.has(code))
      return new OperationError('STORE_NOT_FOUND', `Cannot read "${path}": it is gone`, { cause: error })
    const denied = code === 'EACCES' || code === 'EPERM'
    const hint = denied ? { hint: 'Run the sync as a user who may read it, or leave it out with --exclude.' } : {}
    return new OperationError('LOCAL_FAILED', `Cannot read "${path}": ${code}`, { cause: error, ...hint })
  }
}

/** A file that is open; told to have changed where its inode's times, or its size, say so. */
class OpenFile implements OpenSource {
  readonly entry: TreeEntry
  readonly bytes: OpenSource['bytes']
  readonly lookedAt: Timestamp
  readonly isWritten: boolean
  readonly #fd: number
  readonly #status: Status

  constructor(entry: TreeEntry, fd: number, status: Status, lookedAt: Timestamp, isWritten: boolean) {
    this.entry = entry
    this.lookedAt = lookedAt
    this.isWritten = isWritten
    this.#fd = fd
    this.#status = status
    this.bytes = {
      stream: () => this.#stream(),
      source: (): Source => {
        const segments = [{ fd, offset: 0, length: status.size }]
        return { kind: 'file', segments, check: () => this.#check() }
      },
    }
  }

  async whole(bytesMax: number): Promise<Uint8Array | undefined> {
    const { size } = this.#status
    if (size > bytesMax) return undefined
    // One more than it has: a file that grew is found out.
    const buffer = Buffer.allocUnsafe(size + 1)
    let done = 0
    for (;;) {
      const count = readSync(this.#fd, buffer, done, buffer.length - done, done)
      done += count
      if (count === 0 || done === buffer.length) break
    }
    this.#check()
    if (done !== size) throw changed(this.entry.path, `it has ${done} bytes and had ${size}`)
    return buffer.subarray(0, size)
  }

  close(): void {
    closeSync(this.#fd)
  }

  async *#stream(): AsyncGenerator<Uint8Array, void, undefined> {
    const { size } = this.#status
    for (let done = 0; done < size;) {
      const buffer = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, size - done))
      const count = await readAt(this.#fd, buffer, done)
      if (count === 0) throw changed(this.entry.path, `it has ${done} bytes and had ${size}`)
      yield count === buffer.length ? buffer : buffer.subarray(0, count)
      done += count
    }
    this.#check()
  }

  #check(): void {
    const now = statusOf(this.#fd)
    const before = this.#status
    const isSame =
      now.size === before.size &&
      compareTimestamps(now.mtime, before.mtime) === 0 &&
      compareTimestamps(now.ctime, before.ctime) === 0
    if (!isSame) throw changed(this.entry.path, 'it was changed while it was sent')
  }
}

function changed(path: string, detail: string): OperationError {
  return new OperationError('FILE_STALE', `Cannot send "${path}": ${detail}`)
}

/** Where a store of this program's own lies in the directory, its working area is no part of what is synced. */
function withoutOwn(filter: TreeFilter, own: readonly string[]): TreeFilter {
  const isOwn = (path: string): boolean => isWithin(path, OWN_NAME) || own.some((each) => isWithin(path, each))
  return {
    admits: (path, isDirectory) => !isOwn(path) && filter.admits(path, isDirectory),
    reaches: (path, isDirectory) => !isOwn(path) && filter.reaches(path, isDirectory),
  }
}

/** Those of the absolute paths that lie in the root, from there. */
function ownIn(root: string, own: readonly string[]): string[] {
  const real = realpathSync(root)
  const prefix = real === '/' ? '/' : `${real}/`
  return own.filter((path) => path.startsWith(prefix)).map((path) => path.slice(prefix.length))
}

async function* mapped(scan: Scan, target: string): AsyncGenerator<readonly TreeEntry[], void, undefined> {
  if (target === '') {
    yield* scan
    return
  }
  for await (const page of scan) yield page.map((entry) => ({ ...entry, path: joinPath(target, entry.path) }))
}

function requiredEntry(path: string, status: Status): TreeEntry {
  const entry = localEntry(path, status)
  if (entry === undefined) throw changed(path, 'it became a fifo, socket or device')
  return entry
}

function xattrsOf(fd: number): ReadonlyMap<string, Uint8Array> {
  return new Map(xattrNamesOf(fd).flatMap((name) => keptXattr(inodePath(fd), name)))
}

function xattrsAt(path: string): ReadonlyMap<string, Uint8Array> {
  return withFd(openSync(path, constants.O_RDONLY | constants.O_NONBLOCK), xattrsOf)
}

/** What users set; security labels and access lists belong to the machine, and this program's own marks to the root. */
function keptXattr(path: string, name: string): [string, Uint8Array][] {
  if (!name.startsWith('user.') || name.startsWith('user.eider.')) return []
  const value = xattrGet(path, name)
  return value === undefined ? [] : [[name, Uint8Array.from(value)]]
}

function statusAtStart(directory: string): Status {
  try {
    return withFd(openSync(directory, O_PATH | constants.O_DIRECTORY), statusOf)
  } catch (error) {
    throw new OperationError('INPUT_INVALID', `Cannot sync "${directory}": there is no such directory`, {
      cause: error,
    })
  }
}

function withFd<T>(fd: number, use: (fd: number) => T): T {
  try {
    return use(fd)
  } finally {
    closeSync(fd)
  }
}

function isUnder(path: string, names: ReadonlySet<string>): boolean {
  if (names.size === 0) return false
  for (let above = parentOf(path); above !== ''; above = parentOf(above)) if (names.has(above)) return true
  return names.has(path)
}

/** `path`, which lies within `root`, from there. */
function relativeTo(root: string, path: string): string {
  if (root === '') return path
  return path === root ? '' : path.slice(root.length + 1)
}

function pathOnDisk(root: LocalRoot, path: string): string {
  return root.isDirectory ? joinPath(root.source, relativeTo(root.target, path)) : root.source
}

function directoryOf(file: string): string {
  return file.slice(0, file.lastIndexOf('/')) || '/'
}

function nameIn(file: string): string {
  return file.slice(file.lastIndexOf('/') + 1)
}

function codeOf(error: unknown): string | undefined {
  if (error instanceof SystemCallError) return error.code
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return typeof code === 'string' ? code : undefined
}
