/** The target of a symlink, from its bytes. */
import { isUtf8 } from 'node:buffer'

import { OperationError } from '#base/errors.ts'

/** @throws OperationError `STORE_NAME_INVALID` where it is not UTF-8: decoded, it would be another. */
export function linkTarget(path: string, bytes: Buffer): string {
  if (isUtf8(bytes)) return bytes.toString()
  throw new OperationError('STORE_NAME_INVALID', `Cannot read the link "${path}": its target is not UTF-8`)
}
