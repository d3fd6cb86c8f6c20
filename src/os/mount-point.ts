/**
 * The state of a mount point, and removing a mount whose server has died. A look at a live mount can hang with its
 * server, so every look runs on a thread under a deadline: a look that does not come back says "mounted", since
 * something holds it. Not here: mounting and unmounting themselves.
 */
import { statfs } from 'node:fs/promises'
import { withDeadline } from './deadline.ts'
import { unmountFuse } from './fuse-unmount.ts'
import { mountPath, mountsOf } from './mount-table.ts'
import { OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'

const log = logger('os')

/**
 * - free: nothing is mounted there;
 * - stale: a mount whose server is gone, so every access fails with ENOTCONN;
 * - mounted: a mount that answers, or one that hangs.
 */
export type MountPointState = 'free' | 'stale' | 'mounted'

const PROBE_DEADLINE_MS = 2_000
/** Mounts over mounts: a crash and a start, again and again, without the stale one being removed. */
const STACKED_MAX = 16

/** What is on top of that directory. @throws LOCAL_FAILED where the mount table cannot be read. */
export async function probeMountPoint(directory: string, deadlineMs = PROBE_DEADLINE_MS): Promise<MountPointState> {
  const path = mountPath(directory)
  const top = mountsOf(path).at(-1)
  if (top === undefined) return 'free'
  try {
    // The kernel answers a stat of a dead mount from its own copy while that is valid; statfs always asks the server.
    await withDeadline(`look at '${directory}'`, statfs(path), deadlineMs)
    return 'mounted'
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    return code === 'ENOTCONN' || code === 'ECONNABORTED' ? 'stale' : 'mounted'
  }
}

/** Removes the dead mounts on top of that directory, if any: whether there were. @throws MOUNT_REFUSED */
export async function clearStaleMount(directory: string, signal?: AbortSignal): Promise<boolean> {
  for (let cleared = 0; cleared < STACKED_MAX; cleared += 1) {
    if ((await probeMountPoint(directory)) !== 'stale') return cleared > 0
    // Lazily: processes that stand in the dead mount would keep it otherwise, and nothing in it can work any more.
    await unmountFuse(directory, { lazy: true }, signal)
    log.info({ directory }, 'removed the mount of a server that is gone')
  }
  throw new OperationError(
    'MOUNT_REFUSED',
    `Cannot clear '${directory}': more than ${STACKED_MAX} dead mounts lie on it`,
  )
}
