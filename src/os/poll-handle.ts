/**
 * The shape of koffi's poll handle, which its own types leave vague. Two facts the callers must know. The handle must be
 * kept referenced: once collected as garbage, the callback never fires again. The callback runs outside of Node's
 * callback scope: promises settled in it go on only after the next callback of Node's own, so whoever settles any must
 * ask for one by `setImmediate`.
 */

export interface PollOptions {
  readonly readable?: boolean
  readonly writable?: boolean
  readonly disconnect?: boolean
}

/** A descriptor on Node's event loop. */
export interface PollHandle {
  /** Begins again, after an error status stopped it. */
  start(options: PollOptions, callback: (status: number) => void): void
  stop(): void
  close(): void
}
