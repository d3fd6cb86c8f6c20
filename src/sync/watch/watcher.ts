/**
 * The port of a watcher: being told what changes in a local tree, so that provably nothing is lost. Three kinds keep it
 * (fanotify, inotify, polling), and `open-watcher.ts` chooses.
 *
 * What is told is where to look, in order, and never what is there: by the time it is read, more may have happened, of which
 * later changes tell. Who takes them keeps to five rules, and then what they know becomes what is on the disk:
 * 1. A path that is told is looked at after it was told. What is not found then (in the middle of a scan, too) has gone or moved,
 *    as a later change tells, and counts as not looked at until then.
 * 2. What has not been looked at when it, or a directory above it, is told to have moved, is looked at under the new name, with
 *    all below.
 * 3. `moved` is believed only where what is at `to` is what was known as `from` (device and inode), and nothing is at `from`;
 *    else both are subtrees to scan. What is at `to` is looked at in any case.
 * 4. After `lost`, everything is scanned.
 * 5. A file with several names (hard links) is told by the one that was used: what is known under the others is looked at, too.
 * Writes through a mapping (mmap) have no events on Linux, those of other machines to a network file system neither: a periodic
 * scan finds them.
 */

export type Change =
  /**
   * Closed after a write, made, or its attributes changed. With `isOpen`, somebody may go on writing without being done: no
   * close was seen since. Then it may be told again every few seconds, and again when it is closed, but need not be (a new
   * link to a file that was complete).
   */
  | { readonly kind: 'written'; readonly path: string; readonly isOpen: boolean }
  /** No longer there under that name; of a directory with all below. */
  | { readonly kind: 'gone'; readonly path: string }
  | { readonly kind: 'moved'; readonly from: string; readonly to: string; readonly isDirectory: boolean }
  /** Anything at that path or under it may be new, changed or gone: to be scanned. The root is the empty path. */
  | { readonly kind: 'subtree'; readonly path: string }
  /** Events were lost: everything may have changed. What comes after is whole again. */
  | { readonly kind: 'lost' }
  /** The root was removed, renamed, unmounted or is another one: nothing more is told. Nothing is to be concluded of its content. */
  | { readonly kind: 'root-gone' }
  /** What is there but has no path, or cannot be watched; `path` as it can be shown, bytes that are no UTF-8 escaped. */
  | {
      readonly kind: 'skipped'
      readonly path: string
      readonly reason: 'not-utf8' | 'unreadable'
      readonly detail: string
    }

/** A subtree that is polled, for want of something better. */
export interface Degraded {
  readonly path: string
  readonly why: string
}

export interface WatcherCounts {
  /** Read from the kernel, also those of outside the tree. */
  events: number
  /** Told, after merging. */
  changes: number
  /** Times that the queue of the kernel overflowed: each was told as `lost`. */
  overflows: number
}

export interface Watcher {
  readonly kind: 'fanotify' | 'inotify' | 'polling'
  /** Once it resolves, nothing that happens is missed: to be waited for before a first scan. @throws OperationError */
  arm(): Promise<void>
  /**
   * Batches of changes, as they come; for one reader. Ends without an error when the signal aborts, after `root-gone` and
   * after `close`.
   * @throws what the watcher failed with
   */
  changes(signal?: AbortSignal): AsyncIterable<readonly Change[]>
  /** By now; polled means seconds late, and only what differs at two polls is told. */
  readonly degraded: readonly Degraded[]
  readonly counts: Readonly<WatcherCounts>
  close(): Promise<void>
}

export interface WatchOptions {
  /** Between two polls of what is polled. */
  readonly pollEveryMs: number
  /** A file that is written without being closed is told at most that often. */
  readonly openEveryMs: number
  /** For so long a rename waits for its second half; a move out of the tree is told that much later. */
  readonly renameWaitMs: number
  /** Between two looks whether the root is the same, and at what is mounted below it. */
  readonly checkEveryMs: number
}

export const WATCH_DEFAULTS: WatchOptions = {
  pollEveryMs: 10_000,
  openEveryMs: 5_000,
  renameWaitMs: 30,
  checkEveryMs: 2_000,
}
