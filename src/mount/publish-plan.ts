/**
 * What a put of a staged file is made of: bytes that are here, and bytes that the store has in the base version. Pure.
 *
 * What is missing here has to come from the store. What is here and not dirty could come from either: from the store where
 * that moves no bytes (S3 copies parts) and it is long enough to be worth a request, else from here.
 */
import type { Segment, StoredSegment } from '#store/store.ts'

import type { RangeSet } from './ranges.ts'

/** Stored bytes that are here as well are not copied within the store in shorter pieces: S3's least part is 5 MiB. */
const COPIED_BYTES_MIN = 16 * 1024 * 1024

/** The staged file as it is put. */
export interface PlannedFile {
  readonly fd: number
  readonly size: number
  readonly baseEnd: number
  readonly dirty: RangeSet
  readonly missing: RangeSet
}

/** Where the bytes of the base are. */
export type PlannedBase = Pick<StoredSegment, 'path' | 'version'>

/** The segments of a put of `file`, in order; `copies`: the store takes stored segments without moving their bytes. */
export function planSegments(file: PlannedFile, base: PlannedBase | undefined, copies: boolean): Segment[] {
  const { fd, size, dirty, missing } = file
  const segments: Segment[] = []
  let local = 0
  const upTo = (end: number): void => {
    if (end > local) segments.push({ fd, offset: local, length: end - local })
  }
  const baseEnd = Math.min(file.baseEnd, size)
  if (base !== undefined && (copies || !missing.isEmpty)) {
    for (const { start, end } of dirty.gaps(0, baseEnd)) {
      const isWorthIt = copies && end - start >= COPIED_BYTES_MIN
      const stored = isWorthIt ? [{ start, end }] : missing.within(start, end)
      for (const range of stored) {
        upTo(range.start)
        segments.push({ ...base, offset: range.start, length: range.end - range.start })
        local = range.end
      }
    }
  }
  upTo(size)
  return segments
}
