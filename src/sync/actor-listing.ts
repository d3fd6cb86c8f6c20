/**
 * What an actor lists, as a side of the merge: single entries and pages alike become pages of tree entries, in order of sort keys.
 * An ordered listing flows through as it comes, with what has come handed on as soon as nothing more has; any other is sorted
 * first, in bounded memory. What no path can name is told and left alone; an entry that makes no sense ends the listing, as half
 * a listing must not count for a whole one.
 */
import { isOperationError, OperationError } from '#base/errors.ts'
import { untilAborted } from '#store/abort.ts'
import { checkPath, compareUtf8, isWithin } from '#store/path.ts'
import { sortKey, type Kind } from '#store/store.ts'

import type { Actor, Listed } from './actor.ts'
import { callOptions } from './call-options.ts'
import { sortListing } from './external-sort.ts'
import { StoreActor } from './store-actor.ts'
import type { Listing, Skipped, TreeEntry } from './tree.ts'

const PAGE_ENTRIES = 1000
const KINDS: ReadonlySet<unknown> = new Set<Kind>(['file', 'directory', 'symlink', 'fifo', 'socket'])
/** An author's listing may say itself that it is ordered, as autosync's do. */
type ListedIterable = AsyncIterable<Listed | readonly Listed[]> & { readonly alreadySorted?: unknown }

export interface ActorListingOptions {
  /** A directory where a listing in no order is sorted. */
  readonly scratch: string
  readonly signal?: AbortSignal
  readonly onSkipped?: (skipped: Skipped) => void
  /** Attributes are not compared. */
  readonly brief?: boolean
}

/**
 * All that the actor has at or under `under`, as the merge takes it; the empty path is all.
 * @throws OperationError `STORE_PROTOCOL` where an entry is not well formed, or an unordered listing names something twice;
 *   `ABORTED`, and whatever the actor throws.
 */
export function actorListing(actor: Actor, under: string, options: ActorListingOptions): Listing {
  const { scratch, signal, onSkipped, brief } = options
  const listOptions = {
    ...callOptions({ signal }),
    ...(onSkipped === undefined ? {} : { onSkipped }),
    ...(brief === undefined ? {} : { brief }),
  }
  // A store's listing is well formed, and of what lies under the path alone.
  if (actor instanceof StoreActor && actor.alreadySorted) return actor.list({ under, ...listOptions })
  const given: ListedIterable = actor.list({ under, ...listOptions })
  if (typeof given?.[Symbol.asyncIterator] !== 'function') {
    throw new OperationError(
      'STORE_PROTOCOL',
      `Cannot list ${actor.url}: its "list" gives nothing that can be iterated`,
      {
        hint: 'Write it as "async *list(...)", which yields entries or pages of them.',
      },
    )
  }
  const pages = pagesOf(actor.url, given, under, options)
  if (actor.alreadySorted === true || given.alreadySorted === true) return pages
  const sorted = sortListing(pages, { directory: scratch, ...callOptions({ signal }) })
  return withoutTwins(actor.url, sorted)
}

/**
 * The same at once, in memory: for a directory that is to go. What an actor lists of other places, as it may, is not in it.
 */
export async function entriesUnder(
  actor: Actor,
  under: string,
  options: Pick<ActorListingOptions, 'signal' | 'onSkipped'>,
): Promise<TreeEntry[]> {
  const { signal } = options
  const found: TreeEntry[] = []
  const given = actor.list({ under, ...callOptions({ signal }) })
  for await (const page of pagesOf(actor.url, given, under, options)) found.push(...page)
  return found.sort((a, b) => compareUtf8(sortKey(a), sortKey(b)))
}

/** Pages as they come. Single entries are gathered for as long as the actor gives them without a pause. */
async function* pagesOf(
  url: string,
  given: ListedIterable,
  under: string,
  { signal, onSkipped }: Pick<ActorListingOptions, 'signal' | 'onSkipped'>,
): AsyncGenerator<readonly TreeEntry[], void, undefined> {
  const iterator = given[Symbol.asyncIterator]()
  const taker = new Taker(url, under, onSkipped)
  let isOver = false
  try {
    for (;;) {
      const asked = iterator.next()
      let isHere = false
      const mark = (): void => void (isHere = true)
      asked.then(mark, mark)
      // Three turns of promises, which an entry that is at hand takes, then one of the event loop.
      for (let turn = 0; turn < 3 && !isHere; turn++) await Promise.resolve()
      if (!isHere && taker.page.length > 0) {
        await new Promise(setImmediate)
        if (!isHere) yield taker.turn()
      }
      const answer = isHere ? await asked : await untilAborted(`list ${url}`, asked, signal)
      if (answer.done === true) break
      if (Array.isArray(answer.value)) {
        for (const listed of answer.value as readonly Listed[]) taker.take(listed)
        if (taker.page.length > 0) yield taker.turn()
      } else {
        taker.take(answer.value as Listed)
        if (taker.page.length >= PAGE_ENTRIES) yield taker.turn()
      }
    }
    isOver = true
    if (taker.page.length > 0) yield taker.turn()
  } finally {
    // The listing is given up for a reason of its own, so what the actor says to that changes nothing.
    if (!isOver) await Promise.allSettled([untilAborted(`end a listing of ${url}`, ending(iterator), signal)])
  }
}

async function ending(iterator: AsyncIterator<unknown>): Promise<void> {
  await iterator.return?.()
}

/** Makes tree entries of what an actor lists, and gathers them into a page. */
class Taker {
  page: TreeEntry[] = []
  readonly #url: string
  readonly #under: string
  readonly #onSkipped: ((skipped: Skipped) => void) | undefined

  constructor(url: string, under: string, onSkipped: ((skipped: Skipped) => void) | undefined) {
    this.#url = url
    this.#under = under
    this.#onSkipped = onSkipped
  }

  turn(): readonly TreeEntry[] {
    const { page } = this
    this.page = []
    return page
  }

  take(listed: Listed): void {
    const entry = toTreeEntry(this.#url, listed)
    const { path } = entry
    if (!isWithin(path, this.#under)) return
    // Of a directory that is asked about, or the root, only what lies under it is asked for.
    if (path === this.#under && entry.kind === 'directory') return
    try {
      checkPath(path)
      if (path !== '') {
        this.page.push(entry)
        return
      }
      this.#skip(listed.path, 'invalid-name', 'its name is empty')
    } catch (error) {
      const reason = isOperationError(error, 'STORE_NAME_TOO_LONG') ? 'too-long' : 'invalid-name'
      this.#skip(listed.path, reason, error instanceof Error ? error.message : String(error))
    }
  }

  #skip(path: string, reason: Skipped['reason'], detail: string): void {
    this.#onSkipped?.({ path: path.toWellFormed(), reason, detail })
  }
}

/** An entry with what the actor left out; the same object where nothing is to be added. */
function toTreeEntry(url: string, listed: Listed): TreeEntry {
  const detail = brokenBy(listed)
  if (detail !== undefined) {
    const shown = JSON.stringify(listed)?.slice(0, 120) ?? 'undefined'
    throw new OperationError('STORE_PROTOCOL', `Cannot take what ${url} lists: ${detail} in ${shown}`, {
      hint: 'Each entry is { path, size }, and may tell more; nothing of the listing was used.',
    })
  }
  const path = listed.path.startsWith('/') ? listed.path.replace(/^\/+/, '') : listed.path
  if (path === listed.path && listed.kind !== undefined && 'mtime' in listed) return listed as TreeEntry
  return { ...listed, path, kind: listed.kind ?? 'file', mtime: listed.mtime }
}

/** What is wrong with an entry, as anybody's module may give anything; undefined where nothing is. */
export function brokenBy(listed: unknown): string | undefined {
  if (typeof listed !== 'object' || listed === null) return 'there is no entry'
  const { path, size, kind, mtime, version } = listed as Readonly<Record<string, unknown>>
  if (typeof path !== 'string') return 'the path is no text'
  if (!isCount(size)) return 'the size is no number of bytes'
  if (kind !== undefined && !KINDS.has(kind)) return 'the kind is none'
  if (version !== undefined && typeof version !== 'string') return 'the version is no text'
  return mtime === undefined || isTime(mtime) ? undefined : 'the mtime is not { seconds, nanoseconds }'
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

function isTime(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false
  const { seconds, nanoseconds } = value as Readonly<Record<string, unknown>>
  return Number.isSafeInteger(seconds) && isCount(nanoseconds) && nanoseconds < 1e9
}

async function* withoutTwins(url: string, listing: Listing): AsyncGenerator<readonly TreeEntry[], void, undefined> {
  let last: string | undefined
  for await (const page of listing) {
    for (const entry of page) {
      const key = sortKey(entry)
      if (key === last) {
        throw new OperationError('STORE_PROTOCOL', `Cannot list ${url}: it lists ${JSON.stringify(key)} twice`)
      }
      last = key
    }
    yield page
  }
}
