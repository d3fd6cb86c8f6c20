/**
 * One entry being applied to the coordinator's state: transactions begin, ask their next step, or end, and let go those that wait for them. All
 * that is to be done beyond the state gathers in `effects`.
 *
 *   queued --first in its queues--> has a slot? --yes--> asking a step ... --> end: answer kept, slot and queues left
 *                                       '--no--> waits for a slot --'
 */
import { assert } from '#base/assert.ts'
import { isOperationError, type OperationError } from '#base/errors.ts'
import { inodeShard, makeInodeId, SHARDS, type InodeId } from '#cluster/inode-id.ts'
import { keepAnswer, type Answer } from '#cluster/journal/sessions.ts'
import type { Key, StateBatch, StateReader } from '#cluster/journal/state.ts'
import { decode } from '#cluster/wire/codec.ts'
import type { RequestId } from '#cluster/wire/envelope.ts'
import type { AnyMessage } from '#cluster/wire/message.ts'

import { END, type Course, type CourseStep, type Next } from './course.ts'
import { findCourse } from './courses.ts'
import { dequeue, enqueue, firstOf, WAITING_FOR_SLOTS } from './queues.ts'
import {
  FREE_SLOT,
  RUNNING,
  SELF,
  TRANSACTION,
  type Self,
  type TransactionId,
  type TransactionRecord,
} from './records.ts'

/**
 * Transactions that ask shards at a time. Each has a slot of the coordinator's client id, in which shards remember its last request: the one
 * that was free last is taken first, so that shards remember no more slots than there ever were busy ones.
 */
export const SLOTS = 1024

/** To be asked of a shard, under that id, until it answers. */
export interface Step {
  readonly transaction: TransactionId
  readonly shard: number
  readonly message: AnyMessage
  readonly request: unknown
  readonly id: RequestId
}

/** For a client. */
export interface Answered {
  readonly id: RequestId
  readonly answer: Answer
}

/** What could not happen, and did. */
export interface Surprise {
  readonly transaction: TransactionId
  readonly step: string
  readonly why: OperationError
}

export interface Effects {
  readonly steps: readonly Step[]
  readonly answers: readonly Answered[]
  readonly surprises: readonly Surprise[]
  /** Of `forget`: where to go on; empty at the end. */
  readonly next: Key
}

/** A transaction with what it is about. */
export interface Transaction {
  readonly id: TransactionId
  readonly record: TransactionRecord
  readonly course: Course
  readonly request: unknown
}

export function transactionOf(id: TransactionId, record: TransactionRecord): Transaction {
  const course = findCourse(record.asks)
  assert(course !== undefined, 'a transaction is of a known kind')
  return { id, record, course, request: decode(course.message.request, record.body) }
}

export function findTransaction(state: StateReader, id: TransactionId): Transaction | undefined {
  const record = TRANSACTION.get(state, id)
  return record === undefined ? undefined : transactionOf(id, record)
}

/** The step that the transaction is at. */
export function currentStep({ course, record }: Transaction): CourseStep {
  const step = course.steps[record.step]
  assert(step !== undefined, 'a transaction under way is at one of its steps')
  return step
}

/** As it is asked, the first time and again. */
export function askedStep(transaction: Transaction, client: number): Step {
  const { id, record, request } = transaction
  const asking = currentStep(transaction).ask(request, record)
  return {
    transaction: id,
    shard: inodeShard(asking.about),
    message: asking.message,
    request: asking.request,
    id: { client, slot: record.ownSlot, sequence: record.ownSequence },
  }
}

export class Turn {
  readonly #batch: StateBatch
  readonly #timeUs: number
  readonly #self: Self
  readonly effects = { steps: [] as Step[], answers: [] as Answered[], surprises: [] as Surprise[], next: '' }
  /** First in all of their queues. */
  readonly #ready: TransactionId[] = []

  constructor(batch: StateBatch, timeUs: number, self: Self) {
    this.#batch = batch
    this.#timeUs = timeUs
    this.#self = self
  }

  /** A new transaction, by the last number that there is. */
  open(transaction: Transaction): void {
    const { id, record, course, request } = transaction
    for (const queue of course.queues(request)) {
      if (!enqueue(this.#batch, queue, id)) record.waits++
    }
    RUNNING.put(this.#batch, { sequence: record.sequence, transaction: id }, record)
    this.#self.open++
    if (record.waits === 0) this.#begin(transaction)
    else this.#save(transaction)
    this.#beginReady()
    SELF.put(this.#batch, this.#self)
  }

  /** Its step was answered. */
  goOn(transaction: Transaction, next: Next): void {
    transaction.record.step = next
    if (next !== END) return this.#ask(transaction)
    this.#end(transaction)
    this.#beginReady()
    SELF.put(this.#batch, this.#self)
  }

  #ask(transaction: Transaction): void {
    transaction.record.ownSequence++
    this.effects.steps.push(askedStep(transaction, this.#self.client))
    this.#save(transaction)
  }

  #save({ id, record }: Transaction): void {
    TRANSACTION.put(this.#batch, record, id)
  }

  /** What ends lets others begin, which may end at once as well. */
  #beginReady(): void {
    for (let id = this.#ready.shift(); id !== undefined; id = this.#ready.shift()) {
      const transaction = findTransaction(this.#batch, id)
      assert(transaction !== undefined, 'who is in a queue is there')
      this.#begin(transaction)
    }
  }

  #begin(transaction: Transaction): void {
    const { id, record, course, request } = transaction
    try {
      record.step = course.begin(request, record, this.#batch, () => this.#newDirectory())
    } catch (error) {
      if (!isOperationError(error)) throw error
      record.failure = error
      return this.#end(transaction)
    }
    if (this.#takeSlot(record)) return this.#ask(transaction)
    enqueue(this.#batch, WAITING_FOR_SLOTS, id)
    this.#save(transaction)
  }

  #end({ id, record, course, request }: Transaction): void {
    const { failure } = record
    const answer: Answer =
      failure === undefined ? { body: course.end(request, record, this.#batch) } : { refusal: failure }
    const asker = { client: record.client, slot: record.slot, sequence: record.sequence }
    this.effects.answers.push({ id: asker, answer })
    // Who has given this request up may have made another one in the slot since: nobody will ask for this one again.
    if (RUNNING.get(this.#batch, asker)?.transaction === id) {
      RUNNING.remove(this.#batch, asker)
      keepAnswer(this.#batch, { ...asker, shard: 0, isInternal: false }, this.#timeUs, answer)
    }
    TRANSACTION.remove(this.#batch, id)
    this.#self.open--
    for (const queue of course.queues(request)) this.#leave(queue, id)
    if (record.ownSequence > 0) this.#giveSlot(record)
  }

  #leave(queue: number, id: TransactionId): void {
    const next = dequeue(this.#batch, queue, id)
    if (next === undefined) return
    const record = TRANSACTION.get(this.#batch, next)
    assert(record !== undefined && record.waits > 0, 'who comes next has waited')
    const waits = record.waits - 1
    TRANSACTION.put(this.#batch, { ...record, waits }, next)
    if (waits === 0) this.#ready.push(next)
  }

  #takeSlot(record: TransactionRecord): boolean {
    const self = this.#self
    if (self.freeSlot > 0) {
      const slot = self.freeSlot - 1
      const free = FREE_SLOT.get(this.#batch, slot)
      assert(free !== undefined, 'a free slot is there')
      self.freeSlot = free.below
      FREE_SLOT.remove(this.#batch, slot)
      record.ownSlot = slot
      record.ownSequence = free.sequence
      return true
    }
    if (self.slots === SLOTS) return false
    record.ownSlot = self.slots++
    return true
  }

  /** To who waits for one, or back. */
  #giveSlot({ ownSlot, ownSequence }: TransactionRecord): void {
    const next = firstOf(this.#batch, WAITING_FOR_SLOTS)
    if (next === undefined) {
      FREE_SLOT.put(this.#batch, { sequence: ownSequence, below: this.#self.freeSlot }, ownSlot)
      this.#self.freeSlot = ownSlot + 1
      return
    }
    dequeue(this.#batch, WAITING_FOR_SLOTS, next)
    const transaction = findTransaction(this.#batch, next)
    assert(transaction !== undefined, 'who is in a queue is there')
    Object.assign(transaction.record, { ownSlot, ownSequence })
    this.#ask(transaction)
  }

  /** Directories that are made one after the other lie on one shard after the other. */
  #newDirectory(): InodeId {
    const ordinal = this.#self.directories++
    return makeInodeId('directory', ordinal % SHARDS, Math.floor(ordinal / SHARDS) + 1)
  }
}
