/**
 * What the state holds of one entry that the target was made equal in, as bytes: some 80 of them, as there are millions.
 * Integers are big-endian; see docs/formats/sync-state.md.
 */
import type { Timestamp } from '#base/time.ts'
import type { Version } from '#store/store.ts'

import type { ContentHash, Remembered } from './equality.ts'
import type { TreeEntry } from './tree.ts'

const FORMAT = 1
const KINDS = ['file', 'directory', 'symlink'] as const
const HAS_IDENTITY = 1
const HAS_SOURCE_VERSION = 2
const HAS_TARGET_VERSION = 4
const HAS_SHA256 = 8
const TIME_BYTES = 10
const DIGEST_BYTES = 32
const HEAD_BYTES = 3 + 8 + 2 * TIME_BYTES
const IDENTITY_BYTES = 8 + 8 + TIME_BYTES

/** An entry of the source as it was when the target was made equal to it. */
export interface Known extends Remembered {
  readonly kind: (typeof KINDS)[number]
  /** Of the bytes that were sent, where they were at hand. */
  readonly hash?: ContentHash | undefined
}

/** Undefined where it has what no record holds, such as a time of more than 48 bits: then it is not remembered. */
export function encodeKnown(known: Known): Buffer | undefined {
  try {
    return encode(known)
  } catch (error) {
    if (error instanceof RangeError) return undefined
    throw error
  }
}

function encode(known: Known): Buffer {
  const { identity, hash } = known
  const versions = [known.sourceVersion, known.targetVersion].map((version) =>
    version === undefined ? undefined : Buffer.from(version),
  )
  const digest = hash?.algorithm === 'sha256' ? Buffer.from(hash.digest, 'hex') : undefined
  const room = versions.reduce((sum, version) => sum + (version === undefined ? 0 : 2 + version.length), 0)
  const record = Buffer.allocUnsafe(HEAD_BYTES + IDENTITY_BYTES + DIGEST_BYTES + room)
  record[0] = FORMAT
  record[1] = KINDS.indexOf(known.kind)
  let has = 0
  let at = writeTime(record, known.lookedAt, writeTime(record, known.mtime, record.writeDoubleBE(known.size, 3)))
  if (identity !== undefined) {
    has |= HAS_IDENTITY
    at = writeTime(
      record,
      identity.ctime,
      record.writeDoubleBE(identity.inode, record.writeDoubleBE(identity.device, at)),
    )
  }
  for (const [index, version] of versions.entries()) {
    if (version === undefined) continue
    has |= index === 0 ? HAS_SOURCE_VERSION : HAS_TARGET_VERSION
    at = record.writeUInt16BE(version.length, at)
    at += version.copy(record, at)
  }
  if (digest?.length === DIGEST_BYTES) {
    has |= HAS_SHA256
    at += digest.copy(record, at)
  }
  record[2] = has
  return record.subarray(0, at)
}

/** Undefined where the record is not well formed, or of another format. */
export function decodeKnown(record: Buffer): Known | undefined {
  try {
    return decode(record)
  } catch (error) {
    // It ends too early.
    if (error instanceof RangeError) return undefined
    throw error
  }
}

function decode(record: Buffer): Known | undefined {
  const kind = KINDS[record.readUInt8(1)]
  if (record[0] !== FORMAT || kind === undefined) return undefined
  const has = record.readUInt8(2)
  const size = record.readDoubleBE(3)
  const mtime = readTime(record, 11)
  const lookedAt = readTime(record, 11 + TIME_BYTES)
  let at = HEAD_BYTES
  const known: { -readonly [Name in keyof Known]: Known[Name] } = { kind, size, mtime, lookedAt }
  if ((has & HAS_IDENTITY) !== 0) {
    known.identity = {
      device: record.readDoubleBE(at),
      inode: record.readDoubleBE(at + 8),
      ctime: readTime(record, at + 16),
    }
    at += IDENTITY_BYTES
  }
  const version = (): Version => {
    const end = at + 2 + record.readUInt16BE(at)
    if (end > record.length) throw new RangeError('it ends too early')
    const text = record.toString('utf8', at + 2, end)
    at = end
    return text as Version
  }
  if ((has & HAS_SOURCE_VERSION) !== 0) known.sourceVersion = version()
  if ((has & HAS_TARGET_VERSION) !== 0) known.targetVersion = version()
  if ((has & HAS_SHA256) !== 0) {
    if (at + DIGEST_BYTES > record.length) return undefined
    known.hash = { algorithm: 'sha256', digest: record.toString('hex', at, at + DIGEST_BYTES) }
  }
  return known
}

function writeTime(record: Buffer, time: Timestamp, at: number): number {
  return record.writeUInt32BE(time.nanoseconds, record.writeIntBE(time.seconds, at, 6))
}

function readTime(record: Buffer, at: number): Timestamp {
  return { seconds: record.readIntBE(at, 6), nanoseconds: record.readUInt32BE(at + 6) }
}

/** What the target's entry is taken to be without asking it: what was sent. */
export function entryOfKnown(path: string, known: Known): TreeEntry {
  const { kind, size, mtime, targetVersion } = known
  return { path, kind, size, mtime, ...(targetVersion === undefined ? {} : { version: targetVersion }) }
}
