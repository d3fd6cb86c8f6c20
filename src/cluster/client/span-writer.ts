/**
 * Writes spans: encodes the bytes, has the shard name the blocks, writes all of them side by side, and certifies the span with
 * their receipts.
 *
 *   encode --> addSpan --> blocks --all receipts--> certify --> written
 *      ^                     '--one fails, or is much later than the others--.
 *      '--- without the failure domains that failed <-- moveSpan to a scratch file
 *
 * A span is certified whole or not at all. One that could not be written is moved to a transient file of its own, which nobody
 * finishes and whose blocks are erased one day; so the file is always as it was before, or has the whole span. After five
 * attempts, or where there are no disks left, the last failure is thrown. What is sent more than once is so under one request id.
 */
import { assert } from '#base/assert.ts'
import { isOperationError, OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { checkAborted } from '#store/abort.ts'
import { type InodeId, inodeShard, shownInode } from '#cluster/inode-id.ts'
import { shardMessages } from '#cluster/shard/shard-messages.ts'
import { afterRunning } from '#cluster/stood-still.ts'
import type { Surroundings } from '#cluster/surroundings.ts'
import type { Caller, Target } from '#cluster/wire/caller.ts'
import type { Message } from '#cluster/wire/message.ts'
import { NO_INODE, type Permitted, SPAN_BYTES_MAX } from '#cluster/wire/forms.ts'

import { type BlockCaller, BYTES_A_MS } from './block-caller.ts'
import { type Disks, diskTarget } from './disk-choice.ts'
import type { Avoided, SpanForm } from './redundancy-choice.ts'
import { Codes, type EncodedSpan, encodeSpan, encodingBytes } from './span-encoding.ts'
import { SpanMemory, type SpanRoom } from './span-memory.ts'

const log = logger('cluster/client')

const ATTEMPTS_MAX = 5
const SPANS_AT_ONCE = 2
/** For a block, and for as long as its bytes may take. */
const BLOCK_MS = 15_000
/** For how long a service that cannot be reached is tried again: as long as it takes to be started anew. */
const LOST_MS = 3000
/** The last blocks of a span have so long after the others, and four times as long as those took: a disk that hangs is found so. */
const STRAGGLER_MS = 5000
const STRAGGLER_FACTOR = 4
/** After one block has failed, the others have so long: what fails with it is known then. */
const GRACE_MS = 500
const SCRATCH_NOTE = 'given-up span'

export interface SpanWriterOptions {
  readonly surroundings: Surroundings
  readonly caller: Caller
  readonly blocks: BlockCaller
  readonly disks: Disks
  /** Who serves that shard. */
  readonly shard: (shard: number) => Target
  /** In memory at a time; of one file they are written one after the other, as a file grows at its end. */
  readonly spansAtOnce?: number
}

export interface SpanToWrite {
  readonly file: InodeId
  readonly cookie: Buffer
  /** Where the file ends. */
  readonly offset: number
  /** 1 to `SPAN_BYTES_MAX`; they must stay as they are until it is written. Best what `lend` gave, or a part of it from its start. */
  readonly bytes: Uint8Array
  /** How to write it, given what was tried in vain, with no more blocks than that says; asked before each attempt. @throws DISKS_MISSING */
  readonly choose: (avoided: Avoided) => SpanForm
  /** Whose disks to prefer. */
  readonly like?: InodeId
}

/** Memory in which a span can be made ready and from which it is written without a copy. */
export interface LentSpan {
  readonly bytes: Uint8Array
  /** To be called once, also after it was written. */
  release(): void
}

interface Failure {
  readonly domains: readonly string[]
  readonly error: OperationError
}

export class SpanWriter {
  readonly #options: SpanWriterOptions
  readonly #memory: SpanMemory
  readonly #codes = new Codes()
  /** By the memory that was lent. */
  readonly #lent = new Map<ArrayBufferLike, SpanRoom>()

  constructor(options: SpanWriterOptions) {
    this.#options = options
    this.#memory = new SpanMemory(options.spansAtOnce ?? SPANS_AT_ONCE)
  }

  /** Memory for a span of up to so many bytes, once fewer than the most are under way. @throws ABORTED */
  async lend(bytesMax: number, form: SpanForm, signal?: AbortSignal): Promise<LentSpan> {
    assert(bytesMax > 0 && bytesMax <= SPAN_BYTES_MAX, 'a span has 1 byte to 1 GiB')
    // Fewer bytes may come to fewer stripes, and so to larger cells.
    const encoding = Math.max(encodingBytes(bytesMax, form, form.stripes), encodingBytes(bytesMax, form, 1))
    const room = await this.#memory.take(bytesMax + encoding, signal)
    const bytes = room.allocate(bytesMax)
    this.#lent.set(bytes.buffer, room)
    return {
      bytes,
      release: () => {
        this.#lent.delete(bytes.buffer)
        this.#memory.give(room)
      },
    }
  }

  /**
   * Writes a span at the end of a transient file; gives how it was written in the end.
   * @throws DISKS_MISSING, DISK_FULL, CLUSTER_UNREACHABLE and what else disks and shards refuse it by, all with the file as it was;
   *   ABORTED, and failures of the shard itself, after which the end of the file may be a span that is not finished
   */
  async write(span: SpanToWrite, signal?: AbortSignal): Promise<SpanForm> {
    assert(span.bytes.length > 0 && span.bytes.length <= SPAN_BYTES_MAX, 'a span has 1 byte to 1 GiB')
    const lent = this.#lent.get(span.bytes.buffer)
    if (lent !== undefined) return this.#writeFrom(lent, span, signal)
    const form = span.choose({ domains: new Set() })
    const room = await this.#memory.take(encodingBytes(span.bytes.length, form, form.stripes), signal)
    try {
      return await this.#writeFrom(room, span, signal)
    } finally {
      this.#memory.give(room)
    }
  }

  async #writeFrom(room: SpanRoom, span: SpanToWrite, signal: AbortSignal | undefined): Promise<SpanForm> {
    const domains = new Set<string>()
    const isLent = this.#lent.has(span.bytes.buffer)
    let blocksMax: number | undefined
    let failed: OperationError | undefined
    let form: SpanForm | undefined
    let encoded: EncodedSpan | undefined
    // Blocks of given-up attempts that are still on their way read the same memory.
    let stragglers = new AbortController()
    try {
      for (let attempt = 1; ;) {
        checkAborted(actionOf(span), signal)
        const next = this.#choose(span, { domains, ...(blocksMax === undefined ? {} : { blocksMax }) }, failed)
        // Otherwise the shard would refuse the same again and again.
        assert(
          next.data + next.parity <= (blocksMax ?? Infinity),
          'a span has no more blocks than the shard has disks for',
        )
        if (encoded === undefined || form === undefined || !isSameCut(form, next)) {
          stragglers.abort()
          stragglers = new AbortController()
          room.releaseBeyond(isLent ? 1 : 0)
          encoded = await this.#encode(room, span, next)
        }
        form = next
        let permitted: readonly Permitted[]
        try {
          permitted = await this.#addSpan(span, encoded, form, domains, signal)
        } catch (error) {
          // The shard knows of fewer disks than the map that the choice was made by.
          if (!isOperationError(error, 'DISKS_MISSING') || encoded.blocks.length === 1) throw error
          blocksMax = encoded.blocks.length - 1
          continue
        }
        const failure = await this.#attempt(span, encoded, permitted, stragglers.signal, signal)
        if (failure === undefined) return form
        log.warn({ err: failure.error, attempt, avoid: failure.domains }, 'A span could not be written, and is moved')
        await this.#moveAway(span, signal)
        for (const domain of failure.domains) domains.add(domain)
        failed = failure.error
        if (++attempt > ATTEMPTS_MAX) throw failure.error
      }
    } finally {
      stragglers.abort()
      room.releaseBeyond(isLent ? 1 : 0)
    }
  }

  /** Where no disks are left to try, what was wrong with those that were tried says more than that there are none. */
  #choose(span: SpanToWrite, avoided: Avoided, failed: OperationError | undefined): SpanForm {
    try {
      return span.choose(avoided)
    } catch (error) {
      throw failed !== undefined && isOperationError(error, 'DISKS_MISSING') ? failed : error
    }
  }

  #encode(room: SpanRoom, { bytes }: SpanToWrite, form: SpanForm): Promise<EncodedSpan> {
    const { clock } = this.#options.surroundings
    return encodeSpan(bytes, { data: form.data, parity: form.parity }, form.stripes, {
      codes: this.#codes,
      allocate: (count) => room.allocate(count),
      turn: () => new Promise((resolve) => clock.soon(resolve)),
    })
  }

  async #addSpan(
    span: SpanToWrite,
    { layout, crc, blocks }: EncodedSpan,
    form: SpanForm,
    domains: ReadonlySet<string>,
    signal: AbortSignal | undefined,
  ): Promise<readonly Permitted[]> {
    const { file, cookie, offset, like = NO_INODE } = span
    const { data, parity, stripes, cellBytes, bytes: size } = layout
    const cells = blocks.map((block) => block.cells)
    const avoidDomains = [...domains]
    const request = { file, cookie, offset, size, crc, class: form.class, data, parity, stripes, cellBytes, cells }
    const reply = await this.#ask(span, shardMessages.addSpan, { ...request, avoidDomains, like }, signal)
    if (reply.blocks.length === blocks.length) return reply.blocks
    throw new OperationError('WIRE_MALFORMED', `Cannot ${actionOf(span)}: there are permits for other blocks`)
  }

  /** Writes the blocks and certifies them; says what failed. */
  async #attempt(
    span: SpanToWrite,
    encoded: EncodedSpan,
    permitted: readonly Permitted[],
    stragglers: AbortSignal,
    signal: AbortSignal | undefined,
  ): Promise<Failure | undefined> {
    const outcome = await this.#writeBlocks(span, encoded, permitted, stragglers, signal)
    if ('error' in outcome) return outcome
    const { file, cookie, offset } = span
    try {
      await this.#ask(span, shardMessages.certify, { file, cookie, offset, receipts: outcome.receipts }, signal)
      return undefined
    } catch (error) {
      // Of one of the disks, and the shard does not say which.
      if (isOperationError(error, 'RECEIPT_REFUSED')) return { domains: [], error }
      throw error
    }
  }

  async #writeBlocks(
    span: SpanToWrite,
    { blocks, layout }: EncodedSpan,
    permitted: readonly Permitted[],
    stragglers: AbortSignal,
    signal: AbortSignal | undefined,
  ): Promise<Failure | { readonly receipts: readonly Buffer[] }> {
    if (permitted.some(({ disk }) => this.#options.disks.find(disk) === undefined)) await this.#options.disks.refresh()
    const { clock } = this.#options.surroundings
    const receipts: Buffer[] = []
    const errors = new Map<number, OperationError>()
    const begunMs = clock.monotonicMs()
    const done = Promise.withResolvers<void>()
    let [open, isOver] = [permitted.length, false]
    const wait = (ms: number): (() => void) => afterRunning(clock, ms, done.resolve)
    const waits: (() => void)[] = []
    const settled = (): void => {
      open--
      if (isOver) return
      if (open === 0) done.resolve()
      else if (errors.size === 1) waits.push(wait(GRACE_MS))
      else if (open <= Math.max(1, layout.parity))
        waits.push(wait(Math.max(STRAGGLER_MS, STRAGGLER_FACTOR * (clock.monotonicMs() - begunMs))))
    }
    for (const [index, { disk, block, permit }] of permitted.entries()) {
      const { parts = [], crc = 0 } = blocks[index] ?? {}
      const options = {
        deadlineMs: BLOCK_MS + layout.blockBytes / BYTES_A_MS,
        lostMsMax: LOST_MS,
        signal: signal === undefined ? stragglers : AbortSignal.any([signal, stragglers]),
      }
      const facts = { disk, block, crc, permit }
      void this.#options.blocks.write(diskTarget(this.#options.disks, disk), facts, parts, options).then(
        (receipt) => {
          receipts[index] = receipt
          settled()
        },
        (error: unknown) => {
          if (!isOperationError(error)) {
            done.reject(error)
            return
          }
          errors.set(index, error)
          settled()
        },
      )
    }
    try {
      await done.promise
    } finally {
      isOver = true
      for (const cancel of waits) cancel()
    }
    checkAborted(actionOf(span), signal)
    if (open === 0 && errors.size === 0) return { receipts }
    return this.#failureOf(span, permitted, receipts, errors)
  }

  #failureOf(
    span: SpanToWrite,
    permitted: readonly Permitted[],
    receipts: readonly (Buffer | undefined)[],
    errors: ReadonlyMap<number, OperationError>,
  ): Failure {
    // Where every disk says so, it is the id that is too old, and no disk's fault.
    const isLate = [...errors.values()].filter(({ code }) => code === 'BLOCK_OUT_OF_TIME').length === permitted.length
    const failed = permitted.flatMap(({ disk }, index) => {
      const error = errors.get(index)
      // After a failure, those that are just slower are no failures.
      if (error === undefined && (errors.size > 0 || receipts[index] !== undefined)) return []
      const domain = this.#options.disks.find(disk)?.domain
      const detail = error?.message ?? 'it is much slower than the others'
      return [{ domain, error, text: `disk ${disk}${domain === undefined ? '' : ` of ${domain}`}: ${detail}` }]
    })
    const first = failed.find(({ error }) => error !== undefined)?.error
    const message = `Cannot ${actionOf(span)}: ${failed.map(({ text }) => text).join('; ')}`
    const domains = isLate ? [] : failed.flatMap(({ domain }) => (domain === undefined ? [] : [domain]))
    return { domains, error: new OperationError(first?.code ?? 'CLUSTER_UNREACHABLE', message, { cause: first }) }
  }

  /** The span that is not finished becomes one of a file that nobody finishes. */
  async #moveAway(span: SpanToWrite, signal: AbortSignal | undefined): Promise<void> {
    const { file, cookie, offset } = span
    const attributes = { mode: 0o600, uid: 0, gid: 0, mtime: undefined, atime: undefined }
    const construct = { type: 'file', attributes, note: SCRATCH_NOTE } as const
    const scratch = await this.#ask(span, shardMessages.construct, construct, signal)
    const move = { file, cookie, offset, to: scratch.file, toCookie: scratch.cookie, toOffset: 0 }
    await this.#ask(span, shardMessages.moveSpan, move, signal)
  }

  #ask<Q, R>({ file }: SpanToWrite, message: Message<Q, R>, request: Q, signal: AbortSignal | undefined): Promise<R> {
    const shard = inodeShard(file)
    const options = { shard, ...(signal === undefined ? {} : { signal }) }
    return this.#options.caller.call(this.#options.shard(shard), message, request, options)
  }
}

function isSameCut(a: SpanForm, b: SpanForm): boolean {
  return a.data === b.data && a.parity === b.parity && a.stripes === b.stripes
}

function actionOf({ file, offset }: SpanToWrite): string {
  return `write the span at ${offset} of ${shownInode(file)}`
}
