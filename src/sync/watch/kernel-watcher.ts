/**
 * What the watchers by the kernel's events have in common: a queue that is drained in order, a walk of all directories where
 * that queue was not enough, and what there are no events of, which is looked at by the clock. What an event means, and
 * what is known of directories, is each one's own.
 */
import { closeSync } from 'node:fs'
import { ERRNO } from '#base/errno.ts'
import { OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { SystemCallError } from '#os/libc.ts'
import { readNow } from '#os/read-write.ts'
import { S_IFDIR, S_IFMT, statusAt } from '#os/status.ts'
import { OpenFiles } from './open-files.ts'
import { Outbox } from './outbox.ts'
import { PolledSubtrees } from './polled-subtrees.ts'
import { readAllEntries } from './polled-tree.ts'
import { Root, RootGone } from './root.ts'
import { Slices, WatchLoop } from './watch-loop.ts'
import {
  type Change,
  type Degraded,
  WATCH_DEFAULTS,
  type Watcher,
  type WatcherCounts,
  type WatchOptions,
} from './watcher.ts'

const log = logger('sync')
const ENTRIES_BYTES = 65_536

export abstract class KernelWatcher implements Watcher {
  abstract readonly kind: Watcher['kind']
  readonly counts: WatcherCounts = { events: 0, changes: 0, overflows: 0 }
  protected readonly options: WatchOptions
  protected readonly root: Root
  /** Of the kernel's queue. */
  protected readonly fd: number
  protected readonly outbox = new Outbox()
  protected readonly loop = new WatchLoop(this.outbox)
  protected readonly open: OpenFiles
  protected readonly polled: PolledSubtrees
  /** What was read of the queue. */
  protected readonly events: Buffer
  /** What is in the queue may be older than what the last walk of the whole tree has seen: renames are told as subtrees. */
  protected isStale = true
  readonly #entries = Buffer.allocUnsafeSlow(ENTRIES_BYTES)
  #mounts = new Map<string, string>()
  #isClosed = false

  /** `openQueue` gives the descriptor to read events from, `eventsBytes` at a time. */
  protected constructor(
    directory: string,
    options: Partial<WatchOptions>,
    openQueue: () => number,
    eventsBytes: number,
  ) {
    this.options = { ...WATCH_DEFAULTS, ...options }
    this.open = new OpenFiles(this.options.openEveryMs)
    this.root = new Root(directory)
    this.polled = new PolledSubtrees(this.root, this.outbox)
    this.events = Buffer.allocUnsafeSlow(eventsBytes)
    this.fd = openQueue()
  }

  /** Decodes the event at an offset of `events`; gives where the next one begins. */
  protected abstract decode(at: number): number
  /** Takes in the event that was decoded last; a promise where directories are to be walked for it. */
  protected abstract take(): Promise<unknown> | undefined
  /** Learns all directories anew. */
  protected abstract walkAll(tells: boolean): Promise<unknown>
  /** Something was mounted or unmounted at these paths. */
  protected abstract mountsChanged(paths: readonly string[]): Promise<void>

  /** All that was in the queue has been taken. */
  protected drained(): void {}

  /** What can only be polled is due. */
  protected poll(): Promise<void> {
    return this.polled.poll()
  }

  get degraded(): readonly Degraded[] {
    return this.polled.degraded
  }

  async arm(): Promise<void> {
    try {
      await this.loop.run(async () => {
        this.#mounts = this.root.mountsBelow()
        await this.walkAll(false)
        // What happened during the walk; renames from here on are told as such.
        await this.drain()
      })
    } catch (error) {
      if (!(error instanceof RootGone)) throw error
      throw new OperationError('INPUT_INVALID', `Cannot watch "${this.root.directory}": ${error.message}`, {
        cause: error,
      })
    }
    this.loop.listen(this.fd, () => this.drain())
    this.loop.every(this.options.openEveryMs, () => this.#tellOpen())
    this.loop.every(this.options.pollEveryMs, () => this.poll())
    this.loop.every(this.options.checkEveryMs, () => this.#check())
  }

  async *changes(signal?: AbortSignal): AsyncIterable<readonly Change[]> {
    for await (const batch of this.outbox.batches(signal)) {
      this.counts.changes += batch.length
      yield batch
    }
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    await this.loop.close()
    closeSync(this.fd)
  }

  /** Reads all that is in the queue. */
  protected async drain(): Promise<number> {
    const slices = new Slices()
    let count = 0
    while (!this.loop.isClosed && !this.outbox.isFull) {
      const length = readNow(this.fd, this.events)
      if (length === -ERRNO.EINTR) continue
      if (length === -ERRNO.EAGAIN) {
        this.isStale = false
        break
      }
      if (length < 0) throw new SystemCallError('read', -length).toOperationError('read what changed')
      for (let at = 0; at < length && !this.loop.isClosed; count++) {
        this.counts.events++
        at = this.decode(at)
        const walking = this.take()
        if (walking !== undefined) await walking
      }
      await slices.pause()
    }
    this.drained()
    return count
  }

  protected async overflowed(): Promise<void> {
    this.counts.overflows++
    log.warn({ directory: this.root.directory }, 'the queue of changes overflowed: everything is looked at again')
    this.isStale = true
    await this.walkAll(false)
    this.outbox.other({ kind: 'lost' })
  }

  protected directoriesIn(fd: number): string[] {
    const names: string[] = []
    const unknown: string[] = []
    const each = (name: string | undefined, type: string): void => {
      if (type !== 'directory' && type !== 'unknown') return
      // A name that is not UTF-8 is told by whoever scans.
      if (name !== undefined) (type === 'directory' ? names : unknown).push(name)
    }
    readAllEntries(fd, this.#entries, each)
    for (const name of unknown) {
      if (((statusAt(fd, name)?.mode ?? 0) & S_IFMT) === S_IFDIR) names.push(name)
    }
    return names
  }

  #tellOpen(): void {
    for (const path of this.open.due(Date.now())) this.outbox.written(path, true)
  }

  /** Whether the root is the same, and what was mounted or unmounted below it, of which there are no events. */
  async #check(): Promise<void> {
    if (!this.root.isSame()) throw new RootGone('the root is not the same directory as before')
    const now = this.root.mountsBelow()
    const changed = [...new Set([...now.keys(), ...this.#mounts.keys()])].filter(
      (path) => now.get(path) !== this.#mounts.get(path),
    )
    this.#mounts = now
    if (changed.length > 0) await this.mountsChanged(changed)
  }
}
