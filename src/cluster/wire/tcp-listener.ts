/**
 * A port that takes connections: looks at the first bytes of each, and makes it a link, hands it to TLS, hands it on, or refuses it.
 *
 *   "EIDR"  a link            0x16 (TLS)  to TLS, where it is on, and from there with its own first bytes once more
 *   others  to who wants them; without TLS where that is on: refused, so that nothing is told in the clear
 */
import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { createServer as createTlsServer, type Server as TlsServer, TLSSocket } from 'node:tls'

import { OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'

import type { Address, Clock, Listener } from '#cluster/surroundings.ts'
import { malformed } from './codec.ts'
import { type Handshake, MAGIC, preambleOf } from './handshake.ts'
import { type HostPort, shownAddress } from './tcp-address.ts'
import { detailOf, logRefusal, OPENING_MS_MAX, type TcpLink } from './tcp-link.ts'
import { isOfNetwork, TLS_VERSION_MIN, type TlsOptions } from './tcp-tls.ts'

/** The type of the record that a TLS connection begins with; no text does. */
const TLS_HANDSHAKE = 0x16
/** As many connections as a storm of clients makes before this process has a turn. */
const BACKLOG = 1024

const log = logger('cluster/wire')

export interface TcpListenerOptions {
  readonly clock: Clock
  readonly tls: TlsOptions | undefined
  readonly foreign: ((socket: Socket) => void) | undefined
  readonly linkOf: (peer: string, onUnused: (error?: OperationError) => void) => TcpLink
  readonly handshakeOf: (peer: string, socket: Socket) => Handshake
}

export class TcpListener implements Listener {
  readonly #options: TcpListenerOptions
  readonly #server: Server
  readonly #tlsServer: TlsServer | undefined
  /** Connections that are no link: not yet, or those of others. */
  readonly #others = new Set<Socket>()
  /** Those on their way through TLS, by their peers. */
  readonly #securing = new Map<string, Socket>()
  readonly #links = new Set<TcpLink>()
  #address = ''
  #closed: Promise<unknown> | undefined

  constructor(options: TcpListenerOptions) {
    this.#options = options
    this.#server = createServer({ noDelay: true }, (socket) => this.#arrived(socket))
    const { tls } = options
    if (tls === undefined) return
    this.#tlsServer = createTlsServer({ ...tls, minVersion: TLS_VERSION_MIN, handshakeTimeout: OPENING_MS_MAX })
    this.#tlsServer.on('secureConnection', (socket) => {
      this.#securing.delete(peerOf(socket))
      this.#arrived(socket)
    })
    this.#tlsServer.on('tlsClientError', (error, socket) => {
      const message = `Cannot talk to ${peerOf(socket)}: ${error.message}`
      const code = isOfNetwork(error) ? 'CLUSTER_UNREACHABLE' : 'WIRE_REFUSED'
      logRefusal(new OperationError(code, message, { cause: error }))
      socket.destroy()
    })
  }

  get address(): Address {
    return this.#address
  }

  /** @throws OperationError `ADDRESS_UNUSABLE` */
  async open(address: Address, { host, port }: HostPort): Promise<void> {
    try {
      this.#server.listen({ host, port, backlog: BACKLOG })
      await once(this.#server, 'listening')
    } catch (error) {
      throw new OperationError('ADDRESS_UNUSABLE', `Cannot listen at ${address}: ${detailOf(error)}`, { cause: error })
    }
    // Out of file descriptors, for instance: those who are connected are served on.
    this.#server.on('error', (error) => log.error({ err: error }, `cannot take a connection at ${this.#address}`))
    const chosen = this.#server.address()
    this.#address = shownAddress(host, typeof chosen === 'object' && chosen !== null ? chosen.port : port)
  }

  async close(): Promise<void> {
    this.#closed ??= this.#close()
    await this.#closed
  }

  async #close(): Promise<void> {
    const closed = once(this.#server, 'close')
    this.#server.close()
    for (const link of this.#links) link.close()
    for (const socket of [...this.#others, ...this.#securing.values()]) socket.destroy()
    await closed
  }

  /** A connection of which nothing was read: plain, or what has come out of TLS. */
  #arrived(socket: Socket): void {
    this.#others.add(socket)
    // Once closed, who sees to it is no more than a set of sockets to let go of.
    socket.once('close', () => this.#others.delete(socket))
    const cancel = this.#options.clock.after(OPENING_MS_MAX, () => socket.destroy())
    const onGone = (): void => cancel()
    const onError = (error: Error): void => log.debug({ err: error }, `lost ${peerOf(socket)}`)
    let first: Buffer = Buffer.alloc(0)
    const onData = (chunk: Buffer): void => {
      first = first.length === 0 ? chunk : Buffer.concat([first, chunk])
      const count = Math.min(first.length, MAGIC.length)
      const isOurs = first.subarray(0, count).equals(MAGIC.subarray(0, count))
      if (isOurs && count < MAGIC.length) return
      cancel()
      socket.pause()
      socket.off('data', onData).off('close', onGone).off('error', onError)
      this.#told(socket, first, isOurs)
    }
    socket.on('data', onData).once('close', onGone).on('error', onError)
  }

  #told(socket: Socket, first: Buffer, isOurs: boolean): void {
    const { foreign } = this.#options
    const wantsTls = !(socket instanceof TLSSocket) && first[0] === TLS_HANDSHAKE
    const lacksTls = !(socket instanceof TLSSocket) && this.#tlsServer !== undefined
    const peer = peerOf(socket)
    if (wantsTls && this.#tlsServer !== undefined) {
      this.#others.delete(socket)
      this.#securing.set(peer, socket)
      socket.once('close', () => this.#securing.delete(peer))
      socket.unshift(first)
      this.#tlsServer.emit('connection', socket)
    } else if (lacksTls) {
      this.#refuse(socket, refused(peer, 'it does not speak TLS, and this side does'))
    } else if (wantsTls) {
      this.#refuse(socket, refused(peer, 'it speaks TLS, and this side does not'))
    } else if (isOurs) {
      this.#link(socket, peer, first)
    } else if (foreign === undefined) {
      this.#refuse(socket, malformed(`${peer} speaks another protocol`))
    } else {
      // Of HTTP, whoever has asked may close that half, and still gets the answer.
      socket.allowHalfOpen = true
      socket.unshift(first)
      foreign(socket)
      // Who listens for its data does not set a socket going that was stopped by somebody else.
      socket.resume()
    }
  }

  #link(socket: Socket, peer: string, first: Buffer): void {
    const link = this.#options.linkOf(peer, (error) => {
      if (error !== undefined) logRefusal(error)
    })
    this.#others.delete(socket)
    this.#links.add(link)
    socket.once('close', () => this.#links.delete(link))
    link.attach(socket)
    link.begin(this.#options.handshakeOf(peer, socket), first)
  }

  /** Says who is here: to one of ours without TLS what it lacks, to a client of TLS that this is none instead of a lost connection. */
  #refuse(socket: Socket, error: OperationError): void {
    logRefusal(error)
    socket.on('error', (lost) => log.debug({ err: lost }, `lost ${peerOf(socket)}`))
    socket.end(preambleOf(false, this.#tlsServer !== undefined))
    socket.resume()
    const cancel = this.#options.clock.after(OPENING_MS_MAX, () => socket.destroy())
    socket.once('close', cancel)
  }
}

function peerOf({ remoteAddress, remotePort }: Socket): string {
  if (remoteAddress === undefined) return 'a peer that is gone'
  const ip = remoteAddress.startsWith('::ffff:') ? remoteAddress.slice(7) : remoteAddress
  return shownAddress(ip, remotePort ?? 0)
}

function refused(peer: string, detail: string): OperationError {
  return new OperationError('WIRE_REFUSED', `Cannot talk to ${peer}: ${detail}`, {
    hint: 'Give every process and client of the cluster the same options of TLS.',
  })
}
