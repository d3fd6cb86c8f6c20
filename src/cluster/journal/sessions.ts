/**
 * Writes that are done once however often they are asked for: with each one the machine keeps its answer under the slot of the
 * client that asked (`#cluster/wire/envelope.ts`), until the slot's next request takes its place. The same request again is given that answer; an
 * older one is a late copy, and is refused. Refusals are kept, too: a late copy of a refused request would be done otherwise when who asked has
 * gone on. Only those that say "later" are not: who gets one asks again under the same id.
 *
 * Of clients that have not been heard of for an hour nothing is kept: a request is given up by then. Those of the
 * coordinator are kept for ever: it asks until it has an answer, also after being away for days.
 */
import { OperationError } from '#base/errors.ts'
import { decodeError, encodeError, type RequestId } from '#cluster/wire/envelope.ts'

import { numberKey, NUMBER_BYTES, readNumber, writeNumber } from './keys.ts'
import type { Key, StateBatch, StateReader } from './state.ts'

/** What the keys of sessions begin with. */
export const SESSIONS = 'c'
/** Answers are kept for so long. */
export const SESSION_US = 3600e6
const FLAGS_AT = 2 * NUMBER_BYTES
const CHECK_AT = FLAGS_AT + 1
const HEAD_BYTES = CHECK_AT + 4
const IS_INTERNAL = 1
const IS_REFUSAL = 2

/** Clients ask several machines under one id, and one process may be several of them: `shard` tells those apart. */
function sessionKey(shard: number, { client, slot }: RequestId): Key {
  return SESSIONS + String.fromCharCode(shard) + numberKey(client) + String.fromCharCode(slot >>> 8, slot & 0xff)
}

/** What a request was answered: the body of its reply, or why it was refused. */
export type Answer = { readonly body: Buffer } | { readonly refusal: OperationError }

/**
 * The answer that was given to that very request; undefined where it is new. @param check of what is asked (`requestCheck`): who has lost count, such
 * as a process that was put back to an old copy of its directory, asks for other things under ids that were used.
 * @throws OperationError `REQUEST_STALE`
 */
export function findAnswer(state: StateReader, shard: number, id: RequestId, check = 0): Answer | undefined {
  const found = state.get(sessionKey(shard, id))
  if (found === undefined) return undefined
  const sequence = readNumber(found, 0)
  if (id.sequence > sequence) return undefined
  if (id.sequence === sequence) {
    if (found.readUInt32LE(CHECK_AT) !== check) {
      const detail = `request ${id.sequence} of slot ${id.slot} was another one`
      throw new OperationError('REQUEST_STALE', `Cannot do a request: ${detail}`, {
        hint: 'Whoever asks has lost count: an old copy of the directory of a process must not be used.',
      })
    }
    const rest = found.subarray(HEAD_BYTES)
    return ((found[FLAGS_AT] ?? 0) & IS_REFUSAL) === 0 ? { body: rest } : { refusal: decodeError(rest) }
  }
  const detail = `request ${id.sequence} of slot ${id.slot} came after request ${sequence}`
  throw new OperationError('REQUEST_STALE', `Cannot do a request again: ${detail}`)
}

export interface Asked extends RequestId {
  readonly shard: number
  readonly isInternal: boolean
}

/** Keeps the answer to what has that check. */
export function keepAnswer(batch: StateBatch, id: Asked, timeUs: number, answer: Answer, check = 0): void {
  const rest = 'body' in answer ? answer.body : encodeError(answer.refusal)
  const value = Buffer.allocUnsafe(HEAD_BYTES + rest.length)
  writeNumber(value, id.sequence, 0)
  writeNumber(value, timeUs, NUMBER_BYTES)
  value[FLAGS_AT] = (id.isInternal ? IS_INTERNAL : 0) | ('body' in answer ? 0 : IS_REFUSAL)
  value.writeUInt32LE(check, CHECK_AT)
  rest.copy(value, HEAD_BYTES)
  batch.put(sessionKey(id.shard, id), value)
}

/** Forgets answers given before `beforeUs`, looking at so many sessions from `from` on; the key to go on from, undefined at the end. */
export function forgetAnswers(batch: StateBatch, from: Key, beforeUs: number, count: number): Key | undefined {
  const old: Key[] = []
  let seen = 0
  let next: Key | undefined
  batch.range(from === '' ? SESSIONS : from, String.fromCharCode(SESSIONS.charCodeAt(0) + 1), (key, value) => {
    if (++seen > count) {
      next = key
      return false
    }
    const isInternal = ((value[FLAGS_AT] ?? 0) & IS_INTERNAL) !== 0
    if (!isInternal && readNumber(value, NUMBER_BYTES) < beforeUs) old.push(key)
    return true
  })
  for (const key of old) batch.remove(key)
  return next
}
