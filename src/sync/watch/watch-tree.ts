/**
 * The directories that inotify watches, as a tree that follows renames: a watch knows its directory, not its path. Plain
 * state; who walks and who reads events is the watcher.
 */
import { assert } from '#base/assert.ts'
import { joinPath } from '#store/path.ts'

export class WatchedDirectory {
  readonly watch: number
  parent: WatchedDirectory | undefined
  name: string
  children: Map<string, WatchedDirectory> | undefined

  constructor(watch: number, parent: WatchedDirectory | undefined, name: string) {
    this.watch = watch
    this.parent = parent
    this.name = name
  }

  get path(): string {
    return this.parent === undefined ? this.name : joinPath(this.parent.path, this.name)
  }
}

export class WatchTree {
  readonly #byWatch = new Map<number, WatchedDirectory>()
  root: WatchedDirectory | undefined
  /** The last path that was asked for, since events come many to a directory; void after any move. */
  #last: WatchedDirectory | undefined
  #lastPath = ''

  get size(): number {
    return this.#byWatch.size
  }

  at(watch: number): WatchedDirectory | undefined {
    return this.#byWatch.get(watch)
  }

  /** The directory at a path, where it is watched. */
  find(path: string): WatchedDirectory | undefined {
    let at = this.root
    if (path === '') return at
    for (const name of path.split('/')) at = at?.children?.get(name)
    return at
  }

  pathOf(directory: WatchedDirectory): string {
    if (this.#last !== directory) {
      this.#last = directory
      this.#lastPath = directory.path
    }
    return this.#lastPath
  }

  /**
   * Has the directory of `watch` lie there. False where it was known there already. What lay there before is another one: it is
   * given to `dropped` for each directory of it.
   */
  place(
    watch: number,
    parent: WatchedDirectory | undefined,
    name: string,
    dropped: (watch: number) => void,
  ): { directory: WatchedDirectory; isNew: boolean } {
    const there = parent === undefined ? this.root : parent.children?.get(name)
    const known = this.#byWatch.get(watch)
    if (known !== undefined && known === there) return { directory: known, isNew: false }
    // A directory that seems to lie in itself was moved since: what is known of it begins anew.
    const reuse = known !== undefined && known !== this.root && !(parent !== undefined && isIn(parent, known))
    // Before what was there is dropped, for it may be known to lie in that.
    if (known !== undefined) this.#unlink(known)
    if (there !== undefined) this.drop(there, dropped)
    const directory = reuse ? known : new WatchedDirectory(watch, parent, name)
    this.#link(directory, parent, name)
    return { directory, isNew: true }
  }

  /** Renamed, with all below. */
  move(directory: WatchedDirectory, parent: WatchedDirectory | undefined, name: string): void {
    directory.parent?.children?.delete(directory.name)
    this.#link(directory, parent, name)
  }

  /** Forgets the directory and all below; each is given to `dropped`. */
  drop(directory: WatchedDirectory, dropped: (watch: number) => void): void {
    this.#unlink(directory)
    const below = [directory]
    for (let each = below.pop(); each !== undefined; each = below.pop()) {
      // A watch of it may have been placed elsewhere by now.
      if (this.#byWatch.get(each.watch) === each) {
        this.#byWatch.delete(each.watch)
        dropped(each.watch)
      }
      if (each.children !== undefined) for (const child of each.children.values()) below.push(child)
    }
  }

  #link(directory: WatchedDirectory, parent: WatchedDirectory | undefined, name: string): void {
    this.#last = undefined
    directory.parent = parent
    directory.name = name
    this.#byWatch.set(directory.watch, directory)
    if (parent === undefined) {
      assert(name === '', 'only the root has no directory above it')
      this.root = directory
    } else {
      parent.children ??= new Map()
      parent.children.set(name, directory)
    }
  }

  #unlink(directory: WatchedDirectory): void {
    this.#last = undefined
    if (directory === this.root) this.root = undefined
    else if (directory.parent?.children?.get(directory.name) === directory) {
      directory.parent.children.delete(directory.name)
    }
  }
}

/** Whether `directory` is `top` or lies below it. */
function isIn(directory: WatchedDirectory, top: WatchedDirectory): boolean {
  for (let at: WatchedDirectory | undefined = directory; at !== undefined; at = at.parent) if (at === top) return true
  return false
}
