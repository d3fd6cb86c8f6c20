/**
 * A client of a cluster: where everything is, who is asked, and the operations on paths and inodes that one or a few requests make. Files'
 * bytes are read and written by `file-reader.ts` and `file-writer.ts`.
 *
 * Paths are absolute. A symlink is never followed: it is what a path names.
 */
import { isOperationError, OperationError } from '#base/errors.ts'
import { coordinatorMessages } from '#cluster/coordinator/coordinator-messages.ts'
import { inodeShard, inodeType, ROOT_INODE, shownInode, type InodeId } from '#cluster/inode-id.ts'
import { checkLength } from '#cluster/shard/names.ts'
import { PAGE_ENTRIES_MAX, shardMessages } from '#cluster/shard/shard-messages.ts'
import type { Address, Surroundings } from '#cluster/surroundings.ts'
import { Caller, type CallOptions, DEADLINE_MS, type Target } from '#cluster/wire/caller.ts'
import type { ValueOf } from '#cluster/wire/codec.ts'
import {
  ANYTHING,
  NO_INODE,
  NOTHING,
  type attributeChanges,
  type Edge,
  type NameGuard,
  type newAttributes,
  type Policy,
  type Status,
} from '#cluster/wire/forms.ts'
import type { Message } from '#cluster/wire/message.ts'

import { BlockCaller } from './block-caller.ts'
import { ClusterMap } from './cluster-map.ts'

export interface ClusterClientOptions {
  readonly surroundings: Surroundings
  readonly registry: Address
  /** Where this client is: blocks near by are read first. */
  readonly location?: string
  /** For how long a request is tried, and the registry looked for at the start. */
  readonly deadlineMs?: number
  /** For how long instead the registry is looked for at the start, and later what it has never heard of. */
  readonly contactMs?: number
}

export type NewAttributes = ValueOf<typeof newAttributes>
export type AttributeChanges = Partial<ValueOf<typeof attributeChanges>>
export type Listed = ValueOf<(typeof shardMessages)['list']['reply']>['entries'][number]

/** What a path led to. Of the root, `parent` is the root itself, and the name is empty. */
export interface Place {
  readonly inode: InodeId
  readonly created: number
  readonly parent: InodeId
  readonly name: string
}

/** Where something may come to be. */
export interface Slot {
  readonly directory: InodeId
  readonly name: string
}

interface Options {
  readonly signal?: AbortSignal | undefined
}

const NO_CHANGES = { mode: undefined, uid: undefined, gid: undefined, mtime: undefined, atime: undefined }

export class ClusterClient {
  readonly map: ClusterMap
  readonly blocks: BlockCaller
  readonly caller: Caller
  readonly location: string
  readonly surroundings: Surroundings
  readonly #deadlineMs: number
  readonly #contactMs: number

  private constructor(options: ClusterClientOptions) {
    const { surroundings, registry, location = '', deadlineMs = DEADLINE_MS, contactMs = deadlineMs } = options
    this.surroundings = surroundings
    this.location = location
    this.#deadlineMs = deadlineMs
    this.#contactMs = contactMs
    this.caller = new Caller(surroundings)
    this.blocks = new BlockCaller(surroundings)
    this.map = new ClusterMap(surroundings, this.caller, registry)
  }

  /** @throws CLUSTER_UNREACHABLE, WIRE_REFUSED, WIRE_VERSION */
  static async connect(options: ClusterClientOptions): Promise<ClusterClient> {
    const client = new ClusterClient(options)
    try {
      await client.map.start(client.#contactMs)
    } catch (error) {
      client.close()
      throw error
    }
    return client
  }

  close(): void {
    this.map.stop()
    this.caller.close()
    this.blocks.close()
  }

  /** Asks the shard of an inode. */
  ask<Q, R>(inode: InodeId, message: Message<Q, R>, request: Q, options: Options = {}): Promise<R> {
    return this.askShard(inodeShard(inode), message, request, options)
  }

  askShard<Q, R>(shard: number, message: Message<Q, R>, request: Q, { signal }: Options = {}): Promise<R> {
    const target = this.map.shard(shard)
    return this.caller.call(target, message, request, { shard, ...this.#patience(target, signal) })
  }

  askCoordinator<Q, R>(message: Message<Q, R>, request: Q, { signal }: Options = {}): Promise<R> {
    return this.caller.call(this.map.coordinator, message, request, this.#patience(this.map.coordinator, signal))
  }

  #patience(target: Target, signal: AbortSignal | undefined): CallOptions {
    const deadlineMs = target.address() === undefined ? this.#contactMs : this.#deadlineMs
    return signal === undefined ? { deadlineMs } : { deadlineMs, signal }
  }

  /** What a path leads to; as of a time, what it led to then. @throws NAME_NOT_FOUND, DIRECTORY_EXPECTED */
  async find(path: string, asOf?: number): Promise<Place> {
    let place: Place = { inode: ROOT_INODE, created: 0, parent: ROOT_INODE, name: '' }
    for (const name of namesOf(path)) {
      const parent = place.inode
      if (inodeType(parent) !== 'directory') throw notDirectory(path, place.name)
      const { inode, created } = await this.#lookup(path, parent, name, asOf)
      place = { inode, created, parent, name }
    }
    return place
  }

  /** Where the last name of a path is, or would be. @throws NAME_NOT_FOUND, DIRECTORY_EXPECTED, ROOT_REFUSED */
  async slot(path: string): Promise<Slot> {
    const names = namesOf(path)
    const name = names.at(-1)
    if (name === undefined) throw new OperationError('ROOT_REFUSED', 'Cannot put anything in the place of the root')
    const { inode: directory } = await this.find(`/${names.slice(0, -1).join('/')}`)
    if (inodeType(directory) !== 'directory') throw notDirectory(path, names.at(-2) ?? '')
    return { directory, name }
  }

  stat(inode: InodeId): Promise<Status> {
    return this.ask(inode, shardMessages.stat, { inode })
  }

  /** What a name leads to; undefined where nothing has it. */
  async lookup(
    directory: InodeId,
    name: string,
  ): Promise<{ readonly inode: InodeId; readonly created: number } | undefined> {
    try {
      return await this.ask(directory, shardMessages.lookup, { directory, name })
    } catch (error) {
      if (isOperationError(error, 'NAME_NOT_FOUND')) return undefined
      throw error
    }
  }

  /** All names of a directory in order of bytes, page by page. */
  async *list(
    directory: InodeId,
    {
      withStatus = false,
      asOf,
      signal,
    }: Options & { readonly withStatus?: boolean; readonly asOf?: number | undefined } = {},
  ): AsyncGenerator<readonly Listed[], void, undefined> {
    let after = ''
    for (;;) {
      const page = { directory, after, limit: PAGE_ENTRIES_MAX }
      const { entries, isLast } =
        asOf === undefined
          ? await this.ask(directory, shardMessages.list, { ...page, withStatus }, { signal })
          : await this.ask(directory, shardMessages.listAsOf, { ...page, asOf }, { signal })
      if (entries.length > 0) yield entries
      if (isLast) return
      after = entries.at(-1)?.name ?? after
    }
  }

  /** All edges of a directory by name and time, or of one name. */
  async *history(directory: InodeId, name?: string): AsyncGenerator<Edge, void, undefined> {
    const isSameName = name !== undefined
    let from = { name: name ?? '', time: 0 }
    for (;;) {
      const request = { directory, ...from, isBackwards: false, isSameName, limit: PAGE_ENTRIES_MAX }
      const { edges, isLast } = await this.ask(directory, shardMessages.history, request)
      yield* edges
      const last = edges.at(-1)
      if (isLast || last === undefined) return
      from = { name: last.name, time: last.created + 1 }
    }
  }

  /** The newest edge of a name made at `time` or before, or the oldest made then or later; undefined where there is none. */
  async edgeAt(directory: InodeId, name: string, time: number, isBackwards: boolean): Promise<Edge | undefined> {
    const request = { directory, name, time, isBackwards, isSameName: true, limit: 1 }
    return (await this.ask(directory, shardMessages.history, request)).edges[0]
  }

  makeDirectory(
    { directory, name }: Slot,
    attributes: NewAttributes,
  ): Promise<{ readonly inode: InodeId; readonly created: number }> {
    return this.askCoordinator(coordinatorMessages.makeDirectory, { owner: directory, name, attributes })
  }

  /** A directory that is there, or is now. */
  async ensureDirectory(slot: Slot, attributes: NewAttributes): Promise<InodeId> {
    const there = await this.lookup(slot.directory, slot.name)
    if (there !== undefined) return this.#asDirectory(slot, there.inode)
    try {
      return (await this.makeDirectory(slot, attributes)).inode
    } catch (error) {
      if (!isOperationError(error, 'NAME_TAKEN')) throw error
      const other = await this.lookup(slot.directory, slot.name)
      if (other === undefined) throw error
      return this.#asDirectory(slot, other.inode)
    }
  }

  /** Unlinks a file or symlink, or removes an empty directory; gives the time from which the name leads to nothing. */
  async remove({ parent, name, inode, created }: Place): Promise<number> {
    if (inode === ROOT_INODE) throw new OperationError('ROOT_REFUSED', 'Cannot remove the root')
    if (inodeType(inode) === 'directory') {
      const request = { owner: parent, name, directory: inode, created }
      return (await this.askCoordinator(coordinatorMessages.removeDirectory, request)).removed
    }
    return (await this.ask(parent, shardMessages.unlink, { directory: parent, name, inode, created })).removed
  }

  /** Moves what is at a place to another; a file takes the place of a file unless the guard says otherwise. */
  async move(from: Place, to: Slot, guard: NameGuard = ANYTHING): Promise<{ readonly created: number }> {
    const { inode, parent, name, created } = from
    if (inode === ROOT_INODE) throw new OperationError('ROOT_REFUSED', 'Cannot move the root')
    const isDirectory = inodeType(inode) === 'directory'
    if (parent === to.directory) {
      if (name === to.name) return { created }
      const request = {
        directory: parent,
        name,
        inode,
        created,
        newName: to.name,
        guard: isDirectory ? NOTHING : guard,
      }
      return this.ask(parent, shardMessages.rename, request)
    }
    const request = { inode, from: parent, fromName: name, created, to: to.directory, toName: to.name }
    return isDirectory
      ? this.askCoordinator(coordinatorMessages.moveDirectory, { ...request, guard: NOTHING })
      : this.askCoordinator(coordinatorMessages.moveFile, { ...request, guard })
  }

  /** Gives what an edge of the history owns a name again. */
  undelete(
    edge: Slot & { readonly created: number },
    newName: string,
    guard: NameGuard,
  ): Promise<{ readonly inode: InodeId }> {
    return this.ask(edge.directory, shardMessages.undelete, { ...edge, newName, guard })
  }

  async setAttributes(inode: InodeId, changes: AttributeChanges): Promise<void> {
    await this.ask(inode, shardMessages.setAttributes, { inode, changes: { ...NO_CHANGES, ...changes } })
  }

  async setPolicy(directory: InodeId, policy: Policy): Promise<void> {
    await this.ask(directory, shardMessages.setPolicy, { directory, policy })
  }

  /** What holds in a directory: what it says itself, and of the rest what those above it say. */
  async policyOf(directory: InodeId): Promise<Policy> {
    let policy: Policy = {
      history: undefined,
      spans: undefined,
      classes: undefined,
      stripeBytes: undefined,
      inlineBytesMax: undefined,
    }
    for (let at = directory; at !== NO_INODE;) {
      const status = await this.stat(at)
      policy = { ...policy, ...given(status.policy), ...given(policy) }
      at = status.owner
    }
    return policy
  }

  async #lookup(
    path: string,
    directory: InodeId,
    name: string,
    asOf: number | undefined,
  ): Promise<{ inode: InodeId; created: number }> {
    const found =
      asOf === undefined ? await this.lookup(directory, name) : await this.edgeAt(directory, name, asOf, true)
    if (found !== undefined && found.inode !== NO_INODE) return found
    const when = asOf === undefined ? '' : ` as of ${asOf}`
    throw new OperationError('NAME_NOT_FOUND', `Cannot find "${path}"${when}: there is no ${JSON.stringify(name)}`)
  }

  #asDirectory({ name }: Slot, inode: InodeId): InodeId {
    if (inodeType(inode) === 'directory') return inode
    const detail = `${shownInode(inode)} is a ${inodeType(inode)}`
    throw new OperationError('DIRECTORY_EXPECTED', `Cannot use ${JSON.stringify(name)} as a directory: ${detail}`)
  }
}

/**
 * The names of an absolute path. `.` is nothing in it; `..` is refused, as a name that somebody puts in from elsewhere would otherwise lead
 * out of where it belongs, and there is nothing here that a path could be relative to.
 * @throws USAGE, STORE_NAME_TOO_LONG
 */
export function namesOf(path: string): string[] {
  if (!path.startsWith('/')) {
    throw new OperationError('USAGE', `Cannot use "${path}": a path of the cluster starts with "/"`)
  }
  const names = path.split('/').filter((name) => name !== '' && name !== '.')
  for (const name of names) checkLength(name)
  if (!names.includes('..')) return names
  throw new OperationError('USAGE', `Cannot use "${path}": ".." is no name in a path of the cluster`, {
    hint: 'Give the path from the root on.',
  })
}

/** What is said, without what is not. */
function given(policy: Policy | undefined): Partial<Policy> {
  if (policy === undefined) return {}
  return Object.fromEntries(Object.entries(policy).filter(([, value]) => value !== undefined))
}

function notDirectory(path: string, name: string): OperationError {
  return new OperationError('DIRECTORY_EXPECTED', `Cannot find "${path}": ${JSON.stringify(name)} is not a directory`)
}
