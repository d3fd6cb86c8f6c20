/** That blocks never overlap, that what is given back is found again, and that a memory says no rather than grow. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { AssertionError } from '#base/assert.ts'
import { CodingMemory } from './coding-memory.ts'

describe('CodingMemory', () => {
  it('lends blocks that never overlap, and is empty again when all are back', () => {
    const actions = fc.array(fc.oneof(fc.integer({ min: 1, max: 60_000 }), fc.constant('release' as const)), {
      maxLength: 60,
    })
    fc.assert(
      fc.property(actions, fc.infiniteStream(fc.nat()), (list, random) => {
        const memory = new CodingMemory(300_000)
        const free = memory.bytesFree
        const blocks: { block: Uint8Array; mark: number }[] = []
        let refused = false
        for (const [mark, action] of list.entries()) {
          if (action === 'release') {
            const [taken] = blocks.splice((random.next().value ?? 0) % Math.max(1, blocks.length), 1)
            if (taken !== undefined) memory.release(taken.block)
            continue
          }
          const block = memory.allocate(action)
          refused ||= block === undefined
          if (block === undefined) continue
          assert.equal(block.length, action)
          assert.equal(block.byteOffset % 64, 0)
          blocks.push({ block: block.fill(mark), mark })
        }
        for (const { block, mark } of blocks) assert(block.every((byte) => byte === mark))
        for (const { block } of blocks) memory.release(block)
        assert.equal(memory.bytesFree, free)
        const whole = memory.allocate(free - 192)
        assert(whole !== undefined, 'the gaps are one again')
        assert.equal(memory.allocate(1), undefined)
      }),
      { seed: 7, numRuns: 100 },
    )
  })

  it('keeps its blocks where they are: views of them stay good', () => {
    const memory = new CodingMemory(1 << 20)
    const [first] = Array.from({ length: 10 }, () => memory.allocate(100_000))
    assert.equal(memory.allocate(200_000), undefined)
    assert.equal(first?.length, 100_000)
  })

  it('refuses a block twice, of another memory, and a part of one', () => {
    const [memory, other] = [new CodingMemory(10_000), new CodingMemory(10_000)]
    const block = memory.allocate(1000)
    assert(block !== undefined)
    for (const wrong of [block.subarray(64), new Uint8Array(1000)]) {
      assert.throws(() => memory.release(wrong), AssertionError)
    }
    assert.throws(() => other.release(block), AssertionError)
    memory.release(block)
    assert.throws(() => memory.release(block), AssertionError)
  })
})
