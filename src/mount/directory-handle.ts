/**
 * An open directory: a snapshot that is taken page by page as the kernel asks, so that the first names come before the last
 * page. Offsets are positions in the snapshot (index + 1), stable while the handle is open. Names made here and not yet
 * published are added at the end; names removed here while the listing ran are left out.
 *
 * A listing that was complete a moment ago is used again: the second `ls` within the validity costs no request.
 */
import { assert } from '#base/assert.ts'
import { nameOf } from '#store/path.ts'
import type { DirectoryItem, DirectorySink, EntryAnswer } from '#fuse/file-system.ts'
import type { Entry } from '#store/store.ts'

import { WINDOW_MAX } from './attribute-fetcher.ts'
import type { MountState } from './mount-state.ts'
import { S_IFDIR, typeBits } from './node-attributes.ts'
import { stateOf } from './node-table.ts'
import type { Node } from './node.ts'
import type { Moment, Resolver } from './resolver.ts'
import type { TreeWalks } from './tree-walks.ts'

/** "." and ".." come before what is in the directory. */
const DOTS = 2
/** An object of up to so many bytes may be a symlink where listings do not tell. */
const SYMLINK_BYTES_MAX = 4095
/** What readdir gives as inode number where none is known; 0 would hide the name from some programs. */
const UNKNOWN_INODE = 0xffff_ffff

interface Snapshot {
  readonly names: string[]
  /** Type bits; 0: unknown. */
  readonly modes: number[]
  readonly seen: Set<string>
  readonly moment: Moment
  readonly epoch: number
  /** When the page after the one being taken may have been asked for at the earliest: pages are asked for one ahead. */
  pageAt: number
  pages: AsyncIterator<readonly Entry[]> | undefined
}

export class DirectoryHandle {
  readonly node: Node
  readonly #state: MountState
  readonly #resolver: Resolver
  /** Undefined for who does not walk the tree by this. */
  readonly #walks: TreeWalks | undefined
  #snapshot: Snapshot | undefined
  /** Pages are taken one after another, also when two threads read one descriptor. */
  #pulling: Promise<void> | undefined

  constructor(node: Node, state: MountState, resolver: Resolver, walks?: TreeWalks) {
    this.node = node
    this.#state = state
    this.#resolver = resolver
    this.#walks = walks
  }

  /** Gives items after `offset` to `sink`. With `answer`, those whose attributes are known come with their entry. */
  async read(offset: number, sink: DirectorySink, answer?: (node: Node) => EntryAnswer): Promise<void> {
    // From the start: rewinddir asks for what is there now.
    if (offset === 0 || this.#snapshot === undefined) this.#snapshot = await this.#restart()
    const snapshot = this.#snapshot
    // After the first answer the kernel asks for attributes only where the reader has looked at what it was given.
    const follows = answer !== undefined && offset > 0 && !this.#state.store.capabilities.listingComplete
    const ahead = follows ? WINDOW_MAX : 0
    for (let index = offset; ;) {
      while (index + ahead >= snapshot.names.length + DOTS && snapshot.pages !== undefined) await this.#pull(snapshot)
      if (follows) await this.#resolver.follow(this.node, index - DOTS)
      const item = this.#item(snapshot, index, answer)
      if (item === undefined || !sink(item)) return
      if (item.entry !== undefined) this.#state.table.reference(this.#state.table.get(item.node))
      index = item.offset
    }
  }

  /** Reads it all for what is learnt by that; gives up, and remembers it, where it is longer than `entriesMax`. */
  async learn(entriesMax: number): Promise<void> {
    let count = 0
    try {
      await this.read(0, () => ++count <= entriesMax)
      if (count > entriesMax) stateOf(this.node).isLarge = true
    } finally {
      await this.close()
    }
  }

  /** Gives up a listing that was not read to its end. */
  async close(): Promise<void> {
    await this.#pulling?.catch(() => undefined)
    if (this.#snapshot !== undefined) await this.#end(this.#snapshot)
  }

  async #end(snapshot: Snapshot): Promise<void> {
    const { pages } = snapshot
    if (pages === undefined) return
    snapshot.pages = undefined
    this.#resolver.fetched(this.node)
    await pages.return?.()
  }

  #item(snapshot: Snapshot, index: number, answer?: (node: Node) => EntryAnswer): DirectoryItem | undefined {
    if (index === 0) return { name: '.', node: this.node.id, mode: S_IFDIR, offset: 1 }
    if (index === 1) return { name: '..', node: (this.node.parent ?? this.node).id, mode: S_IFDIR, offset: 2 }
    for (let position = index - DOTS; position < snapshot.names.length; position++) {
      const name = snapshot.names[position]
      assert(name !== undefined, 'a snapshot has no gaps')
      const node = this.#state.table.childOf(this.node, name)
      if (node === undefined && this.#wasRemoved(name, snapshot)) continue
      const mode = node?.attributes === undefined ? (snapshot.modes[position] ?? 0) : typeBits(node.kind)
      const item = { name, node: node?.id ?? UNKNOWN_INODE, mode, offset: position + DOTS + 1 }
      const known = answer !== undefined && node !== undefined && this.#state.isFresh(node)
      return known ? { ...item, entry: answer(node) } : item
    }
    return undefined
  }

  /** Whether a name of the snapshot went away here since; a node that was only dropped from memory is still there. */
  #wasRemoved(name: string, snapshot: Snapshot): boolean {
    const { removals, completeAt } = stateOf(this.node)
    return (removals.get(name) ?? 0) > snapshot.moment.clock || completeAt >= snapshot.moment.at
  }

  async #restart(): Promise<Snapshot> {
    await this.close()
    const { table, tree, store, signal } = this.#state
    const directory = stateOf(this.node)
    const moving = tree.settled(this.node) ?? this.#state.unanswered.settledIn(this.node)
    if (moving !== undefined) await moving
    if (this.node.detached === undefined) await this.#walks?.visit(this.node)
    const moment = this.#resolver.moment()
    const names: string[] = []
    const modes: number[] = []
    const snapshot = { names, modes, seen: new Set<string>(), moment, epoch: table.epoch, pageAt: moment.at }
    if (this.node.detached !== undefined) return { ...snapshot, pages: undefined }
    if (this.#state.listingValidFor(this.node) > 0) {
      for (const child of directory.children.values()) {
        child.listPosition = names.push(child.name) - 1
        modes.push(this.#modeOfNode(child))
      }
      directory.walk = { names, next: 0, asked: 0, window: 0 }
      return { ...snapshot, pages: undefined }
    }
    const listing = store.list(table.pathOf(this.node), { signal })
    directory.fetches++
    directory.walk = { names, next: 0, asked: 0, window: 0 }
    return { ...snapshot, pages: listing[Symbol.asyncIterator]() }
  }

  #pull(snapshot: Snapshot): Promise<void> {
    this.#pulling ??= this.#takePage(snapshot).finally(() => {
      this.#pulling = undefined
    })
    return this.#pulling
  }

  async #takePage(snapshot: Snapshot): Promise<void> {
    const at = snapshot.pageAt
    snapshot.pageAt = this.#state.now()
    let next: IteratorResult<readonly Entry[]> | undefined
    try {
      next = await snapshot.pages?.next()
    } catch (error) {
      await this.#end(snapshot)
      throw error
    }
    if (next === undefined || next.done === true) {
      this.#complete(snapshot)
      return
    }
    for (const entry of next.value) this.#take(snapshot, entry, at)
  }

  #take(snapshot: Snapshot, entry: Entry, at: number): void {
    const name = nameOf(entry.path)
    // After the move of a directory above, the rest of this listing is of a path that may be another's: names only.
    const overtaken = this.#state.table.epoch !== snapshot.epoch
    const node = overtaken
      ? this.#state.table.childOf(this.node, name)
      : this.#resolver.observe(this.node, name, entry, { ...snapshot.moment, at })
    if (node === undefined && !overtaken) return
    snapshot.seen.add(name)
    const position = snapshot.names.push(name) - 1
    if (node !== undefined) node.listPosition = position
    snapshot.modes.push(entry.attributes === undefined ? this.#modeOfUntold(entry) : typeBits(entry.kind))
  }

  /** The end of the listing: what is only here is added, and what the store no more has is let go. */
  #complete(snapshot: Snapshot): void {
    const isValid = this.#state.table.epoch === snapshot.epoch && this.node.detached === undefined
    for (const child of this.#resolver.concluded(this.node, snapshot.seen, snapshot.moment, isValid)) {
      snapshot.names.push(child.name)
      snapshot.modes.push(this.#modeOfNode(child))
    }
    snapshot.seen.clear()
    if (snapshot.pages === undefined) return
    snapshot.pages = undefined
    this.#resolver.fetched(this.node)
  }

  #modeOfNode(node: Node): number {
    if (node.attributes !== undefined || node.kind !== 'file') return typeBits(node.kind)
    return this.#modeOfUntold(node)
  }

  /** Type bits where attributes are not told: what is small may be a symlink, what is empty a fifo, so programs must ask. */
  #modeOfUntold({ kind, size }: Pick<Entry, 'kind' | 'size'>): number {
    const { listingComplete, specials } = this.#state.store.capabilities
    const isPlain = listingComplete || (size === 0 ? !specials : size > SYMLINK_BYTES_MAX)
    return kind === 'file' && !isPlain ? 0 : typeBits(kind)
  }
}
