/** The cluster as an end of `cp`: remembers the inodes of the directories that it has come by, so that no path is looked up twice. */
import { posix } from 'node:path'

import { isOperationError, OperationError } from '#base/errors.ts'
import type { NewAttributes, Place, Slot } from '#cluster/client/cluster-client.ts'
import type { Piece } from '#cluster/client/pieces.ts'
import { type InodeId, inodeType, ROOT_INODE } from '#cluster/inode-id.ts'
import { shardMessages } from '#cluster/shard/shard-messages.ts'
import { EMPTY_POLICY, INLINE_BYTES_MAX, type Policy, type Status } from '#cluster/wire/forms.ts'

import type { CopyExtras, CopyKind, CopyNode, CopySource, CopyTarget } from './copy-end.ts'
import { below } from './place.ts'
import { type FsSession, ownAttributes, warnOfSpan } from './session.ts'
import { statusOf, targetText, xattrsOf } from './status.ts'

/** Entries whose status came with a listing, and that were not asked for yet. */
const AHEAD_MAX = 100_000

export class ClusterEnd implements CopySource, CopyTarget {
  readonly #session: FsSession
  readonly #asOf: number | undefined
  /** Of directories, by path. */
  readonly #inodes = new Map<string, InodeId>([['/', ROOT_INODE]])
  /** What holds in directories, by inode. */
  readonly #policies = new Map<InodeId, Promise<Policy>>()
  /** What listings said of entries that come next, by path. */
  readonly #listed = new Map<string, { readonly inode: InodeId; readonly status: Status | undefined }>()

  constructor(session: FsSession, asOf?: number) {
    this.#session = session
    this.#asOf = asOf
  }

  shown(path: string): string {
    return `:${path}`
  }

  below(path: string, name: string): string {
    return below(path, name)
  }

  async node(path: string): Promise<CopyNode> {
    const { client } = this.#session
    const listed = this.#listed.get(path)
    this.#listed.delete(path)
    const inode = listed?.inode ?? (await client.find(path, this.#asOf)).inode
    const status = listed === undefined ? await client.stat(inode) : await statusOf(client, listed)
    if (status === undefined)
      throw new OperationError('INODE_NOT_FOUND', `Cannot copy "${path}": it has gone meanwhile`)
    this.#inodes.set(path, inode)
    const { type: kind, size, mode, uid, gid, mtime } = status
    return { kind, size, mode, uid, gid, mtime }
  }

  async kindAt(path: string): Promise<CopyKind | undefined> {
    const place = await this.#find(path)
    if (place === undefined) return undefined
    const kind = inodeType(place.inode)
    if (kind === 'directory') this.#inodes.set(path, place.inode)
    return kind
  }

  async *names(path: string): AsyncGenerator<string> {
    const { client, signal } = this.#session
    const directory = await this.#inodeOf(path)
    for await (const page of client.list(directory, { withStatus: true, asOf: this.#asOf, signal })) {
      for (const { name, inode, status } of page) {
        if (this.#listed.size < AHEAD_MAX) this.#listed.set(below(path, name), { inode, status })
        yield name
      }
    }
  }

  async *read(path: string, _node: CopyNode, signal: AbortSignal): AsyncGenerator<Piece> {
    const inode = await this.#inodeOf(path)
    this.#forget(path)
    yield* this.#session.files.pieces(inode, signal)
  }

  async linkTarget(path: string): Promise<string> {
    const inode = await this.#inodeOf(path)
    this.#forget(path)
    return targetText(this.#session, inode)
  }

  async xattrs(path: string): Promise<ReadonlyMap<string, Buffer>> {
    return xattrsOf(this.#session, await this.#inodeOf(path))
  }

  async makeDirectory(path: string, node: CopyNode): Promise<void> {
    const slot = await this.#slotOf(path)
    const inode = await this.#session.client.ensureDirectory(slot, { ...ownAttributes(0o777), mode: node.mode })
    this.#inodes.set(path, inode)
  }

  async writeFile(path: string, node: CopyNode, pieces: AsyncIterable<Piece>, more: CopyExtras): Promise<number> {
    const slot = await this.#slotOf(path)
    const policy = await this.#policyOf(slot.directory)
    const file = {
      ...slot,
      policy,
      attributes: attributesOf(node, more),
      xattrs: [...more.xattrs].map(([name, value]) => ({ name, value })),
      sizeHint: node.size > 0 ? node.size : undefined,
      onSpan: (form: Parameters<typeof warnOfSpan>[1]) => warnOfSpan(this.#session, form),
    }
    return (await this.#session.files.write(file, pieces, more.signal)).size
  }

  async makeSymlink(path: string, node: CopyNode, target: string, more: CopyExtras): Promise<void> {
    const slot = await this.#slotOf(path)
    const bytes = async function* (): AsyncGenerator<Uint8Array> {
      yield Buffer.from(target)
    }
    const policy = { ...EMPTY_POLICY, inlineBytesMax: INLINE_BYTES_MAX }
    const link = { ...slot, type: 'symlink' as const, policy, attributes: attributesOf(node, more) }
    await this.#session.files.write(link, bytes(), more.signal)
  }

  async finishDirectory(path: string, { mode, uid, gid, mtime }: CopyNode, more: CopyExtras): Promise<void> {
    const { client } = this.#session
    const inode = await this.#inodeOf(path)
    for (const [name, value] of more.xattrs) {
      await client.ask(inode, shardMessages.setXattr, { inode, xattr: { name, value }, how: 'any' })
    }
    await client.setAttributes(inode, { mode, mtime, ...(more.keepsOwner && { uid, gid }) })
  }

  async #find(path: string): Promise<Place | undefined> {
    try {
      return await this.#session.client.find(path, this.#asOf)
    } catch (error) {
      if (isOperationError(error, 'NAME_NOT_FOUND')) return undefined
      throw error
    }
  }

  async #inodeOf(path: string): Promise<InodeId> {
    const known = this.#inodes.get(path)
    if (known !== undefined) return known
    const { inode } = await this.#session.client.find(path, this.#asOf)
    this.#inodes.set(path, inode)
    return inode
  }

  async #slotOf(path: string): Promise<Slot> {
    return { directory: await this.#inodeOf(posix.dirname(path)), name: posix.basename(path) }
  }

  /** Only directories are come by again. */
  #forget(path: string): void {
    this.#inodes.delete(path)
  }

  #policyOf(directory: InodeId): Promise<Policy> {
    const known = this.#policies.get(directory)
    if (known !== undefined) return known
    const asked = this.#session.client.policyOf(directory)
    this.#policies.set(directory, asked)
    return asked
  }
}

function attributesOf({ mode, uid, gid, mtime }: CopyNode, { keepsOwner }: CopyExtras): NewAttributes {
  const own = ownAttributes(0o777)
  return { ...own, mode, mtime, ...(keepsOwner && { uid, gid }) }
}
