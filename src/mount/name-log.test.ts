/** Names that were removed while answers are under way: kept for as long as one of them may tell of them, and no longer. */
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { NameLog } from './name-log.ts'
import { DirectoryState } from './node.ts'

test('a name is kept until the last sweep that began before has ended', () => {
  const log = new NameLog()
  const state = new DirectoryState()
  log.note(state, state.removals, 'before', 1)
  const first = log.begin(1)
  log.note(state, state.removals, 'a', 2)
  const second = log.begin(2)
  log.note(state, state.removals, 'b', 3)
  assert.deepEqual(
    [...state.removals],
    [
      ['a', 2],
      ['b', 3],
    ],
  )
  log.end(first)
  assert.deepEqual([...state.removals], [['b', 3]])
  log.end(second)
  assert.deepEqual([...state.removals], [])
})

test('a name is kept for a fetch of its directory and for a sweep, whichever ends last', () => {
  for (const last of ['fetch', 'sweep']) {
    const log = new NameLog()
    const state = new DirectoryState()
    state.fetches = 1
    const sweep = log.begin(1)
    log.note(state, state.removals, 'a', 2)
    const endFetch = (): void => {
      state.fetches = 0
      log.fetched(state)
    }
    const ends = last === 'sweep' ? [endFetch, () => log.end(sweep)] : [() => log.end(sweep), endFetch]
    ends[0]?.()
    assert.deepEqual([...state.removals.keys()], ['a'], last)
    ends[1]?.()
    assert.deepEqual([...state.removals.keys()], [], last)
  }
})

test('a name that is removed again later is kept for that', () => {
  const log = new NameLog()
  const state = new DirectoryState()
  const first = log.begin(1)
  log.note(state, state.removals, 'a', 2)
  const second = log.begin(2)
  log.note(state, state.removals, 'a', 3)
  log.end(first)
  assert.deepEqual([...state.removals], [['a', 3]])
  log.end(second)
  assert.deepEqual([...state.removals], [])
})

test('a directory that is forgotten with such names is told of; one without is not', () => {
  const log = new NameLog()
  const state = new DirectoryState()
  log.forgotten(state, 5)
  assert.equal(log.lostAt, 0)
  log.begin(5)
  log.note(state, state.removals, 'a', 6)
  log.forgotten(state, 7)
  assert.equal(log.lostAt, 7)
})
