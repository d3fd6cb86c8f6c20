/**
 * Values as they lie in a stored state: each with a checksum over its key and itself, since lmdb has none of its own. So what the disk made of a value, or
 * of the name that it is under, is told as such, and not taken for what somebody wrote.
 */
import { OperationError } from '#base/errors.ts'
import { crc32c, crc32cText } from '#cluster/erasure/crc32c.ts'

import type { Key } from './state.ts'

const SEAL_BYTES = 4

/** The value with its checksum behind it. */
export function sealValue(key: Key, value: Buffer): Buffer {
  const sealed = Buffer.allocUnsafe(value.length + SEAL_BYTES)
  sealed.set(value)
  sealed.writeUInt32LE(crc32c(value, crc32cText(key)), value.length)
  return sealed
}

/** The value that was sealed under that key; undefined where it is damaged. */
export function findValue(key: Key, sealed: Buffer): Buffer | undefined {
  const end = sealed.length - SEAL_BYTES
  if (end < 0) return undefined
  const value = sealed.subarray(0, end)
  return sealed.readUInt32LE(end) === crc32c(value, crc32cText(key)) ? value : undefined
}

/** The same. @throws JOURNAL_CORRUPT where it is damaged */
export function openValue(key: Key, sealed: Buffer): Buffer {
  const value = findValue(key, sealed)
  if (value !== undefined) return value
  throw new OperationError('JOURNAL_CORRUPT', `Cannot read the state: the value of ${shownKey(key)} is damaged`)
}

export function shownKey(key: Key): string {
  return `key ${Buffer.from(key, 'latin1').toString('hex')}`
}
