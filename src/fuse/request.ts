/**
 * A request under way, as the file system sees it (its caller) and as the session does (what to answer, which buffer
 * it holds). The abort signal is made at its first use: most requests are answered at once and never look at it.
 */
import type { RequestFrame } from './decode.ts'
import type { Caller, NodeId } from './file-system.ts'
import { OperationError } from '#base/errors.ts'

export class Request implements Caller {
  readonly opcode: number
  readonly unique: number
  readonly node: NodeId
  readonly uid: number
  readonly gid: number
  readonly pid: number
  /** The frame whose bytes the file system still reads (WRITE), to be given back with the answer. */
  frame: RequestFrame | undefined
  /** When it was found to need a wait, by `performance.now()`. */
  waitsFrom = 0
  #controller: AbortController | undefined
  #abortReason: OperationError | undefined

  constructor(frame: RequestFrame) {
    this.opcode = frame.opcode
    this.unique = frame.unique
    this.node = frame.node
    this.uid = frame.uid
    this.gid = frame.gid
    this.pid = frame.pid
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController()
      if (this.#abortReason !== undefined) this.#controller.abort(this.#abortReason)
    }
    return this.#controller.signal
  }

  /** Fires the signal; one that is made later has fired already. */
  abort(why: string): void {
    this.#abortReason ??= new OperationError('ABORTED', `Cannot finish the request: ${why}`)
    this.#controller?.abort(this.#abortReason)
  }
}
