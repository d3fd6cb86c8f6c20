/**
 * What a segment of a journal looks like (docs/formats/journal.md): a head with a salt and the lineage of its journal and state, then groups of entries, one after the other, each with the salt,
 * the number of its first entry and a checksum. Segments are used again, so that bytes of old groups lie behind the last one: those have another salt.
 *
 * The one group that was being written when a process ended may be there in part, and ends the segment; nobody was told of it. One that is damaged
 * and has others after it was acknowledged.
 */
import { randomBytes } from 'node:crypto'

import { OperationError } from '#base/errors.ts'
import { crc32c } from '#cluster/erasure/crc32c.ts'

const MAGIC = Buffer.from('eider journal 2\n')
const SALT_BYTES = 8
/** Of what tells that a state and its journal belong together: drawn anew at each start. */
export const LINEAGE_BYTES = 16
const LINEAGE_AT = MAGIC.length + SALT_BYTES
const HEAD_CRC_AT = LINEAGE_AT + LINEAGE_BYTES
export const HEAD_BYTES = 48
const GROUP_CRC_AT = SALT_BYTES
const CHECKED_AT = GROUP_CRC_AT + 4
const COUNT_AT = CHECKED_AT
const NUMBER_AT = COUNT_AT + 4
const LENGTHS_AT = NUMBER_AT + 8
const TWO_32 = 2 ** 32
/** Of the number in a file's name, so that the order of names is that of numbers. */
const NUMBER_DIGITS = 16
const SEGMENT_NAME = /^(\d{16})\.segment$/

/** The name of the segment that begins with entry `number`. */
export function segmentName(number: number): string {
  return `${String(number).padStart(NUMBER_DIGITS, '0')}.segment`
}

/** The entry that the segment begins with; undefined where it is no name of a segment. */
export function numberOfSegment(name: string): number | undefined {
  const digits = SEGMENT_NAME.exec(name)?.[1]
  return digits === undefined ? undefined : Number(digits)
}

/** The head of a segment that nothing was written to, with a salt of its own. */
export function newHead(lineage: Buffer): Buffer {
  const head = Buffer.alloc(HEAD_BYTES)
  MAGIC.copy(head)
  randomBytes(SALT_BYTES).copy(head, MAGIC.length)
  lineage.copy(head, LINEAGE_AT)
  head.writeUInt32LE(crc32c(head.subarray(0, HEAD_CRC_AT)), HEAD_CRC_AT)
  return head
}

export interface SegmentHead {
  readonly salt: Buffer
  readonly lineage: Buffer
}

/** @throws JOURNAL_CORRUPT */
export function readHead(head: Buffer, name: string): SegmentHead {
  const isWhole = head.length >= HEAD_BYTES && head.readUInt32LE(HEAD_CRC_AT) === crc32c(head.subarray(0, HEAD_CRC_AT))
  if (!isWhole || !head.subarray(0, MAGIC.length).equals(MAGIC)) {
    throw new OperationError('JOURNAL_CORRUPT', `Cannot read the journal: ${name} does not begin as a segment does`)
  }
  return { salt: head.subarray(MAGIC.length, LINEAGE_AT), lineage: head.subarray(LINEAGE_AT, HEAD_CRC_AT) }
}

export function groupBytes(entries: readonly Uint8Array[]): number {
  let bytes = LENGTHS_AT + 4 * entries.length
  for (const entry of entries) bytes += entry.length
  return bytes
}

/** Writes the group that begins with entry `at` into `frame`, which has just the bytes for it. */
export function writeGroup(frame: Buffer, salt: Buffer, at: number, entries: readonly Uint8Array[]): void {
  frame.set(salt)
  frame.writeUInt32LE(entries.length, COUNT_AT)
  frame.writeUInt32LE(at % TWO_32, NUMBER_AT)
  frame.writeUInt32LE(Math.floor(at / TWO_32), NUMBER_AT + 4)
  let lengthAt = LENGTHS_AT
  let place = LENGTHS_AT + 4 * entries.length
  for (const entry of entries) {
    frame.writeUInt32LE(entry.length, lengthAt)
    frame.set(entry, place)
    lengthAt += 4
    place += entry.length
  }
  frame.writeUInt32LE(crc32c(frame.subarray(CHECKED_AT)), GROUP_CRC_AT)
}

interface Group {
  readonly at: number
  readonly entries: readonly Buffer[]
  /** Where the next one begins. */
  readonly end: number
}

/** The group at that place of a segment; undefined where none is, or not as it was written. */
function readGroup(segment: Buffer, salt: Buffer, place: number): Group | undefined {
  if (place + LENGTHS_AT > segment.length || segment.compare(salt, 0, SALT_BYTES, place, place + SALT_BYTES) !== 0)
    return undefined
  const count = segment.readUInt32LE(place + COUNT_AT)
  let end = place + LENGTHS_AT + 4 * count
  if (count === 0 || end > segment.length) return undefined
  const entries: Buffer[] = []
  for (let index = 0; index < count; index++) {
    const length = segment.readUInt32LE(place + LENGTHS_AT + 4 * index)
    if (end + length > segment.length) return undefined
    entries.push(segment.subarray(end, (end += length)))
  }
  if (segment.readUInt32LE(place + GROUP_CRC_AT) !== crc32c(segment.subarray(place + CHECKED_AT, end))) return undefined
  const at = segment.readUInt32LE(place + NUMBER_AT) + segment.readUInt32LE(place + NUMBER_AT + 4) * TWO_32
  return { at, entries, end }
}

/** What a segment has. */
export interface SegmentContent extends SegmentHead {
  /** Of its last entry; the one before its first where it has none. */
  readonly last: number
  /** Where its last group begins, if there is one, and where the next one goes. */
  readonly lastGroupAt: number | undefined
  readonly end: number
  /** A part of one more group is there: it was being written when the process ended, or it was damaged since. */
  readonly hasPart: boolean
}

/**
 * Gives the entries of a segment that begins with entry `first`, in order.
 * @throws JOURNAL_CORRUPT where a group is damaged that others come after
 */
export function readSegment(
  segment: Buffer,
  first: number,
  each: (number: number, entry: Buffer) => void,
): SegmentContent {
  const { salt, lineage } = readHead(segment, segmentName(first))
  let next = first
  let lastGroupAt: number | undefined
  let end = HEAD_BYTES
  for (;;) {
    const group = readGroup(segment, salt, end)
    if (group === undefined || group.at !== next) break
    for (const entry of group.entries) each(next++, entry)
    lastGroupAt = end
    end = group.end
  }
  // Groups are written one after the other, each when the one before it is durable.
  for (let place = segment.indexOf(salt, end); place !== -1; place = segment.indexOf(salt, place + 1)) {
    if (readGroup(segment, salt, place) !== undefined) throw damagedGroup(next)
  }
  const hasPart = segment.subarray(end, end + SALT_BYTES).equals(salt)
  return { salt, lineage, last: next - 1, lastGroupAt, end, hasPart }
}

/**
 * Whether the journal with those segments, the newest first, goes on what a state of one of these lineages has. One without entries does not
 * contradict any, and a start may have ended before it wrote some.
 */
export function isOfLineage(
  segments: Iterable<Pick<SegmentContent, 'lineage' | 'lastGroupAt'>>,
  lineages: readonly Buffer[],
): boolean {
  for (const { lineage, lastGroupAt } of segments) {
    if (lineages.some((each) => each.equals(lineage))) return true
    if (lastGroupAt !== undefined) return false
  }
  return true
}

export function otherLineage(): OperationError {
  return new OperationError('JOURNAL_CORRUPT', 'Cannot use the journal: it is that of another state', {
    hint: 'The directories of state and journal belong together: put back both of one copy, or neither.',
  })
}

/** The group that begins with entry `at` is there no more. */
export function damagedGroup(at: number): OperationError {
  return new OperationError('JOURNAL_CORRUPT', `Cannot read the journal: the group from entry ${at} on is damaged`)
}
