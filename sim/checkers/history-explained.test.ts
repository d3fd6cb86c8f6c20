import assert from 'node:assert/strict'
import { test } from 'node:test'

import { type InodeId, makeInodeId, ROOT_INODE } from '#cluster/inode-id.ts'
import { ANYTHING, type Edge, NO_INODE, type NameGuard, NOTHING } from '#cluster/wire/forms.ts'
import type { DirectoryEdge } from '#sim/shard-view.ts'
import type { LoggedOperation, Operation, Told } from '#sim/workloads/tree-log.ts'

import { historyExplained } from './history-explained.ts'

const [file, other] = [makeInodeId('file', 0, 1), makeInodeId('file', 0, 2)]
const inner = makeInodeId('directory', 1, 1)
/** By the operations that made them. */
const MAKERS = new Map([
  [file, 1],
  [other, 2],
  [inner, 3],
])

function at(name: string, directory: InodeId = ROOT_INODE): { directory: InodeId; name: string } {
  return { directory, name }
}

function edge(
  name: string,
  created: number,
  inode: InodeId,
  state: Edge['state'],
  directory = ROOT_INODE,
): DirectoryEdge {
  return { directory, name, created, inode, state }
}

function gone(name: string, created: number): DirectoryEdge {
  return edge(name, created, NO_INODE, 'removed')
}

function logged(number: number, operation: Operation, outcome: 'unknown' | 'refused' | Told): LoggedOperation {
  const told = typeof outcome === 'string' ? {} : outcome
  return { number, operation, size: 0, outcome: typeof outcome === 'string' ? outcome : 'done', told }
}

function make(
  number: number,
  name: string,
  outcome: 'unknown' | 'refused' | Told,
  guard: NameGuard = ANYTHING,
): LoggedOperation {
  return logged(number, { kind: 'make', what: 'file', to: at(name), guard }, outcome)
}

function move(outcome: 'unknown' | 'refused' | Told, to = at('b')): LoggedOperation {
  return logged(7, { kind: 'move', inode: file, from: { ...at('a'), created: 10 }, to, guard: NOTHING }, outcome)
}

function remove(outcome: 'unknown' | 'refused' | Told): LoggedOperation {
  return logged(8, { kind: 'remove', inode: file, from: { ...at('a'), created: 10 } }, outcome)
}

function undelete(outcome: 'unknown' | 'refused' | Told): LoggedOperation {
  const from = { ...at('a'), created: 10 }
  return logged(9, { kind: 'undelete', inode: file, from, to: at('b'), guard: NOTHING }, outcome)
}

const MADE = make(1, 'a', { inode: file, created: 10, replaced: NO_INODE })
const CURRENT = edge('a', 10, file, 'current')
const MOVED = [edge('a', 10, file, 'left'), gone('a', 20), edge('b', 20, file, 'current')]
const REMOVED = [edge('a', 10, file, 'owned'), gone('a', 20)]

function explained(operations: readonly LoggedOperation[], edges: readonly DirectoryEdge[]): void {
  historyExplained(operations, edges, MAKERS)
}

test('what was acknowledged has left its edges, at its time, with what was in their place before', () => {
  explained([MADE], [CURRENT])
  explained([MADE, move({ created: 20 })], MOVED)
  explained([MADE, remove({ removed: 20 })], REMOVED)
  explained(
    [MADE, make(2, 'a', { inode: other, created: 30, replaced: file })],
    [edge('a', 10, file, 'owned'), edge('a', 30, other, 'current')],
  )
  explained(
    [MADE, remove({ removed: 20 }), undelete({ inode: file, created: 30 })],
    [edge('a', 10, file, 'left'), gone('a', 20), edge('b', 30, file, 'current')],
  )
  assert.throws(() => explained([MADE], []), /operation 1: make file .* was acknowledged as of 10, and is not there/)
  assert.throws(() => explained([MADE, remove({ removed: 20 })], [CURRENT]), /acknowledged, and the name still leads/)
  assert.throws(() => explained([MADE, remove({ removed: 21 })], REMOVED), /as of 21, and edge .* came next/)
  assert.throws(() => explained([MADE, move({ created: 20 })], MOVED.slice(0, 2)), /as of 20, and is not there/)
  const wrong = make(2, 'a', { inode: other, created: 30, replaced: NO_INODE })
  const both = [edge('a', 10, file, 'owned'), edge('a', 30, other, 'current')]
  assert.throws(() => explained([MADE, wrong], both), /said to replace 0, and replaced/)
})

test('what was refused has left nothing, and nobody knows of what nobody did', () => {
  explained([MADE, remove('refused'), move('refused')], [CURRENT])
  assert.throws(() => explained([MADE, remove('refused')], REMOVED), /nothing that was done explains it/)
  assert.throws(() => explained([MADE, move('refused')], MOVED), /nothing that was done explains it/)
  assert.throws(() => explained([], [CURRENT]), /nothing that was done explains it/)
})

test('what has no answer was done as a whole or not at all', () => {
  for (const done of [true, false]) {
    explained([make(1, 'a', 'unknown')], done ? [CURRENT] : [])
    explained([MADE, move('unknown')], done ? MOVED : [CURRENT])
    explained([MADE, remove('unknown')], done ? REMOVED : [CURRENT])
  }
  explained([MADE, move('unknown'), remove('unknown'), move('unknown', at('c'))], MOVED)
  explained([MADE, move('unknown'), remove('unknown')], REMOVED)
  const half = [edge('a', 10, file, 'current'), edge('b', 20, file, 'current')]
  assert.throws(() => explained([MADE, move('unknown')], half), /nothing that was done explains it/)
  assert.throws(() => explained([MADE, move('unknown')], REMOVED), /nothing that was done explains it/)
  assert.throws(() => explained([make(1, 'a', 'unknown')], [edge('c', 10, file, 'current')]), /explains it/)
})

test('of several that may have been done, those are found that together explain all', () => {
  const elsewhere = (outcome: 'unknown' | Told): LoggedOperation => move(outcome, at('a', inner))
  const back = logged(
    10,
    { kind: 'move', inode: file, from: { ...at('a', inner), created: 25 }, to: at('b'), guard: ANYTHING },
    'unknown',
  )
  const edges = [
    edge('a', 10, file, 'left'),
    gone('a', 20),
    edge('b', 35, file, 'current'),
    edge('a', 25, file, 'left', inner),
    { ...gone('a', 40), directory: inner },
  ]
  explained([MADE, elsewhere('unknown'), back, remove('unknown')], edges)
  assert.throws(() => explained([MADE, elsewhere('unknown')], edges), /nothing that was done explains it/)
})

test('of two that differ in what they may replace, it was the one that may', () => {
  const second = make(2, 'b', { inode: other, created: 15 })
  const edges = [
    edge('a', 10, file, 'left'),
    gone('a', 20),
    edge('b', 15, other, 'owned'),
    edge('b', 20, file, 'current'),
  ]
  const from = { ...at('a'), created: 10 }
  const bold = logged(11, { kind: 'move', inode: file, from, to: at('b'), guard: ANYTHING }, 'unknown')
  explained([MADE, second, move('unknown'), bold], edges)
  assert.throws(() => explained([MADE, second, move('unknown')], edges), /nothing that was done explains it/)
})

test('an edge of the past is kept in the state that its end has left it in', () => {
  for (const state of ['current', 'locked', 'left'] as const) {
    const edges = [edge('a', 10, file, state), gone('a', 20)]
    assert.throws(() => explained([MADE, remove({ removed: 20 })], edges), /should be owned/)
  }
  assert.throws(() => explained([MADE], [edge('a', 10, file, 'locked')]), /should be current/)
  const owned = [edge('a', 10, file, 'owned'), ...MOVED.slice(1)]
  assert.throws(() => explained([MADE, move({ created: 20 })], owned), /should be left/)
})

test('nothing takes the place of what it may not', () => {
  const edges = [edge('a', 10, file, 'owned'), edge('a', 30, other, 'current')]
  const second = (guard: NameGuard): LoggedOperation => make(2, 'a', { inode: other, created: 30 }, guard)
  explained([MADE, second({ how: 'is', inode: file })], edges)
  assert.throws(() => explained([MADE, second(NOTHING)], edges), /took the place of .* and may take that of absent/)
  assert.throws(() => explained([MADE, second({ how: 'is', inode: inner })], edges), /may take that of is/)
  const directory = logged(
    3,
    { kind: 'make', what: 'directory', to: at('a'), guard: ANYTHING },
    { inode: inner, created: 30 },
  )
  assert.throws(
    () => explained([MADE, directory], [edge('a', 10, file, 'owned'), edge('a', 30, inner, 'current')]),
    /took the place of/,
  )
})

test('times of a name increase', () => {
  assert.throws(() => explained([MADE], [CURRENT, edge('a', 10, other, 'current')]), /does not come after/)
})
