/**
 * Guards on S3: sent as conditions where the server honours them, else looked at just before. Which it honours is found
 * out by `probe.ts`.
 */
import { OperationError } from '#base/errors.ts'
import type { Guard, GuardStrength } from '#store/store.ts'
import type { S3Client } from './client.ts'
import { S3Error } from './errors.ts'
import { guardHeaders, headObject, type ObjectHead } from './objects.ts'
import type { Header } from './signer.ts'

/** Which conditions the server decides on. */
export interface Honoured {
  /** `If-None-Match: *` and `If-Match` of PutObject. */
  readonly create: boolean
  readonly replace: boolean
  /** The same of CompleteMultipartUpload. */
  readonly completeCreate: boolean
  readonly completeReplace: boolean
  /** The same of CopyObject, for the key that is written. */
  readonly copyCreate: boolean
  readonly copyReplace: boolean
  /** `If-Match` of DeleteObject, and the ETags that DeleteObjects names. */
  readonly remove: boolean
  readonly removeBulk: boolean
}

export const NONE_HONOURED: Honoured = {
  create: false,
  replace: false,
  completeCreate: false,
  completeReplace: false,
  copyCreate: false,
  copyReplace: false,
  remove: false,
  removeBulk: false,
}

/** What writes a key. */
export type Write = 'put' | 'complete' | 'copy'

const HONOURED_BY: Readonly<Record<Write, readonly [create: keyof Honoured, replace: keyof Honoured]>> = {
  put: ['create', 'replace'],
  complete: ['completeCreate', 'completeReplace'],
  copy: ['copyCreate', 'copyReplace'],
}

/** As the port tells it: a large put goes by CompleteMultipartUpload, so the weaker of both counts. */
export function strengthsOf(honoured: Honoured): Record<'create' | 'replace' | 'remove' | 'copy', GuardStrength> {
  const strength = (...all: boolean[]): GuardStrength => (all.every(Boolean) ? 'atomic' : 'checked')
  return {
    create: strength(honoured.create, honoured.completeCreate),
    replace: strength(honoured.replace, honoured.completeReplace),
    remove: strength(honoured.remove, honoured.removeBulk),
    copy: strength(honoured.copyCreate, honoured.copyReplace),
  }
}

/** The error of a guard that does not hold. */
export function conflict(action: string, path: string, cause?: unknown): OperationError {
  return new OperationError('STORE_CONFLICT', `Cannot ${action} "${path}": the stored version is another`, { cause })
}

/** Throws `STORE_CONFLICT` unless the guard holds for what is stored. */
export function checkGuard(action: string, path: string, found: string | undefined, guard: Guard): void {
  if (guard.kind === 'absent' && found !== undefined) throw conflict(action, path)
  if (guard.kind === 'version' && found !== guard.version) throw conflict(action, path)
}

/** The conditions to send; where the server would ignore them the key is looked at (one request). */
export async function conditions(
  client: S3Client,
  honoured: Honoured,
  write: Write,
  key: string,
  guard: Guard,
  signal: AbortSignal | undefined,
): Promise<Header[]> {
  if (guard.kind === 'any') return []
  const [create, replace] = HONOURED_BY[write]
  if (honoured[guard.kind === 'absent' ? create : replace]) return guardHeaders(guard)
  const head = await headObject(client, key, signal)
  checkGuard('write', key, head?.version, guard)
  return []
}

/** Whether an error of a write says that its guard did not hold; with a version, a key that is gone says so too. */
function isGuardFailure(error: unknown, guard: Guard): error is S3Error {
  if (!(error instanceof S3Error) || guard.kind === 'any') return false
  return error.code === 'STORE_CONFLICT' || (guard.kind === 'version' && error.s3Code === 'NoSuchKey')
}

/**
 * Sends a guarded write. Where it fails by its guard after an attempt that may have taken effect, what is stored decides:
 * `isOurs` says whether it is what was sent.
 */
export async function guardedWrite<T>(
  action: string,
  path: string,
  guard: Guard,
  write: () => Promise<T>,
  ours: { readonly look: () => Promise<ObjectHead | undefined>; readonly take: (head: ObjectHead) => T | undefined },
): Promise<T> {
  try {
    return await write()
  } catch (error) {
    if (!isGuardFailure(error, guard)) throw error
    if (error.attempts > 1) {
      const head = await ours.look()
      const taken = head === undefined ? undefined : ours.take(head)
      if (taken !== undefined) return taken
    }
    throw conflict(action, path, error)
  }
}
