/**
 * The trees side by side, as both listings come: what differs is told at once, what only the target has once the source's
 * listing has proven that it is not there. Changes nothing.
 */
import { isWithin } from '#store/path.ts'
import { timestampNow } from '#base/time.ts'

import type { Decider } from './decision.ts'
import { mergeListings, type Pair } from './merge.ts'
import type { SourceListing, SyncSource } from './source.ts'
import { NO_SIZE } from './state.ts'
import type { Listing, TreeEntry } from './tree.ts'

/** What is told of differences. */
export interface Differences {
  /** To be made equal; `null`: the target has nothing. */
  readonly onDifferent: (path: string, target: TreeEntry | null, bytes: number) => void
  /** Only the target has it, and it takes part. */
  readonly onTargetOnly: (target: TreeEntry) => void
  /** Only the target has it, and keeps it: so it keeps the directories above. */
  readonly onKept: (path: string) => void
  /** A directory that both have; its attributes are not the same, as far as it is known. */
  readonly onDirectory: (path: string) => void
  /** Waited for between pages, so that what is told does not pile up. */
  readonly room: () => Promise<void>
}

export interface ComparisonCounts {
  /** Entries that each side has listed, and those that were the same. */
  source: number
  target: number
  same: number
}

export interface ComparisonOptions {
  readonly source: SyncSource
  readonly decider: Decider
  /** Directories have attributes of their own to be kept. */
  readonly metadata: boolean
  /** The target holds directories by themselves. */
  readonly directories: boolean
  /** The directory that is listed was not changed since all was equal. */
  readonly isRootAtRest: boolean
  /** In the target: takes no part. */
  readonly backupDirectory: string | undefined
}

/** Compares one root, or what lies under a directory, of the two listings. @throws what either listing throws */
export async function compare(
  sides: { readonly source: SourceListing; readonly target: Listing },
  differences: Differences,
  counts: ComparisonCounts,
  options: ComparisonOptions,
): Promise<void> {
  const comparison = new Comparison(sides.source, differences, counts, options)
  for await (const pairs of mergeListings(sides.source, sides.target)) {
    for (const pair of pairs) comparison.take(pair)
    await differences.room()
  }
  comparison.end()
}

class Comparison {
  readonly #lookedAt = timestampNow()
  readonly #source: SourceListing
  readonly #differences: Differences
  readonly #counts: ComparisonCounts
  readonly #options: ComparisonOptions
  /** The topmost directory that was changed since all was equal: nothing in it is known to be at rest. */
  #changed: string | undefined
  /** A directory that only the source has, of which it is not known yet whether anything lies in it. */
  #maybeEmpty: TreeEntry | undefined

  constructor(source: SourceListing, differences: Differences, counts: ComparisonCounts, options: ComparisonOptions) {
    this.#source = source
    this.#differences = differences
    this.#counts = counts
    this.#options = options
  }

  take({ source, target }: Pair): void {
    if (source !== undefined) {
      this.#counts.source++
      if (this.#options.decider.takes(source)) this.#settleEmpty(source)
      if (source.kind === 'directory') this.#noteChanged(source)
    }
    if (target !== undefined) this.#counts.target++
    if (source === undefined) {
      if (target !== undefined) this.#targetOnly(target)
      return
    }
    if (source.kind === 'directory') this.#directory(source, target)
    else this.#file(source, target)
  }

  end(): void {
    this.#settleEmpty(undefined)
  }

  #targetOnly(target: TreeEntry): void {
    const { source, backupDirectory } = this.#options
    const { path, kind } = target
    const isBackup = backupDirectory !== undefined && isWithin(path, backupDirectory)
    if (!isBackup && source.admits(path, kind === 'directory') && this.#source.provesAbsence(path)) {
      this.#differences.onTargetOnly(target)
    } else this.#differences.onKept(path)
  }

  #directory(source: TreeEntry, target: TreeEntry | undefined): void {
    const { decider, directories, metadata } = this.#options
    if (!directories) return
    if (target !== undefined && target.size !== NO_SIZE) {
      this.#counts.same++
      if (target.kind === 'directory') decider.rememberDirectory(source, this.#lookedAt)
      if (metadata && decider.directoryDiffers(source, target)) this.#differences.onDirectory(source.path)
    } else if (metadata) this.#differences.onDifferent(source.path, null, 0)
    else this.#maybeEmpty = source
  }

  #file(source: TreeEntry, target: TreeEntry | undefined): void {
    if (target === undefined) {
      this.#differences.onDifferent(source.path, null, source.size)
      return
    }
    const sameness = this.#options.decider.sameness(source, target, this.#lookedAt, this.#isAtRest(source.path))
    if (sameness === 'same') this.#counts.same++
    else this.#differences.onDifferent(source.path, target, sameness === 'different' ? source.size : 0)
  }

  #noteChanged({ path, identity }: TreeEntry): void {
    if (this.#changed !== undefined && isWithin(path, this.#changed)) return
    if (identity === undefined || !this.#options.decider.isOlder(identity)) this.#changed = path
  }

  /** Listings are in order, so that what lies in a directory follows it. */
  #isAtRest(path: string): boolean {
    return this.#options.isRootAtRest && (this.#changed === undefined || !isWithin(path, this.#changed))
  }

  #settleEmpty(next: TreeEntry | undefined): void {
    const directory = this.#maybeEmpty
    this.#maybeEmpty = undefined
    if (directory === undefined || (next !== undefined && isWithin(next.path, directory.path))) return
    this.#differences.onDifferent(directory.path, null, 0)
  }
}
