/**
 * The tree in a local directory as a `Listing`: in order of sort keys, in pages as they are found, with the names of one
 * directory and of those above it in memory and never the tree. What cannot be listed is told as `Skipped`, and its absence
 * from the listing proves nothing: who deletes asks `provesAbsence` first.
 *
 * Every directory is opened by its name in the open one above it and never through a symlink, so that nobody who renames
 * meanwhile leads the scan out of the tree. The calls are synchronous, in slices of milliseconds between which the event loop
 * runs: the promises of `node:fs` take six times as long. Sockets, fifos and devices are not opened.
 */
import { closeSync, constants, openSync } from 'node:fs'

import { assert } from '#base/assert.ts'
import { OperationError } from '#base/errors.ts'
import { timestampNow, type Timestamp } from '#base/time.ts'
import { O_PATH, openAt, openBeneath, readEntries, type DirentType } from '#os/at.ts'
import { SystemCallError } from '#os/libc.ts'
import { glanceAt, S_IFDIR, S_IFMT, statusOf, type Status } from '#os/status.ts'
import { checkAborted } from '#store/abort.ts'
import { mergeRuns, Slice } from '#store/directory/listing.ts'
import { joinPath, parentOf, sortUtf8 } from '#store/path.ts'

import { localEntry } from './local-entry.ts'
import type { Skipped, TreeEntry } from './tree.ts'
import { shownBytes } from '#os/entry-name.ts'

/** As in listings of directory stores. */
const PAGE_ENTRIES = 200
const READ_BYTES = 64 << 10
/** Directories on the way down that stay open; those above are opened again, by their paths, when the scan is back. */
const OPEN_MAX = 64
/** Linux takes no longer ones: PATH_MAX without its NUL. */
const PATH_BYTES_MAX = 4095
/** Paths of which absence proves nothing, one by one; past that many it proves nothing of any path. */
const DOUBTFUL_MAX = 100_000
const DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW
/** What of a file's name is known without a look; devices are among the others. */
const SPECIALS: Partial<Record<DirentType, string>> = { fifo: 'a fifo', socket: 'a socket', other: 'a device' }
/** A lack of this process or machine, not of one directory. */
const EXHAUSTED = new Set(['EMFILE', 'ENFILE', 'ENOMEM'])
const GONE = new Set(['ENOENT', 'ENOTDIR', 'ELOOP'])

export interface ScanOptions {
  /** Only what lies under this directory of the tree; paths stay those of the whole tree. */
  readonly under?: string
  /** A directory that it does not admit is not entered. */
  readonly filter?: { admits(path: string, isDirectory: boolean): boolean }
  /** Directories that others are mounted on are listed, but not entered. */
  readonly oneFileSystem?: boolean
  /** Symlinks to files are listed as those files; other symlinks are skipped. */
  readonly followFiles?: boolean
  /** Longer paths are skipped: what the target holds, where that is less than Linux. */
  readonly pathBytesMax?: number
  readonly pageEntries?: number
  /** Told before the page that would have had it. */
  readonly onSkipped?: (skipped: Skipped) => void
  readonly signal?: AbortSignal
}

/** A directory on the way: its names from `next` on are still to be listed. */
interface Frame {
  readonly path: string
  /** Below zero while it is not open. */
  fd: number
  /** In order, with `/` after those of directories. */
  names: readonly string[]
  next: number
}

/**
 * One look at a local tree. Iterate it once.
 * @throws OperationError `LOCAL_FAILED` where the root cannot be read, or where this process may open no more files; `ABORTED`
 */
export class Scan implements AsyncIterable<readonly TreeEntry[]> {
  /** No entry was looked at before. */
  readonly startedAt: Timestamp = timestampNow()
  readonly #root: string
  readonly #options: ScanOptions
  readonly #bytesMax: number
  readonly #skipped = new Map<Skipped['reason'], number>()
  readonly #doubtful = new Set<string>()
  readonly #frames: Frame[] = []
  readonly #slice = new Slice()
  /** One for all directories: a new one for each costs as much as the look at ten files. */
  readonly #buffer = Buffer.allocUnsafe(READ_BYTES)
  #device = 0
  #isBegun = false
  #isOver = false

  constructor(root: string, options: ScanOptions = {}) {
    this.#root = root
    this.#options = options
    this.#bytesMax = Math.min(PATH_BYTES_MAX, options.pathBytesMax ?? PATH_BYTES_MAX)
  }

  /** How many were skipped, by reason. */
  get skipped(): ReadonlyMap<Skipped['reason'], number> {
    return this.#skipped
  }

  /** The scan came to its end and everything could be read. */
  get isComplete(): boolean {
    return this.#isOver && !this.#skipped.has('unreadable')
  }

  /**
   * Whether `path`, which the listing has passed without naming it, is not there: not so where it, or a directory above it, was
   * skipped. Filters are not asked.
   */
  provesAbsence(path: string): boolean {
    if (this.#doubtful.size >= DOUBTFUL_MAX || this.#doubtful.has('')) return false
    for (let at = path; at !== ''; at = parentOf(at)) {
      if (this.#doubtful.has(at)) return false
    }
    return true
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<readonly TreeEntry[], void, undefined> {
    const { pageEntries = PAGE_ENTRIES, signal } = this.#options
    const action = `scan "${this.#root}"`
    assert(!this.#isBegun, 'a scan is iterated once')
    this.#isBegun = true
    try {
      await this.#begin(action)
      while (this.#frames.length > 1) {
        checkAborted(action, signal)
        const page: TreeEntry[] = []
        await this.#fill(page, pageEntries)
        if (page.length > 0) yield page
        if (this.#slice.over()) await this.#slice.next()
      }
      this.#isOver = true
    } finally {
      for (const frame of this.#frames.splice(0)) this.#close(frame)
    }
  }

  /** Opens the root, which the frame at the bottom holds open to the end, and the directory to be listed above it. */
  async #begin(action: string): Promise<void> {
    const { under = '' } = this.#options
    let fd: number
    try {
      // The root alone may be named by a symlink: who named it meant what it leads to.
      fd = openSync(this.#root, constants.O_RDONLY | constants.O_DIRECTORY)
    } catch (error) {
      const detail = error instanceof Error ? error.message : String(error)
      throw new OperationError('LOCAL_FAILED', `Cannot ${action}: ${detail}`, { cause: error })
    }
    this.#frames.push({ path: '', fd, names: [], next: 0 })
    this.#device = statusOf(fd).device
    await this.#enter(under, () => (under === '' ? openAt(fd, '.', DIRECTORY) : openBeneath(fd, under, DIRECTORY)))
  }

  /** Adds entries until the page is full or the scan is over. */
  async #fill(page: TreeEntry[], pageEntries: number): Promise<void> {
    while (page.length < pageEntries) {
      const frame = this.#frames.at(-1)
      if (frame === undefined || this.#frames.length === 1) return
      const key = frame.names[frame.next++]
      if (key === undefined || !this.#isOpen(frame)) {
        this.#close(frame)
        this.#frames.pop()
        continue
      }
      const isDirectory = key.endsWith('/')
      const name = isDirectory ? key.slice(0, -1) : key
      const entry = this.#look(frame, name, isDirectory)
      if (entry !== undefined) {
        page.push(entry)
        if (isDirectory && this.#mayEnter(entry)) {
          await this.#enter(entry.path, () => openAt(frame.fd, name, DIRECTORY))
        }
      }
      if (this.#slice.over()) {
        await this.#slice.next()
        // A page that took long in coming is given as it is.
        if (page.length > 0) return
      }
    }
  }

  /** Undefined where it is skipped. */
  #look(frame: Frame, name: string, isDirectory: boolean): TreeEntry | undefined {
    const path = joinPath(frame.path, name)
    let status: Status | undefined
    try {
      status = glanceAt(frame.fd, name)
    } catch (error) {
      const code = codeOf(error)
      if (code === undefined || EXHAUSTED.has(code) || (code === 'EACCES' && frame.path === '')) {
        throw this.#failure(error, `scan "${this.#root}"`)
      }
      if (code === 'EACCES') {
        // Without the right to search a directory no entry of it can be looked at.
        frame.next = frame.names.length
        this.#skip(frame.path, 'unreadable', 'its entries cannot be looked at: EACCES')
      } else {
        this.#skip(path, 'unreadable', code)
      }
      return undefined
    }
    const entry = status === undefined ? undefined : localEntry(path, status)
    // One that became of another kind meanwhile would be out of order.
    if (status === undefined || (entry?.kind === 'directory') !== isDirectory) {
      this.#skip(path, 'vanished', 'it was removed or replaced during the scan')
      return undefined
    }
    if (entry === undefined) {
      this.#skip(path, 'special', 'a fifo, socket or device')
      return undefined
    }
    return entry.kind === 'symlink' && this.#options.followFiles === true ? this.#follow(path) : entry
  }

  /** The file that a symlink leads to, wherever that is; one that leads to none is skipped. */
  #follow(path: string): TreeEntry | undefined {
    let entry: TreeEntry | undefined
    try {
      const fd = openSync(joinPath(this.#root, path), O_PATH)
      entry = localEntry(path, statusOf(fd))
      closeSync(fd)
    } catch {
      // It leads nowhere, or where this process may not go: told below.
    }
    if (entry?.kind === 'file') return entry
    this.#skip(path, 'symlink', 'a symlink that leads to no file')
    return undefined
  }

  #mayEnter(entry: TreeEntry): boolean {
    if (this.#options.oneFileSystem !== true || entry.identity?.device === this.#device) return true
    this.#skip(entry.path, 'other-file-system', 'another file system is mounted on it')
    return false
  }

  async #enter(path: string, open: () => number): Promise<void> {
    let fd: number
    try {
      fd = open()
    } catch (error) {
      this.#skipUnread(path, error)
      return
    }
    const frame: Frame = { path, fd, names: [], next: 0 }
    this.#frames.push(frame)
    const far = this.#frames.length - 1 - OPEN_MAX
    const above = far > 0 ? this.#frames[far] : undefined
    if (above !== undefined) this.#close(above)
    frame.names = await this.#namesOf(frame)
  }

  /** Opens the directory again where need be; false where that fails. */
  #isOpen(frame: Frame): boolean {
    if (frame.fd >= 0) return true
    try {
      frame.fd = openBeneath(this.#frames[0]?.fd ?? -1, frame.path === '' ? '.' : frame.path, DIRECTORY)
      return true
    } catch (error) {
      this.#skipUnread(frame.path, error)
      return false
    }
  }

  #close(frame: Frame): void {
    if (frame.fd >= 0) closeSync(frame.fd)
    frame.fd = -1
  }

  /** The names that are to be listed, in order. What was read before a failure is listed all the same. */
  async #namesOf(frame: Frame): Promise<readonly string[]> {
    const runs: string[][] = []
    for (;;) {
      const run: string[] = []
      let more: boolean
      try {
        more = readEntries(frame.fd, this.#buffer, (name, type, bytes) => {
          const key = this.#keyOf(frame, name ?? bytes(), type)
          if (key !== undefined) run.push(key)
        })
      } catch (error) {
        this.#skipUnread(frame.path, error)
        more = false
      }
      if (run.length > 0) runs.push(sortUtf8(run))
      if (!more) break
      if (this.#slice.over()) await this.#slice.next()
    }
    return mergeRuns(runs, this.#slice)
  }

  /** The name with `/` after it for a directory; undefined where it is skipped or filtered out. */
  #keyOf(frame: Frame, name: string | Buffer, type: DirentType): string | undefined {
    if (typeof name !== 'string') {
      // Nothing under such a path can be named elsewhere, so it leaves no doubt about any path.
      this.#tell(joinPath(frame.path, shownBytes(name)), 'not-utf8', 'its name is not UTF-8')
      return undefined
    }
    const path = joinPath(frame.path, name)
    const isDirectory = type === 'directory' || (type === 'unknown' && this.#isDirectory(frame, name))
    if (this.#options.filter !== undefined && !this.#options.filter.admits(path, isDirectory)) return undefined
    const special = SPECIALS[type]
    if (special !== undefined) this.#skip(path, 'special', special)
    else if (path.length * 3 > this.#bytesMax && Buffer.byteLength(path) > this.#bytesMax) {
      this.#skip(path, 'too-long', `its path has ${Buffer.byteLength(path)} bytes, at most ${this.#bytesMax} are held`)
    } else return isDirectory ? `${name}/` : name
    return undefined
  }

  /** Where the file system does not say it with the name. A failure is met again, and told, at the look at the entry. */
  #isDirectory(frame: Frame, name: string): boolean {
    try {
      return ((glanceAt(frame.fd, name)?.mode ?? 0) & S_IFMT) === S_IFDIR
    } catch {
      return false
    }
  }

  #skipUnread(path: string, error: unknown): void {
    const code = codeOf(error)
    if (code === undefined || EXHAUSTED.has(code)) throw this.#failure(error, `scan "${joinPath(this.#root, path)}"`)
    if (path === '') throw this.#failure(error, `scan "${this.#root}"`)
    if (GONE.has(code)) this.#skip(path, 'vanished', 'it was removed or replaced during the scan')
    else this.#skip(path, 'unreadable', code)
  }

  #skip(path: string, reason: Skipped['reason'], detail: string): void {
    if (this.#doubtful.size < DOUBTFUL_MAX) this.#doubtful.add(path)
    this.#tell(path, reason, detail)
  }

  #tell(path: string, reason: Skipped['reason'], detail: string): void {
    this.#skipped.set(reason, (this.#skipped.get(reason) ?? 0) + 1)
    this.#options.onSkipped?.({ path, reason, detail })
  }

  #failure(error: unknown, action: string): unknown {
    const code = codeOf(error)
    return code === undefined
      ? error
      : new OperationError('LOCAL_FAILED', `Cannot ${action}: ${code}`, { cause: error })
  }
}

/** The errno of a failed system call; undefined for any other error, such as one of the caller's functions. */
function codeOf(error: unknown): string | undefined {
  return error instanceof SystemCallError ? error.code : undefined
}
