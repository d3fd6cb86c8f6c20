/**
 * Names that are a file and a directory at once, which a flat key space can have: two machines make `x` and `x/` at the same
 * time, or another tool puts a key below a file. The directory has the name, for what lies in it could not be reached
 * otherwise; the file is hidden, stays as it is in the bucket, and is told of here.
 */
import { logger } from '#base/log.ts'
import { counter } from '#base/metrics.ts'
import type { S3Context } from './context.ts'

const log = logger('store/s3')
const shadowedKeys = counter('eider_s3_shadowed_keys_total')
/** Those that were told of, by store: so many at most, for a bucket can be full of them. */
const told = new WeakMap<S3Context, Set<string>>()
const TOLD_MAX = 1000

/** Counts a file's key that is hidden by the directory of that name, and logs it: each once. */
export function tellShadowed(context: S3Context, key: string): void {
  const known = told.get(context) ?? new Set()
  told.set(context, known)
  if (known.has(key) || known.size === TOLD_MAX) return
  known.add(key)
  shadowedKeys.inc()
  const directory = `${key}/`
  log.warn({ key, directory }, 'hides an object: the keys say that its name is a directory, too; S3 tools reach it')
}
