/** HTTP spoken byte by byte over a socket, for requests that no client library would send. */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'

export interface RawAnswer {
  readonly status: number
  /** By lower-case name. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: Buffer
}

/** A connection, and what has come over it. */
export class RawConnection {
  readonly socket: Socket
  #received = Buffer.alloc(0)
  #closed = false
  #wake: () => void = () => {}

  private constructor(socket: Socket) {
    this.socket = socket
    socket.on('data', (chunk) => {
      this.#received = Buffer.concat([this.#received, chunk])
      this.#wake()
    })
    socket.on('error', () => {})
    socket.on('close', () => {
      this.#closed = true
      this.#wake()
    })
  }

  static async open(port: number): Promise<RawConnection> {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true })
    await once(socket, 'connect')
    return new RawConnection(socket)
  }

  get closed(): boolean {
    return this.#closed
  }

  write(bytes: Uint8Array | string): void {
    this.socket.write(bytes)
  }

  /** Resolves when the other side has closed the connection. */
  async untilClosed(): Promise<void> {
    while (!this.#closed) await this.#more()
  }

  /** The next answer; `undefined` where the connection closes before it is whole. */
  async answer(method = 'GET'): Promise<RawAnswer | undefined> {
    for (;;) {
      const end = this.#received.indexOf('\r\n\r\n')
      if (end !== -1) {
        const [first = '', ...lines] = this.#received.toString('latin1', 0, end).split('\r\n')
        const headers = Object.fromEntries(
          lines.map((line) => {
            const colon = line.indexOf(':')
            return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()]
          }),
        )
        const status = Number(first.split(' ')[1])
        const bodiless = method === 'HEAD' || status === 100 || status === 204 || status === 304
        const length = bodiless ? 0 : Number(headers['content-length'] ?? 0)
        if (this.#received.length >= end + 4 + length) {
          const body = this.#received.subarray(end + 4, end + 4 + length)
          this.#received = this.#received.subarray(end + 4 + length)
          return { status, headers, body }
        }
      }
      if (this.#closed) return undefined
      await this.#more()
    }
  }

  close(): void {
    this.socket.destroy()
  }

  #more(): Promise<void> {
    return new Promise((resolve) => (this.#wake = resolve))
  }
}

/** Sends these bytes over a connection of their own and gives the answer. */
export async function sendRaw(port: number, bytes: Uint8Array | string, method?: string): Promise<RawAnswer> {
  const connection = await RawConnection.open(port)
  try {
    connection.write(bytes)
    const answer = await connection.answer(method)
    if (answer === undefined) throw new Error('The connection was closed without an answer')
    return answer
  } finally {
    connection.close()
  }
}
