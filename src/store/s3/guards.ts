/**
 * Guards on S3: sent as conditions where the server honours them, else looked at just before each time that the write is sent.
 * Which it honours is found out by `probe.ts`.
 */
import { isOperationError, OperationError } from '#base/errors.ts'
import type { Guard, GuardStrength } from '#store/store.ts'
import type { BeforeAttempt } from './client.ts'
import type { S3Context } from './context.ts'
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

/** A write of one key under a guard. */
export interface GuardedWrite<T> {
  /** For messages. */
  readonly action: string
  readonly path: string
  readonly write: Write
  readonly key: string
  readonly guard: Guard
  readonly signal: AbortSignal | undefined
  /** Sends it with these conditions, and `before` before each attempt. */
  readonly send: (conditions: readonly Header[], before: BeforeAttempt) => Promise<T>
  /** Looks at what is stored. */
  readonly look: () => Promise<ObjectHead | undefined>
  /** What is to be said where what is stored is what was sent. */
  readonly take: (head: ObjectHead) => T | undefined
}

/**
 * Sends a guarded write; where the server would ignore the guard, the key is looked at before each attempt (one request). Where it
 * fails by its guard after an attempt whose answer was lost, what is stored decides.
 */
export async function guardedWrite<T>(context: S3Context, request: GuardedWrite<T>): Promise<T> {
  const { action, path, write, key, guard, signal, send, look, take } = request
  const [create, replace] = HONOURED_BY[write]
  const isHonoured = guard.kind === 'any' || context.honoured[guard.kind === 'absent' ? create : replace]
  let mayBeDone = false
  const before: BeforeAttempt = async (_attempt, unanswered) => {
    mayBeDone ||= unanswered
    if (!isHonoured) checkGuard('write', key, (await headObject(context.client, key, signal))?.version, guard)
  }
  try {
    return await send(isHonoured ? guardHeaders(guard) : [], before)
  } catch (error) {
    if (!isGuardFailure(error, guard)) throw error
    if (mayBeDone) {
      const head = await look()
      const taken = head === undefined ? undefined : take(head)
      if (taken !== undefined) return taken
    }
    throw conflict(action, path, error)
  }
}

/**
 * Whether an object that another has made can be told from ours of the same bytes: where no attributes are kept it cannot. It is
 * taken for theirs then, so that of two that make a name one succeeds at most.
 */
export function isTellable({ metadata }: S3Context, guard: Guard): boolean {
  return metadata || guard.kind !== 'absent'
}

/** Whether an error of a write says that its guard did not hold; with a version, a key that is gone says so too. */
function isGuardFailure(error: unknown, guard: Guard): boolean {
  if (guard.kind === 'any') return false
  if (isOperationError(error, 'STORE_CONFLICT')) return true
  return guard.kind === 'version' && error instanceof S3Error && error.s3Code === 'NoSuchKey'
}
