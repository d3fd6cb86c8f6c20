/**
 * Moves within a directory store: rename and exchange, each one call of the kernel under the locks of both paths. A move
 * changes the time of change of what is moved, and so the version of a file, which the caller is told.
 */
import { closeSync } from 'node:fs'

import { OperationError } from '#base/errors.ts'
import { exchangeAt, renameAt, renameNoReplaceAt, unlinkAt } from '#os/at.ts'
import { statusAt, type Status } from '#os/status.ts'
import { isWithin } from '#store/path.ts'
import type { Entry, ExchangeOptions, Kind, RenameOptions, Version } from '#store/store.ts'

import { toSync, type DirectoryToSync } from './directory-syncs.ts'
import { kindOf, versionOf } from './entry.ts'
import { errnoNameOf } from './failure.ts'
import {
  checkGuard,
  checkReplaceable,
  inodeEntry,
  lookUp,
  makePlace,
  notFound,
  openPlace,
  withInode,
  type Place,
} from './tree.ts'

/** A file that a move gave another version. */
export interface VersionChange {
  readonly path: string
  readonly before: Version
  readonly after: Version
}

/** The step of a rename; the caller holds the locks of both paths. */
export function renameStep(
  root: number,
  from: string,
  to: string,
  action: string,
  options: RenameOptions,
  syncs: DirectoryToSync[],
): { readonly entry: Entry; readonly changes: readonly VersionChange[] } {
  const source = openPlaceToSync(root, from, syncs)
  const { status, kind } = requireAt(source, action)
  checkGuard(action, status, options.guard)
  if (kind === 'directory' && from !== to && isWithin(to, from)) {
    throw new OperationError('INPUT_INVALID', `Cannot ${action}: the target lies in it`)
  }
  const found = lookUp(root, to)
  checkGuard(action, found, options.targetGuard)
  if (from !== to) {
    if (kind !== 'directory') checkReplaceable(action, found)
    else if (found !== undefined && kindOf(found) !== 'directory') {
      throw new OperationError('STORE_NOT_DIRECTORY', `Cannot ${action}: the target is not a directory`)
    }
    const target = makePlace(root, to, syncs)
    syncs.push(toSync(target.dir))
    if (options.targetGuard.kind === 'absent') renameNoReplaceAt(source.dir, source.name, target.dir, target.name)
    else replace(source, target, kind, action)
    // rename(2) does nothing between two names of one file (hard links that another program made).
    if (found?.id === status.id) unlinkAt(source.dir, source.name)
  }
  const entry = withInode(root, to, action, (fd, moved) => inodeEntry(to, fd, moved, action))
  return { entry, changes: changeOf(to, kind, versionOf(status), entry.version) }
}

/** The step of an exchange; the caller holds the locks of both paths. */
export function exchangeStep(
  root: number,
  path: string,
  other: string,
  action: string,
  options: ExchangeOptions,
  syncs: DirectoryToSync[],
): readonly VersionChange[] {
  const place = openPlaceToSync(root, path, syncs)
  const otherPlace = openPlaceToSync(root, other, syncs)
  const found = requireAt(place, action)
  const otherFound = requireAt(otherPlace, action)
  checkGuard(action, found.status, options.guard)
  checkGuard(action, otherFound.status, options.otherGuard)
  if (path === other) return []
  if (isWithin(path, other) || isWithin(other, path)) {
    throw new OperationError('INPUT_INVALID', `Cannot ${action}: one lies in the other`)
  }
  try {
    exchangeAt(place.dir, place.name, otherPlace.dir, otherPlace.name)
  } catch (error) {
    if (errnoNameOf(error) !== 'EINVAL') throw error
    throw new OperationError('STORE_UNSUPPORTED', `Cannot ${action}: the file system has no exchange`, { cause: error })
  }
  return [
    ...changeAt(otherPlace, other, found.kind, versionOf(found.status)),
    ...changeAt(place, path, otherFound.kind, versionOf(otherFound.status)),
  ]
}

function openPlaceToSync(root: number, path: string, syncs: DirectoryToSync[]): Place {
  const place = openPlace(root, path)
  try {
    syncs.push(toSync(place.dir))
  } catch (error) {
    closeSync(place.dir)
    throw error
  }
  return place
}

function requireAt({ dir, name }: Place, action: string): { readonly status: Status; readonly kind: Kind } {
  const status = statusAt(dir, name)
  const kind = status === undefined ? undefined : kindOf(status)
  if (status === undefined || kind === undefined) throw notFound(action)
  return { status, kind }
}

function changeAt({ dir, name }: Place, path: string, kind: Kind, before: Version): readonly VersionChange[] {
  const status = statusAt(dir, name)
  // Moved on by another program already: whoever asks for it learns its version.
  return status === undefined ? [] : changeOf(path, kind, before, versionOf(status))
}

function changeOf(path: string, kind: Kind, before: Version, after: Version): readonly VersionChange[] {
  return kind === 'directory' || before === after ? [] : [{ path, before, after }]
}

/** Renames over what is there, which for a directory may be an empty one. */
function replace(source: Place, target: Place, kind: Kind, action: string): void {
  try {
    renameAt(source.dir, source.name, target.dir, target.name)
  } catch (error) {
    throw kind === 'directory' ? notEmptyOr(error, action) : error
  }
}

/** A directory with entries is ENOTEMPTY on some file systems and EEXIST on others (xfs), as POSIX has it. */
export function notEmptyOr(error: unknown, action: string): unknown {
  if (errnoNameOf(error) !== 'EEXIST') return error
  return new OperationError('STORE_NOT_EMPTY', `Cannot ${action}: the directory has entries`, { cause: error })
}
