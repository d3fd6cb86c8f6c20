import assert from 'node:assert/strict'
import { test } from 'node:test'

import { type InodeId, makeInodeId, ROOT_INODE } from '#cluster/inode-id.ts'
import { NO_INODE } from '#cluster/wire/forms.ts'
import type { DirectoryEdge } from '#sim/shard-view.ts'
import type { LoggedRead } from '#sim/workloads/tree-log.ts'

import { readsWereTrue } from './reads-were-true.ts'

const [a, b] = [makeInodeId('file', 0, 1), makeInodeId('file', 0, 2)]

function edge(created: number, inode: InodeId): DirectoryEdge {
  return { directory: ROOT_INODE, name: 'name', created, inode, state: 'current' }
}

const EDGES = [edge(10, a), edge(20, NO_INODE), edge(30, b)]

function read(floor: number, created: number, inode: InodeId | undefined): readonly LoggedRead[] {
  return [{ directory: ROOT_INODE, name: 'name', floor, created, inode }]
}

test('what was read was there, and not over by what had been acknowledged', () => {
  readsWereTrue(read(0, 0, undefined), EDGES)
  readsWereTrue(read(0, 10, a), EDGES)
  readsWereTrue(read(10, 10, a), EDGES)
  readsWereTrue(read(10, 0, undefined), EDGES)
  readsWereTrue(read(11, 0, undefined), EDGES)
  readsWereTrue(read(20, 0, undefined), EDGES)
  readsWereTrue(read(30, 30, b), EDGES)
  assert.throws(() => readsWereTrue(read(20, 10, a), EDGES), /was read as .*, and that was over as of 20/)
  assert.throws(() => readsWereTrue(read(30, 0, undefined), EDGES), /read as nothing, and what was acknowledged/)
  assert.throws(() => readsWereTrue(read(0, 10, b), EDGES), /which is not in the history/)
  assert.throws(() => readsWereTrue(read(0, 15, a), EDGES), /which is not in the history/)
  assert.throws(() => readsWereTrue(read(10, 0, undefined), EDGES.slice(0, 1)), /read as nothing/)
})
