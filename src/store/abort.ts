/**
 * Giving calls up: what every store does with the `AbortSignal` of a call, so that each says `ABORTED` in the same words.
 */
import { OperationError } from '#base/errors.ts'

/** The error of a call that was given up; `action` completes "Cannot ...". */
export function abortedError(action: string, signal: AbortSignal): OperationError {
  return new OperationError('ABORTED', `Cannot ${action}: the caller gave it up`, { cause: signal.reason })
}

/** Throws `ABORTED` where the signal has fired. */
export function checkAborted(action: string, signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw abortedError(action, signal)
}

/** Settles as `promise` does, or rejects with `ABORTED` once the signal fires; what `promise` does then is nobody's. */
export function untilAborted<T>(action: string, promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise
  return new Promise<T>((resolve, reject) => {
    const onAbort = (): void => reject(abortedError(action, signal))
    if (signal.aborted) onAbort()
    else signal.addEventListener('abort', onAbort, { once: true })
    const done = (): void => signal.removeEventListener('abort', onAbort)
    promise.then(
      (value) => {
        done()
        resolve(value)
      },
      (error: unknown) => {
        done()
        reject(error)
      },
    )
  })
}
