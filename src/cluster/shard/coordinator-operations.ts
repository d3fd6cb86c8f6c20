/**
 * What only the coordinator asks: the steps of what concerns two directories. Each is done once however often it is asked for, since its
 * request id is remembered; the lock keeps all others from the name meanwhile.
 */
import { OperationError } from '#base/errors.ts'
import { ROOT_INODE, shownInode, type InodeId } from '#cluster/inode-id.ts'
import { NO_INODE } from '#cluster/wire/forms.ts'

import { giveUpFile } from './file-operations.ts'
import { checkOwns, checkTaking, freeName, knownEdge, pastEdge, takeName } from './names-of-directory.ts'
import type { OperationsOf } from './operations.ts'
import {
  directoryKey,
  edgeKey,
  edgesEnd,
  findDirectory,
  pastKey,
  pastsEnd,
  putDirectory,
  putEdge,
  xattrKey,
  xattrsEnd,
} from './records.ts'
import type { Key, StateReader } from '#cluster/journal/state.ts'
import type { shardMessages } from './shard-messages.ts'
import { anyDirectory, checkLive, checkShard, checkType } from './step.ts'

const NOTHING = {}
const MODE_BITS = 0o7777

type CoordinatorOperations =
  | 'createDirectory'
  | 'setOwner'
  | 'removeOwner'
  | 'createEdge'
  | 'lockEdge'
  | 'unlockEdge'
  | 'removeOwnedEdge'
  | 'makeTransient'
  | 'removeDirectory'

export const coordinatorOperations: OperationsOf<typeof shardMessages, CoordinatorOperations> = {
  createDirectory({ batch, shard, timeUs }, { directory, owner, attributes }) {
    checkType(directory, true)
    checkShard(directory, shard)
    checkType(owner, true)
    if (findDirectory(batch, directory) !== undefined) {
      throw new OperationError('NAME_TAKEN', `Cannot make directory ${shownInode(directory)}: it is there`)
    }
    const { mode, uid, gid, mtime, atime } = attributes
    const times = { mtime: mtime ?? timeUs, atime: atime ?? timeUs, ctime: timeUs }
    putDirectory(batch, directory, { mode: mode & MODE_BITS, uid, gid, ...times, owner, policy: undefined })
    return NOTHING
  },

  setOwner({ batch, shard, timeUs }, { directory, owner }) {
    refuseRoot(directory)
    checkType(owner, true)
    checkLive(batch, shard, directory)
    const record = anyDirectory(batch, shard, directory)
    putDirectory(batch, directory, { ...record, owner, ctime: timeUs })
    return NOTHING
  },

  removeOwner({ batch, shard, timeUs }, { directory, policy }) {
    refuseRoot(directory)
    const record = anyDirectory(batch, shard, directory)
    if (record.owner === NO_INODE) return NOTHING
    if (!isEmpty(batch, edgeKey(directory, ''), edgesEnd(directory))) {
      throw new OperationError(
        'DIRECTORY_NOT_EMPTY',
        `Cannot remove directory ${shownInode(directory)}: it is not empty`,
      )
    }
    putDirectory(batch, directory, { ...record, owner: NO_INODE, policy: policy ?? record.policy, ctime: timeUs })
    return NOTHING
  },

  createEdge(step, { directory, name, target, guard }) {
    const before = checkTaking(step, directory, name, target, guard)
    takeName(step, directory, name, target, before)
    return { created: step.timeUs, replaced: before?.inode ?? NO_INODE }
  },

  lockEdge(step, { directory, name, target, created }) {
    const edge = knownEdge(step, directory, name, target, created, 'current')
    putEdge(step.batch, directory, name, { ...edge, state: 'locked' })
    return NOTHING
  },

  unlockEdge(step, { directory, name, target, created, hasLeft }) {
    const edge = knownEdge(step, directory, name, target, created, 'locked')
    if (hasLeft) freeName(step, directory, name, edge, 'left')
    else putEdge(step.batch, directory, name, { ...edge, state: 'current' })
    return { removed: hasLeft ? step.timeUs : 0 }
  },

  removeOwnedEdge(step, { directory, name, created, file }) {
    anyDirectory(step.batch, step.shard, directory)
    checkOwns(name, pastEdge(step, directory, name, created), file)
    step.batch.remove(pastKey(directory, name, created))
    return NOTHING
  },

  makeTransient(step, { file }) {
    checkType(file, false)
    checkShard(file, step.shard)
    giveUpFile(step, file)
    return NOTHING
  },

  removeDirectory({ batch, shard }, { directory }) {
    refuseRoot(directory)
    checkType(directory, true)
    checkShard(directory, shard)
    const record = findDirectory(batch, directory)
    if (record === undefined) return NOTHING
    const action = `Cannot forget directory ${shownInode(directory)}`
    if (record.owner !== NO_INODE) throw new OperationError('DIRECTORY_NOT_EMPTY', `${action}: it was not removed`)
    const hasNames = !isEmpty(batch, edgeKey(directory, ''), edgesEnd(directory))
    if (hasNames || !isEmpty(batch, pastKey(directory, '', 0).slice(0, -8), pastsEnd(directory))) {
      throw new OperationError('DIRECTORY_NOT_EMPTY', `${action}: it has history`)
    }
    const attributes: Key[] = []
    batch.range(xattrKey(directory, ''), xattrsEnd(directory), (key) => {
      attributes.push(key)
      return true
    })
    for (const key of attributes) batch.remove(key)
    batch.remove(directoryKey(directory))
    return NOTHING
  },
}

function refuseRoot(directory: InodeId): void {
  if (directory === ROOT_INODE) throw new OperationError('ROOT_REFUSED', 'Cannot move or remove the root')
}

function isEmpty(state: StateReader, from: Key, to: Key): boolean {
  let found = false
  state.range(from, to, () => {
    found = true
    return false
  })
  return !found
}
