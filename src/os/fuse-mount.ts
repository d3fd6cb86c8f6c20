/**
 * Mounts a FUSE file system and gives its descriptor of /dev/fuse: as root by mount(2), else through the setuid helper
 * fusermount3. The mount is made before anybody serves it: the kernel's INIT waits in the descriptor, and so does
 * every access, until a session answers. Not here: serving (fuse/session.ts), stale mounts (mount-point.ts).
 */
import { closeSync, constants, openSync } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { withDeadline } from './deadline.ts'
import { mountByHelper } from './fusermount.ts'
import { SystemCallError, libc } from './libc.ts'
import { mountPath, mountsOf } from './mount-table.ts'
import { OperationError } from '#base/errors.ts'

export interface FuseMountOptions {
  readonly directory: string
  /** What is mounted, as `mount` and `df` show it. */
  readonly source: string
  /** The type becomes `fuse.SUBTYPE`. */
  readonly subtype: string
  readonly readOnly: boolean
  /** Lets others than the one who mounts in. */
  readonly allowOther: boolean
  /** The kernel checks permissions by mode, uid and gid. */
  readonly defaultPermissions: boolean
  readonly maxReadBytes: number
  /** Allows a directory with entries, which the mount hides. */
  readonly nonEmpty?: boolean
}

/** The mount made: `fd` is non-blocking, close-on-exec, and the caller's to close (a session takes it over). */
export interface FuseMount {
  readonly fd: number
  readonly how: 'mount' | 'fusermount3'
}

const MS_RDONLY = 1
const MS_NOSUID = 2
const MS_NODEV = 4
const LOOK_DEADLINE_MS = 5_000

/**
 * Mounts on a directory.
 * @throws MOUNT_POINT_UNUSABLE where the directory will not do, MOUNT_REFUSED where the machine does not allow it.
 */
export async function mountFuse(options: FuseMountOptions, signal?: AbortSignal): Promise<FuseMount> {
  signal?.throwIfAborted()
  await checkMountPoint(options, signal)
  const directory = mountPath(options.directory)
  if (process.getuid?.() !== 0)
    return { fd: await mountByHelper({ ...options, directory }, signal), how: 'fusermount3' }
  return { fd: mountAsRoot({ ...options, directory }), how: 'mount' }
}

function mountAsRoot(options: FuseMountOptions): number {
  const fd = openDevice(options.directory)
  const data = [
    `fd=${fd}`,
    'rootmode=40000',
    `user_id=${process.getuid?.() ?? 0}`,
    `group_id=${process.getgid?.() ?? 0}`,
    ...(options.allowOther ? ['allow_other'] : []),
    ...(options.defaultPermissions ? ['default_permissions'] : []),
    `max_read=${options.maxReadBytes}`,
  ]
  const flags = MS_NOSUID | MS_NODEV | (options.readOnly ? MS_RDONLY : 0)
  try {
    libc().mount(options.source, options.directory, `fuse.${options.subtype}`, flags, data.join(','))
    return fd
  } catch (error) {
    closeSync(fd)
    throw mountError(options.directory, error)
  }
}

function openDevice(directory: string): number {
  try {
    return openSync('/dev/fuse', constants.O_RDWR | constants.O_NONBLOCK)
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    const detail =
      code === 'ENOENT'
        ? '/dev/fuse does not exist; load the kernel module "fuse", or give the container that device'
        : code === 'ENODEV' || code === 'ENXIO'
          ? 'the kernel has no FUSE; load its module "fuse"'
          : code === 'EACCES' || code === 'EPERM'
            ? `/dev/fuse may not be opened (${code}); allow it for this user, or give the container that device`
            : `/dev/fuse cannot be opened (${code ?? String(error)})`
    throw new OperationError('MOUNT_REFUSED', `Cannot mount on '${directory}': ${detail}`, { cause: error })
  }
}

function mountError(directory: string, error: unknown): unknown {
  if (!(error instanceof SystemCallError)) return error
  switch (error.code) {
    case 'EPERM':
    case 'EACCES':
      return new OperationError(
        'MOUNT_REFUSED',
        `Cannot mount on '${directory}': mount(2) is not permitted (${error.code}); root without CAP_SYS_ADMIN, as in most containers, may not mount`,
        { cause: error },
      )
    case 'ENODEV':
      return new OperationError('MOUNT_REFUSED', `Cannot mount on '${directory}': the kernel has no FUSE`, {
        cause: error,
      })
    default:
      return error.toOperationError(`mount on '${directory}'`, 'MOUNT_REFUSED')
  }
}

/** Whether a mount could be made there, as far as a look tells. @throws MOUNT_POINT_UNUSABLE */
export async function checkMountPoint(
  options: Pick<FuseMountOptions, 'directory' | 'nonEmpty'>,
  signal?: AbortSignal,
): Promise<void> {
  const { directory } = options
  const unusable = (detail: string, cause?: unknown, hint?: string): OperationError =>
    new OperationError('MOUNT_POINT_UNUSABLE', `Cannot mount on '${directory}': ${detail}`, {
      cause,
      ...(hint === undefined ? {} : { hint }),
    })

  // Before any look at the directory: what is mounted there may be dead or hung.
  const top = mountsOf(directory).at(-1)
  if (top !== undefined) throw unusable(`'${top.source}' (${top.type}) is mounted there already`)
  try {
    const look = async (): Promise<void> => {
      const found = await stat(directory)
      if (!found.isDirectory()) throw unusable('it is not a directory')
      if (options.nonEmpty !== true && (await readdir(directory)).length > 0) throw unusable('it is not empty')
    }
    await withDeadline(`look at '${directory}'`, look(), LOOK_DEADLINE_MS, signal)
  } catch (error) {
    if (error instanceof OperationError) throw error
    const code = (error as NodeJS.ErrnoException).code
    if (code === 'ENOENT') throw unusable('it does not exist', error, 'Make it first, or have it made with --mkdir.')
    if (code === 'ENOTDIR') throw unusable('a part of its path is not a directory', error)
    if (code === 'EACCES') throw unusable('it may not be looked at by this user', error)
    if (code === 'ENOTCONN') throw unusable('it lies in a mount whose server is gone', error)
    throw unusable(error instanceof Error ? error.message : String(error), error)
  }
}
