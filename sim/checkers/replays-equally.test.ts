import assert from 'node:assert/strict'
import { test } from 'node:test'

import type { Machine } from '#cluster/journal/machine.ts'
import { MemoryState } from '#cluster/journal/memory-state.ts'

import { replaysEqually } from './replays-equally.ts'

/** Keeps how often each letter came; a capital one removes it. */
const letters: Machine<string, void> = {
  encode: (letter) => Buffer.from(letter),
  decode: (bytes) => bytes.toString(),
  apply(state, letter) {
    const key = letter.toLowerCase()
    if (letter !== key) state.remove(key)
    else state.put(key, Buffer.from([(state.get(key)?.[0] ?? 0) + 1]))
  },
}

test('a state is equal to what its entries make, or the first difference is told', async () => {
  const entries = 'aabAbc'.split('').map((letter) => Buffer.from(letter))
  const state = new MemoryState()
  await state.commit(
    [
      ['b', Buffer.from([2])],
      ['c', Buffer.from([1])],
    ],
    6,
  )
  replaysEqually(letters, entries, state)
  await state.commit([['\xff', Buffer.from('more')]], 6)
  assert.throws(() => replaysEqually(letters, entries, state), /Key ff is 0x6d6f7265, and not there by the 6 entries/)
  await state.commit([['\xff', null]], 6)
  assert.throws(() => replaysEqually(letters, entries.slice(0, -1), state), /Key 63 is 0x01, and not there/)
  assert.throws(() => replaysEqually(letters, [...entries, Buffer.from('d')], state), /Key 64 is not there, and 0x01/)
  assert.throws(() => replaysEqually(letters, [...entries, Buffer.from('b')], state), /Key 62 is 0x02, and 0x03/)
})
