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
import { ERRNO } from '#base/errno.ts'
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
import { joinPath } from '#store/path.ts'
import { nameFrom, shownBytes } from '#os/entry-name.ts'
import { KernelWatcher } from './kernel-watcher.ts'
import type { Held } from './outbox.ts'
import type { Polled } from './polled-subtrees.ts'
import { isMissing } from './polled-tree.ts'
import { RootGone } from './root.ts'
import { Slices } from './watch-loop.ts'
import { WatchTree, type WatchedDirectory } from './watch-tree.ts'
import type { WatchOptions } from './watcher.ts'

const log = logger('sync')
const MASK = IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
const ROOT_MASK = MASK | IN_DELETE_SELF | IN_MOVE_SELF
const EVENTS_BYTES = 65_536

/** The first half of a rename. */
interface Move {
  readonly slot: Held
  readonly from: string
  readonly directory: WatchedDirectory | undefined
  readonly at: number
}

export class InotifyWatcher extends KernelWatcher {
  readonly kind = 'inotify'
  readonly #tree = new WatchTree()
  /** By cookie. */
  readonly #moves = new Map<number, Move>()
  readonly #event: InotifyEvent = { watch: 0, mask: 0, cookie: 0, nameStart: 0, nameEnd: 0 }
  readonly #drop = (watch: number): void => unwatch(this.fd, watch)

  /** @throws SystemCallError (EMFILE) or OperationError where there is no such directory */
  constructor(directory: string, options: Partial<WatchOptions> = {}) {
    super(directory, options, openInotify, EVENTS_BYTES)
  }

  /** Directories that are watched. */
  get watches(): number {
    return this.#tree.size
  }

  protected decode(at: number): number {
    return decodeInotify(this.events, at, this.#event)
  }

  protected take(): Promise<unknown> | undefined {
    const event = this.#event
    const { mask } = event
    if ((mask & IN_Q_OVERFLOW) !== 0) return this.overflowed()
    const directory = this.#tree.at(event.watch)
    // Of a watch that was dropped: what is left in the queue tells of a tree under its old name.
    if (directory === undefined) return undefined
    if (event.nameStart === event.nameEnd) return this.#takeOwn(directory, mask)
    const name = nameFrom(this.events, event.nameStart, event.nameEnd)
    if (name === undefined) return this.#skipName(directory, event)
    const path = joinPath(this.#tree.pathOf(directory), name)
    const isDirectory = (mask & IN_ISDIR) !== 0
    if ((mask & IN_MOVED_FROM) !== 0) return this.#movedFrom(directory, name, path, event.cookie, isDirectory)
    if ((mask & IN_MOVED_TO) !== 0) return this.#movedTo(directory, name, path, event.cookie, isDirectory)
    if ((mask & IN_DELETE) !== 0) {
      this.#forget(path)
      this.outbox.gone(path, isDirectory)
    } else if (isDirectory) {
      this.outbox.written(path, false)
      if ((mask & IN_CREATE) !== 0) return this.#walk(path, true)
    } else if ((mask & IN_CREATE) !== 0) {
      this.open.modified(path, Date.now())
      this.outbox.written(path, true)
    } else if ((mask & IN_CLOSE_WRITE) !== 0) {
      this.open.closed(path)
      this.outbox.written(path, false)
    } else if ((mask & IN_MODIFY) !== 0) {
      if (this.open.modified(path, Date.now())) this.outbox.written(path, true)
    } else if ((mask & IN_ATTRIB) !== 0) {
      this.outbox.written(path, false)
    }
    return undefined
  }

  /** What a watched directory tells of itself. */
  #takeOwn(directory: WatchedDirectory, mask: number): Promise<unknown> | undefined {
    if (directory === this.#tree.root) {
      if ((mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED)) !== 0) {
        throw new RootGone('the root was removed, renamed or unmounted')
      }
      if ((mask & IN_ATTRIB) !== 0) this.outbox.written('', false)
      return undefined
    }
    const path = this.#tree.pathOf(directory)
    if ((mask & IN_UNMOUNT) !== 0) {
      this.#tree.drop(directory, this.#drop)
      return this.#arrived(path)
    }
    if ((mask & IN_IGNORED) !== 0) this.#tree.drop(directory, this.#drop)
    else if ((mask & IN_ATTRIB) !== 0) this.outbox.written(path, false)
    return undefined
  }

  /** A name that no path can have. Where it is the first half of a rename, the second is taken as new. */
  #skipName(directory: WatchedDirectory, { mask, nameStart, nameEnd, cookie }: InotifyEvent): undefined {
    if ((mask & IN_MOVED_TO) !== 0) this.#releaseMove(cookie)
    if ((mask & (IN_DELETE | IN_MOVED_FROM)) !== 0) return
    const path = joinPath(this.#tree.pathOf(directory), shownBytes(this.events.subarray(nameStart, nameEnd)))
    this.outbox.other({ kind: 'skipped', path, reason: 'not-utf8', detail: 'its name is not UTF-8' })
  }

  #movedFrom(parent: WatchedDirectory, name: string, from: string, cookie: number, isDirectory: boolean): undefined {
    const slot = this.outbox.hold(from, isDirectory)
    const directory = isDirectory ? parent.children?.get(name) : undefined
    this.#moves.set(cookie, { slot, from, directory, at: performance.now() })
    if (this.#moves.size === 1) this.#releaseLater()
  }

  #releaseLater(): void {
    this.loop.after(this.options.renameWaitMs + 1, async () => {
      // The second half may be in the queue.
      await this.drain()
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
      this.outbox.written(to, false)
      return undefined
    }
    const { slot, from, directory } = move
    this.open.closed(to)
    this.open.moved(from, to)
    if (this.isStale) {
      this.outbox.release(slot, { kind: 'gone', path: from })
      if (isDirectory) this.outbox.subtree(to)
      else this.outbox.written(to, false)
    } else {
      this.outbox.resolve(slot, { kind: 'moved', from, to, isDirectory })
    }
    if (!isDirectory) return undefined
    const there = parent.children?.get(name)
    if (there !== undefined && there !== directory) this.#tree.drop(there, this.#drop)
    if (directory !== undefined && this.#tree.at(directory.watch) === directory) {
      this.#tree.move(directory, parent, name)
    }
    this.polled.moved(from, to)
    return this.#walkBoth(to, from)
  }

  /** What is at the old name by now is another directory: one that was exchanged with it, of which the watch was dropped above. */
  async #walkBoth(to: string, from: string): Promise<void> {
    await this.#walk(to, true)
    await this.#walk(from, true)
  }

  /** A tree that was moved in from outside, or mounted or unmounted there. */
  async #arrived(path: string): Promise<void> {
    if (!(await this.#walk(path, true))) this.outbox.subtree(path)
  }

  /** Moves whose second half has not come in time went out of the tree. */
  protected override drained(): void {
    const before = performance.now() - this.options.renameWaitMs
    for (const [cookie, { at }] of this.#moves) if (at <= before) this.#releaseMove(cookie)
  }

  #releaseMove(cookie: number): void {
    const move = this.#moves.get(cookie)
    if (move === undefined) return
    this.#moves.delete(cookie)
    this.outbox.release(move.slot, { kind: 'gone', path: move.from })
    const { directory } = move
    // Unless it was found somewhere in the tree by a walk since.
    if (directory !== undefined && this.#tree.at(directory.watch) === directory && directory.path === move.from) {
      this.#tree.drop(directory, this.#drop)
    }
    this.polled.forget(move.from)
  }

  protected override overflowed(): Promise<void> {
    for (const { slot } of this.#moves.values()) this.outbox.release(slot, undefined)
    this.#moves.clear()
    return super.overflowed()
  }

  #forget(path: string): void {
    const directory = this.#tree.find(path)
    if (directory !== undefined) this.#tree.drop(directory, this.#drop)
    this.open.closed(path)
    this.polled.forget(path)
  }

  /**
   * Watches the directory at `path` and all below, and tells what was not watched there. Whether the directory itself was not.
   */
  async #walk(path: string, tells: boolean, polled?: Polled): Promise<boolean> {
    const rootFd = this.root.open()
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
          await this.polled.add(next.path, found, next.tells, polled)
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
    for (const told of tellings) this.outbox.subtree(told)
    return isNew
  }

  /** One directory: watched, then read. Undefined where there is none to read; why, where it cannot be watched. */
  #visit(rootFd: number, path: string): { isNew: boolean; names: string[] } | string | undefined {
    if (this.polled.has(path)) return undefined
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
      const watch = watchDirectory(this.fd, fd, path === '' ? ROOT_MASK : MASK)
      if (watch === -ERRNO.ENOSPC || watch === -ERRNO.ENOMEM) {
        return `inotify_add_watch failed with ${errnoName(-watch)}: raise fs.inotify.max_user_watches`
      }
      if (watch < 0) {
        this.#unreadable(path, new SystemCallError('inotify_add_watch', -watch))
        return undefined
      }
      const { directory, isNew } = this.#tree.place(watch, parent, path.slice(slash + 1), this.#drop)
      const names = this.directoriesIn(fd)
      if (directory.children !== undefined) {
        const there = new Set(names)
        for (const [name, child] of directory.children) if (!there.has(name)) this.#tree.drop(child, this.#drop)
      }
      return { isNew, names }
    } finally {
      closeSync(fd)
    }
  }

  #unreadable(path: string, error: SystemCallError): void {
    log.warn({ path, err: error }, 'a directory cannot be watched, so changes in it are not seen')
    this.outbox.other({ kind: 'skipped', path, reason: 'unreadable', detail: error.message })
  }

  /** Tries whether there are watches again, else polls. */
  protected override poll(): Promise<void> {
    return this.polled.poll((path, polled) => this.#walk(path, true, polled))
  }

  protected walkAll(tells: boolean): Promise<unknown> {
    return this.#walk('', tells)
  }

  protected async mountsChanged(paths: readonly string[]): Promise<void> {
    for (const path of paths) await this.#arrived(path)
  }
}
