/**
 * Finishing what renames and exchanges of processes that have ended left behind. Looks when the store is opened, and again as
 * long as there is something whose owner may still be alive. What fails here fails nobody's call: it is told in the log, and
 * tried again by the next opening.
 */
import { isOperationError, OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { untilAborted } from '#store/abort.ts'
import type { S3Context } from './context.ts'
import { finishSwap } from './exchange.ts'
import { listPages } from './listing.ts'
import { finishMoves } from './move-sequence.ts'
import { deleteObject } from './objects.ts'
import { thisOwner } from './owner.ts'
import { intentsPrefix, Lease, readIntent, type Moving, type Swapping } from './rename-intents.ts'

/** A lease that has run out is found within so long. */
const LOOK_AGAIN_MS = 20_000

/** Times that a lease that is free is reached for. */
const TAKES_MAX = 3

const log = logger('store/s3')

export class Recovery {
  readonly #context: () => S3Context
  readonly #ended = new AbortController()
  /** What calls of this process have left, and whether anything has been done under it. */
  readonly #own = new Map<string, boolean>()
  #timer: NodeJS.Timeout | undefined
  #looking: Promise<void> = Promise.resolve()

  /** The context is asked for when it is needed first, since it tells this of what is left. */
  constructor(context: () => S3Context) {
    this.#context = context
  }

  /** Notes what a call of this process has left: to be finished, or where nothing has been done under it, to be removed. */
  left(key: string, isBegun: boolean): void {
    this.#own.set(key, isBegun)
    this.lookLater()
  }

  /**
   * Finishes what calls of this process have left. No request where that is nothing.
   * @throws OperationError `STORE_UNAVAILABLE` where it is not over, as it fails or another is at it.
   */
  async finishOwn(signal: AbortSignal | undefined): Promise<void> {
    if (this.#own.size === 0) return
    this.#looking = this.#looking.then(async () => {
      for (const key of [...this.#own.keys()]) await this.#finish(this.#context(), key)
    })
    await untilAborted('finish renames', this.#looking, signal)
    if (this.#own.size === 0) return
    throw new OperationError('STORE_UNAVAILABLE', `Cannot finish ${this.#own.size} renames that were cut short`)
  }

  /** Finishes what is free; resolves when all of that is done. One request where there is nothing. */
  look(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#looking = this.#looking.then(() => this.#look())
    return this.#looking
  }

  /** Looks again later: something was left. */
  lookLater(): void {
    if (this.#timer !== undefined || this.#ended.signal.aborted) return
    this.#timer = setTimeout(() => void this.look(), LOOK_AGAIN_MS)
    this.#timer.unref()
  }

  /** Gives up what is under way, for another to finish. */
  async close(): Promise<void> {
    this.#ended.abort()
    clearTimeout(this.#timer)
    await this.#looking
  }

  async #look(): Promise<void> {
    const context = this.#context()
    const { signal } = this.#ended
    let more = false
    try {
      const query = { prefix: intentsPrefix(context), delimited: false, signal }
      for await (const { items } of listPages(context.client, query)) {
        for (const item of items) {
          if ('key' in item && !(await this.#finish(context, item.key))) more = true
        }
      }
    } catch (error) {
      if (signal.aborted) return
      more = true
      log.warn({ err: error }, 'cannot look for renames that were not finished')
    }
    if (more) this.lookLater()
  }

  async #take(context: S3Context, key: string): Promise<Lease | 'gone' | 'held'> {
    const { signal } = this.#ended
    for (let attempt = 1; attempt <= TAKES_MAX; attempt++) {
      const found = await readIntent(context, key, signal)
      if (found === undefined) return 'gone'
      const isOwn = this.#own.has(key) && found.document.owner === thisOwner().owner
      if (!found.free && !isOwn) return 'held'
      const lease = await Lease.take(context, found, signal)
      // Another was faster, or the last write of an owner that has ended has only now arrived: a second look tells.
      if (lease !== undefined) return lease
    }
    return 'held'
  }

  /** False where another may still be at it, or where it has to be tried again. */
  async #finish(context: S3Context, key: string): Promise<boolean> {
    const { signal } = this.#ended
    let lease: Lease | undefined
    try {
      if (this.#own.get(key) === false) {
        await deleteObject(context.client, key, [], signal)
        this.#own.delete(key)
        return true
      }
      const found = await this.#take(context, key)
      if (found === 'gone') this.#own.delete(key)
      if (typeof found === 'string') return found === 'gone'
      lease = found
      this.#own.delete(key)
      log.info({ key, who: lease.before?.who, what: lease.what }, 'finishes what another has left')
      if (isMoving(lease)) {
        await finishMoves(context, lease, AbortSignal.any([signal, lease.signal]))
        await lease.end(signal)
      } else if (isSwapping(lease)) await finishSwap(context, lease, AbortSignal.any([signal, lease.signal]))
      return true
    } catch (error) {
      lease?.leave()
      if (!signal.aborted) log.warn({ err: error, key }, 'cannot finish a rename that another has left')
      // What is refused now will be refused again; the next opening tries once more.
      const isOver =
        signal.aborted || (isOperationError(error) && error.retry === 'never' && error.code !== 'STORE_CONFLICT')
      if (isOver) this.#own.delete(key)
      return isOver
    }
  }
}

function isMoving(lease: Lease): lease is Lease<Moving> {
  return lease.what.kind === 'move'
}

function isSwapping(lease: Lease): lease is Lease<Swapping> {
  return lease.what.kind === 'swap'
}
