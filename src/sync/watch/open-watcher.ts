/**
 * Chooses how a local tree is watched: fanotify where the process is privileged and the file system has handles, else inotify,
 * else polling. Each step down is told.
 */
import { ERRNO } from '#base/errno.ts'
import { logger } from '#base/log.ts'
import { SystemCallError } from '#os/libc.ts'
import { FanotifyWatcher } from './fanotify-watcher.ts'
import { InotifyWatcher } from './inotify-watcher.ts'
import { PollingWatcher } from './polling-watcher.ts'
import type { Watcher, WatchOptions } from './watcher.ts'

const log = logger('sync')

/** A watcher of the best kind that there is for `directory`, to be armed. @throws OperationError where there is no such directory */
export function openWatcher(directory: string, options: Partial<WatchOptions> = {}): Watcher {
  try {
    return new FanotifyWatcher(directory, options)
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error
    // The usual case of who is not root is no news.
    const level = error.errno === ERRNO.EPERM ? 'debug' : 'info'
    log[level]({ directory, why: error.message }, 'fanotify is not to be had for this tree, so inotify watches it')
  }
  try {
    return new InotifyWatcher(directory, options)
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error
    const why = `${error.message}: raise fs.inotify.max_user_instances`
    log.warn({ directory, why }, 'the kernel does not tell of changes, so the whole tree is polled')
    return new PollingWatcher(directory, why, options)
  }
}
