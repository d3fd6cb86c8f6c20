/**
 * What happens to the names in a directory. The rules of history:
 *
 *   a file takes a free name           current edge
 *   a file takes the name of a file    the old edge goes to history, which owns the old file from now on
 *   a file is unlinked                 the same, and the name is marked as removed from now on
 *   what has the name moves away       the old edge goes to history, which owns nothing of it; removed from now on
 *   a directory is removed             the same: history owns no directories
 *
 * So exactly one edge owns a file: its current one, or one of history. Times of edges of a name strictly increase, since those of entries do.
 */
import { OperationError } from '#base/errors.ts'
import { shownInode, type InodeId } from '#cluster/inode-id.ts'
import { NO_INODE, type NameGuard } from '#cluster/wire/forms.ts'

import { checkLength, checkName } from './names.ts'
import {
  edgeKey,
  findEdge,
  isDirectory,
  pastKey,
  putEdge,
  putPast,
  readPast,
  removedAt,
  touchDirectory,
  type EdgeRecord,
} from './records.ts'
import { checkLive, type Step } from './step.ts'

/** The name, checked for taking it: what it led to until now. @throws NAME_TAKEN, NAME_LOCKED, EDGE_CHANGED, and those of a name or directory */
export function checkTaking(
  step: Step,
  directory: InodeId,
  name: string,
  target: InodeId,
  guard: NameGuard,
): EdgeRecord | undefined {
  checkName(name)
  checkLive(step.batch, step.shard, directory)
  const found = findEdge(step.batch, directory, name)
  const what = target === NO_INODE ? 'what is new' : `inode ${shownInode(target)}`
  const action = `Cannot give ${JSON.stringify(name)} to ${what}`
  if (guard.how === 'is' && found?.inode !== guard.inode) {
    const detail = found === undefined ? 'nothing has it' : `it leads to ${shownInode(found.inode)}`
    throw new OperationError('EDGE_CHANGED', `${action}: ${detail}`)
  }
  if (found === undefined) return undefined
  if (found.state === 'locked') throw new OperationError('NAME_LOCKED', `${action}: what has it is being moved`)
  if (guard.how === 'absent' || isDirectory(found.inode) || isDirectory(target)) {
    throw new OperationError('NAME_TAKEN', `${action}: ${shownInode(found.inode)} has it`)
  }
  return found
}

/** Takes a name after `checkTaking`: from now on it leads to `target`. */
export function takeName(
  step: Step,
  directory: InodeId,
  name: string,
  target: InodeId,
  before: EdgeRecord | undefined,
): void {
  if (before !== undefined) putPast(step.batch, directory, name, { ...before, state: 'owned' })
  putEdge(step.batch, directory, name, { inode: target, created: step.timeUs, state: 'current' })
  touchDirectory(step.batch, directory, step.timeUs)
}

/** The edge that somebody who looked it up knows. @throws NAME_NOT_FOUND, EDGE_CHANGED, NAME_LOCKED where `expected` is `current` */
export function knownEdge(
  step: Step,
  directory: InodeId,
  name: string,
  inode: InodeId,
  created: number,
  expected: 'current' | 'locked',
): EdgeRecord {
  checkLength(name)
  checkLive(step.batch, step.shard, directory)
  const found = findEdge(step.batch, directory, name)
  const action = `Cannot change what ${JSON.stringify(name)} leads to`
  if (found === undefined) throw new OperationError('NAME_NOT_FOUND', `${action}: nothing has that name`)
  if (found.inode !== inode || found.created !== created) {
    throw new OperationError('EDGE_CHANGED', `${action}: it leads to ${shownInode(found.inode)} now`)
  }
  if (found.state === expected) return found
  if (expected === 'current') throw new OperationError('NAME_LOCKED', `${action}: what has it is being moved`)
  throw new OperationError('EDGE_CHANGED', `${action}: it is not locked`)
}

/** The name is free from now on; what had it is kept by history, or lives elsewhere. */
export function freeName(
  step: Step,
  directory: InodeId,
  name: string,
  edge: EdgeRecord,
  becomes: 'owned' | 'left',
): void {
  putPast(step.batch, directory, name, { ...edge, state: becomes })
  putPast(step.batch, directory, name, removedAt(step.timeUs))
  step.batch.remove(edgeKey(directory, name))
  touchDirectory(step.batch, directory, step.timeUs)
}

/** An edge of the history. @throws NAME_NOT_FOUND */
export function pastEdge(step: Step, directory: InodeId, name: string, created: number): EdgeRecord {
  const found = findPast(step, directory, name, created)
  if (found !== undefined) return found
  const detail = `there is no edge of ${created}`
  throw new OperationError('NAME_NOT_FOUND', `Cannot find ${JSON.stringify(name)} in the history: ${detail}`)
}

export function findPast(step: Step, directory: InodeId, name: string, created: number): EdgeRecord | undefined {
  checkLength(name)
  const key = pastKey(directory, name, created)
  const value = step.batch.get(key)
  return value === undefined ? undefined : readPast(key, value)
}

/** @throws EDGE_CHANGED where the edge does not own that file */
export function checkOwns(name: string, edge: EdgeRecord, file?: InodeId): void {
  if (edge.state === 'owned' && (file === undefined || edge.inode === file)) return
  const what = edge.inode === NO_INODE ? 'nothing' : shownInode(edge.inode)
  const detail = `that edge leads to ${what} and owns ${edge.state === 'owned' ? 'it' : 'nothing'}`
  throw new OperationError('EDGE_CHANGED', `Cannot take ${JSON.stringify(name)} out of the history: ${detail}`)
}
