import assert from 'node:assert/strict'
import { test } from 'node:test'

import { MemoryJournal } from '#cluster/journal/memory-journal.ts'

import { KeptJournal } from './kept-journal.ts'

test('all entries are there in the end, also those that were let go of, across crashes', async () => {
  const history: Buffer[] = []
  let inner = new MemoryJournal()
  let journal = new KeptJournal(inner, history)
  await journal.append(1, [Buffer.from('a'), Buffer.from('b')])
  await journal.append(3, [Buffer.from('c')])
  await journal.trim(2)
  assert.equal(journal.first, 3)
  inner = inner.crash(false)
  journal = new KeptJournal(inner, history)
  await journal.append(4, [Buffer.from('d')])
  await journal.trim(1)
  await journal.trim(4)
  await journal.append(5, [Buffer.from('e')])
  assert.deepEqual((await journal.all()).map(String), ['a', 'b', 'c', 'd', 'e'])
  assert.deepEqual((await journal.all()).map(String), ['a', 'b', 'c', 'd', 'e'])
})
