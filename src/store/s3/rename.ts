/**
 * Renames, which S3 does not have: copies, then removals of just the versions that were copied. Whatever breaks in between
 * leaves both names of a file, never none; of a directory it is finished by whoever opens the store next (`rename-intents.ts`).
 */
import { OperationError } from '#base/errors.ts'
import { isWithin } from '#store/path.ts'
import { IMPLICIT_VERSION, ifVersion, type Entry, type RenameOptions } from '#store/store.ts'
import type { S3Context } from './context.ts'
import { copyGuarded } from './copy.ts'
import { find, hasKeys, implicitEntry, writtenEntry, type Found } from './entries.ts'
import { checkGuard } from './guards.ts'
import { listPage } from './listing.ts'
import { runMoves } from './move-sequence.ts'
import { removeGuarded } from './removal.ts'

/** Renames a file, a symlink or a directory. */
export async function rename(context: S3Context, from: string, to: string, options: RenameOptions): Promise<Entry> {
  if (from === '' || to === '') throw new OperationError('INPUT_INVALID', `Cannot rename "${from}": it is the root`)
  const { signal, expected, targetGuard } = options
  // What replaces another thing is of its kind.
  const replaced = targetGuard.kind === 'version' ? expected : undefined
  const [source, target] = await Promise.all([
    find(context, from, signal, expected),
    find(context, to, signal, replaced),
  ])
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
  const { version, modified } = head
  await removeGuarded(context, { path: from, key, guard: ifVersion(version), modified, signal })
  return writtenEntry(context, { path: to, kind, size, attributes }, copied)
}

/** Requests as `runMoves`, and one or two to see that the target is empty. */
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
  const replaces = target?.head?.version
  const move = { from, to, directory: true, ...(replaces === undefined ? {} : { replaces }) }
  const { movers, stayed } = await runMoves(context, [move], signal)
  const [mover] = movers
  for (const [name, { before, after }] of mover?.changed ?? []) onVersionChanged?.(to + name, before, after)
  if (stayed !== undefined) {
    throw new OperationError('STORE_CONFLICT', `Cannot rename "${from}": something was written there and stays`, {
      cause: stayed,
    })
  }
  const implicit = implicitEntry(context, to)
  const { modified, attributes = {} } = source.entry
  if (mover?.own === undefined) return implicit
  const written = { version: mover.own, modified }
  return writtenEntry(context, { path: to, kind: 'directory', size: 0, attributes }, written)
}

async function checkEmpty(
  context: S3Context,
  from: string,
  to: string,
  target: Found,
  signal: AbortSignal | undefined,
): Promise<void> {
  const full =
    target.entry.version === IMPLICIT_VERSION && target.head === undefined
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
