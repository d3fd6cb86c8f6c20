import assert from 'node:assert/strict'
import { test } from 'node:test'

import { AssertionError } from '#base/assert.ts'

import { BufferMemory } from './buffer-memory.ts'
import { crc32c } from './crc32c.ts'

const MIB = 1 << 20

test('large buffers are lent apart from each other, and their memory is lent again', () => {
  const memory = new BufferMemory(4 * MIB)
  const places = new Set<string>()
  for (let round = 0; round < 10; round++) {
    const buffers = [1, 2, 3].map((mark) => memory.take(MIB).fill(mark))
    for (const [index, buffer] of buffers.entries()) {
      assert.ok(memory.isLent(buffer))
      assert.ok(buffer.equals(Buffer.alloc(MIB, index + 1)))
      assert.equal(crc32c(buffer), crc32c(Buffer.alloc(MIB, index + 1)))
      places.add(`${buffer.byteOffset}`)
    }
    assert.ok(memory.bytesLent >= 3 * MIB)
    for (const buffer of buffers) memory.give(buffer.subarray(0, 7))
    assert.equal(memory.bytesLent, 0)
  }
  assert.equal(places.size, 3)
})

test('what has no room, and what is small, is a buffer of its own, and need not come back', () => {
  const memory = new BufferMemory(2 * MIB)
  const others = [memory.take(100), memory.take(3 * MIB)]
  const lent = memory.take(2 * MIB - 1000)
  others.push(memory.take(MIB))
  assert.deepEqual(
    others.map((buffer) => [buffer.length, memory.isLent(buffer)]),
    [100, 3 * MIB, MIB].map((length) => [length, false]),
  )
  for (const buffer of others) memory.give(buffer)
  assert.ok(memory.isLent(lent))
  memory.give(lent)
  assert.equal(memory.bytesLent, 0)
  assert.throws(() => memory.give(lent), AssertionError)
})
