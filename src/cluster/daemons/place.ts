/** Where a process is on real machines: what tells its data directory from every copy of it. */
import { readFileSync, statSync } from 'node:fs'

import { OperationError } from '#base/errors.ts'

/**
 * The boot of the machine, and the directory itself: who starts there again is in the same place, and the lock of the directory proves that the one
 * before has ended. A copy is another directory; what was moved to another machine, or outlasted a boot, is in another place, too.
 * @throws LOCAL_FAILED
 */
export function placeOf(data: string): string {
  try {
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()
    const { dev, ino } = statSync(data, { bigint: true })
    return `${boot} ${dev} ${ino}`
  } catch (error) {
    const detail = (error as Error).message
    throw new OperationError('LOCAL_FAILED', `Cannot tell where "${data}" is: ${detail}`, { cause: error })
  }
}

/**
 * The directory itself, for good: what is kept in it and compared at the next start. So the copy of a disk is served by another process,
 * and the registry can tell.
 */
export function originOf(data: string): string {
  const { ino, birthtimeNs } = statSync(data, { bigint: true })
  return `${ino}-${birthtimeNs}`
}
