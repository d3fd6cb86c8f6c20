/**
 * Whether the directories that are synced are those of before: what is not found in another one proves nothing. A root is known by
 * a mark of its own, an extended attribute that goes with it wherever it is mounted; where it cannot have one, by device and inode.
 */
import { randomUUID } from 'node:crypto'

import { OperationError } from '#base/errors.ts'
import { SystemCallError } from '#os/libc.ts'
import { closeSync, constants, openSync } from 'node:fs'
import { statusOf } from '#os/status.ts'
import { inodePath } from '#os/inode.ts'
import { xattrGet, xattrSet } from '#os/xattr.ts'

import type { Root } from './prefixes.ts'
import type { SyncState } from './state.ts'

const MARK = 'user.eider.root'

interface Identity {
  readonly id: string
  /** Empty where the file system holds none. */
  readonly mark: string
  /** That it has been on: a disk may have another number after each start of the machine. */
  readonly devices: readonly number[]
}

/**
 * Compares the roots with those of the last run, and remembers them unless it is only to look. Gives the devices that they have
 * been on.
 * @param isMeant `--yes-delete`: a root that is another one is taken as the new one
 * @throws OperationError `ROOT_CHANGED`
 */
export async function checkRoots(
  roots: readonly Root[],
  state: SyncState,
  isMeant: boolean,
  onlyLook = false,
): Promise<ReadonlySet<number>> {
  const devices = new Set<number>()
  for (const { source, isDirectory } of roots) {
    if (!isDirectory) continue
    const now = identityOf(source, onlyLook)
    const told = state.fact(`root ${source}`)
    const before = told === undefined ? undefined : (JSON.parse(told) as Identity)
    if (before !== undefined && !isSame(before, now) && !isMeant) {
      throw new OperationError(
        'ROOT_CHANGED',
        `Cannot sync "${source}": it is not the directory that was synced before; is its disk mounted?`,
      )
    }
    const all = [...new Set([...(before?.devices ?? []), ...now.devices])]
    for (const device of all) devices.add(device)
    const fact = JSON.stringify({ ...now, devices: all })
    if (fact !== told && !onlyLook) await state.setFact(`root ${source}`, fact)
  }
  return devices
}

function isSame(before: Identity, now: Identity): boolean {
  return before.mark === '' ? before.id === now.id : before.mark === now.mark
}

/** Gives the directory a mark, where it has none and can have one, unless it is only to look. */
function identityOf(directory: string, onlyLook: boolean): Identity {
  let fd: number
  try {
    fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY)
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error)
    throw new OperationError('LOCAL_FAILED', `Cannot sync "${directory}": ${detail}`, { cause: error })
  }
  try {
    const path = inodePath(fd)
    const { id, device } = statusOf(fd)
    return { id, mark: markOf(path, onlyLook), devices: [device] }
  } finally {
    closeSync(fd)
  }
}

function markOf(path: string, onlyLook: boolean): string {
  try {
    const found = xattrGet(path, MARK)
    if (found !== undefined) return found.toString()
    if (onlyLook) return ''
    const mark = randomUUID()
    xattrSet(path, MARK, Buffer.from(mark))
    return mark
  } catch (error) {
    // Read-only, another's, or without extended attributes.
    if (error instanceof SystemCallError) return ''
    throw error
  }
}
