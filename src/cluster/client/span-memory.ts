/**
 * Memory for spans that are being written: so many at a time, who comes then waits. Each gets a coding memory of its own, in which checksums
 * and parity are computed without a copy; those that are given back are used again where they are large enough.
 */
import { abortedError } from '#store/abort.ts'
import { CodingMemory } from '#cluster/erasure/coding-memory.ts'

/** What blocks take beside their bytes, for as many as a span has. */
const SLACK_BYTES = 64 * 1024

/** The memory of one span. */
export class SpanRoom {
  readonly memory: CodingMemory
  readonly capacity: number
  readonly #taken: Uint8Array[] = []

  constructor(bytes: number) {
    this.memory = new CodingMemory(bytes + SLACK_BYTES)
    this.capacity = bytes
  }

  /** In the coding memory; where that is full, elsewhere. */
  allocate(bytes: number): Uint8Array {
    const block = this.memory.allocate(bytes)
    if (block === undefined) return Buffer.allocUnsafeSlow(bytes)
    this.#taken.push(block)
    return block
  }

  /** Takes back all that was allocated beyond the first `count` blocks. */
  releaseBeyond(count: number): void {
    for (const block of this.#taken.splice(count)) this.memory.release(block)
  }
}

interface Waiting {
  readonly start: () => void
}

export class SpanMemory {
  readonly #roomsMax: number
  #lent = 0
  readonly #idle: SpanRoom[] = []
  readonly #waiting = new Set<Waiting>()

  constructor(roomsMax: number) {
    this.#roomsMax = roomsMax
  }

  /** A room with so many bytes, once there is one. @throws ABORTED */
  async take(bytes: number, signal?: AbortSignal): Promise<SpanRoom> {
    if (signal?.aborted === true) throw abortedError('wait for memory for a span', signal)
    if (this.#lent < this.#roomsMax) this.#lent++
    else await this.#wait(signal)
    const fitting = this.#idle.findIndex(({ capacity }) => capacity >= bytes)
    const [found] = this.#idle.splice(fitting === -1 ? 0 : fitting, 1)
    // One that is too small makes room for the new one.
    return found !== undefined && found.capacity >= bytes ? found : new SpanRoom(bytes)
  }

  give(room: SpanRoom): void {
    room.releaseBeyond(0)
    this.#idle.push(room)
    const [next] = this.#waiting
    if (next === undefined) this.#lent--
    else next.start()
  }

  /** The turn of who gives a room back goes on to who has waited longest. */
  #wait(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const left = (): void => {
        this.#waiting.delete(waiting)
        signal?.removeEventListener('abort', onAbort)
      }
      const onAbort = (): void => {
        left()
        if (signal !== undefined) reject(abortedError('wait for memory for a span', signal))
      }
      const waiting: Waiting = {
        start: () => {
          left()
          resolve()
        },
      }
      this.#waiting.add(waiting)
      signal?.addEventListener('abort', onAbort)
    })
  }
}
