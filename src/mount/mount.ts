/**
 * A mount of a store, from the mount point to its end: takes away what a crashed predecessor left there, mounts, serves, and
 * ends only when all that was written is in the store, or kept where the log says.
 *
 *   mountStore --INIT answered--> mounted --umount by others, connection cut--------> storing --all stored or kept--> ended
 *                                    '--stop()--> detached --free, or out of time--> storing
 *
 * Storing begins when no request can come any more: so no write is acknowledged that the last publish does not see.
 *
 * The process that serves a mount never touches it: each path looked at here lies outside, and the mount point itself is
 * left to `os/`, which looks at it under a deadline and from a thread.
 */
import { setTimeout as delay } from 'node:timers/promises'

import { OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import type { MemoryBudget } from '#base/memory-budget.ts'
import type { AttributeIndex } from '#cache/attribute-index.ts'
import { SESSION_DEFAULTS, startSession, type Session, type SessionEnd } from '#fuse/session.ts'
import { mountFuse } from '#os/fuse-mount.ts'
import { unmountFuse } from '#os/fuse-unmount.ts'
import { clearStaleMount } from '#os/mount-point.ts'
import { mountsOf } from '#os/mount-table.ts'
import { setReadAhead } from '#os/read-ahead.ts'
import type { FileCache } from '#cache/file-cache.ts'
import type { Store } from '#store/store.ts'

import type { OnConflict } from './conflict-policy.ts'
import { Journal } from './journal.ts'
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
  /** Taken from the modes of what the store tells no mode of; 022 where absent. */
  readonly umask?: number
  /** Stays the caller's to close, after the mount has ended. */
  readonly attributeIndex?: AttributeIndex
  /** Of this process, shared with the store. */
  readonly memory?: MemoryBudget
  /** Asks a second time for ranges whose request is slow. */
  readonly hedge?: boolean
  /** Answers closes when the file is in a journal on the staging disk, and stores it then. */
  readonly writeBack?: boolean
  /** False: leaves alone what a mount before this one has still to store. */
  readonly journal?: false
  /** What is done with a file that somebody else has changed meanwhile; `fail` where absent. */
  readonly onConflict?: OnConflict
  /** Versions of files on local disk. Stays the caller's to close, after the mount has ended. */
  readonly cache?: FileCache
  /** Has the kernel read and write cached files itself, where it can and will; on by default. */
  readonly passthrough?: boolean
  /** Allows a mount point with entries, which the mount hides. */
  readonly nonEmpty?: boolean
  /** Gives up mounting; a mount that is up is ended by `unmount`. */
  readonly signal?: AbortSignal
  /** Told, as often as it is tried, of what can neither be stored nor kept by a mount that is unmounted. */
  readonly onStuck?: (paths: readonly string[]) => void
}

/** What a mount has in hand; `isServing` until it is unmounted, after which it stores what is left. */
export interface MountStatus extends StoreFileSystemStatus {
  readonly isServing: boolean
  /** Requests of programs that wait for an answer, whose the oldest is (0: not known), and for how long it waits. */
  readonly waiting: { readonly requests: number; readonly pid: number; readonly ms: number } | undefined
}

/** How a mount ended. */
export interface MountEnd {
  /** Unmounted by us or others, cut by the kernel, or refused to programs that went on using it. */
  readonly how: SessionEnd
  /** Paths in the mount of what is neither in the store nor kept; only after `stop`. */
  readonly lost: readonly string[]
  /** Paths in the store of what was removed here and is there again, since the store was not told. */
  readonly notRemoved: readonly string[]
}

export interface StopOptions {
  /** For programs that have files open: they can go on and close them for so long. */
  readonly graceMs: number
  /** What cannot be stored in so long, from now on, is kept. */
  readonly publishMs: number
}

export interface Mount {
  readonly directory: string
  /** What it has in hand just now. */
  readonly status: MountStatus
  /**
   * Never rejects. When it resolves all that was written is in the store, or kept in `conflicts/` and logged; or, after
   * `stop`, lost. Without a `stop` there is no giving up: what can neither be stored nor kept is tried again.
   */
  readonly ended: Promise<MountEnd>
  /** Ends it within bounds, also under programs that use it. Never rejects. */
  stop(options: StopOptions): Promise<MountEnd>
  /** Keeps what is staged, without a wait: for a process that ends at once, whyever. */
  keepAtOnce(): void
}

const VALIDITY_MS = 1000
/** When files whose publish failed are tried again; while that fails, the pauses double. */
const RETRY_MS = 10_000
const RETRY_MS_MAX = 60_000
const LOOK_MS = 50
/**
 * What the kernel asks for ahead of a sequential reader. Of what is cached a mount gives 2.8 GB/s by these pieces, 2.2 by the
 * usual 128 KiB, and no more by larger ones, of which a fault of a mapping would fetch too much.
 */
const READ_AHEAD_BYTES = 512 << 10

const log = logger('mount')

/**
 * Mounts `store` on a directory; resolves when it answers.
 * @throws OperationError `MOUNT_POINT_UNUSABLE`, `MOUNT_REFUSED`, `LOCAL_FAILED` (no staging directory), `ABORTED`.
 */
export async function mountStore(options: MountOptions): Promise<Mount> {
  const { store, readOnly } = options
  const staging = await StagingArea.open(options.stagingDirectory)
  // A mount that changes nothing leaves alone what another one has still to store.
  const isUsed = !readOnly && options.journal !== false
  const journal = isUsed ? Journal.open(staging, store.url, options.writeBack ?? false) : undefined
  try {
    return await mountWith(options, staging, journal)
  } catch (error) {
    await journal?.close()
    throw error
  }
}

async function mountWith(options: MountOptions, staging: StagingArea, journal: Journal | undefined): Promise<Mount> {
  const { store, directory, readOnly, signal } = options
  const ending = new AbortController()
  // Known once it is mounted, and not asked before the first file is closed.
  let holdsOpen: HoldsOpen = () => false
  const fileSystem = new StoreFileSystem({
    store,
    staging,
    readOnly,
    validityMs: options.validityMs ?? VALIDITY_MS,
    owner: {
      uid: options.uid ?? process.getuid?.() ?? 0,
      gid: options.gid ?? process.getgid?.() ?? 0,
      ...(options.umask === undefined ? {} : { umask: options.umask }),
    },
    signal: ending.signal,
    holdsOpen: (pid, node) => holdsOpen(pid, node),
    ...(options.memory === undefined ? {} : { memory: options.memory }),
    ...(options.hedge === undefined ? {} : { hedge: options.hedge }),
    ...(journal === undefined ? {} : { journal, writeBack: options.writeBack ?? false }),
    ...(options.onConflict === undefined ? {} : { onConflict: options.onConflict }),
    ...(options.attributeIndex === undefined ? {} : { attributeIndex: options.attributeIndex }),
    ...(options.cache === undefined ? {} : { cache: options.cache }),
  })
  fileSystem.replay()
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
  // Without a cache there is nothing to pass through to, and the kernel lets only root register files.
  // What the kernel writes itself cannot be told from what the journal vouches for.
  const passthrough =
    options.passthrough !== false && journal === undefined && options.cache !== undefined && process.geteuid?.() === 0
  const session = startSession(fileSystem, fd, { ...SESSION_DEFAULTS, passthrough })
  try {
    await session.initialised
    fileSystem.passThrough(session.backing)
    fileSystem.notifyBy(session.notifier)
    await setReadAhead(directory, READ_AHEAD_BYTES)
    if (passthrough && session.backing === undefined) {
      log.info('reads and writes are not passed through: it takes Linux 6.9, and CONFIG_FUSE_PASSTHROUGH in its kernel')
    }
  } catch (error) {
    await session.destroy()
    await unmountFuse(directory, { lazy: true }).catch((cause: unknown) => {
      log.warn({ err: cause, directory }, 'Cannot take away a mount that did not come up')
    })
    throw error
  }
  fileSystem.start()
  return new StoreMount(options, fileSystem, session, ending)
}

class StoreMount implements Mount {
  readonly directory: string
  readonly ended: Promise<MountEnd>
  readonly #options: MountOptions
  readonly #fileSystem: StoreFileSystem
  readonly #session: Session
  /** Gives up what is asked of the store. */
  readonly #ending: AbortController
  readonly #stopping = new AbortController()
  #refuses = false
  #retrying: NodeJS.Timeout | undefined

  constructor(options: MountOptions, fileSystem: StoreFileSystem, session: Session, ending: AbortController) {
    this.directory = options.directory
    this.#options = options
    this.#fileSystem = fileSystem
    this.#session = session
    this.#ending = ending
    this.#retryIn(RETRY_MS)
    this.ended = session.ended.then((how) => this.#end(how))
  }

  get status(): MountStatus {
    const { inFlight: requests, oldest } = this.#session
    const waiting = oldest && { requests, pid: oldest.pid, ms: oldest.waitedMs }
    return { ...this.#fileSystem.status, isServing: !this.#refuses, waiting }
  }

  async stop({ graceMs, publishMs }: StopOptions): Promise<MountEnd> {
    this.#stopping.abort()
    const late = setTimeout(() => {
      this.#ending.abort(new OperationError('ABORTED', `Cannot go on: "${this.directory}" was told to end`))
    }, publishMs)
    try {
      // Whatever is mounted there after the end of the session is not this one.
      if (!this.#refuses) await this.#detach(graceMs)
      return await this.ended
    } finally {
      clearTimeout(late)
    }
  }

  keepAtOnce(): void {
    this.#fileSystem.keepAtOnce()
  }

  async #detach(graceMs: number): Promise<void> {
    const deadline = performance.now() + graceMs
    try {
      await unmountFuse(this.directory, { deadlineMs: graceMs })
      return
    } catch (error) {
      if (this.#refuses) return
      this.#tellInUse(error, deadline)
    }
    await unmountFuse(this.directory, { lazy: true, deadlineMs: graceMs }).catch((error: unknown) => {
      log.error({ err: error }, `Cannot take "${this.directory}" off the tree`)
    })
    while (!this.#refuses && this.#fileSystem.status.openFiles > 0 && performance.now() < deadline) await delay(LOOK_MS)
    const { openFiles } = this.#fileSystem.status
    if (!this.#refuses)
      log.warn({ directory: this.directory, openFiles }, 'detached from under the programs that use it')
    await this.#session.destroy()
  }

  /** Who stands in it has nothing to finish; who has files open gets the time to. */
  #tellInUse(error: unknown, deadline: number): void {
    const { openFiles } = this.#fileSystem.status
    const why = error instanceof Error ? error.message : String(error)
    if (openFiles === 0) {
      log.info({ why }, 'taking it away from programs that have nothing open in it')
      return
    }
    const until = new Date(Date.now() + deadline - performance.now()).toISOString()
    log.warn({ why, openFiles, until }, 'programs still use it, and have until then to close their files')
  }

  /** Files whose publish failed after their last close have nobody but this to try again. */
  #retryIn(pauseMs: number): void {
    this.#retrying = setTimeout(() => void this.#retry(pauseMs), pauseMs).unref()
  }

  async #retry(pauseMs: number): Promise<void> {
    const errors = await this.#fileSystem.publishFailed()
    if (this.#refuses) return
    this.#retryIn(errors.length === 0 ? RETRY_MS : Math.min(RETRY_MS_MAX, 2 * pauseMs))
  }

  async #end(how: SessionEnd): Promise<MountEnd> {
    this.#refuses = true
    clearTimeout(this.#retrying)
    this.#options.store.hurry?.()
    this.#fileSystem.disconnected()
    const lost = await this.#storeOrKeep()
    const notRemoved = this.#fileSystem.giveUpRemovals()
    await this.#fileSystem.cacheSettled()
    await this.#fileSystem.closeJournal()
    this.#ending.abort(new OperationError('ABORTED', `Cannot go on: "${this.directory}" is unmounted`))
    log.info({ directory: this.directory, how }, 'unmounted')
    return { how, lost, notRemoved }
  }

  /** Gives the paths of what could neither be stored nor kept. */
  async #storeOrKeep(): Promise<string[]> {
    const { signal } = this.#stopping
    for (;;) {
      const isLast = signal.aborted
      await this.#fileSystem.publishAll()
      const left = await this.#fileSystem.keepUnpublished()
      if (left.length === 0 || isLast) return left
      this.#options.onStuck?.(left)
      // A stop ends the wait, and there is one more try.
      await delay(RETRY_MS, undefined, { signal }).catch(() => undefined)
    }
  }
}
