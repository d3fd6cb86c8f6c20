/**
 * A store that tries changes out: it shows another store with every change made, keeps the changes on local disk, and sends
 * none of them. Each is logged in one line with what it would have cost in requests, on S3 also in money, and at the end their sum. With the store,
 * the changes are gone.
 *
 * Guards hold as they would in a store that checks them, against what shows here; what others change in the store within
 * goes on to show wherever nothing was changed here. Looking is not free: a change asks the store within what is there.
 */
import type { Logger } from '#base/log.ts'
import { isOperationError, OperationError } from '#base/errors.ts'
import { timestampNow } from '#base/time.ts'

import { checkAborted } from './abort.ts'
import { MemoryReading } from './directory/reading.ts'
import { countOf, requestsOf, type Change } from './dry-run/cost.ts'
import { Facts, withFacts } from './dry-run/facts.ts'
import { movedEntry, movedHidden, OverlayListing } from './dry-run/listing.ts'
import { leafEntry, Overlay, ownEntry, type Content, type Directory, type Leaf, type Node } from './dry-run/overlay.ts'
import { Spool } from './dry-run/spool.ts'
import { View } from './dry-run/view.ts'
import { checkPath } from './path.ts'
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
} from './refusals.ts'
import { estimatedCostUsd } from './s3/prices.ts'
import { sourceLength } from './source.ts'
import {
  type Attributes,
  type CallOptions,
  type Capabilities,
  type CopyOptions,
  type Entry,
  type ExchangeOptions,
  type ListOptions,
  type MutateOptions,
  type PutOptions,
  type Reading,
  type ReadOptions,
  type Removal,
  type RenameOptions,
  type Source,
  type Space,
  type SpecialKind,
  type StatOptions,
  type Store,
  type Version,
} from './store.ts'
import { removeEach } from './remove-each.ts'

export interface DryRunOptions {
  /** Where the bytes are kept, in a directory that is made here and removed at the end. */
  readonly directory: string
  readonly log: Pick<Logger, 'info'>
  /** By whose prices requests to S3 are estimated; `STANDARD` where absent. */
  readonly storageClass?: string
}

/** What the changes so far would have been. */
export interface DryRunSummary {
  readonly changes: number
  readonly bytes: number
  readonly requests: number
  /** US dollars for the requests, at list prices; absent where requests cost nothing. */
  readonly costUsd?: number
}

export interface DryRunStore extends Store {
  summary(): DryRunSummary
}

/** Of a removal of many, so many are named. */
const NAMED_MAX = 10
/** Digits of a cost after the point: the cheapest request costs $0.00000003. */
const COST_DIGITS = 8
const NO_BYTES = Buffer.alloc(0)

/** Shows `inner` with changes that never reach it; closing it closes `inner`. @throws OperationError as local disks fail. */
export function dryRunStore(inner: Store, options: DryRunOptions): DryRunStore {
  return new OverlaidStore(inner, options)
}

class OverlaidStore implements DryRunStore {
  readonly url: string
  readonly capabilities: Capabilities
  readonly #inner: Store
  readonly #log: DryRunOptions['log']
  readonly #spool: Spool
  readonly #overlay: Overlay
  readonly #view: View
  #versionLast = 0
  #changes = 0
  #bytes = 0
  #requests = 0
  #costUsd = 0
  readonly #prices: string | undefined
  #closed = false

  constructor(inner: Store, { directory, log, storageClass = 'STANDARD' }: DryRunOptions) {
    this.#inner = inner
    this.#log = log
    this.#prices = inner.url.startsWith('s3:') ? storageClass : undefined
    this.#spool = new Spool(directory)
    this.#overlay = new Overlay(({ content }) => this.#release(content))
    this.#view = new View(this.#overlay)
    this.url = inner.url
    // Changes are one step here, whatever they would be there.
    const guards = { create: 'atomic', replace: 'atomic', remove: 'atomic', copy: 'atomic' } as const
    this.capabilities = { ...inner.capabilities, guards, renameAtomic: true }
  }

  summary(): DryRunSummary {
    const sums = { changes: this.#changes, bytes: this.#bytes, requests: this.#requests }
    return this.#prices === undefined ? sums : { ...sums, costUsd: rounded(this.#costUsd) }
  }

  async stat(path: string, options: StatOptions = {}): Promise<Entry> {
    this.#enter('stat', path, options)
    const found = this.#overlay.find(path)
    // What was not touched is asked for as it is, with what the caller expects there.
    if (found.at === 'inner') return movedEntry(await this.#inner.stat(found.path, options), found.path, path)
    return this.#step(options.signal, (facts) => this.#view.require('stat', path, facts))
  }

  async *list(path: string, options: ListOptions = {}): AsyncGenerator<readonly Entry[]> {
    this.#enter('list', path, options)
    const found = this.#overlay.find(path)
    if (found.at === 'inner') {
      for await (const page of this.#inner.list(found.path, {
        ...options,
        ...movedHidden(options, found.path, path),
      })) {
        yield page.map((entry) => movedEntry(entry, found.path, path))
      }
      return
    }
    if (found.at === 'nowhere') throw notFound('list', path)
    if (found.at === 'leaf') throw notDirectory('list', path, found.path)
    if (found.node.type === 'leaf') throw notDirectory('list', path, path)
    const directoryEntry = (at: string, directory: Directory, call: CallOptions): Promise<Entry> =>
      this.#step(call.signal, (facts) => this.#view.directoryEntry(at, directory, facts))
    yield* new OverlayListing(this.#inner, options, directoryEntry).pages(path, found.node)
  }

  async read(path: string, options: ReadOptions = {}): Promise<Reading> {
    this.#enter('read', path, options)
    const found = this.#overlay.find(path)
    if (found.at === 'nowhere') throw notFound('read', path)
    if (found.at === 'leaf') throw notDirectory('read', path, found.path)
    if (found.at === 'inner') {
      const reading = await this.#inner.read(found.path, options)
      return asEntry(reading, movedEntry(reading.entry, found.path, path))
    }
    if (found.node.type === 'directory') throw isDirectory('read', path)
    return this.#readLeaf(path, found.node, options)
  }

  async readLink(path: string, options: CallOptions = {}): Promise<string> {
    this.#enter('read the link', path, options)
    const found = this.#overlay.find(path)
    if (found.at === 'inner') return this.#inner.readLink(found.path, options)
    const { kind } = await this.#step(options.signal, (facts) => this.#view.require('read', path, facts))
    if (kind === 'symlink') return (await (await this.read(path, options)).bytes()).toString()
    throw new OperationError('INPUT_INVALID', `Cannot read the link "${path}": it is not a symlink`)
  }

  async put(path: string, source: Source, options: PutOptions): Promise<Entry> {
    this.#enter('put', path, options)
    this.#checkSize(path, sourceLength(source))
    const attributes = this.#kept(path, 'file', options.attributes)
    // Before any byte is kept; the tree is looked at again then, and the store within, which costs requests, is not.
    const facts = this.#factsFor(path, options)
    await withFacts(facts, () => this.#view.checkPlace('put', path, options.guard, facts))
    const file = await this.#spool.write(path, source, options.signal, (from, read) => this.read(from, read))
    const leaf = this.#leaf('file', file.size, { kind: 'spooled', file }, attributes)
    const entry = await this.#placeNew('put', path, leaf, options, facts)
    this.#record({ kind: 'put', bytes: file.size }, { path }, file.size)
    return entry
  }

  async symlink(path: string, target: string, options: PutOptions): Promise<Entry> {
    this.#enter('make the symlink', path, options)
    if (!this.capabilities.attributes) throw unsupported(`make the symlink "${path}"`)
    const bytes = Buffer.from(target)
    const attributes = this.#kept(path, 'symlink', options.attributes)
    const leaf = this.#leaf('symlink', bytes.length, { kind: 'memory', bytes }, attributes)
    const entry = await this.#placeNew('make the symlink', path, leaf, options)
    this.#record({ kind: 'symlink', looks: looks(options) }, { path }, bytes.length)
    return entry
  }

  async makeSpecial(path: string, kind: SpecialKind, options: PutOptions): Promise<Entry> {
    this.#enter(`make the ${kind}`, path, options)
    if (!this.capabilities.specials) throw unsupported(`make the ${kind} "${path}"`)
    const attributes = this.#kept(path, kind, options.attributes)
    const leaf = this.#leaf(kind, 0, { kind: 'memory', bytes: NO_BYTES }, attributes)
    const entry = await this.#placeNew(`make the ${kind}`, path, leaf, options)
    this.#record({ kind: 'makeSpecial', looks: looks(options) }, { path }, 0)
    return entry
  }

  async makeDirectory(path: string, options: PutOptions): Promise<Entry> {
    const action = 'make the directory'
    this.#enter(action, path, options)
    const attributes = this.#kept(path, 'directory', options.attributes)
    const entry = await this.#step(options.signal, (facts) => {
      const found = this.#view.find(path, facts)
      checkGuard(action, path, found, options.guard)
      if (found === undefined) this.#view.checkParents(action, path, facts)
      else if (found.kind !== 'directory') throw notDirectory(action, path, path)
      return this.#changeDirectory(path, { ...found?.attributes, ...attributes }, found !== undefined)
    })
    this.#record({ kind: 'makeDirectory', looks: options.seenAbsent !== true }, { path }, 0)
    return entry
  }

  async setAttributes(path: string, changes: Attributes, options: MutateOptions): Promise<Entry> {
    const action = 'set attributes of'
    this.#enter(action, path, options)
    const entry = await this.#step(options.signal, (facts) => {
      const found = this.#view.require(action, path, facts)
      checkGuard(action, path, found, options.guard)
      const attributes = { ...found.attributes, ...this.#kept(path, found.kind, changes) }
      if (found.kind === 'directory') return this.#changeDirectory(path, attributes, true)
      const leaf = this.#leaf(found.kind, found.size, this.#contentOf(path, found), attributes)
      return this.#setLeaf(path, leaf)
    })
    this.#record({ kind: 'setAttributes' }, { path }, 0)
    return entry
  }

  async copy(from: string, to: string, options: CopyOptions): Promise<Entry> {
    this.#enter('copy', from, options)
    this.#enter('copy to', to, options)
    const entry = await this.#step(options.signal, (facts) => {
      const found = this.#view.require('copy', from, facts)
      checkReadable('copy', from, found.kind)
      if (options.version !== undefined && options.version !== found.version) throw conflict('copy', from)
      this.#view.checkPlace('copy to', to, options.guard, facts)
      const attributes = this.#kept(to, found.kind, options.attributes ?? found.attributes)
      return this.#setLeaf(to, this.#leaf(leafKind(found), found.size, this.#contentOf(from, found), attributes))
    })
    this.#record({ kind: 'copy' }, { path: from, to }, 0)
    return entry
  }

  async rename(from: string, to: string, options: RenameOptions): Promise<Entry> {
    this.#enter('rename', from, options)
    this.#enter('rename to', to, options)
    const entries = await this.#countEntries(from, options.signal)
    const entry = await this.#step(options.signal, (facts) => {
      const source = this.#view.require('rename', from, facts)
      checkGuard('rename', from, source, options.guard)
      checkRenamePaths(from, to, source.kind)
      const target = this.#view.find(to, facts)
      checkGuard('rename to', to, target, options.targetGuard)
      if (from === to) return source
      if (target === undefined) this.#view.checkParents('rename to', to, facts)
      else if (source.kind !== 'directory' && target.kind === 'directory') throw isDirectory('rename to', to)
      else if (source.kind === 'directory' && target.kind !== 'directory') throw notDirectory('rename to', to, to)
      if (target?.kind === 'directory' && this.#view.hasEntries(to, facts)) throw notEmpty('rename to', to)
      this.#overlay.set(to, this.#takeNode(from, source))
      return { ...source, path: to }
    })
    if (from !== to) {
      this.#record({ kind: 'rename', entries, directory: entry.kind === 'directory' }, { path: from, to }, 0)
    }
    return entry
  }

  async exchange(path: string, other: string, options: ExchangeOptions): Promise<void> {
    this.#enter('exchange', path, options)
    this.#enter('exchange', other, options)
    const [count, otherCount] = [
      await this.#countEntries(path, options.signal),
      await this.#countEntries(other, options.signal),
    ]
    await this.#step(options.signal, (facts) => {
      const [found, otherFound] = [
        this.#view.require('exchange', path, facts),
        this.#view.require('exchange', other, facts),
      ]
      checkGuard('exchange', path, found, options.guard)
      checkGuard('exchange', other, otherFound, options.otherGuard)
      checkExchangePaths(path, other)
      if (path === other) return
      const [node, otherNode] = [this.#takeNode(path, found), this.#takeNode(other, otherFound)]
      this.#overlay.set(path, otherNode)
      this.#overlay.set(other, node)
    })
    if (path !== other) this.#record({ kind: 'exchange', entries: count + otherCount }, { path, to: other }, 0)
  }

  async remove(path: string, options: MutateOptions): Promise<void> {
    await this.#remove(path, options)
    this.#record({ kind: 'remove', guarded: options.guard.kind === 'version' }, { path }, 0)
  }

  async removeDirectory(path: string, options: CallOptions = {}): Promise<void> {
    await this.#removeDirectory(path, options)
    this.#record({ kind: 'removeDirectory' }, { path }, 0)
  }

  async removeAll(
    removals: readonly Removal[],
    options: CallOptions = {},
  ): Promise<readonly (OperationError | undefined)[]> {
    checkAborted(`remove ${removals.length} entries`, options.signal)
    const quietly = {
      remove: (path: string, call: MutateOptions) => this.#remove(path, call),
      removeDirectory: (path: string, call?: CallOptions) => this.#removeDirectory(path, call ?? {}),
    }
    const outcomes = await removeEach(quietly, removals, options)
    const removed = removals.filter((_, index) => outcomes[index] === undefined)
    const entries = removed.length
    if (entries > 0) {
      const paths = removed.slice(0, NAMED_MAX).map(({ path }) => path)
      this.#record({ kind: 'removeAll', entries }, { entries, paths }, 0)
    }
    return outcomes
  }

  space(options: CallOptions = {}): Promise<Space | undefined> {
    return this.#inner.space(options)
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#log.info({ ...this.summary() }, 'the dry run has ended: none of these changes was sent')
    try {
      await this.#spool.close()
    } finally {
      await this.#inner.close()
    }
  }

  #enter(action: string, path: string, options: CallOptions): void {
    checkPath(path)
    const { pathBytesMax } = this.capabilities
    if (path.length * 3 > pathBytesMax && Buffer.byteLength(path) > pathBytesMax) {
      throw new OperationError('STORE_NAME_TOO_LONG', `Cannot ${action} "${path.slice(0, 40)}…": the path is too long`)
    }
    checkAborted(`${action} "${path}"`, options.signal)
  }

  #checkSize(path: string, size: number | undefined): void {
    const { fileBytesMax } = this.capabilities
    if (size === undefined || size <= fileBytesMax) return
    throw new OperationError(
      'STORE_FILE_TOO_LARGE',
      `Cannot put "${path}": the store holds ${fileBytesMax} bytes a file`,
    )
  }

  /** The attributes as the store within would keep them. @throws OperationError where it would not take them. */
  #kept(path: string, kind: Entry['kind'], attributes: Attributes = {}): Attributes {
    if (!this.capabilities.attributes) return {}
    this.capabilities.checkAttributes(path, kind, attributes)
    return copyAttributes(attributes)
  }

  /** A synchronous step with what it asks for; see `facts.ts`. */
  #step<T>(signal: AbortSignal | undefined, step: (facts: Facts) => T): Promise<T> {
    return withFacts(new Facts(this.#inner, signal), step)
  }

  /** Facts for what is to be put at the path; what the caller has seen is not asked for again. */
  #factsFor(path: string, { guard, seenAbsent = false, signal }: PutOptions): Facts {
    const facts = new Facts(this.#inner, signal, 'file')
    const found = this.#overlay.find(path)
    if (seenAbsent && guard.kind === 'absent' && found.at === 'inner') facts.tell(found.path, notFound('stat', path))
    return facts
  }

  async #placeNew(
    action: string,
    path: string,
    leaf: Leaf,
    options: PutOptions,
    facts = this.#factsFor(path, options),
  ): Promise<Entry> {
    try {
      return await withFacts(facts, () => {
        this.#view.checkPlace(action, path, options.guard, facts)
        return this.#setLeaf(path, leaf)
      })
    } catch (error) {
      this.#release(leaf.content)
      throw error
    }
  }

  #setLeaf(path: string, leaf: Leaf): Entry {
    this.#overlay.set(path, leaf)
    return leafEntry(path, leaf)
  }

  #leaf(kind: Leaf['kind'], size: number, content: Content, attributes: Attributes): Leaf {
    return { type: 'leaf', kind, size, content, attributes, version: this.#newVersion(), modified: timestampNow() }
  }

  #newVersion(): Version {
    this.#versionLast++
    return `dry-run-${this.#versionLast}` as Version
  }

  /** Gives the directory attributes of its own; `there`: its entries go on to show. */
  #changeDirectory(path: string, attributes: Attributes, there: boolean): Entry {
    const own = { version: this.#newVersion(), modified: timestampNow(), attributes }
    const found = this.#overlay.find(path)
    if (found.at === 'node' && found.node.type === 'directory') found.node.own = own
    else {
      const base = there && found.at === 'inner' ? found.path : undefined
      this.#overlay.set(path, { type: 'directory', base, own, children: new Map() })
    }
    return ownEntry(path, own)
  }

  /** What the entry's bytes are, for one more entry that has them. */
  #contentOf(path: string, entry: Entry): Content {
    const found = this.#overlay.find(path)
    if (found.at === 'node' && found.node.type === 'leaf') {
      const { content } = found.node
      if (content.kind === 'spooled') content.file.users++
      return content
    }
    return { kind: 'stored', path: found.at === 'inner' ? found.path : path, version: entry.version }
  }

  /** Takes the entry out of the tree. */
  #takeNode(path: string, entry: Entry): Node {
    const found = this.#overlay.find(path)
    const node = this.#overlay.take(path)
    if (node !== undefined) return node
    const base = found.at === 'inner' ? found.path : path
    if (entry.kind === 'directory') return { type: 'directory', base, own: undefined, children: new Map() }
    const { kind, size, version, modified, attributes = {} } = entry
    return { type: 'leaf', kind, size, version, modified, attributes, content: { kind: 'stored', path: base, version } }
  }

  async #readLeaf(path: string, leaf: Leaf, options: ReadOptions): Promise<Reading> {
    const { kind, content, version } = leaf
    checkReadable('read', path, kind)
    if (options.version !== undefined && options.version !== version) throw conflict('read', path)
    const entry = leafEntry(path, leaf)
    if (content.kind === 'spooled') return this.#spool.read(content.file, entry, options)
    if (content.kind === 'stored') {
      return asEntry(await this.#inner.read(content.path, { ...options, version: content.version }), entry)
    }
    const start = Math.min(options.offset ?? 0, content.bytes.length)
    const bytes = content.bytes.subarray(start, start + (options.length ?? content.bytes.length))
    return new MemoryReading(entry, Buffer.from(bytes), options.signal)
  }

  async #remove(path: string, options: MutateOptions): Promise<void> {
    this.#enter('remove', path, options)
    await this.#step(options.signal, (facts) => {
      const found = this.#view.require('remove', path, facts)
      if (found.kind === 'directory') throw isDirectory('remove', path)
      checkGuard('remove', path, found, options.guard)
      this.#overlay.take(path, true)
    })
  }

  async #removeDirectory(path: string, options: CallOptions): Promise<void> {
    this.#enter('remove the directory', path, options)
    await this.#step(options.signal, (facts) => {
      checkRemovableDirectory(path, this.#view.require('remove the directory', path, facts))
      if (this.#view.hasEntries(path, facts)) throw notEmpty('remove the directory', path)
      this.#overlay.take(path, true)
    })
  }

  #release(content: Content): void {
    if (content.kind === 'spooled') this.#spool.release(content.file)
  }

  /** How many entries a move of the path has to do with; what is wrong with the path is told by the move itself. */
  async #countEntries(path: string, signal: AbortSignal | undefined): Promise<number> {
    const call = signal === undefined ? {} : { signal }
    let count = 1
    try {
      if ((await this.stat(path, call)).kind !== 'directory') return count
      for await (const page of this.list(path, { ...call, recursive: true })) count += page.length
    } catch (error) {
      if (!isOperationError(error, 'STORE_NOT_FOUND', 'STORE_NOT_DIRECTORY')) throw error
    }
    return count
  }

  #record(change: Change, where: Where, bytes: number): void {
    const sent = requestsOf(change)
    const requests = countOf(sent)
    this.#changes++
    this.#bytes += bytes
    this.#requests += requests
    const line = { change: change.kind, ...where, bytes, requests }
    if (this.#prices === undefined) {
      this.#log.info(line, 'dry run: not sent')
      return
    }
    const usd = estimatedCostUsd(
      sent.map((each) => ({ ...each, outcome: 'ok' })),
      this.#prices,
    )
    this.#costUsd += usd
    this.#log.info({ ...line, costUsd: rounded(usd) }, 'dry run: not sent')
  }
}

/** What a change is about: one path, two, or the first of many with their count. */
type Where =
  | { readonly path: string; readonly to?: string }
  | { readonly entries: number; readonly paths: readonly string[] }

function rounded(usd: number): number {
  return Number(usd.toFixed(COST_DIGITS))
}

/** Whether a store that knows no directories would look before whether the path is free. */
function looks({ guard, seenAbsent = false }: PutOptions): boolean {
  return guard.kind === 'absent' && !seenAbsent
}

function leafKind({ path, kind }: Entry): Leaf['kind'] {
  if (kind === 'directory') throw isDirectory('copy', path)
  return kind
}

function asEntry(reading: Reading, entry: Entry): Reading {
  return {
    entry,
    length: reading.length,
    get body() {
      return reading.body
    },
    bytes: () => reading.bytes(),
    cancel: () => reading.cancel(),
  }
}

function unsupported(action: string): OperationError {
  return new OperationError('STORE_UNSUPPORTED', `Cannot ${action}: the store keeps none`)
}
