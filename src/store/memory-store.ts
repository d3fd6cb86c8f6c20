/**
 * A store in memory (`memory:`): exact, ordered, gone with the process. It is the reference that the suite is made
 * by, and models the S3 end of what the port allows: keys lie flat in one order, a directory exists by itself or
 * because something lies under it, and vanishes with its last entry where it was never made.
 *
 * Every mutation takes its bytes first and then happens in one synchronous step, so guards are atomic. Versions come
 * from a counter: every change of bytes or attributes makes a new one, and a move keeps them.
 */
import { OperationError } from '#base/errors.ts'
import { timestampFromMs, timestampNow } from '#base/time.ts'

import { checkAborted, untilAborted } from './abort.ts'
import { checkPath, compareUtf8, parentOf } from './path.ts'
import {
  checkExchangePaths,
  checkGuard,
  checkReadable,
  checkRemovableDirectory,
  checkRenamePaths,
  conflict,
  copyAttributes,
  isDirectory,
  notDirectory,
  notEmpty,
  notFound,
  pastEnd,
} from './refusals.ts'
import { SortedMap } from './sorted-map.ts'
import { directoriesEntered } from './directories-entered.ts'
import { lengthError, sourceLength, streamError } from './source.ts'
import { localSegments, readFileSegments } from './file-segments.ts'
import { removeEach } from './remove-each.ts'
import {
  IMPLICIT_VERSION,
  isStored,
  type Attributes,
  type CallOptions,
  type Capabilities,
  type CopyOptions,
  type Entry,
  type ExchangeOptions,
  type Kind,
  type ListOptions,
  type MutateOptions,
  type PutOptions,
  type Reading,
  type ReadOptions,
  type Removal,
  type RenameOptions,
  type Segment,
  type Source,
  type Space,
  type SpecialKind,
  type Store,
  type StoredSegment,
  type TreeOptions,
  type TreePage,
  type Version,
} from './store.ts'

/** A body is one buffer here, and a bound keeps a mistake from taking the whole machine's memory. */
const FILE_BYTES_MAX = 2 ** 31
const PATH_BYTES_MAX = 4095
const PAGE_ENTRIES = 1000
const CHUNK_BYTES = 1 << 20

const CAPABILITIES: Capabilities = {
  guards: { create: 'atomic', replace: 'atomic', remove: 'atomic', copy: 'atomic' },
  listingOrdered: true,
  listingComplete: true,
  renameAtomic: true,
  attributes: true,
  specials: true,
  checkAttributes: () => undefined,
  pathBytesMax: PATH_BYTES_MAX,
  fileBytesMax: FILE_BYTES_MAX,
}

/** Opens a new, empty store in memory. */
export function openMemoryStore(): Store {
  return new MemoryStore()
}

/** What lies under a key; `bytes` are of a file, or the target of a symlink, and are never changed. */
interface Node {
  readonly kind: Kind
  readonly version: Version
  readonly modified: Entry['modified']
  readonly attributes: Attributes
  readonly bytes: Buffer
}

const NO_BYTES = Buffer.alloc(0)

class MemoryStore implements Store {
  readonly url = 'memory:'
  readonly capabilities = CAPABILITIES
  /** By sort key: files and symlinks by path, explicit directories by path and `/`; the root is `/`. */
  readonly #nodes = new SortedMap<Node>()
  #versionLast = 0

  async stat(path: string, options: CallOptions = {}): Promise<Entry> {
    this.#enter('stat', path, options)
    return this.#require('stat', path)
  }

  async *list(path: string, options: ListOptions = {}): AsyncGenerator<readonly Entry[]> {
    this.#enter('list', path, options)
    if (this.#require('list', path).kind !== 'directory') {
      throw new OperationError('STORE_NOT_DIRECTORY', `Cannot list "${path}": it is not a directory`)
    }
    const { prefix = '', after = '', recursive = false, pageEntries = PAGE_ENTRIES } = options
    const base = path === '' ? '' : `${path}/`
    let key = compareUtf8(prefix, after) > 0 ? this.#nodes.ceiling(base + prefix) : this.#nodes.higher(base + after)
    let page: Entry[] = []
    while (key !== undefined && key.startsWith(base)) {
      const relative = key.slice(base.length)
      const slash = recursive ? -1 : relative.indexOf('/')
      const shown = slash === -1 ? relative : relative.slice(0, slash + 1)
      if (!relative.startsWith(prefix)) break
      // The root's own key is "/", a directory's own is "dir/": neither is an entry of itself.
      if (shown !== '' && shown !== '/' && shown.startsWith(prefix) && compareUtf8(shown, after) > 0) {
        const entryPath = base + (shown.endsWith('/') ? shown.slice(0, -1) : shown)
        const entry = this.#find(entryPath)
        if (entry !== undefined) page.push(entry)
      }
      // "0" is the character after "/": no key under the directory sorts at or after it.
      key = slash === -1 ? this.#nodes.higher(key) : this.#nodes.ceiling(`${base}${relative.slice(0, slash)}0`)
      if (page.length >= pageEntries) {
        yield page
        page = []
        checkAborted(`list "${path}"`, options.signal)
      }
    }
    if (page.length > 0) yield page
  }

  async listTree(path: string, options: TreeOptions = {}): Promise<TreePage> {
    this.#enter('list', path, options)
    const { after = '', pageEntries = PAGE_ENTRIES } = options
    const base = path === '' ? '' : `${path}/`
    const keys: string[] = []
    let shown = after.slice(0, after.lastIndexOf('/') + 1)
    let key = this.#nodes.higher(base + after)
    for (; key?.startsWith(base) === true && keys.length < pageEntries; key = this.#nodes.higher(key)) {
      const relative = key.slice(base.length)
      // The root's own key is "/", a directory's own is "dir/": neither is an entry of itself.
      if (relative === '' || key === '/') continue
      for (const directory of directoriesEntered(relative, shown)) keys.push((shown = directory))
      if (shown !== relative) keys.push(relative)
    }
    const entries = keys.map((each) => this.#require('list', base + (each.endsWith('/') ? each.slice(0, -1) : each)))
    return { entries, isLast: key?.startsWith(base) !== true }
  }

  async read(path: string, options: ReadOptions = {}): Promise<Reading> {
    this.#enter('read', path, options)
    const entry = this.#require('read', path)
    checkReadable('read', path, entry.kind)
    if (options.version !== undefined && options.version !== entry.version) throw conflict('read', path)
    const bytes = this.#nodes.get(path)?.bytes ?? NO_BYTES
    const start = Math.min(options.offset ?? 0, bytes.length)
    const end = Math.min(start + (options.length ?? bytes.length), bytes.length)
    return memoryReading(path, entry, bytes.subarray(start, end), options.signal)
  }

  async readLink(path: string, options: CallOptions = {}): Promise<string> {
    this.#enter('read the link', path, options)
    if (this.#require('read the link', path).kind !== 'symlink') {
      throw new OperationError('INPUT_INVALID', `Cannot read the link "${path}": it is not a symlink`)
    }
    return (this.#nodes.get(path)?.bytes ?? NO_BYTES).toString()
  }

  async put(path: string, source: Source, options: PutOptions): Promise<Entry> {
    this.#enter('put', path, options)
    const bytes = await takeSource(path, source, options.signal, (segment) => this.#storedBytes(path, segment))
    return this.#place('put', path, 'file', bytes, options)
  }

  async symlink(path: string, target: string, options: PutOptions): Promise<Entry> {
    this.#enter('make the symlink', path, options)
    return this.#place('make the symlink', path, 'symlink', Buffer.from(target), options)
  }

  async makeDirectory(path: string, options: PutOptions): Promise<Entry> {
    this.#enter('make the directory', path, options)
    const found = this.#find(path)
    checkGuard('make the directory', path, found, options.guard)
    if (found !== undefined && found.kind !== 'directory') {
      throw new OperationError('STORE_NOT_DIRECTORY', `Cannot make the directory "${path}": a ${found.kind} is there`)
    }
    if (found === undefined) this.#checkParents('make the directory', path)
    const attributes = { ...found?.attributes, ...options.attributes }
    return this.#write(path, 'directory', NO_BYTES, attributes)
  }

  async setAttributes(path: string, changes: Attributes, options: MutateOptions): Promise<Entry> {
    this.#enter('set attributes of', path, options)
    const found = this.#require('set attributes of', path)
    checkGuard('set attributes of', path, found, options.guard)
    const bytes = this.#nodes.get(keyOf(path, found.kind))?.bytes ?? NO_BYTES
    return this.#write(path, found.kind, bytes, { ...found.attributes, ...changes })
  }

  async copy(from: string, to: string, options: CopyOptions): Promise<Entry> {
    this.#enter('copy', from, options)
    checkPath(to)
    const found = this.#require('copy', from)
    checkReadable('copy', from, found.kind)
    if (options.version !== undefined && options.version !== found.version) throw conflict('copy', from)
    const bytes = this.#nodes.get(from)?.bytes ?? NO_BYTES
    return this.#place('copy to', to, found.kind, bytes, {
      guard: options.guard,
      attributes: options.attributes ?? found.attributes ?? {},
    })
  }

  async rename(from: string, to: string, options: RenameOptions): Promise<Entry> {
    this.#enter('rename', from, options)
    checkPath(to)
    const source = this.#require('rename', from)
    checkGuard('rename', from, source, options.guard)
    checkRenamePaths(from, to, source.kind)
    const target = this.#find(to)
    checkGuard('rename to', to, target, options.targetGuard)
    if (from === to) return source
    if (target === undefined) this.#checkParents('rename to', to)
    if (source.kind === 'directory') {
      if (target !== undefined && target.kind !== 'directory') {
        throw new OperationError('STORE_NOT_DIRECTORY', `Cannot rename "${from}": "${to}" is not a directory`)
      }
      if (this.#hasEntries(to)) throw notEmpty('rename to', to)
      this.#moveTree(from, to)
    } else {
      if (target?.kind === 'directory') throw isDirectory('rename to', to)
      const node = this.#nodes.get(from)
      this.#nodes.delete(from)
      if (node !== undefined) this.#nodes.set(to, node)
    }
    return this.#require('rename', to)
  }

  async remove(path: string, options: MutateOptions): Promise<void> {
    this.#enter('remove', path, options)
    const found = this.#require('remove', path)
    if (found.kind === 'directory') throw isDirectory('remove', path)
    checkGuard('remove', path, found, options.guard)
    this.#nodes.delete(path)
  }

  async removeDirectory(path: string, options: CallOptions = {}): Promise<void> {
    this.#enter('remove the directory', path, options)
    checkRemovableDirectory(path, this.#require('remove the directory', path))
    if (this.#hasEntries(path)) throw notEmpty('remove the directory', path)
    this.#nodes.delete(`${path}/`)
  }

  async makeSpecial(path: string, kind: SpecialKind, options: PutOptions): Promise<Entry> {
    this.#enter(`make the ${kind}`, path, options)
    return this.#place(`make the ${kind}`, path, kind, NO_BYTES, options)
  }

  async exchange(path: string, other: string, options: ExchangeOptions): Promise<void> {
    this.#enter('exchange', path, options)
    checkPath(other)
    const [found, otherFound] = [this.#require('exchange', path), this.#require('exchange', other)]
    checkGuard('exchange', path, found, options.guard)
    checkGuard('exchange', other, otherFound, options.otherGuard)
    checkExchangePaths(path, other)
    if (path === other) return
    const [taken, otherTaken] = [this.#take(path, found.kind), this.#take(other, otherFound.kind)]
    for (const [rest, node] of taken) this.#nodes.set(other + rest, node)
    for (const [rest, node] of otherTaken) this.#nodes.set(path + rest, node)
  }

  async removeAll(
    removals: readonly Removal[],
    options: CallOptions = {},
  ): Promise<readonly (OperationError | undefined)[]> {
    checkAborted(`remove ${removals.length} entries`, options.signal)
    return removeEach(this, removals, options)
  }

  async space(): Promise<Space | undefined> {
    return undefined
  }

  async close(): Promise<void> {}

  #enter(action: string, path: string, options: CallOptions): void {
    checkPath(path)
    if (path.length * 3 > PATH_BYTES_MAX && Buffer.byteLength(path) > PATH_BYTES_MAX) {
      throw new OperationError('STORE_NAME_TOO_LONG', `Cannot ${action} "${path.slice(0, 40)}…": the path is too long`)
    }
    checkAborted(`${action} "${path}"`, options.signal)
  }

  #find(path: string): Entry | undefined {
    const file = path === '' ? undefined : this.#nodes.get(path)
    if (file !== undefined) return entryOf(path, file)
    const directory = this.#nodes.get(`${path}/`)
    if (directory !== undefined) return entryOf(path, directory)
    if (path !== '' && !this.#hasEntries(path)) return undefined
    const epoch = timestampFromMs(0)
    return { path, kind: 'directory', size: 0, version: IMPLICIT_VERSION, modified: epoch, attributes: {} }
  }

  #require(action: string, path: string): Entry {
    const found = this.#find(path)
    if (found !== undefined) return found
    this.#checkParents(action, path)
    throw notFound(action, path)
  }

  #hasEntries(path: string): boolean {
    return this.#nodes.higher(`${path}/`)?.startsWith(`${path}/`) ?? false
  }

  #checkParents(action: string, path: string): void {
    for (let parent = parentOf(path); parent !== ''; parent = parentOf(parent)) {
      if (this.#nodes.get(parent) !== undefined) throw notDirectory(action, path, parent)
    }
  }

  #place(action: string, path: string, kind: Kind, bytes: Buffer, options: PutOptions): Entry {
    const found = this.#find(path)
    checkGuard(action, path, found, options.guard)
    if (found?.kind === 'directory') throw isDirectory(action, path)
    if (found === undefined) this.#checkParents(action, path)
    return this.#write(path, kind, bytes, options.attributes ?? {})
  }

  #write(path: string, kind: Kind, bytes: Buffer, attributes: Attributes): Entry {
    this.#versionLast++
    const version = String(this.#versionLast) as Version
    const node: Node = { kind, version, modified: timestampNow(), attributes: copyAttributes(attributes), bytes }
    this.#nodes.set(keyOf(path, kind), node)
    return entryOf(path, node)
  }

  #moveTree(from: string, to: string): void {
    const taken = this.#take(from, 'directory')
    this.#nodes.delete(`${to}/`)
    for (const [rest, node] of taken) this.#nodes.set(to + rest, node)
  }

  /** Takes the entry out, with all that lies under it: what follows `path` in each key, and its node. */
  #take(path: string, kind: Kind): readonly (readonly [string, Node])[] {
    const keys: string[] = []
    if (kind === 'directory') {
      let key = this.#nodes.ceiling(`${path}/`)
      while (key !== undefined && key.startsWith(`${path}/`)) {
        keys.push(key)
        key = this.#nodes.higher(key)
      }
    } else {
      keys.push(path)
    }
    return keys.flatMap((key) => {
      const node = this.#nodes.get(key)
      this.#nodes.delete(key)
      return node === undefined ? [] : [[key.slice(path.length), node] as const]
    })
  }

  #storedBytes(path: string, { path: from, version, offset, length }: StoredSegment): Buffer {
    checkPath(from)
    const node = from === '' ? undefined : this.#nodes.get(from)
    if (node === undefined || node.kind !== 'file' || node.version !== version) throw conflict('put from', from)
    if (offset + length <= node.bytes.length) return node.bytes.subarray(offset, offset + length)
    throw pastEnd(path, from)
  }
}

function keyOf(path: string, kind: Kind): string {
  return kind === 'directory' ? `${path}/` : path
}

function entryOf(path: string, node: Node): Entry {
  const { kind, version, modified, attributes, bytes } = node
  return { path, kind, size: bytes.length, version, modified, attributes }
}

async function takeSource(
  path: string,
  source: Source,
  signal: AbortSignal | undefined,
  stored: (segment: StoredSegment) => Buffer,
): Promise<Buffer> {
  const said = sourceLength(source)
  if (said !== undefined) checkFileSize(path, said)
  if (source instanceof Uint8Array) return Buffer.from(source)
  if (source.kind === 'file') {
    const bytes = await takeSegments(path, source.segments, signal, stored)
    source.check?.()
    return bytes
  }
  const chunks: Uint8Array[] = []
  let size = 0
  const iterator = source.stream[Symbol.asyncIterator]()
  let ended = false
  try {
    for (;;) {
      const next = await untilAborted(`put "${path}"`, iterator.next(), signal)
      if (next.done === true) break
      size += next.value.length
      checkFileSize(path, size)
      if (said !== undefined && size > said) throw lengthError(path, said, `has more`)
      chunks.push(next.value)
    }
    ended = true
  } catch (error) {
    throw streamError(path, error)
  } finally {
    // Not awaited: a stream that hangs would keep the put from ending.
    if (!ended) iterator.return?.().catch(() => undefined)
  }
  if (said !== undefined && size < said) throw lengthError(path, said, `ended after ${size}`)
  return Buffer.concat(chunks, size)
}

async function takeSegments(
  path: string,
  segments: readonly Segment[],
  signal: AbortSignal | undefined,
  stored: (segment: StoredSegment) => Buffer,
): Promise<Buffer> {
  if (!segments.some(isStored)) return readFileSegments(path, localSegments(path, segments), signal)
  const pieces: Buffer[] = []
  for (const segment of segments) {
    pieces.push(isStored(segment) ? stored(segment) : await readFileSegments(path, [segment], signal))
  }
  return Buffer.concat(pieces)
}

function checkFileSize(path: string, size: number): void {
  if (size <= FILE_BYTES_MAX) return
  throw new OperationError('STORE_FILE_TOO_LARGE', `Cannot put "${path}": memory holds ${FILE_BYTES_MAX} bytes a file`)
}

function memoryReading(path: string, entry: Entry, bytes: Buffer, signal: AbortSignal | undefined): Reading {
  let cancelled = false
  async function* chunks(): AsyncGenerator<Uint8Array> {
    for (let start = 0; start < bytes.length && !cancelled; start += CHUNK_BYTES) {
      checkAborted(`read "${path}"`, signal)
      yield Buffer.from(bytes.subarray(start, start + CHUNK_BYTES))
    }
  }
  return {
    entry,
    length: bytes.length,
    body: { [Symbol.asyncIterator]: chunks },
    bytes: async () => {
      checkAborted(`read "${path}"`, signal)
      return Buffer.from(bytes)
    },
    cancel: () => {
      cancelled = true
    },
  }
}
