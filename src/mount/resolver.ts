/**
 * From names to nodes: what is believed where that is fresh, what the store says where it is not. This is the one place
 * where an answer of the store changes the inode table, under four rules:
 * - An answer that a change made here has overtaken is not stored (each fetch notes the clock of the table first), nor is
 *   one about a name that a call from here is just changing: the store may be half-way.
 * - What is ahead of the store (being written, not yet published) is the truth here until it is published.
 * - What stores keep for themselves is not there, at any depth: see `refusals.ts`.
 * - A file that is open keeps its node and its version. When the store has another one, the name gets a new node and the
 *   old one is superseded: its readers get ESTALE for what they have not read yet, never bytes of two versions.
 */
import { isOperationError, OperationError } from '#base/errors.ts'
import { timestampToMs } from '#base/time.ts'
import type { MaybePromise } from '#fuse/file-system.ts'
import { checkName, joinPath, OWN_NAME } from '#store/path.ts'
import { IMPLICIT_VERSION, type Entry } from '#store/store.ts'

import { AttributeFetcher } from './attribute-fetcher.ts'
import type { MountState } from './mount-state.ts'
import { stateOf } from './node-table.ts'
import { factsOf, type Node } from './node.ts'

/** So many names of a directory are remembered as absent; a create asks only about the last ones. */
const ABSENCES_MAX = 1024
/** A directory that was known to have more entries is not listed for one name: that is more than one page of S3. */
const LISTED_ENTRIES_MAX = 1000
/**
 * What was modified less than this ago may be changed again within the same second, and then neither its version nor its time
 * would tell: what is learnt of it is not remembered on disk, nor confirmed by a
 * listing, but asked for again. Seconds, and what the clocks of an endpoint and of this machine may differ by.
 */
const SETTLED_MS = 5000
/**
 * For so long after a change made here a listing is enough to know its attributes, though others may have changed them within
 * the same seconds: `cp -r` and `rm -r` or `ls -l` after it cost no request for each file.
 */
const TRUSTED_MS = 60_000
/** How far the clock of an endpoint's answers may be from that of its listings, for what was put from here. */
const MODIFIED_SLACK_MS = 2000

/** What was true when a request began. */
export interface Moment {
  readonly clock: number
  readonly at: number
  /** Of the wall clock, in milliseconds: what times of objects are compared with. */
  readonly time: number
}

export class Resolver {
  readonly #state: MountState
  readonly #ahead: AttributeFetcher
  /** Lists a directory, for what is learnt by that. */
  readonly #relist: (directory: Node) => Promise<void>

  constructor(state: MountState, relist: (directory: Node) => Promise<void>) {
    this.#state = state
    this.#relist = relist
    this.#ahead = new AttributeFetcher(state, (parent, name) => this.fetch(parent, name))
  }

  moment(): Moment {
    return { clock: this.#state.table.clock, at: this.#state.now(), time: Date.now() }
  }

  /** The node under a name, with fresh attributes; undefined where there is none. */
  lookup(parent: Node, name: string): MaybePromise<Node | undefined> {
    checkName(name)
    if (name === OWN_NAME) return undefined
    const asked = this.#state.unanswered.settled(parent, name)
    if (asked !== undefined) return asked.then(() => this.lookup(parent, name))
    const known = this.#state.table.childOf(parent, name)
    if (known !== undefined) {
      // Before the answer: a reader that follows a listing has the next names fetched while it looks at this one.
      this.#ahead.passed(parent, known)
      if (this.#state.isFresh(known)) return known
    } else if (this.#state.listingValidFor(parent) > 0 || stateOf(parent).removing.has(name)) {
      return undefined
    } else if (this.#missesOften(parent) || this.#wasComplete(parent)) {
      return this.#lookupByListing(parent, name)
    }
    return this.fetch(parent, name)
  }

  /**
   * Whether names that are not there are asked for one after another, as who creates many files or searches a path does. On
   * S3 each costs two requests, while one page of a listing answers for all of them until its validity ends.
   */
  #missesOften(parent: Node): boolean {
    const { isLarge, missedAt } = stateOf(parent)
    return !isLarge && missedAt + this.#state.validityMs > this.#state.now()
  }

  /**
   * Whether all names of the directory were known once: one that was not among them is most likely not there now either, and
   * a listing says so for this one and those that follow.
   */
  #wasComplete(parent: Node): boolean {
    const { children, completeAt, isLarge } = stateOf(parent)
    return completeAt > -Infinity && !isLarge && children.size < LISTED_ENTRIES_MAX
  }

  async #lookupByListing(parent: Node, name: string): Promise<Node | undefined> {
    const directory = stateOf(parent)
    directory.relisting ??= this.#relist(parent).finally(() => {
      directory.relisting = undefined
    })
    await directory.relisting
    if (this.#state.listingValidFor(parent) === 0) return this.fetch(parent, name)
    directory.missedAt = this.#state.now()
    const found = directory.children.get(name)
    return found === undefined || this.#state.isFresh(found) ? found : this.fetch(parent, name)
  }

  /** As `lookup`, and takes a lookup that has just found nothing for an answer: for a create, which comes after one. */
  lookupForCreate(parent: Node, name: string): MaybePromise<Node | undefined> {
    const leaving = stateOf(parent).removing.get(name)
    if (leaving !== undefined) return leaving.sent().then(() => this.lookupForCreate(parent, name))
    return this.isSeenAbsent(parent, name) ? undefined : this.lookup(parent, name)
  }

  /** Whether it was seen, within the validity, that nothing has the name. */
  isSeenAbsent(parent: Node, name: string): boolean {
    const { children, absences, removing } = stateOf(parent)
    if (children.has(name) || removing.has(name)) return false
    const absentAt = absences.get(name) ?? -Infinity
    return absentAt + this.#state.validityMs > this.#state.now() || this.#state.listingValidFor(parent) > 0
  }

  /** Lists a directory where it is not known what is in it; gives whether it is known then. */
  async learn(directory: Node): Promise<boolean> {
    if (this.#state.listingValidFor(directory) === 0) await this.#relist(directory)
    return this.#state.listingValidFor(directory) > 0
  }

  /** @throws OperationError `STORE_NOT_FOUND` */
  async require(parent: Node, name: string): Promise<Node> {
    const node = await this.lookup(parent, name)
    if (node === undefined) {
      const path = joinPath(this.#state.table.pathOf(parent), name)
      throw new OperationError('STORE_NOT_FOUND', `Cannot find "${path}": nothing is there`)
    }
    return node
  }

  /** Makes what is known of `node` fresh. The node may be detached after it: then its name leads elsewhere. */
  revalidate(node: Node): MaybePromise<void> {
    if (this.#state.isFresh(node)) return undefined
    const { parent } = node
    if (parent !== undefined) return this.fetch(parent, node.name).then(() => undefined)
    return this.#fetchRoot()
  }

  /** Asks the store about a name now; who asks meanwhile gets the same answer. */
  fetch(parent: Node, name: string): Promise<Node | undefined> {
    const { pending } = stateOf(parent)
    let fetching = pending.get(name)
    if (fetching === undefined) {
      fetching = this.#fetch(parent, name).finally(() => pending.delete(name))
      pending.set(name, fetching)
    }
    return fetching
  }

  async #fetch(parent: Node, name: string): Promise<Node | undefined> {
    const { store, table, tree, signal } = this.#state
    const directory = stateOf(parent)
    directory.fetches++
    try {
      for (;;) {
        const known = directory.children.get(name)
        const change = directory.changing.get(name)
        // The move of a directory can be minutes of copying: until it is done, it is as it was.
        if (change !== undefined && known?.kind === 'directory' && known.attributes !== undefined) return known
        const moving = tree.settled(parent) ?? this.#state.unanswered.settled(parent, name) ?? change?.ended
        if (moving !== undefined) {
          await moving
          continue
        }
        if (known !== undefined && this.#state.isFresh(known)) return known
        const { epoch } = table
        const moment = this.moment()
        const path = joinPath(table.pathOf(parent), name)
        const expected = known === undefined ? {} : { expected: known.kind }
        const entry = await orAbsent(store.stat(path, { ...expected, signal }))
        await directory.changing.get(name)?.ended
        // A directory above was moved meanwhile: the answer may be about a path that means something else now. Or a change
        // of this name failed: the answer may be older than what it has done all the same.
        if (table.epoch !== epoch || (directory.unsure.get(name) ?? 0) > moment.clock) continue
        if (entry === undefined) directory.missedAt = moment.at
        else this.#note(entry, moment)
        return this.observe(parent, name, entry, moment)
      }
    } finally {
      this.fetched(parent)
    }
  }

  /**
   * For a reader that looks at what it lists: asks for the attributes of the name at `position` of the last listing and of those
   * after it, and waits for this one. Never rejects: who looks at the name gets the error.
   */
  follow(directory: Node, position: number): Promise<unknown> | undefined {
    return this.#ahead.follow(directory, position)
  }

  /** Ends a fetch that was counted in `directory.fetches`. */
  fetched(parent: Node): void {
    const directory = stateOf(parent)
    directory.fetches--
    if (directory.fetches > 0) return
    this.#state.table.names.fetched(directory)
    this.#state.table.settle(parent)
  }

  async #fetchRoot(): Promise<void> {
    const { store, table, signal } = this.#state
    const moment = this.moment()
    const entry = await store.stat('', { signal })
    if (table.root.changedAt <= moment.clock) this.#update(table.root, entry, moment)
  }

  /** Takes in what the store said about a name, as of `moment`; gives the node that the name leads to now. */
  observe(parent: Node, name: string, entry: Entry | undefined, moment: Moment): Node | undefined {
    const { table } = this.#state
    const directory = stateOf(parent)
    const { children, removals, unsure, absences, changing, unanswered } = directory
    if (name === OWN_NAME) {
      directory.ownSeenAt = moment.at
      return undefined
    }
    const known = children.get(name)
    if (changing.has(name) || unanswered.has(name) || (unsure.get(name) ?? 0) > moment.clock) return known
    if (known !== undefined && (known.isAhead || known.changedAt > moment.clock)) return known
    if (known === undefined && (removals.get(name) ?? 0) > moment.clock) return undefined
    if (parent.detached !== undefined) return undefined
    if (entry === undefined) {
      if (known !== undefined) table.detach(known, 'superseded')
      absences.delete(name)
      absences.set(name, moment.at)
      if (absences.size > ABSENCES_MAX) for (const [oldest] of [...absences].slice(0, 1)) absences.delete(oldest)
      return undefined
    }
    absences.delete(name)
    const told = this.#told(known, entry)
    if (known !== undefined && !this.#isReplaced(known, told)) {
      this.#update(known, told, moment)
      return known
    }
    if (known !== undefined) table.detach(known, 'superseded')
    const node = table.add(parent, name, factsOf(told, told.attributes === undefined ? -Infinity : moment.at))
    node.isSettled = isSettled(told, moment)
    return node
  }

  /**
   * Takes in that the entries of a directory have come to their end, which were told as of `moment`: what the store no more has
   * is let go. `seen` names those that `observe` gave a node for; where not `isValid`, they may have been of another directory.
   * Gives those that only this mount has.
   */
  concluded(directory: Node, seen: ReadonlySet<string>, moment: Moment, isValid: boolean): Node[] {
    const { table } = this.#state
    const state = stateOf(directory)
    const own: Node[] = []
    for (const child of [...state.children.values()]) {
      if (seen.has(child.name)) continue
      if (child.isAhead || child.changedAt > moment.clock || state.changing.has(child.name)) own.push(child)
      else if (isValid && child.validatedAt < moment.at) table.detach(child, 'superseded')
    }
    // Where a node was dropped for lack of room meanwhile, the children are not all there is.
    let all = isValid
    for (const clock of state.unsure.values()) all &&= clock <= moment.clock
    for (const name of seen) all &&= state.children.has(name) || (state.removals.get(name) ?? 0) > moment.clock
    if (all) state.completeAt = Math.max(state.completeAt, moment.at)
    return own
  }

  /** The entry with what is remembered of it on disk, where a listing told no attributes and none are known here. */
  #told(known: Node | undefined, entry: Entry): Entry {
    const { attributeIndex } = this.#state
    if (attributeIndex === undefined || entry.attributes !== undefined || entry.version === IMPLICIT_VERSION)
      return entry
    if (known?.attributes !== undefined && known.version === entry.version && isSameTime(known, entry)) return entry
    const told = attributeIndex.known(entry)
    return told !== undefined && (told.kind === 'directory') === (entry.kind === 'directory') ? told : entry
  }

  /** Remembers on disk what the store said, for listings that will not tell it. */
  #note(entry: Entry, moment: Moment): void {
    const { attributeIndex, store } = this.#state
    if (attributeIndex === undefined || store.capabilities.listingComplete) return
    if (isSettled(entry, moment)) attributeIndex.note(entry)
  }

  /** Whether `entry` is another file than the one that `known` stands for. */
  #isReplaced(known: Node, entry: Entry): boolean {
    if (known.kind !== entry.kind) {
      const unseen = known.lookups === 0 && known.attributes === undefined
      // Listings that tell no attributes call a symlink, a fifo or a socket a file.
      const perhapsSame = known.kind !== 'directory' && entry.kind === 'file' && entry.attributes === undefined
      if (!(perhapsSame && entry.version === known.version)) {
        return !(unseen && known.directory === undefined && entry.kind !== 'directory')
      }
    }
    // The kernel goes by the size that it was told last until that expires, also for who opens the file anew: it would cut the
    // new version there, or lengthen it. With another node it asks.
    const isInUse = known.file !== undefined || known.lookups > 0
    return known.kind === 'file' && isInUse && known.version !== entry.version
  }

  #update(node: Node, entry: Entry, moment: Moment): void {
    const same = node.version === entry.version
    let isConfirmed = true
    if (entry.attributes !== undefined) {
      if (!same) node.target = undefined
      node.kind = entry.kind
      node.attributes = entry.attributes
      node.isSettled = isSettled(entry, moment)
    } else if (node.kind === 'directory') {
      // A listing of its own directory says only that it is there; one of a whole tree, in which version and since when.
      const isSame = same && entry.version !== IMPLICIT_VERSION && !node.modifiedGuessed && isSameTime(node, entry)
      if (isSame && node.isSettled) node.validatedAt = Math.max(node.validatedAt, moment.at)
      else if (!isSame && entry.version !== IMPLICIT_VERSION) node.validatedAt = -Infinity
      return
    } else if (!same || !isSameTime(node, entry)) {
      node.target = undefined
      node.attributes = undefined
      node.kind = entry.kind
    } else {
      if (node.modifiedGuessed) {
        node.isSettled = false
        node.trustedUntil = node.validatedAt + TRUSTED_MS
      }
      isConfirmed = node.attributes === undefined || node.isSettled || node.trustedUntil > moment.at
    }
    node.version = entry.version
    node.size = entry.size
    node.modified = entry.modified
    node.modifiedGuessed = false
    if (isConfirmed) node.validatedAt = Math.max(node.validatedAt, moment.at)
  }
}

/**
 * Whether an object still has the attributes that are remembered: its version may stay when only they change (the etag
 * is of the bytes), but then its time does not. Listings and HEADs agree to the second only.
 */
function isSameTime(node: Node, entry: Entry): boolean {
  if (!node.modifiedGuessed) return node.modified.seconds === entry.modified.seconds
  return Math.abs(timestampToMs(node.modified) - timestampToMs(entry.modified)) <= MODIFIED_SLACK_MS
}

/** Whether any change after `moment` gives the object another time than that of `entry`. */
function isSettled({ modified }: Entry, moment: Moment): boolean {
  return moment.time - timestampToMs(modified) > SETTLED_MS
}

/** The entry, or undefined where nothing is there. */
async function orAbsent(entry: Promise<Entry>): Promise<Entry | undefined> {
  try {
    return await entry
  } catch (error) {
    if (isOperationError(error, 'STORE_NOT_FOUND', 'STORE_NOT_DIRECTORY')) return undefined
    throw error
  }
}
