/**
 * Directories by their file handles, as fanotify names them: a directory's rename is one change here, whatever lies below.
 * Knows directories inside of the watched tree, and of some that they lie outside. Plain state.
 */
import type { HandleKey } from '#os/file-handle.ts'
import { joinPath } from '#store/path.ts'

/** Verdicts are cheap to find again. */
const OUTSIDE_MAX = 50_000

export class KnownDirectory {
  /** Undefined for the root, and for what was moved out of the tree. */
  parent: KnownDirectory | undefined
  name: string

  constructor(parent: KnownDirectory | undefined, name: string) {
    this.parent = parent
    this.name = name
  }
}

export class HandleTree {
  readonly #byKey = new Map<HandleKey, KnownDirectory>()
  readonly #outside = new Set<HandleKey>()
  readonly root = new KnownDirectory(undefined, '')
  /** The last path that was asked for, since events come many to a directory; void after any change. */
  #last: KnownDirectory | undefined
  #lastPath: string | undefined

  constructor(root: HandleKey) {
    this.#byKey.set(root, this.root)
  }

  get size(): number {
    return this.#byKey.size
  }

  at(key: HandleKey): KnownDirectory | undefined {
    return this.#byKey.get(key)
  }

  isOutside(key: HandleKey): boolean {
    return this.#outside.has(key)
  }

  /** The path of a known directory; undefined where it has been moved out of the tree. */
  pathOf(directory: KnownDirectory): string | undefined {
    if (this.#last !== directory) {
      this.#last = directory
      this.#lastPath = this.#climb(directory)
    }
    return this.#lastPath
  }

  #climb(directory: KnownDirectory): string | undefined {
    if (directory === this.root) return ''
    const { parent } = directory
    const above = parent === undefined ? undefined : this.#climb(parent)
    return above === undefined ? undefined : joinPath(above, directory.name)
  }

  /** Has the directory lie there. */
  place(key: HandleKey, parent: KnownDirectory | undefined, name: string): KnownDirectory {
    this.#last = undefined
    this.#outside.delete(key)
    const known = this.#byKey.get(key)
    if (known === this.root) return known
    // A directory that seems to lie in itself was moved since, of which another event tells.
    for (let at = parent; at !== undefined && known !== undefined; at = at.parent) if (at === known) return known
    if (known !== undefined) {
      known.parent = parent
      known.name = name
      return known
    }
    const directory = new KnownDirectory(parent, name)
    this.#byKey.set(key, directory)
    return directory
  }

  remove(key: HandleKey): void {
    this.#last = undefined
    const known = this.#byKey.get(key)
    if (known === undefined || known === this.root) return
    known.parent = undefined
    this.#byKey.delete(key)
  }

  /** Moved out of the tree; what is known below it stays known to lie below it. */
  leave(key: HandleKey): void {
    this.#last = undefined
    const known = this.#byKey.get(key)
    if (known === undefined) this.putOutside(key)
    else if (known !== this.root) known.parent = undefined
  }

  putOutside(key: HandleKey): void {
    if (this.#outside.size >= OUTSIDE_MAX) this.#outside.clear()
    this.#outside.add(key)
  }

  /** Some directory came into the tree, perhaps with some of these in it. */
  forgetOutside(): void {
    this.#outside.clear()
  }
}
