/**
 * The side that asks: sends a request, again where it or its answer may be lost, under the same id, until it is answered or its time is over. So a
 * write is done once however often it is sent (`envelope.ts`).
 *
 *   waiting for a slot --> sent --> answered
 *                           |  '--> link lost, no answer in time, busy there --> after a pause: sent
 *                           '--> given up (deadline, signal): nobody knows whether it was done
 */
import { assert } from '#base/assert.ts'
import { isOperationError, OperationError } from '#base/errors.ts'
import { stoodStillMs } from '#cluster/stood-still.ts'
import type { Address, Cancel, Link, Surroundings } from '#cluster/surroundings.ts'

import { decode } from './codec.ts'
import {
  bodyOf,
  decodeError,
  encodeRequest,
  readHeader,
  saysLater,
  SLOTS_MAX,
  type Header,
  type RequestId,
} from './envelope.ts'
import type { Message } from './message.ts'

/** Without an answer for so long, a request is sent again; each time half as long again. */
const ANSWER_MS = 1000
const ANSWER_MS_MAX = 10_000
/** After a refusal that says "later", or a lost link. */
const PAUSE_MS = 20
const PAUSE_MS_MAX = 2000
const GROWTH = 1.5
export const DEADLINE_MS = 30_000
const SWEEP_MS = 50

/** Who is to answer: where that is may change, and not be known for a while. */
export interface Target {
  /** For people: `shard 17`. */
  readonly name: string
  address(): Address | undefined
  /** What is at the address did not answer, or is not the one any more. */
  isLost?(address: Address): void
}

export interface CallOptions {
  /** Of a request to a shard: which one. */
  readonly shard?: number
  readonly signal?: AbortSignal
  /** Infinity: for ever. */
  readonly deadlineMs?: number
  /** One that is kept beyond this process; otherwise a slot of this caller. */
  readonly id?: RequestId
}

export interface CallerOptions {
  /** Whether this is a process of the cluster, not a client. */
  readonly isInternal?: boolean
  /** Of this caller's own, at a time. */
  readonly slots?: number
}

interface Call {
  readonly target: Target
  readonly message: { readonly kind: number; readonly name: string }
  readonly frameOf: (id: RequestId) => Buffer
  readonly give: (body: Buffer) => void
  readonly fail: (error: OperationError) => void
  /** By the monotonic clock. */
  endsAt: number
  /** Once it has a slot. */
  sending: { readonly id: RequestId; readonly isOwnSlot: boolean; readonly frame: Buffer } | undefined
  /** When to send it (again). */
  dueAt: number
  answerMs: number
  pauseMs: number
  peer: Peer | undefined
  /** The last thing that stood in the way. */
  trouble: OperationError | undefined
  isOver: boolean
}

interface Peer {
  readonly address: Address
  readonly link: Link
  readonly calls: Set<Call>
}

/** Who has a slot of their own with a number of their own is not mixed up with those of this caller's. */
function keyOf({ client, slot, sequence }: RequestId): string {
  return `${client}:${slot}:${sequence}`
}

export class Caller {
  readonly #surroundings: Surroundings
  readonly #isInternal: boolean
  readonly #client: number
  readonly #slotsMax: number
  /** Of each slot that was used: the number of its last request. */
  readonly #sequences: number[] = []
  readonly #freeSlots: number[] = []
  /** For a slot, the first one first. */
  readonly #waiting = new Set<Call>()
  readonly #calls = new Map<string, Call>()
  readonly #peers = new Map<Address, Peer>()
  #stopSweep: Cancel | undefined
  #isClosed = false

  constructor(surroundings: Surroundings, { isInternal = false, slots = 1024 }: CallerOptions = {}) {
    assert(slots <= SLOTS_MAX, 'a slot is a number of 16 bits')
    this.#surroundings = surroundings
    this.#isInternal = isInternal
    this.#slotsMax = slots
    this.#client = randomClient(surroundings)
  }

  /** Asks, and waits for the answer. @throws what the other side refused it by; CLUSTER_UNREACHABLE, ABORTED */
  call<Q, R>(target: Target, message: Message<Q, R>, request: Q, options: CallOptions = {}): Promise<R> {
    return new Promise((resolve, reject) => {
      this.start(target, message, request, options, (error, reply) => {
        if (error === undefined) resolve(reply as R)
        else reject(error)
      })
    })
  }

  /** The same for those who wait for no promise; `done` is called once, never before this returns. */
  start<Q, R>(
    target: Target,
    message: Message<Q, R>,
    request: Q,
    options: CallOptions,
    done: (error: OperationError | undefined, reply: R | undefined) => void,
  ): void {
    assert(!this.#isClosed, 'a caller that is closed is not asked')
    const { signal, id, deadlineMs = DEADLINE_MS, shard = 0 } = options
    let onAbort: (() => void) | undefined
    const end = (error: OperationError | undefined, reply?: R): void => {
      if (onAbort !== undefined) signal?.removeEventListener('abort', onAbort)
      done(error, reply)
    }
    const call: Call = {
      target,
      message,
      frameOf: (full) => {
        const facts = { ...full, kind: message.kind, shard, isInternal: this.#isInternal }
        return encodeRequest(facts, message.request, request)
      },
      give: (body) => {
        let reply: R
        try {
          reply = decode(message.reply, body)
        } catch (error) {
          end(asOperationError(error))
          return
        }
        end(undefined, reply)
      },
      fail: (error) => end(error),
      endsAt: this.#now() + deadlineMs,
      sending: undefined,
      dueAt: 0,
      answerMs: ANSWER_MS,
      pauseMs: PAUSE_MS,
      peer: undefined,
      trouble: undefined,
      isOver: false,
    }
    if (signal !== undefined) {
      onAbort = (): void => this.#end(call, aborted(call))
      signal.addEventListener('abort', onAbort)
    }
    if (signal?.aborted === true) this.#surroundings.clock.soon(() => this.#end(call, aborted(call)))
    else if (id !== undefined) this.#begin(call, id, false)
    else this.#takeSlot(call)
    this.#sweepLater()
  }

  /** Gives everything up. */
  close(): void {
    this.#isClosed = true
    this.#stopSweep?.()
    // Those that wait go first, or they would be begun.
    for (const call of [...this.#waiting, ...this.#calls.values()]) {
      this.#end(call, new OperationError('ABORTED', `Cannot ask ${call.target.name} to ${call.message.name}: it ends`))
    }
    for (const { link } of this.#peers.values()) link.close()
    this.#peers.clear()
  }

  #now(): number {
    return this.#surroundings.clock.monotonicMs()
  }

  #takeSlot(call: Call): void {
    const free = this.#freeSlots.pop()
    if (free !== undefined) this.#begin(call, this.#nextId(free), true)
    else if (this.#sequences.length >= this.#slotsMax) this.#waiting.add(call)
    else this.#begin(call, this.#nextId(this.#sequences.push(0) - 1), true)
  }

  #giveSlot(slot: number): void {
    for (const next of this.#waiting) {
      this.#waiting.delete(next)
      this.#begin(next, this.#nextId(slot), true)
      return
    }
    this.#freeSlots.push(slot)
  }

  #begin(call: Call, id: RequestId, isOwnSlot: boolean): void {
    const key = keyOf(id)
    assert(!this.#calls.has(key), 'nobody asks twice at a time under one request id')
    let frame: Buffer
    try {
      frame = call.frameOf(id)
    } catch (error) {
      // What is asked cannot be said: its slot is for another, and nobody is told before `start` returns.
      const refusal = asOperationError(error)
      if (isOwnSlot) this.#giveSlot(id.slot)
      this.#surroundings.clock.soon(() => this.#end(call, refusal))
      return
    }
    call.sending = { id, isOwnSlot, frame }
    this.#calls.set(key, call)
    this.#send(call)
  }

  #nextId(slot: number): RequestId {
    const sequence = (this.#sequences[slot] ?? 0) + 1
    this.#sequences[slot] = sequence
    return { client: this.#client, slot, sequence }
  }

  #send(call: Call): void {
    assert(call.sending !== undefined, 'what is sent has a slot')
    const address = call.target.address()
    const now = this.#now()
    if (address === undefined) {
      const detail = `nobody knows where ${call.target.name} is`
      return this.#later(call, new OperationError('CLUSTER_INCOMPLETE', `Cannot ${call.message.name}: ${detail}`))
    }
    const peer = this.#peers.get(address) ?? this.#connect(address)
    call.peer?.calls.delete(call)
    call.peer = peer
    peer.calls.add(call)
    call.dueAt = now + call.answerMs
    call.answerMs = Math.min(ANSWER_MS_MAX, call.answerMs * GROWTH)
    peer.link.send(call.sending.frame)
  }

  #sendAgain(call: Call, now: number): void {
    // While the network has not taken all of it yet, a second copy would only make it slower.
    if (call.peer !== undefined && call.peer.link.bytesWaiting > 0) call.dueAt = now + call.answerMs
    else this.#send(call)
  }

  /** Sends it again after a pause. */
  #later(call: Call, trouble: OperationError): void {
    call.trouble = trouble
    call.peer?.calls.delete(call)
    call.peer = undefined
    call.dueAt = this.#now() + call.pauseMs * (0.9 + this.#surroundings.chance.below(200) / 1000)
    call.pauseMs = Math.min(PAUSE_MS_MAX, call.pauseMs * GROWTH)
  }

  #connect(address: Address): Peer {
    const calls = new Set<Call>()
    const link = this.#surroundings.network.connect(address, {
      onFrame: (frame) => this.#take(frame, peer),
      onClosed: (error) => this.#lose(peer, error),
    })
    const peer: Peer = { address, link, calls }
    this.#peers.set(address, peer)
    return peer
  }

  #lose(peer: Peer, error: Error | undefined): void {
    if (this.#peers.get(peer.address) === peer) this.#peers.delete(peer.address)
    const told = new Set<Target>()
    for (const call of [...peer.calls]) {
      if (!told.has(call.target)) {
        told.add(call.target)
        call.target.isLost?.(peer.address)
      }
      // Who does not know the secret will not know it later.
      if (isOperationError(error, 'WIRE_REFUSED', 'WIRE_VERSION')) this.#end(call, error)
      else this.#later(call, unreachable(call, error))
    }
  }

  #take(frame: Buffer, peer: Peer): void {
    let header: Header
    try {
      header = readHeader(frame)
    } catch {
      peer.link.close()
      return
    }
    const call = this.#calls.get(keyOf(header))
    // The answer to one that was given up, or that came before.
    if (call === undefined || call.message.kind !== header.kind || header.what === 'request') return
    if (header.what === 'reply') {
      this.#forget(call)
      call.give(bodyOf(frame))
      return
    }
    let error: OperationError
    try {
      error = decodeError(bodyOf(frame))
    } catch (unreadable) {
      error = asOperationError(unreadable)
    }
    if (error.code === 'SHARD_ELSEWHERE') call.target.isLost?.(peer.address)
    if (error.code === 'SHARD_ELSEWHERE' || saysLater(error)) this.#later(call, error)
    else this.#end(call, error)
  }

  #end(call: Call, error: OperationError): void {
    if (call.isOver) return
    this.#forget(call)
    call.fail(error)
  }

  #forget(call: Call): void {
    call.isOver = true
    this.#waiting.delete(call)
    if (call.sending === undefined) return
    const { id, isOwnSlot } = call.sending
    call.peer?.calls.delete(call)
    this.#calls.delete(keyOf(id))
    if (isOwnSlot) this.#giveSlot(id.slot)
  }

  #sweepLater(): void {
    if (this.#stopSweep !== undefined || this.#isClosed) return
    if (this.#calls.size === 0 && this.#waiting.size === 0) return
    const sweepAt = this.#now() + SWEEP_MS
    this.#stopSweep = this.#surroundings.clock.after(SWEEP_MS, () => {
      this.#stopSweep = undefined
      this.#sweep(stoodStillMs(this.#now(), sweepAt))
      this.#sweepLater()
    })
  }

  /** @param stoodMs time that is not to count */
  #sweep(stoodMs: number): void {
    const now = this.#now()
    for (const call of [...this.#waiting]) {
      call.endsAt += stoodMs
      if (now >= call.endsAt) this.#end(call, noSlot(call))
    }
    for (const call of [...this.#calls.values()]) {
      // Ended ones make room for others, which are not looked at here.
      if (call.isOver) continue
      call.endsAt += stoodMs
      call.dueAt += stoodMs
      if (now >= call.endsAt) this.#end(call, call.trouble ?? unreachable(call, undefined))
      else if (now >= call.dueAt) this.#sendAgain(call, now)
    }
  }
}

function noSlot(call: Call): OperationError {
  const detail = 'none of the requests that are under way came to an end'
  return new OperationError('CLUSTER_UNREACHABLE', `Cannot ask ${call.target.name} to ${call.message.name}: ${detail}`)
}

function unreachable(call: Call, error: Error | undefined): OperationError {
  const detail = error === undefined ? 'it does not answer' : error.message
  const message = `Cannot ask ${call.target.name} to ${call.message.name}: ${detail}`
  return new OperationError('CLUSTER_UNREACHABLE', message, { cause: error })
}

function aborted(call: Call): OperationError {
  return new OperationError('ABORTED', `Cannot ask ${call.target.name} to ${call.message.name}: it was given up`)
}

function asOperationError(error: unknown): OperationError {
  if (isOperationError(error)) return error
  throw error
}

/** 52 bits of chance, and never 0. */
export function randomClient({ chance }: Surroundings): number {
  const bytes = chance.bytes(7)
  return 1 + bytes.readUIntLE(0, 6) * 16 + ((bytes[6] ?? 0) & 15)
}
