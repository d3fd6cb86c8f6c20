/**
 * A watcher that needs no privilege: one inotify watch a directory. What that takes to lose nothing:
 * - A directory is opened, watched through its descriptor, and then read: what is made in it meanwhile is in the events or in
 *   what was read. Whatever was not watched at the place where it is found is told as a subtree to scan.
 * - Events name a watch. Which path it has is known from a tree that follows the renames in the order of the events, while
 *   walks see the disk of now. So each event that brings a directory to a name has all under that name walked, which puts
 *   right what a walk had seen too early: the last event of a name comes after the last change of it.
 * - The watches of a tree that moved away are dropped, or it would go on telling of itself under the old name.
 */
import { closeSync, constants } from 'node:fs'
import { ERRNO, OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { openBeneath } from '#os/at.ts'
import {
  decodeInotify,
  IN_ATTRIB,
  IN_CLOSE_WRITE,
  IN_CREATE,
  IN_DELETE,
  IN_DELETE_SELF,
  IN_IGNORED,
  IN_ISDIR,
  IN_MODIFY,
  IN_MOVE_SELF,
  IN_MOVED_FROM,
  IN_MOVED_TO,
  IN_Q_OVERFLOW,
  IN_UNMOUNT,
  type InotifyEvent,
  openInotify,
  unwatch,
  watchDirectory,
} from '#os/inotify.ts'
import { errnoName, SystemCallError } from '#os/libc.ts'
import { readNow } from '#os/read-write.ts'
import { S_IFDIR, S_IFMT, statusAt } from '#os/status.ts'
import { joinPath } from '#store/path.ts'
import { nameFrom, shownBytes } from './entry-name.ts'
import { OpenFiles } from './open-files.ts'
import { type Held, Outbox } from './outbox.ts'
import { type Polled, PolledSubtrees } from './polled-subtrees.ts'
import { isMissing, readAllEntries } from './polled-tree.ts'
import { Root, RootGone } from './root.ts'
import { Slices, WatchLoop } from './watch-loop.ts'
import { WatchTree, type WatchedDirectory } from './watch-tree.ts'
import {
  type Change,
  type Degraded,
  WATCH_DEFAULTS,
  type Watcher,
  type WatcherCounts,
  type WatchOptions,
} from './watcher.ts'

const log = logger('sync')
const MASK = IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
const ROOT_MASK = MASK | IN_DELETE_SELF | IN_MOVE_SELF
const EVENTS_BYTES = 65_536
const ENTRIES_BYTES = 65_536

/** The first half of a rename. */
interface Move {
  readonly slot: Held
  readonly from: string
  readonly directory: WatchedDirectory | undefined
  readonly at: number
}

export class InotifyWatcher implements Watcher {
  readonly kind = 'inotify'
  readonly counts: WatcherCounts = { events: 0, changes: 0, overflows: 0 }
  readonly #options: WatchOptions
  readonly #root: Root
  readonly #fd: number
  readonly #outbox = new Outbox()
  readonly #loop = new WatchLoop(this.#outbox)
  readonly #tree = new WatchTree()
  readonly #open: OpenFiles
  readonly #polled: PolledSubtrees
  /** By cookie. */
  readonly #moves = new Map<number, Move>()
  readonly #events = Buffer.allocUnsafeSlow(EVENTS_BYTES)
  readonly #entries = Buffer.allocUnsafeSlow(ENTRIES_BYTES)
  readonly #drop = (watch: number): void => unwatch(this.#fd, watch)
  #mounts = new Map<string, string>()
  #isClosed = false
  /** What is in the queue may be older than what the last walk of the whole tree has seen: renames are told as subtrees. */
  #isStale = true

  /** @throws SystemCallError (EMFILE) or OperationError where there is no such directory */
  constructor(directory: string, options: Partial<WatchOptions> = {}) {
    this.#options = { ...WATCH_DEFAULTS, ...options }
    this.#open = new OpenFiles(this.#options.openEveryMs)
    this.#root = new Root(directory)
    this.#polled = new PolledSubtrees(this.#root, this.#outbox)
    this.#fd = openInotify()
  }

  get degraded(): readonly Degraded[] {
    return this.#polled.degraded
  }

  /** Directories that are watched. */
  get watches(): number {
    return this.#tree.size
  }

  async arm(): Promise<void> {
    try {
      await this.#loop.run(async () => {
        this.#mounts = this.#root.mountsBelow()
        await this.#walk('', false)
        // What happened during the walk; renames from here on are told as such.
        await this.#drain()
      })
    } catch (error) {
      if (!(error instanceof RootGone)) throw error
      throw new OperationError('INPUT_INVALID', `Cannot watch "${this.#root.directory}": ${error.message}`, {
        cause: error,
      })
    }
    this.#loop.listen(this.#fd, () => this.#drain())
    this.#loop.every(this.#options.openEveryMs, () => this.#tellOpen())
    this.#loop.every(this.#options.pollEveryMs, () => this.#poll())
    this.#loop.every(this.#options.checkEveryMs, () => this.#check())
  }

  async *changes(signal?: AbortSignal): AsyncIterable<readonly Change[]> {
    for await (const batch of this.#outbox.batches(signal)) {
      this.counts.changes += batch.length
      yield batch
    }
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    await this.#loop.close()
    closeSync(this.#fd)
  }

  /** Reads all that is in the queue. */
  async #drain(): Promise<number> {
    const slices = new Slices()
    const event: InotifyEvent = { watch: 0, mask: 0, cookie: 0, nameStart: 0, nameEnd: 0 }
    let count = 0
    while (!this.#loop.isClosed && !this.#outbox.isFull) {
      const length = readNow(this.#fd, this.#events)
      if (length === -ERRNO.EINTR) continue
      if (length === -ERRNO.EAGAIN) {
        this.#isStale = false
        break
      }
      if (length < 0) throw new SystemCallError('read', -length).toOperationError('read what changed')
      for (let at = 0; at < length && !this.#loop.isClosed; count++) {
        this.counts.events++
        at = decodeInotify(this.#events, at, event)
        const walking = this.#take(event)
        if (walking !== undefined) await walking
      }
      await slices.pause()
    }
    this.#releaseMoves()
    return count
  }

  /** Takes in one event; a promise where directories are to be walked for it. */
  #take(event: InotifyEvent): Promise<unknown> | undefined {
    const { mask } = event
    if ((mask & IN_Q_OVERFLOW) !== 0) return this.#overflowed()
    const directory = this.#tree.at(event.watch)
    // Of a watch that was dropped: what is left in the queue tells of a tree under its old name.
    if (directory === undefined) return undefined
    if (event.nameStart === event.nameEnd) return this.#takeOwn(directory, mask)
    const name = nameFrom(this.#events, event.nameStart, event.nameEnd)
    if (name === undefined) return this.#skipName(directory, event)
    const path = joinPath(this.#tree.pathOf(directory), name)
    const isDirectory = (mask & IN_ISDIR) !== 0
    if ((mask & IN_MOVED_FROM) !== 0) return this.#movedFrom(directory, name, path, event.cookie, isDirectory)
    if ((mask & IN_MOVED_TO) !== 0) return this.#movedTo(directory, name, path, event.cookie, isDirectory)
    if ((mask & IN_DELETE) !== 0) {
      this.#forget(path)
      this.#outbox.gone(path, isDirectory)
    } else if (isDirectory) {
      this.#outbox.written(path, false)
      if ((mask & IN_CREATE) !== 0) return this.#walk(path, true)
    } else if ((mask & IN_CREATE) !== 0) {
      this.#open.modified(path, Date.now())
      this.#outbox.written(path, true)
    } else if ((mask & IN_CLOSE_WRITE) !== 0) {
      this.#open.closed(path)
      this.#outbox.written(path, false)
    } else if ((mask & IN_MODIFY) !== 0) {
      if (this.#open.modified(path, Date.now())) this.#outbox.written(path, true)
    } else if ((mask & IN_ATTRIB) !== 0) {
      this.#outbox.written(path, false)
    }
    return undefined
  }

  /** What a watched directory tells of itself. */
  #takeOwn(directory: WatchedDirectory, mask: number): Promise<unknown> | undefined {
    if (directory === this.#tree.root) {
      if ((mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED)) !== 0) {
        throw new RootGone('the root was removed, renamed or unmounted')
      }
      if ((mask & IN_ATTRIB) !== 0) this.#outbox.written('', false)
      return undefined
    }
    const path = this.#tree.pathOf(directory)
    if ((mask & IN_UNMOUNT) !== 0) {
      this.#tree.drop(directory, this.#drop)
      return this.#arrived(path)
    }
    if ((mask & IN_IGNORED) !== 0) this.#tree.drop(directory, this.#drop)
    else if ((mask & IN_ATTRIB) !== 0) this.#outbox.written(path, false)
    return undefined
  }

  /** A name that no path can have. Where it is the first half of a rename, the second is taken as new. */
  #skipName(directory: WatchedDirectory, { mask, nameStart, nameEnd, cookie }: InotifyEvent): undefined {
    if ((mask & IN_MOVED_TO) !== 0) this.#releaseMove(cookie)
    if ((mask & (IN_DELETE | IN_MOVED_FROM)) !== 0) return
    const path = joinPath(this.#tree.pathOf(directory), shownBytes(this.#events.subarray(nameStart, nameEnd)))
    this.#outbox.other({ kind: 'skipped', path, reason: 'not-utf8', detail: 'its name is not UTF-8' })
  }

  #movedFrom(parent: WatchedDirectory, name: string, from: string, cookie: number, isDirectory: boolean): undefined {
    const slot = this.#outbox.hold(from, isDirectory)
    const directory = isDirectory ? parent.children?.get(name) : undefined
    this.#moves.set(cookie, { slot, from, directory, at: performance.now() })
    if (this.#moves.size === 1) this.#releaseLater()
  }

  #releaseLater(): void {
    this.#loop.after(this.#options.renameWaitMs + 1, async () => {
      // The second half may be in the queue.
      await this.#drain()
      if (this.#moves.size > 0) this.#releaseLater()
    })
  }

  #movedTo(
    parent: WatchedDirectory,
    name: string,
    to: string,
    cookie: number,
    isDirectory: boolean,
  ): Promise<unknown> | undefined {
    const move = this.#moves.get(cookie)
    this.#moves.delete(cookie)
    if (move === undefined) {
      if (isDirectory) return this.#arrived(to)
      this.#outbox.written(to, false)
      return undefined
    }
    const { slot, from, directory } = move
    this.#open.closed(to)
    this.#open.moved(from, to)
    if (this.#isStale) {
      this.#outbox.release(slot, { kind: 'gone', path: from })
      if (isDirectory) this.#outbox.subtree(to)
      else this.#outbox.written(to, false)
    } else {
      this.#outbox.resolve(slot, { kind: 'moved', from, to, isDirectory })
    }
    if (!isDirectory) return undefined
    const there = parent.children?.get(name)
    if (there !== undefined && there !== directory) this.#tree.drop(there, this.#drop)
    if (directory !== undefined && this.#tree.at(directory.watch) === directory) {
      this.#tree.move(directory, parent, name)
    }
    this.#polled.moved(from, to)
    return this.#walk(to, true)
  }

  /** A tree that was moved in from outside, or mounted or unmounted there. */
  async #arrived(path: string): Promise<void> {
    if (!(await this.#walk(path, true))) this.#outbox.subtree(path)
  }

  /** Moves whose second half has not come in time went out of the tree. */
  #releaseMoves(): void {
    const before = performance.now() - this.#options.renameWaitMs
    for (const [cookie, { at }] of this.#moves) if (at <= before) this.#releaseMove(cookie)
  }

  #releaseMove(cookie: number): void {
    const move = this.#moves.get(cookie)
    if (move === undefined) return
    this.#moves.delete(cookie)
    this.#outbox.release(move.slot, { kind: 'gone', path: move.from })
    const { directory } = move
    // Unless it was found somewhere in the tree by a walk since.
    if (directory !== undefined && this.#tree.at(directory.watch) === directory && directory.path === move.from) {
      this.#tree.drop(directory, this.#drop)
    }
    this.#polled.forget(move.from)
  }

  async #overflowed(): Promise<void> {
    this.counts.overflows++
    log.warn({ directory: this.#root.directory }, 'the queue of changes overflowed: everything is looked at again')
    for (const { slot } of this.#moves.values()) this.#outbox.release(slot, undefined)
    this.#moves.clear()
    this.#isStale = true
    await this.#walk('', false)
    this.#outbox.other({ kind: 'lost' })
  }

  #forget(path: string): void {
    const directory = this.#tree.find(path)
    if (directory !== undefined) this.#tree.drop(directory, this.#drop)
    this.#open.closed(path)
    this.#polled.forget(path)
  }

  /**
   * Watches the directory at `path` and all below, and tells what was not watched there. Whether the directory itself was not.
   */
  async #walk(path: string, tells: boolean, polled?: Polled): Promise<boolean> {
    const rootFd = this.#root.open()
    const slices = new Slices()
    let isNew = false
    const tellings: string[] = []
    try {
      const left = [{ path, tells }]
      for (let next = left.pop(); next !== undefined; next = left.pop()) {
        const found = this.#visit(rootFd, next.path)
        if (next.path === path) isNew = typeof found === 'object' && found.isNew
        if (typeof found === 'string') {
          this.#forget(next.path)
          await this.#polled.add(next.path, found, next.tells, polled)
        }
        if (typeof found !== 'object') continue
        const told = found.isNew && next.tells
        if (told) tellings.push(next.path)
        // What is below something that was told is told with it.
        for (const name of found.names) left.push({ path: joinPath(next.path, name), tells: next.tells && !told })
        await slices.pause()
      }
    } finally {
      closeSync(rootFd)
    }
    // Not before all below is watched: who scans it at once would come too early for what is not.
    for (const told of tellings) this.#outbox.subtree(told)
    return isNew
  }

  /** One directory: watched, then read. Undefined where there is none to read; why, where it cannot be watched. */
  #visit(rootFd: number, path: string): { isNew: boolean; names: string[] } | string | undefined {
    if (this.#polled.has(path)) return undefined
    const slash = path.lastIndexOf('/')
    const parent = path === '' ? undefined : this.#tree.find(slash === -1 ? '' : path.slice(0, slash))
    // Its directory went meanwhile, of which an event tells.
    if (path !== '' && parent === undefined) return undefined
    let fd: number
    try {
      fd = openBeneath(rootFd, path === '' ? '.' : path, constants.O_RDONLY | constants.O_DIRECTORY)
    } catch (error) {
      if (!(error instanceof SystemCallError)) throw error
      this.#forget(path)
      if (!isMissing(error)) this.#unreadable(path, error)
      return undefined
    }
    try {
      const watch = watchDirectory(this.#fd, fd, path === '' ? ROOT_MASK : MASK)
      if (watch === -ERRNO.ENOSPC || watch === -ERRNO.ENOMEM) {
        return `inotify_add_watch failed with ${errnoName(-watch)}: raise fs.inotify.max_user_watches`
      }
      if (watch < 0) {
        this.#unreadable(path, new SystemCallError('inotify_add_watch', -watch))
        return undefined
      }
      const { directory, isNew } = this.#tree.place(watch, parent, path.slice(slash + 1), this.#drop)
      const names = this.#directoriesIn(fd)
      if (directory.children !== undefined) {
        const there = new Set(names)
        for (const [name, child] of directory.children) if (!there.has(name)) this.#tree.drop(child, this.#drop)
      }
      return { isNew, names }
    } finally {
      closeSync(fd)
    }
  }

  #directoriesIn(fd: number): string[] {
    const names: string[] = []
    const unknown: string[] = []
    const each = (bytes: Buffer, type: string): void => {
      if (type !== 'directory' && type !== 'unknown') return
      // A name that is not UTF-8 is told by whoever scans.
      const name = nameFrom(bytes, 0, bytes.length)
      if (name !== undefined) (type === 'directory' ? names : unknown).push(name)
    }
    readAllEntries(fd, this.#entries, each)
    for (const name of unknown) {
      if (((statusAt(fd, name)?.mode ?? 0) & S_IFMT) === S_IFDIR) names.push(name)
    }
    return names
  }

  #unreadable(path: string, error: SystemCallError): void {
    log.warn({ path, err: error }, 'a directory cannot be watched, so changes in it are not seen')
    this.#outbox.other({ kind: 'skipped', path, reason: 'unreadable', detail: error.message })
  }

  /** Tries whether there are watches again, else polls. */
  #poll(): Promise<void> {
    return this.#polled.poll((path, polled) => this.#walk(path, true, polled))
  }

  #tellOpen(): void {
    for (const path of this.#open.due(Date.now())) this.#outbox.written(path, true)
  }

  /** Whether the root is the same, and what was mounted or unmounted below it, of which there are no events. */
  async #check(): Promise<void> {
    if (!this.#root.isSame()) throw new RootGone('the root is not the same directory as before')
    const now = this.#root.mountsBelow()
    const changed = [...new Set([...now.keys(), ...this.#mounts.keys()])].filter(
      (path) => now.get(path) !== this.#mounts.get(path),
    )
    this.#mounts = now
    for (const path of changed) {
      await this.#arrived(path)
    }
  }
}
