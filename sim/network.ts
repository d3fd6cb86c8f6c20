/**
 * The network of a world: hosts that listen, links between their processes, and all that can go wrong between the two ends. A frame
 * takes its time, may be lost, come twice, late or before others; answers may be lost after what was asked for was done; hosts may
 * not reach each other, in one direction or in both. What comes is as it was sent.
 *
 * A link without faults carries its frames in order. A process that dies takes its links with it; the other end is told
 * soon, late, or when it sends something and the host runs again.
 */
import { assert } from '#base/assert.ts'
import { OperationError } from '#base/errors.ts'
import type { Address, Link, LinkHandler, Listener, Network } from '#cluster/surroundings.ts'

import type { Life } from './event-queue.ts'
import type { Random } from './random.ts'
import type { Timeline } from './timeline.ts'

/** How likely each of them is for one frame. */
export interface FrameFaults {
  loss: number
  /** Of frames to who has connected: what was asked for is done, and the answer lost. */
  answerLoss: number
  duplication: number
  /** It overtakes frames before it, or is overtaken. */
  reordering: number
  /** It comes later by up to `SPIKE_US_MAX`, and with it all that follow. */
  spike: number
}

export const NO_FRAME_FAULTS: Readonly<FrameFaults> = {
  loss: 0,
  answerLoss: 0,
  duplication: 0,
  reordering: 0,
  spike: 0,
}

/** Within a rack; in each world up to so many times farther. */
const LATENCY_US_MIN = 50
const LATENCY_US_MAX = 300
const DISTANCE_MAX = 100
/** About ten gigabits a second. */
const BYTES_A_US = 1000
const SPIKE_US_MAX = 2_000_000
const REORDERING_US_MAX = 20_000
/** What the other end's kernel and the wire take before anything has to wait here. */
const WINDOW_BYTES = 1 << 18
/** Who does not answer a first packet is asked again, and at last given up. */
const CONNECT_RETRY_US = 1_000_000
const CONNECT_US_MAX = 10_000_000
/** Who has vanished without a word is noticed after that. */
const VANISHED_US_MAX = 20_000_000
const FIRST_PORT = 20_000

interface Host {
  readonly name: string
  readonly listeners: Map<string, OpenListener>
  readonly unreachable: Set<Host>
  /** The process is gone and so is the kernel that would say so. */
  isDark: boolean
  nextPort: number
}

interface OpenListener {
  readonly life: Life
  readonly accept: (link: Link) => LinkHandler
  readonly ends: Set<End>
}

class End implements Link {
  readonly peer: string
  readonly life: Life
  readonly host: Host
  /** Sends to who has accepted the link. */
  readonly isAsker: boolean
  readonly #send: (from: End, frame: Buffer) => void
  readonly #close: (from: End) => void
  handler: LinkHandler | undefined
  other: End | undefined
  isOpen = true
  /** Until then, what is sent waits here. */
  isStanding = false
  waiting: Buffer[] = []
  bytesInFlight = 0
  /** When the last frame from here arrives at the other end. */
  lastArrivalUs = 0
  isDoomed = false
  onGone: (() => void) | undefined

  constructor(
    life: Life,
    host: Host,
    peer: string,
    isAsker: boolean,
    send: (from: End, frame: Buffer) => void,
    close: (from: End) => void,
  ) {
    this.life = life
    this.host = host
    this.peer = peer
    this.isAsker = isAsker
    this.#send = send
    this.#close = close
  }

  get bytesWaiting(): number {
    return Math.max(0, this.bytesInFlight - WINDOW_BYTES)
  }

  send(...parts: readonly Uint8Array[]): void {
    if (!this.isOpen || !this.life.alive) return
    const frame = Buffer.concat(parts)
    this.bytesInFlight += frame.length
    if (this.isStanding) this.#send(this, frame)
    else this.waiting.push(frame)
  }

  close(): void {
    if (this.isOpen && this.life.alive) this.#close(this)
  }
}

/** Of a frame. */
export type Fate = 'arrives' | 'is lost' | 'comes twice'

export class SimulatedNetwork {
  /** In force for frames that are sent from now on. */
  readonly faults: FrameFaults = { ...NO_FRAME_FAULTS }
  /** Decides what becomes of a frame, where it is there: for tests that let one thing go wrong at one place. */
  fate: ((from: string, to: string, frame: Buffer) => Fate) | undefined
  readonly #timeline: Timeline
  readonly #random: Random
  readonly #distance: number
  readonly #hosts = new Map<string, Host>()
  /** Open ends, by who they belong to, in the order in which they were made. */
  readonly #ends = new Map<Life, Set<End>>()
  readonly #sendFrame = (from: End, frame: Buffer): void => this.#transmit(from, frame)
  readonly #closeEnd = (from: End): void => this.#closedHere(from)

  constructor(timeline: Timeline, random: Random) {
    this.#timeline = timeline
    this.#random = random
    this.#distance = DISTANCE_MAX ** random.fraction()
  }

  /** The network as a process on that host has it. */
  of(hostName: string, life: Life): Network {
    const host = this.#host(hostName)
    host.isDark = false
    return {
      listen: (address, accept) => this.#listen(host, life, address, accept),
      connect: (address, handler) => this.#connect(host, life, address, handler),
    }
  }

  /** Nothing goes from one host to the other any more. */
  cut(from: string, to: string): void {
    this.#host(from).unreachable.add(this.#host(to))
    this.#timeline.note(from, 'cannot reach', to)
  }

  /** All hosts reach each other. */
  mend(): void {
    for (const host of this.#hosts.values()) host.unreachable.clear()
    this.#timeline.note('network', 'mended')
  }

  /** Links break, each so likely, and both ends are told. */
  breakLinks(probability: number): void {
    for (const end of [...this.#ends.values()].flatMap((ends) => [...ends])) {
      if (!end.isOpen || end.other === undefined || !this.#random.happens(probability)) continue
      this.#lose(end.other, 'the connection was reset', 0)
      this.#lose(end, 'the connection was reset', 0)
    }
  }

  /** The process has died; its links go with it. */
  died(hostName: string, life: Life, isDark: boolean): void {
    const host = this.#host(hostName)
    host.isDark = isDark
    for (const [port, listener] of host.listeners) if (listener.life === life) host.listeners.delete(port)
    const ends = this.#ends.get(life)
    this.#ends.delete(life)
    for (const end of ends ?? []) {
      end.isOpen = false
      const { other } = end
      if (other === undefined || !other.isOpen) continue
      if (isDark) this.#lose(other, 'the other side has vanished', this.#random.below(VANISHED_US_MAX))
      else this.#lose(other, 'the connection was reset', this.#latency())
    }
  }

  #host(name: string): Host {
    let host = this.#hosts.get(name)
    if (host === undefined) {
      host = { name, listeners: new Map(), unreachable: new Set(), isDark: false, nextPort: FIRST_PORT }
      this.#hosts.set(name, host)
    }
    return host
  }

  #latency(): number {
    return Math.ceil(this.#random.between(LATENCY_US_MIN, LATENCY_US_MAX) * this.#distance)
  }

  async #listen(host: Host, life: Life, address: Address, accept: (link: Link) => LinkHandler): Promise<Listener> {
    const { name, port: asked } = partsOf(address)
    const port = asked === '0' ? String(host.nextPort++) : asked
    if (name !== host.name || host.listeners.has(port)) {
      const detail = name === host.name ? 'the port is taken' : `this is ${host.name}`
      throw new OperationError('ADDRESS_UNUSABLE', `Cannot listen at ${address}: ${detail}`)
    }
    await this.#timeline.delay(1, life)
    const listener: OpenListener = { life, accept, ends: new Set() }
    host.listeners.set(port, listener)
    return {
      address: `${name}:${port}`,
      close: async () => {
        if (host.listeners.get(port) === listener) host.listeners.delete(port)
        for (const end of listener.ends) end.close()
      },
    }
  }

  #connect(from: Host, life: Life, address: Address, handler: LinkHandler): Link {
    const end = this.#newEnd(life, from, address, true)
    end.handler = handler
    if (life.alive) this.#knock(end, address, this.#timeline.nowUs + CONNECT_US_MAX)
    return end
  }

  /** A first packet is on its way; who gets it accepts the link or refuses it. */
  #knock(end: End, address: Address, giveUpUs: number): void {
    const { name, port } = partsOf(address)
    const host = this.#host(name)
    const latency = this.#latency()
    const arrive = (): void => {
      if (!end.isOpen || !end.life.alive) return
      if (isCut(end.host, host) || isCut(host, end.host) || host.isDark) {
        const nextUs = this.#timeline.nowUs + CONNECT_RETRY_US
        if (nextUs > giveUpUs) this.#lose(end, `${address} does not answer`, 0)
        else this.#timeline.at(nextUs, arrive)
        return
      }
      const listener = host.listeners.get(port)
      if (listener === undefined) this.#lose(end, `${address} refuses connections`, latency)
      else this.#accept(end, host, listener)
    }
    this.#timeline.at(this.#timeline.nowUs + latency, arrive)
  }

  #accept(asker: End, host: Host, listener: OpenListener): void {
    const end = this.#newEnd(listener.life, host, asker.host.name, false)
    end.other = asker
    asker.other = end
    end.isStanding = true
    listener.ends.add(end)
    end.onGone = () => listener.ends.delete(end)
    const { nowUs } = this.#timeline
    this.#timeline.at(nowUs, () => (end.handler = listener.accept(end)), listener.life)
    this.#timeline.at(
      nowUs + this.#latency(),
      () => {
        asker.isStanding = true
        for (const frame of asker.waiting.splice(0)) this.#transmit(asker, frame)
      },
      asker.life,
    )
  }

  #newEnd(life: Life, host: Host, peer: string, isAsker: boolean): End {
    const end = new End(life, host, peer, isAsker, this.#sendFrame, this.#closeEnd)
    let ends = this.#ends.get(life)
    if (ends === undefined) this.#ends.set(life, (ends = new Set()))
    if (life.alive) ends.add(end)
    return end
  }

  #transmit(from: End, frame: Buffer): void {
    const to = from.other
    assert(to !== undefined, 'a link that stands has two ends')
    if (!to.isOpen || !to.life.alive || isCut(from.host, to.host)) {
      from.bytesInFlight -= frame.length
      // The kernel of a host that runs says at once that it knows of no such link.
      if (!to.life.alive && !to.host.isDark) this.#lose(from, 'the connection was reset', this.#latency())
      return
    }
    const { faults } = this
    const random = this.#random
    const fate = this.fate?.(from.host.name, to.host.name, frame)
    const isLost = random.happens(faults.loss) || (!from.isAsker && random.happens(faults.answerLoss))
    if (isLost || fate === 'is lost') {
      from.bytesInFlight -= frame.length
      this.#timeline.note(to.host.name, 'never gets from', frame, from.host.name)
      return
    }
    if (random.happens(faults.duplication) || fate === 'comes twice') {
      const again = Buffer.from(frame)
      from.bytesInFlight += frame.length
      this.#deliver(from, to, again, this.#timeline.nowUs + this.#latency() + random.below(REORDERING_US_MAX))
    }
    let atUs = this.#timeline.nowUs + this.#latency() + Math.ceil(frame.length / BYTES_A_US)
    if (random.happens(faults.spike)) atUs += random.below(SPIKE_US_MAX)
    if (random.happens(faults.reordering)) atUs += random.below(REORDERING_US_MAX)
    else from.lastArrivalUs = atUs = Math.max(atUs, from.lastArrivalUs)
    this.#deliver(from, to, frame, atUs)
  }

  #deliver(from: End, to: End, frame: Buffer, atUs: number): void {
    this.#timeline.at(
      atUs,
      () => {
        from.bytesInFlight -= frame.length
        // Before it is accepted, nobody has a handler; after it was closed, nobody wants one.
        if (!to.isOpen || to.handler === undefined) return
        this.#timeline.note(to.host.name, 'gets from', frame, from.host.name)
        to.handler.onFrame(frame)
      },
      to.life,
    )
  }

  #closedHere(end: End): void {
    this.#forget(end)
    const { nowUs } = this.#timeline
    this.#timeline.at(nowUs, () => end.handler?.onClosed(), end.life)
    const { other } = end
    if (other === undefined) return
    if (isCut(end.host, other.host)) this.#lose(other, 'the other side has vanished', VANISHED_US_MAX)
    // What was sent before arrives before.
    else this.#lose(other, undefined, Math.max(this.#latency(), end.lastArrivalUs - nowUs))
  }

  /** An end learns after so long that there is no link any more. */
  #lose(end: End, why: string | undefined, afterUs: number): void {
    if (!end.isOpen || end.isDoomed) return
    // Who is told late by one way may be told sooner by another.
    end.isDoomed = afterUs <= LATENCY_US_MAX * this.#distance
    this.#timeline.at(
      this.#timeline.nowUs + afterUs,
      () => {
        if (!end.isOpen) return
        this.#forget(end)
        if (why === undefined) end.handler?.onClosed()
        else {
          this.#timeline.note(end.host.name, 'loses its link:', why)
          end.handler?.onClosed(new OperationError('CLUSTER_UNREACHABLE', `Cannot go on with ${end.peer}: ${why}`))
        }
      },
      end.life,
    )
  }

  #forget(end: End): void {
    end.isOpen = false
    end.waiting.length = 0
    this.#ends.get(end.life)?.delete(end)
    end.onGone?.()
  }
}

function isCut(from: Host, to: Host): boolean {
  return from.unreachable.size > 0 && from.unreachable.has(to)
}

function partsOf(address: Address): { name: string; port: string } {
  const colon = address.lastIndexOf(':')
  assert(colon > 0, 'an address is HOST:PORT')
  return { name: address.slice(0, colon), port: address.slice(colon + 1) }
}
