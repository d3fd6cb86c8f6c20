/**
 * Serves a mount: takes requests from the descriptor of /dev/fuse on Node's event loop, from the kernel's INIT to the end
 * of the connection. Owns that descriptor, and the buffers that requests are read into.
 *
 *   starting --INIT--> serving --ENODEV--> ended 'unmounted'
 *                         |--ECONNABORTED--> ended 'aborted'
 *                         '--destroy()--> refusing --notifier is idle--> ended 'destroyed'
 *
 * Reading is a loop until EAGAIN, then for some tens of microseconds more, since waking up from poll costs more than that:
 * one stat after another takes half the time. There is no such spinning while a request waits for something else, for that
 * something needs this thread.
 */
import { closeSync } from 'node:fs'
import { DeviceBackingFiles } from './backing-files.ts'
import { RequestFrame, decodeInit } from './decode.ts'
import { Dispatcher, type Waiting } from './dispatcher.ts'
import { encodeInit } from './encode.ts'
import type { BackingFiles, FileSystem, KernelNotifier } from './file-system.ts'
import { type NegotiatedInit, negotiate } from './negotiate.ts'
import { DeviceNotifier } from './notifier.ts'
import { FUSE_DESTROY, FUSE_FLAGS2_PASSTHROUGH, FUSE_INIT } from './protocol.ts'
import { Replier } from './replier.ts'
import { Request } from './request.ts'
import { assert } from '#base/assert.ts'
import { ERRNO } from '#base/errno.ts'
import { OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { libc, SystemCallError } from '#os/libc.ts'
import type { PollHandle } from '#os/poll-handle.ts'
import { readNow } from '#os/read-write.ts'

const log = logger('fuse')

export interface SessionOptions {
  /** For how long to look for the next request after one, before going back to poll; 0 is not at all. */
  readonly spinUs: number
  /** The largest WRITE, and the largest READ: a multiple of 4,096, at most 1 MiB. */
  readonly maxWriteBytes: number
  /** How many read-aheads and other requests that nobody waits for the kernel may have under way. */
  readonly maxBackground: number
  /** Asks for passthrough to backing files. */
  readonly passthrough?: boolean
}

export const SESSION_DEFAULTS = {
  spinUs: 30,
  maxWriteBytes: 1_048_576,
  maxBackground: 64,
} as const satisfies SessionOptions

/** How a session ended: taken from the mount table, cut by the kernel (or by fusectl), or by `destroy`. */
export type SessionEnd = 'unmounted' | 'aborted' | 'destroyed'

export interface Session {
  /** What was agreed on with the kernel. @throws MOUNT_REFUSED where nothing could be, ABORTED where it ended before. */
  readonly initialised: Promise<NegotiatedInit>
  /** Never rejects; when it resolves the descriptor is closed. */
  readonly ended: Promise<SessionEnd>
  readonly notifier: KernelNotifier
  /** Undefined before INIT is answered, and where passthrough was not agreed on. */
  readonly backing: BackingFiles | undefined
  /** Requests that the file system has not answered yet. */
  readonly inFlight: number
  /** The one of them that waits longest. */
  readonly oldest: Waiting | undefined
  /** Ends it now, from this side: signals of requests under way fire, the kernel gets EIO. The mount point stays, dead. */
  destroy(): Promise<void>
}

/** Buffers lent to writes that are answered later; when all are out, nothing more is read until one is back. */
const FRAMES_MAX = 32
/** Requests taken before the event loop gets its turn: about a millisecond's worth. */
const BATCH_MAX = 64
/** The header and the fixed part of the largest request, rounded up to what the kernel insists on. */
const FRAME_OVERHEAD_BYTES = 4096

/** Serves `fileSystem` to the kernel over `fd`, which is the session's from here on. */
export function startSession(fileSystem: FileSystem, fd: number, options: SessionOptions = SESSION_DEFAULTS): Session {
  return new DeviceSession(fileSystem, fd, options)
}

class DeviceSession implements Session {
  readonly initialised: Promise<NegotiatedInit>
  readonly ended: Promise<SessionEnd>
  readonly notifier: DeviceNotifier
  backing: DeviceBackingFiles | undefined
  readonly #fd: number
  readonly #options: SessionOptions
  readonly #replier: Replier
  readonly #dispatcher: Dispatcher
  readonly #initialisedBy: PromiseWithResolvers<NegotiatedInit> = Promise.withResolvers()
  readonly #endedBy: PromiseWithResolvers<SessionEnd> = Promise.withResolvers()
  readonly #freeFrames: RequestFrame[] = []
  #frames = 1
  /** What the next request is read into; undefined while all are lent. */
  #frame: RequestFrame | undefined
  /** Kept for as long as the session: koffi's poll stops when its handle is collected. */
  #poll: PollHandle | undefined
  #state: 'starting' | 'serving' | 'ended' = 'starting'

  constructor(fileSystem: FileSystem, fd: number, options: SessionOptions) {
    assert(
      options.maxWriteBytes % 4096 === 0 && options.maxWriteBytes >= 4096 && options.maxWriteBytes <= 1_048_576,
      'the largest write is a multiple of 4,096 up to 1 MiB',
    )
    assert(options.maxBackground >= 1 && options.maxBackground <= 0xffff, 'background requests fit 16 bits')
    this.#fd = fd
    this.#options = options
    this.initialised = this.#initialisedBy.promise
    // `ended` tells of the failure too, so that nobody has to wait for both.
    this.initialised.catch(() => undefined)
    this.ended = this.#endedBy.promise
    this.notifier = new DeviceNotifier(fd)
    this.#replier = new Replier(fd)
    this.#dispatcher = new Dispatcher(fileSystem, this.#replier, (frame) => this.#frameFree(frame))
    this.#frame = this.#newFrame()
    this.#startPoll()
  }

  get inFlight(): number {
    return this.#dispatcher.inFlight
  }

  get oldest(): Waiting | undefined {
    return this.#dispatcher.oldest
  }

  async destroy(): Promise<void> {
    if (this.#state !== 'ended') {
      this.#dispatcher.abandon('the file system is being taken down')
      // A notification being written may wait for a request, which is refused meanwhile: so reading goes on until then.
      await this.notifier.close()
      this.#end('destroyed')
    }
    await this.ended
  }

  #newFrame(): RequestFrame {
    return new RequestFrame(Buffer.allocUnsafeSlow(this.#options.maxWriteBytes + FRAME_OVERHEAD_BYTES))
  }

  #startPoll(): void {
    const events = { readable: true, disconnect: true }
    if (this.#poll === undefined) this.#poll = libc().poll(this.#fd, events, this.#onPoll)
    else this.#poll.start(events, this.#onPoll)
  }

  readonly #onPoll = (status: number): void => {
    try {
      this.#drain()
    } catch (error) {
      log.fatal({ err: error }, 'the session failed')
      this.#end('aborted')
    }
    // An error status has stopped the poll; where reading did not find the connection ended, it goes on.
    if (status < 0 && this.#state !== 'ended' && this.#frame !== undefined) this.#startPoll()
    // This callback is outside of Node's callback scope: without a callback of Node's own after it, promises that were
    // settled in it would wait for the next event of another kind.
    setImmediate(nothing)
  }

  #drain(): void {
    const spinMs = this.#options.spinUs / 1000
    let spinUntil = 0
    for (let taken = 0; taken < BATCH_MAX;) {
      const frame = this.#frame
      if (frame === undefined || this.#state === 'ended') return
      const length = this.#receive(frame)
      if (length === 0) {
        if (spinUntil === 0 || this.#dispatcher.inFlight > 0 || performance.now() >= spinUntil) return
        continue
      }
      if (length < 0) return
      taken += 1
      this.#take(frame, length)
      if (spinMs > 0) spinUntil = performance.now() + spinMs
    }
  }

  /** Bytes of one request; 0 where there is none now; -1 where there will be no more. */
  #receive(frame: RequestFrame): number {
    for (;;) {
      const length = readNow(this.#fd, frame.bytes)
      if (length >= 0) return length
      const errno = -length
      if (errno === ERRNO.EAGAIN) return 0
      // ENOENT: the request was given up while it was being read.
      if (errno === ERRNO.ENOENT || errno === ERRNO.EINTR) continue
      if (errno === ERRNO.ENODEV) this.#end('unmounted')
      else {
        if (errno !== ERRNO.ECONNABORTED) {
          log.error({ err: new SystemCallError('read', errno) }, 'the device cannot be read')
        }
        this.#end('aborted')
      }
      return -1
    }
  }

  #take(frame: RequestFrame, length: number): void {
    if (!frame.load(length)) {
      log.error({ length }, 'the kernel sent a request that is not well formed')
      // The header lies, but its number, where it is there, still tells the kernel which request must not wait.
      const unique = length >= 16 ? Number(frame.view.getBigUint64(8, true)) : 0
      if (unique > 0 && Number.isSafeInteger(unique)) this.#replier.refuse(unique, ERRNO.EIO)
      return
    }
    if (this.#state === 'starting') {
      this.#initialise(frame)
    } else if (frame.opcode === FUSE_DESTROY) {
      this.#replier.done(new Request(frame))
    } else if (this.#dispatcher.dispatch(frame)) {
      this.#frame = this.#freeFrames.pop()
      if (this.#frame === undefined && this.#frames < FRAMES_MAX) {
        this.#frames += 1
        this.#frame = this.#newFrame()
      }
      if (this.#frame === undefined) this.#poll?.stop()
    }
  }

  #frameFree(frame: RequestFrame): void {
    if (this.#frame !== undefined) {
      this.#freeFrames.push(frame)
      return
    }
    this.#frame = frame
    if (this.#state !== 'ended') this.#startPoll()
  }

  #initialise(frame: RequestFrame): void {
    const request = new Request(frame)
    if (frame.opcode !== FUSE_INIT) return this.#replier.fail(request, ERRNO.EIO)
    const offer = decodeInit(frame)
    const { maxWriteBytes, maxBackground, passthrough = false } = this.#options
    const outcome =
      typeof offer === 'number'
        ? { refusal: 'the kernel sent an INIT that is not well formed' }
        : negotiate(offer, { maxWriteBytes, maxBackground, passthrough })
    if ('refusal' in outcome) {
      this.#replier.fail(request, ERRNO.EPROTO)
      this.#initialisedBy.reject(new OperationError('MOUNT_REFUSED', `Cannot serve the mount: ${outcome.refusal}`))
      this.#end('aborted')
      return
    }
    const { fixed } = this.#replier
    this.#replier.send(request, fixed, encodeInit(fixed.bytes, fixed.view, outcome.answer))
    this.#state = 'serving'
    if ((outcome.agreed.flags2 & FUSE_FLAGS2_PASSTHROUGH) !== 0) this.backing = new DeviceBackingFiles(this.#fd)
    this.#initialisedBy.resolve(outcome.agreed)
  }

  #end(how: SessionEnd): void {
    if (this.#state === 'ended') return
    this.#state = 'ended'
    this.#poll?.close()
    this.#poll = undefined
    this.#replier.close()
    this.backing?.end()
    this.#dispatcher.abandon('the file system is unmounted')
    this.#initialisedBy.reject(
      new OperationError('ABORTED', 'Cannot serve the mount: it ended before the kernel said INIT'),
    )
    // The descriptor's number must not become another file's while a notification is being written to it.
    void this.notifier.close().then(() => {
      closeSync(this.#fd)
      this.#endedBy.resolve(how)
    })
  }
}

function nothing(): void {}
