/**
 * The machine of a shard process, which is one or more of the 256 virtual shards: all metadata of their inodes, and all names in their directories. An entry
 * is a request of a client, of the coordinator, or of the process itself; what it does depends on the state and the entry alone.
 *
 * Who asks twice under one id is answered twice and served once (`#cluster/journal/sessions.ts`).
 */
import { assert } from '#base/assert.ts'
import { isOperationError, OperationError } from '#base/errors.ts'
import { ROOT_INODE } from '#cluster/inode-id.ts'
import { numberValue, readNumber } from '#cluster/journal/keys.ts'
import type { Machine } from '#cluster/journal/machine.ts'
import { findAnswer, forgetAnswers, keepAnswer, SESSION_US, type Answer } from '#cluster/journal/sessions.ts'
import type { StateBatch } from '#cluster/journal/state.ts'
import { decode, encode } from '#cluster/wire/codec.ts'
import { bodyOf, requestCheck, saysLater } from '#cluster/wire/envelope.ts'
import { NO_INODE } from '#cluster/wire/forms.ts'
import type { AnyMessage } from '#cluster/wire/message.ts'

import { coordinatorOperations } from './coordinator-operations.ts'
import { fileOperations } from './file-operations.ts'
import type { OperationsOf } from './operations.ts'
import { ownMessages } from './own-messages.ts'
import { diskKeyOf, diskRecord, putDirectory, SECRET_KEY, SHARDS_KEY, TIME_KEY } from './records.ts'
import { decodeEntry, encodeEntry, type ShardEntry } from './shard-entry.ts'
import { shardMessages } from './shard-messages.ts'
import { spanOperations } from './span-operations.ts'
import type { Step } from './step.ts'

const NOTHING = {}
/** Sessions that one entry looks at. */
const FORGET_COUNT = 1000
const ROOT_MODE = 0o755

const ownOperations: OperationsOf<typeof ownMessages, keyof typeof ownMessages> = {
  begin({ batch, timeUs }, { first, last, secret }) {
    assert(batch.get(SHARDS_KEY) === undefined, 'shards begin once')
    batch.put(SHARDS_KEY, Buffer.from([first, last]))
    batch.put(SECRET_KEY, Buffer.from(secret))
    if (first === 0) {
      const attributes = { mode: ROOT_MODE, uid: 0, gid: 0, mtime: timeUs, atime: timeUs, ctime: timeUs }
      putDirectory(batch, ROOT_INODE, { ...attributes, owner: NO_INODE, policy: undefined })
    }
    return NOTHING
  },

  learnDisks({ batch }, { disks }) {
    for (const { disk, ...record } of disks) batch.put(diskKeyOf(disk), encode(diskRecord, record))
    return NOTHING
  },

  forget({ batch, timeUs }, { from }) {
    return { next: forgetAnswers(batch, from, timeUs - SESSION_US, FORGET_COUNT) ?? '' }
  },
}

type Apply = (step: Step, body: Buffer) => Buffer

/** By kind: reads the request, does it, writes the reply. */
const applies = new Map<number, Apply>()

function register(messages: Readonly<Record<string, AnyMessage>>, operations: Readonly<Record<string, unknown>>): void {
  for (const [name, operation] of Object.entries(operations)) {
    const message = messages[name]
    assert(message !== undefined && message.does === 'write', 'each operation is for a write of the table')
    // The types of the tables of operations say that each fits its message.
    const run = operation as (step: Step, request: unknown) => unknown
    applies.set(message.kind, (step, body) => encode(message.reply, run(step, decode(message.request, body))))
  }
}
register(shardMessages, fileOperations)
register(shardMessages, spanOperations)
register(shardMessages, coordinatorOperations)
register(ownMessages, ownOperations)

export class ShardMachine implements Machine<ShardEntry, Answer> {
  encode(entry: ShardEntry): Buffer {
    return encodeEntry(entry)
  }

  decode(bytes: Buffer): ShardEntry {
    return decodeEntry(bytes)
  }

  /** A refusal is an outcome, too, and is kept; one that says "later" is thrown. */
  apply(batch: StateBatch, entry: ShardEntry): Answer {
    const { header, timeUs, chosen } = entry
    const { shard, kind } = header
    const check = requestCheck(entry.frame)
    const answer = findAnswer(batch, shard, header, check)
    if (answer !== undefined) return answer
    const apply = applies.get(kind)
    if (apply === undefined) throw new OperationError('WIRE_KIND_UNKNOWN', `Cannot do a write of kind ${kind}`)
    let given: Answer
    try {
      given = { body: apply({ batch, timeUs, shard, chosen }, bodyOf(entry.frame)) }
    } catch (error) {
      // What the disk made of a record is no answer for good: the directory may be restored.
      if (!isOperationError(error) || isOperationError(error, 'WIRE_MALFORMED', 'JOURNAL_CORRUPT') || saysLater(error))
        throw error
      assert(!batch.isChanged, 'what is refused changes nothing')
      given = { refusal: error }
    }
    const before = batch.get(TIME_KEY)
    assert(before === undefined || readNumber(before, 0) < timeUs, 'the times of entries increase')
    batch.put(TIME_KEY, numberValue(timeUs))
    keepAnswer(batch, header, timeUs, given, check)
    return given
  }
}
