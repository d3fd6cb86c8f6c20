/** Names as events and directories give them: bytes, of which only UTF-8 can be part of a path. */
import { isUtf8 } from 'node:buffer'

/** The name; undefined where it is not UTF-8. */
export function nameFrom(bytes: Buffer, start: number, end: number): string | undefined {
  const name = bytes.toString('utf8', start, end)
  // What is not UTF-8 is decoded to this, which may be in a name itself, too.
  return name.includes('\uFFFD') && !isUtf8(bytes.subarray(start, end)) ? undefined : name
}

/** As it can be shown: each byte that belongs to no UTF-8 character as `\xNN`. */
export function shownBytes(bytes: Buffer): string {
  let shown = ''
  for (let at = 0; at < bytes.length;) {
    let length = 1
    while (length <= 4 && at + length <= bytes.length && !isUtf8(bytes.subarray(at, at + length))) length++
    if (length <= 4 && at + length <= bytes.length) {
      shown += bytes.toString('utf8', at, at + length)
      at += length
    } else {
      shown += `\\x${(bytes[at++] ?? 0).toString(16).padStart(2, '0')}`
    }
  }
  return shown
}
