/**
 * Deletes what one comparison found in the target alone: gathered while it goes on, and deleted once it is over, all of it or,
 * where it is more than is likely to be meant, nothing; with `--delete during` as long as it is little of what is known by then.
 */
import { logger } from '#base/log.ts'
import { parentOf } from '#store/path.ts'

import type { Compared } from './delete-guard.ts'
import type { Progress } from './progress.ts'
import type { SyncOptions, SyncParts } from './sync.ts'
import { TargetOnly } from './target-only.ts'
import type { TouchedDirectories } from './touched-directories.ts'
import type { TreeEntry } from './tree.ts'
import type { Workers } from './workers.ts'

const log = logger('sync')

export class Deletion {
  readonly #parts: SyncParts
  readonly #options: SyncOptions
  readonly #workers: Workers
  readonly #directories: TouchedDirectories
  readonly #progress: Progress
  readonly #found: TargetOnly

  constructor(
    parts: SyncParts,
    options: SyncOptions,
    workers: Workers,
    directories: TouchedDirectories,
    progress: Progress,
  ) {
    this.#parts = parts
    this.#options = options
    this.#workers = workers
    this.#directories = directories
    this.#progress = progress
    this.#found = new TargetOnly(options.scratch)
    parts.deleteGuard.beginComparison()
  }

  add(target: TreeEntry): void {
    if (this.#options.deletes !== 'never') this.#found.add(target)
  }

  /** Something that only the target has stays there. */
  keep(path: string): void {
    this.#found.keep(path)
  }

  /** The comparison comes to the next root. */
  beginRoot(): void {
    this.#found.beginRoot(this.#progress.tally.compared.source)
  }

  endRoot(name: string): void {
    this.#found.endRoot(name, this.#progress.tally.compared.source)
  }

  /** The comparison has come some way, and goes on. */
  async meanwhile(): Promise<void> {
    const { fileCount, count } = this.#found
    if (this.#options.deletes !== 'during' || fileCount === 0) return
    if (!this.#found.isInRoot(this.#progress.tally.compared.source)) return
    if (this.#parts.deleteGuard.comparedObjection(count, this.#compared) === undefined) await this.#delete(false)
  }

  get #compared(): Compared {
    return { ...this.#progress.tally.compared, emptied: this.#found.emptied }
  }

  /** The comparison is over, and what it found to send was sent or has failed. @throws OperationError `DELETES_REFUSED` */
  async finish(): Promise<void> {
    const { tally } = this.#progress
    const { count } = this.#found
    tally.keptBack = 0
    if (count === 0) return
    const failed = tally.failures.length
    if (failed > 0 && this.#options.deletes === 'after') {
      tally.keptBack = count
      log.warn({ failed, kept: count }, 'nothing is deleted from the target, as not all could be sent')
      return
    }
    this.#parts.deleteGuard.checkCompared(count, this.#compared)
    await this.#delete(true)
  }

  close(): void {
    this.#found.close()
  }

  async #delete(withDirectories: boolean): Promise<void> {
    const { executor, source, deleteGuard } = this.#parts
    const { tally } = this.#progress
    const { queue } = this.#workers
    for await (const page of this.#found.pages(withDirectories)) {
      this.#options.signal.throwIfAborted()
      const left = source.isLocal ? await this.#stillAbsent(page) : page.filter(({ path }) => !queue.has(path))
      deleteGuard.note(left.length)
      const failed = await executor.deleteAll(left)
      tally.changed()
      for (const [target, error] of failed) this.#workers.giveUp(target.path, error)
      for (const { path } of left) this.#directories.touch(parentOf(path), 'changed')
      this.#progress.show()
    }
  }

  /** Looked at once more, in a root that is proven to be the same: what came meanwhile is made equal instead. */
  async #stillAbsent(page: readonly TreeEntry[]): Promise<readonly TreeEntry[]> {
    const { source, decider } = this.#parts
    const { queue } = this.#workers
    const absent: TreeEntry[] = []
    for (const target of page) {
      if (queue.has(target.path)) continue
      const looked = await source.look(target.path, { signal: this.#options.signal })
      if (looked.is === 'entry') queue.add(target.path, target)
      else if (looked.is === 'absent' && !(await decider.isElsewhere(target.path))) absent.push(target)
    }
    this.#workers.pump()
    return absent
  }
}
