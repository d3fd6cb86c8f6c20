/**
 * Gets the files of a stopped cluster out of its directories: the tree with attributes, symlinks and extended attributes, bytes put together from any
 * blocks that suffice. What cannot be had is told with its path, and the rest goes on. What no name leads to any more, since that lay on a shard
 * that is gone, comes into `lost+found` by its inode.
 */
import { join } from 'node:path'

import { isOperationError, type OperationError } from '#base/errors.ts'
import { type InodeId, inodeType, shownInode } from '#cluster/inode-id.ts'
import { NameCheck } from '#cluster/offline/check-names.ts'
import type { OfflineCluster } from '#cluster/offline/offline-cluster.ts'
import { OfflineFiles, type OfflineName } from '#cluster/offline/offline-files.ts'
import { OpenTransactions } from '#cluster/offline/open-transactions.ts'
import type { OnProblem } from '#cluster/offline/problem.ts'

import type { CopyExtras, CopyNode } from './copy-end.ts'
import { LocalEnd } from './copy-local.ts'
import { below } from './place.ts'

/** Small files wait for the disk that they are written to. */
const FILES_AT_ONCE = 8
const LOST_NAME = 'lost+found'
/** Name spaces of Linux: attributes of other names have none there, and those beside `user.` are for root alone. */
const NAME_SPACE = /^(?:user|trusted|security|system)\./

export interface ExtractedTotals {
  files: number
  directories: number
  symlinks: number
  bytes: number
  failed: number
}

interface Visit {
  readonly path: string
  readonly to: string
  readonly node: CopyNode
  readonly inode: InodeId
  readonly names: Generator<OfflineName>
}

export class Extraction {
  readonly #cluster: OfflineCluster
  readonly #files: OfflineFiles
  readonly #local = new LocalEnd()
  readonly #directory: string
  readonly #onProblem: OnProblem
  readonly #signal: AbortSignal
  readonly #underWay = new Set<Promise<void>>()
  readonly #totals: ExtractedTotals = { files: 0, directories: 0, symlinks: 0, bytes: 0, failed: 0 }

  constructor(cluster: OfflineCluster, directory: string, onProblem: OnProblem, signal: AbortSignal) {
    this.#cluster = cluster
    this.#files = new OfflineFiles(cluster)
    this.#directory = directory
    this.#onProblem = onProblem
    this.#signal = signal
  }

  /** What is at the path, into the directory. @throws NAME_NOT_FOUND, LOCAL_FAILED where the directory cannot be made */
  async run(path: string, asOf: number | undefined): Promise<ExtractedTotals> {
    const { inode, name } = this.#files.find(path, asOf)
    if ((await this.#local.kindAt(this.#directory)) !== 'directory') {
      await this.#local.makeDirectory(this.#directory, ROOT_NODE)
    }
    if (inodeType(inode) === 'directory') await this.#tree(path, this.#directory, inode, asOf)
    else await this.#begin(path, join(this.#directory, name), inode)
    if (path === '/' && asOf === undefined) await this.#rescue()
    await Promise.all(this.#underWay)
    return this.#totals
  }

  async #tree(path: string, to: string, inode: InodeId, asOf: number | undefined): Promise<void> {
    const stack: Visit[] = []
    await this.#enter(path, to, inode, asOf, stack)
    for (let visit = stack.at(-1); visit !== undefined; visit = stack.at(-1)) {
      this.#signal.throwIfAborted()
      const { names, path: above, to: into } = visit
      const next = await this.#attempt(above, () => names.next())
      if (next === undefined || next.done === true) {
        stack.pop()
        await this.#leave(visit)
        continue
      }
      const { name, inode: child } = next.value
      const own = below(above, name)
      const place = await this.#attempt(own, () => this.#local.below(into, name))
      if (place === undefined) continue
      if (inodeType(child) === 'directory') await this.#enter(own, place, child, asOf, stack)
      else await this.#begin(own, place, child)
    }
  }

  async #enter(path: string, to: string, inode: InodeId, asOf: number | undefined, stack: Visit[]): Promise<void> {
    await this.#attempt(path, async () => {
      const node = this.#nodeOf(inode)
      await this.#local.makeDirectory(to, node)
      this.#totals.directories++
      stack.push({ path, to, node, inode, names: this.#files.names(inode, asOf) })
    })
  }

  /** Writing into a directory changes its times, so they come last. */
  async #leave({ path, to, node, inode }: Visit): Promise<void> {
    await Promise.all(this.#underWay)
    await this.#attempt(path, () => this.#local.finishDirectory(to, node, this.#extras(path, inode)))
  }

  async #begin(path: string, to: string, inode: InodeId): Promise<void> {
    while (this.#underWay.size >= FILES_AT_ONCE) await Promise.race(this.#underWay)
    const work: Promise<void> = this.#file(path, to, inode).finally(() => this.#underWay.delete(work))
    this.#underWay.add(work)
  }

  async #file(path: string, to: string, inode: InodeId): Promise<void> {
    await this.#attempt(path, async () => {
      const node = this.#nodeOf(inode)
      const extras = this.#extras(path, inode)
      if (node.kind === 'symlink') {
        await this.#local.makeSymlink(to, node, await this.#files.target(inode), extras)
        this.#totals.symlinks++
        return
      }
      this.#totals.bytes += await this.#local.writeFile(to, node, this.#files.pieces(inode, this.#signal), extras)
      this.#totals.files++
    })
  }

  /** Directories and files that are there, and that nothing leads to. */
  async #rescue(): Promise<void> {
    // What is wrong is what a check tells; here it is what can be had in spite of that.
    const ignore = (): void => undefined
    const check = new NameCheck(this.#cluster, new OpenTransactions(this.#cluster.coordinator, ignore), ignore)
    const place = join(this.#directory, LOST_NAME)
    let isMade = false
    const make = async (): Promise<void> => {
      if (!isMade) await this.#local.makeDirectory(place, ROOT_NODE)
      isMade = true
    }
    for (const { inode, how } of check.run()) {
      if (how !== 'nowhere') continue
      await make()
      await this.#begin(`${LOST_NAME}/${shownInode(inode)}`, join(place, shownInode(inode)), inode)
    }
    for (const inode of check.adrift) {
      await make()
      await this.#tree(`${LOST_NAME}/${shownInode(inode)}`, join(place, shownInode(inode)), inode, undefined)
    }
  }

  #nodeOf(inode: InodeId): CopyNode {
    const { type: kind, size, mode, uid, gid, mtime } = this.#files.status(inode)
    return { kind, size, mode, uid, gid, mtime }
  }

  #extras(path: string, inode: InodeId): CopyExtras {
    const xattrs = new Map<string, Buffer>()
    const isRoot = process.getuid?.() === 0
    for (const [name, value] of inodeType(inode) === 'symlink' ? [] : this.#files.xattrs(inode)) {
      if (!NAME_SPACE.test(name)) xattrs.set(`user.${name}`, value)
      else if (isRoot || name.startsWith('user.')) xattrs.set(name, value)
      else {
        const detail = `only root can write the extended attribute ${JSON.stringify(name)}`
        this.#onProblem({ severity: 'lost', where: path, detail })
      }
    }
    return { keepsOwner: true, xattrs, signal: this.#signal }
  }

  /** Tells a failure, and goes on; undefined then. */
  async #attempt<T>(path: string, work: () => Promise<T> | T): Promise<T | undefined> {
    try {
      return await work()
    } catch (error) {
      if (!isOperationError(error) || error.code === 'ABORTED' || isFull(error)) throw error
      this.#totals.failed++
      this.#onProblem({ severity: 'lost', where: path, detail: error.message })
      return undefined
    }
  }
}

/** Nothing more can be written: going on would call everything lost. */
function isFull(error: OperationError): boolean {
  return error.code === 'STAGING_NO_SPACE'
}

const ROOT_NODE: CopyNode = { kind: 'directory', size: 0, mode: 0o755, uid: 0, gid: 0, mtime: 0 }
