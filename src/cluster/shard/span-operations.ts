/**
 * Spans in blocks: how they are added, proven, removed, moved and swapped. The last span of a transient file:
 *
 *            addSpan              certify (all receipts)
 *   clean ------------> dirty ------------------------> clean
 *     '--removeSpan------'--removeSpan--> condemned --certifyRemoval (all receipts)--> clean, without it
 *                                    dirty --moveSpan--> clean, without it
 *
 * A block belongs to one span at a time, and is forgotten only when its disk has said that it is erased.
 */
import { assert } from '#base/assert.ts'
import { OperationError } from '#base/errors.ts'
import { numberValue, readNumber } from '#cluster/journal/keys.ts'
import { BLOCK_EPOCH_MS, blockName, makeBlockId, type BlockId } from '#cluster/block/block-id.ts'
import {
  erasePermit,
  eraseReceipt,
  isSame,
  writePermit,
  writeReceipt,
  type DiskId,
  type DiskKey,
} from '#cluster/block/permit.ts'
import { isRedundancy, layoutSpan, PAGE_BYTES, STRIPES_MAX, type SpanLayout } from '#cluster/erasure/layout.ts'
import { blockCrc, findSpanFlaw } from '#cluster/erasure/span-crc.ts'
import { inodeType, shownInode, type InodeId } from '#cluster/inode-id.ts'
import { encode, type ValueOf } from '#cluster/wire/codec.ts'
import type { BlocksBody, Permitted } from '#cluster/wire/forms.ts'

import { checkNextSpan, checkSpanSize } from './file-operations.ts'
import type { OperationsOf } from './operations.ts'
import { BLOCK_CLASS_MIN } from './policies.ts'
import {
  blockKey,
  findDisk,
  findFile,
  findSpan,
  findTransient,
  lastBlockKey,
  lastSpan,
  putBlock,
  putTransient,
  spanKey,
  spanRecord,
  type DiskRecord,
  type SpanRecord,
} from './records.ts'
import type { shardMessages } from './shard-messages.ts'
import { checkShard, liveTransient, ownTransient, TRANSIENT_US, type Step } from './step.ts'

const NOTHING = {}
/** Block ids last until 2089; a year is left for those of a shard that are ahead of its clock. */
const BLOCK_END_MS = Date.UTC(2088, 0, 1)

type SpanOperations = 'addSpan' | 'certify' | 'removeSpan' | 'certifyRemoval' | 'moveSpan' | 'swapBlocks' | 'swapSpans'

export const spanOperations: OperationsOf<typeof shardMessages, SpanOperations> = {
  addSpan(step, request) {
    const { file, cookie, offset, size, crc, class: storageClass } = request
    const record = liveTransient(step, file, cookie)
    checkBlocksFit(file)
    checkSpanSize(offset, size)
    const layout = checkedLayout(request)
    const again = sameSpan(step, request)
    if (again !== undefined) return { blocks: permitsToWrite(step, layout, again) }
    checkNextSpan(file, record, offset)
    checkClock(step)
    const disks = chosenDisks(step, layout.data + layout.parity)
    for (const disk of disks) keyOf(step, disk)
    const blocks = disks.map((disk, index) => ({ disk, block: newBlock(step), cells: request.cells[index] ?? [] }))
    const { data, parity, stripes, cellBytes } = layout
    const body = { class: storageClass, data, parity, stripes, cellBytes, blocks }
    putSpan(step, file, offset, { size, crc, inline: undefined, blocks: body })
    for (const { disk, block } of blocks) putBlock(step.batch, step.shard, disk, block, file, offset)
    putTransient(step.batch, file, {
      ...record,
      size: offset + size,
      deadline: step.timeUs + TRANSIENT_US,
      lastSpan: 'dirty',
    })
    return { blocks: permitsToWrite(step, layout, body) }
  },

  certify(step, { file, cookie, offset, receipts }) {
    const record = liveTransient(step, file, cookie)
    const found = findSpan(step.batch, file, offset)
    const last = lastSpan(step.batch, file)
    if (found === undefined || last === undefined) throw noSpan(file, offset)
    // Certified before, by this or another copy of the request.
    if (last.offset !== offset || record.lastSpan === 'clean') return NOTHING
    const action = `Cannot certify the span at ${offset} of file ${shownInode(file)}`
    if (record.lastSpan === 'condemned') throw new OperationError('SPAN_OUT_OF_ORDER', `${action}: it is condemned`)
    checkReceipts(action, expectedReceipts(step, found), receipts)
    putTransient(step.batch, file, { ...record, lastSpan: 'clean', deadline: step.timeUs + TRANSIENT_US })
    return NOTHING
  },

  removeSpan(step, { file, cookie }) {
    const record = ownTransient(step.batch, step.shard, file, cookie)
    const last = lastSpan(step.batch, file)
    if (last === undefined) return { outcome: 'empty', offset: 0, blocks: [] }
    const { offset, record: found } = last
    // While somebody may go on writing it, only who has its cookie comes here; from now on it can be removed only.
    if (found.blocks === undefined) {
      step.batch.remove(spanKey(file, offset))
      putTransient(step.batch, file, { ...record, size: offset, lastSpan: 'clean', deadline: ended(step, record) })
      return { outcome: 'removed', offset, blocks: [] }
    }
    const blocks = permitsToErase(step, found.blocks)
    putTransient(step.batch, file, { ...record, lastSpan: 'condemned', deadline: ended(step, record) })
    return { outcome: 'condemned', offset, blocks }
  },

  certifyRemoval(step, { file, cookie, offset, receipts }) {
    const record = ownTransient(step.batch, step.shard, file, cookie)
    const last = lastSpan(step.batch, file)
    // Removed before.
    if (last === undefined || last.offset < offset) return NOTHING
    const action = `Cannot remove the span at ${offset} of file ${shownInode(file)}`
    if (last.offset !== offset) throw new OperationError('SPAN_OUT_OF_ORDER', `${action}: it is not the last one`)
    const { blocks } = last.record
    if (record.lastSpan !== 'condemned' || blocks === undefined) {
      throw new OperationError('SPAN_OUT_OF_ORDER', `${action}: it is not condemned`)
    }
    const given = new Map(receipts.map(({ block, receipt }) => [block, receipt]))
    for (const { disk, block } of blocks.blocks) {
      const receipt = given.get(block)
      if (receipt !== undefined && isSame(receipt, eraseReceipt(keyOf(step, disk).key, block))) continue
      throw new OperationError('RECEIPT_REFUSED', `${action}: block ${blockName(block)} is not proven to be erased`)
    }
    step.batch.remove(spanKey(file, offset))
    for (const { disk, block } of blocks.blocks) step.batch.remove(blockKey(step.shard, disk, block))
    putTransient(step.batch, file, { ...record, size: offset, lastSpan: 'clean' })
    return NOTHING
  },

  moveSpan(step, { file, cookie, offset, to, toCookie, toOffset }) {
    const from = liveTransient(step, file, cookie)
    const target = liveTransient(step, to, toCookie)
    const action = `Cannot move the span at ${offset} of file ${shownInode(file)}`
    if (file === to) throw new OperationError('INPUT_INVALID', `${action} to the same file`)
    const last = lastSpan(step.batch, file)
    if (last === undefined || last.offset !== offset || from.lastSpan !== 'dirty') {
      throw new OperationError('SPAN_OUT_OF_ORDER', `${action}: it is not the last one, or certified`)
    }
    checkBlocksFit(to)
    checkNextSpan(to, target, toOffset)
    const { record } = last
    checkSpanSize(toOffset, record.size)
    step.batch.remove(spanKey(file, offset))
    putSpan(step, to, toOffset, record)
    for (const { disk, block } of record.blocks?.blocks ?? []) {
      putBlock(step.batch, step.shard, disk, block, to, toOffset)
    }
    putTransient(step.batch, file, { ...from, size: offset, lastSpan: 'clean', deadline: step.timeUs + TRANSIENT_US })
    putTransient(step.batch, to, {
      ...target,
      size: toOffset + record.size,
      lastSpan: 'dirty',
      deadline: step.timeUs + TRANSIENT_US,
    })
    return NOTHING
  },

  swapBlocks(step, { a, b }) {
    const [left, right] = [placeOf(step, a), placeOf(step, b)]
    const action = `Cannot swap blocks ${blockName(a.block)} and ${blockName(b.block)}`
    const isOneSpan = a.file === b.file && a.offset === b.offset
    const isDone = left.find(b.block) !== undefined && right.find(a.block) !== undefined
    if (isDone && !isOneSpan) return NOTHING
    const [one, other] = [left.find(a.block), right.find(b.block)]
    if (one === undefined || other === undefined || isOneSpan) {
      throw new OperationError('BLOCKS_CHANGED', `${action}: the spans do not have them`)
    }
    const [here, there] = [left.body, right.body]
    const isEqual =
      here.stripes === there.stripes &&
      here.cellBytes === there.cellBytes &&
      one.cells.every((crc, index) => crc === other.cells[index])
    if (!isEqual) throw new OperationError('SPAN_INVALID', `${action}: their bytes are not the same`)
    if (left.state !== right.state) throw new OperationError('SPAN_INVALID', `${action}: one is not certified`)
    checkDomains(step, action, left.body, a.block, other.disk)
    checkDomains(step, action, right.body, b.block, one.disk)
    putBlocks(step, a.file, a.offset, left.record, left.body, a.block, other)
    putBlocks(step, b.file, b.offset, right.record, right.body, b.block, one)
    putBlock(step.batch, step.shard, other.disk, other.block, a.file, a.offset)
    putBlock(step.batch, step.shard, one.disk, one.block, b.file, b.offset)
    return NOTHING
  },

  swapSpans(step, { a, b }) {
    const action = `Cannot swap spans of files ${shownInode(a.file)} and ${shownInode(b.file)}`
    const [left, right] = [spanAt(step, a.file, a.offset), spanAt(step, b.file, b.offset)]
    if (hasBlocks(left.record, b.blocks) && hasBlocks(right.record, a.blocks)) return NOTHING
    if (!hasBlocks(left.record, a.blocks) || !hasBlocks(right.record, b.blocks)) {
      throw new OperationError('BLOCKS_CHANGED', `${action}: they do not have those blocks`)
    }
    if (left.record.size !== right.record.size || left.record.crc !== right.record.crc) {
      throw new OperationError('SPAN_INVALID', `${action}: their bytes are not the same`)
    }
    if (left.state !== 'clean' || right.state !== 'clean') {
      throw new OperationError('SPAN_INVALID', `${action}: one is not certified`)
    }
    putSpan(step, a.file, a.offset, right.record)
    putSpan(step, b.file, b.offset, left.record)
    for (const { disk, block } of right.record.blocks?.blocks ?? []) {
      putBlock(step.batch, step.shard, disk, block, a.file, a.offset)
    }
    for (const { disk, block } of left.record.blocks?.blocks ?? []) {
      putBlock(step.batch, step.shard, disk, block, b.file, b.offset)
    }
    return NOTHING
  },
}

/** @throws SPAN_INVALID */
function checkBlocksFit(file: InodeId): void {
  if (inodeType(file) !== 'symlink') return
  throw new OperationError('SPAN_INVALID', `Cannot add a span in blocks to ${shownInode(file)}: it is a symlink`)
}

type SpanRequest = ValueOf<(typeof shardMessages)['addSpan']['request']>

/** @throws SPAN_INVALID */
function checkedLayout({
  size,
  crc,
  class: storageClass,
  data,
  parity,
  stripes,
  cellBytes,
  cells,
}: SpanRequest): SpanLayout {
  const refuse = (detail: string): OperationError =>
    new OperationError('SPAN_INVALID', `Cannot add a span of ${size} bytes: ${detail}`)
  if (!isRedundancy({ data, parity })) throw refuse(`${data}+${parity} is no redundancy`)
  if (stripes < 1 || stripes > STRIPES_MAX) throw refuse(`it cannot have ${stripes} stripes`)
  if (storageClass < BLOCK_CLASS_MIN) throw refuse(`class ${storageClass} is not one of blocks`)
  const layout = layoutSpan(size, { data, parity }, stripes)
  if (layout.cellBytes !== cellBytes) {
    throw refuse(`its cells have ${layout.cellBytes} bytes, not ${cellBytes} (pages of ${PAGE_BYTES})`)
  }
  const flaw = findSpanFlaw(layout, crc, cells)
  if (flaw !== undefined) throw refuse(`its CRCs do not fit each other (${flaw})`)
  return layout
}

/** The last span, where it is the one that is asked for and not yet certified. */
function sameSpan(
  step: Step,
  { file, offset, size, crc, class: storageClass, ...rest }: SpanRequest,
): BlocksBody | undefined {
  const record = findTransient(step.batch, file)
  if (record?.lastSpan !== 'dirty' || record.size !== offset + size) return undefined
  const found = findSpan(step.batch, file, offset)
  const body = found?.blocks
  if (found === undefined || body === undefined || found.crc !== crc || found.size !== size) return undefined
  const isSameShape =
    body.class === storageClass &&
    body.data === rest.data &&
    body.parity === rest.parity &&
    body.stripes === rest.stripes &&
    body.cellBytes === rest.cellBytes
  const isSameBytes = body.blocks.every(({ cells }, index) =>
    cells.every((cell, stripe) => cell === rest.cells[index]?.[stripe]),
  )
  return isSameShape && isSameBytes ? body : undefined
}

/** What the process chose when the request came in (`block-placement.ts`). */
function chosenDisks({ chosen }: Step, count: number): readonly DiskId[] {
  if (chosen.length === count) return chosen as readonly DiskId[]
  const detail = `${count} disks are needed, and ${chosen.length} can be written to`
  throw new OperationError('DISKS_MISSING', `Cannot add a span: ${detail}`)
}

/** @throws CLOCK_SKEWED */
function checkClock({ timeUs }: Step): void {
  if (timeUs >= BLOCK_EPOCH_MS * 1000 && timeUs < BLOCK_END_MS * 1000) return
  const detail = `the clock of the shard says ${new Date(timeUs / 1000).toISOString()}`
  throw new OperationError('CLOCK_SKEWED', `Cannot make block ids: ${detail}`)
}

/** Later than every id that the shard gave out. */
function newBlock(step: Step): BlockId {
  const key = lastBlockKey(step.shard)
  const value = step.batch.get(key)
  const byTime = makeBlockId(step.timeUs / 1000, 0, step.shard)
  const next = value === undefined ? byTime : Math.max(byTime, readNumber(value, 0) + 256)
  step.batch.put(key, numberValue(next))
  return next as BlockId
}

function layoutOf(size: number, { data, parity, stripes }: BlocksBody): SpanLayout {
  return layoutSpan(size, { data, parity }, stripes)
}

function permitsToWrite(step: Step, layout: SpanLayout, { blocks }: BlocksBody): Permitted[] {
  return blocks.map(({ disk, block, cells }) => {
    const facts = { id: block, size: layout.blockBytes, crc: blockCrc(layout, cells) }
    return { disk, block, permit: Buffer.from(writePermit(keyOf(step, disk).key, facts)) }
  })
}

function permitsToErase(step: Step, { blocks }: BlocksBody): Permitted[] {
  return blocks.map(({ disk, block }) => ({
    disk,
    block,
    permit: Buffer.from(erasePermit(keyOf(step, disk).key, block)),
  }))
}

function expectedReceipts(step: Step, { size, blocks }: SpanRecord): Uint8Array[] {
  assert(blocks !== undefined, 'only spans in blocks are certified')
  const layout = layoutOf(size, blocks)
  return blocks.blocks.map(({ disk, block, cells }) =>
    writeReceipt(keyOf(step, disk).key, { id: block, size: layout.blockBytes, crc: blockCrc(layout, cells) }),
  )
}

/** @throws RECEIPT_REFUSED */
function checkReceipts(action: string, expected: readonly Uint8Array[], given: readonly Buffer[]): void {
  if (given.length !== expected.length) {
    throw new OperationError('RECEIPT_REFUSED', `${action}: it needs ${expected.length} receipts`)
  }
  for (const [index, receipt] of expected.entries()) {
    if (isSame(given[index] ?? Buffer.alloc(0), receipt)) continue
    throw new OperationError('RECEIPT_REFUSED', `${action}: the receipt of block ${index} is not its own`)
  }
}

function keyOf(step: Step, disk: DiskId): { readonly key: DiskKey; readonly record: DiskRecord } {
  const record = findDisk(step.batch, disk)
  if (record !== undefined) return { key: { disk, key: record.key }, record }
  throw new OperationError('CLUSTER_INCOMPLETE', `Cannot use disk ${disk}: the registry has not told of it yet`)
}

/** What is being removed is not written any more. */
function ended(step: Step, { deadline }: { readonly deadline: number }): number {
  return Math.min(deadline, step.timeUs)
}

function putSpan(step: Step, file: InodeId, offset: number, record: SpanRecord): void {
  step.batch.put(spanKey(file, offset), encode(spanRecord, record))
}

interface SpanAt {
  readonly record: SpanRecord
  readonly state: 'clean' | 'dirty' | 'condemned'
}

/** @throws SPAN_NOT_FOUND */
function spanAt(step: Step, file: InodeId, offset: number): SpanAt {
  checkShard(file, step.shard)
  const record = findSpan(step.batch, file, offset)
  if (record === undefined) throw noSpan(file, offset)
  if (findFile(step.batch, file) !== undefined) return { record, state: 'clean' }
  const transient = findTransient(step.batch, file)
  const isLast = transient !== undefined && transient.size === offset + record.size
  return { record, state: isLast ? transient.lastSpan : 'clean' }
}

type Block = BlocksBody['blocks'][number]

function placeOf(
  step: Step,
  { file, offset }: { readonly file: InodeId; readonly offset: number },
): SpanAt & { readonly body: BlocksBody; find(block: BlockId): Block | undefined } {
  const found = spanAt(step, file, offset)
  const body = found.record.blocks
  if (body === undefined) throw noSpan(file, offset)
  return { ...found, body, find: (block) => body.blocks.find((each) => each.block === block) }
}

/**
 * No two blocks of a span come to lie on one disk; nor more in one failure domain than lie in one already, which are two or more only where there
 * were too few domains.
 */
function checkDomains(step: Step, action: string, { blocks }: BlocksBody, leaving: BlockId, coming: DiskId): void {
  const before = new Map<string, number>()
  const { domain } = keyOf(step, coming).record
  let after = 1
  for (const { disk, block } of blocks) {
    if (block !== leaving && disk === coming) {
      throw new OperationError('SPAN_INVALID', `${action}: two blocks of a span would lie on disk ${disk}`)
    }
    const each = keyOf(step, disk).record.domain
    before.set(each, (before.get(each) ?? 0) + 1)
    if (block !== leaving && each === domain) after++
  }
  if (after <= Math.max(...before.values())) return
  const detail = `${after} blocks of a span would lie in failure domain ${domain}`
  throw new OperationError('SPAN_INVALID', `${action}: ${detail}`)
}

function putBlocks(
  step: Step,
  file: InodeId,
  offset: number,
  record: SpanRecord,
  body: BlocksBody,
  leaving: BlockId,
  coming: Block,
): void {
  const blocks = body.blocks.map((each) => (each.block === leaving ? coming : each))
  putSpan(step, file, offset, { ...record, blocks: { ...body, blocks } })
}

function hasBlocks({ blocks }: SpanRecord, ids: readonly BlockId[]): boolean {
  const own = blocks?.blocks ?? []
  return own.length === ids.length && own.every(({ block }, index) => block === ids[index])
}

function noSpan(file: InodeId, offset: number): OperationError {
  return new OperationError('SPAN_NOT_FOUND', `Cannot find a span at ${offset} of file ${shownInode(file)}`)
}
