import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import { blockShard, type BlockId } from '#cluster/block/block-id.ts'
import { eraseReceipt, writePermit, type DiskId } from '#cluster/block/permit.ts'
import { blockCrc } from '#cluster/erasure/span-crc.ts'
import { makeInodeId, ROOT_INODE, type InodeId } from '#cluster/inode-id.ts'

import { shardMessages as m } from './shard-messages.ts'
import {
  addSpanOf,
  ANYTHING,
  digestOf,
  erasuresOf,
  keyOfDisk,
  receiptsOf,
  spanOf,
  TestShard,
  type TestSpan,
} from './shard-fixture.ts'

interface Own {
  readonly file: InodeId
  readonly cookie: Buffer
}
interface Block {
  readonly disk: DiskId
  readonly block: BlockId
  readonly permit: Buffer
}

/** Twelve disks, each in a domain of its own. */
function newShard(): TestShard {
  const shard = new TestShard()
  shard.learnDisks(12)
  return shard
}

function add(shard: TestShard, own: Own, offset: number, span: TestSpan, chosen: readonly number[]): readonly Block[] {
  return shard.write(m.addSpan, addSpanOf(own, offset, span), { chosen }).blocks
}

function addCertified(
  shard: TestShard,
  own: Own,
  offset: number,
  span: TestSpan,
  chosen: readonly number[],
): readonly Block[] {
  const blocks = add(shard, own, offset, span, chosen)
  shard.write(m.certify, { ...own, offset, receipts: receiptsOf(span, blocks) })
  return blocks
}

/** A linked file of one span. */
function fileOf(
  shard: TestShard,
  name: string,
  span: TestSpan,
  chosen: readonly number[],
): Own & { blocks: readonly Block[] } {
  const own = shard.construct()
  const blocks = addCertified(shard, own, 0, span, chosen)
  shard.write(m.link, { ...own, directory: ROOT_INODE, name, guard: ANYTHING, size: span.layout.bytes })
  return { ...own, blocks }
}

function blocksOn(shard: TestShard, disk: number): unknown[] {
  return shard.read('diskBlocks', { disk: disk as DiskId, after: 0, limit: 100 }).blocks.map((each) => ({ ...each }))
}

function spansOf(
  shard: TestShard,
  file: InodeId,
): readonly { offset: number; isCertified: boolean; blocks: BlockId[] }[] {
  return shard.read('spans', { file, offset: 0, limit: 100 }).spans.map(({ offset, isCertified, blocks }) => ({
    offset,
    isCertified,
    blocks: blocks?.blocks.map(({ block }) => block) ?? [],
  }))
}

const SPAN = spanOf(100_000, 4, 2, 3)
const SIX = [1, 2, 3, 4, 5, 6]

describe('a span in blocks', () => {
  test('is dirty with permits for just its blocks, and clean with their receipts', () => {
    const shard = newShard()
    const own = shard.construct()
    const blocks = add(shard, own, 0, SPAN, SIX)
    assert.deepEqual(
      blocks.map(({ disk }) => disk),
      SIX,
    )
    assert.equal(new Set(blocks.map(({ block }) => block)).size, 6)
    for (const [index, { disk, block, permit }] of blocks.entries()) {
      const facts = { id: block, size: SPAN.layout.blockBytes, crc: blockCrc(SPAN.layout, SPAN.cells[index] ?? []) }
      assert.deepEqual(permit, Buffer.from(writePermit(keyOfDisk(disk), facts)))
      assert.equal(blockShard(block), 0)
      assert.deepEqual(blocksOn(shard, disk), [{ block, file: own.file, offset: 0 }])
    }
    assert.deepEqual(
      spansOf(shard, own.file).map(({ isCertified }) => isCertified),
      [false],
    )
    const receipts = receiptsOf(SPAN, blocks)
    shard.write(m.certify, { ...own, offset: 0, receipts })
    assert.deepEqual(
      spansOf(shard, own.file).map(({ isCertified }) => isCertified),
      [true],
    )
    // Said twice under two ids it is still so.
    shard.write(m.certify, { ...own, offset: 0, receipts })
    shard.write(m.link, { ...own, directory: ROOT_INODE, name: 'a', guard: ANYTHING, size: 100_000 })
    assert.equal(shard.read('stat', { inode: own.file }).size, 100_000)
  })

  test('that is asked for again is given the same blocks, whatever was chosen for it then', () => {
    const shard = newShard()
    const own = shard.construct()
    const first = add(shard, own, 0, SPAN, SIX)
    assert.deepEqual(add(shard, own, 0, SPAN, [7, 8, 9, 10, 11, 12]), first)
    assert.deepEqual(add(shard, own, 0, SPAN, []), first)
    assert.deepEqual(blocksOn(shard, 7), [])
    shard.refuses('SPAN_OUT_OF_ORDER', m.addSpan, addSpanOf(own, 0, spanOf(100_000, 4, 2, 3, 2)), { chosen: SIX })
    shard.refuses('SPAN_OUT_OF_ORDER', m.addSpan, { ...addSpanOf(own, 0, SPAN), class: 3 }, { chosen: SIX })
    shard.write(m.certify, { ...own, offset: 0, receipts: receiptsOf(SPAN, first) })
    shard.refuses('SPAN_OUT_OF_ORDER', m.addSpan, addSpanOf(own, 0, SPAN), { chosen: SIX })
  })

  test('[S151] out of order, or with facts that contradict each other, is refused', () => {
    const shard = newShard()
    const own = shard.construct()
    const good = addSpanOf(own, 0, SPAN)
    const chosen = SIX
    shard.refuses('SPAN_OUT_OF_ORDER', m.addSpan, { ...good, offset: 4096 }, { chosen })
    const changed = (at: number): number[][] =>
      SPAN.cells.map((row, block) => row.map((crc) => (block === at ? (crc ^ 1) >>> 0 : crc)))
    const bad = {
      'another CRC': { crc: (good.crc ^ 1) >>> 0 },
      'a data cell that does not fit': { cells: changed(2) },
      'a parity that is no XOR': { cells: changed(4) },
      'too few cells': { cells: SPAN.cells.slice(1) },
      'too few stripes': { cells: SPAN.cells.map((row) => row.slice(1)) },
      'cells of another size': { cellBytes: good.cellBytes + 4096 },
      'no data': { data: 0 },
      'too much data': { data: 16 },
      'no parity': { parity: 0 },
      'no stripes': { stripes: 0 },
      'too many stripes': { stripes: 16 },
      'no bytes': { size: 0 },
      'more than 1 GiB': { size: 2 ** 30 + 1 },
      'a class that is none of blocks': { class: 1 },
    }
    for (const change of Object.values(bad))
      shard.refuses('SPAN_INVALID', m.addSpan, { ...good, ...change }, { chosen })
    shard.refuses('DISKS_MISSING', m.addSpan, good, { chosen: SIX.slice(1) })
    // Another copy of a refused request could be done as soon as there are disks: it has to be asked for anew.
    assert.throws(() => shard.write(m.addSpan, good, { chosen: [...SIX.slice(1), 99] }), { code: 'CLUSTER_INCOMPLETE' })
    const copies = spanOf(5000, 1, 2)
    const other = { ...addSpanOf(own, 0, copies), cells: [copies.cells[0] ?? [], [1], [1]] }
    shard.refuses('SPAN_INVALID', m.addSpan, other, { chosen: [1, 2, 3] })
  })

  test('is refused while the clock is out of the time of block ids', () => {
    const shard = newShard()
    const own = shard.construct()
    const { crc, cells, layout } = spanOf(5000, 1, 0)
    shard.nowUs = Date.UTC(2088, 1) * 1000
    const late = shard.construct()
    shard.refuses('CLOCK_SKEWED', m.addSpan, addSpanOf(late, 0, { crc, cells, layout }), { chosen: [1] })
    assert.deepEqual(blocksOn(shard, 1), [])
    assert.equal(shard.read('stat', { inode: own.file }).size, 0)
  })

  test('[S156] of one millisecond all have ids of their own, in order', () => {
    const shard = newShard()
    const ids: number[] = []
    for (let count = 0; count < 20; count++) {
      for (const { block } of add(shard, shard.construct(), 0, SPAN, SIX)) ids.push(block)
    }
    assert.deepEqual(
      ids,
      ids.toSorted((a, b) => a - b),
    )
    assert.equal(new Set(ids).size, 120)
  })
})

describe('receipts', () => {
  test('[S155] certify only the block, disk, size and bytes that they are of', () => {
    const shard = newShard()
    const own = shard.construct()
    const blocks = add(shard, own, 0, SPAN, SIX)
    const good = receiptsOf(SPAN, blocks)
    const twin = add(shard, shard.construct(), 0, SPAN, SIX)
    const first = blocks[0] as Block
    const withFirst = (receipt: Uint8Array): Buffer[] => [Buffer.from(receipt), ...good.slice(1)]
    const flipped = Buffer.from(good[0] as Buffer)
    flipped[15] = (flipped[15] ?? 0) ^ 1
    const bad = {
      'none at all': [],
      'one too few': good.slice(1),
      'one too many': [...good, good[0] as Buffer],
      'in another order': [good[1] as Buffer, good[0] as Buffer, ...good.slice(2)],
      'of the same bytes in another block': receiptsOf(SPAN, twin),
      'of another disk': withFirst(receiptsOf(SPAN, [{ ...first, disk: 2 as DiskId }])[0] as Buffer),
      'of other bytes': receiptsOf(spanOf(100_000, 4, 2, 3, 9), blocks),
      'the permit itself': withFirst(first.permit),
      'of its erasure': withFirst(eraseReceipt(keyOfDisk(first.disk), first.block)),
      'with a bit flipped': withFirst(flipped),
    }
    for (const receipts of Object.values(bad)) {
      shard.refuses('RECEIPT_REFUSED', m.certify, { ...own, offset: 0, receipts })
    }
    shard.refuses('SPAN_NOT_FOUND', m.certify, { ...own, offset: 4096, receipts: good })
    shard.write(m.certify, { ...own, offset: 0, receipts: good })
  })

  test('[S156] a block is forgotten only when its disk has said that it is erased', () => {
    const shard = newShard()
    const own = shard.construct()
    const blocks = add(shard, own, 0, SPAN, SIX)
    const twin = add(shard, shard.construct(), 0, SPAN, SIX)
    shard.refuses('SPAN_OUT_OF_ORDER', m.certifyRemoval, { ...own, offset: 0, receipts: erasuresOf(blocks) })
    const condemned = shard.write(m.removeSpan, own)
    assert.deepEqual([condemned.outcome, condemned.offset], ['condemned', 0])
    assert.deepEqual(
      condemned.blocks.map(({ block }) => block),
      blocks.map(({ block }) => block),
    )
    assert.deepEqual(shard.write(m.removeSpan, own), condemned, 'asked again, it says the same')
    const good = erasuresOf(blocks)
    const own0 = good[0] as { block: BlockId; receipt: Buffer }
    const bad = {
      none: [],
      'one missing': good.slice(1),
      'of other blocks': erasuresOf(twin),
      'of other blocks under these names': good.map(({ block }, index) => ({
        block,
        receipt: erasuresOf(twin)[index]?.receipt as Buffer,
      })),
      'of the write': blocks.map(({ block }, index) => ({ block, receipt: receiptsOf(SPAN, blocks)[index] as Buffer })),
      'of another disk': [{ ...own0, receipt: Buffer.from(eraseReceipt(keyOfDisk(9), own0.block)) }, ...good.slice(1)],
    }
    for (const receipts of Object.values(bad)) {
      shard.refuses('RECEIPT_REFUSED', m.certifyRemoval, { ...own, offset: 0, receipts })
    }
    assert.equal(blocksOn(shard, 1).length, 2)
    shard.refuses('TRANSIENT_EXPIRED', m.certify, { ...own, offset: 0, receipts: receiptsOf(SPAN, blocks) })
    shard.write(m.certifyRemoval, { ...own, offset: 0, receipts: good.toReversed() })
    shard.write(m.certifyRemoval, { ...own, offset: 0, receipts: [] })
    assert.equal(blocksOn(shard, 1).length, 1)
    assert.deepEqual(spansOf(shard, own.file), [])
    shard.write(m.removeInode, { inode: own.file })
  })

  test('spans are removed from the end on, and the right one only', () => {
    const shard = newShard()
    const own = shard.construct()
    const small = spanOf(4096, 1, 0)
    const first = addCertified(shard, own, 0, small, [1])
    const second = addCertified(shard, own, 4096, small, [1])
    shard.write(m.removeSpan, own)
    shard.refuses('SPAN_OUT_OF_ORDER', m.certifyRemoval, { ...own, offset: 0, receipts: erasuresOf(first) })
    shard.write(m.certifyRemoval, { ...own, offset: 4096, receipts: erasuresOf(second) })
    shard.refuses('SPAN_OUT_OF_ORDER', m.certifyRemoval, { ...own, offset: 0, receipts: erasuresOf(first) })
    assert.equal(shard.read('stat', { inode: own.file }).size, 4096)
  })
})

describe('moveSpan', () => {
  test('gives a span that could not be written to another file, and the file goes on', () => {
    const shard = newShard()
    const own = shard.construct()
    addCertified(shard, own, 0, spanOf(4096, 1, 0), [1])
    const failed = add(shard, own, 4096, SPAN, SIX)
    const grave = shard.construct()
    const move = { ...own, offset: 4096, to: grave.file, toCookie: grave.cookie, toOffset: 0 }
    shard.refuses('SPAN_OUT_OF_ORDER', m.moveSpan, { ...move, offset: 0 })
    shard.refuses('SPAN_OUT_OF_ORDER', m.moveSpan, { ...move, toOffset: 1 })
    shard.refuses('INPUT_INVALID', m.moveSpan, { ...move, to: own.file, toCookie: own.cookie })
    shard.write(m.moveSpan, move)
    assert.deepEqual(
      spansOf(shard, grave.file).map(({ isCertified }) => isCertified),
      [false],
    )
    assert.equal(shard.read('stat', { inode: own.file }).size, 4096)
    assert.deepEqual(blocksOn(shard, 2), [{ block: failed[1]?.block, file: grave.file, offset: 0 }])
    shard.refuses('SPAN_OUT_OF_ORDER', m.moveSpan, move)
    addCertified(shard, own, 4096, SPAN, [7, 8, 9, 10, 11, 12])
    shard.write(m.link, { ...own, directory: ROOT_INODE, name: 'a', guard: ANYTHING, size: 4096 + SPAN.layout.bytes })
  })

  test('[S157] neither takes from what was given up nor gives to it', () => {
    for (const which of ['from', 'to']) {
      const shard = newShard()
      const own = shard.construct()
      add(shard, own, 0, SPAN, SIX)
      const grave = shard.construct()
      shard.write(m.scrap, which === 'from' ? own : grave)
      const move = { ...own, offset: 0, to: grave.file, toCookie: grave.cookie, toOffset: 0 }
      shard.refuses('TRANSIENT_EXPIRED', m.moveSpan, move)
    }
  })

  test('a certified span stays', () => {
    const shard = newShard()
    const own = shard.construct()
    addCertified(shard, own, 0, SPAN, SIX)
    const grave = shard.construct()
    const move = { ...own, offset: 0, to: grave.file, toCookie: grave.cookie, toOffset: 0 }
    shard.refuses('SPAN_OUT_OF_ORDER', m.moveSpan, move)
  })
})

describe('swapBlocks', () => {
  const place = (
    file: InodeId,
    block: Block | undefined,
    offset = 0,
  ): { file: InodeId; offset: number; block: BlockId } => ({
    file,
    offset,
    block: block?.block as BlockId,
  })

  test('[S156] two equal blocks change places once, however often it is asked for', () => {
    const shard = newShard()
    const a = fileOf(shard, 'a', SPAN, SIX)
    const b = fileOf(shard, 'b', SPAN, [7, 8, 9, 10, 11, 12])
    const request = { a: place(a.file, a.blocks[2]), b: place(b.file, b.blocks[2]) }
    for (let again = 0; again < 3; again++) shard.write(m.swapBlocks, request)
    assert.deepEqual(spansOf(shard, a.file)[0]?.blocks[2], b.blocks[2]?.block)
    assert.deepEqual(spansOf(shard, b.file)[0]?.blocks[2], a.blocks[2]?.block)
    assert.deepEqual(blocksOn(shard, 3), [{ block: a.blocks[2]?.block, file: b.file, offset: 0 }])
    assert.deepEqual(blocksOn(shard, 9), [{ block: b.blocks[2]?.block, file: a.file, offset: 0 }])
  })

  test('[S151] is refused where it would lose or mix up bytes', () => {
    const shard = newShard()
    const a = fileOf(shard, 'a', SPAN, SIX)
    const b = fileOf(shard, 'b', SPAN, [7, 8, 9, 10, 11, 12])
    const other = fileOf(shard, 'c', spanOf(100_000, 4, 2, 3, 5), [7, 8, 9, 10, 11, 12])
    const own = shard.construct()
    const dirty = add(shard, own, 0, SPAN, [7, 8, 9, 10, 11, 12])
    const swap = (one: ReturnType<typeof place>, two: ReturnType<typeof place>) => ({ a: one, b: two })
    shard.refuses('SPAN_INVALID', m.swapBlocks, swap(place(a.file, a.blocks[0]), place(b.file, b.blocks[1])))
    shard.refuses('SPAN_INVALID', m.swapBlocks, swap(place(a.file, a.blocks[0]), place(other.file, other.blocks[0])))
    shard.refuses('SPAN_INVALID', m.swapBlocks, swap(place(a.file, a.blocks[0]), place(own.file, dirty[0])))
    shard.refuses('BLOCKS_CHANGED', m.swapBlocks, swap(place(a.file, b.blocks[0]), place(b.file, b.blocks[0])))
    shard.refuses('SPAN_NOT_FOUND', m.swapBlocks, swap(place(a.file, a.blocks[0], 1), place(b.file, b.blocks[0])))
    shard.refuses(
      'SPAN_NOT_FOUND',
      m.swapBlocks,
      swap(place(shard.create('d', { content: 'x' }).inode, a.blocks[0]), place(b.file, b.blocks[0])),
    )
    shard.refuses(
      'INPUT_INVALID',
      m.swapBlocks,
      swap(place(a.file, a.blocks[0]), place(makeInodeId('file', 1, 1), b.blocks[0])),
    )
    const mirrored = fileOf(shard, 'm', spanOf(5000, 1, 1), [1, 2])
    const both = swap(place(mirrored.file, mirrored.blocks[0]), place(mirrored.file, mirrored.blocks[1]))
    shard.refuses('BLOCKS_CHANGED', m.swapBlocks, both)
  })

  test('[S161] never puts two blocks of a span on one disk, nor more into a domain than lie in one', () => {
    const shard = new TestShard()
    // Disks 1 and 7 are of one host, 2 and 8, and so on.
    shard.learnDisks(12, (disk) => `host${(disk - 1) % 6}`)
    const a = fileOf(shard, 'a', SPAN, SIX)
    const spare = fileOf(shard, 'b', SPAN, [8, 7, 9, 10, 11, 12])
    shard.refuses('SPAN_INVALID', m.swapBlocks, {
      a: place(a.file, a.blocks[0]),
      b: place(spare.file, spare.blocks[0]),
    })
    const same = fileOf(shard, 'c', SPAN, [7, 8, 9, 10, 11, 12])
    shard.write(m.swapBlocks, { a: place(a.file, a.blocks[0]), b: place(same.file, same.blocks[0]) })
    const onTwo = fileOf(shard, 'd', SPAN, [2, 1, 3, 4, 5, 6])
    const onSix = fileOf(shard, 'e', SPAN, SIX)
    shard.refuses('SPAN_INVALID', m.swapBlocks, {
      a: place(onSix.file, onSix.blocks[0]),
      b: place(onTwo.file, onTwo.blocks[0]),
    })
  })

  test('[S161] mends a span on as few domains as there are', () => {
    const shard = new TestShard()
    shard.learnDisks(4, (disk) => (disk <= 2 ? 'left' : 'right'))
    const span = spanOf(20_000, 2, 1)
    const a = fileOf(shard, 'a', span, [1, 2, 3])
    const spare = fileOf(shard, 'b', span, [4, 2, 3])
    shard.write(m.swapBlocks, { a: place(a.file, a.blocks[0]), b: place(spare.file, spare.blocks[0]) })
    assert.deepEqual(spansOf(shard, a.file)[0]?.blocks[0], spare.blocks[0]?.block)
    const all = fileOf(shard, 'c', span, [1, 3, 4])
    const worse = fileOf(shard, 'd', spanOf(20_000, 2, 1), [2, 3, 4])
    // Two in "right" already; a third one there would be lost with it.
    const three = fileOf(shard, 'e', span, [4, 1, 2])
    shard.refuses('SPAN_INVALID', m.swapBlocks, {
      a: place(all.file, all.blocks[0]),
      b: place(three.file, three.blocks[0]),
    })
    shard.write(m.swapBlocks, { a: place(all.file, all.blocks[0]), b: place(worse.file, worse.blocks[0]) })
  })
})

describe('swapSpans', () => {
  const side = (file: InodeId, blocks: readonly Block[]) => ({
    file,
    offset: 0,
    blocks: blocks.map(({ block }) => block),
  })

  test('[S156] two spans of the same bytes change places once', () => {
    const shard = newShard()
    const one = spanOf(8192, 2, 1)
    const a = fileOf(shard, 'a', one, [1, 2, 3])
    const own = shard.construct()
    const b = addCertified(shard, own, 0, one, [4, 5, 6])
    const request = { a: side(a.file, a.blocks), b: side(own.file, b) }
    for (let again = 0; again < 3; again++) shard.write(m.swapSpans, request)
    assert.deepEqual(spansOf(shard, a.file)[0]?.blocks, request.b.blocks)
    assert.deepEqual(spansOf(shard, own.file)[0]?.blocks, request.a.blocks)
    assert.deepEqual(blocksOn(shard, 1), [{ block: a.blocks[0]?.block, file: own.file, offset: 0 }])
    assert.deepEqual(blocksOn(shard, 4), [{ block: b[0]?.block, file: a.file, offset: 0 }])
  })

  test('[S151] is refused where they are not what was thought, not certified, or not the same', () => {
    const shard = newShard()
    const a = fileOf(shard, 'a', SPAN, SIX)
    const b = fileOf(shard, 'b', SPAN, SIX)
    const other = fileOf(shard, 'c', spanOf(100_000, 4, 2, 3, 5), SIX)
    const own = shard.construct()
    const dirty = add(shard, own, 0, SPAN, SIX)
    const left = side(a.file, a.blocks)
    shard.refuses('BLOCKS_CHANGED', m.swapSpans, { a: left, b: side(b.file, a.blocks) })
    shard.refuses('BLOCKS_CHANGED', m.swapSpans, { a: left, b: side(b.file, b.blocks.slice(1)) })
    shard.refuses('SPAN_INVALID', m.swapSpans, { a: left, b: side(other.file, other.blocks) })
    shard.refuses('SPAN_INVALID', m.swapSpans, { a: left, b: side(own.file, dirty) })
    shard.refuses('SPAN_NOT_FOUND', m.swapSpans, { a: left, b: { ...side(b.file, b.blocks), offset: 4096 } })
  })
})

test('[S153] the journal of all that makes the same state again', () => {
  const shard = newShard()
  const own = shard.construct()
  const blocks = addCertified(shard, own, 0, SPAN, SIX)
  const grave = shard.construct()
  add(shard, own, 100_000, spanOf(4096, 1, 0), [1])
  shard.write(m.moveSpan, { ...own, offset: 100_000, to: grave.file, toCookie: grave.cookie, toOffset: 0 })
  shard.write(m.removeSpan, own)
  shard.write(m.certifyRemoval, { ...own, offset: 0, receipts: erasuresOf(blocks) })
  assert.equal(digestOf(shard.replayed()), digestOf(shard.state))
})
