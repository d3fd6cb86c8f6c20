/**
 * A watcher for root: one fanotify mark a file system, whatever the number of directories. Events name directories by
 * handles, which a cache turns into the paths that they had when the event happened: it follows the renames in the order of the
 * events. Nothing is watched directory by directory, so a new one is seen from its first moment.
 *
 * The mark tells of the whole file system. A directory that is not in the cache is opened by its handle, once, and found to be
 * outside, or inside: then it is told as a subtree, since nobody knows for how long it went unseen.
 */
import { closeSync, constants, readlinkSync } from 'node:fs'
import { ERRNO } from '#base/errno.ts'
import { logger } from '#base/log.ts'
import { O_PATH, openAt, openBeneath } from '#os/at.ts'
import {
  decodeFanotify,
  emptyFanotifyEvent,
  FAN_ATTRIB,
  FAN_CLOSE_WRITE,
  FAN_CREATE,
  FAN_DELETE,
  FAN_DELETE_SELF,
  FAN_MODIFY,
  FAN_MOVE_SELF,
  FAN_ONDIR,
  FAN_Q_OVERFLOW,
  FAN_RENAME,
  type FanotifyEvent,
  markDirectory,
  markFileSystem,
  openFanotify,
} from '#os/fanotify-events.ts'
import { fileSystemId, type HandleKey, handleOf, openHandle } from '#os/file-handle.ts'
import { SystemCallError } from '#os/libc.ts'
import { statusAt, statusOf } from '#os/status.ts'
import { isWithin, joinPath, nameOf, parentOf } from '#store/path.ts'
import { nameFrom, shownBytes } from '#os/entry-name.ts'
import { KernelWatcher } from './kernel-watcher.ts'
import { HandleTree, type KnownDirectory } from './handle-tree.ts'
import { isMissing } from './polled-tree.ts'
import { RootGone } from './root.ts'
import { Slices } from './watch-loop.ts'
import type { WatchOptions } from './watcher.ts'

const log = logger('sync')
const MASK = FAN_MODIFY | FAN_ATTRIB | FAN_CLOSE_WRITE | FAN_CREATE | FAN_DELETE | FAN_RENAME | FAN_ONDIR
const SELF_MASK = FAN_DELETE_SELF | FAN_MOVE_SELF | FAN_ONDIR
const EVENTS_BYTES = 262_144
const FSID_BYTES = 8
const O_DIRECTORY_ONLY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW
const O_DIRECTORY_PATH = O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW
/** A directory that is renamed all the time cannot be placed; what contains it is told instead. */
const RESOLVE_TRIES = 5

/** A file system that is listened to. */
interface Volume {
  readonly fsid: Buffer
  /** Where it is mounted, or the root of the tree. */
  readonly top: KnownDirectory
}

export class FanotifyWatcher extends KernelWatcher {
  readonly kind = 'fanotify'
  /** By the identity of the file system, each byte a character. */
  readonly #volumes = new Map<string, Volume>()
  readonly #rootKey: HandleKey
  #tree: HandleTree
  readonly #event = emptyFanotifyEvent()

  /**
   * Listens from here on.
   * @throws SystemCallError where this process, the kernel or the file system does not give it: EPERM, EINVAL, EOPNOTSUPP, ENODEV,
   *   EXDEV, EMFILE; OperationError where there is no such directory
   */
  constructor(directory: string, options: Partial<WatchOptions> = {}) {
    super(directory, options, openFanotify, EVENTS_BYTES)
    let rootFd: number | undefined
    try {
      rootFd = this.root.open()
      const fsid = fileSystemId(rootFd)
      this.#rootKey = handleOf(rootFd, fsid).key
      this.#tree = new HandleTree(this.#rootKey)
      const readable = openAt(rootFd, '.', O_DIRECTORY_ONLY)
      try {
        const opened = openHandle(readable, this.#rootKey, O_DIRECTORY_PATH)
        if (opened === undefined) throw new SystemCallError('open_by_handle_at', ERRNO.ESTALE)
        closeSync(opened)
        markFileSystem(this.fd, readable, MASK)
        markDirectory(this.fd, readable, SELF_MASK)
      } finally {
        closeSync(readable)
      }
      this.#volumes.set(fsid.toString('latin1'), { fsid, top: this.#tree.root })
    } catch (error) {
      closeSync(this.fd)
      throw error
    } finally {
      if (rootFd !== undefined) closeSync(rootFd)
    }
  }

  /** Directories that are known by their handles. */
  get directories(): number {
    return this.#tree.size
  }

  protected decode(at: number): number {
    return decodeFanotify(this.events, at, this.#event)
  }

  protected take(): Promise<void> | undefined {
    const event = this.#event
    const { mask } = event
    if ((mask & FAN_Q_OVERFLOW) !== 0) return this.overflowed()
    if ((mask & (FAN_DELETE_SELF | FAN_MOVE_SELF)) !== 0) throw new RootGone('the root was removed or renamed')
    if (event.directory === undefined) return undefined
    if ((mask & FAN_RENAME) !== 0) return this.#renamed(event)
    const directory = this.#locate(event.directory)
    const above = directory === undefined ? undefined : this.#tree.pathOf(directory)
    const isDirectory = (mask & FAN_ONDIR) !== 0
    if (above === undefined) {
      // Outside: but what is removed there is no more, and its handle may be given again.
      if (isDirectory && (mask & FAN_DELETE) !== 0 && event.target !== undefined) this.#tree.remove(event.target)
      return undefined
    }
    const name = nameFrom(this.events, event.nameStart, event.nameEnd)
    if (name === undefined) {
      if (mask !== FAN_DELETE) this.#skip(above, event.nameStart, event.nameEnd)
    } else if (name === '.') {
      this.outbox.written(above, false)
    } else if (isDirectory) {
      this.#directoryChanged(event, directory, joinPath(above, name), name)
    } else {
      this.#fileChanged(mask, joinPath(above, name))
    }
    return undefined
  }

  /** The events of one directory may be merged: removed is what came last, for its handle is never made again. */
  #directoryChanged(event: FanotifyEvent, parent: KnownDirectory | undefined, path: string, name: string): void {
    const { mask, target } = event
    if ((mask & FAN_DELETE) !== 0) {
      if (target !== undefined) this.#tree.remove(target)
      this.polled.forget(path)
      this.outbox.gone(path, true)
      return
    }
    if ((mask & FAN_CREATE) !== 0 && target !== undefined) this.#tree.place(target, parent, name)
    this.outbox.written(path, false)
  }

  /** The events of one name of one file may be merged, in whatever order they came: who looks finds what came last. */
  #fileChanged(mask: number, path: string): void {
    if ((mask & FAN_DELETE) !== 0) {
      this.open.closed(path)
      this.outbox.gone(path, false)
      if ((mask & FAN_CREATE) !== 0) this.outbox.written(path, false)
    } else if ((mask & FAN_CLOSE_WRITE) !== 0) {
      this.open.closed(path)
      this.outbox.written(path, false)
    } else if ((mask & FAN_CREATE) !== 0) {
      this.open.modified(path, Date.now())
      this.outbox.written(path, true)
    } else if ((mask & FAN_MODIFY) !== 0) {
      if (this.open.modified(path, Date.now())) this.outbox.written(path, true)
    } else if ((mask & FAN_ATTRIB) !== 0) {
      this.outbox.written(path, false)
    }
  }

  #renamed(event: FanotifyEvent): Promise<void> | undefined {
    const { directory, newDirectory, target } = event
    const isDirectory = (event.mask & FAN_ONDIR) !== 0
    const from = this.#entryAt(directory, event.nameStart, event.nameEnd)
    const to = this.#entryAt(newDirectory, event.newNameStart, event.newNameEnd)
    if (to === undefined) {
      if (isDirectory && target !== undefined) this.#tree.leave(target)
      if (from === undefined) return undefined
      this.polled.forget(from.path)
      this.open.closed(from.path)
      this.outbox.gone(from.path, isDirectory)
      return undefined
    }
    if (from === undefined) {
      if (!isDirectory) {
        this.outbox.written(to.path, false)
        return undefined
      }
      return this.#arrived(target, to)
    }
    this.open.closed(to.path)
    this.open.moved(from.path, to.path)
    if (isDirectory) {
      if (target !== undefined) this.#tree.place(target, to.parent, to.name)
      this.polled.moved(from.path, to.path)
    }
    if (!this.isStale) this.outbox.moved(from.path, to.path, isDirectory)
    else {
      this.outbox.gone(from.path, isDirectory)
      if (isDirectory) this.outbox.subtree(to.path)
      else this.outbox.written(to.path, false)
    }
    return undefined
  }

  /** A tree that was moved in. */
  async #arrived(
    target: HandleKey | undefined,
    to: { parent: KnownDirectory; name: string; path: string },
  ): Promise<void> {
    this.#tree.forgetOutside()
    if (target !== undefined) {
      const top = this.#tree.place(target, to.parent, to.name)
      const volume = this.#volumeOf(target)
      // By its handle, since it may have been renamed again.
      const fd = this.#openKey(target, O_DIRECTORY_ONLY)
      if (fd !== undefined && volume !== undefined) await this.#walk(fd, volume, top, to.path, true)
    }
    this.outbox.subtree(to.path)
  }

  /** Where an entry lies in the tree; undefined where it lies outside, or has a name that no path can have. */
  #entryAt(
    key: HandleKey | undefined,
    start: number,
    end: number,
  ): { parent: KnownDirectory; name: string; path: string } | undefined {
    const parent = key === undefined ? undefined : this.#locate(key)
    const above = parent === undefined ? undefined : this.#tree.pathOf(parent)
    if (parent === undefined || above === undefined) return undefined
    const name = nameFrom(this.events, start, end)
    if (name !== undefined) return { parent, name, path: joinPath(above, name) }
    this.#skip(above, start, end)
    return undefined
  }

  #skip(directory: string, start: number, end: number): void {
    const path = joinPath(directory, shownBytes(this.events.subarray(start, end)))
    this.outbox.other({ kind: 'skipped', path, reason: 'not-utf8', detail: 'its name is not UTF-8' })
  }

  #volumeOf(key: HandleKey): Volume | undefined {
    return this.#volumes.get(key.slice(0, FSID_BYTES))
  }

  /** Undefined where it is no more. */
  #openKey(key: HandleKey, flags: number): number | undefined {
    const volume = this.#volumeOf(key)
    const top = volume === undefined ? undefined : this.#tree.pathOf(volume.top)
    if (top === undefined) return undefined
    const rootFd = this.root.open()
    let mount: number | undefined
    try {
      mount = openBeneath(rootFd, top === '' ? '.' : top, O_DIRECTORY_ONLY)
      return openHandle(mount, key, flags)
    } catch (error) {
      if (error instanceof SystemCallError && (isMissing(error) || error.errno === ERRNO.EACCES)) return undefined
      throw error
    } finally {
      if (mount !== undefined) closeSync(mount)
      closeSync(rootFd)
    }
  }

  /** The directory, where it is or has been in the tree. */
  #locate(key: HandleKey): KnownDirectory | undefined {
    const known = this.#tree.at(key)
    if (known !== undefined) return known
    if (this.#tree.isOutside(key)) return undefined
    for (let tries = 0; tries < RESOLVE_TRIES; tries++) {
      const found = this.#resolve(key)
      if (found === 'again') continue
      if (found === undefined) {
        this.#tree.putOutside(key)
        return undefined
      }
      const path = this.#tree.pathOf(found)
      if (path !== undefined) this.outbox.subtree(path)
      return found
    }
    this.outbox.subtree('')
    return undefined
  }

  /** Opens the directory and climbs to one that is known. 'again' where it was renamed meanwhile. */
  #resolve(key: HandleKey): KnownDirectory | 'again' | undefined {
    const fd = this.#openKey(key, O_DIRECTORY_PATH)
    const volume = this.#volumeOf(key)
    if (fd === undefined || volume === undefined) return undefined
    const opened = [fd]
    const climbed: { key: HandleKey; name: string }[] = []
    try {
      const bytes = readlinkSync(`/proc/self/fd/${fd}`, { encoding: 'buffer' })
      let path = bytes.toString('utf8')
      const { directory } = this.root
      if (!isWithin(path, directory === '/' ? '' : directory)) return undefined
      if (nameFrom(bytes, 0, bytes.length) === undefined) {
        const shown = shownBytes(bytes).slice(directory === '/' ? 1 : directory.length + 1)
        this.outbox.other({ kind: 'skipped', path: shown, reason: 'not-utf8', detail: 'its path is not UTF-8' })
        return undefined
      }
      for (let at = fd, atKey = key; path !== directory && path.length > 1; path = parentOf(path)) {
        const above = openAt(at, '..', O_PATH | constants.O_DIRECTORY)
        opened.push(above)
        const there = statusAt(above, nameOf(path))
        if (there === undefined || there.id !== statusOf(at).id)
          return path.endsWith(' (deleted)') ? undefined : 'again'
        climbed.push({ key: atKey, name: nameOf(path) })
        at = above
        atKey = handleOf(above, volume.fsid).key
        const known = this.#tree.at(atKey)
        if (known === undefined) continue
        let parent = known
        for (const step of climbed.toReversed()) parent = this.#tree.place(step.key, parent, step.name)
        return parent
      }
      return undefined
    } finally {
      for (const each of opened) closeSync(each)
    }
  }

  protected async walkAll(tells: boolean): Promise<void> {
    this.#tree = new HandleTree(this.#rootKey)
    const rootKey = this.#rootKey.slice(0, FSID_BYTES)
    const volume = this.#volumes.get(rootKey)
    this.#volumes.clear()
    if (volume === undefined) return
    const own = { fsid: volume.fsid, top: this.#tree.root }
    this.#volumes.set(rootKey, own)
    this.polled.forget('')
    const rootFd = this.root.open()
    let fd: number
    try {
      fd = openAt(rootFd, '.', O_DIRECTORY_ONLY)
    } finally {
      closeSync(rootFd)
    }
    await this.#walk(fd, own, this.#tree.root, '', tells)
  }

  /** Learns the directories below the one that is open, which it closes. */
  async #walk(topFd: number, topVolume: Volume, top: KnownDirectory, topPath: string, tells: boolean): Promise<void> {
    const slices = new Slices()
    try {
      const topMount = handleOf(topFd, topVolume.fsid).mount
      const left = [{ path: '', parent: top, volume: topVolume, mount: topMount, isTop: true }]
      for (let next = left.pop(); next !== undefined; next = left.pop()) {
        const { path, volume, mount } = next
        const full = path === '' ? topPath : joinPath(topPath, path)
        let fd: number
        try {
          fd = next.isTop ? openAt(topFd, '.', O_DIRECTORY_ONLY) : openBeneath(topFd, path, O_DIRECTORY_ONLY)
        } catch (error) {
          if (!(error instanceof SystemCallError)) throw error
          // What cannot be listed is in the events all the same; below it, directories are found when they tell.
          if (!isMissing(error)) log.warn({ path: full, err: error }, 'a directory cannot be listed')
          continue
        }
        try {
          const found = next.isTop
            ? { directory: top, volume, mount }
            : this.#placed(fd, next.parent, nameOf(path), volume, mount)
          if (typeof found === 'string') await this.polled.add(full, found, tells)
          else {
            for (const name of this.directoriesIn(fd)) {
              left.push({
                path: joinPath(path, name),
                parent: found.directory,
                volume: found.volume,
                mount: found.mount,
                isTop: false,
              })
            }
          }
        } finally {
          closeSync(fd)
        }
        await slices.pause()
      }
    } finally {
      closeSync(topFd)
    }
  }

  /** The open directory in the cache; why, where it is a mount that is not listened to. */
  #placed(
    fd: number,
    parent: KnownDirectory,
    name: string,
    volume: Volume,
    mount: number,
  ): { directory: KnownDirectory; volume: Volume; mount: number } | string {
    try {
      const handle = handleOf(fd, volume.fsid)
      if (handle.mount === mount) {
        return { directory: this.#tree.place(handle.key, parent, name), volume, mount }
      }
      const fsid = fileSystemId(fd)
      const id = fsid.toString('latin1')
      if (this.#volumes.has(id)) return 'it is a second mount of a file system that is watched already'
      markFileSystem(this.fd, fd, MASK)
      const { key } = handleOf(fd, fsid)
      const directory = this.#tree.place(key, parent, name)
      const mounted = { fsid, top: directory }
      this.#volumes.set(id, mounted)
      return { directory, volume: mounted, mount: handle.mount }
    } catch (error) {
      if (error instanceof SystemCallError) return `it is a mount without handles for fanotify: ${error.message}`
      throw error
    }
  }

  protected async mountsChanged(paths: readonly string[]): Promise<void> {
    this.isStale = true
    await this.walkAll(true)
    for (const path of paths) this.outbox.subtree(path)
  }
}
