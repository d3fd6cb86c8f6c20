/**
 * The coordinator as a function of its state and an entry: a client asks, a shard has answered a step, a session is old. It says which
 * steps are to be asked and which clients are to be answered; all of that once the entry is durable.
 *
 * Why a transaction is done once, whatever is lost or comes twice:
 *
 * - A request that comes again finds its transaction by the client's slot, or the answer that was kept; a refusal is kept as well, so that a
 *   late copy of what was refused is not tried again.
 * - A step has an id of its own, which the shard remembers: asked again, it gives the same answer, also where that is a refusal. Only the answer to the step that is
 *   asked right now counts; all others are late or doubled, and change nothing (`isOutstanding`).
 */
import { assert } from '#base/assert.ts'
import { OperationError } from '#base/errors.ts'
import type { StateBatch, StateReader } from '#cluster/journal/state.ts'
import type { Machine } from '#cluster/journal/machine.ts'
import { after, numberOfKey } from '#cluster/journal/keys.ts'
import { findAnswer, forgetAnswers } from '#cluster/journal/sessions.ts'
import { decode, encode } from '#cluster/wire/codec.ts'
import { NO_INODE } from '#cluster/wire/forms.ts'

import { findCourse } from './courses.ts'
import {
  coordinatorEntry,
  RUNNING,
  SELF,
  TRANSACTIONS,
  transactionRecord,
  type CoordinatorEntry,
  type RequestEntry,
  type Self,
  type StepEntry,
  type TransactionId,
  type TransactionRecord,
} from './records.ts'
import { askedStep, currentStep, findTransaction, transactionOf, Turn, type Effects, type Step } from './turn.ts'

/** Waiting or under way. */
export const TRANSACTIONS_MAX = 16_384

const NO_EFFECTS: Effects = { steps: [], answers: [], surprises: [], next: '' }

export class CoordinatorMachine implements Machine<CoordinatorEntry, Effects> {
  encode(entry: CoordinatorEntry): Uint8Array {
    return encode(coordinatorEntry, entry)
  }

  decode(bytes: Buffer): CoordinatorEntry {
    return decode(coordinatorEntry, bytes)
  }

  apply(batch: StateBatch, entry: CoordinatorEntry): Effects {
    switch (entry.kind) {
      case 'begin':
        if (SELF.get(batch) === undefined) SELF.put(batch, newSelf(entry.client))
        return NO_EFFECTS
      case 'request':
        return this.#request(batch, entry)
      case 'answered':
      case 'refused':
        return this.#step(batch, entry)
      case 'forget':
        return {
          ...NO_EFFECTS,
          next: forgetAnswers(batch, entry.from.toString('latin1'), entry.beforeUs, entry.count) ?? '',
        }
    }
  }

  /** Whether the answer is to what the transaction asks right now; others must not take it a step further. */
  isOutstanding(record: TransactionRecord, { slot, sequence }: StepEntry): boolean {
    return record.ownSlot === slot && record.ownSequence === sequence
  }

  #request(batch: StateBatch, entry: RequestEntry): Effects {
    const course = findCourse(entry.asks)
    if (course === undefined) {
      throw new OperationError('WIRE_KIND_UNKNOWN', `Cannot answer a message of kind ${entry.asks}`)
    }
    const answer = findAnswer(batch, 0, entry)
    if (answer !== undefined) return { ...NO_EFFECTS, answers: [{ id: entry, answer }] }
    const running = RUNNING.get(batch, entry)
    if (running?.sequence === entry.sequence) return NO_EFFECTS
    const action = `Cannot do "${course.message.name}"`
    if (running !== undefined && running.sequence > entry.sequence) {
      const detail = `request ${entry.sequence} of slot ${entry.slot} came after request ${running.sequence}`
      throw new OperationError('REQUEST_STALE', `${action}: ${detail}`)
    }
    const request = decode(course.message.request, entry.body)
    course.check(request)
    const self = selfOf(batch)
    if (self.open >= TRANSACTIONS_MAX) {
      throw new OperationError('CLUSTER_BUSY', `${action}: ${self.open} others wait or are under way`)
    }
    const id = self.transaction
    self.transaction = (id + 1) as TransactionId
    const turn = new Turn(batch, entry.timeUs, self)
    turn.open({ id, record: newRecord(entry), course, request })
    return turn.effects
  }

  #step(batch: StateBatch, entry: StepEntry): Effects {
    const transaction = findTransaction(batch, entry.transaction)
    if (transaction === undefined) return NO_EFFECTS
    const { record } = transaction
    if (!this.isOutstanding(record, entry)) return NO_EFFECTS
    const step = currentStep(transaction)
    const turn = new Turn(batch, entry.timeUs, selfOf(batch))
    if (entry.kind === 'answered') {
      turn.goOn(transaction, step.answered(record, entry.reply))
      return turn.effects
    }
    const { why } = entry
    if (!step.forgiven.includes(why.code)) {
      record.failure ??= why
      if (step.isSure) turn.effects.surprises.push({ transaction: transaction.id, step: record.step, why })
    }
    turn.goOn(transaction, step.refused)
    return turn.effects
  }
}

/** The client id that requests to shards have; undefined before the first entry. */
export function ownClient(state: StateReader): number | undefined {
  return SELF.get(state)?.client
}

/** The steps that have no answer yet: after a start, all of them are to be asked again. */
export function outstandingSteps(state: StateReader): Step[] {
  const client = ownClient(state)
  const steps: Step[] = []
  if (client === undefined) return steps
  state.range(TRANSACTIONS, after(TRANSACTIONS), (key, value) => {
    const record = decode(transactionRecord, value)
    const id = numberOfKey(key, TRANSACTIONS.length) as TransactionId
    if (record.ownSequence > 0) steps.push(askedStep(transactionOf(id, record), client))
    return true
  })
  return steps
}

/** How many transactions wait or are under way. */
export function openTransactions(state: StateReader): number {
  return SELF.get(state)?.open ?? 0
}

function selfOf(state: StateReader): Self {
  const self = SELF.get(state)
  assert(self !== undefined, 'the first entry says who the coordinator is')
  return self
}

function newSelf(client: number): Self {
  return { client, transaction: 1 as TransactionId, directories: 0, open: 0, slots: 0, freeSlot: 0 }
}

function newRecord({ client, slot, sequence, asks, body }: RequestEntry): TransactionRecord {
  return {
    client,
    slot,
    sequence,
    asks,
    body,
    waits: 0,
    step: '',
    ownSlot: 0,
    ownSequence: 0,
    inode: NO_INODE,
    created: 0,
    replaced: NO_INODE,
    removed: 0,
    policy: undefined,
    failure: undefined,
  }
}
