/**
 * For tests: drives a file system as the kernel would, by paths, with nothing cached in between, and stores decorated to
 * count requests, to hide what S3 listings hide, or to fail. Not part of the program.
 */
import { constants, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { assert } from '#base/assert.ts'
import { isOperationError, OperationError, type ErrorCode } from '#base/errors.ts'
import { timestampFromMs } from '#base/time.ts'
import {
  ROOT_NODE,
  type AttributeRequest,
  type Caller,
  type DirectoryItem,
  type EntryAnswer,
  type Handle,
  type NodeAttributes,
  type NodeId,
} from '#fuse/file-system.ts'
import { nameOf, parentOf } from '#store/path.ts'
import { IMPLICIT_VERSION, type Entry, type Store } from '#store/store.ts'

import { Journal } from './journal.ts'
import type { StoreFileSystemOptions } from './mount-state.ts'
import { S_IFDIR, S_IFMT } from './node-attributes.ts'
import { StagingArea } from './staging.ts'
import { StoreFileSystem } from './store-file-system.ts'

export const O_RDONLY = constants.O_RDONLY
export const O_RDWR = constants.O_RDWR
export const O_WRONLY = constants.O_WRONLY

export const CALLER: Caller = { uid: 0, gid: 0, pid: 1, signal: new AbortController().signal }

/** A file system over `store` with a clock that stands still until it is moved. */
export interface Rig extends AsyncDisposable {
  readonly fs: StoreFileSystem
  readonly kernel: KernelDouble
  readonly clock: { ms: number }
  readonly stagingDirectory: string
}

export interface RigOptions extends Partial<StoreFileSystemOptions> {
  /** Larger files are laid over what is stored before their first write, rather than fetched. */
  readonly wholeBytesMax?: number
}

export async function rig(store: Store, { wholeBytesMax, ...options }: RigOptions = {}): Promise<Rig> {
  const stagingDirectory = mkdtempSync(join(tmpdir(), 'eider-staging-'))
  const clock = { ms: 0 }
  const ending = new AbortController()
  const staging = await StagingArea.open(stagingDirectory, wholeBytesMax)
  const journal = options.writeBack === true ? Journal.open(staging, store.url, true) : undefined
  const fs = new StoreFileSystem({
    store,
    staging,
    ...(journal === undefined ? {} : { journal }),
    validityMs: 1000,
    readOnly: false,
    owner: { uid: 0, gid: 0 },
    signal: ending.signal,
    now: () => clock.ms,
    ...options,
  })
  fs.start()
  return {
    fs,
    kernel: new KernelDouble(fs),
    clock,
    stagingDirectory,
    [Symbol.asyncDispose]: async () => {
      ending.abort()
      await fs.closeJournal()
      rmSync(stagingDirectory, { recursive: true })
    },
  }
}

/** A file that is open. */
export interface OpenedFile {
  readonly node: NodeId
  readonly handle: Handle
  readonly openFlags: number
  readonly appends?: boolean
}

function appends(flags: number): boolean {
  return (flags & constants.O_APPEND) !== 0
}

export class KernelDouble {
  readonly #fs: StoreFileSystem
  readonly caller: Caller

  constructor(fs: StoreFileSystem, caller: Caller = CALLER) {
    this.#fs = fs
    this.caller = caller
  }

  async find(path: string): Promise<EntryAnswer | undefined> {
    const found = await this.#fs.lookup(await this.#directory(parentOf(path)), nameOf(path), this.caller)
    return 'attributes' in found ? found : undefined
  }

  /** The node of a path, found name by name. */
  async node(path: string): Promise<NodeId> {
    if (path === '') return ROOT_NODE
    const found = await this.find(path)
    if (found === undefined) throw new OperationError('STORE_NOT_FOUND', `Cannot find "${path}"`)
    return found.attributes.node
  }

  /** The node of a directory to do something in. */
  async #directory(path: string): Promise<NodeId> {
    if (path === '') return ROOT_NODE
    const { node, mode } = await this.stat(path)
    if ((mode & S_IFMT) !== S_IFDIR) throw new OperationError('STORE_NOT_DIRECTORY', `Cannot walk through "${path}"`)
    return node
  }

  async stat(path: string): Promise<NodeAttributes> {
    if (path === '') return (await this.#fs.getattr(ROOT_NODE, undefined, this.caller)).attributes
    const found = await this.find(path)
    if (found === undefined) throw new OperationError('STORE_NOT_FOUND', `Cannot find "${path}"`)
    return found.attributes
  }

  async fstat(file: OpenedFile): Promise<NodeAttributes> {
    return (await this.#fs.getattr(file.node, file.handle, this.caller)).attributes
  }

  async exists(path: string): Promise<boolean> {
    return (await this.find(path)) !== undefined
  }

  async open(path: string, flags: number): Promise<OpenedFile> {
    const node = await this.node(path)
    return { node, appends: appends(flags), ...(await this.#fs.open(node, flags)) }
  }

  /** open(2) with O_CREAT: a lookup, and a create where it finds nothing. */
  async create(path: string, flags = O_RDWR, mode = 0o644): Promise<OpenedFile> {
    const parent = await this.#directory(parentOf(path))
    const found = await this.#fs.lookup(parent, nameOf(path), this.caller)
    if ('attributes' in found) {
      if ((flags & constants.O_EXCL) !== 0) throw new OperationError('FILE_EXISTS', `Cannot create "${path}"`)
      const { node } = found.attributes
      return { node, appends: appends(flags), ...(await this.#fs.open(node, flags)) }
    }
    const made = await this.#fs.create(parent, nameOf(path), mode, 0o022, flags | constants.O_CREAT, this.caller)
    return { node: made.attributes.node, handle: made.handle, openFlags: made.openFlags, appends: appends(flags) }
  }

  async read(file: OpenedFile, offset: number, size: number): Promise<Buffer> {
    // As the session does: what is given at once is used at once.
    const found = this.#fs.read(file.node, file.handle, offset, size, this.caller)
    const bytes = found instanceof Promise ? await found : found
    return bytes instanceof Uint8Array ? Buffer.from(bytes) : Buffer.concat(bytes)
  }

  async write(file: OpenedFile, offset: number, data: string | Uint8Array): Promise<number> {
    return this.#fs.write(file.node, file.handle, offset, Buffer.from(data), this.caller, file.appends === true)
  }

  /** fallocate(2), by FALLOC_FL_* bits. */
  async fallocate(file: OpenedFile, mode: number, offset: number, length: number): Promise<void> {
    await this.#fs.fallocate(file.node, file.handle, offset, length, mode, this.caller)
  }

  /** copy_file_range(2), once; gives how much was copied. */
  async copy(from: OpenedFile, offset: number, to: OpenedFile, at: number, length: number): Promise<number> {
    const { caller } = this
    return this.#fs.copyFileRange(from.node, from.handle, offset, to.node, to.handle, at, length, caller)
  }

  async flush(file: OpenedFile): Promise<void> {
    await this.#fs.flush(file.node, file.handle, this.caller)
  }

  async fsync(file: OpenedFile): Promise<void> {
    await this.#fs.fsync(file.node, file.handle)
  }

  /** The last close of a file. */
  async close(file: OpenedFile): Promise<void> {
    try {
      await this.flush(file)
    } finally {
      await this.#fs.release(file.node, file.handle)
    }
  }

  async writeFile(path: string, data: string | Uint8Array, mode = 0o644): Promise<void> {
    const file = await this.create(path, constants.O_WRONLY | constants.O_TRUNC, mode)
    if (data.length > 0) await this.write(file, 0, data)
    await this.close(file)
  }

  async readFile(path: string): Promise<Buffer> {
    const { size } = await this.stat(path)
    const file = await this.open(path, constants.O_RDONLY)
    try {
      const parts: Buffer[] = []
      for (let at = 0; at < size;) {
        const part = await this.read(file, at, Math.min(131_072, size - at))
        if (part.length === 0) break
        parts.push(part)
        at += part.length
      }
      return Buffer.concat(parts)
    } finally {
      await this.close(file)
    }
  }

  async setattr(path: string, request: AttributeRequest): Promise<NodeAttributes> {
    return (await this.#fs.setattr(await this.node(path), request)).attributes
  }

  async mkdir(path: string, mode = 0o755): Promise<void> {
    await this.#fs.mkdir(await this.#directory(parentOf(path)), nameOf(path), mode, 0o022, this.caller)
  }

  async symlink(path: string, target: string): Promise<void> {
    await this.#fs.symlink(await this.#directory(parentOf(path)), nameOf(path), target, this.caller)
  }

  async readlink(path: string): Promise<string> {
    return this.#fs.readlink(await this.node(path), this.caller)
  }

  async unlink(path: string): Promise<void> {
    const parent = await this.#directory(parentOf(path))
    await this.#need(path)
    await this.#fs.unlink(parent, nameOf(path), this.caller)
  }

  async rmdir(path: string): Promise<void> {
    const parent = await this.#directory(parentOf(path))
    await this.#need(path)
    await this.#fs.rmdir(parent, nameOf(path), this.caller)
  }

  async rename(from: string, to: string, flags = 0): Promise<void> {
    const [a, b] = [await this.#directory(parentOf(from)), await this.#directory(parentOf(to))]
    await this.#need(from)
    await this.find(to)
    await this.#fs.rename(a, nameOf(from), b, nameOf(to), flags)
  }

  /** As the kernel does before it changes a name. */
  async #need(path: string): Promise<void> {
    await this.node(path)
  }

  /** All items but "." and "..", taken `batch` at a time. */
  async readdir(path: string, { plus = false, batch = 100 } = {}): Promise<DirectoryItem[]> {
    const node = await this.node(path)
    const { handle } = this.#fs.opendir(node)
    const items: DirectoryItem[] = []
    try {
      for (let offset = 0; ;) {
        const taken: DirectoryItem[] = []
        await this.#fs.readdir(
          node,
          handle,
          offset,
          plus,
          (item) => taken.length < batch && taken.push(item) > 0,
          this.caller,
        )
        const last = taken.at(-1)
        if (last === undefined) break
        offset = last.offset
        items.push(...taken)
      }
    } finally {
      await this.#fs.releasedir(node, handle)
    }
    return items.filter(({ name }) => name !== '.' && name !== '..')
  }

  async names(path: string): Promise<string[]> {
    return (await this.readdir(path)).map(({ name }) => name).toSorted()
  }

  /** `ls -l`: the names, then a lookup for each whose attributes did not come along. */
  async list(path: string): Promise<void> {
    const node = await this.node(path)
    for (const item of await this.readdir(path, { plus: true })) {
      if (item.entry === undefined) await this.#fs.lookup(node, item.name, this.caller)
    }
  }
}

/** `store` with some methods replaced. */
export function replacing(store: Store, methods: Partial<Store>): Store {
  return new Proxy(store, {
    get: (target, key) => {
      const replaced = Reflect.get(methods, key) as unknown
      if (replaced !== undefined) return replaced
      const value = Reflect.get(target, key) as unknown
      return typeof value === 'function' ? (value.bind(target) as unknown) : value
    },
  })
}

export interface CountedStore {
  readonly store: Store
  /** What has been asked since the last call: operation to count; a listing counts its pages. */
  readonly taken: () => Record<string, number>
}

/** Counts the requests that reach `store`. */
export function counting(store: Store): CountedStore {
  let counts: Record<string, number> = {}
  const count = (name: string): void => {
    counts[name] = (counts[name] ?? 0) + 1
  }
  async function* pages(...args: Parameters<Store['list']>): AsyncGenerator<readonly Entry[]> {
    for await (const page of store.list(...args)) {
      count('list')
      yield page
    }
  }
  const counted = new Proxy(store, {
    get: (target, key) => {
      if (key === 'list') return pages
      const value = Reflect.get(target, key) as unknown
      if (typeof value !== 'function') return value
      return (...args: unknown[]): unknown => {
        count(String(key))
        return Reflect.apply(value, target, args) as unknown
      }
    },
  })
  const taken = (): Record<string, number> => {
    const before = counts
    counts = {}
    return before
  }
  return { store: counted, taken }
}

/** `store` with listings as S3 has them: no attributes, symlinks shown as files, directories without their version. */
export function untold(store: Store): Store {
  async function* list(...args: Parameters<Store['list']>): AsyncGenerator<readonly Entry[]> {
    for await (const page of store.list(...args)) {
      yield page.map((entry) =>
        entry.kind === 'directory'
          ? { ...entry, version: IMPLICIT_VERSION, attributes: undefined }
          : { ...entry, kind: 'file' as const, attributes: undefined },
      )
    }
  }
  const listTree: Store['listTree'] = async (...args) => {
    const page = await store.listTree?.(...args)
    const entries = page?.entries.map((entry) => {
      // That no object says that a directory was made is told by a page of the whole tree.
      if (entry.version === IMPLICIT_VERSION) return entry
      return { ...entry, kind: entry.kind === 'directory' ? entry.kind : ('file' as const), attributes: undefined }
    })
    return { entries: entries ?? [], isLast: page?.isLast ?? true }
  }
  return replacing(store, { list, listTree, capabilities: { ...store.capabilities, listingComplete: false } })
}

/** `store` in which everything was put some time ago, so that a change would show in its times. */
export function aged(store: Store, ageMs = 60_000): Store {
  const modified = timestampFromMs(Date.now() - ageMs)
  const old = (entry: Entry): Entry => ({ ...entry, modified })
  async function* list(...args: Parameters<Store['list']>): AsyncGenerator<readonly Entry[]> {
    for await (const page of store.list(...args)) yield page.map(old)
  }
  const listTree: Store['listTree'] = async (...args) => {
    const { entries, isLast } = (await store.listTree?.(...args)) ?? { entries: [], isLast: true }
    return { entries: entries.map(old), isLast }
  }
  return replacing(store, { list, listTree, stat: async (...args) => old(await store.stat(...args)) })
}

/** The text of a stored file. */
export async function content(store: Store, path: string): Promise<string> {
  return (await (await store.read(path)).bytes()).toString()
}

/** A promise that others resolve: for holding a store call until something else has happened. */
export class Gate {
  readonly #opened = Promise.withResolvers<void>()
  readonly #reached = Promise.withResolvers<void>()
  /** Resolves when somebody waits at the gate. */
  readonly reached: Promise<void> = this.#reached.promise

  async pass(): Promise<void> {
    this.#reached.resolve()
    await this.#opened.promise
  }

  open(): void {
    this.#opened.resolve()
  }
}

/** The code that `work` rejects with. */
export async function codeOf(work: Promise<unknown>): Promise<ErrorCode> {
  try {
    await work
  } catch (error) {
    if (isOperationError(error)) return error.code
    throw error
  }
  assert(false, 'the call fails')
  throw new Error('unreachable')
}
