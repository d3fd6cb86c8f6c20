/**
 * The cluster as it changes, to whoever keeps a connection open (server-sent events): first all of it, then at most a few times a second what has
 * changed. Who reads slowly misses what was between, and never what is last.
 */
import type { ServerResponse } from 'node:http'

import type { ClusterId } from '#cluster/cluster-id.ts'
import type { Cancel, Clock } from '#cluster/surroundings.ts'

import { shownCluster } from './registry-status.ts'
import type { RegistryView } from './registry-view.ts'

/** At a time. */
const STREAMS_MAX = 64
/** Changes that come close to each other go together. */
const GATHER_MS = 200
/** So that proxies and browsers see that the connection stands. */
const PING_MS = 15_000
/** Who has so much unread is told more once it has read. */
const UNREAD_BYTES_MAX = 1024 ** 2
/** For how long a browser waits before it connects again. */
const RETRY_MS = 2000

interface Stream {
  readonly response: ServerResponse
  /** Of the view, up to which it was told; -1: nothing. */
  told: number
}

export class EventStreams {
  readonly #cluster: ClusterId
  readonly #view: RegistryView
  readonly #clock: Clock
  readonly #streams = new Set<Stream>()
  #cancelTell: Cancel | undefined
  #cancelPing: Cancel | undefined

  constructor(cluster: ClusterId, view: RegistryView, clock: Clock) {
    this.#cluster = cluster
    this.#view = view
    this.#clock = clock
    view.onChanged = () => this.#tellLater()
  }

  get isFull(): boolean {
    return this.#streams.size >= STREAMS_MAX
  }

  /** The head of the response must not be written yet. */
  add(response: ServerResponse, headers: Readonly<Record<string, string>>): void {
    const stream: Stream = { response, told: -1 }
    this.#streams.add(stream)
    // It ends when its reader goes, however long that takes.
    response.socket?.setTimeout(0)
    response.writeHead(200, { ...headers, 'content-type': 'text/event-stream' })
    response.write(`retry: ${RETRY_MS}\n\n`)
    response.on('drain', () => this.#tellLater())
    response.once('close', () => {
      this.#streams.delete(stream)
      if (this.#streams.size === 0) this.#stopTimers()
    })
    this.#tell(stream)
    this.#pingLater()
  }

  close(): void {
    this.#view.onChanged = () => undefined
    for (const { response } of this.#streams) response.destroy()
    this.#stopTimers()
  }

  #tellLater(): void {
    if (this.#streams.size === 0) return
    this.#cancelTell ??= this.#clock.after(GATHER_MS, () => {
      this.#cancelTell = undefined
      for (const stream of this.#streams) this.#tell(stream)
    })
  }

  #tell(stream: Stream): void {
    const { revision } = this.#view
    const { destroyed, writableLength } = stream.response
    if (destroyed || stream.told === revision || writableLength > UNREAD_BYTES_MAX) return
    const kind = stream.told === -1 ? 'all' : 'change'
    const shown = shownCluster(this.#cluster, this.#view, this.#clock.nowMs(), stream.told)
    stream.told = revision
    stream.response.write(`event: ${kind}\ndata: ${JSON.stringify(shown)}\n\n`)
  }

  #pingLater(): void {
    this.#cancelPing ??= this.#clock.after(PING_MS, () => {
      this.#cancelPing = undefined
      for (const { response } of this.#streams) {
        if (!response.destroyed && response.writableLength === 0) response.write(': there\n\n')
      }
      this.#pingLater()
    })
  }

  #stopTimers(): void {
    this.#cancelTell?.()
    this.#cancelPing?.()
    this.#cancelTell = this.#cancelPing = undefined
  }
}
