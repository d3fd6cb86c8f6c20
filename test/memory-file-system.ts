/**
 * A file system in memory for the tests of the FUSE session: whole files in buffers, everything answered at once, with
 * switches for what a test needs to see (validity of the kernel's copies, reads that wait, what was called).
 */
import type {
  AttributeRequest,
  AttributesAnswer,
  Caller,
  DirectorySink,
  EntryAnswer,
  FileSystem,
  MaybePromise,
  NegativeAnswer,
  NodeAttributes,
  NodeId,
  OpenAnswer,
  StatfsAnswer,
} from '#fuse/file-system.ts'
import { OperationError } from '#base/errors.ts'
import { type Timestamp, timestampNow } from '#base/time.ts'

const S_IFDIR = 0o040000
const S_IFREG = 0o100000
const S_IFLNK = 0o120000
const S_IFMT = 0o170000
const O_TRUNC = 0o1000

interface Node {
  readonly id: NodeId
  mode: number
  uid: number
  gid: number
  data: Buffer
  target: string
  children: Map<string, Node>
  xattrs: Map<string, Uint8Array>
  atime: Timestamp
  mtime: Timestamp
  ctime: Timestamp
}

const missing = (name: string): OperationError =>
  new OperationError('STORE_NOT_FOUND', `Cannot find '${name}': it is not there`)

export class MemoryFileSystem implements FileSystem {
  readonly root: Node
  /** How long the kernel may keep names and attributes. */
  validMs = 0
  /** Every answer by a promise rather than at once. */
  slowly = false
  /** FOPEN_* bits for every open file. */
  openFlags = 0
  /** Names of the methods called, in order. */
  readonly calls: string[] = []
  /** References that the kernel holds, by node. */
  readonly references = new Map<NodeId, number>()
  /** What a read of that node waits for. */
  readonly blocked = new Map<NodeId, (caller: Caller) => Promise<void>>()
  readonly #nodes = new Map<NodeId, Node>()
  #nextId = 1

  constructor() {
    this.root = this.#make(S_IFDIR | 0o755)
  }

  /** Puts a file, as somebody other than the kernel would. */
  put(name: string, content: string | Buffer): Node {
    const node = this.#make(S_IFREG | 0o644)
    const bytes = Buffer.from(content)
    this.#resize(node, bytes.length)
    bytes.copy(node.data)
    this.root.children.set(name, node)
    return node
  }

  #make(mode: number, caller?: Caller): Node {
    const now = timestampNow()
    const node: Node = {
      id: this.#nextId,
      mode,
      uid: caller?.uid ?? process.getuid?.() ?? 0,
      gid: caller?.gid ?? process.getgid?.() ?? 0,
      data: Buffer.from(new ArrayBuffer(0)),
      target: '',
      children: new Map(),
      xattrs: new Map(),
      atime: now,
      mtime: now,
      ctime: now,
    }
    this.#nextId += 1
    this.#nodes.set(node.id, node)
    return node
  }

  #node(id: NodeId): Node {
    const node = this.#nodes.get(id)
    if (node === undefined) throw missing(`node ${id}`)
    return node
  }

  #child(parent: NodeId, name: string): Node {
    const child = this.#node(parent).children.get(name)
    if (child === undefined) throw missing(name)
    return child
  }

  #answer<T>(method: string, value: () => T): MaybePromise<T> {
    this.calls.push(method)
    return this.slowly ? new Promise<void>((resolve) => setImmediate(resolve)).then(value) : value()
  }

  #attributes(node: Node): NodeAttributes {
    const size = (node.mode & S_IFMT) === S_IFLNK ? Buffer.byteLength(node.target) : node.data.length
    return {
      node: node.id,
      size,
      mode: node.mode,
      nlink: 1,
      uid: node.uid,
      gid: node.gid,
      rdev: 0,
      blksize: 4096,
      blocks: Math.ceil(size / 512),
      atime: node.atime,
      mtime: node.mtime,
      ctime: node.ctime,
    }
  }

  #entry(node: Node): EntryAnswer {
    this.references.set(node.id, (this.references.get(node.id) ?? 0) + 1)
    return {
      attributes: this.#attributes(node),
      attributesValidMs: this.validMs,
      generation: 0,
      entryValidMs: this.validMs,
    }
  }

  lookup(parent: NodeId, name: string): MaybePromise<EntryAnswer | NegativeAnswer> {
    return this.#answer('lookup', () => {
      const child = this.#node(parent).children.get(name)
      return child === undefined ? { negativeValidMs: this.validMs } : this.#entry(child)
    })
  }

  forget(node: NodeId, count: number): void {
    const left = (this.references.get(node) ?? 0) - count
    if (left === 0) this.references.delete(node)
    else this.references.set(node, left)
  }

  getattr(node: NodeId): MaybePromise<AttributesAnswer> {
    return this.#answer('getattr', () => ({
      attributes: this.#attributes(this.#node(node)),
      attributesValidMs: this.validMs,
    }))
  }

  setattr(id: NodeId, request: AttributeRequest): MaybePromise<AttributesAnswer> {
    return this.#answer('setattr', () => {
      const node = this.#node(id)
      if (request.size !== undefined) this.#resize(node, request.size)
      if (request.mode !== undefined) node.mode = (node.mode & S_IFMT) | (request.mode & ~S_IFMT)
      node.uid = request.uid ?? node.uid
      node.gid = request.gid ?? node.gid
      if (request.atime !== undefined) node.atime = request.atime === 'now' ? timestampNow() : request.atime
      if (request.mtime !== undefined) node.mtime = request.mtime === 'now' ? timestampNow() : request.mtime
      node.ctime = timestampNow()
      return { attributes: this.#attributes(node), attributesValidMs: this.validMs }
    })
  }

  /** In capacity that doubles: a file written piece by piece would be copied as often otherwise. */
  #resize(node: Node, size: number): void {
    const before = node.data.length
    if (size <= before) {
      node.data = node.data.subarray(0, size)
      return
    }
    const room = node.data.buffer.byteLength - node.data.byteOffset
    if (node.data.byteOffset === 0 && room >= size) node.data = Buffer.from(node.data.buffer, 0, size)
    else {
      const grown = Buffer.from(new ArrayBuffer(Math.max(4096, size * 2)), 0, size)
      node.data.copy(grown)
      node.data = grown
    }
    node.data.fill(0, before)
  }

  readlink(node: NodeId): MaybePromise<string> {
    return this.#answer('readlink', () => this.#node(node).target)
  }

  symlink(parent: NodeId, name: string, target: string, caller: Caller): MaybePromise<EntryAnswer> {
    return this.#answer('symlink', () => {
      const node = this.#make(S_IFLNK | 0o777, caller)
      node.target = target
      this.#node(parent).children.set(name, node)
      return this.#entry(node)
    })
  }

  mkdir(parent: NodeId, name: string, mode: number, _umask: number, caller: Caller): MaybePromise<EntryAnswer> {
    return this.#answer('mkdir', () => {
      const node = this.#make(S_IFDIR | (mode & 0o7777), caller)
      this.#node(parent).children.set(name, node)
      return this.#entry(node)
    })
  }

  unlink(parent: NodeId, name: string): MaybePromise<void> {
    return this.#answer('unlink', () => {
      this.#child(parent, name)
      this.#node(parent).children.delete(name)
    })
  }

  rmdir(parent: NodeId, name: string): MaybePromise<void> {
    return this.#answer('rmdir', () => {
      if (this.#child(parent, name).children.size > 0) {
        throw new OperationError('STORE_NOT_EMPTY', `Cannot remove '${name}': it has entries`)
      }
      this.#node(parent).children.delete(name)
    })
  }

  rename(parent: NodeId, name: string, newParent: NodeId, newName: string): MaybePromise<void> {
    return this.#answer('rename', () => {
      const node = this.#child(parent, name)
      this.#node(parent).children.delete(name)
      this.#node(newParent).children.set(newName, node)
    })
  }

  open(id: NodeId, flags: number): MaybePromise<OpenAnswer> {
    return this.#answer('open', () => {
      if ((flags & O_TRUNC) !== 0) this.#resize(this.#node(id), 0)
      return { handle: id, openFlags: this.openFlags }
    })
  }

  create(
    parent: NodeId,
    name: string,
    mode: number,
    _umask: number,
    _flags: number,
    caller: Caller,
  ): MaybePromise<EntryAnswer & OpenAnswer> {
    return this.#answer('create', () => {
      const node = this.#make(S_IFREG | (mode & 0o7777), caller)
      this.#node(parent).children.set(name, node)
      return { ...this.#entry(node), handle: node.id, openFlags: this.openFlags }
    })
  }

  read(
    id: NodeId,
    _handle: number,
    offset: number,
    size: number,
    caller: Caller,
  ): MaybePromise<Uint8Array | readonly Uint8Array[]> {
    const blocked = this.blocked.get(id)
    const read = (): readonly Uint8Array[] => {
      // In two pieces, as a file system over ranges gives them.
      const data = this.#node(id).data.subarray(offset, offset + size)
      const middle = data.length >> 1
      return [data.subarray(0, middle), data.subarray(middle)]
    }
    if (blocked !== undefined) {
      this.calls.push('read')
      return blocked(caller).then(read)
    }
    return this.#answer('read', read)
  }

  write(id: NodeId, _handle: number, offset: number, data: Uint8Array): MaybePromise<number> {
    return this.#answer('write', () => {
      const node = this.#node(id)
      if (node.data.length < offset + data.length) this.#resize(node, offset + data.length)
      node.data.set(data, offset)
      node.mtime = timestampNow()
      return data.length
    })
  }

  flush(): MaybePromise<void> {
    return this.#answer('flush', () => undefined)
  }

  fsync(): MaybePromise<void> {
    return this.#answer('fsync', () => undefined)
  }

  release(): MaybePromise<void> {
    return this.#answer('release', () => undefined)
  }

  opendir(id: NodeId): MaybePromise<OpenAnswer> {
    return this.#answer('opendir', () => ({ handle: id, openFlags: 0 }))
  }

  readdir(id: NodeId, _handle: number, offset: number, plus: boolean, sink: DirectorySink): MaybePromise<void> {
    return this.#answer(plus ? 'readdirplus' : 'readdir', () => {
      let position = 0
      for (const [name, node] of this.#node(id).children) {
        position += 1
        if (position <= offset) continue
        const item = { name, node: node.id, mode: node.mode, offset: position }
        const before = this.references.get(node.id) ?? 0
        if (sink(plus ? { ...item, entry: this.#entry(node) } : item)) continue
        if (plus) this.forget(node.id, (this.references.get(node.id) ?? 0) - before)
        return
      }
    })
  }

  releasedir(): MaybePromise<void> {
    return this.#answer('releasedir', () => undefined)
  }

  fsyncdir(): MaybePromise<void> {
    return this.#answer('fsyncdir', () => undefined)
  }

  statfs(): MaybePromise<StatfsAnswer> {
    return this.#answer('statfs', () => ({
      blockBytes: 4096,
      blocks: 1_000_000,
      blocksFree: 900_000,
      blocksAvailable: 800_000,
      files: 1000,
      filesFree: 900,
      nameBytesMax: 255,
    }))
  }

  getxattr(node: NodeId, name: string): MaybePromise<Uint8Array> {
    return this.#answer('getxattr', () => {
      const value = this.#node(node).xattrs.get(name)
      if (value === undefined) throw new OperationError('ATTRIBUTE_NOT_FOUND', `Cannot get '${name}': it is not set`)
      return value
    })
  }

  listxattr(node: NodeId): MaybePromise<readonly string[]> {
    return this.#answer('listxattr', () => [...this.#node(node).xattrs.keys()])
  }

  setxattr(node: NodeId, name: string, value: Uint8Array): MaybePromise<void> {
    return this.#answer('setxattr', () => {
      this.#node(node).xattrs.set(name, value)
    })
  }

  removexattr(node: NodeId, name: string): MaybePromise<void> {
    return this.#answer('removexattr', () => {
      if (!this.#node(node).xattrs.delete(name)) {
        throw new OperationError('ATTRIBUTE_NOT_FOUND', `Cannot remove '${name}': it is not set`)
      }
    })
  }
}
