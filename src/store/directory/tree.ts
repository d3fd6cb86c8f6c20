/**
 * Finding and making places in the directory of a store. Every path is resolved by the kernel beneath the root without
 * following symlinks (openat2, or one component after another where that is missing), so that nothing reaches outside
 * whatever lies in the directory; what is then done is done relative to the directory that was found.
 */
import { closeSync, constants } from 'node:fs'

import { OperationError } from '#base/errors.ts'
import { O_PATH, makeDirectoryAt, openAt, openBeneath, openIfThere } from '#os/at.ts'
import { inodePath } from '#os/inode.ts'
import { statusAt, statusOf, type Status } from '#os/status.ts'
import { nameOf, parentOf } from '#store/path.ts'
import { isSpecial, type Entry, type Guard } from '#store/store.ts'

import { keptAttributesOf } from './attributes.ts'
import { toSync, type DirectoryToSync } from './directory-syncs.ts'
import { entryOf, kindOf, NOTHING_KEPT, versionOf } from './entry.ts'
import { errnoNameOf, failure } from './failure.ts'

const DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW
const READ_ONLY = constants.O_RDONLY | constants.O_NONBLOCK

/** Where an entry is or will be: its name in an open directory. */
export interface Place {
  readonly dir: number
  readonly name: string
}

/** The inode of a path itself, for looking at it and changing its attributes; never follows a symlink. */
const INODE = O_PATH | constants.O_NOFOLLOW

/** A file that is open for reading, and its status from before that. */
export interface OpenedFile {
  readonly fd: number
  readonly status: Status
}

/**
 * Opens a file for reading without touching its access time where that is allowed (to its owner and to root); undefined for
 * a symlink. The inode is looked at before: to open a fifo wakes a program that waits to write to it, and to open a device
 * may wind a tape. @throws OperationError `STORE_IS_DIRECTORY`, `INPUT_INVALID` for a fifo or socket, and as `withInode`.
 */
export function openToRead(root: number, path: string, action: string): OpenedFile | undefined {
  return withInode(root, path, action, (inode, status) => {
    const kind = kindOf(status)
    if (kind === 'symlink') return undefined
    if (kind === 'directory') throw new OperationError('STORE_IS_DIRECTORY', `Cannot ${action}: it is a directory`)
    if (kind === undefined) throw notFound(action)
    if (isSpecial(kind)) throw new OperationError('INPUT_INVALID', `Cannot ${action}: a ${kind} has no bytes`)
    const name = inodePath(inode)
    try {
      return { fd: openAt(root, name, READ_ONLY | constants.O_NOATIME), status }
    } catch (error) {
      if (errnoNameOf(error) !== 'EPERM') throw error
      return { fd: openAt(root, name, READ_ONLY), status }
    }
  })
}

/** The place of `path`, whose parent exists. The caller closes `dir`. */
export function openPlace(root: number, path: string): Place {
  const parent = parentOf(path)
  return { dir: openBeneath(root, parent === '' ? '.' : parent, DIRECTORY), name: nameOf(path) }
}

/** As `openPlace`, with what is there; undefined where its parent is not there. */
export function findPlace(root: number, path: string): (Place & { readonly found: Status | undefined }) | undefined {
  const parent = parentOf(path)
  const name = nameOf(path)
  const dir = openIfThere(root, parent === '' ? '.' : parent, DIRECTORY)
  if (dir === undefined) return undefined
  try {
    return { dir, name, found: statusAt(dir, name) }
  } catch (error) {
    throw closing(dir, error)
  }
}

/** The place of `path`; directories above it are made, and those they were made in are added to `made`. */
export function makePlace(root: number, path: string, made: DirectoryToSync[]): Place {
  const parent = parentOf(path)
  const there = openIfThere(root, parent === '' ? '.' : parent, DIRECTORY)
  if (there !== undefined) return { dir: there, name: nameOf(path) }
  let dir = openAt(root, '.', DIRECTORY)
  for (const part of parent.split('/')) {
    const { next, isNew } = openOrMake(dir, part)
    if (isNew) made.push(toSync(dir))
    else closeSync(dir)
    dir = next
  }
  return { dir, name: nameOf(path) }
}

function openOrMake(dir: number, name: string): { next: number; isNew: boolean } {
  try {
    return { next: openAt(dir, name, DIRECTORY), isNew: false }
  } catch (error) {
    if (errnoNameOf(error) !== 'ENOENT') throw closing(dir, error)
  }
  try {
    makeDirectoryAt(dir, name, 0o777)
  } catch (error) {
    // Somebody made it just now.
    if (errnoNameOf(error) !== 'EEXIST') throw closing(dir, error)
  }
  try {
    return { next: openAt(dir, name, DIRECTORY), isNew: true }
  } catch (error) {
    throw closing(dir, error)
  }
}

function closing(fd: number, error: unknown): unknown {
  closeSync(fd)
  return error
}

/** Throws `STORE_CONFLICT` unless the guard holds for what was found. */
export function checkGuard(action: string, found: Status | undefined, guard: Guard): void {
  if (guard.kind === 'any') return
  if (guard.kind === 'absent') {
    if (found !== undefined) throw new OperationError('STORE_CONFLICT', `Cannot ${action}: something is there`)
  } else if (found === undefined || versionOf(found) !== guard.version) {
    throw new OperationError(
      'STORE_CONFLICT',
      `Cannot ${action}: ${found === undefined ? 'nothing is there' : 'the stored version is another'}`,
    )
  }
}

/** Throws where a file cannot take the place of what was found. */
export function checkReplaceable(action: string, found: Status | undefined): void {
  if (found === undefined) return
  const kind = kindOf(found)
  if (kind === 'directory') throw new OperationError('STORE_IS_DIRECTORY', `Cannot ${action}: a directory is there`)
  if (kind === undefined) {
    throw new OperationError('STORE_DENIED', `Cannot ${action}: a device is there`)
  }
}

/** What is at `path`; undefined where nothing is, or its parent is not there. */
export function lookUp(root: number, path: string): Status | undefined {
  const fd = openIfThere(root, path === '' ? '.' : path, INODE)
  if (fd === undefined) return undefined
  try {
    return statusOf(fd)
  } finally {
    closeSync(fd)
  }
}

/** Uses the inode of `path`, and closes it. */
export function withInode<T>(root: number, path: string, action: string, use: (fd: number, status: Status) => T): T {
  let fd = -1
  try {
    fd = openBeneath(root, path === '' ? '.' : path, INODE)
    return use(fd, statusOf(fd))
  } catch (error) {
    throw failure(error, action)
  } finally {
    if (fd !== -1) closeSync(fd)
  }
}

/**
 * The entry of an open inode. `isBare`: it is known to have nothing that is kept beside it.
 * @throws OperationError `STORE_NOT_FOUND` for what the store hides.
 */
export function inodeEntry(path: string, fd: number, status: Status, action: string, isBare = false): Entry {
  const kind = kindOf(status)
  if (kind === undefined) throw notFound(action)
  return entryOf(path, kind, status, isBare ? NOTHING_KEPT : keptAttributesOf(fd, status))
}

/** The error of a path where nothing is. */
export function notFound(action: string): OperationError {
  return new OperationError('STORE_NOT_FOUND', `Cannot ${action}: nothing is there`)
}
