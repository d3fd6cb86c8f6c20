/**
 * Notifications to the kernel, one at a time and never on the thread that answers: the kernel takes locks for them that a
 * request still unanswered may hold (INVAL_ENTRY and DELETE that of the directory, INVAL_INODE those of pages being
 * read), so a synchronous write could wait for itself. One at a time, since each may hold a thread of Node's pool
 * until such a request is answered, and the answer may need another thread of it.
 */
import { write } from 'node:fs'
import { encodeDeleteEntry, encodeInvalidateEntry, encodeInvalidateNode } from './encode.ts'
import type { KernelNotifier, NodeId } from './file-system.ts'
import { OperationError } from '#base/errors.ts'

/** Messages that may wait; at some 30,000 a second this is two seconds' worth. */
const WAITING_MAX = 65_536

interface Waiting {
  readonly message: Uint8Array
  readonly resolve: (held: boolean) => void
  readonly reject: (error: unknown) => void
}

export class DeviceNotifier implements KernelNotifier {
  readonly #fd: number
  #queue: Waiting[] = []
  /** How many of the queue are sent. */
  #next = 0
  #busy = false
  #closed = false
  #onIdle: (() => void)[] = []

  constructor(fd: number) {
    this.#fd = fd
  }

  invalidateNode(node: NodeId, offset: number, length: number): Promise<boolean> {
    return this.#send(() => encodeInvalidateNode(node, offset, length))
  }

  invalidateEntry(parent: NodeId, name: string): Promise<boolean> {
    return this.#send(() => encodeInvalidateEntry(parent, name))
  }

  deleteEntry(parent: NodeId, child: NodeId, name: string): Promise<boolean> {
    return this.#send(() => encodeDeleteEntry(parent, child, name))
  }

  /** Sends nothing more; what waits is "not held". Resolves when the one being written is through. */
  close(): Promise<void> {
    this.#closed = true
    for (const { resolve } of this.#queue.slice(this.#next)) resolve(false)
    this.#queue = []
    this.#next = 0
    if (!this.#busy) return Promise.resolve()
    return new Promise((resolve) => this.#onIdle.push(resolve))
  }

  async #send(encode: () => Uint8Array): Promise<boolean> {
    // A session that has ended has no kernel that could hold anything.
    if (this.#closed) return false
    if (this.#queue.length - this.#next >= WAITING_MAX) {
      throw new OperationError('LOCAL_FAILED', `Cannot notify the kernel: ${WAITING_MAX} notifications wait already`)
    }
    const message = encode()
    return new Promise((resolve, reject) => {
      this.#queue.push({ message, resolve, reject })
      if (!this.#busy) this.#writeNext()
    })
  }

  #writeNext(): void {
    const waiting = this.#queue[this.#next]
    if (waiting === undefined) {
      this.#queue = []
      this.#next = 0
      this.#busy = false
      for (const resolve of this.#onIdle.splice(0)) resolve()
      return
    }
    this.#busy = true
    this.#next += 1
    write(this.#fd, waiting.message, (error) => {
      if (error === null) waiting.resolve(true)
      else if (NOT_HELD.has(error.code ?? '')) waiting.resolve(false)
      else {
        waiting.reject(
          new OperationError('LOCAL_FAILED', `Cannot notify the kernel: write failed with ${error.code}`, {
            cause: error,
          }),
        )
      }
      this.#writeNext()
    })
  }
}

/** Not in the kernel's caches, not a directory (any more), not empty (a DELETE that the kernel could not follow), unmounted. */
const NOT_HELD = new Set(['ENOENT', 'ENOTDIR', 'ENOTEMPTY', 'EISDIR', 'EBUSY', 'ENODEV', 'ENOTCONN'])
