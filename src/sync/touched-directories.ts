/**
 * Directories of the target that have to get their times and modes again, once what lies in them is done: each change in one gives
 * it new times. Where no metadata is kept, there are none.
 */
import { isOperationError } from '#base/errors.ts'

import { takesPart } from './source.ts'
import type { SyncOptions, SyncParts } from './sync.ts'

/** `maybe`: it is looked at whether the source's is another than is remembered. */
export type Touch = 'changed' | 'maybe'

export interface FinishEvents {
  /** Nothing else is to be done: else it is begun no more. */
  readonly isResting: () => boolean
  readonly onFinished: () => void
  readonly onFailed: (path: string, error: unknown) => void
}

export class TouchedDirectories {
  readonly #parts: Pick<SyncParts, 'source' | 'actor' | 'decider' | 'executor'>
  readonly #options: Pick<SyncOptions, 'metadata' | 'threads' | 'signal'>
  readonly #touched = new Map<string, Touch>()
  #underWay = 0

  constructor(
    parts: Pick<SyncParts, 'source' | 'actor' | 'decider' | 'executor'>,
    options: Pick<SyncOptions, 'metadata' | 'threads' | 'signal'>,
  ) {
    this.#parts = parts
    this.#options = options
  }

  get isEmpty(): boolean {
    return this.#touched.size === 0
  }
  /** With those under way. */
  get count(): number {
    return this.#touched.size + this.#underWay
  }

  touch(path: string, how: Touch): void {
    if (this.#options.metadata && (how === 'changed' || !this.#touched.has(path))) this.#touched.set(path, how)
  }

  /** A root is in no listing of its own. */
  async touchRoots(): Promise<void> {
    if (!this.#options.metadata) return
    for (const root of await rootsToSet(this.#parts, this.#options.signal)) this.touch(root, 'changed')
  }

  /** Some at a time, for as long as nothing else is to be done. */
  async finish(events: FinishEvents): Promise<void> {
    while (this.#touched.size > 0 && events.isResting()) {
      const batch = [...this.#touched].slice(0, this.#options.threads)
      for (const [path] of batch) this.#touched.delete(path)
      this.#underWay = batch.length
      try {
        await Promise.all(batch.map(([path, how]) => this.#finishOne(path, how, events)))
      } finally {
        this.#underWay = 0
      }
      this.#options.signal.throwIfAborted()
    }
  }

  async #finishOne(path: string, how: Touch, { onFinished, onFailed }: FinishEvents): Promise<void> {
    const { source, executor } = this.#parts
    if (!takesPart(source, path)) return
    try {
      if (await executor.finishDirectory(path, how === 'changed')) onFinished()
    } catch (error) {
      if (this.#options.signal.aborted || isOperationError(error, 'STORE_NOT_FOUND')) return
      onFailed(path, error)
    }
  }
}

/** Roots whose directories have other attributes in the target. */
export async function rootsToSet(
  { source, actor, decider }: Pick<SyncParts, 'source' | 'actor' | 'decider'>,
  signal: AbortSignal,
): Promise<string[]> {
  const differing: string[] = []
  for (const root of source.roots) {
    const [looked, target] = [await source.look(root, { signal }), await actor.stat?.(root, { signal })]
    // A store of flat keys has nothing that could keep them.
    if (looked.is !== 'entry' || looked.entry.kind !== 'directory' || target?.attributes?.mtime === undefined) continue
    if (decider.directoryDiffers(looked.entry, target)) differing.push(root)
  }
  return differing
}
