/**
 * Making a directory with those above it. Node's own recursive mkdir goes round for ever where a file system answers ENOENT
 * under a directory that is there, as /proc does.
 */
import { lstatSync, mkdirSync, statSync } from 'node:fs'
import { dirname } from 'node:path'

/** Makes `path` and what is missing above it; one that is there stays as it is. Throws Node's error of the first that cannot be made. */
export function makeDirectories(path: string, mode = 0o777): void {
  try {
    mkdirSync(path, { mode })
    return
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST' && isDirectory(path)) return
    if (code !== 'ENOENT' || isDirectory(dirname(path))) throw error
  }
  makeDirectories(dirname(path), mode)
  makeDirectories(path, mode)
}

/** Why `makeDirectories` threw, in words that name the place. */
export function whyNotMade(path: string, error: unknown): string {
  const { code } = error as NodeJS.ErrnoException
  const there = nearest(path)
  if (code === 'EEXIST' || code === 'ENOTDIR') return `'${there}' is not a directory`
  if (code === 'EACCES' || code === 'EPERM') return `'${there}' is not writable for this user`
  if (code === 'EROFS') return `'${there}' is on a file system that is mounted read-only`
  return error instanceof Error ? error.message : String(error)
}

/** What is there of the path: itself, or the first above it. */
function nearest(path: string): string {
  let current = path
  while (current !== dirname(current) && !isThere(current)) current = dirname(current)
  return current
}

function isThere(path: string): boolean {
  try {
    return lstatSync(path, { throwIfNoEntry: false }) !== undefined
  } catch {
    // ENOTDIR, or it may not be looked at: what is above tells more.
    return false
  }
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false
}
