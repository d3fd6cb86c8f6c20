import assert from 'node:assert/strict'
import { test } from 'node:test'

import { type InodeId, makeInodeId, ROOT_INODE } from '#cluster/inode-id.ts'
import type { Edge } from '#cluster/wire/forms.ts'

import { oneOwner } from './one-owner.ts'

const [a, b] = [makeInodeId('file', 0, 1), makeInodeId('file', 3, 1)]

function edge(inode: InodeId, state: Edge['state'], name = 'name'): Edge {
  return { name, inode, created: 7, state }
}

test('each linked file has one owner, current or past, and nothing else has', () => {
  const none = 0 as InodeId
  oneOwner(
    [a, b],
    [edge(a, 'current'), edge(b, 'owned'), edge(a, 'left'), edge(none, 'removed'), edge(ROOT_INODE, 'current')],
  )
  assert.throws(() => oneOwner([a], [edge(a, 'current'), edge(a, 'owned', 'old')]), /has two owners: current "name"/)
  assert.throws(() => oneOwner([a, b], [edge(a, 'locked'), edge(b, 'left')]), /is linked, and nothing owns it/)
  assert.throws(() => oneOwner([], [edge(a, 'current')]), /which is not linked/)
})
