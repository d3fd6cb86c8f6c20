/**
 * A mount of a store, from the mount point to its end: takes away what a crashed predecessor left there, mounts, serves, and
 * ends only when all that was written is in the store, or kept where the log says.
 *
 *   mountStore --INIT answered--> mounted --unmount()--> publishing --umount(2)--> ended
 *                                    '----umount by others, connection cut-------> ended
 *
 * The process that serves a mount never touches it: each path looked at here lies outside, and the mount point itself is
 * left to `os/`, which looks at it under a deadline and from a thread.
 */
import { OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { SESSION_DEFAULTS, startSession, type Session, type SessionEnd } from '#fuse/session.ts'
import { mountFuse } from '#os/fuse-mount.ts'
import { unmountFuse } from '#os/fuse-unmount.ts'
import { clearStaleMount } from '#os/mount-point.ts'
import { mountsOf } from '#os/mount-table.ts'
import type { Store } from '#store/store.ts'

import { holdsOpenIn, type HoldsOpen } from './descriptors.ts'
import { StagingArea } from './staging.ts'
import { StoreFileSystem, type StoreFileSystemStatus } from './store-file-system.ts'

export interface MountOptions {
  /** Stays the caller's to close, after the mount has ended. */
  readonly store: Store
  readonly directory: string
  readonly readOnly: boolean
  /** Lets other users than the one who mounts in. */
  readonly allowOther: boolean
  /** Where files are while they are written: a local disk, not in the mount. */
  readonly stagingDirectory: string
  /** How long what the store said is believed. */
  readonly validityMs?: number
  /** Owner of what the store tells no owner of; the mounting user where absent. */
  readonly uid?: number
  readonly gid?: number
  /** Bound of read-ahead memory. */
  readonly memoryBytesMax?: number
  /** Allows a mount point with entries, which the mount hides. */
  readonly nonEmpty?: boolean
  /** Gives up mounting; a mount that is up is ended by `unmount`. */
  readonly signal?: AbortSignal
}

/** How a mount ended: unmounted (by us or others), or cut by the kernel. */
export type EndReason = SessionEnd

export interface UnmountOptions {
  /** Takes it off the tree even while programs use it; they keep what they have open until this process ends. */
  readonly lazy?: boolean
  readonly signal?: AbortSignal
}

export interface MountStatus extends StoreFileSystemStatus {
  readonly directory: string
  readonly store: string
  readonly readOnly: boolean
}

export interface Mount {
  readonly directory: string
  /** Never rejects. When it resolves all that was written is in the store, or kept in `conflicts/` and logged. */
  readonly ended: Promise<EndReason>
  /**
   * Publishes all that is dirty, then unmounts; resolves when all of it is in the store.
   * @throws OperationError `MOUNT_BUSY` while programs use it; whatever kept files from being published. It stays mounted then.
   */
  unmount(options?: UnmountOptions): Promise<void>
  status(): MountStatus
}

const VALIDITY_MS = 1000
/** How often files whose publish failed are tried again. */
const RETRY_MS = 10_000

const log = logger('mount')

/**
 * Mounts `store` on a directory; resolves when it answers.
 * @throws OperationError `MOUNT_POINT_UNUSABLE`, `MOUNT_REFUSED`, `LOCAL_FAILED` (no staging directory), `ABORTED`.
 */
export async function mountStore(options: MountOptions): Promise<Mount> {
  const { store, directory, readOnly, signal } = options
  const staging = await StagingArea.open(options.stagingDirectory)
  const ending = new AbortController()
  // Known once it is mounted, and not asked before the first file is closed.
  let holdsOpen: HoldsOpen = () => false
  const fileSystem = new StoreFileSystem({
    store,
    staging,
    readOnly,
    validityMs: options.validityMs ?? VALIDITY_MS,
    owner: { uid: options.uid ?? process.getuid?.() ?? 0, gid: options.gid ?? process.getgid?.() ?? 0 },
    signal: ending.signal,
    holdsOpen: (pid, node) => holdsOpen(pid, node),
    ...(options.memoryBytesMax === undefined ? {} : { memoryBytesMax: options.memoryBytesMax }),
  })
  await clearStaleMount(directory, signal)
  const { fd } = await mountFuse(
    {
      directory,
      source: store.url,
      subtype: 'eider',
      readOnly,
      allowOther: options.allowOther,
      // The kernel checks modes and owners, as on a local disk; every request that comes is one that may be done.
      defaultPermissions: true,
      maxReadBytes: SESSION_DEFAULTS.maxWriteBytes,
      ...(options.nonEmpty === undefined ? {} : { nonEmpty: options.nonEmpty }),
    },
    signal,
  )
  const [entry] = mountsOf(directory).slice(-1)
  if (entry !== undefined) holdsOpen = holdsOpenIn(entry.id, entry.directory)
  const session = startSession(fileSystem, fd)
  try {
    await session.initialised
  } catch (error) {
    await session.destroy()
    await unmountFuse(directory, { lazy: true }).catch((cause: unknown) => {
      log.warn({ err: cause, directory }, 'Cannot take away a mount that did not come up')
    })
    throw error
  }
  return new StoreMount(options, fileSystem, session, ending)
}

class StoreMount implements Mount {
  readonly directory: string
  readonly ended: Promise<EndReason>
  readonly #options: MountOptions
  readonly #fileSystem: StoreFileSystem
  readonly #ending: AbortController
  readonly #retrying: NodeJS.Timeout
  #retryRuns = false

  constructor(options: MountOptions, fileSystem: StoreFileSystem, session: Session, ending: AbortController) {
    this.directory = options.directory
    this.#options = options
    this.#fileSystem = fileSystem
    this.#ending = ending
    this.#retrying = setInterval(() => void this.#retry(), RETRY_MS)
    this.#retrying.unref()
    this.ended = session.ended.then((how) => this.#end(how))
  }

  async unmount({ lazy = false, signal }: UnmountOptions = {}): Promise<void> {
    // What is open for writing keeps the mount busy, and is published by its close; lazily, there is no waiting for that.
    const failed = lazy ? await this.#fileSystem.publishAll() : await this.#fileSystem.publishFailed()
    if (failed.length > 0 && !lazy) {
      throw new OperationError(
        'STORE_UNAVAILABLE',
        `Cannot unmount "${this.directory}": ${failed.length} files cannot be published: ${messageOf(failed[0])}`,
        { cause: failed[0] },
      )
    }
    await unmountFuse(this.directory, { lazy }, signal)
    await this.ended
  }

  status(): MountStatus {
    const { store, readOnly } = this.#options
    return { ...this.#fileSystem.status, directory: this.directory, store: store.url, readOnly }
  }

  /** Files whose publish failed after their last close have nobody but this to try again. */
  async #retry(): Promise<void> {
    if (this.#retryRuns) return
    this.#retryRuns = true
    try {
      await this.#fileSystem.publishFailed()
    } finally {
      this.#retryRuns = false
    }
  }

  async #end(how: SessionEnd): Promise<EndReason> {
    clearInterval(this.#retrying)
    const failed = await this.#fileSystem.publishAll()
    if (failed.length > 0) await this.#fileSystem.keepUnpublished()
    this.#ending.abort(new OperationError('ABORTED', `Cannot go on: "${this.directory}" is unmounted`))
    log.info({ directory: this.directory, how }, 'unmounted')
    return how
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
