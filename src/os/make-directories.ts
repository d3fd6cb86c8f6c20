/**
 * Making a directory with those above it. Node's own recursive mkdir goes round for ever where a file system answers ENOENT
 * under a directory that is there, as /proc does.
 */
import { mkdirSync, statSync } from 'node:fs'
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

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false
}
