/**
 * A record of the journal: a file that was closed here and is not yet in the store, as JSON. Read back it is input from
 * outside, and checked.
 */
import * as v from 'valibot'

import { timestamp, type Timestamp } from '#base/time.ts'
import type { Attributes, Version } from '#store/store.ts'

import { AttributeChanges } from './attribute-changes.ts'
import type { Attempt } from './own-puts.ts'
import { RangeSet } from './ranges.ts'
import type { Elsewhere } from './unanswered.ts'

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0))
const Time = v.pipe(
  v.tuple([v.pipe(v.number(), v.safeInteger()), v.pipe(count, v.maxValue(999_999_999))]),
  v.transform(([seconds, nanoseconds]) => timestamp(seconds, nanoseconds)),
)
const Bytes = v.pipe(
  v.string(),
  v.transform((text) => Buffer.from(text, 'base64')),
)
const Ranges = v.pipe(
  v.array(v.tuple([count, count])),
  v.transform((pairs) => pairs.map(([start, end]) => ({ start, end }))),
)
const AttributesSchema = v.object({
  mode: v.exactOptional(count),
  uid: v.exactOptional(count),
  gid: v.exactOptional(count),
  atime: v.exactOptional(Time),
  mtime: v.exactOptional(Time),
  ctime: v.exactOptional(Time),
  xattrs: v.exactOptional(
    v.pipe(
      v.array(v.tuple([v.string(), Bytes])),
      v.transform((pairs) => new Map(pairs)),
    ),
  ),
})
const TimeNames = v.array(v.picklist(['mtime', 'atime', 'ctime']))
const ChangesSchema = v.object({
  isNew: v.boolean(),
  withoutXattrs: v.boolean(),
  others: AttributesSchema,
  xattrs: v.array(v.tuple([v.string(), v.nullable(Bytes)])),
  setTimes: TimeNames,
})
const AttemptSchema = v.object({
  size: count,
  digest: v.string(),
  part: v.nullable(v.object({ ranges: Ranges, mtime: Time, ctime: Time })),
})
const RecordSchema = v.object({
  /** Of later closes it is higher. */
  sequence: count,
  /** The URL of the store, without secrets. */
  store: v.string(),
  path: v.pipe(v.string(), v.minLength(1)),
  /** What it goes over; null: nothing. */
  version: v.nullable(v.string()),
  size: count,
  baseEnd: count,
  dirty: Ranges,
  missing: Ranges,
  attributes: AttributesSchema,
  changes: ChangesSchema,
  attempts: v.array(AttemptSchema),
  /** Records that this one stands for as well. */
  replaces: v.array(v.string()),
  /** Where else it may be, as it was being moved; path null: it was being removed. */
  elsewhere: v.optional(v.object({ path: v.nullable(v.string()), size: v.nullable(count), mtime: v.nullable(Time) })),
})

/** What is remembered of a file until it is in the store. */
export interface JournalRecord {
  readonly sequence: number
  readonly store: string
  readonly path: string
  readonly version: Version | undefined
  readonly size: number
  readonly baseEnd: number
  readonly dirty: RangeSet
  readonly missing: RangeSet
  readonly attributes: Attributes
  readonly changes: AttributeChanges
  readonly attempts: readonly Attempt[]
  readonly replaces: readonly string[]
  readonly elsewhere: Elsewhere | undefined
}

export function encodeRecord(record: JournalRecord): string {
  const { version, dirty, missing, attributes, changes, attempts, elsewhere } = record
  const { others, xattrs, ...flags } = changes.parts()
  return JSON.stringify({
    ...record,
    version: version ?? null,
    elsewhere: elsewhere && {
      path: elsewhere.path ?? null,
      size: elsewhere.size ?? null,
      mtime: elsewhere.mtime === undefined ? null : [elsewhere.mtime.seconds, elsewhere.mtime.nanoseconds],
    },
    dirty: pairsOf(dirty.within(0, Infinity)),
    missing: pairsOf(missing.within(0, Infinity)),
    attributes: encodeAttributes(attributes),
    changes: {
      ...flags,
      others: encodeAttributes(others),
      xattrs: xattrs.map(([name, value]) => [name, value === undefined ? null : base64(value)]),
    },
    attempts: attempts.map(({ part, ...whole }) => ({
      ...whole,
      part: part === undefined ? null : { ...encodeTimes(part), ranges: pairsOf(part.ranges) },
    })),
  })
}

/** @throws what says why `text` is not a record. */
export function decodeRecord(text: string): JournalRecord {
  const found = v.parse(RecordSchema, JSON.parse(text))
  const { others, xattrs, ...flags } = found.changes
  const { elsewhere } = found
  const changed = xattrs.map(([name, value]): [string, Uint8Array | undefined] => [name, value ?? undefined])
  return {
    ...found,
    version: found.version === null ? undefined : (found.version as Version),
    elsewhere: elsewhere && {
      path: elsewhere.path ?? undefined,
      size: elsewhere.size ?? undefined,
      mtime: elsewhere.mtime ?? undefined,
    },
    dirty: new RangeSet(found.dirty),
    missing: new RangeSet(found.missing),
    changes: AttributeChanges.of({ ...flags, others, xattrs: changed }),
    attempts: found.attempts.map(({ part, ...whole }) => ({ ...whole, part: part ?? undefined })),
  }
}

function encodeAttributes({ xattrs, atime, mtime, ctime, ...numbers }: Attributes): object {
  return {
    ...numbers,
    ...encodeTimes({
      ...(atime === undefined ? {} : { atime }),
      ...(mtime === undefined ? {} : { mtime }),
      ...(ctime === undefined ? {} : { ctime }),
    }),
    ...(xattrs === undefined ? {} : { xattrs: [...xattrs].map(([name, value]) => [name, base64(value)]) }),
  }
}

function encodeTimes(times: Pick<Attributes, 'atime' | 'mtime' | 'ctime'>): Record<string, [number, number]> {
  const encoded: Record<string, [number, number]> = {}
  const note = (name: string, time: Timestamp | undefined): void => {
    if (time !== undefined) encoded[name] = [time.seconds, time.nanoseconds]
  }
  note('atime', times.atime)
  note('mtime', times.mtime)
  note('ctime', times.ctime)
  return encoded
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64')
}

function pairsOf(ranges: Iterable<{ readonly start: number; readonly end: number }>): [number, number][] {
  return [...ranges].map(({ start, end }) => [start, end])
}
