/**
 * What every frame of a request or an answer begins with, so that the two are told apart and found together:
 *
 *   u8 what (1 request, 2 reply, 3 refusal, 4 request of a process of the cluster)   u8 version   u16 kind   u8 shard
 *   u53 client   u16 slot   u53 sequence   body
 *
 * A request id is a client (random, once for each start), one of its slots, and the number of the request in that slot. A
 * client has one request under way in a slot, and sends it again under the same id until it has the answer: so who answers needs to
 * remember one answer for each slot, and knows a late copy of an older request by its number.
 */
import { OperationError, ERRORS, type ErrorCode } from '#base/errors.ts'

import { crc32c } from '#cluster/erasure/crc32c.ts'

import { ByteReader, ByteWriter, encode, malformed, struct, text, u53, written, type Codec } from './codec.ts'

export const WIRE_VERSION = 1
export const HEADER_BYTES = 23
/** Of one client. */
export const SLOTS_MAX = 0x1_0000

const REQUEST = 1
const REPLY = 2
const REFUSAL = 3
const INTERNAL = 4
const CODE_BYTES_MAX = 64
const MESSAGE_BYTES_MAX = 4096

export interface RequestId {
  readonly client: number
  readonly slot: number
  readonly sequence: number
}

export interface Header extends RequestId {
  readonly what: 'request' | 'reply' | 'refusal'
  /** Of a request: whether who sent it says that it is a process of the cluster. That keeps mistakes out; the secret keeps out others. */
  readonly isInternal: boolean
  readonly version: number
  readonly kind: number
  /** Of a request to a shard: which one. Otherwise 0. */
  readonly shard: number
}

const WHATS = [undefined, 'request', 'reply', 'refusal', 'request'] as const
const refusal = struct({ code: text(CODE_BYTES_MAX), message: text(MESSAGE_BYTES_MAX), hint: text(MESSAGE_BYTES_MAX) })

/** @throws OperationError `WIRE_MALFORMED` */
export function readHeader(frame: Buffer): Header {
  if (frame.length < HEADER_BYTES) throw malformed(`a frame of ${frame.length} bytes has no header`)
  const what = WHATS[frame[0] ?? 0]
  if (what === undefined) throw malformed(`a frame begins with ${frame[0]}`)
  const reader = new ByteReader(frame, 5)
  return {
    what,
    isInternal: frame[0] === INTERNAL,
    version: frame[1] ?? 0,
    kind: frame.readUInt16LE(2),
    shard: frame[4] ?? 0,
    client: u53.read(reader),
    slot: frame.readUInt16LE(reader.take(2)),
    sequence: u53.read(reader),
  }
}

/** A checksum of what a request asks for: its kind and its body, whoever asks. */
export function requestCheck(frame: Buffer): number {
  return crc32c(frame.subarray(HEADER_BYTES), crc32c(frame.subarray(2, 4)))
}

/** The body of a frame whose header was read. */
export function bodyOf(frame: Buffer): Buffer {
  return frame.subarray(HEADER_BYTES)
}

export interface RequestFacts extends RequestId {
  readonly kind: number
  readonly shard: number
  readonly isInternal: boolean
}

export function encodeRequest<T>(facts: RequestFacts, codec: Codec<T>, value: T): Buffer {
  return written((writer) => {
    writeHeader(writer, facts.isInternal ? INTERNAL : REQUEST, facts.kind, facts.shard, facts)
    codec.write(writer, value)
  })
}

export function encodeReply<T>(kind: number, id: RequestId, codec: Codec<T>, value: T): Buffer {
  return written((writer) => {
    writeHeader(writer, REPLY, kind, 0, id)
    codec.write(writer, value)
  })
}

/** The header alone of a request whose body goes beside it, in parts. */
export function requestHeader(facts: RequestFacts): Buffer {
  const writer = new ByteWriter(HEADER_BYTES)
  writeHeader(writer, facts.isInternal ? INTERNAL : REQUEST, facts.kind, facts.shard, facts)
  return writer.finish()
}

/** The header alone of a reply whose body goes beside it, in parts. */
export function replyHeader(kind: number, id: RequestId): Buffer {
  const writer = new ByteWriter(HEADER_BYTES)
  writeHeader(writer, REPLY, kind, 0, id)
  return writer.finish()
}

/** A reply whose body is bytes already. */
export function replyFrame(kind: number, id: RequestId, body: Uint8Array): Buffer {
  const writer = new ByteWriter(HEADER_BYTES + body.length)
  writeHeader(writer, REPLY, kind, 0, id)
  const at = writer.reserve(body.length)
  writer.bytes.set(body, at)
  return writer.finish()
}

export function encodeRefusal(kind: number, id: RequestId, error: OperationError): Buffer {
  return written((writer) => {
    writeHeader(writer, REFUSAL, kind, 0, id)
    refusal.write(writer, { code: error.code, message: cut(error.message), hint: cut(error.hint) })
  })
}

/** The body of a refusal. */
export function encodeError(error: OperationError): Buffer {
  return encode(refusal, { code: error.code, message: cut(error.message), hint: cut(error.hint) })
}

/** The error that a refusal tells. @throws OperationError `WIRE_MALFORMED` */
export function decodeError(body: Buffer): OperationError {
  const { code, message, hint } = refusal.read(new ByteReader(body))
  // Another release may have codes that this one does not know.
  if (!isErrorCode(code)) return new OperationError('WIRE_VERSION', `${message} (${code})`, { hint })
  return new OperationError(code, message, { hint })
}

/** Whether the same request may be done in a while: it is asked again under its id. */
export function saysLater({ code }: OperationError): boolean {
  return (
    code === 'CLUSTER_BUSY' || code === 'NAME_LOCKED' || code === 'CLUSTER_INCOMPLETE' || code === 'CLOCK_UNTRUSTED'
  )
}

function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(ERRORS, code)
}

/** Messages quote what came from outside. */
function cut(words: string): string {
  return words.length <= MESSAGE_BYTES_MAX / 4 ? words : words.slice(0, MESSAGE_BYTES_MAX / 4)
}

function writeHeader(to: ByteWriter, what: number, kind: number, shard: number, id: RequestId): void {
  const at = to.reserve(5)
  const { bytes } = to
  bytes[at] = what
  bytes[at + 1] = WIRE_VERSION
  bytes.writeUInt16LE(kind, at + 2)
  bytes[at + 4] = shard
  u53.write(to, id.client)
  const slotAt = to.reserve(2)
  to.bytes.writeUInt16LE(id.slot, slotAt)
  u53.write(to, id.sequence)
}
