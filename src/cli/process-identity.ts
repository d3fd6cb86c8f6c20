/**
 * Which process is meant: a number alone may by now belong to another one, so it goes with the time at which the process
 * started, from /proc. Not here: signals to groups.
 */
import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'

export interface ProcessIdentity {
  readonly pid: number
  /** Clock ticks from the start of the machine to that of the process. */
  readonly startTicks: number
}

/** How often a wait looks: short beside a store's answer, and some hundred looks a second cost nothing. */
const LOOK_MS = 10

/** The process that has that number now. */
export function identityOf(pid: number): ProcessIdentity {
  return { pid, startTicks: startTicksOf(pid) ?? 0 }
}

/** Whether that very process still runs. */
export function isRunning({ pid, startTicks }: ProcessIdentity): boolean {
  return startTicksOf(pid) === startTicks
}

/** Resolves to whether the process has ended, within `ms` or never where that is undefined. */
export async function hasEnded(identity: ProcessIdentity, ms?: number): Promise<boolean> {
  const deadline = ms === undefined ? Number.POSITIVE_INFINITY : performance.now() + ms
  while (isRunning(identity)) {
    if (performance.now() > deadline) return false
    await delay(LOOK_MS)
  }
  return true
}

/** Undefined where there is no such process, or only what its parent has not yet waited for. */
function startTicksOf(pid: number): number | undefined {
  try {
    // The name, in parentheses, may have spaces and parentheses in it.
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return fields[0] === 'Z' || fields[0] === 'X' ? undefined : Number(fields[19])
  } catch {
    return undefined
  }
}
