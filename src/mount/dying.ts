/**
 * Whether who waits in a call is being killed. The kernel tells of an interrupt and not by which signal, and a program that is
 * to go on must not see a change end by EINTR: it may have happened. One that is being killed sees nothing any more.
 */
import { readFileSync } from 'node:fs'

const SIGKILL_BIT = 1n << 8n

/** Whether the thread `pid` has SIGKILL pending, as every thread has that a signal is about to end. False where it cannot be told. */
export function isDying(pid: number): boolean {
  // Of another pid namespace.
  if (pid === 0) return false
  try {
    const pending = /^SigPnd:\s*([0-9a-f]+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]
    return pending !== undefined && (BigInt(`0x${pending}`) & SIGKILL_BIT) !== 0n
  } catch {
    // It is gone, or may not be looked at: it waits for the answer, as without a signal.
    return false
  }
}
