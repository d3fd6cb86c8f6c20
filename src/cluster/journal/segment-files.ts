/** The files of a journal's segments (`segment.ts`), as whoever opens it finds them: the machine itself, and who reads its directory without it. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

import { OperationError } from '#base/errors.ts'

import { damagedGroup, numberOfSegment, readSegment, type SegmentContent } from './segment.ts'

export interface SegmentFile {
  /** Its first entry. */
  readonly first: number
  readonly path: string
}

/** In order. */
export function segmentFilesIn(directory: string): SegmentFile[] {
  return readdirSync(directory)
    .flatMap((name) => {
      const first = numberOfSegment(name)
      return first === undefined ? [] : [{ first, path: join(directory, name) }]
    })
    .toSorted((a, b) => a.first - b.first)
}

/** Newest first, each read when it is asked for. @throws JOURNAL_CORRUPT */
export function* newestFirst(segments: readonly SegmentFile[]): Generator<SegmentContent> {
  for (const { first, path } of segments.toReversed()) yield readSegment(readFileSync(path), first, () => undefined)
}

/**
 * Gives the entries from `from` on, in order; the number of the last one that there is.
 * @param bytesOf of a file
 * @throws JOURNAL_CORRUPT where some are missing or damaged, after those that come before
 */
export function readEntries(
  segments: readonly SegmentFile[],
  from: number,
  each: (number: number, entry: Buffer) => void,
  bytesOf: (path: string) => Buffer = readFileSync,
): number {
  const start = segments.findLastIndex(({ first }) => first <= from)
  if (start === -1) throw new OperationError('JOURNAL_CORRUPT', `Cannot read the journal: entry ${from} is gone`)
  let last: number | undefined
  for (const { first, path } of segments.slice(start)) {
    if (last !== undefined && first !== last + 1) throw damagedGroup(last + 1)
    const content = readSegment(bytesOf(path), first, (number, entry) => {
      if (number >= from) each(number, entry)
    })
    last = content.last
  }
  return last ?? from - 1
}
