/**
 * `cp`: files and trees into the cluster, out of it, and within it. A path with a colon before it is one of the cluster, as with scp; `-` is
 * standard input or output; every other one is of this machine.
 *
 * A directory is made before what lies in it is copied, and gets its attributes after that. So many entries are under way at a time,
 * in the order of the tree; what fails is told, and the rest goes on.
 */
import { basename, resolve } from 'node:path'
import { posix } from 'node:path'

import { isOperationError, OperationError } from '#base/errors.ts'
import { inParallel } from '#store/parallel.ts'

import type { ExitCode } from '#cli/command.ts'
import { ClusterEnd } from './copy-cluster.ts'
import {
  type CopyExtras,
  type CopyKind,
  type CopyNode,
  type CopySource,
  type CopyTarget,
  NO_XATTRS,
} from './copy-end.ts'
import { LocalEnd } from './copy-local.ts'
import { CopyProgress } from './copy-progress.ts'
import { named } from './names.ts'
import { clusterPath } from './place.ts'
import { exitOf, type FsSession, ownAttributes, pastTime, tellFailure } from './session.ts'
import { mapAhead } from './walk.ts'

/** Small files wait for disks and networks most of the time; the memory for large ones is bounded elsewhere. */
const ENTRIES_AT_ONCE = 32

export interface CopyOptions {
  readonly recursive: boolean
  readonly metadata: boolean
  readonly asOf: string | undefined
}

/** Something to be copied, and where it goes. */
interface CopyEntry {
  readonly from: string
  readonly to: string
  readonly node: CopyNode
  /** Whether the directory in which it comes to lie is there. */
  readonly parent: Promise<boolean>
  /** How many directories of the tree it lies in. */
  readonly depth: number
  /** Of a directory: whether it is there. */
  readonly made?: Promise<boolean>
}

/** A directory that is being copied, and how far the copy is in it. */
interface Entered {
  readonly entry: CopyEntry
  readonly names: AsyncIterator<string | OperationError>
}

/** `cp SOURCE... TARGET` */
export async function copy(session: FsSession, args: readonly string[], options: CopyOptions): Promise<ExitCode> {
  const [target = '', ...reversed] = args.toReversed()
  const sources = reversed.toReversed()
  checkEnds(sources, target, options)
  if (target === '-') return copyOut(session, sources, options)
  const progress = new CopyProgress(session)
  try {
    const run = new CopyRun(session, options, progress)
    await run.copy(sources, target)
    const exit = exitOf(progress.failed, progress.failed + progress.done)
    if (session.isJson) await session.out.json({ ...progress.totals, failed: progress.failed })
    return exit
  } finally {
    progress.end()
  }
}

function checkEnds(sources: readonly string[], target: string, { asOf }: CopyOptions): void {
  const isInCluster = (path: string): boolean => path.startsWith(':')
  const refuse = (
    detail: string,
    hint = 'Paths of the cluster have a colon before them: eider fs cp ./file :/path',
  ): never => {
    throw new OperationError('USAGE', `Cannot copy to "${target}": ${detail}`, { hint })
  }
  // As a variable is that was never set.
  if ([...sources, target].includes('')) refuse('a path has at least one character')
  if (sources.length > 1 && sources.includes('-')) refuse('standard input is one file, and the only source')
  for (const source of sources) {
    if (!isInCluster(source) && !isInCluster(target)) refuse(`neither that nor "${source}" is in the cluster`)
    if (asOf !== undefined && !isInCluster(source)) refuse(`"${source}" is not in the cluster, and has no history`)
  }
}

/** To standard output, one after the other. */
async function copyOut(session: FsSession, sources: readonly string[], { asOf }: CopyOptions): Promise<ExitCode> {
  const { concatenate } = await import('./reading.ts')
  return concatenate(session, sources, asOf)
}

/** What is named as the target. */
interface NamedTarget {
  readonly end: CopyTarget
  readonly path: string
  readonly text: string
  /** Of what is there. */
  readonly kind: CopyKind | undefined
}

class CopyRun {
  readonly #session: FsSession
  readonly #options: CopyOptions
  readonly #progress: CopyProgress

  constructor(session: FsSession, options: CopyOptions, progress: CopyProgress) {
    this.#session = session
    this.#options = options
    this.#progress = progress
  }

  async copy(sources: readonly string[], targetText: string): Promise<void> {
    const isCluster = targetText.startsWith(':')
    const end: CopyTarget = isCluster ? new ClusterEnd(this.#session) : new LocalEnd()
    const path = withoutSlash(isCluster ? posix.normalize(clusterPath(targetText)) : resolve(targetText))
    const target = { end, path, text: targetText, kind: await end.kindAt(path) }
    const [source = ''] = sources
    if (sources.length === 1) return source === '-' ? this.#copyStdin(target) : this.#copyOne(source, target)
    if (target.kind !== 'directory') throw noDirectory(target)
    const places = new Set<string>()
    for (const each of sources) await this.#attempt(`copy ${each}`, () => this.#copyOne(each, target, places))
  }

  /** `places`: where others of the sources went. */
  async #copyOne(text: string, target: NamedTarget, places = new Set<string>()): Promise<void> {
    const isInCluster = text.startsWith(':')
    const time = pastTime(this.#session, this.#options.asOf)
    const source: CopySource = isInCluster ? new ClusterEnd(this.#session, time) : new LocalEnd(this.#tellChanged)
    const path = isInCluster ? withoutSlash(posix.normalize(clusterPath(text))) : resolve(text)
    // As cp has it: what lies in the directory, and not the directory itself.
    const isContent = /(?:^|[/:])\.$/.test(text) || path === '/'
    const isInto = target.kind === 'directory'
    const to = isInto && !isContent ? target.end.below(target.path, basename(path)) : target.path
    // As all programs have it, what ends so is no symlink but the directory that it leads to.
    const from = !isInCluster && /\/\.?$/.test(text) ? await LocalEnd.followed(path) : path
    const node = await source.node(from)
    if (!isInto && target.text.endsWith('/') && node.kind !== 'directory') throw noDirectory(target)
    if (!isContent && places.has(to)) {
      const detail = 'another source of that name went there'
      throw new OperationError('NAME_TAKEN', `Cannot write ${target.end.shown(to)} twice: ${detail}`)
    }
    places.add(to)
    await this.#copyTree(source, from, node, target.end, to)
  }

  async #copyStdin({ end, path, text, kind }: NamedTarget): Promise<void> {
    if (kind === 'directory') {
      throw new OperationError('FILE_EXPECTED', `Cannot copy standard input to "${text}": it is a directory`)
    }
    if (text.endsWith('/')) throw noDirectory({ text, kind })
    const { mode, uid, gid } = ownAttributes(0o666)
    const node = { kind: 'file', size: 0, mode, uid, gid, mtime: Date.now() * 1000 } as const
    const more = { keepsOwner: false, xattrs: NO_XATTRS, signal: this.#session.signal }
    const bytes = await named(`write ${end.shown(path)}`, () =>
      end.writeFile(path, node, this.#progress.counted(process.stdin), more),
    )
    this.#progress.finish('file', bytes)
  }

  async #copyTree(source: CopySource, from: string, node: CopyNode, target: CopyTarget, to: string): Promise<void> {
    if (node.kind === 'directory') {
      if (!this.#options.recursive) {
        throw new OperationError('FILE_EXPECTED', `Cannot copy ${source.shown(from)}: it is a directory`, {
          hint: 'With --recursive (-r) it is copied with all that lies in it.',
        })
      }
      checkNotWithin(source, from, target, to)
    }
    const directories: CopyEntry[] = []
    const entries = this.#entries(
      source,
      target,
      { from, to, node, depth: 0, parent: Promise.resolve(true) },
      directories,
    )
    for await (const _ of mapAhead(entries, ENTRIES_AT_ONCE, (entry) => this.#copyEntry(source, target, entry)));
    const finish = async (entry: CopyEntry): Promise<void> => {
      await this.#attempt(`finish ${target.shown(entry.to)}`, async () => {
        await target.finishDirectory(entry.to, entry.node, await this.#extras(source, entry))
      })
    }
    // The deepest first, and those above only then: their modes may forbid to look into them.
    const levels = Map.groupBy(directories, ({ depth }) => depth)
    for (const [, level] of [...levels].toSorted(([a], [b]) => b - a)) {
      await inParallel(level, ENTRIES_AT_ONCE, finish)
    }
  }

  /** All of a tree, each directory before what lies in it, and being made when it is given out. */
  async *#entries(
    source: CopySource,
    target: CopyTarget,
    top: CopyEntry,
    directories: CopyEntry[],
  ): AsyncGenerator<CopyEntry> {
    const entered = (entry: CopyEntry): Entered => ({
      entry: { ...entry, made: this.#makeDirectory(target, entry, directories) },
      names: source.names(entry.from)[Symbol.asyncIterator](),
    })
    if (top.node.kind !== 'directory') {
      yield top
      return
    }
    const first = entered(top)
    yield first.entry
    // Not by calling itself: a tree may be deeper than a stack.
    const levels = [first]
    for (let level = levels.at(-1); level !== undefined; level = levels.at(-1)) {
      const { entry, names } = level
      const next = await this.#attempt(`list ${source.shown(entry.from)}`, () => names.next())
      if (next === undefined || next.done === true) {
        levels.pop()
        continue
      }
      const name = next.value
      if (typeof name !== 'string') {
        this.#fail(name)
        continue
      }
      const from = source.below(entry.from, name)
      const found = await this.#attempt(`copy ${source.shown(from)}`, async () => {
        return { node: await source.node(from), to: target.below(entry.to, name) }
      })
      if (found === undefined) continue
      const child = { from, ...found, depth: levels.length, parent: entry.made ?? entry.parent }
      if (found.node.kind !== 'directory') {
        yield child
        continue
      }
      const below = entered(child)
      levels.push(below)
      yield below.entry
    }
  }

  async #makeDirectory(target: CopyTarget, entry: CopyEntry, directories: CopyEntry[]): Promise<boolean> {
    const { to, node, parent } = entry
    const isMade = await this.#attempt(`make directory ${target.shown(to)}`, async () => {
      if (!(await parent)) return false
      await target.makeDirectory(to, node)
      this.#progress.finish('directory')
      directories.push(entry)
      return true
    })
    return isMade === true
  }

  async #copyEntry(source: CopySource, target: CopyTarget, entry: CopyEntry): Promise<void> {
    const { from, to, node } = entry
    if (entry.made !== undefined) {
      await entry.made
      return
    }
    await this.#attempt(`copy ${source.shown(from)}`, async () => {
      // Why there is no directory for it was told once.
      if (!(await entry.parent)) {
        this.#progress.failed++
        return
      }
      const more = await this.#extras(source, entry)
      if (node.kind === 'symlink') {
        await target.makeSymlink(to, node, await source.linkTarget(from), more)
        this.#progress.finish('symlink')
        return
      }
      const pieces = this.#progress.counted(source.read(from, node, more.signal))
      this.#progress.finish('file', await target.writeFile(to, node, pieces, more))
    })
  }

  async #extras(source: CopySource, { from, node }: CopyEntry): Promise<CopyExtras> {
    const { metadata } = this.#options
    const xattrs = metadata && node.kind !== 'symlink' ? await source.xattrs(from) : NO_XATTRS
    return { keepsOwner: metadata, xattrs, signal: this.#session.signal }
  }

  /** Tells a failure, and goes on; undefined then. */
  async #attempt<T>(action: string, work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await named(action, work)
    } catch (error) {
      if (!isOperationError(error) || error.code === 'ABORTED') throw error
      this.#fail(error)
      return undefined
    }
  }

  readonly #tellChanged = (path: string): void => {
    this.#progress.above(() =>
      this.#session.warn(`"${path}" was changed while it was copied: parts of it may be older than others`),
    )
  }

  #fail(error: OperationError): void {
    this.#progress.failed++
    this.#progress.above(() => tellFailure(error))
  }
}

function noDirectory({ text, kind }: Pick<NamedTarget, 'text' | 'kind'>): OperationError {
  const detail = kind === undefined ? 'there is no such directory' : 'it is no directory'
  return new OperationError('DIRECTORY_EXPECTED', `Cannot copy to "${text}": ${detail}`)
}

/** @throws DIRECTORY_LOOP where the copy would be copied itself */
function checkNotWithin(source: CopySource, from: string, target: CopyTarget, to: string): void {
  const isSameEnd = source instanceof ClusterEnd === target instanceof ClusterEnd
  if (!isSameEnd || !(to === from || to.startsWith(from === '/' ? '/' : `${from}/`))) return
  throw new OperationError(
    'DIRECTORY_LOOP',
    `Cannot copy ${source.shown(from)} to ${target.shown(to)}, which lies within it`,
  )
}

function withoutSlash(path: string): string {
  return path.length > 1 && path.endsWith('/') ? path.slice(0, -1) : path
}
