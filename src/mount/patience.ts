/**
 * Interrupts. The kernel sends one for any signal that a process in a call gets, also for timers and the end of children,
 * and a call that then ends by EINTR surprises programs which never saw that from a disk. So a wait goes on for a while,
 * and only one that lasts is given up: Ctrl-C works on a store that does not answer.
 */
import { OperationError } from '#base/errors.ts'
import type { Caller } from '#fuse/file-system.ts'

const GRACE_MS = 2000

/** Settles as `promise` does, or rejects with `ABORTED` when it has not done so some time after `signal` fired. */
export function patiently<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return unless(promise, signal, () => true)
}

/**
 * As `promise`, for a change: given up only when its caller is being killed, who sees no answer. What it began goes on, and
 * when it succeeds after all, `late` is told, for what nobody takes.
 */
export function untilKilled<T>(
  promise: Promise<T>,
  { pid, signal }: Pick<Caller, 'pid' | 'signal'>,
  isDying: (pid: number) => boolean,
  late?: (value: T) => void,
): Promise<T> {
  return unless(promise, signal, () => isDying(pid), late)
}

/** Once `signal` has fired, asks every so often whether to give up. */
function unless<T>(
  promise: Promise<T>,
  signal: AbortSignal,
  givesUp: () => boolean,
  late?: (value: T) => void,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    let timer: NodeJS.Timeout | undefined
    let isGivenUp = false
    const ask = (): void => {
      if (!givesUp()) return wait()
      isGivenUp = true
      reject(new OperationError('ABORTED', 'Cannot go on: the caller was interrupted', { cause: signal.reason }))
    }
    const wait = (): void => {
      timer = setTimeout(ask, GRACE_MS)
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
        if (isGivenUp) late?.(value)
        else resolve(value)
      },
      (error: unknown) => {
        done()
        reject(error)
      },
    )
  })
}
