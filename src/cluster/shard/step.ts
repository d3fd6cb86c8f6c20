/** One entry being applied: the state, the time, the shard, and what every operation asks first. An operation checks all before it changes anything. */
import { timingSafeEqual } from 'node:crypto'

import { assert } from '#base/assert.ts'
import { OperationError } from '#base/errors.ts'
import { numberValue, readNumber } from '#cluster/journal/keys.ts'
import {
  inodeShard,
  inodeType,
  makeInodeId,
  ROOT_INODE,
  shownInode,
  type InodeId,
  type InodeType,
} from '#cluster/inode-id.ts'
import type { StateBatch, StateReader } from '#cluster/journal/state.ts'
import { shortHmac } from '#cluster/short-hmac.ts'
import { COOKIE_BYTES, NO_INODE } from '#cluster/wire/forms.ts'

import {
  counterKey,
  findDirectory,
  findOwner,
  findTransient,
  SECRET_KEY,
  type DirectoryRecord,
  type TransientRecord,
} from './records.ts'

/** How long a transient file is kept after the last thing that was done with it. */
export const TRANSIENT_US = 3600e6

export interface Step {
  readonly batch: StateBatch
  /** Later than that of every entry before. */
  readonly timeUs: number
  readonly shard: number
  readonly chosen: readonly number[]
}

export function checkShard(inode: InodeId, shard: number): void {
  if (inodeShard(inode) === shard) return
  const detail = `it lies on shard ${inodeShard(inode)}, and shard ${shard} was asked`
  throw new OperationError('INPUT_INVALID', `Cannot find inode ${shownInode(inode)}: ${detail}`)
}

export function checkType(inode: InodeId, isDirectory: boolean): void {
  if ((inodeType(inode) === 'directory') === isDirectory) return
  throw new OperationError(
    isDirectory ? 'DIRECTORY_EXPECTED' : 'FILE_EXPECTED',
    `Cannot use inode ${shownInode(inode)}: it is a ${inodeType(inode)}`,
  )
}

/** A directory, also one that is history. @throws INODE_NOT_FOUND, DIRECTORY_EXPECTED */
export function anyDirectory(state: StateReader, shard: number, directory: InodeId): DirectoryRecord {
  checkType(directory, true)
  checkShard(directory, shard)
  const record = findDirectory(state, directory)
  if (record !== undefined) return record
  throw noDirectory(directory)
}

function noDirectory(directory: InodeId): OperationError {
  return new OperationError('INODE_NOT_FOUND', `Cannot find directory ${shownInode(directory)}`)
}

/** That a directory can have names. @throws INODE_NOT_FOUND, DIRECTORY_EXPECTED, DIRECTORY_REMOVED */
export function checkLive(state: StateReader, shard: number, directory: InodeId): void {
  checkType(directory, true)
  checkShard(directory, shard)
  const owner = findOwner(state, directory)
  if (owner === undefined) throw noDirectory(directory)
  if (owner !== NO_INODE || directory === ROOT_INODE) return
  throw new OperationError('DIRECTORY_REMOVED', `Cannot use directory ${shownInode(directory)}: it was removed`)
}

/** A transient file, expired or not. @throws INODE_NOT_FOUND, TRANSIENT_EXPECTED, COOKIE_REFUSED */
export function ownTransient(state: StateReader, shard: number, file: InodeId, cookie: Buffer): TransientRecord {
  checkShard(file, shard)
  if (!timingSafeEqual(cookie, cookieOf(state, file))) {
    throw new OperationError(
      'COOKIE_REFUSED',
      `Cannot change transient file ${shownInode(file)}: its cookie is another`,
    )
  }
  return anyTransient(state, file)
}

/** @throws INODE_NOT_FOUND */
function anyTransient(state: StateReader, file: InodeId): TransientRecord {
  const record = findTransient(state, file)
  if (record !== undefined) return record
  throw new OperationError('INODE_NOT_FOUND', `Cannot find transient file ${shownInode(file)}`)
}

/** One that can still be written. @throws INODE_NOT_FOUND, COOKIE_REFUSED, TRANSIENT_EXPIRED */
export function liveTransient(step: Step, file: InodeId, cookie: Buffer): TransientRecord {
  const record = ownTransient(step.batch, step.shard, file, cookie)
  if (record.deadline > step.timeUs) return record
  throw new OperationError('TRANSIENT_EXPIRED', `Cannot go on with transient file ${shownInode(file)}: it was given up`)
}

/** Proves that a transient file is one's own. */
export function cookieOf(state: StateReader, file: InodeId): Buffer {
  const secret = state.get(SECRET_KEY)
  assert(secret !== undefined, 'a shard has a secret from its first entry on')
  return shortHmac(secret, numberValue(file), COOKIE_BYTES)
}

/** An id that was never given out. */
export function newInode(step: Step, type: InodeType): InodeId {
  const key = counterKey(step.shard, type)
  const value = step.batch.get(key)
  const counter = value === undefined ? 1 : readNumber(value, 0) + 1
  step.batch.put(key, numberValue(counter))
  return makeInodeId(type, step.shard, counter)
}
