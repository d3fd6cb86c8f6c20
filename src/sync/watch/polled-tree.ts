/**
 * A tree that is looked at in intervals: what two looks tell apart. Remembers a line for every entry; renames are seen as
 * gone and new.
 */
import { closeSync, constants } from 'node:fs'
import { ERRNO } from '#base/errno.ts'
import { timestampToMs } from '#base/time.ts'
import { type EachEntry, openBeneath, readEntries } from '#os/at.ts'
import { SystemCallError } from '#os/libc.ts'
import { type Status, S_IFDIR, S_IFMT, statusAt } from '#os/status.ts'
import { joinPath } from '#store/path.ts'
import { shownBytes } from '#os/entry-name.ts'
import type { Outbox } from './outbox.ts'
import { type Root, RootGone } from './root.ts'
import { Slices } from './watch-loop.ts'

const ENTRIES_BYTES = 65_536
/** Two changes within one tick of the kernel's clock can leave the same times: such an entry is told at the next look, too. */
const RACY_MS = 25
/** Sorts before every line that an entry can have, and equals none. */
const UNSURE = ''

/** Entries of one directory by name; of a subdirectory, what is known of it as well. */
type Known = Map<string, { line: string; below: Known | undefined }>

/** No such directory any more, or no directory. */
export function isMissing(error: unknown): boolean {
  return (
    error instanceof SystemCallError &&
    (error.errno === ERRNO.ENOENT || error.errno === ERRNO.ENOTDIR || error.errno === ERRNO.ELOOP)
  )
}

/** All entries of an open directory; none once it is removed. */
export function readAllEntries(fd: number, buffer: Buffer, each: EachEntry): void {
  try {
    while (readEntries(fd, buffer, each));
  } catch (error) {
    if (!isMissing(error)) throw error
  }
}

export class PolledTree {
  /** Where it lies in the tree; changed by who learns that a directory above was renamed. */
  path: string
  readonly #root: Root
  #known: Known | undefined
  readonly #buffer = Buffer.allocUnsafeSlow(ENTRIES_BYTES)
  /** Told already, as they can be shown. */
  readonly #skipped = new Set<string>()

  constructor(root: Root, path: string) {
    this.#root = root
    this.path = path
  }

  /** Looks at all of it, and tells what differs from the look before; the first one tells nothing. @throws RootGone */
  async poll(outbox: Outbox): Promise<void> {
    const rootFd = this.#root.open()
    try {
      const look = new Look(rootFd, this.#buffer, this.#known === undefined ? undefined : outbox, this.#skipped, outbox)
      this.#known = await look.directory(this.path, this.#known ?? new Map<string, never>())
    } finally {
      closeSync(rootFd)
    }
    if (!this.#root.isSame()) throw new RootGone('the root went while it was polled')
  }
}

/** One look at a tree. */
class Look {
  readonly #rootFd: number
  readonly #buffer: Buffer
  readonly #outbox: Outbox | undefined
  readonly #skipped: Set<string>
  readonly #always: Outbox
  readonly #slices = new Slices()

  constructor(rootFd: number, buffer: Buffer, outbox: Outbox | undefined, skipped: Set<string>, always: Outbox) {
    this.#rootFd = rootFd
    this.#buffer = buffer
    this.#outbox = outbox
    this.#skipped = skipped
    this.#always = always
  }

  /** What is in the directory now. Where it cannot be read, what was known of it: nothing is concluded. */
  async directory(path: string, before: Known): Promise<Known> {
    let fd: number
    try {
      fd = openBeneath(this.#rootFd, path === '' ? '.' : path, constants.O_RDONLY | constants.O_DIRECTORY)
    } catch (error) {
      if (isMissing(error)) return new Map()
      if (!(error instanceof SystemCallError)) throw error
      this.#skip(path, 'unreadable', error.message)
      return before
    }
    const now: Known = new Map()
    const directories: string[] = []
    try {
      const each: EachEntry = (name, _type, bytes): void =>
        this.#entry(fd, path, name ?? bytes(), before, now, directories)
      readAllEntries(fd, this.#buffer, each)
    } finally {
      closeSync(fd)
    }
    for (const [name, { below }] of before) {
      if (!now.has(name)) this.#outbox?.gone(joinPath(path, name), below !== undefined)
    }
    for (const name of directories) {
      await this.#slices.pause()
      const entry = now.get(name)
      if (entry === undefined) continue
      const known = before.get(name)?.below
      // What is in a directory that was not there is told as one subtree.
      const look =
        known === undefined ? new Look(this.#rootFd, this.#buffer, undefined, this.#skipped, this.#always) : this
      entry.below = await look.directory(joinPath(path, name), known ?? new Map<string, never>())
    }
    return now
  }

  #entry(fd: number, path: string, name: string | Buffer, before: Known, now: Known, directories: string[]): void {
    if (typeof name !== 'string') {
      return this.#skip(joinPath(path, shownBytes(name)), 'not-utf8', 'its name is not UTF-8')
    }
    const at = Date.now()
    const status = statusAt(fd, name)
    if (status === undefined) return
    const isDirectory = (status.mode & S_IFMT) === S_IFDIR
    const line = lineOf(status, isDirectory, at)
    if (isDirectory) directories.push(name)
    now.set(name, { line, below: isDirectory ? new Map() : undefined })
    const known = before.get(name)
    if (known !== undefined && known.line === line && line !== UNSURE) return
    if (known !== undefined && (known.below === undefined) === isDirectory) {
      this.#outbox?.gone(joinPath(path, name), !isDirectory)
    }
    if (isDirectory && known?.below === undefined) this.#outbox?.subtree(joinPath(path, name))
    else this.#outbox?.written(joinPath(path, name), false)
  }

  #skip(path: string, reason: 'not-utf8' | 'unreadable', detail: string): void {
    if (this.#skipped.has(path)) return
    this.#skipped.add(path)
    this.#always.other({ kind: 'skipped', path, reason, detail })
  }
}

/** What of an entry tells that it has changed. The times of a directory tell of its entries, which are looked at anyway. */
function lineOf(status: Status, isDirectory: boolean, now: number): string {
  const { id, mode, uid, gid, size, mtime, ctime } = status
  if (isDirectory) return `${id} ${mode} ${uid} ${gid}`
  if (now - timestampToMs(ctime) < RACY_MS) return UNSURE
  return `${id} ${mode} ${size} ${mtime.seconds}.${mtime.nanoseconds} ${ctime.seconds}.${ctime.nanoseconds}`
}
