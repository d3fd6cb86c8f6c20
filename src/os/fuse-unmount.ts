/**
 * Takes a FUSE mount away: as root by umount2(2), else through fusermount3. Safe from the process that serves the mount:
 * the call runs on a thread, since taking the mount away may need an answer of that process. Who keeps a mount busy
 * is looked up from /proc, which asks nothing of the mount.
 */
import { readFileSync, readdirSync, readlinkSync } from 'node:fs'
import { withDeadline } from './deadline.ts'
import { unmountByHelper } from './fusermount.ts'
import { libc } from './libc.ts'
import { mountPath, mountsOf } from './mount-table.ts'
import { OperationError } from '#base/errors.ts'

export interface UnmountOptions {
  /** Off the tree now, gone when nobody uses it any more. */
  readonly lazy?: boolean
  /** Ends the connection first, so that requests under way fail; root only. */
  readonly force?: boolean
  readonly deadlineMs?: number
}

const MNT_FORCE = 1
const MNT_DETACH = 2
const UMOUNT_NOFOLLOW = 8
const UNMOUNT_DEADLINE_MS = 30_000
const HOLDERS_MAX = 5

/**
 * Unmounts what is on top of that directory.
 * @throws MOUNT_BUSY while somebody uses it, NOT_MOUNTED where nothing is mounted, MOUNT_REFUSED
 */
export async function unmountFuse(
  directory: string,
  options: UnmountOptions = {},
  signal?: AbortSignal,
): Promise<void> {
  const { lazy = false, force = false, deadlineMs = UNMOUNT_DEADLINE_MS } = options
  const path = mountPath(directory)
  const before = mountsOf(path).at(-1)
  if (before === undefined) {
    throw new OperationError('NOT_MOUNTED', `Cannot unmount '${directory}': nothing is mounted there`)
  }
  let complaint: string
  if (process.getuid?.() === 0) {
    const flags = UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0) | (force ? MNT_FORCE : 0)
    const done = await withDeadline(`unmount '${directory}'`, libc().umount2(path, flags), deadlineMs, signal)
    complaint = done ? '' : 'umount2(2) failed'
  } else {
    complaint = await unmountByHelper(path, lazy, signal)
  }
  // The errno stays on the thread that made the call; the table tells the cases apart as well.
  const after = mountsOf(path).at(-1)
  if (complaint === '' || after?.id !== before.id) return
  const holders = holdersOf(path)
  const busy = holders.length > 0 || /busy/i.test(complaint) || process.getuid?.() === 0
  throw new OperationError(
    busy ? 'MOUNT_BUSY' : 'MOUNT_REFUSED',
    busy
      ? `Cannot unmount '${directory}': it is in use${holders.length > 0 ? ` by ${holders.join(', ')}` : ''}`
      : `Cannot unmount '${directory}': ${complaint}`,
  )
}

/** Processes whose working directory or open files lie in the directory: "1234 (bash)", a few of them. */
function holdersOf(directory: string): string[] {
  const inside = (path: string): boolean => path === directory || path.startsWith(`${directory}/`)
  const holders: string[] = []
  for (const pid of readdirSync('/proc')) {
    if (holders.length === HOLDERS_MAX) break
    if (!/^\d+$/.test(pid)) continue
    if (pathsOf(pid).some(inside)) holders.push(`${pid} (${nameOf(pid)})`)
  }
  return holders
}

/** The links of /proc are read, never followed: following one would ask the mount. */
function pathsOf(pid: string): string[] {
  const links = [`/proc/${pid}/cwd`, `/proc/${pid}/root`]
  try {
    for (const fd of readdirSync(`/proc/${pid}/fd`)) links.push(`/proc/${pid}/fd/${fd}`)
  } catch {
    // Another user's process, or one that has ended: what can be seen of it will do.
  }
  const paths: string[] = []
  for (const link of links) {
    try {
      paths.push(readlinkSync(link))
    } catch {
      // As above.
    }
  }
  return paths
}

function nameOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim()
  } catch {
    return 'ended'
  }
}
