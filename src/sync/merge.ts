/**
 * Two listings in order of sort keys, walked side by side: for each path what either side has. The first pairs come before
 * either side has ended, and at most two pages of each side are in memory.
 *
 * A path that only one side has is told only once the other side has gone past it, or has ended well: where a side throws, the
 * merge does, so what a broken listing did not come to is never taken for missing. A directory and a file of the same path have
 * different sort keys, so they are two pairs, the file's first.
 */
import { OperationError } from '#base/errors.ts'
import { compareUtf8 } from '#store/path.ts'
import { sortKey } from '#store/store.ts'

import type { Listing, TreeEntry } from './tree.ts'

/** What the sides have at one path: at least one of them something, and both the same sort key. */
export interface Pair {
  readonly path: string
  readonly source: TreeEntry | undefined
  readonly target: TreeEntry | undefined
}

/**
 * Pages of pairs in order of sort keys, each as soon as it is known.
 * @throws OperationError `STORE_PROTOCOL` where a side is out of order or names something twice, and whatever a side throws.
 */
export async function* mergeListings(
  source: Listing,
  target: Listing,
): AsyncGenerator<readonly Pair[], void, undefined> {
  const sides = [new Side('source', source), new Side('target', target)] as const
  const [left, right] = sides
  try {
    for (;;) {
      await left.fill()
      await right.fill()
      const pairs = pairsOf(left, right)
      if (pairs.length === 0) return
      yield pairs
    }
  } finally {
    // A page under way is waited for: who opened the listings gave them the signal that cuts it short.
    await Promise.allSettled(sides.map((side) => side.end()))
  }
}

/** All pairs that can be told before one of the sides needs another page: none only where both are over. */
function pairsOf(left: Side, right: Side): readonly Pair[] {
  const pairs: Pair[] = []
  for (;;) {
    const [source, target] = [left.entry, right.entry]
    if ((source === undefined && !left.isOver) || (target === undefined && !right.isOver)) return pairs
    if (source === undefined && target === undefined) return pairs
    const order = source === undefined ? 1 : target === undefined ? -1 : compareUtf8(left.key, right.key)
    pairs.push({
      path: (order <= 0 ? source : target)?.path ?? '',
      source: order <= 0 ? source : undefined,
      target: order >= 0 ? target : undefined,
    })
    if (order <= 0) left.next()
    if (order >= 0) right.next()
  }
}

/** One listing, an entry at a time, with the page after the present one asked for already. */
class Side {
  /** Undefined between pages and at the end. */
  entry: TreeEntry | undefined
  /** The sort key of `entry`. */
  key = ''
  isOver = false
  readonly #name: 'source' | 'target'
  readonly #pages: AsyncIterator<readonly TreeEntry[]>
  #page: readonly TreeEntry[] = []
  #index = 0
  #last: string | undefined
  #ahead: Promise<IteratorResult<readonly TreeEntry[]>>

  constructor(name: 'source' | 'target', listing: Listing) {
    this.#name = name
    this.#pages = listing[Symbol.asyncIterator]()
    this.#ahead = this.#ask()
  }

  /** Waits for an entry, or for the end, where there is none. */
  async fill(): Promise<void> {
    while (this.entry === undefined && !this.isOver) {
      const answer = await this.#ahead
      if (answer.done === true) {
        this.isOver = true
        break
      }
      this.#page = answer.value
      this.#index = 0
      this.#ahead = this.#ask()
      this.#take()
    }
  }

  next(): void {
    this.#index++
    this.#take()
  }

  async end(): Promise<void> {
    if (!this.isOver) await this.#pages.return?.()
  }

  #ask(): Promise<IteratorResult<readonly TreeEntry[]>> {
    const ahead = this.#pages.next()
    // Its failure is met when the merge comes to it; until then it is not one that nobody handles.
    ahead.catch(() => undefined)
    return ahead
  }

  #take(): void {
    this.entry = this.#page[this.#index]
    if (this.entry === undefined) return
    this.key = sortKey(this.entry)
    if (this.#last !== undefined && compareUtf8(this.#last, this.key) >= 0) {
      const detail = `it lists ${JSON.stringify(this.key)} after ${JSON.stringify(this.#last)}`
      throw new OperationError(
        'STORE_PROTOCOL',
        `Cannot compare the trees: the ${this.#name} is out of order: ${detail}`,
        {
          hint: 'A listing that is not in order of UTF-8 bytes, a directory with "/" after it, must not say that it is.',
        },
      )
    }
    this.#last = this.key
  }
}
