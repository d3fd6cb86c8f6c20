/**
 * Every block of every span that is known to be written lies on its disk, byte for byte as it was certified, but for those that rot has come
 * to; each block belongs to one span, and the shards know to which.
 */
import { type BlockId, blockName, blockPath } from '#cluster/block/block-id.ts'
import { blockFileBytes } from '#cluster/block/block-trailer.ts'
import type { MemoryBlockFiles } from '#cluster/block/memory-block-files.ts'
import type { DiskId } from '#cluster/block/permit.ts'
import { crc32c } from '#cluster/erasure/crc32c.ts'
import { layoutSpan } from '#cluster/erasure/layout.ts'
import { blockCrc } from '#cluster/erasure/span-crc.ts'
import { type InodeId, shownInode } from '#cluster/inode-id.ts'
import type { SpanRecord } from '#cluster/shard/records.ts'
import { SimulationFailure } from '#sim/timeline.ts'

export interface HeldDisk {
  readonly files: MemoryBlockFiles
  /** The files that rot has come to. */
  readonly rotten: ReadonlySet<string>
}

export interface HeldSpan {
  readonly file: InodeId
  readonly offset: number
  readonly record: SpanRecord
  readonly isCertified: boolean
}

/** Whose the shards take a block to be. */
export interface HeldBlock {
  readonly disk: DiskId
  readonly block: number
  readonly file: InodeId
  readonly offset: number
}

/** @return how many blocks of a span are damaged, of the spans that have any */
export function blocksHeld(
  spans: Iterable<HeldSpan>,
  index: Iterable<HeldBlock>,
  disks: ReadonlyMap<DiskId, HeldDisk>,
): ReadonlyMap<HeldSpan, number> {
  const indexed = new Map([...index].map((each) => [`${each.disk} ${each.block}`, each]))
  const damaged = new Map<HeldSpan, number>()
  const owned = new Set<string>()
  for (const span of spans) {
    for (const { disk, block, cells } of span.record.blocks?.blocks ?? []) {
      const key = `${disk} ${block}`
      const words = `block ${blockName(block)} of the span at ${span.offset} of ${shownInode(span.file)}`
      if (owned.has(key)) fail(`${words} belongs to another span, too`)
      owned.add(key)
      const known = indexed.get(key)
      if (known?.file !== span.file || known.offset !== span.offset) {
        fail(`${words} is taken for one of ${known === undefined ? 'nothing' : shownInode(known.file)}`)
      }
      if (!span.isCertified) continue
      const held = disks.get(disk)
      if (held === undefined) fail(`${words} is said to be on disk ${disk}, which is nowhere`)
      if (isWhole(held.files, block, span.record, cells)) continue
      if (!held.rotten.has(blockPath(block))) fail(`${words} is not whole, and no rot has come to it`)
      damaged.set(span, (damaged.get(span) ?? 0) + 1)
    }
  }
  for (const key of indexed.keys()) if (!owned.has(key)) fail(`the shards know of block ${key}, and no span has it`)
  return damaged
}

/** Nothing is kept of what no span has: every block on a disk is one that the shards know. */
export function nothingElseHeld(index: Iterable<HeldBlock>, disks: ReadonlyMap<DiskId, HeldDisk>): void {
  const paths = new Map([...disks.keys()].map((disk) => [disk, new Set<string>()]))
  for (const { disk, block } of index) paths.get(disk)?.add(blockPath(block as BlockId))
  for (const [disk, { files }] of disks) {
    for (const path of files.paths()) {
      if (!path.includes('/') || path.startsWith('tmp/') || paths.get(disk)?.has(path) === true) continue
      fail(`disk ${disk} still has block ${path}, which no span has`)
    }
  }
}

function isWhole(files: MemoryBlockFiles, block: BlockId, record: SpanRecord, cells: readonly number[]): boolean {
  const { size, blocks } = record
  const bytes = files.bytesOf(blockPath(block))
  if (bytes === undefined || blocks === undefined || cells.length !== blocks.stripes) return false
  const layout = layoutSpan(size, blocks, blocks.stripes)
  if (bytes.length !== blockFileBytes(layout.blockBytes)) return false
  return crc32c(bytes.subarray(0, layout.blockBytes)) === blockCrc(layout, cells)
}

function fail(why: string): never {
  throw new SimulationFailure(why)
}
