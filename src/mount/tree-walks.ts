/**
 * `rm -r`, `find`, `du`, `ls -lR`, `cp -r`: who lists the directories of a tree one after another, in order, is recognised, and
 * what comes next is asked for in pages of the whole tree (`Store.listTree`): a request for a thousand names, where each
 * directory cost one by itself.
 *
 * What a page tells goes through `Resolver.observe`, as what a listing tells, with the same rules. A directory all of whose
 * entries it has is known as after a listing of its own, as of the moment when the page was asked for. One that is cut off at
 * its end is told whole by the next page, which begins with it; one that is longer than a page is listed by itself.
 *
 * - A page stands in for the listing of the directory that it begins with: where nothing else comes of it, it cost no more.
 *   Where it did not have all of that one, the walk must go on for longer before the next one is tried.
 * - The page after it is asked for once the walk is in it, and not sooner than it can still be believed when the walk gets
 *   there: at most one page is ahead of a walk.
 * - Programs side by side in one tree are one walk. A directory that a page under way may soon tell waits for it.
 * - While a page is under way, names removed here are kept for all directories (`NameLog`). What was found or made meanwhile
 *   is not told by it: its removals may have been forgotten with another directory of that name.
 * - Attributes of the directories that come next are asked for side by side. Those of a directory that nobody has made are
 *   known from the page: an object of its own would be in it.
 */
import { isOperationError } from '#base/errors.ts'
import { compareUtf8, nameOf } from '#store/path.ts'
import { sortKey, type Entry, type TreePage } from '#store/store.ts'

import { WINDOW_MAX } from './attribute-fetcher.ts'
import type { MountState } from './mount-state.ts'
import { stateOf } from './node-table.ts'
import type { Node } from './node.ts'
import type { Moment, Resolver } from './resolver.ts'
import {
  comesNext,
  isListed,
  keyIn,
  KnownPage,
  liesIn,
  openAt,
  TreeWalk,
  type Flight,
  type OpenDirectory,
} from './tree-walk.ts'

/** Pages of one walk under way at once, of programs that are side by side in it. */
const FLIGHTS_MAX = 8
/** So many of them are waited for before a directory is listed by itself. */
const WAITS_MAX = 2
/** A directory of more entries is no part of a page. */
const ENTRIES_MAX = 1000
/** What is asked for ahead must be reached within this share of the validity. */
const AHEAD_SHARE = 0.25

export class TreeWalks {
  readonly #state: MountState
  readonly #resolver: Resolver

  constructor(state: MountState, resolver: Resolver) {
    this.#state = state
    this.#resolver = resolver
  }

  /**
   * Notes that `directory` is about to be listed. After it, its entries may be known.
   * @throws OperationError where the store cannot be reached: that has been tried for as long as a listing would.
   */
  visit(directory: Node): Promise<void> | undefined {
    const { store, validityMs } = this.#state
    if (store.listTree === undefined || !store.capabilities.listingOrdered || validityMs <= 0) return undefined
    const walk = this.#walkOf(directory)
    if (this.#isKnown(directory)) {
      this.#goOn(walk, directory)
      return undefined
    }
    return this.#reach(walk, directory)
  }

  /** The walk that has come to `directory`: that of its parent where it comes next there, else one that begins with it. */
  #walkOf(directory: Node): TreeWalk {
    const { now, validityMs } = this.#state
    const { parent } = directory
    const state = stateOf(directory)
    if (state.visit?.walk.isAt(directory) === true) return state.visit.walk
    const above = parent?.directory?.visit
    let walk: TreeWalk | undefined
    if (parent !== undefined && above !== undefined && isListed(parent, directory)) {
      const isNext = comesNext(parent, directory, above.position)
      if (isNext && liesIn(directory, above.walk.root)) walk = above.walk
      above.position = directory.listPosition
    }
    if (walk === undefined) walk = new TreeWalk(directory, now())
    else walk.step(directory, now(), validityMs)
    state.visit = { walk, position: -1 }
    return walk
  }

  #isKnown(directory: Node): boolean {
    return this.#state.listingValidFor(directory) > 0
  }

  async #reach(walk: TreeWalk, directory: Node): Promise<void> {
    for (let waits = 0; waits < WAITS_MAX; waits++) {
      const flight = this.#flightTo(walk, directory)
      if (flight === undefined) break
      checkAsked(await flight.landed)
      if (!this.#isKnown(directory)) continue
      this.#goOn(walk, directory)
      return
    }
    if (!walk.isSteady || walk.flights.size >= FLIGHTS_MAX || isLong(directory)) return
    if (!liesIn(directory, walk.root) || walk.root.detached !== undefined) return
    const { table } = this.#state
    const root = table.pathOf(walk.root)
    const path = table.pathOf(directory)
    checkAsked(await this.#fly(walk, directory, keyIn(root, path), openAt(walk.root, root, directory, path)))
    if (this.#isKnown(directory)) this.#goOn(walk, directory)
    else walk.missed()
  }

  /** The page under way that tells of `directory` if that comes soon after where the page begins. */
  #flightTo(walk: TreeWalk, directory: Node): Flight | undefined {
    if (walk.flights.size === 0 || walk.root.detached !== undefined || !liesIn(directory, walk.root)) return undefined
    const { table } = this.#state
    const key = keyIn(table.pathOf(walk.root), table.pathOf(directory))
    for (const flight of walk.flights) {
      // Further than that in the tree, pages may lie between.
      const around = flight.directory.parent ?? flight.directory
      if (compareUtf8(key, flight.key) >= 0 && liesIn(directory, around)) return flight
    }
    return undefined
  }

  /** The walk is at a directory whose entries are known: what a page has told of what comes after it is made use of. */
  #goOn(walk: TreeWalk, directory: Node): void {
    const seat = stateOf(directory).page
    if (seat === undefined) return
    const { page, index } = seat
    if (index >= page.passed) walk.served(page)
    page.pass(index)
    this.#askAttributes(walk, page, index)
    const { validityMs } = this.#state
    const left = page.complete - page.served
    if (page.isFollowed || page.isLast || page.served < 2 || walk.flights.size >= FLIGHTS_MAX) return
    if (left * walk.paceMs > validityMs * AHEAD_SHARE) return
    page.isFollowed = true
    this.#followUp(walk, page).catch((error: unknown) => {
      this.#state.log.debug({ err: error }, 'cannot list ahead')
    })
  }

  /** For what comes after `index`, which the walk is about to look at. */
  #askAttributes(walk: TreeWalk, page: KnownPage, index: number): void {
    const { validityMs } = this.#state
    walk.window = Math.min(WINDOW_MAX, walk.window * 2)
    // In so many steps what is asked for now is old.
    const steps = walk.paceMs > 0 ? Math.floor((validityMs / walk.paceMs) * AHEAD_SHARE) : WINDOW_MAX
    const namesMax = Math.max(1, steps) * page.namesEach
    const ahead = this.#askIn(walk, page, index + 1, namesMax, 0)
    const left = index + 1 + namesMax - page.nodes.length
    if (page.next !== undefined && left > 0) this.#askIn(walk, page.next, 0, left, ahead)
  }

  /** Of `namesMax` names of the page from `start` on; `ahead` are under way that come before. Gives how many are then. */
  #askIn(walk: TreeWalk, page: KnownPage, start: number, namesMax: number, ahead: number): number {
    let count = ahead
    const end = Math.min(page.nodes.length, start + namesMax)
    for (let at = start; at < end && count < walk.window; at++) {
      const node = page.nodes[at]
      if (node?.parent === undefined || (node.directory === undefined && !walk.looksAtFiles)) continue
      const wasAsked = at < page.asked
      page.asked = Math.max(page.asked, at + 1)
      if (wasAsked ? !stateOf(node.parent).pending.has(node.name) : this.#state.isFresh(node)) continue
      count++
      if (wasAsked) continue
      this.#resolver.fetch(node.parent, node.name).catch((error: unknown) => {
        // Whoever looks the name up asks again and gets the error; nobody waits for this one.
        this.#state.log.debug({ err: error, name: node.name }, 'Cannot fetch attributes ahead')
      })
    }
    return count
  }

  /** Asks for the page after `page`: from the outermost directory on that it has not told all of, else from its end. */
  async #followUp(walk: TreeWalk, page: KnownPage): Promise<void> {
    const { table } = this.#state
    if (walk.root.detached !== undefined) return
    const root = table.pathOf(walk.root)
    for (const { node, isBegun } of page.open) {
      if (!isBegun || node === undefined || !liesIn(node, walk.root) || this.#isKnown(node) || isLong(node)) continue
      const path = table.pathOf(node)
      page.next = pageOf(await this.#fly(walk, node, keyIn(root, path), openAt(walk.root, root, node, path)))
      return
    }
    const open = page.open.map(({ node, key }) => ({ node, key, seen: undefined }))
    const last = open.findLast(({ node }) => node !== undefined)?.node
    if (last !== undefined && last.detached === undefined)
      page.next = pageOf(await this.#fly(walk, last, page.end, open))
  }

  /** Asks for the page after `key`, in `directory`, and takes it in. Never rejects. */
  #fly(walk: TreeWalk, directory: Node, key: string, open: OpenDirectory[]): Flight['landed'] {
    const landed = this.#take(walk.root, key, open).catch((error: unknown) => {
      if (!isOperationError(error)) throw error
      this.#state.log.debug({ err: error }, 'Cannot list a tree')
      return error
    })
    const flight = { directory, key, landed }
    walk.flights.add(flight)
    return landed.finally(() => walk.flights.delete(flight))
  }

  async #take(root: Node, key: string, open: OpenDirectory[]): Promise<KnownPage | undefined> {
    const { store, table, tree, signal } = this.#state
    if (root.detached !== undefined || tree.settled(root) !== undefined) return undefined
    const { epoch, names } = table
    const moment = this.#resolver.moment()
    const sweep = names.begin(moment.clock)
    try {
      const path = table.pathOf(root)
      const page = await store.listTree?.(path, { after: key, signal })
      if (page === undefined || table.epoch !== epoch || names.lostAt > moment.clock) return undefined
      const isMoving = open.some(({ node }) => node !== undefined && tree.settled(node) !== undefined)
      if (root.detached !== undefined || isMoving) return undefined
      return new PageTaker(this.#state, this.#resolver, path, moment, open).take(page)
    } finally {
      names.end(sweep)
    }
  }
}

/** Takes one page in. */
class PageTaker {
  readonly #state: MountState
  readonly #resolver: Resolver
  readonly #rootPath: string
  readonly #moment: Moment
  readonly #open: OpenDirectory[]
  readonly #first: OpenDirectory | undefined
  readonly #page = new KnownPage()

  constructor(state: MountState, resolver: Resolver, rootPath: string, moment: Moment, open: OpenDirectory[]) {
    this.#state = state
    this.#resolver = resolver
    this.#rootPath = rootPath
    this.#moment = moment
    this.#open = open
    this.#first = open.at(-1)
  }

  take({ entries, isLast }: TreePage): KnownPage {
    const start = this.#rootPath === '' ? 0 : this.#rootPath.length + 1
    if (this.#first?.node !== undefined && this.#first.seen !== undefined) this.#page.add(this.#first.node)
    for (const entry of entries) {
      const key = sortKey(entry).slice(start)
      this.#closeUpTo(key)
      this.#page.end = key
      this.#takeEntry(entry, key)
    }
    this.#page.isLast = isLast
    if (isLast) while (this.#open.length > 0) this.#close()
    this.#page.open = this.#open.map((each) => ({
      node: each.node,
      key: each.key,
      isBegun: each.seen !== undefined && each !== this.#first,
    }))
    return this.#page
  }

  /** Those that `key` does not lie in have come to their end. */
  #closeUpTo(key: string): void {
    for (let last = this.#open.at(-1); last !== undefined && !key.startsWith(last.key); last = this.#open.at(-1)) {
      this.#close()
    }
  }

  #close(): void {
    const last = this.#open.pop()
    if (last?.node === undefined || last.seen === undefined || last.node.detached !== undefined) return
    // Of the one that a page begins with, nothing else says that it is there.
    if (last === this.#first && last.seen.size === 0) return
    this.#resolver.concluded(last.node, last.seen, this.#moment, true)
    if (this.#state.listingValidFor(last.node) > 0) this.#page.complete++
  }

  #takeEntry(entry: Entry, key: string): void {
    const { table, tree } = this.#state
    const parent = this.#open.at(-1)
    const isDirectory = entry.kind === 'directory'
    // Where a store gives an entry without the directory that it lies in, nothing is said of either.
    if (parent === undefined || key.slice(parent.key.length).slice(0, -1).includes('/')) return
    if (parent.node === undefined || parent.node.detached !== undefined) {
      if (isDirectory) this.#open.push({ node: undefined, key, seen: undefined })
      return
    }
    const name = nameOf(entry.path)
    const before = table.childOf(parent.node, name)
    const node = this.#resolver.observe(parent.node, name, entry, this.#moment)
    if (node !== undefined) parent.seen?.add(name)
    if (!isDirectory) {
      if (node !== undefined && node.directory === undefined) this.#page.add(node)
      return
    }
    // Another one had the name in between: which of its entries were removed here, nobody knows any more.
    const isOther = before === node && before !== undefined && before.bornAt > this.#moment.clock
    const isMoving = stateOf(parent.node).changing.has(name) || tree.settled(parent.node) !== undefined
    if (node?.directory === undefined || isOther || isMoving) {
      this.#open.push({ node: undefined, key, seen: undefined })
      return
    }
    this.#page.add(node)
    this.#open.push({ node, key, seen: new Set() })
  }
}

function pageOf(landed: Awaited<Flight['landed']>): KnownPage | undefined {
  return landed instanceof KnownPage ? landed : undefined
}

/** A listing of the directory by itself would only be tried for as long again. */
function checkAsked(landed: Awaited<Flight['landed']>): void {
  if (isOperationError(landed) && (landed.retry !== 'never' || landed.code === 'ABORTED')) throw landed
}

function isLong(directory: Node): boolean {
  const { isLarge, children } = stateOf(directory)
  return isLarge || children.size >= ENTRIES_MAX
}
