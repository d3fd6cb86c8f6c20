/**
 * Interrupts. The kernel sends one for any signal that a process in a call gets, also for timers and the end of children,
 * and a call that then ends by EINTR surprises programs which never saw that from a disk. So a wait goes on for a while,
 * and only one that lasts is given up: Ctrl-C works on a store that does not answer.
 */
import { OperationError } from '#base/errors.ts'

const GRACE_MS = 2000

/** Settles as `promise` does, or rejects with `ABORTED` when it has not done so some time after `signal` fired. */
export function patiently<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    let timer: NodeJS.Timeout | undefined
    const giveUp = (): void => {
      reject(new OperationError('ABORTED', 'Cannot go on: the caller was interrupted', { cause: signal.reason }))
    }
    const wait = (): void => {
      timer = setTimeout(giveUp, GRACE_MS)
    }
    const done = (): void => {
      signal.removeEventListener('abort', wait)
      clearTimeout(timer)
    }
    if (signal.aborted) wait()
    else signal.addEventListener('abort', wait, { once: true })
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
