/**
 * A shard process: answers requests by its machine, and tells it what a machine cannot know by itself: the time, and the disks
 * that a span goes to. Reads see what is applied, and are answered when that is durable.
 */
import { assert } from '#base/assert.ts'
import { isOperationError, OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import type { DiskId } from '#cluster/block/permit.ts'
import type { ClockTrust } from '#cluster/clock-trust.ts'
import { DurableMachine } from '#cluster/journal/durable-machine.ts'
import type { Journal } from '#cluster/journal/journal.ts'
import { readNumber } from '#cluster/journal/keys.ts'
import { findAnswer, type Answer } from '#cluster/journal/sessions.ts'
import type { StateReader, StoredState } from '#cluster/journal/state.ts'
import type { Cancel, Link, LinkHandler, Surroundings } from '#cluster/surroundings.ts'
import { randomClient } from '#cluster/wire/caller.ts'
import { decode, encode } from '#cluster/wire/codec.ts'
import { bodyOf, encodeRequest, readHeader, requestCheck } from '#cluster/wire/envelope.ts'
import { type BlocksBody, NO_INODE } from '#cluster/wire/forms.ts'
import type { AnyMessage, Message } from '#cluster/wire/message.ts'
import { Responder, type Incoming } from '#cluster/wire/responder.ts'

import { placeBlocks, type WritableDisk } from './block-placement.ts'
import { ownMessages } from './own-messages.ts'
import { reads } from './reads.ts'
import { findDisk, findSpan, lastSpan, SHARDS_KEY, TIME_KEY, type DiskRecord } from './records.ts'
import type { ShardEntry } from './shard-entry.ts'
import { ShardMachine } from './shard-machine.ts'
import { SHARD_MESSAGES, shardMessages } from './shard-messages.ts'

const log = logger('cluster/shard')

/** How often old answers are forgotten. */
const FORGET_MS = 60_000
/** The same while there are more to look at: one a second is a thousand clients a second that come and go. */
const FORGET_MORE_MS = 1000
const SECRET_BYTES = 32
/** Disks in one entry. */
const LEARN_COUNT = 1024

/** What the registry says of the disks, for these shards. */
export interface ShardDisks {
  readonly all: readonly (DiskRecord & { readonly disk: DiskId })[]
  /** By shard and class: those that new blocks may go to. */
  readonly writable: readonly { readonly shard: number; readonly class: number; readonly disks: readonly DiskId[] }[]
}

export interface ShardServerOptions {
  readonly surroundings: Surroundings
  readonly journal: Journal
  readonly stored: StoredState
  /** The virtual shards of this process. */
  readonly first: number
  readonly last: number
  /** Whether its clock may be written by; where it is missing, that is never asked. */
  readonly trust?: ClockTrust
  /** Of a new directory: done before its first entry. That has a time in it, so the clock is to be known by then. */
  readonly beforeFirst?: () => Promise<void>
  /** Whether what makes the state larger can be taken; what makes room is taken in any case. */
  readonly hasRoom?: () => boolean
  /** Called once, where it cannot go on: the process is to end. */
  readonly onFailed: (error: OperationError) => void
  /** For the simulator's own tests: one that does something wrong. */
  readonly machine?: ShardMachine
}

/** What makes the state larger for good. */
const GROWING: ReadonlySet<AnyMessage> = new Set<AnyMessage>([
  shardMessages.construct,
  shardMessages.create,
  shardMessages.addInline,
  shardMessages.addSpan,
  shardMessages.setXattr,
  shardMessages.createDirectory,
])

type ReadOf = (state: StateReader, shard: number, body: Buffer) => Buffer
const readsByKind = new Map<number, ReadOf>()
for (const [name, read] of Object.entries(reads)) {
  const message = (shardMessages as Readonly<Record<string, AnyMessage>>)[name]
  assert(message !== undefined && message.does === 'read', 'each read is one of the table')
  const run = read as (state: StateReader, shard: number, request: unknown) => unknown
  readsByKind.set(message.kind, (state, shard, body) =>
    encode(message.reply, run(state, shard, decode(message.request, body))),
  )
}

export class ShardServer {
  readonly first: number
  readonly last: number
  /**
   * Called where fewer disks are known than a span is to have; settles once it was looked for more. Clients know of new disks as soon as the
   * registry does, and would write a span less redundantly, or not at all, where the shard hears of them later.
   */
  learnMore: (() => Promise<void>) | undefined
  readonly #surroundings: Surroundings
  readonly #machine: DurableMachine<ShardEntry, Answer>
  readonly #responder: Responder
  readonly #trust: ClockTrust | undefined
  readonly #hasRoom: () => boolean
  /** By shard and class. */
  readonly #writable = new Map<number, readonly WritableDisk[]>()
  /** Of the requests that the process makes itself. */
  readonly #client: number
  #sequence = 0
  #lastUs: number
  #cancelForget: Cancel | undefined
  #isClosed = false

  private constructor(options: ShardServerOptions, machine: DurableMachine<ShardEntry, Answer>) {
    this.first = options.first
    this.last = options.last
    this.#surroundings = options.surroundings
    this.#machine = machine
    this.#trust = options.trust
    this.#hasRoom = options.hasRoom ?? (() => true)
    this.#client = randomClient(options.surroundings)
    const time = machine.state.get(TIME_KEY)
    this.#lastUs = time === undefined ? 0 : readNumber(time, 0)
    this.#responder = new Responder(SHARD_MESSAGES, (request) => this.#answer(request))
  }

  /** @throws JOURNAL_FAILED, JOURNAL_CORRUPT, INPUT_INVALID where the state is that of other shards; CLOCK_UNTRUSTED where it is new */
  static async open(options: ShardServerOptions): Promise<ShardServer> {
    const { journal, stored, surroundings, onFailed, machine = new ShardMachine() } = options
    const { clock } = surroundings
    const opened = await DurableMachine.open({ machine, journal, stored, clock, onFailed })
    const server = new ShardServer(options, opened)
    await server.#begin(options.beforeFirst)
    server.#forgetLater('')
    return server
  }

  /** For `Network.listen`. */
  accept(link: Link): LinkHandler {
    return this.#responder.accept(link)
  }

  /** For checks and for who answers nobody by it. */
  get state(): StateReader {
    return this.#machine.state
  }

  /** What the registry says of disks now. */
  async learn({ all, writable }: ShardDisks): Promise<void> {
    const { state } = this.#machine
    const news = all.filter((disk) => !isKnown(findDisk(state, disk.disk), disk))
    for (let at = 0; at < news.length; at += LEARN_COUNT) {
      await this.#own(ownMessages.learnDisks, { disks: news.slice(at, at + LEARN_COUNT) })
    }
    const domains = new Map(all.map(({ disk, domain }) => [disk, domain]))
    this.#writable.clear()
    for (const each of writable) {
      const disks = each.disks.flatMap((disk) => {
        const domain = domains.get(disk)
        return domain === undefined ? [] : [{ disk, domain }]
      })
      this.#writable.set(each.shard * 256 + each.class, disks)
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true
    this.#cancelForget?.()
    await this.#machine.close()
  }

  async #begin(beforeFirst: ShardServerOptions['beforeFirst']): Promise<void> {
    const { first, last } = this
    const known = this.#machine.state.get(SHARDS_KEY)
    if (known === undefined) {
      if (this.#machine.applied > 0) {
        throw new OperationError(
          'JOURNAL_CORRUPT',
          `Cannot serve shards ${first}-${last}: the directory is none of shards`,
        )
      }
      await beforeFirst?.()
      const objection = this.#trust?.objectionTo(`Cannot begin shards ${first} to ${last}`)
      if (objection !== undefined) throw objection
      await this.#own(ownMessages.begin, { first, last, secret: this.#surroundings.chance.bytes(SECRET_BYTES) })
    } else if (known[0] !== first || known[1] !== last) {
      const detail = `the directory has shards ${known[0]}-${known[1]}`
      throw new OperationError('INPUT_INVALID', `Cannot serve shards ${first}-${last}: ${detail}`, {
        hint: 'Give the shards that the directory was made for, or another directory.',
      })
    }
  }

  #answer(request: Incoming): void {
    const { header, message } = request
    const { shard } = header
    if (shard < this.first || shard > this.last) {
      const detail = `shards ${this.first}-${this.last} are here`
      return request.refuse(new OperationError('SHARD_ELSEWHERE', `Cannot answer for shard ${shard}: ${detail}`))
    }
    const refuse = (error: OperationError): void => request.refuse(error)
    const give = (body: Buffer): void => request.replyBytes(body)
    if (message.does === 'read') {
      const read = readsByKind.get(message.kind)
      assert(read !== undefined, 'each read of the table is implemented')
      this.#machine.read((state) => read(state, shard, bodyOf(request.frame)), give, refuse)
      return
    }
    if (this.#machine.isFull) {
      return refuse(new OperationError('CLUSTER_BUSY', 'Cannot take a write: too much is waiting to be stored'))
    }
    // What was done already is answered, and not refused for want of room.
    const isNew = (): boolean =>
      findAnswer(this.#machine.state, shard, header, requestCheck(request.frame)) === undefined
    const objection = this.#trust?.objectionTo(`Cannot do "${message.name}"`)
    if (objection !== undefined && isNew()) return refuse(objection)
    if (GROWING.has(message) && !this.#hasRoom() && isNew()) {
      const detail = 'the file system of its shard keeps what room it has for removals'
      return refuse(new OperationError('DISK_FULL', `Cannot do "${message.name}": ${detail}`))
    }
    const answer = (given: Answer): void => ('body' in given ? give(given.body) : refuse(given.refusal))
    const submit = (chosen: readonly DiskId[]): void => {
      this.#machine.submit({ timeUs: this.#nextUs(), chosen, header, frame: request.frame }, answer, refuse)
    }
    if (message.kind !== shardMessages.addSpan.kind) return submit([])
    const { disks, isShort } = this.#choose(request)
    if (!isShort || this.learnMore === undefined) return submit(disks)
    void this.learnMore().then(() => {
      if (!this.#isClosed) submit(this.#choose(request).disks)
    })
  }

  /** The disks for a new span, and whether there are too few. */
  #choose(request: Incoming): { readonly disks: readonly DiskId[]; readonly isShort: boolean } {
    const { shard } = request.header
    const { file, class: storageClass, data, parity, avoidDomains, like } = request.read(shardMessages.addSpan)
    const { state } = this.#machine
    const preferred: DiskId[] = []
    for (const each of like === NO_INODE ? [file] : [like, file]) {
      preferred.push(...disksOf(findSpan(state, each, 0)?.blocks), ...disksOf(lastSpan(state, each)?.record.blocks))
    }
    const writable = this.#writable.get(shard * 256 + storageClass) ?? []
    const placement = { writable, count: data + parity, avoidDomains: new Set(avoidDomains), preferred }
    const disks = placeBlocks(placement, this.#surroundings.chance)
    return { disks, isShort: disks.length < data + parity }
  }

  /** Later than any before, also where the clock goes back; never by a clock that is not trusted. */
  #nextUs(): number {
    const nowMs = this.#trust === undefined ? this.#surroundings.clock.nowMs() : (this.#trust.nowMs() ?? 0)
    this.#lastUs = Math.max(this.#lastUs + 1, Math.floor(nowMs * 1000))
    return this.#lastUs
  }

  /** Something that the process does itself. */
  #own<Q, R>(message: Message<Q, R>, request: Q): Promise<R> {
    const id = { client: this.#client, slot: 0, sequence: ++this.#sequence }
    const frame = encodeRequest(
      { ...id, kind: message.kind, shard: this.first, isInternal: false },
      message.request,
      request,
    )
    const entry = { timeUs: this.#nextUs(), chosen: [], header: readHeader(frame), frame }
    return new Promise((resolve, reject) => {
      const take = (given: Answer): void => {
        if ('body' in given) resolve(decode(message.reply, given.body))
        else reject(given.refusal)
      }
      this.#machine.submit(entry, take, reject)
    })
  }

  #forgetLater(from: string): void {
    // One may have been under way when the process was told to end.
    if (this.#isClosed) return
    this.#cancelForget = this.#surroundings.clock.after(from === '' ? FORGET_MS : FORGET_MORE_MS, () => {
      this.#own(ownMessages.forget, { from }).then(
        ({ next }) => this.#forgetLater(next),
        (error: unknown) => {
          if (!isOperationError(error)) throw error
          log.warn({ err: error }, 'Cannot forget old answers')
        },
      )
    })
  }
}

function disksOf(body: BlocksBody | undefined): DiskId[] {
  return body?.blocks.map(({ disk }) => disk) ?? []
}

function isKnown(known: DiskRecord | undefined, { key, class: storageClass, domain }: DiskRecord): boolean {
  return known !== undefined && known.key.equals(key) && known.class === storageClass && known.domain === domain
}
