/**
 * What stores share about the bytes of a put: how long a source says it is, and the one error for a source that breaks
 * its word. How the bytes are moved is each store's own matter.
 */
import { OperationError } from '#base/errors.ts'

import type { Source } from './store.ts'

/** How many bytes the source has, as far as it says. */
export function sourceLength(source: Source): number | undefined {
  if (source instanceof Uint8Array) return source.length
  if (source.kind === 'stream') return source.size
  return source.segments.reduce((sum, segment) => sum + segment.length, 0)
}

/** The error of a put whose source has another length than it said. */
export function lengthError(path: string, said: number, found: string): OperationError {
  return new OperationError('INPUT_INVALID', `Cannot put "${path}": the source was to have ${said} bytes, and ${found}`)
}

/** The error of a put whose stream failed: the stream's own where it is one of ours (a cut upload, an abort). */
export function streamError(path: string, cause: unknown): unknown {
  if (cause instanceof OperationError) return cause
  return new OperationError('INPUT_INVALID', `Cannot put "${path}": its source failed`, { cause })
}
