/**
 * What is still to be done, and in what order. Pure: its owner brings the time and does the work.
 *
 * Work about a path says only that the path is to be made equal, never how: whoever does it looks at the source then. So the last
 * intent wins without anybody comparing intents, and to do something twice does no harm. Rules:
 * - At most one piece of work is under way for a path. What is asked for meanwhile is done once more afterwards.
 * - A move waits until nothing at or under either of its names is under way, and nothing there begins before it is over; what
 *   waited under the old name before it was told waits under the new one then. Moves that meet are done in the order in which they were told.
 * - A directory and what lies in it are not under way together: either may be a removal that takes, or makes, the other.
 * - What failed waits for its time; who asks for it anew does not wait, but the count of its tries goes on.
 */
import { assert } from '#base/assert.ts'
import { isWithin } from '#store/path.ts'

import { Claims } from './claims.ts'
import type { TreeEntry } from './tree.ts'

/** A path to be made equal. */
export interface PathWork {
  readonly kind: 'path'
  readonly path: string
  /** What the target had when it was listed; undefined where it is not known. `null`: nothing. */
  readonly target: TreeEntry | null | undefined
  /** Bytes of the source when it was listed. */
  readonly bytes: number
  /** How often it was tried before. */
  readonly tries: number
}

export interface MoveWork {
  readonly kind: 'move'
  readonly from: string
  readonly to: string
  readonly isDirectory: boolean
}

export type Work = PathWork | MoveWork

/** Of those that wait; the others are looked at once those are under way. */
const MOVES_LOOKED_AT = 64

interface Waiting {
  target: TreeEntry | null | undefined
  bytes: number
  tries: number
  /** Not before. */
  at: number
  /** When it was asked for last, as a count of what was asked for. */
  order: number
}

export class WorkQueue {
  /** Ready to begin, in order. */
  readonly #ready = new Map<string, Waiting>()
  /** Found to have to wait, by path: not looked at again before what they wait for is over, as there may be many of both. */
  readonly #parked = new Map<string, Waiting>()
  /** Paths that are parked, by the claim that they meet: of a move, or of a path under way. */
  readonly #parkedAt = new Map<string, Set<string>>()
  #readyFrom: MapIterator<[string, Waiting]> | undefined
  /** Failed before: by path. */
  readonly #later = new Map<string, Waiting>()
  readonly #running = new Map<string, Waiting>()
  /** Asked for again while they were under way. */
  readonly #again = new Map<string, Waiting>()
  /** In the order in which they were told, also those under way; with the count of what was asked for until then. */
  readonly #moves = new Map<MoveWork, number>()
  readonly #movesRunning = new Set<MoveWork>()
  /** Of paths under way, and of all moves. */
  readonly #pathClaims = new Claims()
  readonly #moveClaims = new Claims()
  #order = 0
  #bytes = 0
  /** Nothing has ended and no move has come since no move could begin. */
  #movesWait = false
  /** Nothing of what failed is due before. */
  #wakeAt = Number.POSITIVE_INFINITY

  /** Paths that wait, and moves. */
  get waiting(): number {
    const paths = this.#ready.size + this.#parked.size + this.#later.size + this.#again.size
    return paths + this.#moves.size - this.#movesRunning.size
  }
  get running(): number {
    return this.#running.size + this.#movesRunning.size
  }
  /** Of files that wait or are under way, as far as it is known. */
  get bytes(): number {
    return this.#bytes
  }
  get isEmpty(): boolean {
    return this.waiting === 0 && this.running === 0
  }
  /** All that is left waits for its time. */
  get isResting(): boolean {
    return this.#later.size === this.waiting && this.running === 0
  }

  /** Nothing has failed and waits to be tried again. */
  get isWhole(): boolean {
    return this.#later.size === 0
  }

  /** What `isPast` asks about: all that was asked for until now. */
  get mark(): number {
    return this.#order
  }

  /** Whether all that was asked for until then has been done, or has failed and waits for its time. */
  isPast(mark: number): boolean {
    for (const waiting of [this.#ready, this.#parked, this.#running, this.#again]) {
      for (const { order } of waiting.values()) if (order < mark) return false
    }
    for (const order of this.#moves.values()) if (order < mark) return false
    return true
  }

  /** `path` is to be made equal. */
  add(path: string, target?: TreeEntry | null, bytes = 0): void {
    const parked = this.#parked.get(path)
    const before = this.#later.get(path) ?? this.#ready.get(path) ?? parked ?? this.#again.get(path)
    // What a listing told of the target holds until something is done about the path.
    const waiting: Waiting = {
      target: target === undefined ? before?.target : target,
      bytes,
      tries: before?.tries ?? 0,
      at: 0,
      order: this.#order++,
    }
    this.#bytes += bytes - (before?.bytes ?? 0)
    this.#later.delete(path)
    if (this.#running.has(path)) this.#again.set(path, waiting)
    else if (parked === undefined) this.#ready.set(path, waiting)
    else this.#parked.set(path, waiting)
  }

  /** As `add`, but not before `at`, unless it is asked for anew. */
  addLater(path: string, at: number): void {
    if (this.#ready.has(path) || this.#parked.has(path) || this.#later.has(path)) return
    this.#later.set(path, { target: undefined, bytes: 0, tries: 0, at, order: this.#order++ })
    this.#wakeAt = Math.min(this.#wakeAt, at)
  }

  isRunning(path: string): boolean {
    return this.#running.has(path)
  }

  /** Whether something is to be done, or being done, at the path. */
  has(path: string): boolean {
    const waits = this.#ready.has(path) || this.#parked.has(path) || this.#later.has(path)
    return waits || this.#running.has(path) || this.#moveClaims.meets(path) !== undefined
  }

  move(from: string, to: string, isDirectory: boolean): void {
    this.#moves.set({ kind: 'move', from, to, isDirectory }, this.#order++)
    this.#moveClaims.add(from)
    this.#moveClaims.add(to)
    this.#movesWait = false
  }

  /** What to begin now; undefined where there is nothing, or what there is has to wait. */
  next(now: number): Work | undefined {
    this.#wake(now)
    const move = this.#nextMove()
    if (move !== undefined) {
      this.#movesRunning.add(move)
      return move
    }
    for (;;) {
      const first = this.#first()
      if (first === undefined) return undefined
      const [path, waiting] = first
      const claim = this.#moveClaims.meets(path) ?? this.#pathClaims.meets(path)
      this.#ready.delete(path)
      if (claim !== undefined) {
        this.#park(path, waiting, claim)
        continue
      }
      this.#running.set(path, waiting)
      this.#pathClaims.add(path)
      const { target, bytes, tries } = waiting
      return { kind: 'path', path, target, bytes, tries }
    }
  }

  /**
   * Of what may begin. The iterator lasts: a new one would go over the places of all that was taken from the front of the map
   * before, tens of thousands in a burst.
   */
  #first(): [string, Waiting] | undefined {
    if (this.#ready.size === 0) return undefined
    for (;;) {
      this.#readyFrom ??= this.#ready.entries()
      const { value } = this.#readyFrom.next()
      if (value !== undefined) return value
      this.#readyFrom = undefined
    }
  }

  /** What made many fail is over: what waits to be tried again does so no longer than that, spread over it. */
  hasten(now: number, withinMs: number): void {
    for (const waiting of this.#later.values()) {
      if (waiting.tries === 0) continue
      waiting.at = Math.min(waiting.at, now + Math.random() * withinMs)
      this.#wakeAt = Math.min(this.#wakeAt, waiting.at)
    }
  }

  /** When the first of what failed is to be tried again; undefined where nothing waits for a time. */
  get nextAt(): number | undefined {
    return this.#later.size === 0 ? undefined : this.#wakeAt
  }

  /** It is over for now. With `retryAt`, it is to be tried again then, unless it was asked for anew meanwhile. */
  done(path: string, retryAt?: number): void {
    const ended = this.#running.get(path)
    assert(ended !== undefined, 'what ends is under way')
    this.#running.delete(path)
    this.#pathClaims.delete(path)
    this.#movesWait = false
    this.#release(path)
    this.#bytes -= ended.bytes
    const again = this.#again.get(path)
    if (again !== undefined) {
      this.#again.delete(path)
      this.#ready.set(path, { ...again, tries: retryAt === undefined ? 0 : ended.tries + 1 })
    } else if (retryAt !== undefined) {
      this.#bytes += ended.bytes
      // What the target had may be what failed.
      this.#later.set(path, { ...ended, target: undefined, tries: ended.tries + 1, at: retryAt })
      this.#wakeAt = Math.min(this.#wakeAt, retryAt)
    }
  }

  /**
   * The move is over. What waits under the old name of a directory since before it was told is dropped, and given: whoever asks
   * has both names compared, which finds all of it. A file's waits under the new name then, and, unless it `isDone`, under both.
   */
  moved(move: MoveWork, isDone: boolean): readonly string[] {
    assert(this.#movesRunning.delete(move), 'the move that ends is under way')
    const toldAt = this.#moves.get(move) ?? 0
    this.#moves.delete(move)
    this.#moveClaims.delete(move.from)
    this.#moveClaims.delete(move.to)
    this.#movesWait = false
    for (const claim of [move.from, move.to]) this.#release(claim)
    const dropped: string[] = []
    for (const waiting of [this.#ready, this.#parked, this.#later]) {
      for (const path of move.isDirectory ? waiting.keys() : [move.from]) {
        const found = waiting.get(path)
        if (found === undefined || found.order >= toldAt || !isWithin(path, move.from)) continue
        if (!move.isDirectory) this.add(move.to)
        if (!move.isDirectory && !isDone) continue
        this.#bytes -= found.bytes
        waiting.delete(path)
        dropped.push(path)
      }
    }
    return dropped
  }

  #park(path: string, waiting: Waiting, claim: string): void {
    this.#parked.set(path, waiting)
    const there = this.#parkedAt.get(claim)
    if (there === undefined) this.#parkedAt.set(claim, new Set([path]))
    else there.add(path)
  }

  /** What was parked for that claim may begin, or meets another. */
  #release(claim: string): void {
    const paths = this.#parkedAt.get(claim)
    if (paths === undefined) return
    this.#parkedAt.delete(claim)
    for (const path of paths) {
      const waiting = this.#parked.get(path)
      if (waiting === undefined) continue
      this.#parked.delete(path)
      this.#ready.set(path, waiting)
    }
  }

  /** The first that neither meets one before it nor a path that is under way. */
  #nextMove(): MoveWork | undefined {
    if (this.#movesWait || this.#moves.size === this.#movesRunning.size) return undefined
    const move = this.#findMove()
    this.#movesWait = move === undefined
    return move
  }

  #findMove(): MoveWork | undefined {
    const before = new Claims()
    let left = MOVES_LOOKED_AT
    for (const move of this.#moves.keys()) {
      const { from, to } = move
      if (!this.#movesRunning.has(move)) {
        if (left-- === 0) return undefined
        const waits = [before, this.#pathClaims].some(
          (claims) => (claims.meets(from) ?? claims.meets(to)) !== undefined,
        )
        if (!waits) return move
      }
      before.add(from)
      before.add(to)
    }
    return undefined
  }

  #wake(now: number): void {
    if (now < this.#wakeAt) return
    this.#wakeAt = Number.POSITIVE_INFINITY
    for (const [path, waiting] of this.#later) {
      if (waiting.at > now) {
        this.#wakeAt = Math.min(this.#wakeAt, waiting.at)
        continue
      }
      this.#later.delete(path)
      this.#ready.set(path, waiting)
    }
  }
}
