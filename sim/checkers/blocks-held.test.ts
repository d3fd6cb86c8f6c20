import assert from 'node:assert/strict'
import { test } from 'node:test'

import { blockPath, makeBlockId } from '#cluster/block/block-id.ts'
import { blockFileBytes } from '#cluster/block/block-trailer.ts'
import { MemoryBlockFiles } from '#cluster/block/memory-block-files.ts'
import type { DiskId } from '#cluster/block/permit.ts'
import { crc32c } from '#cluster/erasure/crc32c.ts'
import { makeInodeId } from '#cluster/inode-id.ts'

import { blocksHeld, type HeldDisk, type HeldSpan, nothingElseHeld } from './blocks-held.ts'

const SIZE = 4096
const [one, other] = [1 as DiskId, 2 as DiskId]
const [here, there] = [makeBlockId(1_800_000_000_000, 0, 0), makeBlockId(1_800_000_000_000, 1, 0)]
const file = makeInodeId('file', 0, 1)
const bytes = Buffer.alloc(SIZE, 'bytes')
const cells = [crc32c(bytes)]
const blocks = [
  { disk: one, block: here, cells },
  { disk: other, block: there, cells },
]
const body = { class: 2, data: 1, parity: 1, stripes: 1, cellBytes: SIZE, blocks }
const record = { size: SIZE, crc: crc32c(bytes), inline: undefined, blocks: body }
const SPAN: HeldSpan = { file, offset: 0, record, isCertified: true }
const INDEX = blocks.map(({ disk, block }) => ({ disk, block, file, offset: 0 }))
const held = Buffer.concat([bytes, Buffer.alloc(blockFileBytes(SIZE) - SIZE)])

async function disks(rotten: readonly string[] = []): Promise<Map<DiskId, HeldDisk & { files: MemoryBlockFiles }>> {
  const found = new Map<DiskId, HeldDisk & { files: MemoryBlockFiles }>()
  for (const { disk, block } of blocks) {
    const files = new MemoryBlockFiles(1 << 20)
    await files.makeDirectory(blockPath(block).slice(0, 2))
    files.place(blockPath(block), held)
    found.set(disk, { files, rotten: new Set(rotten) })
  }
  return found
}

test('each block of a certified span is on its disk as it was written, and belongs to no other', async () => {
  assert.equal(blocksHeld([SPAN], INDEX, await disks()).size, 0)
  const both = [SPAN, { ...SPAN, offset: SIZE }]
  assert.throws(() => blocksHeld(both, INDEX, new Map()), /which is nowhere/)
  const found = await disks()
  assert.throws(() => blocksHeld(both, INDEX, found), /belongs to another span, too/)
  assert.throws(() => blocksHeld([SPAN], INDEX.slice(1), found), /is taken for one of nothing/)
  assert.throws(() => blocksHeld([], INDEX, found), /and no span has it/)
  found.get(one)?.files.place(blockPath(here), held.subarray(1))
  assert.throws(() => blocksHeld([SPAN], INDEX, found), /is not whole, and no rot has come to it/)
  assert.equal(blocksHeld([{ ...SPAN, isCertified: false }], INDEX, found).size, 0)
})

test('blocks that rot has come to are counted', async () => {
  const found = await disks([blockPath(here)])
  const bytesOf = found.get(one)?.files.bytesOf(blockPath(here))
  assert.ok(bytesOf !== undefined)
  bytesOf[7] = (bytesOf[7] ?? 0) ^ 1
  assert.deepEqual([...blocksHeld([SPAN], INDEX, found).values()], [1])
})

test('a block that no span has is told of', async () => {
  const found = await disks()
  nothingElseHeld(INDEX, found)
  assert.throws(() => nothingElseHeld(INDEX.slice(1), found), /disk 1 still has block .*, which no span has/)
})
