/**
 * Attributes and extended attributes. A change of what is being written travels with its next publish, so that `cp -p` and
 * `tar x` cost one put a file; a change of what is clean goes to the store at once, under the guard of its version.
 */
import { assert } from '#base/assert.ts'
import { OperationError } from '#base/errors.ts'
import { timestampNow, type Timestamp } from '#base/time.ts'
import type { AttributeRequest, MaybePromise, StatfsAnswer } from '#fuse/file-system.ts'
import { NAME_BYTES_MAX } from '#store/path.ts'
import { ANY, ifVersion, type Attributes, type Entry } from '#store/store.ts'

import { changeAttributes } from './attribute-changes.ts'
import type { FileContent } from './file-content.ts'
import type { MountState } from './mount-state.ts'
import type { Namespace } from './namespace.ts'
import { permissionsOf, withoutPrivileges } from './node-attributes.ts'
import { placesOf, type Node } from './node.ts'
import type { Publisher } from './publisher.ts'
import type { Resolver } from './resolver.ts'
import { askChanged } from './unanswered.ts'

const XATTR_CREATE = 1
const XATTR_REPLACE = 2
const SELINUX = 'security.selinux'
const NO_XATTRS: ReadonlyMap<string, Uint8Array> = new Map()
const BLOCK_BYTES = 4096
/** What a store without a bound shows as its size: 1 PiB, which every program can add up without an overflow. */
const SPACE_BYTES = 2 ** 50
const FILES = 2 ** 31

export class Metadata {
  readonly #state: MountState
  readonly #resolver: Resolver
  readonly #publisher: Publisher
  readonly #content: FileContent
  readonly #namespace: Namespace
  #space: { readonly answer: StatfsAnswer; readonly at: number } | undefined

  constructor(state: MountState, resolver: Resolver, publisher: Publisher, content: FileContent, namespace: Namespace) {
    this.#state = state
    this.#resolver = resolver
    this.#publisher = publisher
    this.#content = content
    this.#namespace = namespace
  }

  /** Runs `use` once what is known of `node` is fresh. */
  fresh<T>(node: Node, use: () => MaybePromise<T>): MaybePromise<T> {
    const asked = this.#resolver.revalidate(node)
    return asked === undefined ? use() : asked.then(use)
  }

  async setattr(node: Node, request: AttributeRequest): Promise<void> {
    await this.#resolver.revalidate(node)
    const { size } = request
    if (size !== undefined) {
      if (node.kind !== 'file') {
        throw new OperationError(
          node.kind === 'directory' ? 'STORE_IS_DIRECTORY' : 'INPUT_INVALID',
          `Cannot set the size of "${node.name}": it is a ${node.kind}`,
        )
      }
      await this.#content.truncate(node, size)
    }
    await this.#change(node, this.#changesOf(node, request))
    // A time that is set on a directory goes over the time at which its entries changed until now.
    if (request.mtime !== undefined) node.entriesChanged = undefined
  }

  #changesOf(node: Node, request: AttributeRequest): Attributes {
    const now = timestampNow()
    const { uid, gid, atime, mtime } = request
    let { mode } = request
    // Whoever gets a file must not get the rights of its former owner with it.
    if ((uid !== undefined || gid !== undefined) && node.kind !== 'directory') {
      const before = mode ?? permissionsOf(node)
      const kept = withoutPrivileges(before)
      if (kept !== before) mode = kept
    }
    const point = (time: Timestamp | 'now'): Timestamp => (time === 'now' ? now : time)
    return {
      ctime: request.ctime ?? now,
      ...(mode === undefined ? {} : { mode: mode & 0o7777 }),
      ...(uid === undefined ? {} : { uid }),
      ...(gid === undefined ? {} : { gid }),
      ...(atime === undefined ? {} : { atime: point(atime) }),
      ...(mtime === undefined ? {} : { mtime: point(mtime) }),
    }
  }

  /** Changes attributes here, and in the store at once unless a publish will take them along. */
  async #change(node: Node, changes: Attributes): Promise<void> {
    const { file } = node
    const { store, tree, table } = this.#state
    const isHere = node.detached !== undefined || !store.capabilities.attributes
    if (file !== undefined && this.#isPublishedLater(node)) {
      changeAttributes(node, changes)
      if (node.detached !== 'removed') file.attributesDirty = true
      table.touch(node)
      this.#state.countDirty(node)
      await this.#state.journals?.rewrite(node)
      if (isHere || this.#isBeingWritten(node)) return
      await this.#publisher.acknowledge(node)
      this.#publisher.release(node)
      return
    }
    if (isHere) {
      changeAttributes(node, changes)
      table.touch(node)
      return
    }
    await tree.shared([node], () => node.lock.run(() => this.#store(node, changes)))
    this.#publisher.release(node)
  }

  /** Its close publishes it, with whatever has changed until then. */
  #isBeingWritten(node: Node): boolean {
    return node.file !== undefined && (node.file.writers > 0 || node.version === undefined)
  }

  #isPublishedLater(node: Node): boolean {
    return (node.file !== undefined && node.isAhead) || this.#isBeingWritten(node)
  }

  async #store(node: Node, changes: Attributes): Promise<void> {
    const { store, table, signal } = this.#state
    await this.#state.unanswered.settled(node)
    assert(node.version !== undefined, 'what is clean is in the store')
    // A directory's version comes from wherever it was last seen, and may be that of one made only by its entries.
    const guard = node.kind === 'directory' ? ANY : ifVersion(node.version)
    try {
      const places = placesOf(node)
      await table.changing(places, async () => {
        const cachedAs = this.#state.cached.keysOf(node, false)
        const take = (entry: Entry): void => {
          this.#publisher.published(node, entry)
          this.#state.cached.follow(cachedAs)
        }
        const ask = askChanged(this.#state, node, changes)
        const setting = store.setAttributes(table.pathOf(node), changes, { guard, expected: node.kind, signal })
        take(await setting.catch((error: unknown) => this.#state.unanswered.resultOf(places, error, ask, take)))
      })
    } catch (error) {
      this.#namespace.expire(node)
      throw error
    }
  }

  async readlink(node: Node): Promise<string> {
    if (node.target !== undefined && this.#state.isFresh(node)) return node.target
    const { store, table, signal } = this.#state
    const { version } = node
    const target = await store.readLink(table.pathOf(node), { signal })
    if (node.version === version) node.target = target
    return target
  }

  getxattr(node: Node, name: string): MaybePromise<Uint8Array> {
    // The kernel asks for these by itself, before writes and at opens: they are answered from what is known.
    if (name.startsWith('security.') && node.attributes !== undefined) {
      // `ls` asks for the label of each file, but of one file system that says so no more.
      if (name === SELINUX && node.attributes.xattrs?.has(name) !== true) throw unsupportedXattr(node, name)
      return xattrOf(node, name)
    }
    if (name.startsWith('system.')) throw unsupportedXattr(node, name)
    return this.fresh(node, () => xattrOf(node, name))
  }

  listxattr(node: Node): MaybePromise<readonly string[]> {
    return this.fresh(node, () => [...(node.attributes?.xattrs ?? NO_XATTRS).keys()])
  }

  async setxattr(node: Node, name: string, value: Uint8Array, flags: number): Promise<void> {
    this.#checkXattr(node, name)
    // The value is the session's until the answer, and what is kept here outlives that.
    const kept = Buffer.from(value)
    await this.#resolver.revalidate(node)
    const xattrs = new Map(node.attributes?.xattrs ?? NO_XATTRS)
    if ((flags & XATTR_CREATE) !== 0 && xattrs.has(name)) {
      throw new OperationError('FILE_EXISTS', `Cannot create the attribute "${name}" of "${node.name}": it exists`)
    }
    if ((flags & XATTR_REPLACE) !== 0 && !xattrs.has(name)) throw noXattr(node, name)
    xattrs.set(name, kept)
    // What waits for a publish has to fit then, or its bytes would wait with it.
    if (this.#isPublishedLater(node)) {
      const { checkAttributes } = this.#state.store.capabilities
      checkAttributes(this.#state.table.describe(node), node.kind, { ...node.attributes, xattrs })
    }
    await this.#change(node, { xattrs, ctime: timestampNow() })
  }

  async removexattr(node: Node, name: string): Promise<void> {
    this.#checkXattr(node, name)
    await this.#resolver.revalidate(node)
    const xattrs = new Map(node.attributes?.xattrs ?? NO_XATTRS)
    if (!xattrs.delete(name)) throw noXattr(node, name)
    await this.#change(node, { xattrs, ctime: timestampNow() })
  }

  #checkXattr(node: Node, name: string): void {
    if (name.startsWith('system.') || !this.#state.store.capabilities.attributes) throw unsupportedXattr(node, name)
  }

  async statfs(): Promise<StatfsAnswer> {
    const now = this.#state.now()
    if (this.#space !== undefined && this.#space.at + this.#state.validityMs > now) return this.#space.answer
    const space = await this.#state.store.space({ signal: this.#state.signal })
    const blocks = Math.floor((space?.bytesTotal ?? SPACE_BYTES) / BLOCK_BYTES)
    const blocksFree = Math.floor((space?.bytesFree ?? SPACE_BYTES) / BLOCK_BYTES)
    const answer: StatfsAnswer = {
      blockBytes: BLOCK_BYTES,
      blocks,
      blocksFree,
      blocksAvailable: blocksFree,
      files: FILES,
      filesFree: FILES,
      nameBytesMax: NAME_BYTES_MAX,
    }
    this.#space = { answer, at: now }
    return answer
  }
}

function xattrOf(node: Node, name: string): Uint8Array {
  const value = node.attributes?.xattrs?.get(name)
  if (value === undefined) throw noXattr(node, name)
  return value
}

function noXattr(node: Node, name: string): OperationError {
  return new OperationError('ATTRIBUTE_NOT_FOUND', `Cannot find the attribute "${name}" of "${node.name}"`)
}

function unsupportedXattr(node: Node, name: string): OperationError {
  return new OperationError('STORE_UNSUPPORTED', `Cannot keep the attribute "${name}" of "${node.name}": not supported`)
}
