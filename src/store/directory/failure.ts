/**
 * What a failed call to the file system means to the caller of a directory store: one table from errno to error code.
 */
import { OperationError, type ErrorCode } from '#base/errors.ts'

const CODES: Readonly<Record<string, ErrorCode>> = {
  ENOENT: 'STORE_NOT_FOUND',
  ENOTDIR: 'STORE_NOT_DIRECTORY',
  // A symlink in the middle of a path is not followed, so it is not a directory.
  ELOOP: 'STORE_NOT_DIRECTORY',
  EISDIR: 'STORE_IS_DIRECTORY',
  ENOTEMPTY: 'STORE_NOT_EMPTY',
  EEXIST: 'STORE_CONFLICT',
  ENAMETOOLONG: 'STORE_NAME_TOO_LONG',
  EILSEQ: 'STORE_NAME_INVALID',
  ENOSPC: 'STORE_NO_SPACE',
  EDQUOT: 'STORE_NO_SPACE',
  EACCES: 'STORE_DENIED',
  EPERM: 'STORE_DENIED',
  EROFS: 'STORE_READ_ONLY',
  EFBIG: 'STORE_FILE_TOO_LARGE',
  // Another file system is mounted inside the directory: nothing can be moved there in one step.
  EXDEV: 'STORE_UNSUPPORTED',
  // What Node calls EOPNOTSUPP, which has the same number.
  ENOTSUP: 'STORE_UNSUPPORTED',
  EMFILE: 'STORE_THROTTLED',
  ENFILE: 'STORE_THROTTLED',
  ENOMEM: 'STORE_THROTTLED',
  EIO: 'STORE_UNAVAILABLE',
  ESTALE: 'STORE_UNAVAILABLE',
  ETIMEDOUT: 'STORE_UNAVAILABLE',
}

/** The error as the store gives it: operating errors as they are, failed system calls by the table. */
export function failure(error: unknown, action: string): unknown {
  const errnoName = errnoNameOf(error)
  if (errnoName === undefined || error instanceof OperationError) return error
  return new OperationError(CODES[errnoName] ?? 'LOCAL_FAILED', `Cannot ${action}: ${messageOf(error)}`, {
    cause: error,
  })
}

/** "ENOENT", where the error is of a system call. */
export function errnoNameOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'string') return undefined
  return error.code
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
