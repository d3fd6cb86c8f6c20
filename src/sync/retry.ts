/** What becomes of work that failed: whether it is tried again, when, and what ends the sync. Pure, but for the jitter. */
import { AssertionError } from 'node:assert'

import { isOperationError, type ErrorCode } from '#base/errors.ts'

/** Tries of a path in a run that ends; one that stays goes on. */
export const TRIES_MAX = 5
const RETRY_FIRST_MS = 250
const RETRY_LAST_MS = 30_000
/** What another look may find over: the source is another by now, or something else is done to the target nearby. */
const PASSING: readonly ErrorCode[] = [
  'FILE_STALE',
  'STORE_NOT_FOUND',
  'STORE_CONFLICT',
  'STORE_NOT_DIRECTORY',
  'STORE_IS_DIRECTORY',
  'STORE_NOT_EMPTY',
]
/** What fails for every path in the same way. */
const FATAL: readonly ErrorCode[] = [
  'ROOT_CHANGED',
  'DELETES_REFUSED',
  'BUCKET_NOT_FOUND',
  'CREDENTIALS_MISSING',
  'CREDENTIALS_REFUSED',
  'CLOCK_SKEWED',
  'REGION_WRONG',
]

/** Whether the sync cannot go on, for any path. */
export function isFatal(error: unknown): boolean {
  return error instanceof AssertionError || isOperationError(error, ...FATAL)
}

/** Whether another try may help. */
export function mayPass(error: unknown): boolean {
  return isOperationError(error, ...PASSING) || !isOperationError(error) || error.retry !== 'never'
}

/** How long to wait after so many tries: with full jitter, so that what failed together does not come back together. */
export function pauseMs(tries: number): number {
  return Math.random() * Math.min(RETRY_LAST_MS, RETRY_FIRST_MS * 2 ** tries)
}
