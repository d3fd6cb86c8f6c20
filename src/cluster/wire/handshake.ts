/**
 * How two ends of a connection find out that they speak the same protocol and know the same secret, as pure functions of the bytes that
 * come: no socket, no clock, no chance in here. docs/formats/wire.md has the layout.
 *
 *   client                                         server
 *   preamble, nonce                      -->
 *                                        <--       preamble, nonce, proof of the server
 *   proof of the client, frames          -->
 *                                        <--       frames
 *
 * Without a secret there are no proofs. Each proof is an HMAC over all that both have said before, with a label of its own, so that none
 * can be sent back as the other's, nor be used in another connection; within TLS the session is part of it, so nobody can sit between two
 * sessions. The first five bytes of a preamble stay as they are in all versions, so that either side can say which one the other has.
 */
import { createHash, createHmac, hkdfSync, timingSafeEqual } from 'node:crypto'

import { OperationError } from '#base/errors.ts'

import { malformed } from './codec.ts'

export const MAGIC = Buffer.from('EIDR')
const PROTOCOL_VERSION = 1
const PREAMBLE_BYTES = 8
export const NONCE_BYTES = 32
const PROOF_BYTES = 32

const FLAG_SECRET = 1
const FLAG_TLS = 2
const NOTHING = Buffer.alloc(0)
/** In place of a proof: its sender has found that the secrets differ, and does not let the other have anything to guess it by. */
const NO_PROOF = Buffer.alloc(PROOF_BYTES)

/** What one end brings along. */
export interface HandshakeSide {
  /** Who is at the other end, for people. */
  readonly peer: string
  readonly secret: Buffer | undefined
  /** `NONCE_BYTES` that were never used. */
  readonly nonce: Buffer
  /** What both ends of the TLS session know and nobody else; undefined without TLS. */
  readonly binding: Buffer | undefined
}

/** The keys of the frames in each direction. */
export interface FrameKeys {
  readonly send: Buffer
  readonly receive: Buffer
}

/** First `send`, where there is something; then so many bytes are needed to go on. */
interface Step {
  readonly send?: Buffer
  readonly need: number
}

/** Gives the keys, where frames need any. Throws what the other end is to be let go for. */
export type Handshake = Generator<Step, FrameKeys | undefined, Buffer>

/** Of the end that made the connection. @throws OperationError from the generator: `WIRE_MALFORMED`, `WIRE_VERSION`, `WIRE_REFUSED` */
export function* clientHandshake(side: HandshakeSide): Handshake {
  const hello = Buffer.concat([ownPreamble(side), side.nonce])
  const theirs = yield { send: hello, need: PREAMBLE_BYTES }
  const mismatch = mismatchOf(side, theirs)
  if (mismatch !== undefined) throw mismatch
  const nonce = yield { need: NONCE_BYTES }
  if (side.secret === undefined) return undefined
  const transcript = Buffer.concat([hello, theirs, nonce, side.binding ?? NOTHING])
  const proof = yield { need: PROOF_BYTES }
  if (!timingSafeEqual(proof, proofOf(side.secret, 'server', transcript))) {
    yield { send: NO_PROOF, need: 0 }
    throw otherSecret(side)
  }
  yield { send: proofOf(side.secret, 'client', transcript), need: 0 }
  return keysOf(side, 'client', transcript)
}

/** Of the end that took the connection. @throws OperationError from the generator, as `clientHandshake` */
export function* serverHandshake(side: HandshakeSide): Handshake {
  const own = ownPreamble(side)
  const theirs = yield { need: PREAMBLE_BYTES }
  const mismatch = mismatchOf(side, theirs)
  if (mismatch !== undefined) {
    // What it says is the same in all versions, and says it all.
    yield { send: own, need: 0 }
    throw mismatch
  }
  const nonce = yield { need: NONCE_BYTES }
  const hello = Buffer.concat([own, side.nonce])
  if (side.secret === undefined) {
    yield { send: hello, need: 0 }
    return undefined
  }
  const transcript = Buffer.concat([theirs, nonce, hello, side.binding ?? NOTHING])
  const proof = yield {
    send: Buffer.concat([hello, proofOf(side.secret, 'server', transcript)]),
    need: PROOF_BYTES,
  }
  if (!timingSafeEqual(proof, proofOf(side.secret, 'client', transcript))) throw otherSecret(side)
  return keysOf(side, 'server', transcript)
}

/** The preamble of an end with a secret or none, within TLS or not. */
export function preambleOf(hasSecret: boolean, isTls: boolean): Buffer {
  const preamble = Buffer.alloc(PREAMBLE_BYTES)
  MAGIC.copy(preamble)
  preamble[4] = PROTOCOL_VERSION
  preamble[5] = (hasSecret ? FLAG_SECRET : 0) | (isTls ? FLAG_TLS : 0)
  return preamble
}

function ownPreamble({ secret, binding }: HandshakeSide): Buffer {
  return preambleOf(secret !== undefined, binding !== undefined)
}

function mismatchOf(side: HandshakeSide, preamble: Buffer): OperationError | undefined {
  const { peer, secret, binding } = side
  if (!preamble.subarray(0, MAGIC.length).equals(MAGIC)) return malformed(`${peer} is no process of a cluster`)
  const version = preamble[4]
  if (version !== PROTOCOL_VERSION)
    return new OperationError(
      'WIRE_VERSION',
      `Cannot talk to ${peer}: it speaks version ${version} of the protocol, and this side version ${PROTOCOL_VERSION}`,
    )
  const own = ownPreamble(side)
  if (own.equals(preamble)) return undefined
  const differing = (own[5] ?? 0) ^ (preamble[5] ?? 0)
  if ((differing & FLAG_TLS) !== 0)
    return binding === undefined
      ? refused(peer, 'it speaks TLS, and this side does not', 'Give this side the certificate of the cluster, too.')
      : refused(peer, 'it does not speak TLS, and this side does', 'Give the other side the key and certificate, too.')
  if ((differing & FLAG_SECRET) !== 0)
    return secret === undefined
      ? refused(peer, 'it has a secret, and this side has none')
      : refused(peer, 'it has no secret, and this side has one')
  return malformed(`the preamble of ${peer} has a part that this version does not know`)
}

function refused(peer: string, detail: string, hint?: string): OperationError {
  return new OperationError('WIRE_REFUSED', `Cannot talk to ${peer}: ${detail}`, hint === undefined ? {} : { hint })
}

function otherSecret({ peer, binding }: HandshakeSide): OperationError {
  return refused(peer, `it has another secret${binding === undefined ? '' : ', or somebody sits in between'}`)
}

type End = 'client' | 'server'

function proofOf(secret: Buffer, end: End, transcript: Buffer): Buffer {
  return createHmac('sha256', derived(secret, NOTHING, 'eider wire 1 proof'))
    .update(`${end} `)
    .update(transcript)
    .digest()
}

/** With TLS, its records need no other proof than their own. */
function keysOf({ secret, binding }: HandshakeSide, end: End, transcript: Buffer): FrameKeys | undefined {
  if (secret === undefined || binding !== undefined) return undefined
  const salt = createHash('sha256').update(transcript).digest()
  const client = derived(secret, salt, 'eider wire 1 frames of the client')
  const server = derived(secret, salt, 'eider wire 1 frames of the server')
  return end === 'client' ? { send: client, receive: server } : { send: server, receive: client }
}

function derived(secret: Buffer, salt: Buffer, use: string): Buffer {
  return Buffer.from(hkdfSync('sha256', secret, salt, use, 32))
}

/** A handshake that is fed with whatever comes. */
export class HandshakeRun {
  readonly #handshake: Handshake
  readonly #send: (bytes: Buffer) => void
  #need = 0
  #collected: Buffer = NOTHING
  #keys: FrameKeys | undefined

  /** Sends what goes first at once. */
  constructor(handshake: Handshake, send: (bytes: Buffer) => void) {
    this.#handshake = handshake
    this.#send = send
    this.#advance()
  }

  /** Once it is over. */
  get keys(): FrameKeys | undefined {
    return this.#keys
  }

  /** The next bytes. Gives those after the handshake once it is over, undefined before that. @throws what the handshake does */
  push(chunk: Buffer): Buffer | undefined {
    let rest = chunk
    for (;;) {
      const missing = this.#need - this.#collected.length
      const part = rest.subarray(0, missing)
      this.#collected = this.#collected.length === 0 ? part : Buffer.concat([this.#collected, part])
      rest = rest.subarray(part.length)
      if (part.length < missing) return undefined
      if (this.#advance()) return rest
    }
  }

  /** To the next step that needs bytes; whether it is over. */
  #advance(): boolean {
    for (;;) {
      const next = this.#handshake.next(this.#collected)
      this.#collected = NOTHING
      if (next.done === true) {
        this.#keys = next.value
        return true
      }
      if (next.value.send !== undefined) this.#send(next.value.send)
      this.#need = next.value.need
      if (this.#need > 0) return false
    }
  }
}
