/** Puts a sync together from what was asked for. */
import { OperationError } from '#base/errors.ts'
import { checkPath, isWithin, OWN_NAME } from '#store/path.ts'

import type { Actor } from './actor.ts'
import { Bandwidth } from './bandwidth.ts'
import { Decider } from './decision.ts'
import { DeleteGuard, type DeleteRules } from './delete-guard.ts'
import { Executor } from './executor.ts'
import { checkRoots } from './root-guard.ts'
import type { Root } from './prefixes.ts'
import type { SyncSource } from './source.ts'
import type { SyncState } from './state.ts'
import { Sync, type Follower, type SyncObserver, type SyncOptions, type SyncParts } from './sync.ts'

export interface SyncSettings extends SyncOptions {
  readonly links: 'skip' | 'keep' | 'follow'
  /** Bytes decide what is the same. */
  readonly checksum: boolean
  readonly verify: boolean
  readonly bytesPerSecond: number
  readonly deleteRules: DeleteRules
  readonly keyOf: (path: string) => string
}

/** What a sync works with. `roots` are local ones. */
export interface SyncEnds {
  readonly source: SyncSource
  readonly roots: readonly Root[]
  readonly actor: Actor
  readonly state: SyncState
  readonly follower?: Follower | undefined
}

/** @throws OperationError `STORE_UNSUPPORTED` where the target cannot do what is asked for, `ROOT_CHANGED` */
export async function openSync(ends: SyncEnds, settings: SyncSettings, observer: SyncObserver): Promise<Sync> {
  return new Sync(await openParts(ends, settings), settings, observer, ends.follower)
}

/**
 * What decides and what carries out, for a sync and for a plan, which changes nothing (`onlyLook`).
 * @throws OperationError as `openSync`
 */
export async function openParts(
  { source, actor, state, roots }: SyncEnds,
  settings: SyncSettings,
  onlyLook = false,
): Promise<SyncParts> {
  checkActor(actor, settings)
  const parts = partsOf(source, actor, state, settings)
  if (settings.deletes !== 'never') {
    const { isMeant } = settings.deleteRules
    const devices = await checkRoots(roots, state, isMeant, onlyLook)
    // Who means all deletions means those of a file system that is not there any more, too.
    if (!isMeant) parts.decider.rootDevices = devices
  }
  return parts
}

/** Without a look at what the target can do, and whether the roots are those of before. */
export function partsOf(source: SyncSource, actor: Actor, state: SyncState, settings: SyncSettings): SyncParts {
  const { metadata, links, signal, verify, backupDirectory, keyOf, bytesPerSecond } = settings
  const deletes = settings.deletes !== 'never'
  const rules = {
    targetPrecisionNs: actor.keeps?.mtimePrecisionNs ?? 1,
    sourceGranularityNs: source.granularityNs,
    byHash: settings.checksum,
  }
  const decider = new Decider(source, actor, state, { rules, metadata, links, deletes, signal })
  const deleteGuard = new DeleteGuard(settings.deleteRules)
  const bandwidth = bytesPerSecond === 0 ? undefined : new Bandwidth(bytesPerSecond)
  const executor = new Executor(source, actor, state, deleteGuard, {
    ...{ metadata, verify, deletes, backupDirectory, bandwidth, keyOf, signal },
  })
  return { source, actor, state, decider, executor, deleteGuard }
}

function checkActor(actor: Actor, { metadata, links, verify, backupDirectory, checksum }: SyncSettings): void {
  const lacks = (flag: string, what: string): OperationError =>
    new OperationError('STORE_UNSUPPORTED', `Cannot use ${flag} with ${actor.url}: ${what}`)
  if (metadata && actor.keeps?.attributes !== true) throw lacks('--metadata', 'it keeps no attributes of files')
  if (links === 'keep' && actor.symlink === undefined) throw lacks('--links keep', 'it holds no symlinks')
  if ((verify || checksum) && actor.hash === undefined) {
    throw lacks(verify ? '--verify' : '--checksum', 'it cannot be read back')
  }
  if (backupDirectory !== undefined) checkBackup(backupDirectory)
  if (backupDirectory !== undefined && actor.copy === undefined) {
    throw lacks('--backup-dir', 'it cannot copy what it has')
  }
}

function checkBackup(directory: string): void {
  try {
    if (directory.startsWith('/')) throw new Error('it is a path within the target, and that is not on this disk')
    checkPath(directory)
    if (directory === '' || isWithin(directory, OWN_NAME)) throw new Error('it has to be a directory of its own')
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error)
    throw new OperationError('USAGE', `Cannot keep what is replaced in "${directory}": ${detail}`, { cause: error })
  }
}
