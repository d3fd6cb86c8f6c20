/**
 * Reading the segments of a file source whole. A file that ends before its segment does breaks the promise of the
 * caller, and is an error rather than a shorter put.
 */
import { read } from 'node:fs'

import { OperationError } from '#base/errors.ts'

import { checkAborted } from './abort.ts'
import { isStored, type FileSegment, type Segment } from './store.ts'

/** The segments, for a store that takes only local ones. @throws OperationError `STORE_UNSUPPORTED` */
export function localSegments(path: string, segments: readonly Segment[]): readonly FileSegment[] {
  return segments.map((segment) => {
    if (!isStored(segment)) return segment
    throw new OperationError('STORE_UNSUPPORTED', `Cannot put "${path}": stored segments are not supported`)
  })
}

/** Reads `buffer.length` bytes at `position`; fewer only where the file ends. */
export function readAt(fd: number, buffer: Uint8Array, position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const step = (done: number): void => {
      read(fd, buffer, done, buffer.length - done, position + done, (error, count) => {
        if (error !== null) reject(error)
        else if (count === 0 || done + count === buffer.length) resolve(done + count)
        else step(done + count)
      })
    }
    step(0)
  })
}

/** All the bytes of the segments, one after another. */
export async function readFileSegments(
  path: string,
  segments: readonly FileSegment[],
  signal: AbortSignal | undefined,
): Promise<Buffer> {
  const buffer = Buffer.allocUnsafeSlow(segments.reduce((sum, segment) => sum + segment.length, 0))
  let done = 0
  for (const segment of segments) {
    checkAborted(`put "${path}"`, signal)
    const count = await readAt(segment.fd, buffer.subarray(done, done + segment.length), segment.offset)
    if (count < segment.length) throw segmentError(path, segment, count)
    done += count
  }
  return buffer
}

/** The error of a segment whose file ends after `count` bytes of it. */
export function segmentError(path: string, segment: FileSegment, count: number): OperationError {
  return new OperationError(
    'INPUT_INVALID',
    `Cannot put "${path}": its source ends ${segment.length - count} bytes before the ${segment.length} it was to have`,
  )
}
