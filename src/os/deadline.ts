/**
 * A bound on waiting for what cannot be called off: a look at a file system that may hang, a helper program. The work
 * itself goes on when its time is up; only the waiting ends.
 */
import { OperationError } from '#base/errors.ts'

/**
 * Settles as `work` does, but no later than after `ms`.
 * @throws LOCAL_FAILED when the time is up ("Cannot ACTION: ..."), ABORTED when the signal fires.
 */
export function withDeadline<T>(action: string, work: Promise<T>, ms: number, signal?: AbortSignal): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const onAbort = (): void => {
      reject(new OperationError('ABORTED', `Cannot ${action}: the caller gave it up`, { cause: signal?.reason }))
    }
    const timer = setTimeout(() => {
      reject(new OperationError('LOCAL_FAILED', `Cannot ${action}: no answer within ${ms} ms`))
    }, ms)
    const settled = (): void => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
    }
    work.finally(settled).then(resolve, reject)
    if (signal?.aborted === true) onAbort()
    else signal?.addEventListener('abort', onAbort, { once: true })
  })
}
