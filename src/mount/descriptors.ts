/**
 * Whether a process still has a file open by another descriptor. The kernel sends FLUSH for each descriptor that is closed, and a
 * shell makes and closes a copy for each redirection: `cmd > file` closes one right after the open, `echo >&9` one a line.
 * None of these is the end of the writing, and to publish at each would put half-written files into the store.
 *
 * Only /proc is read, never the files that its links name: those may lie in the mount that asks. Where anything is in
 * doubt (another mount namespace, no permission, too many descriptors) the answer is no, and the file is published.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

import type { NodeId } from '#fuse/file-system.ts'

/** Looking at more would cost more than it saves. */
const DESCRIPTORS_MAX = 64
const O_ACCMODE = 3

/** Asks whether the process has the node open for writing. */
export type HoldsOpen = (pid: number, node: NodeId) => boolean

/** For the mount with this id in the mount table, on this directory. */
export function holdsOpenIn(mountId: number, directory: string): HoldsOpen {
  return (pid, node) => {
    try {
      const descriptors = readdirSync(`/proc/${pid}/fd`)
      if (descriptors.length > DESCRIPTORS_MAX) return false
      return descriptors.some(
        (fd) =>
          readlinkSync(`/proc/${pid}/fd/${fd}`).startsWith(`${directory}/`) &&
          isWritable(readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'latin1'), mountId, node),
      )
    } catch {
      // The process has ended, or is not ours to look at.
      return false
    }
  }
}

/** Whether a descriptor's fdinfo (proc_pid_fdinfo(5)) is of that node of that mount, open for writing. */
function isWritable(info: string, mountId: number, node: NodeId): boolean {
  const field = (name: string): string | undefined => new RegExp(`^${name}:\\s+(\\d+)$`, 'm').exec(info)?.[1]
  const flags = field('flags')
  if (flags === undefined || (Number.parseInt(flags, 8) & O_ACCMODE) === 0) return false
  return Number(field('mnt_id')) === mountId && Number(field('ino')) === node
}
