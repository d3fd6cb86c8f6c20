/**
 * Mounting and unmounting without root, by the setuid helper fusermount3: it opens /dev/fuse with the caller's rights,
 * mounts, and sends the descriptor back over a Unix socket whose number it finds in `_FUSE_COMMFD`. It says what
 * went wrong on stderr only, so that is kept for the user.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { accessSync, closeSync, constants } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { withDeadline } from './deadline.ts'
import type { FuseMountOptions } from './fuse-mount.ts'
import { libc } from './libc.ts'
import { OperationError } from '#base/errors.ts'

const HELPER = 'fusermount3'
const HELPER_DEADLINE_MS = 30_000

/** Mounts by the helper: the descriptor of /dev/fuse, non-blocking. @throws MOUNT_REFUSED */
export async function mountByHelper(options: FuseMountOptions, signal?: AbortSignal): Promise<number> {
  const [ours, theirs] = libc().socketpair()
  let fd: number | undefined
  try {
    let helper: Helper
    try {
      helper = startHelper(['-o', helperOptions(options), '--', options.directory], options.directory, theirs)
    } finally {
      // Our copy of the helper's end must go, or its exit would never be seen as the end of the stream.
      closeSync(theirs)
    }
    const received = receiveDescriptor(ours)
    // Killing the helper ends the stream, which ends the receiving: nothing is left behind on the thread pool.
    const both = Promise.all([received, helper.exited])
    const [descriptor, exit] = await withDeadline(
      `mount on '${options.directory}'`,
      both,
      HELPER_DEADLINE_MS,
      signal,
    ).catch(async (error: unknown) => {
      helper.process.kill('SIGKILL')
      const late = await received
      if (late !== undefined) closeSync(late)
      throw error
    })
    if (descriptor === undefined) {
      throw new OperationError('MOUNT_REFUSED', `Cannot mount on '${options.directory}': ${explain(exit)}`)
    }
    fd = descriptor
  } finally {
    closeSync(ours)
  }
  setNonBlocking(fd)
  return fd
}

/** Unmounts by the helper. Resolves to what it complained about, empty where it succeeded. */
export async function unmountByHelper(directory: string, lazy: boolean, signal?: AbortSignal): Promise<string> {
  const helper = startHelper(['-u', ...(lazy ? ['-z'] : []), '--', directory], directory)
  const exit = await withDeadline(`unmount '${directory}'`, helper.exited, HELPER_DEADLINE_MS, signal).catch(
    (error: unknown) => {
      helper.process.kill('SIGKILL')
      throw error
    },
  )
  return exit.code === 0 ? '' : explain(exit)
}

/** Where the helper is on the search path; undefined where it is not. */
export function findHelper(): string | undefined {
  // Ordinary users often lack the sbin directories in PATH, and a unit of systemd may have none at all.
  const places = [...(process.env['PATH'] ?? '').split(':'), '/usr/local/bin', '/usr/bin', '/bin', '/usr/sbin', '/sbin']
  for (const place of places) {
    if (!place.startsWith('/')) continue
    const path = join(place, HELPER)
    try {
      accessSync(path, constants.X_OK)
      return path
    } catch {
      // Not here: the next place.
    }
  }
  return undefined
}

function helperOptions(options: FuseMountOptions): string {
  // The helper splits at commas, and takes a backslash before one as a plain comma.
  const escape = (value: string): string => value.replace(/[\\,]/g, '\\$&')
  return [
    `fsname=${escape(options.source)}`,
    `subtype=${escape(options.subtype)}`,
    'nosuid',
    'nodev',
    ...(options.readOnly ? ['ro'] : []),
    ...(options.allowOther ? ['allow_other'] : []),
    ...(options.defaultPermissions ? ['default_permissions'] : []),
    `max_read=${options.maxReadBytes}`,
  ].join(',')
}

interface HelperExit {
  readonly code: number | null
  readonly complaint: string
}

interface Helper {
  readonly process: ChildProcess
  readonly exited: Promise<HelperExit>
}

function startHelper(args: readonly string[], directory: string, socket?: number): Helper {
  const path = findHelper()
  if (path === undefined) {
    throw new OperationError(
      'MOUNT_REFUSED',
      `Cannot mount or unmount '${directory}': ${HELPER} is not installed, and only root can do without it; install the package "fuse3"`,
    )
  }
  const helper = spawn(path, args, {
    // Never in a mount of our own: the child changes its directory while we wait for it to start.
    cwd: '/',
    stdio: ['ignore', 'ignore', 'pipe', ...(socket === undefined ? [] : [socket])],
    env: { ...process.env, LC_ALL: 'C', ...(socket === undefined ? {} : { _FUSE_COMMFD: '3' }) },
  })
  const exit = new Promise<number | null>((resolve, reject) => {
    helper.once('error', reject)
    helper.once('exit', resolve)
  })
  const complaint = helper.stderr === null ? Promise.resolve('') : text(helper.stderr)
  const exited = Promise.all([exit, complaint]).then(([code, said]) => ({ code, complaint: said.trim() }))
  return { process: helper, exited }
}

/** The helper's complaint in a sentence that says what to do. */
function explain(exit: HelperExit): string {
  const said = exit.complaint.replace(/^fusermount3: /gm, '').replaceAll('\n', '; ')
  if (/open \/dev\/fuse: Permission denied/.test(said)) {
    return `/dev/fuse may not be opened by this user; its usual mode is 0666 ("chmod 666 /dev/fuse", or a udev rule)`
  }
  if (/open \/dev\/fuse: No such file|fuse device not found/.test(said)) {
    return '/dev/fuse does not exist; load the kernel module "fuse", or give the container that device'
  }
  if (/user_allow_other/.test(said)) {
    return '"allow other" is for root, unless /etc/fuse.conf has the line "user_allow_other"'
  }
  if (/no write access to mountpoint/.test(said)) return 'this user may not write in that directory'
  if (said !== '') return said
  return `${HELPER} ended with ${exit.code === null ? 'a signal' : `code ${exit.code}`} and said nothing`
}

/**
 * Waits for one descriptor (SCM_RIGHTS) on a socket; undefined where the other end closes without one. The layouts are
 * those of struct msghdr and struct cmsghdr on 64-bit Linux.
 */
async function receiveDescriptor(socket: number): Promise<number | undefined> {
  const MSG_CMSG_CLOEXEC = 0x40000000
  const SOL_SOCKET = 1
  const SCM_RIGHTS = 1
  const CONTROL_BYTES = 24
  const library = libc()
  const data = Buffer.alloc(8)
  const control = Buffer.alloc(CONTROL_BYTES)
  const vector = Buffer.alloc(16)
  vector.writeBigUInt64LE(library.address(data), 0)
  vector.writeBigUInt64LE(1n, 8)
  const message = Buffer.alloc(56)
  message.writeBigUInt64LE(library.address(vector), 16)
  message.writeBigUInt64LE(1n, 24)
  message.writeBigUInt64LE(library.address(control), 32)
  message.writeBigUInt64LE(BigInt(CONTROL_BYTES), 40)

  const received = await library.recvmsg(socket, message, MSG_CMSG_CLOEXEC)
  // Named once more so that none of them is collected while the kernel writes through its address.
  const held = [data, control, vector].every((buffer) => buffer.length > 0)
  const rights =
    held &&
    received > 0 &&
    message.readBigUInt64LE(40) >= 20n &&
    control.readInt32LE(8) === SOL_SOCKET &&
    control.readInt32LE(12) === SCM_RIGHTS
  return rights ? control.readInt32LE(16) : undefined
}

function setNonBlocking(fd: number): void {
  const F_GETFL = 3
  const F_SETFL = 4
  const O_NONBLOCK = 0o4000
  try {
    libc().fcntl(fd, F_SETFL, libc().fcntl(fd, F_GETFL, 0) | O_NONBLOCK)
  } catch (error) {
    closeSync(fd)
    throw error
  }
}
