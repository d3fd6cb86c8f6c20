/**
 * How a client talks to block services. Blocks are much larger than other messages, and block services remember no requests, since
 * each can be done again without harm: so a block goes out from where it lies, without a copy; a request is sent again only after as
 * long as its bytes may take; and what is on its way to one service is bounded, the rest waits here in order.
 *
 *   queued --room on the way--> sent --> answered
 *                                 |  '--> busy there, or no answer in time --> after a pause: sent
 *                                 |  '--> link lost --> sent, for as long as `lostMsMax` allows
 *                                 '--> given up (deadline, signal)
 *
 * Who gives up a write may use its memory again: where the network may still have to read it, the link is closed, and what else was
 * on it goes over a new one.
 */
import { assert } from '#base/assert.ts'
import { isOperationError, OperationError } from '#base/errors.ts'
import { type FetchReply, blockMessages } from '#cluster/block/block-messages.ts'
import { type WriteFacts, writeHead } from '#cluster/block/block-frames.ts'
import type { BlockId } from '#cluster/block/block-id.ts'
import type { DiskId } from '#cluster/block/permit.ts'
import { BufferMemory } from '#cluster/erasure/buffer-memory.ts'
import { stoodStillMs } from '#cluster/stood-still.ts'
import type { Address, Cancel, Link, Surroundings } from '#cluster/surroundings.ts'
import { randomClient, type Target } from '#cluster/wire/caller.ts'
import { decode, encode } from '#cluster/wire/codec.ts'
import { bodyOf, decodeError, type Header, readHeader, requestHeader } from '#cluster/wire/envelope.ts'
import type { Message } from '#cluster/wire/message.ts'

/** Of blocks on their way to one service, beside the first: a network takes no more than 256 MiB. */
const BYTES_UNDER_WAY_MAX = 128 << 20
/** Without an answer for so long, and for as long as its bytes may take, a request is sent again; each time twice as long. */
const ANSWER_MS = 2000
/** A slow network, or a busy disk. */
export const BYTES_A_MS = 4000
const PAUSE_MS = 20
const PAUSE_MS_MAX = 1000
const SWEEP_MS = 50
/** For answers with blocks, until who asked is done with them; more of them lie in memory of their own. */
const MEMORY_BYTES = 64 << 20
const NOTHING = Buffer.alloc(0)

export interface BlockCallOptions {
  /** From when it is sent. */
  readonly deadlineMs: number
  /** For how long a service that cannot be reached is tried again; 0 where there is somebody else to ask. */
  readonly lostMsMax?: number
  readonly signal?: AbortSignal | undefined
}

export interface FetchRange {
  readonly disk: DiskId
  readonly block: BlockId
  readonly offset: number
  readonly length: number
}

/** A range of a block, whose bytes are good until it is released. */
export interface FetchedRange extends FetchReply {
  readonly release?: () => void
}

interface Call {
  readonly sequence: number
  readonly target: Target
  readonly message: Message
  readonly parts: readonly Uint8Array[]
  /** Of the request, or of the answer where that is larger. */
  readonly bytes: number
  readonly deadlineMs: number
  readonly lostMsMax: number
  readonly signal: AbortSignal | undefined
  readonly onAbort: () => void
  readonly give: (frame: Buffer) => void
  readonly fail: (error: OperationError) => void
  /** By the monotonic clock, as are the others. */
  endsAt: number
  dueAt: number
  /** When the service was first found away. */
  lostAt: number | undefined
  answerMs: number
  pauseMs: number
  /** Whose bytes under way it counts among. */
  peer: Peer | undefined
  isSent: boolean
  trouble: OperationError | undefined
}

interface Peer {
  readonly address: Address
  link: Link | undefined
  readonly calls: Set<Call>
  readonly queue: Set<Call>
  bytes: number
}

export class BlockCaller {
  /** Where the bytes of answers lie. */
  readonly memory = new BufferMemory(MEMORY_BYTES)
  readonly #surroundings: Surroundings
  readonly #client: number
  readonly #bytesMax: number
  readonly #calls = new Map<number, Call>()
  readonly #peers = new Map<Address, Peer>()
  #sequence = 0
  #cancelSweep: Cancel | undefined
  #isClosed = false

  constructor(surroundings: Surroundings, bytesUnderWayMax = BYTES_UNDER_WAY_MAX) {
    this.#surroundings = surroundings
    this.#bytesMax = bytesUnderWayMax
    this.#client = randomClient(surroundings)
  }

  /**
   * Writes a block, whose bytes are the parts one after the other; they must stay as they are until this settles. Gives the receipt.
   * @throws what the service refuses it by; CLUSTER_UNREACHABLE, ABORTED
   */
  async write(
    target: Target,
    facts: WriteFacts,
    parts: readonly Uint8Array[],
    options: BlockCallOptions,
  ): Promise<Buffer> {
    let size = 0
    for (const part of parts) size += part.length
    const body = [writeHead(facts, size), ...parts]
    return (await this.#answer(target, blockMessages.write, body, size, options)).receipt
  }

  /** A range of a block; its bytes are a view of the frame that they came in, to be released once. @throws as `write` */
  async fetch(target: Target, range: FetchRange, options: BlockCallOptions): Promise<FetchedRange> {
    const body = encode(blockMessages.fetch.request, range)
    const { reply, frame } = await this.#call(target, blockMessages.fetch, [body], range.length, options)
    return { ...reply, release: () => this.memory.give(frame) }
  }

  /** Any of the small messages. @throws as `write` */
  ask<Q, R>(target: Target, message: Message<Q, R>, request: Q, options: BlockCallOptions): Promise<R> {
    return this.#answer(target, message, [encode(message.request, request)], 0, options)
  }

  /** Bytes that are on their way to or from the service there. */
  bytesUnderWay(address: Address): number {
    return this.#peers.get(address)?.bytes ?? 0
  }

  /** Gives everything up. */
  close(): void {
    this.#isClosed = true
    this.#cancelSweep?.()
    for (const call of [...this.#calls.values()]) this.#end(call, aborted(call))
    for (const peer of this.#peers.values()) peer.link?.close()
    this.#peers.clear()
  }

  /** Of a message whose answers are small. */
  async #answer<Q, R>(
    target: Target,
    message: Message<Q, R>,
    body: readonly Uint8Array[],
    bytes: number,
    options: BlockCallOptions,
  ): Promise<R> {
    return (await this.#call(target, message, body, bytes, options)).reply
  }

  #call<Q, R>(
    target: Target,
    message: Message<Q, R>,
    body: readonly Uint8Array[],
    bytes: number,
    { deadlineMs, lostMsMax = 0, signal }: BlockCallOptions,
  ): Promise<{ readonly reply: R; readonly frame: Buffer }> {
    assert(!this.#isClosed, 'a caller that is closed is not asked')
    return new Promise((resolve, reject) => {
      const sequence = ++this.#sequence
      const id = { client: this.#client, slot: 0, sequence, kind: message.kind, shard: 0, isInternal: false }
      const call: Call = {
        sequence,
        target,
        message,
        parts: [Buffer.concat([requestHeader(id), body[0] ?? NOTHING]), ...body.slice(1)],
        bytes,
        deadlineMs,
        lostMsMax,
        signal,
        onAbort: () => this.#end(call, aborted(call)),
        give: (frame) => {
          try {
            resolve({ reply: decode(message.reply, bodyOf(frame)), frame })
          } catch (error) {
            this.memory.give(frame)
            reject(error)
          }
        },
        fail: reject,
        endsAt: Number.POSITIVE_INFINITY,
        dueAt: 0,
        lostAt: undefined,
        answerMs: ANSWER_MS + bytes / BYTES_A_MS,
        pauseMs: PAUSE_MS,
        peer: undefined,
        isSent: false,
        trouble: undefined,
      }
      this.#calls.set(sequence, call)
      signal?.addEventListener('abort', call.onAbort)
      if (signal?.aborted === true) this.#end(call, aborted(call))
      else this.#send(call)
      this.#sweepLater()
    })
  }

  #now(): number {
    return this.#surroundings.clock.monotonicMs()
  }

  /** Sends it, again where it was sent before, or queues it where too much is on the way already. */
  #send(call: Call): void {
    const now = this.#now()
    if (call.endsAt === Number.POSITIVE_INFINITY) call.endsAt = now + call.deadlineMs
    const address = call.target.address()
    if (address === undefined) {
      const detail = `nobody knows where ${call.target.name} is`
      this.#lost(call, new OperationError('CLUSTER_INCOMPLETE', `Cannot ${call.message.name}: ${detail}`))
      return
    }
    if (call.peer?.address !== address) {
      this.#leave(call)
      const peer = this.#peerAt(address)
      call.peer = peer
      peer.calls.add(call)
      if (peer.bytes > 0 && peer.bytes + call.bytes > this.#bytesMax) {
        // Its time begins when it is sent: those before it have deadlines of their own.
        call.endsAt = Number.POSITIVE_INFINITY
        call.dueAt = Number.POSITIVE_INFINITY
        peer.queue.add(call)
        return
      }
      peer.bytes += call.bytes
    }
    if (call.peer !== undefined) this.#put(call, call.peer, now)
  }

  #put(call: Call, peer: Peer, now: number): void {
    peer.link ??= this.#connect(peer)
    call.dueAt = now + call.answerMs
    call.answerMs *= 2
    call.isSent = true
    peer.link.send(...call.parts)
  }

  #peerAt(address: Address): Peer {
    const known = this.#peers.get(address)
    if (known !== undefined) return known
    const peer: Peer = { address, link: undefined, calls: new Set(), queue: new Set(), bytes: 0 }
    this.#peers.set(address, peer)
    return peer
  }

  #connect(peer: Peer): Link {
    const link: Link = this.#surroundings.network.connect(peer.address, {
      memory: this.memory,
      onFrame: (frame) => {
        if (!this.#take(frame, link)) this.memory.give(frame)
      },
      onClosed: (error) => this.#lose(peer, link, error),
    })
    return link
  }

  /** Whether the frame is used from now on. */
  #take(frame: Buffer, link: Link): boolean {
    let header: Header
    try {
      header = readHeader(frame)
    } catch {
      link.close()
      return false
    }
    const call = header.client === this.#client ? this.#calls.get(header.sequence) : undefined
    // The answer to one that was given up, or that came before.
    if (call === undefined || call.message.kind !== header.kind || header.what === 'request') return false
    if (header.what === 'reply') {
      this.#forget(call)
      const isKept = call.message.kind === blockMessages.fetch.kind
      call.give(isKept || !this.memory.isLent(frame) ? frame : Buffer.from(frame))
      return isKept
    }
    const error = refusalIn(bodyOf(frame))
    if (isOperationError(error, 'CLUSTER_BUSY', 'BLOCK_BUSY')) this.#later(call, error)
    else this.#end(call, error)
    return false
  }

  #lose(peer: Peer, link: Link, error: Error | undefined): void {
    // One that was closed here has another in its place.
    if (peer.link === link) peer.link = undefined
    const told = new Set<Target>()
    for (const call of [...peer.calls]) {
      if (!call.isSent || peer.link !== undefined) continue
      if (!told.has(call.target)) {
        told.add(call.target)
        call.target.isLost?.(peer.address)
      }
      if (isOperationError(error, 'WIRE_REFUSED', 'WIRE_VERSION')) this.#end(call, error)
      else this.#lost(call, unreachable(call, error))
    }
    if (peer.calls.size === 0 && peer.link === undefined) this.#peers.delete(peer.address)
  }

  #lost(call: Call, trouble: OperationError): void {
    const now = this.#now()
    call.lostAt ??= now
    if (now - call.lostAt >= call.lostMsMax) this.#end(call, trouble)
    else this.#later(call, trouble)
  }

  #later(call: Call, trouble: OperationError): void {
    call.trouble = trouble
    call.isSent = false
    call.dueAt = this.#now() + call.pauseMs * (0.9 + this.#surroundings.chance.below(200) / 1000)
    call.pauseMs = Math.min(PAUSE_MS_MAX, call.pauseMs * 2)
  }

  #end(call: Call, error: OperationError): void {
    if (!this.#calls.has(call.sequence)) return
    const { peer, isSent } = call
    const isRead = call.parts.length === 1
    this.#forget(call)
    if (isSent && !isRead && peer?.link !== undefined && peer.link.bytesWaiting > 0) this.#reopen(peer)
    call.fail(error)
  }

  /** The network may still read memory that is somebody else's from now on. */
  #reopen(peer: Peer): void {
    const { link } = peer
    peer.link = undefined
    link?.close()
    const now = this.#now()
    for (const call of peer.calls) if (call.isSent) this.#put(call, peer, now)
  }

  #forget(call: Call): void {
    this.#calls.delete(call.sequence)
    call.signal?.removeEventListener('abort', call.onAbort)
    this.#leave(call)
  }

  #leave(call: Call): void {
    const { peer } = call
    if (peer === undefined) return
    call.peer = undefined
    peer.calls.delete(call)
    if (peer.queue.delete(call)) return
    peer.bytes -= call.bytes
    for (const next of peer.queue) {
      if (peer.bytes > 0 && peer.bytes + next.bytes > this.#bytesMax) break
      peer.queue.delete(next)
      peer.bytes += next.bytes
      const now = this.#now()
      next.endsAt = now + next.deadlineMs
      this.#put(next, peer, now)
    }
  }

  #sweepLater(): void {
    if (this.#cancelSweep !== undefined || this.#calls.size === 0 || this.#isClosed) return
    const sweepAt = this.#now() + SWEEP_MS
    this.#cancelSweep = this.#surroundings.clock.after(SWEEP_MS, () => {
      this.#cancelSweep = undefined
      const now = this.#now()
      const stoodMs = stoodStillMs(now, sweepAt)
      for (const call of [...this.#calls.values()]) {
        if (stoodMs > 0) putOff(call, stoodMs)
        if (now >= call.endsAt) this.#end(call, call.trouble ?? unreachable(call, undefined))
        else if (now >= call.dueAt) this.#send(call)
      }
      this.#sweepLater()
    })
  }
}

/** By time that is not to count. */
function putOff(call: Call, ms: number): void {
  call.endsAt += ms
  call.dueAt += ms
  if (call.lostAt !== undefined) call.lostAt += ms
}

function refusalIn(body: Buffer): OperationError {
  try {
    return decodeError(body)
  } catch (error) {
    if (isOperationError(error)) return error
    throw error
  }
}

function unreachable(call: Call, error: Error | undefined): OperationError {
  const detail = error === undefined ? `it has not answered in ${Math.round(call.deadlineMs)} ms` : error.message
  const message = `Cannot ask ${call.target.name} to ${call.message.name}: ${detail}`
  return new OperationError('CLUSTER_UNREACHABLE', message, { cause: error })
}

function aborted(call: Call): OperationError {
  return new OperationError('ABORTED', `Cannot ask ${call.target.name} to ${call.message.name}: it was given up`)
}
