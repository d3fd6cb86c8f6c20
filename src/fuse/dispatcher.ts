/**
 * Carries requests from frames to the file system and its answers back: keeps who is in flight, what an interrupt
 * gives up, which frame is lent to a write, and what becomes of an answer that the kernel no longer takes. What each
 * operation means is in handlers.ts; the session feeds frames in and owns the device.
 *
 * An answer that is given at once costs no promise and no entry in a table. Every request but the forgets gets exactly
 * one answer; after `abandon` the answers of what was in flight have been given, and late ones are dropped.
 */
import type { RequestFrame } from './decode.ts'
import { decodeInterrupt } from './decode.ts'
import { ReplyBuffer } from './encode.ts'
import type { FileSystem, MaybePromise } from './file-system.ts'
import { HANDLERS } from './handlers.ts'
import { FUSE_BATCH_FORGET, FUSE_FORGET, FUSE_INTERRUPT, OUT_HEADER_BYTES } from './protocol.ts'
import { type Replier, operationName } from './replier.ts'
import { Request } from './request.ts'
import { ERRNO } from '#base/errno.ts'
import { logger } from '#base/log.ts'
import { counter } from '#base/metrics.ts'

const log = logger('fuse')
/** The kernel asks for at most what its largest request holds: 256 pages. */
const DIRECTORY_BYTES_MAX = 256 * 4096

/** Encodes and sends the answer `value`; false where the kernel no longer takes it. */
export type Answer<T> = (dispatcher: Dispatcher, request: Request, value: T) => void

/** A request that has no answer yet: whose it is, 0 where the kernel does not tell, and for how long. */
export interface Waiting {
  readonly pid: number
  readonly waitedMs: number
}

export class Dispatcher {
  readonly fileSystem: FileSystem
  readonly replier: Replier
  /** For directory listings that are given at once. */
  readonly directoryBuffer = new ReplyBuffer(Buffer.allocUnsafeSlow(OUT_HEADER_BYTES + DIRECTORY_BYTES_MAX))
  readonly writtenBytes = counter('eider_fuse_written_bytes_total')
  readonly #requests: ({ inc(): void } | undefined)[] = []
  readonly #inFlight = new Map<number, Request>()
  readonly #onFrameFree: (frame: RequestFrame) => void
  #refusing = false

  constructor(fileSystem: FileSystem, replier: Replier, onFrameFree: (frame: RequestFrame) => void) {
    this.fileSystem = fileSystem
    this.replier = replier
    this.#onFrameFree = onFrameFree
  }

  /** Requests that the file system has not answered yet. */
  get inFlight(): number {
    return this.#inFlight.size
  }

  /** The one of them that waits longest. */
  get oldest(): Waiting | undefined {
    const [request] = this.#inFlight.values()
    return request && { pid: request.pid, waitedMs: performance.now() - request.waitsFrom }
  }

  /** Takes one frame: true where the file system keeps its buffer until the answer. Never throws. */
  dispatch(frame: RequestFrame): boolean {
    this.#count(frame.opcode)
    const request = new Request(frame)
    try {
      if (frame.opcode === FUSE_INTERRUPT) this.#interrupt(request, frame)
      else if (this.#refusing && frame.opcode !== FUSE_FORGET && frame.opcode !== FUSE_BATCH_FORGET) {
        this.replier.fail(request, ERRNO.EIO)
      } else {
        const handler = HANDLERS[frame.opcode]
        if (handler === undefined) this.replier.refuse(request.unique, ERRNO.ENOSYS)
        else handler(this, request, frame)
      }
    } catch (error) {
      this.replier.failWith(request, error)
    }
    return request.frame !== undefined
  }

  /** Answers with what the file system said, now or later. `frame` is lent to the file system until then. */
  settle<T>(request: Request, result: MaybePromise<T>, answer: Answer<T>, frame?: RequestFrame): void {
    if (!(result instanceof Promise)) {
      answer(this, request, result)
      return
    }
    request.frame = frame
    request.waitsFrom = performance.now()
    this.#inFlight.set(request.unique, request)
    result.then(
      (value) => {
        if (!this.#land(request)) return
        try {
          answer(this, request, value)
        } catch (error) {
          this.replier.failWith(request, error)
        }
      },
      (error: unknown) => {
        if (this.#land(request)) this.replier.failWith(request, error)
      },
    )
  }

  /** Starts what the kernel does not wait for and what has no other way to tell that it failed. */
  unawaited(what: string, start: () => MaybePromise<void>): void {
    const failed = (error: unknown): void => log.error({ err: error }, `${what} failed`)
    try {
      const result = start()
      if (result instanceof Promise) result.catch(failed)
    } catch (error) {
      failed(error)
    }
  }

  /** Gives up everything in flight: signals fire, the kernel gets EIO, later requests get EIO at once. */
  abandon(why: string): void {
    this.#refusing = true
    for (const request of this.#inFlight.values()) {
      request.abort(why)
      this.replier.fail(request, ERRNO.EIO)
    }
    this.#inFlight.clear()
  }

  /** Whether the request still waits for its answer; its frame is free from here on. */
  #land(request: Request): boolean {
    if (request.frame !== undefined) {
      this.#onFrameFree(request.frame)
      request.frame = undefined
    }
    return this.#inFlight.delete(request.unique)
  }

  #interrupt(request: Request, frame: RequestFrame): void {
    const interrupt = decodeInterrupt(frame)
    if (typeof interrupt === 'number') return
    const target = this.#inFlight.get(interrupt.unique)
    // The kernel sends INTERRUPT only after its request was read, so that one was answered already or is about to be:
    // EAGAIN makes the kernel send it again as long as it still waits.
    if (target === undefined) this.replier.refuse(request.unique, ERRNO.EAGAIN)
    else target.abort('its caller was interrupted')
  }

  #count(opcode: number): void {
    const index = opcode < HANDLERS.length ? opcode : 0
    let requests = this.#requests[index]
    if (requests === undefined) {
      requests = counter('eider_fuse_requests_total', operationName(index))
      this.#requests[index] = requests
    }
    requests.inc()
  }
}
