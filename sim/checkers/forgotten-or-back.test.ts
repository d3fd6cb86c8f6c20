import assert from 'node:assert/strict'
import { test } from 'node:test'

import { makeInodeId, ROOT_INODE } from '#cluster/inode-id.ts'
import type { Edge } from '#cluster/wire/forms.ts'
import type { DirectoryEdge } from '#sim/shard-view.ts'
import type { Fate } from '#sim/workloads/forget.ts'

import { forgottenOrBack } from './forgotten-or-back.ts'

const file = makeInodeId('file', 0, 1)

function edge(state: Edge['state'], name = 'a', created = 10): DirectoryEdge {
  return { directory: ROOT_INODE, name, created, inode: file, state }
}

const OWNED = edge('owned')
const BACK = { name: 'back', created: 30 }
const kept: Fate = { edge: OWNED, isForgotten: false, back: undefined }
const forgotten: Fate = { ...kept, isForgotten: true }
const taken: Fate = { ...kept, back: BACK }
const here = new Set([file])
const nowhere = new Set<never>()

test('what was forgotten is gone, what was taken back is there, and the rest is as it was', () => {
  forgottenOrBack([kept], [OWNED], here)
  forgottenOrBack([forgotten], [], nowhere)
  forgottenOrBack([taken], [edge('left'), edge('current', 'back', 30)], here)
  assert.throws(() => forgottenOrBack([kept], [], here), /is gone, and should be owned/)
  assert.throws(() => forgottenOrBack([kept], [edge('left')], here), /is left, and should be owned/)
  assert.throws(() => forgottenOrBack([kept], [OWNED], nowhere), /is gone, and nobody has forgotten it/)
  assert.throws(() => forgottenOrBack([forgotten], [OWNED], nowhere), /is owned, and should be gone/)
  assert.throws(() => forgottenOrBack([forgotten], [], here), /is there, and was forgotten/)
  assert.throws(() => forgottenOrBack([taken], [edge('left')], here), /was taken back, and is not there/)
  assert.throws(
    () => forgottenOrBack([taken], [OWNED, edge('current', 'back', 30)], here),
    /is owned, and should be left/,
  )
  assert.throws(
    () => forgottenOrBack([{ ...taken, isForgotten: true }], [], here),
    /forgotten, and its file taken back/,
  )
})
