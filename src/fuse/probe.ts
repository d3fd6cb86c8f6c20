/**
 * What FUSE allows on this machine, found out by doing it: mounts an empty file system on a temporary directory, answers
 * INIT, registers a backing file, and takes it all away. Nothing looks into the mount meanwhile, and every wait has a
 * deadline, so a machine where something hangs gets an answer too.
 */
import { closeSync, openSync } from 'node:fs'
import { mkdtemp, rm, rmdir } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { FileSystem } from './file-system.ts'
import { FUSE_FLAGS2_OVER_IO_URING, FUSE_FLAGS2_PASSTHROUGH, FUSE_KERNEL_VERSION } from './protocol.ts'
import { SESSION_DEFAULTS, type Session, startSession } from './session.ts'
import { OperationError } from '#base/errors.ts'
import { withDeadline } from '#os/deadline.ts'
import { type FuseMount, mountFuse } from '#os/fuse-mount.ts'
import { closeBacking, openBacking } from '#os/fuse-passthrough.ts'
import { unmountFuse } from '#os/fuse-unmount.ts'
import { SystemCallError } from '#os/libc.ts'

/** What the probe found. */
export interface FuseProbe {
  readonly available: boolean
  /** Why not, a sentence. */
  readonly why?: string
  /** As "7.45", where a mount could be made. */
  readonly protocol?: string
  readonly how?: FuseMount['how']
  readonly passthrough: boolean
  readonly passthroughWhy?: string
  /** Whether the kernel offers FUSE over io_uring (not used so far). */
  readonly ioUring: boolean
}

const PROBE_DEADLINE_MS = 5_000

/** Probes; never throws, never hangs. */
export async function probeFuse(): Promise<FuseProbe> {
  let directory: string | undefined
  try {
    directory = await mkdtemp(join(tmpdir(), 'eider-probe-'))
    return await probeOn(directory)
  } catch (error) {
    return { available: false, why: reason(error), passthrough: false, ioUring: false }
  } finally {
    // What is left of a probe that failed half-way is an empty directory, or one that somebody must look at anyway.
    if (directory !== undefined) await rmdir(directory).catch(() => undefined)
  }
}

async function probeOn(directory: string): Promise<FuseProbe> {
  const mount = await mountFuse(
    {
      directory,
      source: 'eider-probe',
      subtype: 'eider',
      readOnly: true,
      allowOther: false,
      defaultPermissions: true,
      maxReadBytes: SESSION_DEFAULTS.maxWriteBytes,
    },
    AbortSignal.timeout(PROBE_DEADLINE_MS),
  )
  const session = startSession(NOTHING, mount.fd, { ...SESSION_DEFAULTS, passthrough: true })
  try {
    const agreed = await withDeadline('hear the kernel', session.initialised, PROBE_DEADLINE_MS)
    const why =
      (agreed.flags2 & FUSE_FLAGS2_PASSTHROUGH) === 0
        ? 'the kernel does not offer it; Linux 6.9 and later do'
        : await registrationRefused(mount.fd)
    return {
      available: true,
      protocol: `${FUSE_KERNEL_VERSION}.${agreed.minor}`,
      how: mount.how,
      passthrough: why === undefined,
      ...(why === undefined ? {} : { passthroughWhy: why }),
      ioUring: (agreed.offeredFlags2 & FUSE_FLAGS2_OVER_IO_URING) !== 0,
    }
  } finally {
    await takeDown(directory, session)
  }
}

/** Why a file in the temporary directory cannot be a backing file; undefined where it can. */
async function registrationRefused(fuseFd: number): Promise<string | undefined> {
  const directory = await mkdtemp(join(tmpdir(), 'eider-probe-'))
  const fd = openSync(join(directory, 'backing'), 'w+', 0o600)
  try {
    closeBacking(fuseFd, openBacking(fuseFd, fd))
    return undefined
  } catch (error) {
    if (error instanceof SystemCallError && error.code === 'EPERM') return 'it takes root (CAP_SYS_ADMIN)'
    if (error instanceof SystemCallError && error.code === 'ELOOP')
      return `the file system of '${tmpdir()}' is stacked itself`
    return reason(error)
  } finally {
    closeSync(fd)
    await rm(directory, { recursive: true })
  }
}

async function takeDown(directory: string, session: Session): Promise<void> {
  try {
    await unmountFuse(directory, { lazy: true, deadlineMs: PROBE_DEADLINE_MS })
    await withDeadline('see the probe end', session.ended, PROBE_DEADLINE_MS)
  } finally {
    await session.destroy()
  }
}

function reason(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error)
  // The directory is ours, and its name would only confuse.
  return message.replace(/^Cannot [^:]*: /, '')
}

const refuse = (): never => {
  throw new OperationError('STORE_NOT_FOUND', 'Cannot find anything: this is a probe')
}

/** A file system with nothing in it: whoever looks meanwhile gets ENOENT. */
const NOTHING: FileSystem = {
  forget: () => undefined,
  lookup: refuse,
  getattr: refuse,
  setattr: refuse,
  readlink: refuse,
  symlink: refuse,
  mkdir: refuse,
  unlink: refuse,
  rmdir: refuse,
  rename: refuse,
  open: refuse,
  create: refuse,
  read: refuse,
  write: refuse,
  flush: refuse,
  fsync: refuse,
  release: refuse,
  opendir: refuse,
  readdir: refuse,
  releasedir: refuse,
  fsyncdir: refuse,
  statfs: refuse,
  getxattr: refuse,
  listxattr: refuse,
  setxattr: refuse,
  removexattr: refuse,
}
