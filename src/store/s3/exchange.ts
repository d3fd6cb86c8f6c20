/**
 * Exchanges of two entries, which S3 does not have, under an intent by which whoever opens the store after a crash finishes
 * them. Of two files neither name is ever free: one is kept aside, and then each is copied over by the other, in the version
 * that was seen. Where a directory is among them, three moves by way of a third name do it.
 */
import { isOperationError, OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { isWithin } from '#store/path.ts'
import { ABSENT, ifVersion, type ExchangeOptions, type Version } from '#store/store.ts'
import type { S3Context } from './context.ts'
import { copyGuarded } from './copy.ts'
import { find, type Found } from './entries.ts'
import { checkGuard, conflict } from './guards.ts'
import { runMoves } from './move-sequence.ts'
import { isCopy, type Change, type Mover } from './mover.ts'
import { headObject, type ObjectHead, type Written } from './objects.ts'
import { removeKeys } from './removal.ts'
import { Lease, newIntentId, type Swapping } from './rename-intents.ts'

const log = logger('store/s3')

/** Gives each of two entries the other's name. Requests: 4 beside the copies of two files and looking both up; of directories as `runMoves`. */
export async function exchange(
  context: S3Context,
  path: string,
  other: string,
  options: ExchangeOptions,
): Promise<void> {
  if (path === '' || other === '') throw invalid(path, 'it is the root')
  const { signal } = options
  const [a, b] = await Promise.all([find(context, path, signal), find(context, other, signal)])
  if (a === undefined || b === undefined) {
    throw new OperationError('STORE_NOT_FOUND', `Cannot exchange "${path}" with "${other}": nothing is at one of them`)
  }
  checkGuard('exchange', path, a.entry.version, options.guard)
  checkGuard('exchange', other, b.entry.version, options.otherGuard)
  if (path === other) return
  if (isWithin(path, other) || isWithin(other, path)) throw invalid(path, `one of it and "${other}" lies in the other`)
  const directories = [a, b].map(({ entry }) => entry.kind === 'directory')
  if (directories.includes(true)) await exchangeByMoves(context, path, other, directories, options)
  else await exchangeFiles(context, path, other, a, b, options)
}

function invalid(path: string, detail: string): OperationError {
  return new OperationError('INPUT_INVALID', `Cannot exchange "${path}": ${detail}`)
}

function keptPath(id: string): string {
  return `.eider/exchange/${id}`
}

async function exchangeByMoves(
  context: S3Context,
  path: string,
  other: string,
  [directory = false, otherDirectory = false]: readonly boolean[],
  { onVersionChanged, signal }: ExchangeOptions,
): Promise<void> {
  const kept = keptPath(newIntentId())
  const moves = [
    { from: path, to: kept, directory },
    { from: other, to: path, directory: otherDirectory },
    { from: kept, to: other, directory },
  ]
  const { movers, stayed } = await runMoves(context, moves, signal)
  const tell = (to: string, changed: ReadonlyMap<string, Change>): void => {
    for (const [name, { before, after }] of changed) if (before !== after) onVersionChanged?.(to + name, before, after)
  }
  const [aside, over, back] = movers as [Mover, Mover, Mover]
  tell(path, over.changed)
  const both = new Map(aside.changed)
  for (const [name, { before, after }] of back.changed) {
    both.set(name, { before: aside.changed.get(name)?.before ?? before, after })
  }
  tell(other, both)
  if (stayed === undefined) return
  throw new OperationError(
    'STORE_CONFLICT',
    `Cannot exchange all of "${path}" and "${other}": something was written there`,
    {
      cause: stayed,
    },
  )
}

async function exchangeFiles(
  context: S3Context,
  path: string,
  other: string,
  a: Found,
  b: Found,
  { onVersionChanged, signal: callerSignal }: ExchangeOptions,
): Promise<void> {
  if (a.head === undefined || b.head === undefined) throw conflict('exchange', path)
  const id = newIntentId()
  const what: Swapping = {
    ...{ kind: 'swap', first: path, firstVersion: a.head.version, second: other, secondVersion: b.head.version },
    ...{ kept: keptPath(id), phase: 'keeping' },
  }
  const lease = await Lease.begin(context, id, what, callerSignal)
  const signal = callerSignal === undefined ? lease.signal : AbortSignal.any([callerSignal, lease.signal])
  const swap = new Swap(context, lease, signal)
  try {
    const kept = await swap.keep(a.head)
    await lease.advance({ phase: 'first' }, signal)
    const first = await swap.placeFirst(b.head)
    await lease.advance({ phase: 'second', placed: first.version }, signal)
    const second = await swap.placeSecond(kept)
    await swap.done()
    if (first.version !== b.head.version) onVersionChanged?.(path, b.head.version, first.version)
    if (second.version !== a.head.version) onVersionChanged?.(other, a.head.version, second.version)
  } catch (error) {
    await swap.fail(error)
    throw lease.signal.aborted ? lease.signal.reason : error
  }
}

/** One exchange of two files, in its steps. */
class Swap {
  readonly #context: S3Context
  readonly #lease: Lease<Swapping>
  readonly #signal: AbortSignal

  constructor(context: S3Context, lease: Lease<Swapping>, signal: AbortSignal) {
    this.#context = context
    this.#lease = lease
    this.#signal = signal
  }

  /** Copies the first aside, where nothing is. */
  async keep(first: ObjectHead): Promise<ObjectHead> {
    const { version } = await this.#copy('first', first, 'kept', undefined)
    return { ...first, version }
  }

  placeFirst(second: ObjectHead): Promise<Written> {
    return this.#copy('second', second, 'first', this.#lease.what.firstVersion)
  }

  placeSecond(kept: ObjectHead): Promise<Written> {
    return this.#copy('kept', kept, 'second', this.#lease.what.secondVersion)
  }

  /** Nothing is kept any more, and nobody has to look at it again. */
  async done(): Promise<void> {
    const [error] = await removeKeys(
      this.#context,
      [{ key: this.#key('kept'), version: undefined }],
      true,
      this.#signal,
    )
    if (error !== undefined && error.code !== 'STORE_NOT_FOUND') throw error
    await this.#lease.end(this.#signal)
  }

  /** Takes back what can be taken back; what is not known to have failed is left to be finished. */
  async fail(error: unknown): Promise<void> {
    const { phase } = this.#lease.what
    try {
      const refused = isOperationError(error) && error.retry === 'never' && error.code !== 'ABORTED'
      if (this.#lease.signal.aborted) this.#lease.leave()
      // Nothing but what is kept aside has been written.
      else if (phase === 'keeping' || (phase === 'first' && refused))
        await new Swap(this.#context, this.#lease, late()).done()
      else if (phase === 'second' && refused) {
        await this.#lease.advance({ phase: 'restoring' }, late())
        await this.finish()
      } else this.#lease.leave()
    } catch (cause) {
      log.warn({ err: cause, key: this.#lease.key }, 'cannot take back an exchange; it is left to the next opening')
      this.#lease.leave()
    }
  }

  /** Goes on from whatever has been done: forwards once the first has been kept, unless it was being taken back. */
  async finish(): Promise<void> {
    const signal = late()
    const next = new Swap(this.#context, this.#lease, signal)
    if (this.#lease.what.phase === 'first') {
      const found = await next.#goOnWithFirst()
      if (found === 'unknown') return next.#giveUp()
      if (found === 'placed') await this.#lease.advance({ phase: 'second' }, signal)
    }
    const { phase } = this.#lease.what
    if (phase === 'second' && !(await next.#goOnWithSecond())) return next.#giveUp()
    if (phase === 'restoring' && !(await next.#restore())) return next.#giveUp()
    await next.done()
  }

  /** Whether the second is in the place of the first, or the first where it was; unknown where others have written. */
  async #goOnWithFirst(): Promise<'placed' | 'untouched' | 'unknown'> {
    const { firstVersion, secondVersion } = this.#lease.what
    const [first, second] = await this.#heads('first', 'second')
    const intact = second?.version === secondVersion
    if (first?.version === firstVersion) {
      if (second === undefined || !intact) return 'untouched'
      await this.placeFirst(second)
      return 'placed'
    }
    const placed = first !== undefined && second !== undefined && intact
    return placed && (await this.#isCopy('second', second, 'first', first)) ? 'placed' : 'unknown'
  }

  /** Whether what was kept is in the place of the second. */
  async #goOnWithSecond(): Promise<boolean> {
    const [kept, second] = await this.#heads('kept', 'second')
    // What was kept goes last: the exchange is done.
    if (kept === undefined) return true
    if (second === undefined) return false
    if (second.version !== this.#lease.what.secondVersion) return this.#isCopy('kept', kept, 'second', second)
    await this.placeSecond(kept)
    return true
  }

  /** Whether what was kept is where it came from. */
  async #restore(): Promise<boolean> {
    const [kept, first] = await this.#heads('kept', 'first')
    if (kept === undefined) return true
    const { placed } = this.#lease.what
    if (first === undefined || first.version !== placed) {
      return first !== undefined && this.#isCopy('kept', kept, 'first', first)
    }
    await this.#copy('kept', kept, 'first', placed)
    return true
  }

  /** Others have written meanwhile: nothing of theirs is touched, and what was kept stays for somebody to look at. */
  async #giveUp(): Promise<void> {
    log.error(
      { ...this.#lease.what, key: this.#key('kept') },
      'cannot finish an exchange, since others have written to its files; what the first had been is kept at that key',
    )
    await this.#lease.end(this.#signal)
  }

  async #copy(
    from: 'first' | 'second' | 'kept',
    head: ObjectHead,
    to: 'first' | 'second' | 'kept',
    version: string | undefined,
  ): Promise<Written> {
    const guard = version === undefined ? ABSENT : ifVersion(version as Version)
    const [fromKey, toKey] = [this.#key(from), this.#key(to)]
    const path = this.#lease.what[to]
    await this.#lease.hold(this.#signal)
    return copyGuarded(this.#context, {
      ...{ path, kind: 'file', from: fromKey, head, to: toKey, guard, signal: this.#signal },
    })
  }

  #isCopy(from: 'second' | 'kept', source: ObjectHead, to: 'first' | 'second', copy: ObjectHead): Promise<boolean> {
    if (source.version === copy.version && source.size === copy.size) return Promise.resolve(true)
    if (source.size !== copy.size) return Promise.resolve(false)
    const [one, other] = [
      { ...source, key: this.#key(from) },
      { ...copy, key: this.#key(to) },
    ]
    return isCopy(this.#context, one, other, this.#signal)
  }

  #heads(...which: ('first' | 'second' | 'kept')[]): Promise<(ObjectHead | undefined)[]> {
    return Promise.all(which.map((each) => headObject(this.#context.client, this.#key(each), this.#signal)))
  }

  #key(which: 'first' | 'second' | 'kept'): string {
    return this.#context.keys.base + this.#lease.what[which]
  }
}

/** The time for what nobody waits for any more. */
function late(): AbortSignal {
  return AbortSignal.timeout(60_000)
}

/** Finishes an exchange of files that another has begun. */
export async function finishSwap(context: S3Context, lease: Lease<Swapping>, signal: AbortSignal): Promise<void> {
  await new Swap(context, lease, signal).finish()
}
