/**
 * Mounts whose process is gone: they stay in the mount table, and every access fails. Whether one is dead is asked of the mount
 * itself, as a record may be missing, or its process may have ended while another one still serves.
 */
import { probeMountPoint } from '#os/mount-point.ts'
import { mounts } from '#os/mount-table.ts'
import { type MountRecord, MOUNT_TYPE } from './mount-records.ts'
import { isRunning } from './process-identity.ts'

export interface DeadMount {
  readonly directory: string
  /** The URL of the store, without secrets. */
  readonly store: string
  /** Who served it, and where it logged, where a record tells. */
  readonly pid?: number
  readonly log?: string
}

/** Those of the machine, or on that directory alone; `records` are what is known of them. */
export async function deadMounts(records: readonly MountRecord[], directory?: string): Promise<DeadMount[]> {
  const served = new Set(records.filter((each) => isRunning(each.process)).map((each) => each.directory))
  // Of mounts over mounts the one on top is what programs meet.
  const tops = new Map(mounts().map((entry) => [entry.directory, entry]))
  const candidates = [...tops.values()].filter(
    (entry) =>
      entry.type === MOUNT_TYPE &&
      !served.has(entry.directory) &&
      (directory === undefined || entry.directory === directory),
  )
  const states = await Promise.all(candidates.map((entry) => probeMountPoint(entry.directory)))
  return candidates
    .filter((_, index) => states[index] === 'stale')
    .map((entry) => {
      const record = records.find((each) => each.directory === entry.directory)
      const { log } = record ?? {}
      return {
        directory: entry.directory,
        store: entry.source,
        ...(record === undefined ? {} : { pid: record.process.pid }),
        ...(log === undefined ? {} : { log }),
      }
    })
}
