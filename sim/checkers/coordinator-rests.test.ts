import assert from 'node:assert/strict'
import { test } from 'node:test'

import { PARENT, QUEUE, type TransactionId } from '#cluster/coordinator/records.ts'
import { type InodeId, makeInodeId, ROOT_INODE } from '#cluster/inode-id.ts'
import { MemoryState } from '#cluster/journal/memory-state.ts'
import { WorkingBatch, WorkingState } from '#cluster/journal/working-state.ts'
import { NO_INODE } from '#cluster/wire/forms.ts'

import { coordinatorRests } from './coordinator-rests.ts'

const [inner, removed] = [makeInodeId('directory', 1, 1), makeInodeId('directory', 2, 1)]
const OWNERS = new Map<InodeId, InodeId>([
  [ROOT_INODE, NO_INODE],
  [inner, ROOT_INODE],
  [removed, NO_INODE],
])

function state(change: (batch: WorkingBatch) => void): WorkingState {
  const made = new WorkingState(new MemoryState())
  change(new WorkingBatch(made, 1))
  return made
}

test('a coordinator that has nothing to do knows all directories, and nothing else is left', () => {
  const right = (batch: WorkingBatch): void => PARENT.put(batch, { parent: ROOT_INODE }, inner)
  coordinatorRests(state(right), OWNERS)
  assert.throws(
    () =>
      coordinatorRests(
        state(() => undefined),
        OWNERS,
      ),
    /has 0x.* in nowhere, and it lies in 0x/,
  )
  const wrong = (batch: WorkingBatch): void => {
    right(batch)
    PARENT.put(batch, { parent: ROOT_INODE }, removed)
  }
  assert.throws(() => coordinatorRests(state(wrong), OWNERS), /The coordinator has 0x/)
  const busy = (batch: WorkingBatch): void => {
    right(batch)
    QUEUE.put(batch, { first: 1 as TransactionId, last: 1 as TransactionId }, inner)
  }
  assert.throws(() => coordinatorRests(state(busy), OWNERS), /still has a queue/)
})
