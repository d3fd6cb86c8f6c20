/**
 * Queues of transactions in the state: one for each directory that a transaction changes, one of those that move a directory, one of those that wait for
 * a slot. A transaction is put in all of its queues at once, and is done when it is the first in each. As all are entered in the order of
 * their numbers, the oldest one is always first in its queues: so none waits for ever, and none is overtaken by what it keeps waiting.
 *
 * A queue is a list, linked, so that coming and going costs the same however long it is; a queue of one has no link.
 */
import { assert } from '#base/assert.ts'
import type { StateBatch, StateReader } from '#cluster/journal/state.ts'

import { NEXT, QUEUE, type TransactionId } from './records.ts'

/** Numbers that no inode has. */
export const MOVING_DIRECTORIES = 0
export const WAITING_FOR_SLOTS = 1

/** @return whether it is the first. */
export function enqueue(batch: StateBatch, queue: number, id: TransactionId): boolean {
  const found = QUEUE.get(batch, queue)
  QUEUE.put(batch, { first: found?.first ?? id, last: id }, queue)
  if (found === undefined) return true
  NEXT.put(batch, { next: id }, queue, found.last)
  return false
}

/** The first one leaves. @return who is the first from now on */
export function dequeue(batch: StateBatch, queue: number, id: TransactionId): TransactionId | undefined {
  const found = QUEUE.get(batch, queue)
  assert(found?.first === id, 'who leaves a queue is its first')
  if (found.last === id) {
    QUEUE.remove(batch, queue)
    return undefined
  }
  const next = NEXT.get(batch, queue, id)?.next
  assert(next !== undefined, 'who is not the last has a next one')
  NEXT.remove(batch, queue, id)
  QUEUE.put(batch, { first: next, last: found.last }, queue)
  return next
}

export function firstOf(state: StateReader, queue: number): TransactionId | undefined {
  return QUEUE.get(state, queue)?.first
}
