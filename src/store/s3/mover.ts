/**
 * Moving what lies under one name to another: copies, then removals of just the versions that were copied, or, where the copying
 * failed, of the copies. Each of the three can be begun again after a crash: what is done already is found by listing both
 * sides next to each other, and counts as done where the copy has the bytes of its source.
 *
 * Nothing is removed of which there is no copy. What others write under the old name meanwhile stays there, and what they
 * write under the new one is not overwritten. Memory is bounded by a page of keys, 20,000 of what was copied, and those files
 * that have another version by it.
 */
import { isOperationError, OperationError } from '#base/errors.ts'
import { compareTimestamps, type Timestamp } from '#base/time.ts'
import { compareUtf8 } from '#store/path.ts'
import { ABSENT, ifVersion, type Guard, type Version } from '#store/store.ts'
import type { S3Context } from './context.ts'
import { copyGuarded } from './copy.ts'
import { download } from './download.ts'
import { conflict } from './guards.ts'
import { listPages, type ListedObject } from './listing.ts'
import { headObject, type ObjectHead, type Written } from './objects.ts'
import { inParallel } from '#store/parallel.ts'
import { firstKept, removeKeys, type KeyRemoval, type Outcome } from './removal.ts'
import type { Move } from './rename-intents.ts'

/** Copies of one directory under way at a time. */
const COPIES_AT_ONCE = 16
/** Bytes that are compared at a time, where nothing else tells whether an object is a copy. */
const COMPARED_BYTES = 8 * 2 ** 20

/** An object before and after it was copied. */
export interface Change {
  readonly before: Version
  readonly after: Version
}

/** When both were made tells them, where their removal is sent again, from what others have made since. */
interface Copied extends Change {
  readonly madeBefore: Timestamp
  readonly madeAfter: Timestamp
}

/** What is under the same name on both sides. */
interface Pair {
  /** Beginning with the slash, where it is not the source itself. */
  readonly name: string
  readonly source: ListedObject | undefined
  readonly copy: ListedObject | undefined
}

export interface MoverOptions {
  /** Whether copies may have been made by another before: what cannot be moved is then left where it is. */
  readonly resumed: boolean
  /** Originals that are newer are none, and stay, even where they are like what was copied. */
  readonly until?: Timestamp
  /** Called before the first copy where there is more than one object to move. */
  readonly onMany?: () => Promise<void>
  /** Called now and then, before more is done; may throw. */
  readonly hold?: () => Promise<void>
  readonly signal: AbortSignal | undefined
}

export class Mover {
  readonly #context: S3Context
  readonly #move: Move
  readonly #options: MoverOptions
  readonly #from: string
  readonly #to: string
  /** Those that are no longer of the version that they were, by name. */
  readonly changed = new Map<string, Change>()
  /** All copies that this has made, by name; undefined once they are too many. */
  #copied: Map<string, Copied> | undefined
  #own: Version | undefined
  #signal: AbortSignal | undefined

  constructor(context: S3Context, move: Move, options: MoverOptions) {
    this.#context = context
    this.#move = move
    this.#options = options
    this.#from = context.keys.base + move.from
    this.#to = context.keys.base + move.to
    this.#copied = options.resumed ? undefined : new Map()
    this.#signal = options.signal
  }

  /** The version of the object at the target itself, where it was copied. */
  get own(): Version | undefined {
    return this.#own
  }

  /** Copies all. Requests: one for 1,000 keys to list, one for each to copy; two more for each over 1 GiB. */
  async copy(): Promise<void> {
    const { resumed, onMany } = this.#options
    let own: Pair | undefined
    let first = true
    const pages = resumed ? this.#pairs() : this.#sources()
    for await (const page of pages) {
      if (first && page.length > 1) await onMany?.()
      first = false
      await this.#options.hold?.()
      own = page.find(({ name, source }) => name === '/' && source !== undefined) ?? own
      await inParallel(page, COPIES_AT_ONCE, async (pair) => {
        // Under ABSENT: the target was empty when it was looked at, and what somebody puts there meanwhile is theirs.
        if (pair.name !== '/') await this.#copyOne(pair, ABSENT)
      })
    }
    // Last, since it may replace the target's own object, which a failure could not put back.
    const { replaces } = this.#move
    if (own !== undefined) await this.#copyOne(own, replaces === undefined ? ABSENT : ifVersion(replaces as Version))
  }

  /**
   * Removes the originals of what was copied; gives the error of what stayed. One request for 1,000 keys, and one to list them
   * where the server does not hold removals to a version; two more for 1,000 where they are many or not known.
   */
  async remove(): Promise<OperationError | undefined> {
    const signal = this.#signal
    const known = this.#copied
    if (known !== undefined && this.#context.honoured.removeBulk) {
      await this.#options.hold?.()
      const removals = [...known].map(([name, { before, madeBefore }]) => ({
        ...{ key: this.#from + name, version: before, modified: madeBefore },
      }))
      return firstKept(await removeKeys(this.#context, removals, true, signal))
    }
    let stayed: OperationError | undefined
    for await (const page of known === undefined ? this.#pairs() : this.#sources()) {
      await this.#options.hold?.()
      const removals: KeyRemoval[] = []
      await inParallel(page, COPIES_AT_ONCE, async (pair) => {
        const { name, source } = pair
        if (source === undefined || this.#isLater(source)) return
        const done = known === undefined ? await this.#isDone(pair) : known.get(name)?.before === source.version
        if (done) removals.push(removalOf(source))
        else if (known === undefined || known.has(name)) stayed ??= conflict('move', source.key)
      })
      stayed ??= firstKept(await removeKeys(this.#context, removals, true, signal))
    }
    return stayed
  }

  /** Removes the copies, where the originals are still there. Requests as `remove`. */
  async undo(signal: AbortSignal | undefined): Promise<void> {
    // What failed may have been given up by its caller, and this must not be.
    this.#signal = signal
    const stays = (name: string): boolean => name === '/' && this.#move.replaces !== undefined
    if (this.#copied !== undefined) {
      const removals = [...this.#copied]
        .filter(([name]) => !stays(name))
        .map(([name, { after, madeAfter }]) => ({ key: this.#to + name, version: after, modified: madeAfter }))
      check(await removeKeys(this.#context, removals, false, signal))
      return
    }
    for await (const page of this.#pairs()) {
      const removals: KeyRemoval[] = []
      await inParallel(page, COPIES_AT_ONCE, async (pair) => {
        if (pair.copy === undefined || stays(pair.name) || !(await this.#isDone(pair))) return
        removals.push(removalOf(pair.copy))
      })
      check(await removeKeys(this.#context, removals, true, signal))
    }
  }

  async #copyOne(pair: Pair, guard: Guard): Promise<void> {
    const { name, source, copy } = pair
    const { resumed } = this.#options
    if (source === undefined) return
    if (copy !== undefined && guard.kind !== 'version' && (await this.#isDone(pair))) return
    try {
      const { version: after, modified } = await copyListed(this.#context, source, this.#to + name, guard, this.#signal)
      const change = { before: source.version, after }
      this.#copied?.set(name, { ...change, madeBefore: source.modified, madeAfter: modified })
      if (name === '/' || name === '') this.#own = after
      if (this.#copied !== undefined && this.#copied.size > this.#context.limits.movedKeysMax) this.#copied = undefined
      if (after !== source.version && !name.endsWith('/')) this.changed.set(name, change)
    } catch (error) {
      // Nobody waits for what was left behind: what others have changed since stays as they left it.
      if (!resumed || !isOperationError(error, 'STORE_CONFLICT', 'STORE_NOT_FOUND')) throw error
    }
  }

  #isLater({ modified }: ListedObject): boolean {
    const { until } = this.#options
    return until !== undefined && compareTimestamps(modified, until) > 0
  }

  /** Whether the other side of a source is its copy. No request, but where the version of a copy is another by itself. */
  async #isDone({ name, source, copy }: Pair): Promise<boolean> {
    if (source === undefined || copy === undefined || source.size !== copy.size) return false
    // A directory's own object has no bytes to lose.
    if (source.version === copy.version || (name.endsWith('/') && source.size === 0)) return true
    const known = this.changed.get(name)
    if (known?.before === source.version && known.after === copy.version) return true
    return isCopy(this.#context, source, copy, this.#signal)
  }

  /** What there is to move, in pages. One request for 1,000 keys. */
  async *#sources(): AsyncGenerator<readonly Pair[]> {
    for await (const page of this.#objects(this.#from)) {
      yield page.map((source) => ({ name: source.key.slice(this.#from.length), source, copy: undefined }))
    }
  }

  /** Both sides next to each other. Two requests for 1,000 keys. */
  async *#pairs(): AsyncGenerator<readonly Pair[]> {
    const sources = new Reader(this.#objects(this.#from), this.#from.length)
    const copies = new Reader(this.#objects(this.#to), this.#to.length)
    try {
      for (let page: Pair[] = []; ;) {
        const [source, copy] = [await sources.peek(), await copies.peek()]
        if (source !== undefined || copy !== undefined) page.push(nextPair(sources, copies, source, copy))
        else if (page.length === 0) return
        if (page.length >= 1000 || (source === undefined && copy === undefined)) {
          yield page
          page = []
        }
      }
    } finally {
      await Promise.all([sources.end(), copies.end()])
    }
  }

  async *#objects(key: string): AsyncGenerator<readonly ListedObject[]> {
    const { client } = this.#context
    const signal = this.#signal
    if (!this.#move.directory) {
      const head = await headObject(client, key, signal)
      if (head !== undefined) yield [{ key, size: head.size, version: head.version, modified: head.modified }]
      return
    }
    for await (const { items } of listPages(client, { prefix: `${key}/`, delimited: false, signal })) {
      yield items.filter((item) => 'key' in item)
    }
  }
}

function removalOf({ key, version, modified }: ListedObject): KeyRemoval {
  return { key, version, modified }
}

function check(outcomes: readonly Outcome[]): void {
  for (const outcome of outcomes) {
    if (outcome === undefined) continue
    // A copy that somebody has changed since is theirs.
    if (outcome.code !== 'STORE_NOT_FOUND' && outcome.code !== 'STORE_CONFLICT') throw outcome
  }
}

/** Objects one after another, of pages. */
class Reader {
  readonly #pages: AsyncGenerator<readonly ListedObject[]>
  readonly #start: number
  #page: readonly ListedObject[] = []
  #next = 0

  constructor(pages: AsyncGenerator<readonly ListedObject[]>, start: number) {
    this.#pages = pages
    this.#start = start
  }

  /** The name of the next object. */
  async peek(): Promise<string | undefined> {
    while (this.#next >= this.#page.length) {
      const { value, done } = await this.#pages.next()
      if (done === true) return undefined
      this.#page = value
      this.#next = 0
    }
    return this.#page[this.#next]?.key.slice(this.#start)
  }

  take(): ListedObject | undefined {
    return this.#page[this.#next++]
  }

  async end(): Promise<void> {
    await this.#pages.return(undefined)
  }
}

function nextPair(sources: Reader, copies: Reader, source: string | undefined, copy: string | undefined): Pair {
  const order = source === undefined ? 1 : copy === undefined ? -1 : compareUtf8(source, copy)
  return {
    name: (order <= 0 ? source : copy) ?? '',
    source: order <= 0 ? sources.take() : undefined,
    copy: order >= 0 ? copies.take() : undefined,
  }
}

/** Whether two objects of one size are the same in all: what a copy of other versions is by itself. */
export async function isCopy(
  context: S3Context,
  source: ListedObject,
  copy: ListedObject,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  try {
    return await isSame(context, source, copy, signal)
  } catch (error) {
    // One of them is another by now.
    if (isOperationError(error, 'STORE_CONFLICT', 'STORE_NOT_FOUND')) return false
    throw error
  }
}

async function isSame(
  { client }: S3Context,
  source: ListedObject,
  copy: ListedObject,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const [one, other] = await Promise.all([headObject(client, source.key, signal), headObject(client, copy.key, signal)])
  if (one?.version !== source.version || other?.version !== copy.version) return false
  for (const name of ['x-amz-meta-attr', 'x-amz-meta-xattr', 'content-type']) {
    if (one.header(name) !== other.header(name)) return false
  }
  for (let offset = 0; offset < source.size; offset += COMPARED_BYTES) {
    const [a, b] = await Promise.all(
      [source, copy].map(async ({ key, version }) => {
        const range = { version, offset, length: COMPARED_BYTES, partBytes: COMPARED_BYTES, signal }
        return (await download(client, key, range))?.bytes()
      }),
    )
    if (a === undefined || b === undefined || !a.equals(b)) return false
  }
  return true
}

async function copyListed(
  context: S3Context,
  object: ListedObject,
  to: string,
  guard: Guard,
  signal: AbortSignal | undefined,
): Promise<Written> {
  const { key, size, version, modified } = object
  const header = (): undefined => undefined
  const answer = { status: 200, headers: {}, body: Buffer.alloc(0) }
  let head: ObjectHead | undefined = { size, version, modified, header, answer }
  // A copy in parts has to be told all that the object has.
  if (size > context.limits.copyBytesMax) head = await headObject(context.client, key, signal)
  if (head === undefined || head.version !== version) {
    throw new OperationError('STORE_CONFLICT', `Cannot rename "${key}": it has changed meanwhile`)
  }
  return copyGuarded(context, { path: to, kind: 'file', from: key, head, to, guard, signal })
}
