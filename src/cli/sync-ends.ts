/** What the words of an `eider sync` mean: where it comes from, where it goes, and by which names. */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, realpathSync, statSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { OperationError } from '#base/errors.ts'
import { openStore } from '#store/open-store.ts'
import { isWithin } from '#store/path.ts'
import type { Actor } from '#sync/actor.ts'
import { loadActor } from '#sync/actor-module.ts'
import { Filter } from '#sync/filters.ts'
import { LocalSource } from '#sync/local-source.ts'
import { Prefixes, withoutSlashes, type Root } from '#sync/prefixes.ts'
import type { SyncSource } from '#sync/source.ts'
import { StoreActor } from '#sync/store-actor.ts'
import { StoreSource } from '#sync/store-source.ts'
import { type CommonOptions, flagOf, type OptionValues } from './options.ts'
import { statePath } from './places.ts'
import { s3OptionsOf, storeUrl } from './store-options.ts'
import type { SYNC_OPTIONS } from './sync.ts'

export type SyncValues = OptionValues<typeof SYNC_OPTIONS & CommonOptions>

/** What is synced: local paths by their names in the target, or a store. */
export interface SourceEnd {
  readonly source: SyncSource
  /** Of local paths. */
  readonly prefixes: Prefixes | undefined
  readonly roots: readonly Root[]
}

/** The links policy that the flags mean. */
export function linksOf({ links, metadata }: Pick<SyncValues, 'links' | 'metadata'>): 'skip' | 'keep' | 'follow' {
  return links ?? (metadata ? 'keep' : 'skip')
}

/** @throws OperationError `USAGE`, or what opening a store finds */
export async function openSource(
  paths: readonly string[],
  values: SyncValues,
  signal: AbortSignal,
): Promise<SourceEnd> {
  const filter = filterOf(values)
  const url = paths.find((path) => isRemote(path))
  if (url !== undefined) {
    if (paths.length > 1) throw usage('a store is synced alone', 'Run a sync for each store.')
    if (values.sourcePrefix !== undefined) throw usage('a store has no absolute paths to take --source-prefix off')
    if (linksOf(values) === 'follow') throw usage('--links follow is for local symlinks')
    const store = await openStore(await storeUrl(url), { signal, readOnly: true, s3: s3Options(values) })
    const target = withoutSlashes(values.targetPrefix ?? '')
    return { source: new StoreSource({ store, filter, target }), prefixes: undefined, roots: [] }
  }
  const named = paths.map(namedPath)
  const prefixes = new Prefixes({
    paths: named,
    sourcePrefix: values.sourcePrefix ?? usualPrefix(named, values),
    targetPrefix: values.targetPrefix,
  })
  const source = new LocalSource({
    ...{ prefixes, filter, links: linksOf(values), oneFileSystem: values.oneFileSystem, xattrs: values.metadata },
    own: ownPaths(values),
  })
  return { source, prefixes, roots: prefixes.roots }
}

/**
 * The target, to be closed. `--to` names a store; autosync's flags a container of an actor, S3's where none is named.
 * @throws OperationError `USAGE`, or what opening finds
 */
export async function openTarget(
  values: SyncValues,
  extra: Readonly<Record<string, unknown>>,
  signal: AbortSignal,
): Promise<Actor> {
  const { to, actor = to === undefined && values.targetContainer !== undefined ? 's3' : undefined } = values
  if (to !== undefined && values.targetContainer !== undefined) {
    throw usage('--to and --target-container both name a target', 'Use one of them.')
  }
  if (actor !== undefined && actor !== 's3' && actor !== 'directory') {
    if (to !== undefined) throw usage(`the actor "${actor}" has options of its own, and no --to`)
    return openActor(actor, values, extra, signal)
  }
  const url = to ?? containerUrl(actor, values.targetContainer)
  const directory = localTarget(values)
  if (directory !== undefined && !existsSync(directory) && existsSync(dirname(directory))) {
    // As rsync does: one directory, never the way to it, which a disk that is not mounted would lack.
    if (values.dryRun) return new StoreActor(await openStore('memory:', { signal }), pathToFileURL(directory).href)
    mkdirSync(directory)
  }
  return new StoreActor(
    await openStore(await storeUrl(url), { signal, readOnly: values.dryRun, s3: s3Options(values) }),
  )
}

/** Where the state of this sync is kept: one directory for the same paths and the same target. */
export function stateDirectoryOf(values: SyncValues, source: SyncSource, actor: Actor): string {
  if (values.state !== undefined) return values.state
  const name = createHash('sha256')
    .update(endsOf(values, source, actor))
    .digest('hex')
    .slice(0, 24)
  return join(statesPath(), name)
}

/** What a state is of: with other paths, or another target, it is another sync's. */
export function endsOf(values: SyncValues, source: SyncSource, actor: Actor): string {
  return JSON.stringify([...source.names, actor.url, values.sourcePrefix ?? '', values.targetPrefix ?? ''])
}

/**
 * @throws OperationError `USAGE` where source and target lie in one another, so that a sync would feed itself, or the state in the
 *   target, where it would be deleted
 */
export function checkApart(roots: readonly Root[], values: SyncValues): void {
  const target = localTarget(values)
  if (target === undefined) return
  const inner = realPath(target)
  for (const { source } of roots) {
    const outer = realPath(source)
    if (!isWithin(inner.slice(1), outer.slice(1)) && !isWithin(outer.slice(1), inner.slice(1))) continue
    throw usage(
      `"${source}" and "${target}" lie in one another, so that it would copy its own copies`,
      'Name directories of which neither lies in the other.',
    )
  }
  for (const own of ownPaths(values)) {
    if (!isWithin(own.slice(1), inner.slice(1))) continue
    throw usage(`its own "${own}" lies in the target, where a sync would delete it`, 'Keep it elsewhere.')
  }
}

/** What a sync writes beside its target. */
function ownPaths({ state, log }: SyncValues): string[] {
  return [state ?? statesPath(), ...(log === undefined ? [] : [log])].map(realPath)
}

function statesPath(): string {
  return join(statePath(), 'syncs')
}

/** Without symlinks, as far as it exists. */
function realPath(path: string): string {
  const absolute = resolve(path)
  return existsSync(absolute) ? realpathSync(absolute) : join(realPath(dirname(absolute)), basename(absolute))
}

function localTarget({ to, actor, targetContainer }: SyncValues): string | undefined {
  const named = to ?? (actor === 'directory' ? targetContainer : undefined)
  if (named === undefined || isRemote(named)) return undefined
  return /^file:/i.test(named) ? fileURLToPath(named) : resolve(named)
}

async function openActor(
  name: string,
  values: SyncValues,
  extra: Readonly<Record<string, unknown>>,
  signal: AbortSignal,
): Promise<Actor> {
  const module = await loadActor(name, process.cwd())
  const options: Record<string, string> = {}
  for (const [key, option] of Object.entries(module.options ?? {})) {
    const value = extra[key] ?? option.default
    if (typeof value === 'string') options[key] = value
    else if (option.required === true) throw usage(`the actor "${name}" needs ${flagOf(key)}: ${option.help}`)
  }
  return module.open({ options, container: values.targetContainer, threads: values.threads, signal })
}

function containerUrl(actor: string | undefined, container: string | undefined): string {
  if (container === undefined) {
    throw usage('no target is named', 'Name a store by --to, as s3://BUCKET/PREFIX or a directory.')
  }
  return actor === 'directory' ? resolve(container) : `s3://${container}`
}

function filterOf({ include, exclude, sourceFilter, sourceExclude }: SyncValues): Filter {
  const globs = [
    ...include.map(({ text, ordinal }) => ({ kind: 'include' as const, glob: text, ordinal })),
    ...exclude.map(({ text, ordinal }) => ({ kind: 'exclude' as const, glob: text, ordinal })),
  ]
  try {
    return new Filter({ globs: globs.toSorted((a, b) => a.ordinal - b.ordinal), sourceFilter, sourceExclude })
  } catch (error) {
    throw error instanceof OperationError ? new OperationError('USAGE', error.message, { cause: error }) : error
  }
}

function namedPath(path: string): { readonly path: string; readonly isDirectory: boolean } {
  const local = /^file:/i.test(path) ? fileURLToPath(path) : path
  const status = statSync(local, { throwIfNoEntry: false })
  if (status === undefined) throw usage(`there is no "${path}"`)
  if (!status.isDirectory() && !status.isFile()) throw usage(`"${path}" is neither a directory nor a file`)
  return { path: resolve(local), isDirectory: status.isDirectory() }
}

/**
 * What is taken off where nobody said it. With autosync's `--target-container` that is nothing, as there; else the content of one
 * directory becomes the content of the target, and several paths lie in it by their names.
 */
function usualPrefix(
  named: readonly { readonly path: string; readonly isDirectory: boolean }[],
  { targetContainer }: SyncValues,
): string | undefined {
  const [first] = named
  if (first === undefined || targetContainer !== undefined) return undefined
  if (named.length === 1 && first.isDirectory) return first.path.endsWith('/') ? first.path : `${first.path}/`
  const above = dirname(first.path)
  if (named.every(({ path }) => dirname(path) === above && basename(path) !== '')) {
    return above.endsWith('/') ? above : `${above}/`
  }
  throw usage(
    'the paths do not lie in one directory, so that their names in the target are not clear',
    'Say by --source-prefix what is taken off their absolute paths, as --source-prefix=/.',
  )
}

function isRemote(path: string): boolean {
  return /^[a-z][a-z0-9+.-]*:/i.test(path) && !/^file:/i.test(path) && !existsSync(path)
}

function s3Options(values: SyncValues): ReturnType<typeof s3OptionsOf> {
  return s3OptionsOf({ ...values, metadata: true, trustListing: false })
}

function usage(detail: string, hint?: string): OperationError {
  return new OperationError('USAGE', `Cannot sync: ${detail}`, hint === undefined ? {} : { hint })
}
