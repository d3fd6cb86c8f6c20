/**
 * Writes answers to the kernel: one system call each, from one small buffer that is used again for every answer, and
 * data without a copy. Counts answers, errors and bytes. Not here: what to answer.
 */
import { writevSync } from 'node:fs'
import { ReplyBuffer, encodeHeader } from './encode.ts'
import { OPERATION_NAMES, OUT_HEADER_BYTES } from './protocol.ts'
import type { Request } from './request.ts'
import { ERRNO } from '#base/errno.ts'
import { errnoOf, isOperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { counter } from '#base/metrics.ts'
import { SystemCallError } from '#os/libc.ts'
import { writeNow } from '#os/read-write.ts'

const log = logger('fuse')
/** The largest answer of fixed size is that of CREATE, 160 bytes. */
const FIXED_BYTES = 256
/** More pieces than this are made one first: writev(2) takes 1,024. */
const PIECES_MAX = 1000

const ERRNO_NAMES = new Map<number, string>(Object.entries(ERRNO).map(([name, value]) => [value, name]))

/** Whether the kernel still waited for the answer: an interrupted request may be gone. */
export type Delivered = boolean

export class Replier {
  /** Where the caller encodes the body of an answer of fixed size, after the header. */
  readonly fixed = new ReplyBuffer(Buffer.alloc(FIXED_BYTES))
  readonly #fd: number
  readonly #readBytes = counter('eider_fuse_read_bytes_total')
  readonly #errors = new Map<number, { inc(): void }>()
  readonly #header = new ReplyBuffer(Buffer.alloc(OUT_HEADER_BYTES))
  #closed = false

  constructor(fd: number) {
    this.#fd = fd
  }

  /** From here on nothing is written: the descriptor's number may soon be another file's. */
  close(): void {
    this.#closed = true
  }

  /** Sends `length` bytes of `reply`, whose body is encoded already. */
  send(request: Request, reply: ReplyBuffer, length: number): Delivered {
    if (this.#closed) return false
    encodeHeader(reply.view, length, 0, request.unique)
    const written = writeNow(this.#fd, reply.bytes, length)
    return written >= 0 || this.#undelivered(request, new SystemCallError('write', -written))
  }

  /** Success, with nothing to say. */
  done(request: Request): Delivered {
    return this.send(request, this.fixed, OUT_HEADER_BYTES)
  }

  /** The bytes of a READ; several pieces go out as one. */
  data(request: Request, data: Uint8Array | readonly Uint8Array[]): Delivered {
    const pieces = data instanceof Uint8Array ? [data] : data
    const sent = this.bytes(request, pieces)
    if (sent < 0) return false
    this.#readBytes.inc(sent)
    return true
  }

  /** Sends `pieces` as the body: the number of bytes, -1 where the request is gone. */
  bytes(request: Request, pieces: readonly Uint8Array[]): number {
    if (this.#closed) return -1
    let size = 0
    for (const piece of pieces) size += piece.byteLength
    encodeHeader(this.#header.view, OUT_HEADER_BYTES + size, 0, request.unique)
    const vector =
      pieces.length > PIECES_MAX ? [this.#header.bytes, Buffer.concat(pieces)] : [this.#header.bytes, ...pieces]
    try {
      writevSync(this.#fd, vector)
      return size
    } catch (error) {
      this.#undelivered(request, error)
      return -1
    }
  }

  /** Answers with an errno. */
  fail(request: Request, errno: number): void {
    if (errno !== ERRNO.ENOENT) this.#countError(request.opcode, errno)
    this.refuse(request.unique, errno)
  }

  /** Answers with the errno of what was thrown; what is no operating error is a defect, logged, and EIO. */
  failWith(request: Request, error: unknown): void {
    const errno = errnoOf(error)
    const operation = operationName(request.opcode)
    if (isOperationError(error)) {
      if (log.isLevelEnabled('debug')) log.debug({ operation, node: request.node, code: error.code }, error.message)
    } else if (!(error instanceof Error && error.name === 'AbortError')) {
      log.error({ operation, node: request.node, err: error }, 'a request failed')
    }
    this.fail(request, errno)
  }

  /** Answers a request by its number alone. */
  refuse(unique: number, errno: number): void {
    if (this.#closed) return
    encodeHeader(this.#header.view, OUT_HEADER_BYTES, errno, unique)
    const written = writeNow(this.#fd, this.#header.bytes, OUT_HEADER_BYTES)
    if (written >= 0 || -written === ERRNO.ENOENT || -written === ERRNO.ENODEV) return
    log.error({ errno, err: new SystemCallError('write', -written) }, 'the kernel refused an error answer')
  }

  #undelivered(request: Request, error: unknown): false {
    const code = (error as NodeJS.ErrnoException).code
    if (code !== 'ENOENT' && code !== 'ENODEV') {
      // The request still waits: without any answer its process would wait for ever.
      log.error(
        { operation: OPERATION_NAMES[request.opcode], node: request.node, err: error },
        'the kernel refused an answer',
      )
      this.fail(request, ERRNO.EIO)
    }
    return false
  }

  #countError(opcode: number, errno: number): void {
    const key = opcode * 4096 + errno
    let errors = this.#errors.get(key)
    if (errors === undefined) {
      errors = counter('eider_fuse_errors_total', operationName(opcode), ERRNO_NAMES.get(errno) ?? String(errno))
      this.#errors.set(key, errors)
    }
    errors.inc()
  }
}

/** The name of an operation for logs and metrics; all unknown ones share one, so that labels stay few. */
export function operationName(opcode: number): string {
  return OPERATION_NAMES[opcode] ?? 'UNKNOWN'
}
