/**
 * Puts of which pieces are stored in the directory already: each stored version is opened once, and its pieces then go
 * the way of local ones, inside the kernel and as shared extents where the file system can.
 */
import { closeSync } from 'node:fs'

import { isOperationError, OperationError } from '#base/errors.ts'
import { statusOf } from '#os/status.ts'
import { isStored, type FileSegment, type Segment, type StoredSegment } from '#store/store.ts'

import { sameBytes, versionOf } from './entry.ts'
import { openToRead, type OpenedFile } from './tree.ts'

/** Segments of open files, those of stored versions included. */
export interface OpenedSegments {
  readonly segments: readonly FileSegment[]
  /** Throws `STORE_CONFLICT` where another program has changed a stored version in place since it was opened. */
  check(): void
  /** Closes what was opened for this; the caller's own descriptors stay open. */
  close(): void
}

/** Opens the stored versions among the segments of a put. @throws OperationError `STORE_CONFLICT` where one is gone. */
export function openSegments(root: number, segments: readonly Segment[], action: string): OpenedSegments {
  const opened = new Map<string, OpenedFile>()
  const close = (): void => {
    for (const { fd } of opened.values()) closeSync(fd)
    opened.clear()
  }
  const local = (segment: Segment): FileSegment => {
    if (!isStored(segment)) return segment
    // All of one path are of one version: that which was current when it was opened.
    const file = opened.get(segment.path) ?? openVersion(root, segment, action)
    opened.set(segment.path, file)
    if (versionOf(file.status) !== segment.version) throw stale(segment, action)
    return { fd: file.fd, offset: segment.offset, length: segment.length }
  }
  try {
    return {
      segments: segments.map(local),
      check: () => {
        for (const [path, { fd, status }] of opened) {
          if (!sameBytes(statusOf(fd), status)) throw stale({ path }, action)
        }
      },
      close,
    }
  } catch (error) {
    close()
    throw error
  }
}

function openVersion(root: number, segment: StoredSegment, action: string): OpenedFile {
  try {
    const file = openToRead(root, segment.path, action)
    if (file !== undefined) return file
  } catch (error) {
    const gone = isOperationError(
      error,
      'STORE_NOT_FOUND',
      'STORE_NOT_DIRECTORY',
      'STORE_IS_DIRECTORY',
      'INPUT_INVALID',
    )
    throw gone ? stale(segment, action, error) : error
  }
  // A symlink has taken its place.
  throw stale(segment, action)
}

function stale({ path }: Pick<StoredSegment, 'path'>, action: string, cause?: unknown): OperationError {
  return new OperationError('STORE_CONFLICT', `Cannot ${action}: the stored version of "${path}" is another`, { cause })
}
