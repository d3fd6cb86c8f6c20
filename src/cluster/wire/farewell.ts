/**
 * The last frame of a connection that one end lets go for a reason: a code and a sentence. What the other end writes goes to the logs
 * and terminals of this one, so only codes that a link can have are believed, and nothing is taken from the sentence but plain text.
 */
import { OperationError } from '#base/errors.ts'

import { choice, decode, encode, struct, text } from './codec.ts'
import { FAREWELL_BYTES_MAX } from './frame-reader.ts'

const DETAIL_BYTES_MAX = FAREWELL_BYTES_MAX - 2

const farewell = struct({
  code: choice('WIRE_MALFORMED', 'WIRE_REFUSED'),
  detail: text(DETAIL_BYTES_MAX),
})

/** Of the frame that says why this end lets go. */
export function farewellOf(error: OperationError): Buffer {
  const code = error.code === 'WIRE_REFUSED' ? 'WIRE_REFUSED' : 'WIRE_MALFORMED'
  return encode(farewell, { code, detail: plain(error.message).slice(0, DETAIL_BYTES_MAX) })
}

/** What the other end has said with its last frame. @throws OperationError `WIRE_MALFORMED` */
export function saidBy(peer: string, frame: Buffer): OperationError {
  const { code, detail } = decode(farewell, frame)
  return new OperationError(code, `Cannot talk to ${peer} any more: it says "${plain(detail)}"`)
}

function plain(said: string): string {
  return said.replaceAll(/[^\x20-\x7e]/g, '?')
}
