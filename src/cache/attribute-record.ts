/**
 * What the attribute index holds of an entry, as bytes: some 60 of them, since there are millions. Integers are
 * big-endian; see docs/formats/cache.md.
 */
import type { Timestamp } from '#base/time.ts'
import type { Attributes, Entry, Kind } from '#store/store.ts'

const FORMAT = 1
const KINDS: readonly Kind[] = ['file', 'directory', 'symlink', 'fifo', 'socket']
/** Which attributes follow, in this order. */
const HAS_MODE = 1
const HAS_UID = 2
const HAS_GID = 4
const HAS_ATIME = 8
const HAS_MTIME = 16
const HAS_CTIME = 32
const HAS_XATTRS = 64
/** A version of 32 hexadecimal digits takes half the room. */
const VERSION_HEX = 128
const HEX_VERSION = /^[0-9a-f]{32}$/
const TIME_BYTES = 10
const HEAD_BYTES = 9
const FIXED_BYTES_MAX = HEAD_BYTES + 2 + 4 + 4 + 3 * TIME_BYTES + 2

/** The kind and the attributes that a record tells. */
export interface KnownAttributes {
  readonly kind: Kind
  readonly attributes: Attributes
}

/** The record of an entry whose attributes are known; undefined where it has what no record holds. */
export function encodeAttributes(entry: Entry, attributes: Attributes): Buffer | undefined {
  try {
    return encode(entry, attributes)
  } catch (error) {
    // A number is out of range, such as a time of more than 48 bits.
    if (error instanceof RangeError) return undefined
    throw error
  }
}

function encode(entry: Entry, attributes: Attributes): Buffer | undefined {
  const isHex = HEX_VERSION.test(entry.version)
  const version = Buffer.from(entry.version, isHex ? 'hex' : 'utf8')
  const xattrs = [...(attributes.xattrs ?? [])].map(([name, value]) => [Buffer.from(name), value] as const)
  if (version.length > 0xff || xattrs.length > 0xffff) return undefined
  if (xattrs.some(([name, value]) => name.length > 0xff || value.length > 0xffff)) return undefined
  const room = xattrs.reduce((sum, [name, value]) => sum + 3 + name.length + value.length, 0)
  const record = Buffer.allocUnsafe(FIXED_BYTES_MAX + 1 + version.length + room)
  record[0] = FORMAT
  record[1] = KINDS.indexOf(entry.kind)
  record.writeIntBE(entry.modified.seconds, 3, 6)
  let at = record.writeUInt8(version.length, HEAD_BYTES)
  at += version.copy(record, at)
  let has = isHex ? VERSION_HEX : 0
  const { mode, uid, gid, atime, mtime, ctime } = attributes
  if (mode !== undefined) {
    has |= HAS_MODE
    at = record.writeUInt16BE(mode, at)
  }
  if (uid !== undefined) {
    has |= HAS_UID
    at = record.writeUInt32BE(uid, at)
  }
  if (gid !== undefined) {
    has |= HAS_GID
    at = record.writeUInt32BE(gid, at)
  }
  for (const [bit, time] of [
    [HAS_ATIME, atime],
    [HAS_MTIME, mtime],
    [HAS_CTIME, ctime],
  ] as const) {
    if (time === undefined) continue
    has |= bit
    at = record.writeUInt32BE(time.nanoseconds, record.writeIntBE(time.seconds, at, 6))
  }
  if (attributes.xattrs !== undefined) {
    has |= HAS_XATTRS
    at = record.writeUInt16BE(xattrs.length, at)
    for (const [name, value] of xattrs) {
      at = record.writeUInt16BE(value.length, record.writeUInt8(name.length, at))
      at += name.copy(record, at)
      record.set(value, at)
      at += value.length
    }
  }
  record[2] = has
  return record.subarray(0, at)
}

/** What a record tells of `listed`; undefined where it is of another version or time, or not well formed. */
export function decodeAttributes(record: Buffer, listed: Entry): KnownAttributes | undefined {
  try {
    return decode(record, listed)
  } catch (error) {
    // It ends too early.
    if (error instanceof RangeError) return undefined
    throw error
  }
}

function decode(record: Buffer, listed: Entry): KnownAttributes | undefined {
  const kind = KINDS[record.readUInt8(1)]
  if (record[0] !== FORMAT || kind === undefined || record.readIntBE(3, 6) !== listed.modified.seconds) return undefined
  // A listing may take anything for a file, but a directory only for a directory.
  if ((kind === 'directory') !== (listed.kind === 'directory')) return undefined
  const has = record.readUInt8(2)
  let at = HEAD_BYTES + 1 + record.readUInt8(HEAD_BYTES)
  const version = record.toString((has & VERSION_HEX) === 0 ? 'utf8' : 'hex', HEAD_BYTES + 1, at)
  if (version !== listed.version) return undefined
  const attributes: { -readonly [Name in keyof Attributes]: Attributes[Name] } = {}
  const time = (): Timestamp => {
    at += TIME_BYTES
    return { seconds: record.readIntBE(at - TIME_BYTES, 6), nanoseconds: record.readUInt32BE(at - 4) }
  }
  if ((has & HAS_MODE) !== 0) attributes.mode = record.readUInt16BE((at += 2) - 2)
  if ((has & HAS_UID) !== 0) attributes.uid = record.readUInt32BE((at += 4) - 4)
  if ((has & HAS_GID) !== 0) attributes.gid = record.readUInt32BE((at += 4) - 4)
  if ((has & HAS_ATIME) !== 0) attributes.atime = time()
  if ((has & HAS_MTIME) !== 0) attributes.mtime = time()
  if ((has & HAS_CTIME) !== 0) attributes.ctime = time()
  if ((has & HAS_XATTRS) !== 0) {
    const xattrs = new Map<string, Uint8Array>()
    for (let count = record.readUInt16BE((at += 2) - 2); count > 0; count--) {
      const nameEnd = at + 3 + record.readUInt8(at)
      const end = nameEnd + record.readUInt16BE(at + 1)
      if (end > record.length) return undefined
      xattrs.set(record.toString('utf8', at + 3, nameEnd), Uint8Array.from(record.subarray(nameEnd, end)))
      at = end
    }
    attributes.xattrs = xattrs
  }
  return { kind, attributes }
}
