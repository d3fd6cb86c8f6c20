/** Names that are not UTF-8, as they can be shown: nothing is done with them by that text. */
import { isUtf8 } from 'node:buffer'

/** The bytes as text, each that belongs to no UTF-8 character as `\xNN`. */
export function shownName(bytes: Buffer): string {
  let shown = ''
  for (let at = 0; at < bytes.length;) {
    let length = 1
    while (length <= 4 && !isUtf8(bytes.subarray(at, at + length))) length++
    if (length <= 4 && at + length <= bytes.length) {
      shown += bytes.toString('utf8', at, at + length)
      at += length
    } else {
      shown += `\\x${(bytes[at++] ?? 0).toString(16).padStart(2, '0')}`
    }
  }
  return shown
}
