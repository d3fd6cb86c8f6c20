/**
 * Conditional requests: what a read's If- headers say of the object found, and which guard a write's become. A write
 * compares the tag with what is stored and then mutates under the guard of the version that it compared, so nothing
 * can come in between; when the store says that something did, what is stored then decides on the answer.
 */
import { isOperationError } from '#base/errors.ts'
import { timestampToMs } from '#base/time.ts'
import { ABSENT, ANY, ifVersion, type Guard } from '#store/store.ts'

import { S3Error } from './errors.ts'
import { matchesEtag } from './etag.ts'
import type { Exchange } from './exchange.ts'
import type { ObjectTree, StoredObject } from './object-tree.ts'

/** Names of the four conditions: of a read, or of the source of a copy. */
const READ = {
  match: 'if-match',
  noneMatch: 'if-none-match',
  modified: 'if-modified-since',
  unmodified: 'if-unmodified-since',
}
const COPY_SOURCE = {
  match: 'x-amz-copy-source-if-match',
  noneMatch: 'x-amz-copy-source-if-none-match',
  modified: 'x-amz-copy-source-if-modified-since',
  unmodified: 'x-amz-copy-source-if-unmodified-since',
}

/** `failed`: 412; `notModified`: 304 for a read. The order is that of RFC 9110, section 13.2.2. */
function evaluate(exchange: Exchange, object: StoredObject, names: typeof READ): 'holds' | 'failed' | 'notModified' {
  const match = exchange.header(names.match)
  const noneMatch = exchange.header(names.noneMatch)
  const unmodified = dateOf(exchange.header(names.unmodified))
  const modified = dateOf(exchange.header(names.modified))
  // HTTP dates have whole seconds, so the object's time is cut to them.
  const time = Math.floor(timestampToMs(object.modified) / 1000) * 1000
  if (match !== undefined) {
    if (!matchesEtag(match, object.etag)) return 'failed'
  } else if (unmodified !== undefined && time > unmodified) return 'failed'
  if (noneMatch !== undefined) {
    if (matchesEtag(noneMatch, object.etag)) return 'notModified'
  } else if (modified !== undefined && time <= modified) return 'notModified'
  return 'holds'
}

function dateOf(header: string | undefined): number | undefined {
  const ms = header === undefined ? Number.NaN : Date.parse(header)
  // A date that cannot be read is ignored, as RFC 9110 has it.
  return Number.isNaN(ms) ? undefined : ms
}

/** Whether a read is to be answered with 304. @throws S3Error `PreconditionFailed`. */
export function isNotModified(exchange: Exchange, object: StoredObject): boolean {
  const result = evaluate(exchange, object, READ)
  if (result === 'failed') throw new S3Error('PreconditionFailed')
  return result === 'notModified'
}

/** @throws S3Error `PreconditionFailed` where the source of a copy is not as the request has it. */
export function checkCopySource(exchange: Exchange, object: StoredObject): void {
  if (evaluate(exchange, object, COPY_SOURCE) !== 'holds') throw new S3Error('PreconditionFailed')
}

/** What a write asks of what is stored under its key. */
export interface WriteCondition {
  readonly ifMatch: string | undefined
  readonly ifNoneMatch: boolean
}

/** The condition in a write's headers. @throws S3Error `NotImplemented` where it is none that S3 has for writes. */
export function writeCondition(exchange: Exchange): WriteCondition {
  const ifMatch = exchange.header('if-match')
  const noneMatch = exchange.header('if-none-match')
  if (noneMatch !== undefined && noneMatch.trim() !== '*') {
    throw new S3Error('NotImplemented', 'If-None-Match of a write can only be *')
  }
  if (ifMatch !== undefined && noneMatch !== undefined) {
    throw new S3Error('NotImplemented', 'A write can have If-Match or If-None-Match, not both')
  }
  return { ifMatch, ifNoneMatch: noneMatch !== undefined }
}

/** The guard for a write. @throws S3Error `PreconditionFailed`, or `NoSuchKey` where If-Match finds nothing. */
async function guardOf(
  tree: ObjectTree,
  bucket: string,
  key: string,
  condition: WriteCondition,
  signal: AbortSignal,
): Promise<Guard> {
  if (condition.ifMatch === undefined && !condition.ifNoneMatch) return ANY
  const found = await tree.find(bucket, key, signal)
  if (condition.ifNoneMatch) {
    if (found !== undefined) throw new S3Error('PreconditionFailed')
    return ABSENT
  }
  if (found === undefined) throw await tree.missing(bucket, key, signal)
  if (!matchesEtag(condition.ifMatch ?? '', found.etag)) throw new S3Error('PreconditionFailed')
  return ifVersion(found.entry.version)
}

/**
 * Runs a write under its guard. Where the store says that the guard did not hold: 412 if the condition does not hold
 * now either, else 409 (something changed that the condition does not speak of), after which S3's clients try again.
 */
export async function underCondition<T>(
  tree: ObjectTree,
  bucket: string,
  key: string,
  condition: WriteCondition,
  signal: AbortSignal,
  write: (guard: Guard) => Promise<T>,
): Promise<T> {
  const guard = await guardOf(tree, bucket, key, condition, signal)
  try {
    return await write(guard)
  } catch (error) {
    if (guard.kind === 'any' || !isOperationError(error, 'STORE_CONFLICT')) throw error
    await guardOf(tree, bucket, key, condition, signal)
    if (guard.kind === 'absent' && !key.endsWith('/')) await refuseDirectory(tree, bucket, key, signal)
    throw new S3Error('ConditionalRequestConflict', undefined, { cause: error })
  }
}

/** A directory that is only what keys lie under is no object, but keeps one of its name from being. */
async function refuseDirectory(tree: ObjectTree, bucket: string, key: string, signal: AbortSignal): Promise<void> {
  let kind: string
  try {
    kind = (await tree.store.stat(tree.pathOf(bucket, key), { signal })).kind
  } catch (error) {
    if (isOperationError(error, 'STORE_NOT_FOUND', 'STORE_NOT_DIRECTORY')) return
    throw error
  }
  if (kind === 'directory') {
    throw new S3Error('InvalidRequest', 'Keys lie under this one, so that it cannot be an object', { status: 409 })
  }
}
