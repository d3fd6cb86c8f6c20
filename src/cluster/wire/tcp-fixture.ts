/**
 * What the tests of the network share: a clock that stands still until it is told to go on, handlers that remember, and peers that speak
 * the protocol by hand, so that they can break it.
 */
import assert from 'node:assert/strict'
import { randomBytes, randomInt } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { setImmediate as nextTurn } from 'node:timers/promises'

import { setLogLevel } from '#base/log.ts'
import type { Cancel, Chance, Clock, LinkHandler } from '#cluster/surroundings.ts'

import { FrameBatch } from './frame-batch.ts'
import { FRAME_BYTES_MAX, type FrameKind, FrameReader } from './frame-reader.ts'
import { FrameSeal } from './frame-seal.ts'
import { clientHandshake, type Handshake, HandshakeRun, serverHandshake } from './handshake.ts'
import { TcpNetwork, type TcpNetworkOptions } from './tcp-network.ts'

export const SECRET = Buffer.from('a secret for these tests alone')

/** Each refusal that is tested is one that is logged. */
setLogLevel('silent')

export class StandingClock implements Clock {
  #nowMs = 0
  readonly #timers = new Set<{ readonly atMs: number; readonly action: () => void }>()

  nowMs(): number {
    return this.#nowMs
  }
  monotonicMs(): number {
    return this.#nowMs
  }
  sleptMs(): number {
    return 0
  }
  after(ms: number, action: () => void): Cancel {
    const timer = { atMs: this.#nowMs + ms, action }
    this.#timers.add(timer)
    return () => void this.#timers.delete(timer)
  }
  soon(action: () => void): void {
    setImmediate(action)
  }

  get timers(): number {
    return this.#timers.size
  }

  /** Fires what is due by then, the earliest first; what that sets anew waits for the next call. */
  forward(ms: number): void {
    this.#nowMs += ms
    const due = [...this.#timers].filter((timer) => timer.atMs <= this.#nowMs).toSorted((a, b) => a.atMs - b.atMs)
    for (const timer of due) if (this.#timers.delete(timer)) timer.action()
  }
}

const chance: Chance = { bytes: (count) => randomBytes(count), below: (below) => randomInt(below) }

export function network(options: TcpNetworkOptions = {}, clock: Clock = new StandingClock()): TcpNetwork {
  return new TcpNetwork({ clock, chance }, options)
}

/** A handler that keeps what it is told. */
export class Recorder implements LinkHandler {
  readonly frames: Buffer[] = []
  readonly endings: (Error | undefined)[] = []
  #looked: (() => void)[] = []

  onFrame(frame: Buffer): void {
    this.frames.push(frame)
    this.#changed()
  }
  onClosed(error?: Error): void {
    this.endings.push(error)
    this.#changed()
  }

  /** Once there are so many frames. */
  async got(count: number): Promise<readonly Buffer[]> {
    await this.#until(() => this.frames.length >= count || this.endings.length > 0)
    if (this.frames.length < count) throw this.endings[0] ?? new Error('the link was closed')
    return this.frames
  }

  /** Once it is closed: the reason. */
  async closed(): Promise<Error | undefined> {
    await this.#until(() => this.endings.length > 0)
    return this.endings[0]
  }

  /** Once it is closed: the code of the reason. */
  async code(): Promise<unknown> {
    return codeOf(await this.closed())
  }

  async #until(holds: () => boolean): Promise<void> {
    while (!holds()) await new Promise<void>((resolve) => this.#looked.push(resolve))
  }
  #changed(): void {
    const looked = this.#looked
    this.#looked = []
    for (const one of looked) one()
  }
}

export function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined
}

/** Once `holds`, asked each turn; the test's own time-out is what ends it where it never does. */
export async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await nextTurn()
}

/** The protocol by hand, on a socket. */
export class RawPeer {
  readonly socket: Socket
  readonly frames: { readonly kind: FrameKind; readonly frame: Buffer }[] = []
  /** All that has come, and was not read by the handshake. */
  received = 0
  isEnded = false
  #keys: HandshakeRun | undefined
  #reader: FrameReader | undefined
  #seal: FrameSeal | undefined

  constructor(socket: Socket) {
    this.socket = socket
    socket.on('error', () => undefined)
    socket.on('end', () => {
      this.isEnded = true
    })
  }

  static async to(address: string): Promise<RawPeer> {
    const at = address.lastIndexOf(':')
    const socket = connect({ host: address.slice(0, at).replaceAll(/[[\]]/g, ''), port: Number(address.slice(at + 1)) })
    const peer = new RawPeer(socket)
    await once(socket, 'connect')
    return peer
  }

  /** Shakes hands, and reads frames from there on. */
  async stand(end: 'client' | 'server', secret?: Buffer): Promise<void> {
    const side = { peer: 'the tested one', secret, nonce: chance.bytes(32), binding: undefined }
    const handshake: Handshake = end === 'client' ? clientHandshake(side) : serverHandshake(side)
    const run = new HandshakeRun(handshake, (bytes) => this.socket.write(bytes))
    this.#keys = run
    this.socket.on('data', (chunk: Buffer) => {
      this.received += chunk.length
      if (this.#reader !== undefined) this.#reader.push(chunk)
      else {
        const rest = run.push(chunk)
        if (rest === undefined) return
        const { keys } = run
        this.#seal = keys && new FrameSeal(keys.send)
        this.#reader = new FrameReader({
          frameBytesMax: FRAME_BYTES_MAX,
          seal: keys && new FrameSeal(keys.receive),
          onFrame: (kind, frame) => this.frames.push({ kind, frame }),
        })
        this.#reader.push(rest)
      }
    })
    await until(() => this.#reader !== undefined || this.socket.destroyed)
    assert.ok(this.#reader !== undefined, 'the handshake was done')
  }

  send(kind: FrameKind, ...parts: Buffer[]): void {
    const batch = new FrameBatch()
    batch.add(kind, parts)
    for (const buffer of batch.take(this.#seal)) this.socket.write(buffer)
  }

  get hasKeys(): boolean {
    return this.#keys?.keys !== undefined
  }
}

/** A server of plain connections. */
export class RawServer {
  readonly server: Server
  readonly peers: RawPeer[] = []

  private constructor(onPeer: (peer: RawPeer) => void) {
    this.server = createServer((socket) => {
      const peer = new RawPeer(socket)
      this.peers.push(peer)
      onPeer(peer)
    })
  }

  static async open(onPeer: (peer: RawPeer) => void): Promise<RawServer> {
    const raw = new RawServer(onPeer)
    raw.server.listen(0, '127.0.0.1')
    await once(raw.server, 'listening')
    return raw
  }

  get address(): string {
    return `127.0.0.1:${(this.server.address() as AddressInfo).port}`
  }

  async close(): Promise<void> {
    for (const peer of this.peers) peer.socket.destroy()
    this.server.close()
    await once(this.server, 'close')
  }
}

/** A frame of random bytes. */
export function frameOf(length: number): Buffer {
  return randomBytes(length)
}
