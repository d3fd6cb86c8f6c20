/**
 * For tests: a world of one process, with simulated time and a network within it that can lose, double, delay and reorder frames and cut links, all from one seed.
 * Time goes on only in `until`, from one thing that is due to the next.
 */
import assert from 'node:assert/strict'

import { OperationError } from '#base/errors.ts'
import type {
  Address,
  Cancel,
  Chance,
  Clock,
  Link,
  LinkHandler,
  Listener,
  Network,
  Surroundings,
} from '#cluster/surroundings.ts'

interface Due {
  readonly atMs: number
  readonly order: number
  action: (() => void) | undefined
}

/** What becomes of frames: chances from 0 to 1. */
export interface Faults {
  readonly loss: number
  readonly doubling: number
  /** Of a frame that comes up to so much later, whatever comes before it. */
  readonly lateMs: number
  readonly cut: number
}
export const NO_FAULTS: Faults = { loss: 0, doubling: 0, lateMs: 0, cut: 0 }

const START_MS = 1_800_000_000_000
const LATENCY_MS = 0.2

export class TestWorld implements Surroundings {
  faults = NO_FAULTS
  /** How far the time of day is off. */
  skewMs = 0
  /** Called for each frame that is sent: whether it is to be lost. */
  loses: (frame: Buffer, from: 'asker' | 'answerer') => boolean = () => false
  readonly clock: Clock
  readonly chance: Chance
  readonly network: Network
  readonly links: LoopbackLink[] = []
  readonly #listeners = new Map<Address, (link: Link) => LinkHandler>()
  readonly #due: Due[] = []
  #nowMs = 0
  #order = 0
  #random: number
  #nextPort = 1

  constructor(seed = 1) {
    this.#random = seed * 2_654_435_769 + 1
    this.clock = {
      nowMs: () => START_MS + this.#nowMs + this.skewMs,
      monotonicMs: () => this.#nowMs,
      sleptMs: () => 0,
      after: (ms, action) => this.after(ms, action),
      soon: (action) => void this.after(0, action),
    }
    this.chance = {
      bytes: (count) => Buffer.from(Array.from({ length: count }, () => this.#next() & 0xff)),
      below: (below) => Math.floor((this.#next() / 2 ** 32) * below),
    }
    this.network = {
      listen: async (address, accept) => this.#listen(address, accept),
      connect: (address, handler) => this.#connect(address, handler),
    }
  }

  get nowMs(): number {
    return this.#nowMs
  }

  after(ms: number, action: () => void): Cancel {
    const due: Due = { atMs: this.#nowMs + Math.max(0, ms), order: this.#order++, action }
    let at = this.#due.length
    // Most of what comes in is due last.
    while (at > 0 && isLater(this.#due[at - 1] as Due, due)) at--
    this.#due.splice(at, 0, due)
    return () => {
      due.action = undefined
    }
  }

  happens(chance: number): boolean {
    return chance > 0 && this.#next() / 2 ** 32 < chance
  }

  /** Lets time go on until it holds. */
  async until(condition: () => boolean, forMs = Infinity): Promise<void> {
    const endsAt = this.#nowMs + forMs
    for (;;) {
      await new Promise((resolve) => setImmediate(resolve))
      if (condition()) return
      const next = this.#due[0]
      assert(next !== undefined, 'something is still due, or the condition never comes to hold')
      assert(next.atMs <= endsAt, `the condition holds within ${forMs} ms`)
      this.#nowMs = Math.max(this.#nowMs, next.atMs)
      let count = 0
      while (this.#due[count] !== undefined && (this.#due[count] as Due).atMs <= this.#nowMs) count++
      for (const { action } of this.#due.splice(0, count)) action?.()
    }
  }

  /** The same for a promise. */
  async wait<T>(promise: Promise<T>, forMs = Infinity): Promise<T> {
    let isSettled = false
    const settle = (): void => {
      isSettled = true
    }
    promise.then(settle, settle)
    await this.until(() => isSettled, forMs)
    return promise
  }

  async pass(ms: number): Promise<void> {
    let isOver = false
    this.after(ms, () => {
      isOver = true
    })
    await this.until(() => isOver)
  }

  /** Xorshift, 32 bits. */
  #next(): number {
    let x = this.#random | 0
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    this.#random = x
    return x >>> 0
  }

  #listen(address: Address, accept: (link: Link) => LinkHandler): Listener {
    const own = address.endsWith(':0') ? `here:${this.#nextPort++}` : address
    assert(!this.#listeners.has(own), 'nobody else listens there')
    this.#listeners.set(own, accept)
    const close = async (): Promise<void> => {
      this.#listeners.delete(own)
      for (const link of this.links.filter((each) => each.address === own)) link.cut()
    }
    return { address: own, close }
  }

  #connect(address: Address, handler: LinkHandler): Link {
    const link = new LoopbackLink(this, address, 'asker', handler)
    this.links.push(link)
    this.after(LATENCY_MS, () => {
      const accept = this.#listeners.get(address)
      if (accept === undefined) link.cut()
      else if (link.isOpen) {
        const other = new LoopbackLink(this, address, 'answerer')
        this.links.push(other)
        link.stand(other)
        other.stand(link)
        other.handler = accept(other)
      }
    })
    return link
  }
}

function isLater(a: Due, b: Due): boolean {
  return a.atMs > b.atMs || (a.atMs === b.atMs && a.order > b.order)
}

export class LoopbackLink implements Link {
  readonly address: Address
  readonly side: 'asker' | 'answerer'
  handler: LinkHandler | undefined
  isOpen = true
  bytesWaiting = 0
  readonly #world: TestWorld
  #other: LoopbackLink | undefined
  #waiting: Buffer[] = []
  #latestMs = 0

  constructor(world: TestWorld, address: Address, side: 'asker' | 'answerer', handler?: LinkHandler) {
    this.#world = world
    this.address = address
    this.side = side
    this.handler = handler
  }

  get peer(): string {
    return this.address
  }

  stand(other: LoopbackLink): void {
    this.#other = other
    for (const frame of this.#waiting.splice(0)) this.#carry(frame)
  }

  send(...parts: readonly Uint8Array[]): void {
    if (!this.isOpen) return
    const frame = Buffer.concat(parts)
    if (this.#other === undefined) this.#waiting.push(frame)
    else this.#carry(frame)
  }

  close(): void {
    this.#end(undefined)
  }

  /** As by a cable that is pulled: both ends find out. */
  cut(): void {
    this.#end(new OperationError('CLUSTER_UNREACHABLE', 'Cannot go on: the link is cut'))
  }

  #end(error: OperationError | undefined): void {
    if (!this.isOpen) return
    this.isOpen = false
    this.#world.after(0, () => this.handler?.onClosed(error))
    this.#other?.cut()
  }

  #carry(frame: Buffer): void {
    const world = this.#world
    const { loss, doubling, lateMs, cut } = world.faults
    if (world.happens(cut)) return this.cut()
    if (!world.loses(frame, this.side) && !world.happens(loss)) this.#deliver(frame, lateMs)
    if (world.happens(doubling)) this.#deliver(frame, lateMs + 50)
  }

  #deliver(frame: Buffer, lateMs: number): void {
    const world = this.#world
    const late = lateMs === 0 ? 0 : (world.chance.below(1000) / 1000) * lateMs
    let atMs = world.nowMs + LATENCY_MS + late
    if (lateMs === 0) atMs = this.#latestMs = Math.max(this.#latestMs, atMs)
    world.after(atMs - world.nowMs, () => {
      if (this.#other?.isOpen === true) this.#other.handler?.onFrame(Buffer.from(frame))
    })
  }
}
