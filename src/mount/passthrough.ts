/**
 * Passthrough: which open files the kernel reads and writes itself, in a local file, in place of asking for every piece. The
 * kernel allows one way at a time for an inode, and answers EIO to an open that would mix two; so the way is chosen when
 * nobody has a file open, and kept until its last release:
 *
 *     nobody has it open --open to read, whole in the cache---------> read: its backing is the cached file
 *                        --open to write, that and up to 16 MiB-----> written: its backing is a copy, its staged file
 *                        --anything else----------------------------> asked: reads and writes come to the mount
 *     read --first write, truncation, removal of the name-----------> written: the cached file leaves the cache, and
 *                                                                     is the staged file before the open is answered
 *
 * Writes to a backing are not seen here. Their traces are (see `os/unseen-writes.ts`): `noticeWrites` looks for them, and is
 * called before anything that depends on whether, or when, a file was written. A mapping outlives the release of the file
 * that it was made by; until it is gone, it counts as one more open of the file.
 *
 * Invariants: a cached file is never written to. While a file has a backing, its staged file, if any, is that backing.
 */
import { closeSync, constants, existsSync, futimesSync, openSync, statfsSync } from 'node:fs'

import { assert } from '#base/assert.ts'
import { OperationError } from '#base/errors.ts'
import { compareTimestamps, timestampNow, type Timestamp } from '#base/time.ts'
import type { CachedVersion } from '#cache/file-cache.ts'
import type { BackingFiles, BackingId } from '#fuse/file-system.ts'
import { O_TMPFILE } from '#os/at.ts'
import { copyRange } from '#os/file-range.ts'
import { statusOf, type Status } from '#os/status.ts'
import { isOnlyWriter, tellsOfWrites, writeOut } from '#os/unseen-writes.ts'

import { changeAttributes } from './attribute-changes.ts'
import type { MountState } from './mount-state.ts'
import { permissionsOf, withoutPrivileges } from './node-attributes.ts'
import type { Node, OpenFile } from './node.ts'
import { StagedFile } from './staged-file.ts'

/** Larger files are not copied at their open: what is written to them goes through the mount, which knows the ranges. */
const COPIED_BYTES_MAX = 16 << 20
/** A time that no write of today gives a file. */
const UNWRITTEN: Timestamp = { seconds: 1, nanoseconds: 0 }
/** The kernel closes its file some microseconds after it has told of a release. */
const BUSY_LOOK_MS_MIN = 1
const BUSY_LOOK_MS_MAX = 500
/** Less room on a disk than this is none. */
const ROOM_BYTES_MIN = 64 * 1024

/** The local file that the kernel reads and writes for an open file. */
export class Backing {
  readonly id: BackingId
  readonly fd: number
  /** It is the cache's own file, as long as nothing may be written to it. */
  readonly isCached: boolean
  /** Whether the cached file has still the bytes that were cached, once somebody has asked. */
  verified: Promise<boolean> | undefined
  /** From the first open for writing on. Closes the descriptor, once nobody holds it. */
  staged: StagedFile | undefined
  /** The time of the last write that was noticed. */
  #noticed = UNWRITTEN
  /** There may be writes that its time does not tell of. */
  #isRestless = false
  #settling = false

  constructor(id: BackingId, fd: number, isCached: boolean) {
    this.id = id
    this.fd = fd
    this.isCached = isCached
  }

  /** Its bytes may be written to from now on. */
  becomeWritten(staged: StagedFile): void {
    assert(staged.fd === this.fd && this.staged === undefined, 'the staged file is the backing')
    this.staged = staged
    staged.hold()
    futimesSync(this.fd, UNWRITTEN.seconds, UNWRITTEN.seconds)
  }

  /** What the kernel has of it, where it was written since the last call. Without `take` the next call tells of it again. */
  written(take: boolean): Status | undefined {
    if (this.staged === undefined) return undefined
    const status = statusOf(this.fd)
    const isUnwritten = isSame(status.mtime, UNWRITTEN)
    // What is noticed while the pages are being written out may be followed by stores that leave no trace.
    if (this.#settling) return isUnwritten ? undefined : status
    if (!this.#isRestless && (isUnwritten || isSame(status.mtime, this.#noticed))) return undefined
    if (take) {
      this.#isRestless = false
      this.#noticed = status.mtime
    }
    return isUnwritten ? { ...status, id: status.id, mtime: timestampNow() } : status
  }

  /**
   * Right before its bytes are read to be stored: from here on each write is noticed anew, also one to a page that was
   * written before.
   */
  async settle(): Promise<void> {
    const { staged } = this
    assert(staged !== undefined, 'what is read to be stored is staged')
    this.#settling = true
    let status: Status
    try {
      this.#isRestless = true
      futimesSync(this.fd, UNWRITTEN.seconds, UNWRITTEN.seconds)
      const isClean = await writeOut(this.fd)
      status = statusOf(this.fd)
      this.#noticed = UNWRITTEN
      this.#isRestless = !isClean || !isSame(status.mtime, UNWRITTEN)
    } finally {
      this.#settling = false
    }
    if (status.size !== staged.size) staged.writtenOutside(status.size)
  }

  close(): void {
    if (this.staged === undefined) closeSync(this.fd)
    else this.staged.close()
  }
}

function isSame(a: Timestamp, b: Timestamp): boolean {
  return compareTimestamps(a, b) === 0
}

export class Passthrough {
  readonly #state: MountState
  #files: BackingFiles | undefined
  /** Those whose backing may be written to. */
  readonly #written = new Set<Node>()
  /** Which node has a cached file for its backing, by the file. */
  readonly #readers = new Map<string, Node>()
  /** The way of these is being chosen, which takes a copy. */
  readonly #choosing = new Map<OpenFile, Promise<void>>()
  /** Closed files that are waited for, since a mapping may still write to them. */
  readonly #busy = new Map<OpenFile, { readonly timer: NodeJS.Timeout; readonly closed: () => void }>()
  /** By device: whether writes to its files can be noticed. */
  readonly #telling = new Map<string, boolean>()

  constructor(state: MountState) {
    this.#state = state
  }

  /** To be called once the kernel can be told of backing files. */
  use(files: BackingFiles | undefined): void {
    this.#files = files
  }

  /**
   * The backing of an open whose handle is counted already; undefined: reads and writes come to the mount.
   */
  choose(node: Node, file: OpenFile, mayWrite: boolean): BackingId | undefined | Promise<BackingId | undefined> {
    const choosing = this.#choosing.get(file)
    if (choosing !== undefined) return choosing.then(() => this.choose(node, file, mayWrite))
    if (file.backing === undefined) {
      const isFirst = file.handles === 1
      if (!isFirst || this.#files === undefined || file.staged !== undefined || file.staging !== undefined)
        return undefined
      if (node.size === 0) return undefined
      const cached = file.cached?.backing()
      if (cached === undefined) return undefined
      if (mayWrite) return this.#copied(node, file, cached)
      this.#reads(node, file, cached)
    }
    return this.#backingOf(node, file, mayWrite)
  }

  #backingOf(node: Node, file: OpenFile, mayWrite: boolean): BackingId | undefined | Promise<BackingId | undefined> {
    const { backing } = file
    if (backing === undefined) return undefined
    const staged = mayWrite ? this.stage(node, node.size) : undefined
    return staged instanceof Promise ? staged.then(() => this.#backingOf(node, file, mayWrite)) : backing.id
  }

  /** Makes the cached file the backing of a node that is read. */
  #reads(node: Node, file: OpenFile, cached: number): void {
    const fd = this.#own(cached, constants.O_RDWR)
    if (fd === undefined) return
    const { id } = statusOf(fd)
    // Two nodes have one cached file when a version comes back under a name; one may be written to, and not the other.
    if (!this.#tells(fd, id) || this.#readers.has(id)) {
      closeSync(fd)
      return
    }
    this.#begin(file, fd, true)
    if (file.backing !== undefined) this.#readers.set(id, node)
  }

  /** A descriptor of the same file that is not the cache's to close. */
  #own(cached: number, flags: number): number | undefined {
    try {
      return openSync(`/proc/self/fd/${cached}`, flags)
    } catch (error) {
      this.#state.log.debug({ err: error }, 'a file is read through the mount, for its cached file cannot be opened')
      return undefined
    }
  }

  #begin(file: OpenFile, fd: number, isCached: boolean): void {
    const id = this.#files?.open(fd)
    if (id === undefined) closeSync(fd)
    else file.backing = new Backing(id, fd, isCached)
  }

  async #copied(node: Node, file: OpenFile, cached: number): Promise<BackingId | undefined> {
    // Only the mount can take the bits from a file that is written to.
    const isPrivileged = withoutPrivileges(permissionsOf(node)) !== permissionsOf(node)
    if (node.size > COPIED_BYTES_MAX || isPrivileged) return undefined
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#choosing.set(file, promise)
    try {
      const { version, size } = node
      const fd = file.cached && (await this.#copyOf(file.cached, cached, size))
      if (fd === undefined) return undefined
      // A truncation, a removal or another machine may have come first.
      const isCurrent = node.version === version && node.detached === undefined
      if (!isCurrent || file.staged !== undefined || file.staging !== undefined) {
        closeSync(fd)
        return undefined
      }
      this.#begin(file, fd, false)
      return await this.#backingOf(node, file, true)
    } finally {
      this.#choosing.delete(file)
      resolve()
    }
  }

  /** A nameless copy on the staging disk; undefined where it cannot be had, or would not tell of writes. */
  async #copyOf(version: CachedVersion, cached: number, size: number): Promise<number | undefined> {
    const from = this.#own(cached, constants.O_RDONLY)
    if (from === undefined) return undefined
    let fd: number | undefined
    try {
      fd = openSync(this.#state.staging.directory, constants.O_RDWR | O_TMPFILE, 0o600)
      if (this.#tells(fd, statusOf(fd).id)) {
        let copied = 0
        while (copied < size) {
          const count = await copyRange(from, copied, fd, copied, size - copied)
          if (count === 0) break
          copied += count
        }
        if (copied === size && (await version.verify(fd))) return fd
      }
    } catch (error) {
      // A full disk, or none of the needed kind: the first write tells who writes.
      this.#state.log.debug({ err: error }, 'a file is written through the mount, for it cannot be copied')
    } finally {
      closeSync(from)
    }
    if (fd !== undefined) closeSync(fd)
    return undefined
  }

  #tells(fd: number, id: string): boolean {
    const device = id.slice(0, id.indexOf('.'))
    let tells = this.#telling.get(device)
    if (tells === undefined) {
      tells = tellsOfWrites(fd)
      this.#telling.set(device, tells)
      if (!tells) {
        this.#state.log.info('reads and writes are not passed through: the file system would not tell of writes')
      }
    }
    return tells
  }

  /**
   * The staged file of a node with a backing, of which the first `length` bytes matter, and for which the cached file leaves the
   * cache; undefined without a backing.
   * @throws OperationError `LOCAL_FAILED` where its bytes are not any more what was cached: nothing may be made of them.
   */
  stage(node: Node, length: number): StagedFile | undefined | Promise<StagedFile | undefined> {
    const { file } = node
    const backing = file?.backing
    if (file === undefined || backing === undefined) return undefined
    const { cached } = file
    if (backing.staged !== undefined || !backing.isCached || cached === undefined || length === 0)
      return this.#staged(node)
    backing.verified ??= cached.verify(backing.fd)
    return backing.verified.then((isRight) => {
      if (isRight || file.backing !== backing || file.cached !== cached) return this.#staged(node)
      backing.verified = undefined
      const message = `Cannot write "${node.name}": its file in the cache is damaged; it can be written once nobody has it open`
      throw new OperationError('LOCAL_FAILED', message)
    })
  }

  #staged(node: Node): StagedFile | undefined {
    const { file } = node
    if (file?.backing === undefined) return undefined
    const { backing } = file
    if (backing.staged === undefined) {
      const path = backing.isCached ? this.#take(node, backing) : undefined
      file.staged = StagedFile.whole(backing.fd, node.size, path)
      backing.becomeWritten(file.staged)
      this.#written.add(node)
      // The kernel's own pages are not what is written now.
      node.cachedVersion = undefined
    } else if (file.staged === undefined) {
      // It was lost to another who replaced it, and goes on for who has it open.
      backing.staged.hold()
      file.staged = backing.staged
    }
    return file.staged
  }

  /**
   * Has the cached file leave the cache. Gives its name on the staging disk: a file that lost its only name can get none
   * again, and what cannot be stored is kept by giving it one. Undefined where the cache lies on another disk, or does not
   * know the file any more. Where it does not give a file away just now, its checksums tell it that the file is no more its.
   */
  #take(node: Node, backing: Backing): string | undefined {
    const path = this.#state.staging.newPath()
    const taken = node.file?.cached?.take(path)
    // The same file, or another one that was fetched since: either way it is no more the cache's.
    if (taken !== undefined) closeSync(taken)
    this.#state.cached.drop(node)
    this.#readers.delete(statusOf(backing.fd).id)
    return existsSync(path) ? path : undefined
  }

  /** Takes in what was written to the backing of a node since it was last looked at. */
  noticeWrites(node: Node): void {
    const { file } = node
    // The end of a put makes clean what was dirty, and this may be later than what it sends.
    const status = file?.backing?.written(file.publishing === undefined)
    if (file === undefined || status === undefined) return
    const { size, mtime } = status
    this.#staged(node)?.writtenOutside(size)
    node.size = size
    const mode = permissionsOf(node)
    const kept = withoutPrivileges(mode)
    const times = { mtime, ctime: mtime }
    changeAttributes(node, kept === mode ? times : { ...times, mode: kept })
    file.dirty = true
    file.failed = false
    // The kernel tells only the writer of a write that found no room: where there is none, this may have been one.
    const { backing } = file
    file.lacksRoom = backing !== undefined && isFull(backing.fd)
    this.#state.countDirty(node)
    this.#state.table.touch(node)
  }

  /** As `noticeWrites`, of all nodes. */
  noticeAll(): void {
    for (const node of this.#written) this.noticeWrites(node)
  }

  /**
   * Whether a file whose handles are all released may have writes that cannot be taken in yet: a mapping goes on, or a put.
   * Ask before looking for its writes.
   */
  isBusy({ backing, publishing }: OpenFile): boolean {
    return backing?.staged !== undefined && (publishing !== undefined || !isOnlyWriter(backing.fd))
  }

  /** Has the file count as open until it is busy no more and has no other handle, and calls `closed` then. */
  whenIdle(file: OpenFile, closed: () => void): void {
    file.handles++
    const look = (afterMs: number): void => {
      if (file.handles === 1 && !this.isBusy(file)) {
        this.#idle(file)
        return
      }
      const nextMs = Math.min(afterMs * 2, BUSY_LOOK_MS_MAX)
      this.#busy.set(file, { timer: setTimeout(look, nextMs, nextMs), closed })
    }
    this.#busy.set(file, { timer: setTimeout(look, BUSY_LOOK_MS_MIN, BUSY_LOOK_MS_MIN), closed })
  }

  #idle(file: OpenFile): void {
    const busy = this.#busy.get(file)
    assert(busy !== undefined, 'the file is waited for')
    this.#busy.delete(file)
    clearTimeout(busy.timer)
    file.handles--
    busy.closed()
  }

  /** The mount has ended: nobody waits for mappings any more, which only a forced end leaves behind. */
  stop(): void {
    this.#files = undefined
    for (const file of this.#busy.keys()) this.#idle(file)
  }

  /** Nobody has the file open any more, nor mapped: the next open chooses anew. */
  end(node: Node, file: OpenFile): void {
    const { backing } = file
    if (backing === undefined) return
    file.backing = undefined
    this.#written.delete(node)
    if (backing.staged === undefined) this.#readers.delete(statusOf(backing.fd).id)
    this.#files?.close(backing.id)
    backing.close()
  }
}

/** Whether the disk of an open file has no room left for this process. */
function isFull(fd: number): boolean {
  const { bavail, bfree, blocks, bsize } = statfsSync(`/proc/self/fd/${fd}`)
  // Root may use what is reserved for it, but not what ext4 keeps for itself: a fiftieth, and no more than 4,096 blocks.
  const left = process.getuid?.() === 0 ? bfree - Math.min(blocks / 50, 4096) : bavail
  return left * bsize < ROOM_BYTES_MIN
}
