/** Opening a disk cache in a directory, which is then this process's alone. */
import { closeSync, existsSync, openSync } from 'node:fs'
import { join } from 'node:path'

import { OperationError } from '#base/errors.ts'
import { makeDirectories, whyNotMade } from '#os/make-directories.ts'
import { lockHolder, tryLock } from '#os/flock.ts'

import { CacheIndex } from './cache-index.ts'
import { DataFiles } from './data-files.ts'
import { DiskCache } from './disk-cache.ts'
import type { FileCache, FileCacheOptions } from './file-cache.ts'

/**
 * Opens the cache in `directory`, making it where it is missing; what an earlier process cached is there again. Takes some
 * ten milliseconds, however much is cached.
 * @throws OperationError `LOCAL_FAILED` where another process has it, or the directory cannot be used.
 */
export async function openFileCache(options: FileCacheOptions): Promise<FileCache> {
  const { directory } = options
  const action = `Cannot cache files in "${directory}"`
  let lock: number | undefined
  try {
    makeDirectories(directory, 0o700)
    lock = openSync(join(directory, 'lock'), 'a', 0o600)
    const held = lock
    if (!tryLock(held)) {
      const pid = lockHolder(held)
      const message = `${action}: another process uses it${pid === undefined ? '' : ` (${pid})`}`
      throw new OperationError('LOCAL_FAILED', message, {
        hint: 'Give each mount a directory of its own with --cache.',
      })
    }
    const isNew = !existsSync(join(directory, 'data')) && !existsSync(join(directory, 'index'))
    const index = await CacheIndex.open(join(directory, 'index'))
    const totals = isNew ? { files: 0, bytes: 0 } : index.totals()
    // Before any data file is touched: whoever finds no totals counts.
    await index.noteTotals(undefined)
    return new DiskCache(options, index, totals, new DataFiles(join(directory, 'data')), () => closeSync(held))
  } catch (error) {
    if (lock !== undefined) closeSync(lock)
    if (error instanceof OperationError) throw error
    throw new OperationError('LOCAL_FAILED', `${action}: ${whyNotMade(directory, error)}`, { cause: error })
  }
}
