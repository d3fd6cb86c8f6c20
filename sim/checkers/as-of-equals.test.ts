import assert from 'node:assert/strict'
import { test } from 'node:test'

import { makeInodeId } from '#cluster/inode-id.ts'

import { asOfEquals, type NameEvent } from './as-of-equals.ts'

const inode = (counter: number): ReturnType<typeof makeInodeId> => makeInodeId('file', 0, counter)
const EVENTS: readonly NameEvent[] = [
  { stampUs: 10, name: 'b', inode: inode(1) },
  { stampUs: 20, name: '\u{10000}', inode: inode(2) },
  { stampUs: 30, name: 'b', inode: undefined },
  { stampUs: 30, name: '\uffee', inode: inode(1) },
]
const early = { name: 'b', inode: inode(1) }
const high = { name: '\u{10000}', inode: inode(2) }
const low = { name: '\uffee', inode: inode(1) }

test('a directory is equal to its model as of each time, in order of bytes, or the first difference is told', () => {
  asOfEquals(EVENTS, 9, [])
  asOfEquals(EVENTS, 10, [early])
  asOfEquals(EVENTS, 29, [early, high])
  asOfEquals(EVENTS, 30, [low, high])
  assert.throws(() => asOfEquals(EVENTS, Infinity, [high, low]), /As of Infinity, entry 0 is /)
  assert.throws(() => asOfEquals(EVENTS, 30, [low]), /entry 1 is missing, and should be/)
  assert.throws(() => asOfEquals(EVENTS, 10, [early, high]), /and should be missing/)
  assert.throws(() => asOfEquals(EVENTS, 10, [{ ...early, inode: inode(2) }]), /entry 0 is "b" 0x/)
})
