/**
 * Renames, which S3 does not have: copies, then removals of just the versions that were copied. Whatever breaks in between
 * leaves the source complete, so that nothing is lost, and the copies already made are removed where that can be done.
 */
import { OperationError } from '#base/errors.ts'
import { isWithin } from '#store/path.ts'
import { ABSENT, IMPLICIT_VERSION, ifVersion, type Entry, type Guard, type RenameOptions } from '#store/store.ts'
import type { S3Context } from './context.ts'
import { copyGuarded } from './copy.ts'
import { find, hasKeys, implicitEntry, writtenEntry, type Found } from './entries.ts'
import { checkGuard } from './guards.ts'
import { listPage, listPages, type ListedObject } from './listing.ts'
import { headObject, type ObjectHead } from './objects.ts'
import { removeGuarded, removeLeftovers, removeMany, type Seen } from './removal.ts'

/** Copies of one directory under way at a time. */
const COPIES_AT_ONCE = 16

/** Renames a file, a symlink or a directory. */
export async function rename(context: S3Context, from: string, to: string, options: RenameOptions): Promise<Entry> {
  if (from === '' || to === '') throw new OperationError('INPUT_INVALID', `Cannot rename "${from}": it is the root`)
  const { signal } = options
  const [source, target] = await Promise.all([find(context, from, signal), find(context, to, signal)])
  if (source === undefined) throw new OperationError('STORE_NOT_FOUND', `Cannot rename "${from}": nothing is there`)
  checkGuard('rename', from, source.entry.version, options.guard)
  const directory = source.entry.kind === 'directory'
  if (directory && from !== to && isWithin(to, from)) {
    throw new OperationError('INPUT_INVALID', `Cannot rename "${from}": "${to}" lies in it`)
  }
  checkGuard('rename to', to, target?.entry.version, options.targetGuard)
  if (from === to) return source.entry
  if (directory) return renameDirectory(context, source, from, to, target, options)
  if (target?.entry.kind === 'directory') {
    throw new OperationError('STORE_IS_DIRECTORY', `Cannot rename "${from}": "${to}" is a directory`)
  }
  return renameFile(context, source, from, to, options)
}

/** Requests: 2 beside looking both ends up, one more for each guard that has to be looked at. */
async function renameFile(
  context: S3Context,
  source: Found,
  from: string,
  to: string,
  options: RenameOptions,
): Promise<Entry> {
  const { head, entry, key } = source
  if (head === undefined) throw new OperationError('STORE_NOT_FOUND', `Cannot rename "${from}": nothing is there`)
  const { kind, size, attributes = {} } = entry
  const { targetGuard, signal } = options
  const toKey = context.keys.file(to)
  const copied = await copyGuarded(context, { path: to, kind, from: key, head, to: toKey, guard: targetGuard, signal })
  // Only what was copied is removed: a version written meanwhile stays under the old name.
  await removeGuarded(context, from, key, ifVersion(head.version), signal)
  return writtenEntry(context, { path: to, kind, size, attributes }, copied)
}

/** Requests: one for 1,000 keys to list, one for each to copy, one for 1,000 to remove; two more for each over 1 GiB. */
async function renameDirectory(
  context: S3Context,
  source: Found,
  from: string,
  to: string,
  target: Found | undefined,
  { onVersionChanged, signal }: RenameOptions,
): Promise<Entry> {
  if (target !== undefined && target.entry.kind !== 'directory') {
    throw new OperationError('STORE_NOT_DIRECTORY', `Cannot rename "${from}": "${to}" is not a directory`)
  }
  if (target !== undefined) await checkEmpty(context, from, to, target, signal)
  const base = context.keys.under(from)
  const toBase = context.keys.under(to)
  const moved: Seen[] = []
  const made: Seen[] = []
  let own: ListedObject | undefined
  const copyOne = async (object: ListedObject, guard: Guard): Promise<void> => {
    const key = toBase + object.key.slice(base.length)
    const version = await copyListed(context, object, key, guard, signal)
    moved.push({ key: object.key, version: object.version })
    made.push({ key, version })
  }
  try {
    for await (const page of listPages(context.client, { prefix: base, delimited: false, signal })) {
      const objects = page.items.filter((item) => 'key' in item)
      own = objects.find(({ key }) => key === base) ?? own
      const others = objects.filter(({ key }) => key !== base)
      // Under ABSENT: the target was empty when it was looked at, and what somebody puts there meanwhile is theirs.
      await inParallel(others, COPIES_AT_ONCE, (object) => copyOne(object, ABSENT))
    }
    // Last, since it may replace the target's own object, which a failure could not put back.
    if (own !== undefined) await copyOne(own, markerGuard(target))
  } catch (error) {
    await removeLeftovers(context, made)
    throw error
  }
  await removeMoved(context, from, moved, signal)
  for (const [index, { version }] of made.entries()) {
    const before = moved[index]
    if (before === undefined || before.version === version || before.key === base) continue
    const path = `${to}/${before.key.slice(base.length)}`
    onVersionChanged?.(path.endsWith('/') ? path.slice(0, -1) : path, before.version, version)
  }
  const marker = made.find(({ key }) => key === toBase)
  const implicit = implicitEntry(context, to)
  const { modified, attributes } = source.entry
  return marker === undefined ? implicit : { ...implicit, version: marker.version, modified, attributes }
}

/** What the target's own object must be for the source's to take its place. */
function markerGuard(target: Found | undefined): Guard {
  if (target === undefined || target.entry.version === IMPLICIT_VERSION) return ABSENT
  return ifVersion(target.entry.version)
}

/**
 * Removes what was copied, in the versions that were copied. Where the server does not hold removals to a version, the tree is
 * listed once more (one request for 1,000 keys): what was written while it was being copied stays, and is a conflict.
 */
async function removeMoved(
  context: S3Context,
  from: string,
  moved: readonly Seen[],
  signal: AbortSignal | undefined,
): Promise<void> {
  if (context.honoured.remove) return removeMany(context, moved, signal)
  const current = new Map<string, string>()
  for await (const page of listPages(context.client, { prefix: context.keys.under(from), delimited: false, signal })) {
    for (const item of page.items) if ('key' in item) current.set(item.key, item.version)
  }
  const unchanged = moved.filter(({ key, version }) => current.get(key) === version)
  await removeMany(context, unchanged, signal)
  const changed = moved.find(({ key, version }) => current.has(key) && current.get(key) !== version)
  if (changed !== undefined) {
    throw new OperationError(
      'STORE_CONFLICT',
      `Cannot rename "${from}": "${changed.key}" was written meanwhile and stays`,
    )
  }
}

async function checkEmpty(
  context: S3Context,
  from: string,
  to: string,
  target: Found,
  signal: AbortSignal | undefined,
): Promise<void> {
  const full =
    target.entry.version === IMPLICIT_VERSION
      ? await hasKeys(context, to, signal)
      : await hasEntries(context, to, signal)
  if (full) throw new OperationError('STORE_NOT_EMPTY', `Cannot rename "${from}": "${to}" has entries`)
}

/** Whether a directory has anything in it but its own object. One request. */
async function hasEntries(context: S3Context, path: string, signal?: AbortSignal): Promise<boolean> {
  const prefix = context.keys.under(path)
  const page = await listPage(context.client, { prefix, delimited: false, keysMax: 2, signal })
  return page.items.some((item) => !('key' in item) || item.key !== prefix)
}

async function copyListed(
  context: S3Context,
  object: ListedObject,
  to: string,
  guard: Guard,
  signal: AbortSignal | undefined,
): Promise<Seen['version']> {
  const { key, size, version, modified } = object
  const header = (): undefined => undefined
  let head: ObjectHead | undefined = {
    size,
    version,
    modified,
    header,
    answer: { status: 200, headers: {}, body: Buffer.alloc(0) },
  }
  // A copy in parts has to be told all that the object has.
  if (size > context.limits.copyBytesMax) head = await headObject(context.client, key, signal)
  if (head === undefined || head.version !== version) {
    throw new OperationError('STORE_CONFLICT', `Cannot rename "${key}": it has changed meanwhile`)
  }
  const written = await copyGuarded(context, {
    path: to,
    kind: 'file',
    from: key,
    head,
    to,
    guard,
    signal,
  })
  return written.version
}

/** Runs `work` on each item, so many at a time; after a failure no more are begun, and those begun are waited for. */
async function inParallel<T>(items: readonly T[], atOnce: number, work: (item: T) => Promise<void>): Promise<void> {
  const failures: unknown[] = []
  let next = 0
  const run = async (): Promise<void> => {
    while (next < items.length && failures.length === 0) {
      const item = items[next++]
      if (item === undefined) return
      try {
        await work(item)
      } catch (error) {
        failures.push(error)
      }
    }
  }
  await Promise.all(Array.from({ length: Math.min(atOnce, items.length) }, run))
  if (failures.length > 0) throw failures[0]
}
