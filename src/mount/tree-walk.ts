/**
 * What is known of programs that walk trees: which directories they visit one after another, and the pages of whole trees that
 * were taken for them. Plain state, and the two questions that it answers: who follows whom, and what comes next. `TreeWalks`
 * decides what is asked of the store.
 */
import type { OperationError } from '#base/errors.ts'
import { sortKey } from '#store/store.ts'

import { stateOf } from './node-table.ts'
import type { Node } from './node.ts'

/** Programs side by side visit their directories in about the order of the listing: no more than so many apart. */
const APART_MAX = 16
/** So many names of a listing are looked through for the directories among them. */
const NAMES_MAX = 10_000
/** So many directories in a row, each the next after the one before, and the one after them begins a page. */
const STEPS_MIN = 2
const STEPS_MAX = 64
/** What the kernel has been told of with the names it does not ask for, so it goes on for that many directories without a look. */
const UNLOOKED_MAX = 32
/** A page that served so many was worth its request. */
const SERVED_MIN = 4

/** A directory that was visited: by which walk, and where in its listing that is by now. */
export interface TreeVisit {
  readonly walk: TreeWalk
  position: number
}

/** Where a page has a directory. */
export interface TreePageSeat {
  readonly page: KnownPage
  readonly index: number
}

/** A directory whose entries a page gives, from the first of them on or from somewhere among them. */
export interface OpenDirectory {
  /** Undefined where what the page tells of it is of no use. */
  readonly node: Node | undefined
  /** Its sort key, relative to the root of the walk: what those of its entries begin with. */
  readonly key: string
  /** The names of its entries; undefined where the page began after the first of them. */
  readonly seen: Set<string> | undefined
}

/** A directory that goes on after the end of a page. */
export interface CutDirectory extends Pick<OpenDirectory, 'node' | 'key'> {
  /** Its first entry is in the page, which does not begin with that. */
  readonly isBegun: boolean
}

/** What a page has told, and how far the walk has come in it. */
export class KnownPage {
  /** Those that it names, in order; left out once they were passed. */
  readonly nodes: (Node | undefined)[] = []
  /** So many were passed. */
  passed = 0
  /** Up to here attributes have been asked for. */
  asked = 0
  /** Directories of which it told all. */
  complete = 0
  served = 0
  isLast = false
  /** The page after it was asked for, and has come. */
  isFollowed = false
  next: KnownPage | undefined
  /** At its end: its last sort key, and the directories that go on after that, outermost first. */
  end = ''
  open: readonly CutDirectory[] = []

  add(node: Node): void {
    const index = this.nodes.push(node) - 1
    if (node.directory !== undefined) node.directory.page = { page: this, index }
  }

  /** How many of its names there are to a directory, about. */
  get namesEach(): number {
    return Math.ceil(this.nodes.length / Math.max(1, this.complete))
  }

  /** The walk is at `index`: what comes before is let go. */
  pass(index: number): void {
    for (; this.passed <= index; this.passed++) {
      const directory = this.nodes[this.passed]?.directory
      if (directory?.page?.page === this) directory.page = undefined
      this.nodes[this.passed] = undefined
    }
  }
}

/** A page under way. */
export interface Flight {
  /** It begins after this sort key, in this directory. */
  readonly key: string
  readonly directory: Node
  /** The page, or the error of the store; undefined where what was changed here meanwhile makes it useless. */
  readonly landed: Promise<KnownPage | OperationError | undefined>
}

export class TreeWalk {
  /** Where it began. */
  readonly root: Node
  readonly flights = new Set<Flight>()
  /** So many attributes at once are asked for ahead of it. */
  window = 1
  /** Visited in a row, in order. */
  #steps = 0
  #stepsWanted = STEPS_MIN
  #last: Node
  #visitedAt: number
  /** Directories visited since somebody looked at a file in one of them. */
  #unlooked = Infinity
  /** From one directory to the next, in milliseconds, smoothed. */
  paceMs = 0

  constructor(root: Node, now: number) {
    this.root = root
    this.#last = root
    this.#visitedAt = now
  }

  /** Whether it has gone on in order for long enough to foretell where it goes next. */
  get isSteady(): boolean {
    return this.#steps >= this.#stepsWanted
  }

  isAt(directory: Node): boolean {
    return this.#last === directory
  }

  /** It goes on to `directory`, `now`, where a moment is at most `msMax`. */
  step(directory: Node, now: number, msMax: number): void {
    const ms = Math.min(now - this.#visitedAt, msMax)
    this.paceMs = this.#steps === 0 ? ms : this.paceMs * 0.8 + ms * 0.2
    this.#steps++
    this.#unlooked++
    this.#last = directory
    this.#visitedAt = now
  }

  /** Whether it looks at files, too, rather than at the names of them. */
  get looksAtFiles(): boolean {
    return this.#unlooked <= UNLOOKED_MAX
  }

  looked(): void {
    this.#unlooked = 0
  }

  /** A page was of no use: only after more steps another one is tried, so what is lost is one request in many. */
  missed(): void {
    this.#steps = 0
    this.#stepsWanted = Math.min(STEPS_MAX, this.#stepsWanted * 2)
  }

  /** A page has served one more directory. */
  served(page: KnownPage): void {
    if (++page.served >= SERVED_MIN) this.#stepsWanted = STEPS_MIN
  }
}

/** Whether the last listing of `parent` has `child`. */
export function isListed(parent: Node, child: Node): boolean {
  return stateOf(parent).walk?.names[child.listPosition] === child.name
}

/** Whether `child`, which is listed, comes next in a walk of `parent` that has come to `position` of its last listing. */
export function comesNext(parent: Node, child: Node, position: number): boolean {
  const { walk, children } = stateOf(parent)
  const at = child.listPosition
  if (walk === undefined || Math.abs(at - position) > NAMES_MAX) return false
  const [from, to] = at > position ? [position + 1, at] : [at + 1, position]
  let between = 0
  for (let index = from; index < to && between < APART_MAX; index++) {
    const name = walk.names[index]
    if (name !== undefined && children.get(name)?.kind === 'directory') between++
  }
  return between < APART_MAX
}

/** Whether `node` is `directory` or lies under it. */
export function liesIn(node: Node, directory: Node): boolean {
  for (let at: Node | undefined = node; at !== undefined; at = at.parent) if (at === directory) return true
  return false
}

/** The directories from `root` down to `directory`, as they are open where a page begins with its first entry. */
export function openAt(root: Node, rootPath: string, directory: Node, path: string): OpenDirectory[] {
  const above: OpenDirectory[] = []
  let key = keyIn(rootPath, path)
  for (let at: Node | undefined = directory; at !== undefined; at = at.parent) {
    above.unshift({ node: at, key, seen: at === directory ? new Set() : undefined })
    if (at === root) return above
    key = key.slice(0, key.lastIndexOf('/', key.length - 2) + 1)
  }
  return []
}

/** The sort key of a directory, relative to the root of a walk; empty for that root itself. */
export function keyIn(rootPath: string, path: string): string {
  if (path === rootPath) return ''
  return sortKey({ path: rootPath === '' ? path : path.slice(rootPath.length + 1), kind: 'directory' })
}
