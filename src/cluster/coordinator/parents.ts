/**
 * Where every directory lies, so that none comes to lie in itself: shards see one directory each, and could not tell. It has all directories
 * that are not removed. Only who moves a directory changes what is there, one at a time, so what is read of it when a move
 * begins holds until its end.
 */
import { assert } from '#base/assert.ts'
import { OperationError } from '#base/errors.ts'
import { ROOT_INODE, shownInode, type InodeId } from '#cluster/inode-id.ts'
import type { StateBatch, StateReader } from '#cluster/journal/state.ts'

import { PARENT, SELF } from './records.ts'

/** @throws INODE_NOT_FOUND where it was removed or never made */
export function checkDirectory(state: StateReader, directory: InodeId): void {
  if (directory !== ROOT_INODE) parentOf(state, directory)
}

/** Of `to` coming to be the parent of `directory`. @throws DIRECTORY_LOOP, INODE_NOT_FOUND */
export function checkLoop(state: StateReader, directory: InodeId, to: InodeId): void {
  const depthMax = SELF.get(state)?.directories ?? 0
  let depth = 0
  for (let above = to; above !== ROOT_INODE; above = parentOf(state, above)) {
    assert(depth++ < depthMax, 'directories lie in no circle')
    if (above !== directory) continue
    const detail = to === directory ? 'they are the same' : 'that lies under it'
    const words = `Cannot move directory ${shownInode(directory)} into ${shownInode(to)}: ${detail}`
    throw new OperationError('DIRECTORY_LOOP', words)
  }
}

export function setParent(batch: StateBatch, directory: InodeId, parent: InodeId): void {
  PARENT.put(batch, { parent }, directory)
}

export function dropParent(batch: StateBatch, directory: InodeId): void {
  PARENT.remove(batch, directory)
}

function parentOf(state: StateReader, directory: InodeId): InodeId {
  const found = PARENT.get(state, directory)
  if (found !== undefined) return found.parent
  throw new OperationError('INODE_NOT_FOUND', `Cannot find directory ${shownInode(directory)}: it was removed`)
}
