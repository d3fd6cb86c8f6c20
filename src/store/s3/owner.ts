/**
 * Which process owns something in a bucket, so that a process of the same machine can tell at once that it has ended. Of
 * processes elsewhere nothing is known: they may be alive.
 */
import { readFileSync, readlinkSync } from 'node:fs'
import { hostname } from 'node:os'

export interface Owner {
  /** For programs: machine since its start, space of process numbers, number, and start time of the process. */
  readonly owner: string
  /** For people. */
  readonly who: string
}

let own: Owner | undefined

/** This process. */
export function thisOwner(): Owner {
  own ??= {
    owner: [...(place() ?? ['', '']), process.pid, startTicksOf(process.pid) ?? ''].join(' '),
    who: `${hostname()}, process ${process.pid}`,
  }
  return own
}

/** Whether an owner is known to have ended. */
export function hasOwnerEnded(owner: string): boolean {
  const [boot, space, pid = '', startTicks] = owner.split(' ')
  const here = place()
  if (here === undefined || boot !== here[0] || space !== here[1] || !/^\d+$/.test(pid)) return false
  return startTicksOf(Number(pid)) !== startTicks
}

/** Where process numbers mean the same. */
function place(): readonly [boot: string, space: string] | undefined {
  try {
    return [readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim(), readlinkSync('/proc/self/ns/pid')]
  } catch {
    // Without /proc no owner is ever known to have ended: its lease has to run out.
    return undefined
  }
}

function startTicksOf(pid: number): string | undefined {
  try {
    // The name, in parentheses, may have spaces and parentheses in it.
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return fields[0] === 'Z' || fields[0] === 'X' ? undefined : fields[19]
  } catch {
    // There is no such process.
    return undefined
  }
}
