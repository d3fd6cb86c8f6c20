/** Follows local roots by a watcher each; a root that is a single file is looked at each second. */
import { setTimeout as delay } from 'node:timers/promises'

import { isSameInode } from './equality.ts'
import type { Root } from './prefixes.ts'
import type { SyncWatcher } from './snapshot.ts'
import type { SyncSource } from './source.ts'
import type { Follower, Sync } from './sync.ts'
import { openWatcher } from './watch/open-watcher.ts'
import type { Watcher } from './watch/watcher.ts'
import type { TreeEntry } from './tree.ts'

const FILE_EVERY_MS = 1000
const ROOT_EVERY_MS = 2000

export class LocalFollower implements Follower {
  readonly #source: SyncSource
  readonly #watchers: readonly { readonly root: Root; readonly watcher: Watcher }[]
  readonly #files: readonly Root[]

  /** @throws OperationError where a root cannot be watched */
  constructor(roots: readonly Root[], source: SyncSource) {
    this.#source = source
    this.#files = roots.filter(({ isDirectory }) => !isDirectory)
    this.#watchers = roots
      .filter(({ isDirectory }) => isDirectory)
      .map((root) => ({ root, watcher: openWatcher(root.source) }))
  }

  async arm(): Promise<void> {
    for (const { watcher } of this.#watchers) await watcher.arm()
  }

  async follow(sync: Pick<Sync, 'take' | 'ask'>, signal: AbortSignal): Promise<void> {
    await Promise.all([
      ...this.#watchers.map(async ({ root, watcher }) => {
        for await (const changes of watcher.changes(signal)) sync.take(root.target, changes)
      }),
      ...this.#files.map((root) => this.#followFile(root, sync, signal)),
      this.#checkRoots(signal),
    ])
  }

  get status(): SyncWatcher | undefined {
    const [first] = this.#watchers
    if (first === undefined)
      return this.#files.length === 0 ? undefined : { kind: 'polling', degraded: [], overflows: 0 }
    return {
      kind: first.watcher.kind,
      degraded: this.#watchers.flatMap(({ watcher }) => [...watcher.degraded]),
      overflows: this.#watchers.reduce((sum, { watcher }) => sum + watcher.counts.overflows, 0),
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.#watchers.map(({ watcher }) => watcher.close()))
  }

  /** A root that is named by a symlink can be another directory without any change to the one that is watched. */
  async #checkRoots(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await delay(ROOT_EVERY_MS, undefined, { signal }).catch(() => undefined)
      if (signal.aborted) return
      for (const { root } of this.#watchers) await this.#source.look(root.target, { signal })
    }
  }

  async #followFile({ target }: Root, sync: Pick<Sync, 'ask'>, signal: AbortSignal): Promise<void> {
    let before: TreeEntry | undefined
    while (!signal.aborted) {
      const looked = await this.#source.look(target, { signal })
      const now = looked.is === 'entry' ? looked.entry : undefined
      if (!isSame(before, now)) sync.ask(target)
      before = now
      await delay(FILE_EVERY_MS, undefined, { signal }).catch(() => undefined)
    }
  }
}

function isSame(a: TreeEntry | undefined, b: TreeEntry | undefined): boolean {
  return a === b || isSameInode(a?.identity, b?.identity)
}
