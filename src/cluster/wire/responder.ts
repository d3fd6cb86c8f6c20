/**
 * The side of a process that answers: takes frames of requests from links, hands on those that are well formed, of a kind that is known and allowed, and
 * no more at a time than a bound; refuses all others by code, with nothing changed and the link kept. What is done with a request is the handler's.
 */
import { assert } from '#base/assert.ts'
import { isOperationError, OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import type { Link, LinkHandler } from '#cluster/surroundings.ts'

import { decode } from './codec.ts'
import {
  bodyOf,
  encodeRefusal,
  encodeReply,
  readHeader,
  replyFrame,
  replyHeader,
  WIRE_VERSION,
  type Header,
} from './envelope.ts'
import type { AnyMessage, Message, MessageTable } from './message.ts'

const log = logger('cluster/wire')

/** Requests that are being answered at a time. */
const REQUESTS_MAX = 16_384

/** A request that came in. It is answered once. */
export class Incoming {
  readonly header: Header
  readonly message: AnyMessage
  readonly frame: Buffer
  readonly #link: Link
  readonly #responder: Responder
  #isAnswered = false

  constructor(header: Header, message: AnyMessage, frame: Buffer, link: Link, responder: Responder) {
    this.header = header
    this.message = message
    this.frame = frame
    this.#link = link
    this.#responder = responder
  }

  /** Who asks, for people. */
  get peer(): string {
    return this.#link.peer
  }

  /** Whether it is one of these; then its body can be had. */
  is<Q, R>(message: Message<Q, R>): boolean {
    return this.message === message
  }

  /** What is asked. @throws OperationError `WIRE_MALFORMED` */
  read<Q, R>(message: Message<Q, R>): Q {
    assert(this.message === message, 'a request is read as what it is')
    return decode(message.request, bodyOf(this.frame))
  }

  reply<Q, R>(message: Message<Q, R>, value: R): void {
    assert(this.message === message, 'a request is answered by its own reply')
    this.#send(encodeReply(message.kind, this.header, message.reply, value))
  }

  /** With a reply that is bytes already. */
  replyBytes(body: Uint8Array): void {
    this.#send(replyFrame(this.header.kind, this.header, body))
  }

  /** The same for bytes that are too many to be copied, in memory that is used again: `taken` is called once, when it may be. */
  replyLent(taken: () => void, ...parts: readonly Uint8Array[]): void {
    const link = this.#link
    this.#answered()
    const header = replyHeader(this.header.kind, this.header)
    if (link.sendLent !== undefined) {
      link.sendLent(taken, header, ...parts)
      return
    }
    link.send(header, ...parts)
    taken()
  }

  refuse(error: unknown): void {
    this.#send(refusalOf(this.header, error, this.message.name))
  }

  #send(frame: Buffer): void {
    this.#answered()
    this.#link.send(frame)
  }

  #answered(): void {
    assert(!this.#isAnswered, 'a request is answered once')
    this.#isAnswered = true
    this.#responder.answered()
  }
}

/** Must answer each request, at once or later; what it throws is the answer. */
export type RequestHandler = (request: Incoming) => void

export class Responder {
  readonly #table: MessageTable
  readonly #handler: RequestHandler
  readonly #requestsMax: number
  #underWay = 0

  constructor(table: MessageTable, handler: RequestHandler, requestsMax = REQUESTS_MAX) {
    this.#table = table
    this.#handler = handler
    this.#requestsMax = requestsMax
  }

  /** For `Network.listen`. */
  readonly accept = (link: Link): LinkHandler => ({
    onFrame: (frame) => this.#take(frame, link),
    onClosed: () => undefined,
  })

  get underWay(): number {
    return this.#underWay
  }

  answered(): void {
    this.#underWay--
  }

  #take(frame: Buffer, link: Link): void {
    let header: Header
    try {
      header = readHeader(frame)
    } catch (error) {
      // Nobody could tell which request an answer would be to.
      log.warn({ err: error, peer: link.peer }, 'A frame was no message: the link is closed')
      link.close()
      return
    }
    const found = this.#table.find(header.kind)
    const refusal = this.#objection(header, found)
    if (refusal !== undefined || found === undefined) {
      link.send(refusalOf(header, refusal, 'answer'))
      return
    }
    this.#underWay++
    const request = new Incoming(header, found, frame, link, this)
    try {
      this.#handler(request)
    } catch (error) {
      request.refuse(error)
    }
  }

  #objection({ what, version, kind, isInternal }: Header, found: AnyMessage | undefined): OperationError | undefined {
    const action = `Cannot answer a message of kind ${kind}`
    if (version !== WIRE_VERSION) {
      return new OperationError('WIRE_VERSION', `${action}: its version is ${version}, here it is ${WIRE_VERSION}`)
    }
    if (what !== 'request') return new OperationError('WIRE_MALFORMED', `${action}: it is a ${what}`)
    if (found === undefined) {
      return new OperationError('WIRE_KIND_UNKNOWN', `${action}: ${this.#table.title} has none of that kind`)
    }
    if (found.isInternal && !isInternal) {
      return new OperationError('REQUEST_REFUSED', `Cannot answer "${found.name}": it is not for clients`)
    }
    if (this.#underWay < this.#requestsMax) return undefined
    return new OperationError('CLUSTER_BUSY', `Cannot answer "${found.name}": ${this.#underWay} requests are under way`)
  }
}

/** Others are told of operating errors; a defect of this program is for its own log, and ends it at the edge. */
function refusalOf(header: Header, error: unknown, action: string): Buffer {
  if (!isOperationError(error)) throw error
  log.debug({ err: error, action }, 'A request was refused')
  return encodeRefusal(header.kind, header, error)
}
