/**
 * The inode table: node ids and the tree of names. A path is found by climbing, so the move of a directory is one
 * pointer. Ids count up and are never used twice within a mount, so the kernel can hold no name of a wrong node.
 *
 * A node stays while the kernel has references to it, it is open, it is ahead of the store, or it has children. What nobody
 * holds is kept for what is known of it, oldest first out, up to a bound: 200,000 nodes are some 60 MB.
 */
import { assert } from '#base/assert.ts'
import { OperationError } from '#base/errors.ts'
import { timestampNow } from '#base/time.ts'
import { ROOT_NODE, type NodeId } from '#fuse/file-system.ts'
import { joinPath } from '#store/path.ts'
import { IMPLICIT_VERSION } from '#store/store.ts'

import { NameLog } from './name-log.ts'
import { Node, type Change, type Detachment, type DirectoryState, type NodeFacts, type Place } from './node.ts'

const IDLE_NODES_MAX = 200_000

export class NodeTable {
  readonly root: Node
  readonly #byId = new Map<NodeId, Node>()
  /** In the order in which they came to be unused. */
  readonly #idle = new Set<Node>()
  readonly #idleMax: number
  #idLast: NodeId = ROOT_NODE
  #clock = 1
  /** Counts the moves of directories: a fetch that began before one may have looked under a path that is no more. */
  epoch = 0
  readonly names = new NameLog()
  /** Told of each name whose node turned out not to be what the store has there. */
  onSuperseded: ((parent: Node, name: string) => void) | undefined
  /** Told of each change that has failed. */
  onUnsure: ((places: readonly Place[], error: unknown) => void) | undefined

  constructor(idleMax: number = IDLE_NODES_MAX) {
    this.#idleMax = idleMax
    this.root = new Node(ROOT_NODE, undefined, '', {
      kind: 'directory',
      version: IMPLICIT_VERSION,
      size: 0,
      modified: timestampNow(),
      attributes: undefined,
      validatedAt: -Infinity,
      changedAt: 0,
    })
    this.root.lookups = 1
    this.#byId.set(ROOT_NODE, this.root)
  }

  get size(): number {
    return this.#byId.size
  }

  /** The clock of local changes: a fetch notes it before it asks. */
  get clock(): number {
    return this.#clock
  }

  /** Notes that `node` was changed here just now: what was asked before is overtaken. */
  touch(node: Node): void {
    node.changedAt = ++this.#clock
  }

  /** @throws OperationError `FILE_STALE` for an id that is not, or no more, in use. */
  get(id: NodeId): Node {
    const node = this.#byId.get(id)
    if (node === undefined) throw new OperationError('FILE_STALE', `Cannot use inode ${id}: it is not known`)
    return node
  }

  /** @throws OperationError `STORE_NOT_DIRECTORY` */
  directory(id: NodeId): Node {
    const node = this.get(id)
    if (node.directory === undefined) {
      throw new OperationError('STORE_NOT_DIRECTORY', `Cannot use inode ${id} as a directory: it is a ${node.kind}`)
    }
    return node
  }

  /** The path in the store. @throws OperationError `STORE_NOT_FOUND` where no name leads to the node. */
  pathOf(node: Node): string {
    if (node.detached !== undefined) {
      throw new OperationError('STORE_NOT_FOUND', `Cannot use "${node.name}": it was removed`)
    }
    const { parent } = node
    if (parent === undefined) return ''
    return parent.parent === undefined ? node.name : joinPath(this.pathOf(parent), node.name)
  }

  /** The path for a message, or the last name of what has none any more. */
  describe(node: Node): string {
    return node.detached === undefined ? this.pathOf(node) : node.name
  }

  childOf(parent: Node, name: string): Node | undefined {
    return stateOf(parent).children.get(name)
  }

  add(parent: Node, name: string, facts: NodeFacts): Node {
    const { children } = stateOf(parent)
    assert(!children.has(name), `a name is added once: ${name}`)
    const node = new Node(++this.#idLast, parent, name, facts)
    node.bornAt = this.#clock
    link(stateOf(parent), node)
    this.#byId.set(node.id, node)
    this.#idle.delete(parent)
    this.settle(node)
    return node
  }

  /** Takes `node` off its name, with all that is known under it. Open files go on by their handles. */
  detach(node: Node, why: Detachment): void {
    const { parent } = node
    assert(parent !== undefined, 'the root stays')
    const state = stateOf(parent)
    if (state.children.get(node.name) === node) unlink(state, node)
    this.touch(node)
    if (why === 'removed') this.names.note(state, state.removals, node.name, this.#clock)
    else if (node.directory !== undefined) this.names.forgotten(node.directory, this.#clock)
    node.parent = undefined
    node.detached = why
    node.origin = why === 'superseded' && node.file !== undefined ? parent : undefined
    if (node.directory !== undefined) for (const child of node.directory.children.values()) this.detach(child, why)
    this.settle(node)
    this.settle(parent)
  }

  /** Detaches `node` because the store has something else, or nothing, under its name: the next look asks what. */
  supersede(node: Node): void {
    const { parent, name } = node
    if (parent !== undefined) stateOf(parent).completeAt = -Infinity
    this.detach(node, 'superseded')
    if (parent !== undefined) this.onSuperseded?.(parent, name)
  }

  /** Gives `node`, which somebody else has taken its name from, one that is free here. */
  attach(node: Node, parent: Node, name: string): void {
    const state = stateOf(parent)
    assert(node.detached === 'superseded' && !state.children.has(name), 'a node gets a free name')
    node.detached = undefined
    node.origin = undefined
    node.parent = parent
    node.name = name
    link(state, node)
    state.absences.delete(name)
    this.#idle.delete(parent)
    this.touch(node)
  }

  /** Gives `node` another name; what had that name must have been detached. */
  move(node: Node, parent: Node, name: string): void {
    const old = node.parent
    assert(old !== undefined && node.detached === undefined, 'only a named node moves')
    const from = stateOf(old)
    const to = stateOf(parent)
    assert(!to.children.has(name), `the new name is free: ${name}`)
    unlink(from, node)
    this.touch(node)
    this.names.note(from, from.removals, node.name, this.#clock)
    node.parent = parent
    node.name = name
    link(to, node)
    to.absences.delete(name)
    this.#idle.delete(parent)
    this.settle(old)
  }

  /** Gives each of two nodes the other's name. */
  exchange(a: Node, b: Node): void {
    const [parentA, parentB] = [a.parent, b.parent]
    assert(parentA !== undefined && parentB !== undefined, 'only named nodes are exchanged')
    const [nameA, nameB] = [a.name, b.name]
    unlink(stateOf(parentA), a)
    unlink(stateOf(parentB), b)
    b.parent = parentA
    b.name = nameA
    a.parent = parentB
    a.name = nameB
    link(stateOf(parentA), b)
    link(stateOf(parentB), a)
    this.touch(a)
    this.touch(b)
  }

  /**
   * Runs a change of `places` in the store, with what it does to this table when it has succeeded. What the store is asked
   * about them meanwhile, it may answer as it was before, as it is after, or half-way: none of that is taken in (see
   * `Resolver`). When the change has failed, it may have happened or not, and the next look asks.
   * `work` must not look these places up: that would wait for itself.
   */
  async changing<T>(places: readonly Place[], work: () => Promise<T>): Promise<T> {
    const begun = places.map((place) => this.#begin(place))
    try {
      const result = await work()
      for (const place of places) this.#changed(place)
      return result
    } catch (error) {
      for (const place of places) this.#unsure(place)
      this.onUnsure?.(places, error)
      throw error
    } finally {
      for (const [index, { parent, name }] of places.entries()) {
        const change = begun[index]
        if (change === undefined || --change.count > 0) continue
        const { changing } = stateOf(parent)
        changing.delete(name)
        change.end()
        if (changing.size === 0) this.settle(parent)
      }
    }
  }

  #begin({ parent, name }: Place): Change {
    const { changing } = stateOf(parent)
    let change = changing.get(name)
    if (change === undefined) {
      const { promise, resolve } = Promise.withResolvers<void>()
      change = { count: 0, ended: promise, end: resolve }
      changing.set(name, change)
    }
    change.count++
    return change
  }

  /** What was asked about a place before this is overtaken. */
  #changed({ parent, name }: Place): void {
    const state = stateOf(parent)
    const known = state.children.get(name)
    if (known !== undefined) this.touch(known)
    else this.names.note(state, state.removals, name, ++this.#clock)
  }

  #unsure({ parent, name }: Place): void {
    const state = stateOf(parent)
    const known = state.children.get(name)
    if (known !== undefined) {
      this.touch(known)
      known.validatedAt = -Infinity
    }
    this.names.note(state, state.unsure, name, ++this.#clock)
    state.absences.delete(name)
    state.completeAt = -Infinity
  }

  /** One more reference of the kernel. */
  reference(node: Node): void {
    node.lookups++
    this.#idle.delete(node)
  }

  forget(id: NodeId, count: number): void {
    const node = this.#byId.get(id)
    if (node === undefined || node === this.root) return
    node.lookups = Math.max(0, node.lookups - count)
    this.settle(node)
  }

  /** Brings a node's place in line with who holds it: drops it, or makes room among those that nobody holds. */
  settle(node: Node): void {
    const unpublished = node.version === undefined && node.detached === undefined
    if (node === this.root || node.lookups > 0 || node.file !== undefined || unpublished) {
      this.#idle.delete(node)
      return
    }
    if (node.detached !== undefined) {
      this.#idle.delete(node)
      this.#byId.delete(node.id)
      return
    }
    if (node.directory !== undefined && isInUse(node.directory)) {
      this.#idle.delete(node)
      return
    }
    this.#idle.add(node)
    if (this.#idle.size <= this.#idleMax) return
    const [oldest] = this.#idle
    if (oldest !== undefined) this.#drop(oldest)
  }

  /** Forgets what is known; the name may still be there, so the listing of its directory is no longer complete. */
  #drop(node: Node): void {
    this.#idle.delete(node)
    this.#byId.delete(node.id)
    if (node.directory !== undefined) this.names.forgotten(node.directory, ++this.#clock)
    const { parent } = node
    if (parent === undefined) return
    const state = stateOf(parent)
    unlink(state, node)
    state.completeAt = -Infinity
    node.parent = undefined
    node.detached = 'superseded'
    this.settle(parent)
  }

  /** All nodes under `directory`, itself left out. */
  *below(directory: Node): Generator<Node> {
    for (const child of directory.directory?.children.values() ?? []) {
      yield child
      yield* this.below(child)
    }
  }
}

function link(state: DirectoryState, node: Node): void {
  state.children.set(node.name, node)
  if (node.directory !== undefined) state.subdirectories++
}

function unlink(state: DirectoryState, node: Node): void {
  state.children.delete(node.name)
  if (node.directory !== undefined) state.subdirectories--
}

/** What would be lost with it is more than what is known: names below it, and changes of them that are under way. */
function isInUse({ children, fetches, changing, unanswered }: DirectoryState): boolean {
  return children.size > 0 || fetches > 0 || changing.size > 0 || unanswered.size > 0
}

/** What a directory knows of its names. */
export function stateOf(node: Node): DirectoryState {
  assert(node.directory !== undefined, 'a directory has children')
  return node.directory
}
