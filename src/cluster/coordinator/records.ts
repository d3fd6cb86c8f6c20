/**
 * What the coordinator keeps, and the entries of its journal, as bytes (docs/formats/coordinator.md). Keys begin with a letter that
 * tells the kind of the record:
 *
 *   m                      who it is, and its counters
 *   d directory            the directory that it lies in
 *   t transaction          a transaction that waits or is under way
 *   r client slot          the transaction by which the last request of that slot is being done
 *   q queue                its first and its last transaction
 *   n queue transaction    the transaction that comes after that one in the queue
 *   s slot                 a slot of the coordinator that is free
 *   c                      answers that were given (`#cluster/journal/sessions.ts`)
 */
import type { OperationError } from '#base/errors.ts'
import type { InodeId } from '#cluster/inode-id.ts'
import { numberKey } from '#cluster/journal/keys.ts'
import { KEY_BYTES_MAX, type Key, type StateBatch, type StateReader } from '#cluster/journal/state.ts'
import {
  blob,
  branded,
  decode,
  encode,
  optional,
  struct,
  text,
  u16,
  u32,
  u53,
  u8,
  variants,
  type Codec,
  type ValueOf,
} from '#cluster/wire/codec.ts'
import { decodeError, encodeError, type RequestId } from '#cluster/wire/envelope.ts'
import { inode, inodeOrNone, policy, stampUs } from '#cluster/wire/forms.ts'

/** Larger than any request to the coordinator, or answer of a shard to it. */
const BODY_BYTES_MAX = 65_536

export type TransactionId = number & { readonly __transaction: never }
const transactionId: Codec<TransactionId> = branded(u53, 'transaction (u53)')

/** Why something was refused. */
const refusal: Codec<OperationError> = {
  write: (to, error) => blob(BODY_BYTES_MAX).write(to, encodeError(error)),
  read: (from) => decodeError(blob(BODY_BYTES_MAX).read(from)),
  form: 'refusal (u32 length, body of a refusal as in wire.md)',
}

/** A request id of which the client is known. */
const place = { slot: u16, sequence: u53 }
const requestId = { client: u53, ...place }

export const coordinatorEntry = variants({
  /** The first one: draws the client id that its requests to shards have. */
  begin: struct({ client: u53 }),
  /** A client asks: `asks` is the kind of the message. */
  request: struct({ ...requestId, timeUs: stampUs, asks: u16, body: blob(BODY_BYTES_MAX) }),
  /** A shard has answered the step of a transaction that was sent under that id. */
  answered: struct({ ...place, transaction: transactionId, timeUs: stampUs, reply: blob(BODY_BYTES_MAX) }),
  refused: struct({ ...place, transaction: transactionId, timeUs: stampUs, why: refusal }),
  /** Forgets answers that were given before `beforeUs`, looking at `count` of them from the key on. */
  forget: struct({ beforeUs: stampUs, from: blob(KEY_BYTES_MAX), count: u32 }),
})
export type CoordinatorEntry = ValueOf<typeof coordinatorEntry>
export type RequestEntry = Extract<CoordinatorEntry, { kind: 'request' }>
export type StepEntry = Extract<CoordinatorEntry, { kind: 'answered' | 'refused' }>

export const self = struct({
  client: u53,
  /** Of the next transaction. */
  transaction: transactionId,
  /** How many directories it has made. */
  directories: u53,
  /** Transactions that wait or are under way. */
  open: u32,
  /** Slots that were ever used, and 1 more than the free one that was used last; 0 where none is free. */
  slots: u16,
  freeSlot: u32,
})
export type Self = { -readonly [K in keyof ValueOf<typeof self>]: ValueOf<typeof self>[K] }

/** What a transaction has found out. */
const variables = {
  /** The directory that is made; or of which the policy is asked. */
  inode: inodeOrNone,
  created: stampUs,
  replaced: inodeOrNone,
  removed: stampUs,
  policy: optional(policy),
  /** Why it is being undone, or will be refused. */
  failure: optional(refusal),
}
const variablesForm = struct(variables)
export type Variables = { -readonly [K in keyof ValueOf<typeof variablesForm>]: ValueOf<typeof variablesForm>[K] }

export const transactionRecord = struct({
  /** Who asks, for what. */
  ...requestId,
  asks: u16,
  body: blob(BODY_BYTES_MAX),
  /** The queues in which it is not the first yet. */
  waits: u8,
  /** Its step by name; empty before the first one. */
  step: text(32),
  /** Under which the step was asked for. */
  ownSlot: u16,
  ownSequence: u53,
  ...variables,
})
export type TransactionRecord = {
  -readonly [K in keyof ValueOf<typeof transactionRecord>]: ValueOf<typeof transactionRecord>[K]
}

const running = struct({ sequence: u53, transaction: transactionId })
const ends = struct({ first: transactionId, last: transactionId })
const freeSlot = struct({ sequence: u53, below: u32 })
const parent = struct({ parent: inode })

export const TRANSACTIONS = 't'
const slotKey = (slot: number): string => String.fromCharCode(slot >>> 8, slot & 0xff)

/** One kind of record. */
class Kind<T, K extends readonly unknown[]> {
  readonly #codec: Codec<T>
  readonly #keyOf: (...key: K) => Key

  constructor(codec: Codec<T>, keyOf: (...key: K) => Key) {
    this.#codec = codec
    this.#keyOf = keyOf
  }

  get(state: StateReader, ...key: K): T | undefined {
    const found = state.get(this.#keyOf(...key))
    return found === undefined ? undefined : decode(this.#codec, found)
  }

  put(batch: StateBatch, value: T, ...key: K): void {
    batch.put(this.#keyOf(...key), encode(this.#codec, value))
  }

  remove(batch: StateBatch, ...key: K): void {
    batch.remove(this.#keyOf(...key))
  }
}

export const SELF = new Kind(self, () => 'm')
export const TRANSACTION = new Kind(transactionRecord, (id: TransactionId) => TRANSACTIONS + numberKey(id))
export const PARENT = new Kind(parent, (directory: InodeId) => `d${numberKey(directory)}`)
export const RUNNING = new Kind(
  running,
  ({ client, slot }: Pick<RequestId, 'client' | 'slot'>) => `r${numberKey(client)}${slotKey(slot)}`,
)
export const QUEUE = new Kind(ends, (queue: number) => `q${numberKey(queue)}`)
export const NEXT = new Kind(
  struct({ next: transactionId }),
  (queue: number, id: TransactionId) => `n${numberKey(queue)}${numberKey(id)}`,
)
export const FREE_SLOT = new Kind(freeSlot, (slot: number) => `s${slotKey(slot)}`)
