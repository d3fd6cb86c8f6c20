/**
 * Checks all names of a cluster: each leads to something that is there, each file is owned by just one, each directory lies where it says, no lock is left behind
 * by a transaction that has ended. Goes through the tree from its root first, so that what is told has its path; then through what the tree does
 * not lead to: removed directories, whose history owns files, and whatever is wrong.
 *
 * Gives each linked file once, with a path. Memory: a few bits for each inode, and the directories on the way.
 */
import { isOperationError } from '#base/errors.ts'
import { type InodeId, inodeType, isInodeId, makeInodeId, ROOT_INODE, SHARDS, shownInode } from '#cluster/inode-id.ts'
import { numberOfKey } from '#cluster/journal/keys.ts'
import { type Pair, RangePull } from '#cluster/journal/pull.ts'
import type { StateReader } from '#cluster/journal/state.ts'
import {
  directoryKey,
  type DirectoryRecord,
  edgeKey,
  edgesEnd,
  type EdgeRecord,
  fileKey,
  findDirectory,
  nameOfEdge,
  nameOfPast,
  pastKey,
  pastsEnd,
  readEdge,
  readPast,
  transientKey,
} from '#cluster/shard/records.ts'
import { NO_INODE } from '#cluster/wire/forms.ts'

import { InodeSet } from './inode-set.ts'
import type { OfflineCluster } from './offline-cluster.ts'
import type { OpenTransactions } from './open-transactions.ts'
import type { OnProblem } from './problem.ts'

/** A file or symlink. `how`: whether a name leads to it, or history keeps it; `nowhere`: neither does. */
export interface FoundFile {
  readonly inode: InodeId
  readonly path: string
  readonly how: 'current' | 'history' | 'nowhere'
}

export interface NameCounts {
  directories: number
  removedDirectories: number
  names: number
  pastNames: number
  locks: number
  /** Names that lead to shards that are not there. */
  unknown: number
}

/** One directory on the way. */
interface Visit {
  readonly directory: InodeId
  readonly path: string
  readonly edges: RangePull<Buffer>
}

interface Lock {
  readonly directory: InodeId
  readonly path: string
  readonly inode: InodeId
}

const NONE: readonly FoundFile[] = []
/** More are told of by their number: the coordinator has no more transactions at a time. */
const LOCKS_MAX = 16_384
/** Counters of inodes have so many. */
const COUNTERS = 2 ** 43

export class NameCheck {
  readonly counts: NameCounts = {
    directories: 0,
    removedDirectories: 0,
    names: 0,
    pastNames: 0,
    locks: 0,
    unknown: 0,
  }
  /** Directories that were not removed and that no name leads to, as far as can be read. */
  readonly adrift: InodeId[] = []
  readonly #cluster: OfflineCluster
  readonly #open: OpenTransactions
  readonly #onProblem: OnProblem
  /** Directories that were gone through, and those that a name leads to. */
  readonly #visited = new InodeSet()
  readonly #named = new InodeSet()
  readonly #owned = new InodeSet()
  /** Directories that the root does not lead to. */
  readonly #apart = new InodeSet()
  #isFromRoot = true
  readonly #locks: Lock[] = []

  constructor(cluster: OfflineCluster, open: OpenTransactions, onProblem: OnProblem) {
    this.#cluster = cluster
    this.#open = open
    this.#onProblem = onProblem
  }

  /** All of it; what is not taken is not looked at. */
  *run(): Generator<FoundFile> {
    yield* this.#walk(ROOT_INODE, '/')
    this.#isFromRoot = false
    yield* this.#eachRecord('d', ['directory'], (inode) => this.#visitOther(inode))
    yield* this.#checkLocks()
    yield* this.#eachRecord('d', ['directory'], (inode) => this.#checkPlace(inode))
    yield* this.#eachRecord('f', ['file', 'symlink'], (inode) => this.#checkOwned(inode))
  }

  /** The tree below a directory. */
  *#walk(top: InodeId, topPath: string): Generator<FoundFile> {
    const stack: Visit[] = []
    yield* this.#begin(top, topPath, stack)
    for (let visit = stack.at(-1); visit !== undefined; visit = stack.at(-1)) {
      const pair = visit.edges.peek()
      if (pair === undefined) {
        stack.pop()
        continue
      }
      visit.edges.advance()
      const path = joined(visit.path, nameOfEdge(pair.key))
      const edge = this.#edgeOf(path, pair, readEdge)
      if (edge === undefined) continue
      this.counts.names++
      if (inodeType(edge.inode) === 'directory') yield* this.#enter(visit.directory, path, edge, stack)
      else if (edge.state === 'locked') this.#keepLock(visit.directory, path, edge.inode)
      else yield* this.#own(path, edge.inode, 'current')
    }
  }

  /** Goes through the history of a directory, and puts it on the way. */
  *#begin(directory: InodeId, path: string, stack: Visit[]): Generator<FoundFile> {
    const state = this.#cluster.stateOf(directory)
    if (state === undefined || !this.#visited.add(directory)) return
    this.counts.directories++
    if (!this.#isFromRoot) this.#apart.add(directory)
    const pasts = new RangePull(state, pastKey(directory, '', 0).slice(0, -8), pastsEnd(directory))
    for (let pair = pasts.peek(); pair !== undefined; pair = pasts.peek()) {
      pasts.advance()
      this.counts.pastNames++
      const at = joined(path, nameOfPast(pair.key))
      const edge = this.#edgeOf(at, pair, (value, key) => readPast(key, value))
      if (edge === undefined || edge.state !== 'owned') continue
      if (inodeType(edge.inode) === 'directory') {
        this.#tell('degraded', at, `history owns directory ${shownInode(edge.inode)}, which it cannot`)
      } else yield* this.#own(at, edge.inode, 'history')
    }
    stack.push({ directory, path, edges: new RangePull(state, edgeKey(directory, ''), edgesEnd(directory)) })
  }

  *#enter(parent: InodeId, path: string, { inode, state }: EdgeRecord, stack: Visit[]): Generator<FoundFile> {
    if (state === 'locked') this.#keepLock(parent, path, inode)
    const lies = this.#cluster.stateOf(inode)
    if (lies === undefined) {
      this.counts.unknown++
      return
    }
    const isMoving = this.#open.concern(parent, inode)
    const record = this.#recordOf(path, lies, inode)
    if (record === undefined) {
      this.#tell('lost', path, `directory ${shownInode(inode)} is not there, to which the name leads`)
      return
    }
    if (!this.#named.add(inode) && !isMoving) {
      this.#tell('degraded', path, `another name leads to directory ${shownInode(inode)} as well`)
    }
    if (record.owner !== parent) {
      const says = record.owner === NO_INODE ? 'it was removed' : `it lies in ${shownInode(record.owner)}`
      if (!isMoving) this.#tell('degraded', path, `directory ${shownInode(inode)} says that ${says}`)
      // Where it lies, it is gone through.
      if (record.owner !== NO_INODE) return
    }
    yield* this.#begin(inode, path, stack)
  }

  *#own(path: string, inode: InodeId, how: 'current' | 'history'): Generator<FoundFile> {
    const state = this.#cluster.stateOf(inode)
    if (state === undefined) {
      this.counts.unknown++
      return
    }
    if (state.get(fileKey(inode)) === undefined) {
      const isTransient = state.get(transientKey(inode)) !== undefined
      const detail = isTransient ? 'is not linked: it waits to be removed' : 'is not there'
      this.#tell('lost', path, `${inodeType(inode)} ${shownInode(inode)} ${detail}, and the name leads to it`)
      return
    }
    if (this.#owned.add(inode)) yield { inode, path, how }
    else this.#tell('degraded', path, `another name owns ${inodeType(inode)} ${shownInode(inode)} as well`)
  }

  #keepLock(directory: InodeId, path: string, inode: InodeId): void {
    this.counts.locks++
    if (this.#locks.length < LOCKS_MAX) this.#locks.push({ directory, path, inode })
  }

  /** A locked name owns its file unless the transaction has given it another name already. */
  *#checkLocks(): Generator<FoundFile> {
    for (const { directory, path, inode } of this.#locks) {
      const isMoving = this.#open.concern(directory, inode)
      if (this.#cluster.coordinator !== undefined && !isMoving) {
        this.#tell('degraded', path, 'the name is locked, and no transaction of the coordinator is about it')
      }
      if (inodeType(inode) === 'directory' || (this.#owned.has(inode) && isMoving)) continue
      yield* this.#own(path, inode, 'current')
    }
    if (this.#locks.length < this.counts.locks) {
      this.#tell('degraded', '/', `${this.counts.locks} names are locked, more than there can be`)
    }
  }

  /** Directories that the tree does not lead to. */
  *#visitOther(inode: InodeId): Generator<FoundFile> {
    if (this.#visited.has(inode)) return
    const state = this.#cluster.stateOf(inode)
    const record = state === undefined ? undefined : this.#recordOf(shownInode(inode), state, inode)
    if (record?.owner === NO_INODE) this.counts.removedDirectories++
    yield* this.#walk(inode, shownInode(inode))
  }

  /** Of each directory that was not removed: a name leads to it, and it does not lie in itself. */
  #checkPlace(inode: InodeId): Iterable<FoundFile> {
    this.#checkPlaceOf(inode)
    return NONE
  }

  #checkPlaceOf(inode: InodeId): void {
    const state = this.#cluster.stateOf(inode)
    if (state === undefined || inode === ROOT_INODE) return
    const where = shownInode(inode)
    const owner = this.#recordOf('', state, inode)?.owner ?? NO_INODE
    if (owner === NO_INODE) return
    if (this.#cluster.stateOf(owner) === undefined) {
      this.counts.unknown++
      this.adrift.push(inode)
    } else if (!this.#named.has(inode) && !this.#open.concern(inode)) {
      this.adrift.push(inode)
      this.#tell('lost', where, `no name leads to this directory, which lies in ${shownInode(owner)}`)
    } else if (this.#apart.has(inode) && this.#liesInItself(inode))
      this.#tell('lost', where, 'this directory lies in itself')
  }

  /** Tells it of one directory of a loop alone: that with the smallest number. */
  #liesInItself(inode: InodeId): boolean {
    let smallest = inode
    const seen = new Set<InodeId>()
    for (let at = inode; at !== NO_INODE && at !== ROOT_INODE;) {
      if (seen.has(at)) return at === inode && smallest === inode
      seen.add(at)
      if (at < smallest) smallest = at
      const state = this.#cluster.stateOf(at)
      at = (state === undefined ? undefined : this.#recordOf('', state, at)?.owner) ?? NO_INODE
    }
    return false
  }

  *#checkOwned(inode: InodeId): Generator<FoundFile> {
    if (this.#owned.has(inode)) return
    const path = shownInode(inode)
    // Names on shards that are not there may lead to it.
    if (this.counts.unknown === 0 && this.#cluster.missing.length === 0 && !this.#open.concern(inode)) {
      this.#tell('lost', path, `no name leads to this ${inodeType(inode)}, and no history keeps it`)
    }
    yield { inode, path, how: 'nowhere' }
  }

  /** All records of a kind, by shard. */
  *#eachRecord(
    letter: string,
    types: readonly ('directory' | 'file' | 'symlink')[],
    each: (inode: InodeId) => Iterable<FoundFile>,
  ): Generator<FoundFile> {
    for (let shard = 0; shard < SHARDS; shard++) {
      const state = this.#cluster.ofShard(shard)
      if (state === undefined) continue
      for (const type of types) {
        const first = makeInodeId(type, shard, 0)
        const keyOf = (inode: number): string => letter + directoryKey(inode as InodeId).slice(1)
        const pull = new RangePull(state, keyOf(first), keyOf(first + COUNTERS))
        for (let pair = pull.peek(); pair !== undefined; pair = pull.peek()) {
          pull.advance()
          yield* each(numberOfKey(pair.key, 1) as InodeId)
        }
      }
    }
  }

  /** What an edge leads to; undefined where that is damaged. */
  #edgeOf(
    path: string,
    { key, value }: Pair<Buffer>,
    read: (value: Buffer, key: string) => EdgeRecord,
  ): EdgeRecord | undefined {
    const edge = read(value, key)
    if (isInodeId(edge.inode) || (edge.inode === NO_INODE && edge.state === 'removed')) return edge
    this.#tell('lost', path, 'what the name leads to is no inode')
    return undefined
  }

  /** Told of where there is a path. */
  #recordOf(path: string, state: StateReader, inode: InodeId): DirectoryRecord | undefined {
    try {
      return findDirectory(state, inode)
    } catch (error) {
      if (!isOperationError(error)) throw error
      if (path !== '') this.#tell('lost', path, `the record of ${shownInode(inode)} is damaged: ${error.message}`)
      return undefined
    }
  }

  #tell(severity: 'lost' | 'degraded' | 'leak', where: string, detail: string): void {
    this.#onProblem({ severity, where, detail })
  }
}

function joined(path: string, name: string): string {
  return path.endsWith('/') ? path + name : `${path}/${name}`
}
