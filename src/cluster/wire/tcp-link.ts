/**
 * One connection that carries frames: a socket (TCP, or TLS over it), its handshake, what waits to be sent, and how it ends.
 *
 *   opening --handshake done--> standing --close, error, silence, end of the other--> closed
 *      \------------------------ any failure --------------------------------------->/
 *
 * Invariants: the handler hears `onClosed` once, from a turn of its own, and no frame after it; what is sent while the link is opening
 * goes out, in order, when it stands; what waits stays within a bound, beyond which a peer that does not read is let go; a peer that
 * says nothing is let go after three ticks of the clock. Ticks are counted instead of times compared: a process that stood still for a
 * minute first reads what has come meanwhile, and does not drop all its peers.
 */
import type { Socket } from 'node:net'

import { ERRORS, OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'

import type { Cancel, Clock, Link, LinkHandler } from '#cluster/surroundings.ts'
import { farewellOf, saidBy } from './farewell.ts'
import { FrameBatch } from './frame-batch.ts'
import { FAREWELL, type FrameKind, FrameReader, MESSAGE, PING } from './frame-reader.ts'
import { FrameSeal } from './frame-seal.ts'
import { type FrameKeys, type Handshake, HandshakeRun } from './handshake.ts'

/** Until when a link has to stand: a name looked up, a connection made, TLS and the handshake done. */
export const OPENING_MS_MAX = 4000
/** A link that has sent nothing for that long sends a ping. */
export const TICK_MS = 10_000
/** So many ticks without a byte of the other end, and it counts as gone. */
export const SILENT_TICKS_MAX = 3
/** How long a closed link waits for the other end to take the last bytes. */
const LINGER_MS_MAX = 2000
/** What waits in a turn beyond this is written at once, so that the kernel sends while more is made. */
const BATCH_BYTES_MAX = 1024 * 1024
/** What is read at once where no large frame is coming. */
const READ_BYTES = 64 * 1024
/** A read below this is copied out of the buffer, so that its frames do not hold on to all of it. */
const KEPT_BYTES_MIN = READ_BYTES / 2

const log = logger('cluster/wire')

export interface TcpLinkOptions {
  /** Who is at the other end, for people. */
  readonly peer: string
  readonly clock: Clock
  readonly frameBytesMax: number
  readonly waitingBytesMax: number
  /** Called when the link can be used, for who gets its frames; where it never can, that is not called. */
  readonly accept: (link: Link) => LinkHandler
  /** Where the link is closed before it was accepted; with the reason where it was not `close`. */
  readonly onUnused: (error?: OperationError) => void
}

export class TcpLink implements Link {
  readonly peer: string
  readonly #options: TcpLinkOptions
  readonly #batch = new FrameBatch()
  #phase: 'opening' | 'standing' | 'closed' = 'opening'
  #socket: Socket | undefined
  #handshake: HandshakeRun | undefined
  #handler: LinkHandler | undefined
  #reader: FrameReader | undefined
  #sendSeal: FrameSeal | undefined
  #cancelTimer: Cancel
  #isFlushDue = false
  /** Of who lent memory for frames that wait. */
  #onTaken: (() => void)[] = []
  #readBuffer: Buffer | undefined
  #isRoom = false
  #hasHeard = false
  #hasSpoken = false
  #silentTicks = 0

  constructor(options: TcpLinkOptions) {
    this.#options = options
    this.peer = options.peer
    this.#cancelTimer = options.clock.after(OPENING_MS_MAX, () => {
      this.fail(this.#unreachable(`it did not answer within ${OPENING_MS_MAX / 1000} s`))
    })
  }

  get bytesWaiting(): number {
    if (this.#phase === 'closed') return 0
    return this.#batch.bytes + (this.#phase === 'standing' ? (this.#socket?.writableLength ?? 0) : 0)
  }

  send(...parts: readonly Uint8Array[]): void {
    this.#send(parts, undefined)
  }

  sendLent(taken: () => void, ...parts: readonly Uint8Array[]): void {
    this.#send(parts, taken)
  }

  #send(parts: readonly Uint8Array[], taken: (() => void) | undefined): void {
    if (this.#phase === 'closed') {
      taken?.()
      return
    }
    // Asked before the frame is added, so that one frame goes out whatever its size.
    const waiting = this.bytesWaiting
    if (waiting > this.#options.waitingBytesMax) {
      this.fail(new OperationError('CLUSTER_BUSY', `Cannot send to ${this.peer}: it has not taken ${waiting} bytes`))
      taken?.()
      return
    }
    this.#batch.add(MESSAGE, parts)
    if (taken !== undefined) this.#onTaken.push(taken)
    this.#flushSoon()
  }

  close(): void {
    this.#end(undefined, 'linger')
  }

  /** Lets go of the link at once, for that reason. */
  fail(error: OperationError): void {
    this.#end(error, 'destroy')
  }

  /** The socket of the link from here on, which may still be connecting. */
  attach(socket: Socket): void {
    if (this.#phase === 'closed') {
      socket.destroy()
      return
    }
    this.#socket = socket
    let cause: unknown
    socket.on('error', (error) => {
      cause = error
    })
    socket.on('end', () => {
      this.fail(this.#unreachable('it has closed the connection'))
      socket.destroy()
    })
    socket.on('close', () => {
      this.fail(this.#unreachable(cause === undefined ? 'the connection was lost' : detailOf(cause), cause))
    })
  }

  /** On a socket that is attached and connected. @param first what was already read from it */
  begin(handshake: Handshake, first?: Buffer): void {
    const socket = this.#socket
    if (socket === undefined || this.#phase === 'closed') return
    this.#handshake = new HandshakeRun(handshake, (bytes) => void socket.write(bytes))
    if (first !== undefined) this.#onData(first)
    socket.on('data', (chunk: Buffer) => this.#onData(chunk))
    socket.resume()
  }

  /** Where a socket that can do so reads its next bytes into, for `hasRead`. */
  readBuffer(): Buffer {
    const room = this.#reader?.room
    this.#isRoom = room !== undefined
    return room ?? (this.#readBuffer ??= Buffer.allocUnsafeSlow(READ_BYTES))
  }

  /** So many bytes were read into the buffer that `readBuffer` gave last. */
  hasRead(count: number, buffer: Buffer): void {
    if (this.#isRoom) {
      this.#onBytes(() => this.#reader?.took(count))
    } else if (count < KEPT_BYTES_MIN) {
      this.#onData(Buffer.from(buffer.subarray(0, count)))
    } else {
      // Unless all of it was copied to where it belongs, the next bytes need another buffer.
      this.#readBuffer = undefined
      if (this.#onData(buffer.subarray(0, count))) this.#readBuffer = buffer
    }
  }

  #unreachable(detail: string, cause?: unknown): OperationError {
    const what = this.#phase === 'opening' ? `reach ${this.peer}` : `talk to ${this.peer} any more`
    return new OperationError('CLUSTER_UNREACHABLE', `Cannot ${what}: ${detail}`, cause === undefined ? {} : { cause })
  }

  /** Whether the bytes may be used on: no frame lies in them. */
  #onData(chunk: Buffer): boolean {
    let isKept = true
    this.#onBytes(() => {
      if (this.#reader !== undefined) {
        isKept = this.#reader.push(chunk)
        return
      }
      const rest = this.#handshake?.push(chunk)
      if (rest === undefined) return
      const reader = this.#stand(this.#handshake?.keys)
      if (rest.length > 0) reader.push(rest)
    })
    return !isKept
  }

  #onBytes(take: () => void): void {
    // What comes after the end is read and thrown away: a socket with unread bytes is reset, and the peer would lose our last words.
    if (this.#phase === 'closed') return
    this.#hasHeard = true
    try {
      take()
    } catch (error) {
      if (!(error instanceof OperationError)) throw error
      this.#refuse(error)
    }
  }

  #stand(keys: FrameKeys | undefined): FrameReader {
    const { clock, frameBytesMax, accept } = this.#options
    this.#handshake = undefined
    this.#sendSeal = keys === undefined ? undefined : new FrameSeal(keys.send)
    const reader = new FrameReader({
      frameBytesMax,
      seal: keys === undefined ? undefined : new FrameSeal(keys.receive),
      memory: {
        take: (bytes) => this.#handler?.memory?.take(bytes) ?? Buffer.allocUnsafe(bytes),
        give: (buffer) => this.#handler?.memory?.give(buffer),
      },
      onFrame: (kind, frame) => this.#onFrame(kind, frame),
    })
    this.#reader = reader
    this.#phase = 'standing'
    this.#cancelTimer()
    this.#cancelTimer = clock.after(TICK_MS, () => this.#tick())
    this.#flush()
    this.#handler = accept(this)
    return reader
  }

  #onFrame(kind: FrameKind, frame: Buffer): void {
    if (kind === MESSAGE) this.#handler?.onFrame(frame)
    else if (kind === FAREWELL) this.#end(saidBy(this.peer, frame), 'destroy')
  }

  #tick(): void {
    this.#silentTicks = this.#hasHeard ? 0 : this.#silentTicks + 1
    if (this.#silentTicks >= SILENT_TICKS_MAX) {
      this.fail(this.#unreachable(`nothing was heard of it for ${(SILENT_TICKS_MAX * TICK_MS) / 1000} s`))
      return
    }
    // What waits says as much as a ping once it is taken, and pings do not pile up behind it.
    if (!this.#hasSpoken && this.bytesWaiting === 0) {
      this.#batch.add(PING, [])
      this.#flush()
    }
    this.#hasHeard = false
    this.#hasSpoken = false
    this.#cancelTimer = this.#options.clock.after(TICK_MS, () => this.#tick())
  }

  #flushSoon(): void {
    if (this.#phase !== 'standing') return
    if (this.#batch.bytes >= BATCH_BYTES_MAX) {
      this.#flush()
      return
    }
    if (this.#isFlushDue) return
    this.#isFlushDue = true
    this.#options.clock.soon(() => {
      this.#isFlushDue = false
      this.#flush()
    })
  }

  #flush(): void {
    const socket = this.#socket
    if (this.#phase !== 'standing' || this.#batch.bytes === 0 || socket === undefined) return
    this.#hasSpoken = true
    const buffers = this.#batch.take(this.#sendSeal)
    const onTaken = this.#onTaken
    const [only] = buffers
    if (buffers.length === 1 && only !== undefined && onTaken.length === 0) {
      socket.write(only)
      return
    }
    this.#onTaken = []
    socket.cork()
    for (const [index, buffer] of buffers.entries()) {
      if (index < buffers.length - 1 || onTaken.length === 0) socket.write(buffer)
      // Also where it fails: then the socket is closed, and reads no memory any more.
      else socket.write(buffer, () => callAll(onTaken))
    }
    socket.uncork()
  }

  /** Lets go of a peer that has sent what cannot be, and tells it why. */
  #refuse(error: OperationError): void {
    if (this.#phase === 'standing') this.#batch.add(FAREWELL, [farewellOf(error)])
    this.#end(error, 'linger')
  }

  #end(error: OperationError | undefined, manner: 'linger' | 'destroy'): void {
    if (this.#phase === 'closed') return
    if (manner === 'linger') this.#flush()
    const hasStood = this.#phase === 'standing'
    this.#phase = 'closed'
    this.#cancelTimer()
    const giveBack = this.#reader?.stop()
    this.#batch.clear()
    callAll(this.#onTaken.splice(0))
    const { clock, onUnused } = this.#options
    clock.soon(() => {
      if (hasStood) this.#handler?.onClosed(error)
      else onUnused(error)
    })
    const socket = this.#socket
    if (socket === undefined) return
    // Until then the next bytes may be read into the frame that was coming.
    if (giveBack !== undefined && socket.closed) giveBack()
    else if (giveBack !== undefined) socket.once('close', giveBack)
    // Before the handshake there is something to say only if it has failed.
    if (manner === 'destroy' || (!hasStood && error === undefined)) {
      socket.destroy()
      return
    }
    socket.end()
    const cancel = clock.after(LINGER_MS_MAX, () => socket.destroy())
    socket.once('close', cancel)
  }
}

function callAll(actions: readonly (() => void)[]): void {
  for (const action of actions) action()
}

/** What a socket says; of several addresses that were tried, the first. */
export function detailOf(error: unknown): string {
  const first: unknown = error instanceof AggregateError ? error.errors[0] : error
  return first instanceof Error ? first.message : String(first)
}

/** Says in the log why a connection was not taken on, as loud as the code is. */
export function logRefusal(error: OperationError): void {
  // Whoever looks whether a port is open goes away like that, every few seconds.
  const level = error.code === 'CLUSTER_UNREACHABLE' ? 'debug' : ERRORS[error.code].level
  log[level]({ err: error, code: error.code }, error.message)
}
