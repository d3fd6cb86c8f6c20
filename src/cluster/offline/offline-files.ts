/**
 * The tree of a cluster by its directories alone, now or as of a time: names, what they lead to, and the bytes of files, put together from any blocks that
 * suffice. Nothing that is read is taken for right before its checksums say so.
 */
import { OperationError } from '#base/errors.ts'
import { type Piece, readPieces } from '#cluster/client/pieces.ts'
import { SpanReader, type SpanSource } from '#cluster/client/span-reader.ts'
import type { KnownDisk } from '#cluster/client/disk-choice.ts'
import type { DiskId } from '#cluster/block/permit.ts'
import { inodeShard, type InodeId, inodeType, ROOT_INODE, shownInode } from '#cluster/inode-id.ts'
import { after, NUMBER_BYTES } from '#cluster/journal/keys.ts'
import { RangePull } from '#cluster/journal/pull.ts'
import type { StateReader } from '#cluster/journal/state.ts'
import { findEdge, pastKey, readPast } from '#cluster/shard/records.ts'
import { reads } from '#cluster/shard/reads.ts'
import { systemSurroundings } from '#cluster/system-surroundings.ts'
import type { Status } from '#cluster/wire/forms.ts'

import type { OfflineCluster } from './offline-cluster.ts'
import type { OfflineDisk } from './offline-disks.ts'

const PAGE = 1000
const SPANS_PAGE = 64
/** Of a disk that is a directory of this machine, nothing of that matters. */
const HERE = {
  class: 0,
  location: '',
  failure: '',
  capacityBytes: 0,
  usedBytes: 0,
  freeBytes: 0,
  blocks: 0,
}

export interface OfflineName {
  readonly name: string
  readonly inode: InodeId
  readonly created: number
}

export class OfflineFiles {
  readonly #cluster: OfflineCluster
  readonly #reader: SpanReader

  constructor(cluster: OfflineCluster) {
    this.#cluster = cluster
    const known = (disk: DiskId): KnownDisk | undefined => {
      const found = cluster.disks.get(disk)
      return found === undefined ? undefined : { ...HERE, disk, address: found.path, domain: found.path, flags: [] }
    }
    this.#reader = new SpanReader({
      surroundings: systemSurroundings(),
      location: '',
      // Whoever does not answer now, never will.
      patienceMs: 0,
      disks: {
        find: known,
        all: () => [...cluster.disks.keys()].flatMap((disk) => known(disk) ?? []),
        refresh: async () => undefined,
      },
      blocks: {
        bytesUnderWay: () => 0,
        fetch: async (_, { disk, block, offset, length }) => this.#diskOf(disk).fetch(block, offset, length),
      },
    })
  }

  /** @throws NAME_NOT_FOUND, DIRECTORY_EXPECTED, INODE_NOT_FOUND */
  find(path: string, asOf?: number): OfflineName & { readonly directory: InodeId } {
    let at = { name: '', inode: ROOT_INODE, created: 0, directory: ROOT_INODE }
    for (const name of path.split('/').filter((each) => each !== '')) {
      if (inodeType(at.inode) !== 'directory') {
        throw new OperationError('DIRECTORY_EXPECTED', `Cannot find "${path}": "${at.name}" is not a directory`)
      }
      const found = this.#lookup(at.inode, name, asOf)
      if (found === undefined) {
        throw new OperationError('NAME_NOT_FOUND', `Cannot find "${path}": there is no ${JSON.stringify(name)}`)
      }
      at = { name, ...found, directory: at.inode }
    }
    return at
  }

  /** In order. @throws INODE_NOT_FOUND, WIRE_MALFORMED where its record is damaged */
  *names(directory: InodeId, asOf?: number): Generator<OfflineName> {
    const state = this.#stateOf(directory)
    const shard = inodeShard(directory)
    for (let last = ''; ;) {
      const page =
        asOf === undefined
          ? reads.list(state, shard, { directory, after: last, limit: PAGE, withStatus: false })
          : reads.listAsOf(state, shard, { directory, asOf, after: last, limit: PAGE })
      yield* page.entries
      if (page.isLast) return
      last = page.entries.at(-1)?.name ?? ''
    }
  }

  /** How many files or directories a name led to, now and before. */
  versions(directory: InodeId, name: string): number {
    const state = this.#stateOf(directory)
    let count = findEdge(state, directory, name) === undefined ? 0 : 1
    const edges = pastKey(directory, name, 0).slice(0, -NUMBER_BYTES)
    state.range(edges, after(edges), (key, value) => {
      if (readPast(key, value).state !== 'removed') count++
      return true
    })
    return count
  }

  /** @throws INODE_NOT_FOUND, WIRE_MALFORMED */
  status(inode: InodeId): Status {
    return reads.stat(this.#stateOf(inode), inodeShard(inode), { inode })
  }

  /** @throws INODE_NOT_FOUND */
  xattrs(inode: InodeId): ReadonlyMap<string, Buffer> {
    const { xattrs } = reads.xattrs(this.#stateOf(inode), inodeShard(inode), { inode })
    return new Map(xattrs.map(({ name, value }) => [name, value]))
  }

  /** All bytes of a file. @throws SPANS_LOST, INODE_NOT_FOUND, WIRE_MALFORMED */
  read(file: InodeId, signal?: AbortSignal): AsyncGenerator<Buffer> {
    const { size } = this.status(file)
    return this.#reader.read(this.#sourceOf(file), 0, size, signal)
  }

  /** The same, with its holes as such. @throws the same */
  pieces(file: InodeId, signal?: AbortSignal): AsyncGenerator<Piece> {
    return readPieces(this.#reader, this.#sourceOf(file), signal)
  }

  #sourceOf(file: InodeId): SpanSource {
    const state = this.#stateOf(file)
    return {
      file,
      spansFrom: async (offset) => reads.spans(state, inodeShard(file), { file, offset, limit: SPANS_PAGE }),
    }
  }

  /** What a symlink leads to. @throws the same */
  async target(link: InodeId): Promise<string> {
    const chunks: Buffer[] = []
    for await (const chunk of this.read(link)) chunks.push(chunk)
    return Buffer.concat(chunks).toString()
  }

  #lookup(directory: InodeId, name: string, asOf: number | undefined): Omit<OfflineName, 'name'> | undefined {
    const state = this.#stateOf(directory)
    const current = findEdge(state, directory, name)
    if (asOf === undefined || (current !== undefined && current.created <= asOf)) return current
    const before = new RangePull(state, pastKey(directory, name, 0), pastKey(directory, name, asOf + 1), true).peek()
    if (before === undefined) return undefined
    const [edge] = reads.history(state, inodeShard(directory), {
      ...{ directory, name, time: asOf, isBackwards: true, isSameName: true, limit: 1 },
    }).edges
    return edge === undefined || edge.state === 'removed' ? undefined : edge
  }

  #stateOf(inode: InodeId): StateReader {
    const state = this.#cluster.stateOf(inode)
    if (state !== undefined) return state
    const detail = `no directory given has shard ${inodeShard(inode)}`
    throw new OperationError('INODE_NOT_FOUND', `Cannot find ${inodeType(inode)} ${shownInode(inode)}: ${detail}`)
  }

  #diskOf(disk: DiskId): OfflineDisk {
    const found = this.#cluster.disks.get(disk)
    if (found !== undefined) return found
    throw new OperationError('DISK_NOT_FOUND', `Cannot read from disk ${disk}: it is not among the directories given`)
  }
}
