/**
 * Removal from a directory store: of one entry, and of many in batches. A batch is one step under the locks of all its
 * paths, which opens each directory once; directories are made durable once for all batches, and those that were removed
 * themselves not at all, since the one that they were in tells of that.
 */
import { closeSync, constants } from 'node:fs'

import { isOperationError, OperationError } from '#base/errors.ts'
import { openBeneath, removeDirectoryAt, unlinkAt } from '#os/at.ts'
import { statusAt, type Status } from '#os/status.ts'
import { nameOf, parentOf } from '#store/path.ts'
import { ifVersion, type Guard, type Removal } from '#store/store.ts'

import type { Changes } from './changes.ts'
import { toSync, type DirectoryToSync } from './directory-syncs.ts'
import { kindOf } from './entry.ts'
import { failure } from './failure.ts'
import { notEmptyOr } from './moving.ts'
import { checkGuard, checkReplaceable, notFound, type Place } from './tree.ts'

/** About a millisecond of the event loop. */
const BATCH_ENTRIES = 64
/** Directories that stay open until they are made durable. */
const TOUCHED_MAX = 256
const DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW

/** Removes what is no directory, in a step under the lock of its path. */
export function removeFileAt({ dir, name }: Place, action: string, guard: Guard): void {
  const found = requireAt(dir, name, action)
  checkReplaceable(action, found)
  checkGuard(action, found, guard)
  unlinkAt(dir, name)
}

/** Removes an empty directory, in a step under the lock of its path. */
export function removeEmptyAt({ dir, name }: Place, action: string): void {
  try {
    removeDirectoryAt(dir, name)
  } catch (error) {
    throw notEmptyOr(error, action)
  }
}

/** Removes the entries in the order given, as the port says; `check` throws for a path that cannot be one. */
export async function removeMany(
  changes: Changes,
  root: number,
  removals: readonly Removal[],
  signal: AbortSignal | undefined,
  check: (path: string, action: string) => void,
): Promise<readonly (OperationError | undefined)[]> {
  const outcomes: (OperationError | undefined)[] = []
  const touched = new Map<string, DirectoryToSync>()
  try {
    for (let start = 0; start < removals.length; start += BATCH_ENTRIES) {
      const batch = removals.slice(start, start + BATCH_ENTRIES)
      const action = `remove ${removals.length} entries`
      const paths = batch.map((removal) => removal.path)
      try {
        await changes.hold(paths, action, signal, () => outcomes.push(...removeBatch(root, batch, touched, check)))
      } catch (error) {
        const given = failure(error, action)
        if (start === 0 || !isOperationError(given)) throw given
        return [...outcomes, ...removals.slice(start).map(() => given)]
      }
      if (touched.size > TOUCHED_MAX) await syncAll(changes, touched)
    }
    return outcomes
  } finally {
    await syncAll(changes, touched)
  }
}

function syncAll(changes: Changes, touched: Map<string, DirectoryToSync>): Promise<void> {
  const directories = [...touched.values()]
  touched.clear()
  return changes.sync(directories)
}

function removeBatch(
  root: number,
  batch: readonly Removal[],
  touched: Map<string, DirectoryToSync>,
  check: (path: string, action: string) => void,
): (OperationError | undefined)[] {
  // By path within a batch only: between batches somebody may put another directory there.
  const opened = new Map<string, DirectoryToSync>()
  const outcomes = batch.map((removal) => {
    const action = `remove "${removal.path}"`
    try {
      check(removal.path, action)
      removeOne(root, removal, action, opened)
      return undefined
    } catch (error) {
      const given = failure(error, action)
      if (!isOperationError(given)) throw given
      return given
    }
  })
  for (const directory of opened.values()) {
    if (touched.has(directory.id)) closeSync(directory.fd)
    else touched.set(directory.id, directory)
  }
  for (const [index, { path, kind }] of batch.entries()) {
    const removed = kind === 'directory' && outcomes[index] === undefined ? opened.get(path) : undefined
    if (removed === undefined) continue
    const kept = touched.get(removed.id)
    if (kept !== undefined) closeSync(kept.fd)
    touched.delete(removed.id)
  }
  return outcomes
}

function removeOne(
  root: number,
  { path, kind, version }: Removal,
  action: string,
  opened: Map<string, DirectoryToSync>,
): void {
  if (path === '') throw new OperationError('INPUT_INVALID', `Cannot ${action}: it is the root`)
  const parent = parentOf(path)
  let directory = opened.get(parent)
  if (directory === undefined) {
    const fd = openBeneath(root, parent === '' ? '.' : parent, DIRECTORY)
    directory = toSync(fd)
    opened.set(parent, directory)
  }
  const place: Place = { dir: directory.fd, name: nameOf(path) }
  if (kind === 'directory') removeEmptyAt(place, action)
  else removeFileAt(place, action, ifVersion(version))
}

function requireAt(dir: number, name: string, action: string): Status {
  const found = statusAt(dir, name)
  if (found === undefined || kindOf(found) === undefined) throw notFound(action)
  return found
}
