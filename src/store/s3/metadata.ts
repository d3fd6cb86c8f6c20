/**
 * How attributes are kept in an S3 object's user metadata: the representation of yas3fs 2.4.6, read and written.
 *
 * - `x-amz-meta-attr` is a JSON object of `st_uid st_gid st_mode` (decimal, mode with its type bits), `st_atime st_mtime
 *   st_ctime` (seconds, as numbers with up to nine decimals) and `st_size`. Before 2014 it was the text `k=v;k=v`, which
 *   is read too. What was never told is left out. Other keys in it are carried through a rewrite.
 * - `x-amz-meta-xattr` is a JSON object from name to value. A value that is valid UTF-8 is a string; any other is base64
 *   under the name with `base64:` before it, which no name on Linux has before its namespace.
 * - Both are ASCII, as headers are: anything else is a `\u` escape, and so is a space after a space, which signing
 *   would take for one.
 *
 * Times are written and read as decimal literals, never as floating point, so nanoseconds survive.
 */
import { isUtf8 } from 'node:buffer'

import { OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { timestampFromDecimal, timestampToDecimal, type Timestamp } from '#base/time.ts'
import type { Attributes, Kind } from '#store/store.ts'

const log = logger('store/s3')
let hasToldOwner = false
/** The number after it means "none" to chown(2). */
const ID_MAX = 0xffff_fffe
const S_IFMT = 0o170000
const TYPE_BITS: Readonly<Record<Kind, number>> = {
  file: 0o100000,
  directory: 0o040000,
  symlink: 0o120000,
  fifo: 0o010000,
  socket: 0o140000,
}
const KINDS: readonly Kind[] = ['file', 'directory', 'symlink', 'fifo', 'socket']
/** What S3 holds: names and values of user metadata together. */
const METADATA_BYTES_MAX = 2048
const BASE64 = 'base64:'
/** What always has a mode, since its type bits are what older readers know it by. */
const MODE_KEPT: Readonly<Partial<Record<Kind, number>>> = { symlink: 0o777, fifo: 0o644, socket: 0o644 }

/** What the user metadata of one object says. */
export interface StoredMetadata {
  readonly attributes: Attributes
  /** By the mode's type bits, where it has any that are known. */
  readonly kind: Kind | undefined
  /** Members of `attr` that are not ours: names and JSON texts. */
  readonly foreign: ReadonlyMap<string, string>
}

const NOTHING: StoredMetadata = { attributes: {}, kind: undefined, foreign: new Map() }
const OURS = new Set(['st_uid', 'st_gid', 'st_mode', 'st_atime', 'st_mtime', 'st_ctime', 'st_size'])

/** Reads the values of the two headers; what makes no sense in them counts as not told. */
export function decodeMetadata(attr: string | undefined, xattr: string | undefined): StoredMetadata {
  if (attr === undefined && xattr === undefined) return NOTHING
  const members = attr === undefined ? new Map<string, string>() : jsonMembers(attr)
  const attributes: { -readonly [K in keyof Attributes]: Attributes[K] } = {}
  const mode = naturalOf(members.get('st_mode'))
  if (mode !== undefined) attributes.mode = mode & 0o7777
  const uid = ownerOf(members.get('st_uid'))
  if (uid !== undefined) attributes.uid = uid
  const gid = ownerOf(members.get('st_gid'))
  if (gid !== undefined) attributes.gid = gid
  for (const name of ['atime', 'mtime', 'ctime'] as const) {
    const time = timeOf(members.get(`st_${name}`))
    if (time !== undefined) attributes[name] = time
  }
  const xattrs = xattr === undefined ? undefined : decodeXattrs(xattr)
  if (xattrs !== undefined && xattrs.size > 0) attributes.xattrs = xattrs
  const bits = mode === undefined ? 0 : mode & S_IFMT
  const kind = KINDS.find((each) => TYPE_BITS[each] === bits)
  const foreign = new Map([...members].filter(([name]) => !OURS.has(name)))
  return { attributes, kind, foreign }
}

/** The values of the two headers; absent where there is nothing to say. @throws OperationError `STORE_ATTRIBUTES_TOO_LARGE`. */
export function encodeMetadata(
  path: string,
  kind: Kind,
  size: number | undefined,
  attributes: Attributes,
  foreign: ReadonlyMap<string, string> = NOTHING.foreign,
): { readonly attr?: string; readonly xattr?: string } {
  const members: string[] = []
  const add = (name: string, literal: string | number | undefined): void => {
    if (literal !== undefined) members.push(`"${name}": ${literal}`)
  }
  add('st_uid', attributes.uid)
  add('st_gid', attributes.gid)
  const mode = attributes.mode ?? MODE_KEPT[kind]
  if (mode !== undefined) add('st_mode', TYPE_BITS[kind] | (mode & 0o7777))
  for (const name of ['atime', 'mtime', 'ctime'] as const) {
    const time = attributes[name]
    if (time !== undefined) add(`st_${name}`, timestampToDecimal(time))
  }
  if (members.length > 0) add('st_size', size)
  for (const [name, json] of foreign) members.push(`${JSON.stringify(name)}: ${json}`)
  const result: { attr?: string; xattr?: string } = {}
  if (members.length > 0) result.attr = ascii(`{${members.join(', ')}}`)
  if (attributes.xattrs !== undefined && attributes.xattrs.size > 0) result.xattr = encodeXattrs(attributes.xattrs)
  const bytes = (result.attr?.length ?? -4) + 4 + (result.xattr?.length ?? -5) + 5
  if (bytes > METADATA_BYTES_MAX) {
    throw new OperationError(
      'STORE_ATTRIBUTES_TOO_LARGE',
      `Cannot keep the attributes of "${path}": they take ${bytes} bytes, S3 holds ${METADATA_BYTES_MAX}`,
    )
  }
  return result
}

/** The longest that the others can become, for a check of extended attributes before the rest is known. */
const LONGEST_TIME: Timestamp = { seconds: 99_999_999_999_999, nanoseconds: 999_999_999 }
const LONGEST: Attributes = {
  mode: 0o7777,
  ...{ uid: 0xffff_ffff, gid: 0xffff_ffff },
  ...{ atime: LONGEST_TIME, mtime: LONGEST_TIME, ctime: LONGEST_TIME },
}
const LONGEST_SIZE = 99_999_999_999_999

/** @throws OperationError `STORE_ATTRIBUTES_TOO_LARGE` where the extended ones leave too little room for the others. */
export function checkMetadata(path: string, kind: Kind, { xattrs }: Attributes): void {
  if (xattrs === undefined || xattrs.size === 0) return
  encodeMetadata(path, kind, LONGEST_SIZE, { ...LONGEST, xattrs })
}

function encodeXattrs(xattrs: ReadonlyMap<string, Uint8Array>): string {
  const members = [...xattrs].map(([name, value]) => {
    const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength)
    const text = isUtf8(bytes) && !name.startsWith(BASE64)
    const member = text ? [name, bytes.toString()] : [BASE64 + name, bytes.toString('base64')]
    return member.map((part) => JSON.stringify(part)).join(': ')
  })
  return ascii(`{${members.join(', ')}}`)
}

function decodeXattrs(text: string): Map<string, Uint8Array> {
  const xattrs = new Map<string, Uint8Array>()
  for (const [name, json] of jsonMembers(text)) {
    const value: unknown = JSON.parse(json)
    // Never written so by anything known; there is no saying what it would mean.
    if (typeof value !== 'string') continue
    if (name.startsWith(BASE64)) xattrs.set(name.slice(BASE64.length), Buffer.from(value, 'base64'))
    else xattrs.set(name, Buffer.from(value))
  }
  return xattrs
}

/** Printable ASCII without two spaces in a row, which stands for the same JSON. */
function ascii(json: string): string {
  return json.replace(/[^ -~]|(?<= ) /g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** `JSON.parse` of Node 24 tells a reviver the text of each primitive, which the types do not know yet. */
type Reviver = (this: unknown, key: string, value: unknown, context: { readonly source?: string }) => unknown

/** The members of a JSON object by name, each as JSON text; of the older `k=v;k=v` text, values as strings. */
function jsonMembers(text: string): Map<string, string> {
  const sources = new Map<unknown, Map<string, string>>()
  const note: Reviver = function (key, value, { source }) {
    const known = sources.get(this)
    if (source !== undefined) {
      if (known === undefined) sources.set(this, new Map([[key, source]]))
      else known.set(key, source)
    }
    return value
  }
  let root: unknown
  try {
    root = JSON.parse(text, note as Parameters<typeof JSON.parse>[1])
  } catch {
    return olderMembers(text)
  }
  if (typeof root !== 'object' || root === null || Array.isArray(root)) return new Map()
  const known = sources.get(root)
  return new Map(Object.entries(root).map(([name, value]) => [name, known?.get(name) ?? JSON.stringify(value)]))
}

function olderMembers(text: string): Map<string, string> {
  const members = new Map<string, string>()
  for (const pair of text.split(';')) {
    const equals = pair.indexOf('=')
    if (equals > 0) members.set(pair.slice(0, equals).trim(), JSON.stringify(pair.slice(equals + 1)))
  }
  return members
}

/** A number of at least 0 from a JSON literal, quoted or not. */
function naturalOf(literal: string | undefined): number | undefined {
  if (literal === undefined) return undefined
  const value = Number(unquoted(literal))
  return Number.isSafeInteger(value) && value >= 0 ? value : undefined
}

/** A user or a group; one that Linux has none of counts as not told, since the kernel refuses a file of such a one. */
function ownerOf(literal: string | undefined): number | undefined {
  const id = naturalOf(literal)
  if (id === undefined || id <= ID_MAX) return id
  if (!hasToldOwner) log.warn({ id }, 'ignores an owner that no user or group can be; this is told only once')
  hasToldOwner = true
  return undefined
}

function unquoted(literal: string): string {
  return literal.startsWith('"') && literal.endsWith('"') ? literal.slice(1, -1) : literal
}

/** A time from decimal seconds: exact to the nanosecond, whatever their number of digits. */
function timeOf(literal: string | undefined): Timestamp | undefined {
  if (literal === undefined) return undefined
  let text = unquoted(literal)
  if (/^-?[\d.]+[eE]/.test(text)) text = Number(text).toFixed(9)
  return timestampFromDecimal(text)
}
