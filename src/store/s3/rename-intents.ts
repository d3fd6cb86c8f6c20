/**
 * Intents: what a rename or an exchange of several requests is about to do, kept in the bucket while it does it, so that whoever
 * opens the store after a crash can finish it. An intent is an object `PREFIX/.eider/renames/ID.json`, and a lease: its owner
 * writes it anew every 20 seconds, and once it is 60 seconds old by the endpoint's own clock, or its owner is a process of this
 * machine that has ended, another may take it over. Every write of it is under the version that was seen last, so there is one
 * owner at a time, and one that has lost it finds out with its next write, before anything is removed.
 *
 * Not here: what is done under an intent (`rename.ts`, `exchange.ts`) and who looks for those left behind (`recovery.ts`).
 */
import { randomBytes } from 'node:crypto'
import { performance } from 'node:perf_hooks'
import * as v from 'valibot'

import { isOperationError, OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { timestampToMs, type Timestamp } from '#base/time.ts'
import { untilAborted } from '#store/abort.ts'
import { ABSENT, ifVersion, type Guard, type Version } from '#store/store.ts'
import type { S3Context } from './context.ts'
import { download } from './download.ts'
import { guardHeaders, deleteObject } from './objects.ts'
import { hasOwnerEnded, thisOwner } from './owner.ts'
import { putWhole } from './upload.ts'

const RENEW_MS = 20_000
const LEASE_MS = 60_000
/** Three paths of 1,024 bytes, each byte an escape of six, and some more. */
const DOCUMENT_BYTES_MAX = 64 * 1024

const log = logger('store/s3')

/** One directory, or another entry, that goes from one key to another: keys without the store's prefix and without a slash at their end. */
const move = v.object({
  from: v.string(),
  to: v.string(),
  directory: v.boolean(),
  /** The object at the target whose place the source's own object takes. */
  replaces: v.optional(v.string()),
})
export type Move = v.InferOutput<typeof move>

const moving = v.object({
  kind: v.literal('move'),
  /** In this order. */
  moves: v.array(move),
  /** Which of them is under way. */
  step: v.pipe(v.number(), v.integer(), v.minValue(0)),
  /** Copies are made; originals are removed; or copies are removed, and the moves before this one are taken back. */
  phase: v.picklist(['copying', 'removing', 'undoing']),
})

const swapping = v.object({
  kind: v.literal('swap'),
  first: v.string(),
  firstVersion: v.string(),
  second: v.string(),
  secondVersion: v.string(),
  /** Where the first is kept meanwhile. */
  kept: v.string(),
  /** The first is copied aside; the second is copied over it; what was kept is copied over the second, or back. */
  phase: v.picklist(['keeping', 'first', 'second', 'restoring']),
  /** The version that the first has by then. */
  placed: v.optional(v.string()),
})

const intent = v.object({
  format: v.literal(1),
  what: v.variant('kind', [moving, swapping]),
  /** When it was begun, and by whom. */
  when: v.string(),
  who: v.string(),
  owner: v.string(),
  /** How often it was written: no two of its versions are the same. */
  count: v.number(),
})

export type Moving = v.InferOutput<typeof moving>
export type Swapping = v.InferOutput<typeof swapping>
type Intent = v.InferOutput<typeof intent>

/** What all keys of intents start with. */
export function intentsPrefix({ keys }: Pick<S3Context, 'keys'>): string {
  return `${keys.own}renames/`
}

/** A name that no other intent has. */
export function newIntentId(): string {
  return randomBytes(12).toString('hex')
}

/** An intent that was found. */
export interface FoundIntent<W = Moving | Swapping> {
  readonly key: string
  readonly version: Version
  readonly document: Intent & { readonly what: W }
  /** When it was written last. */
  readonly modified: Timestamp
  /** Whether it may be taken over. */
  readonly free: boolean
}

/** An intent that is held. Every method rejects with `STORE_CONFLICT` once another has taken it over. */
export class Lease<W extends Moving | Swapping = Moving | Swapping> {
  readonly key: string
  /** Of one that was taken over: who had it before, and when that one wrote it last, by the endpoint's clock. */
  readonly before: { readonly who: string; readonly written: Timestamp } | undefined
  /** Fires when the lease is lost. */
  readonly signal: AbortSignal
  readonly #lost = new AbortController()
  readonly #context: S3Context
  readonly #timer: NodeJS.Timeout
  #document: Intent
  #what: W
  #version: Version
  #writtenMs = performance.now()
  #writing: Promise<void> = Promise.resolve()

  private constructor(
    context: S3Context,
    key: string,
    what: W,
    document: Intent,
    version: Version,
    before?: Lease['before'],
  ) {
    this.#context = context
    this.key = key
    this.before = before
    this.#what = what
    this.#document = document
    this.#version = version
    this.signal = this.#lost.signal
    // A single copy may take longer than the lease lasts.
    this.#timer = setInterval(() => this.#renew(), RENEW_MS)
    this.#timer.unref()
  }

  /** Writes a new intent. One request. */
  static async begin<W extends Moving | Swapping>(
    context: S3Context,
    id: string,
    what: W,
    signal: AbortSignal | undefined,
  ): Promise<Lease<W>> {
    const { owner, who } = thisOwner()
    const key = `${intentsPrefix(context)}${id}.json`
    const document: Intent = { format: 1, what, when: new Date().toISOString(), who, owner, count: 0 }
    try {
      return new Lease(context, key, what, document, await write(context, key, document, ABSENT, signal))
    } catch (error) {
      // It may have been written although no answer came; nothing is done under it, so nobody should do it later.
      await removeQuietly(context, key)
      throw error
    }
  }

  /** Takes over what was found; undefined where another was faster. One request. */
  static async take<W extends Moving | Swapping>(
    context: S3Context,
    found: FoundIntent<W>,
    signal: AbortSignal | undefined,
  ): Promise<Lease<W> | undefined> {
    const { key, version, document } = found
    const { owner, who } = thisOwner()
    const taken: Intent = { ...document, who, owner, count: document.count + 1 }
    try {
      const written = await write(context, key, taken, ifVersion(version), signal)
      const before = { who: document.who, written: found.modified }
      return new Lease(context, key, document.what, taken, written, before)
    } catch (error) {
      if (isOperationError(error, 'STORE_CONFLICT', 'STORE_NOT_FOUND')) return undefined
      throw error
    }
  }

  /** What is being done, as it was written last. */
  get what(): W {
    return this.#what
  }

  /** Writes how far it has come. One request. */
  async advance(changes: Partial<W>, signal: AbortSignal | undefined): Promise<void> {
    await this.#write({ ...this.#what, ...changes }, signal)
  }

  /** Makes sure that the lease holds on for a while. No request, or one in 20 seconds. */
  async hold(signal: AbortSignal | undefined): Promise<void> {
    if (performance.now() - this.#writtenMs >= RENEW_MS) await this.#write(this.#what, signal)
  }

  /** All is done: nobody has to look at it again. One request. */
  async end(signal: AbortSignal | undefined): Promise<void> {
    clearInterval(this.#timer)
    await this.#writing
    const { client, honoured } = this.#context
    try {
      await deleteObject(client, this.key, honoured.remove ? guardHeaders(ifVersion(this.#version)) : [], signal)
    } catch (error) {
      // Whoever finds it finds nothing left to do.
      log.warn({ err: error, key: this.key }, 'cannot remove the note of a rename that is done')
      this.#context.onIntentLeft?.(this.key, true)
    }
  }

  /** Leaves it to be finished later, by whoever finds it. */
  leave(): void {
    clearInterval(this.#timer)
    this.#context.onIntentLeft?.(this.key, true)
  }

  #renew(): void {
    this.hold(AbortSignal.timeout(RENEW_MS)).catch((error: unknown) => {
      log.debug({ err: error, key: this.key }, 'cannot renew the lease of a rename')
    })
  }

  async #write(what: W, signal: AbortSignal | undefined): Promise<void> {
    const before = this.#writing
    const writing = (async (): Promise<void> => {
      await before
      // Not given up with its caller: of a write of which nothing is known the next one could not tell its own version.
      const document: Intent = { ...this.#document, what, count: this.#document.count + 1 }
      this.#version = await write(this.#context, this.key, document, ifVersion(this.#version), undefined)
      this.#document = document
      this.#what = what
      this.#writtenMs = performance.now()
    })()
    // A failure is its caller's; the next write begins all the same.
    this.#writing = writing.catch(() => undefined)
    try {
      await untilAborted(`write "${this.key}"`, writing, signal)
    } catch (cause) {
      if (!isOperationError(cause, 'STORE_CONFLICT')) throw cause
      clearInterval(this.#timer)
      const message = `Cannot go on with what "${this.key}" says: another has taken it over`
      const error = new OperationError('STORE_CONFLICT', message, { cause })
      this.#lost.abort(error)
      throw error
    }
  }
}

async function write(
  context: S3Context,
  key: string,
  document: Intent,
  guard: Guard,
  signal: AbortSignal | undefined,
): Promise<Version> {
  // A class for cold objects would make it cost more, or keep it from being read.
  const { storageClass: _, ...options } = context.options
  const request = { path: key, key, kind: 'file', attributes: {}, guard, signal } as const
  const body = Buffer.from(JSON.stringify(document))
  return (await putWhole({ ...context, options }, request, body)).version
}

/** Reads an intent; undefined where it is gone, or not one of ours. One request. */
export async function readIntent(
  context: S3Context,
  key: string,
  signal: AbortSignal | undefined,
): Promise<FoundIntent | undefined> {
  const range = { version: undefined, offset: 0, length: DOCUMENT_BYTES_MAX, partBytes: DOCUMENT_BYTES_MAX, signal }
  const begun = await download(context.client, key, range)
  if (begun === undefined) return undefined
  const { head } = begun
  let document: Intent
  try {
    document = v.parse(intent, JSON.parse((await begun.bytes()).toString()))
  } catch (error) {
    if (isOperationError(error)) throw error
    log.warn({ err: error, key }, 'cannot read the note of a rename that was not finished; it stays as it is')
    return undefined
  }
  const dateMs = Date.parse(head.header('date') ?? '')
  const nowMs = Number.isNaN(dateMs) ? Date.now() : dateMs
  const free = nowMs - timestampToMs(head.modified) >= LEASE_MS || hasOwnerEnded(document.owner)
  return { key, version: head.version, document, modified: head.modified, free }
}

/** What fails here is told in the log alone. */
async function removeQuietly(context: S3Context, key: string): Promise<void> {
  try {
    await deleteObject(context.client, key, [], AbortSignal.timeout(10_000))
  } catch (error) {
    log.warn({ err: error, key }, 'cannot remove the note of a rename that was not begun; it is tried again')
    context.onIntentLeft?.(key, false)
  }
}
