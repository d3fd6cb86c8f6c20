/**
 * The network of the real world: frames over TCP, within TLS where that is asked for. Makes the connections and takes them; what
 * goes on in one is `TcpLink`'s.
 *
 * Without a secret it speaks with this machine alone. A port can serve something else, too: a connection that begins with other bytes
 * than ours is handed on.
 */
import { lookup } from 'node:dns/promises'
import { connect, isIP, type OnReadOpts, type Socket } from 'node:net'
import { connect as connectTls, type ConnectionOptions, type SecureContext, TLSSocket } from 'node:tls'

import { assert } from '#base/assert.ts'
import { OperationError } from '#base/errors.ts'

import type { Address, Chance, Clock, Link, LinkHandler, Listener, Network } from '#cluster/surroundings.ts'
import { FRAME_BYTES_LIMIT, FRAME_BYTES_MAX } from './frame-reader.ts'
import { clientHandshake, type HandshakeSide, NONCE_BYTES, serverHandshake } from './handshake.ts'
import { type HostPort, isLoopback, parsedAddress } from './tcp-address.ts'
import { detailOf, TcpLink } from './tcp-link.ts'
import { TcpListener } from './tcp-listener.ts'
import { bindingOf, isOfNetwork, secureContextOf, type TlsOptions } from './tcp-tls.ts'

/** Two of the largest frames and more: beyond that a peer does not read. */
const WAITING_BYTES_MAX = 256 * 1024 * 1024

export interface TcpNetworkOptions {
  /** What all processes of the cluster share; needed for other machines. */
  readonly secret?: Buffer
  readonly tls?: TlsOptions
  /**
   * Gets the connections to a listener that begin with other bytes than ours, with those bytes in them again, within TLS where that is
   * on: `(socket) => httpServer.emit('connection', socket)`, and has to listen for their data when it returns. They end with the
   * listener. Without it they are refused.
   */
  readonly foreign?: (socket: Socket) => void
  readonly frameBytesMax?: number
  readonly waitingBytesMax?: number
}

export class TcpNetwork implements Network {
  readonly #clock: Clock
  readonly #chance: Chance
  readonly #options: TcpNetworkOptions
  readonly #context: SecureContext | undefined
  readonly #limits: { readonly frameBytesMax: number; readonly waitingBytesMax: number }

  /** @throws OperationError `USAGE` for a key or certificate that cannot be used */
  constructor({ clock, chance }: { readonly clock: Clock; readonly chance: Chance }, options: TcpNetworkOptions = {}) {
    const { tls, frameBytesMax = FRAME_BYTES_MAX, waitingBytesMax = WAITING_BYTES_MAX } = options
    assert(frameBytesMax <= FRAME_BYTES_LIMIT, 'the length of a frame has 28 bits')
    this.#clock = clock
    this.#chance = chance
    this.#options = options
    this.#limits = { frameBytesMax, waitingBytesMax }
    this.#context = tls === undefined ? undefined : secureContextOf(tls)
  }

  async listen(address: Address, accept: (link: Link) => LinkHandler): Promise<Listener> {
    const place = parsedAddress(address)
    const { secret, tls, foreign } = this.#options
    if (tls !== undefined && (tls.key === undefined || tls.cert === undefined))
      throw new OperationError('USAGE', `Cannot listen at ${address}: TLS needs a private key and its certificate`)
    if (secret === undefined) await expectLoopback(address, place)
    const listener = new TcpListener({
      clock: this.#clock,
      tls,
      foreign,
      linkOf: (peer, onUnused) => new TcpLink({ peer, clock: this.#clock, ...this.#limits, accept, onUnused }),
      handshakeOf: (peer, socket) => serverHandshake(this.#sideOf(peer, socket)),
    })
    await listener.open(address, place)
    return listener
  }

  connect(address: Address, handler: LinkHandler): Link {
    const link = new TcpLink({
      peer: address,
      clock: this.#clock,
      ...this.#limits,
      accept: () => handler,
      onUnused: (error) => handler.onClosed(error),
    })
    try {
      const place = parsedAddress(address)
      if (this.#options.secret === undefined && isIP(place.host) !== 0 && !isLoopback(place.host))
        throw secretMissing(`connect to ${address}`)
      this.#open(link, place)
    } catch (error) {
      if (!(error instanceof OperationError)) throw error
      link.fail(error)
    }
    return link
  }

  #open(link: TcpLink, { host, port }: HostPort): void {
    const { secret } = this.#options
    const to = { host, port }
    const socket =
      this.#context === undefined ? connect({ ...to, onread: readInto(link) }) : connectTls(this.#secured(to))
    let hasTcp = false
    socket.once('connect', () => {
      hasTcp = true
      socket.setNoDelay(true)
      const { remoteAddress } = socket
      // A name tells only now where it leads.
      if (secret === undefined && remoteAddress !== undefined && !isLoopback(remoteAddress))
        link.fail(secretMissing(`connect to ${link.peer}`))
    })
    if (socket instanceof TLSSocket) {
      let isSecure = false
      socket.once('secureConnect', () => {
        isSecure = true
      })
      // Before the link's own listener, which takes any error for a lost connection.
      socket.on('error', (error) => {
        if (hasTcp && !isSecure && !isOfNetwork(error)) link.fail(untrusted(link.peer, error))
      })
    }
    link.attach(socket)
    socket.once(socket instanceof TLSSocket ? 'secureConnect' : 'connect', () => {
      link.begin(clientHandshake(this.#sideOf(link.peer, socket)))
    })
  }

  #secured(to: HostPort): ConnectionOptions {
    assert(this.#context !== undefined, 'there is TLS')
    // An IP address is no server name, and is looked for among the addresses of the certificate.
    const name = isIP(to.host) === 0 ? { servername: to.host } : {}
    return { ...to, ...name, secureContext: this.#context }
  }

  #sideOf(peer: string, socket: Socket): HandshakeSide {
    return {
      peer,
      secret: this.#options.secret,
      nonce: this.#chance.bytes(NONCE_BYTES),
      binding: socket instanceof TLSSocket ? bindingOf(socket) : undefined,
    }
  }
}

/** For a plain socket of ours; those of a server cannot be told where to read to. */
function readInto(link: TcpLink): OnReadOpts {
  return {
    buffer: () => link.readBuffer(),
    callback(count, buffer) {
      link.hasRead(count, Buffer.from(buffer.buffer, buffer.byteOffset, buffer.byteLength))
      return true
    },
  }
}

async function expectLoopback(address: Address, { host }: HostPort): Promise<void> {
  let ips: readonly string[]
  try {
    ips = isIP(host) === 0 ? (await lookup(host, { all: true })).map((found) => found.address) : [host]
  } catch (error) {
    throw new OperationError('ADDRESS_UNUSABLE', `Cannot listen at ${address}: ${detailOf(error)}`, { cause: error })
  }
  if (!ips.every(isLoopback)) throw secretMissing(`listen at ${address}`)
}

function secretMissing(what: string): OperationError {
  return new OperationError('WIRE_REFUSED', `Cannot ${what}: other machines can reach it, and there is no secret`, {
    hint: 'Give every process and client of the cluster the same secret, or stay on 127.0.0.1.',
  })
}

function untrusted(peer: string, error: Error): OperationError {
  return new OperationError('WIRE_REFUSED', `Cannot trust ${peer}: ${error.message}`, {
    cause: error,
    hint: 'Both sides need TLS, and the certificate of the other has to name its host and be signed by the authority given here.',
  })
}
