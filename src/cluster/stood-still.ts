/**
 * Time in which this process did not run: it was stopped, or its machine had no processor for it. What others have answered meanwhile lies
 * in its sockets, unread, so that time says nothing of their silence. It shows in timers that fire late by far, and before anything is
 * read.
 */
import type { Cancel, Clock } from './surroundings.ts'

/** A process that is merely busy is not late by so much, and reads its sockets in between. */
const LATE_MS_MIN = 1000

/** How long the process stood still, by a timer that has just fired and was due at `dueAt`; 0 where it is not late by far. */
export function stoodStillMs(nowMs: number, dueAt: number): number {
  const late = nowMs - dueAt
  return late >= LATE_MS_MIN ? late : 0
}

/** `Clock.after` that waits anew where the process stood still. */
export function afterRunning(clock: Clock, ms: number, action: () => void): Cancel {
  let cancel: Cancel
  const wait = (): void => {
    const dueAt = clock.monotonicMs() + ms
    cancel = clock.after(ms, () => {
      if (stoodStillMs(clock.monotonicMs(), dueAt) > 0) wait()
      else action()
    })
  }
  wait()
  return () => cancel()
}
