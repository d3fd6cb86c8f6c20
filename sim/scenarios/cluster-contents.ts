/** All that the shards of a cluster have, read from their states: what the checkers look at. */
import type { DiskId } from '#cluster/block/permit.ts'
import type { InodeId } from '#cluster/inode-id.ts'
import { after, NUMBER_BYTES, numberOfKey, readNumber } from '#cluster/journal/keys.ts'
import type { Key, StateReader } from '#cluster/journal/state.ts'
import {
  directoryRecord,
  fileRecord,
  NAME_AT,
  type SpanRecord,
  ownSpan,
  spanRecord,
  transientRecord,
} from '#cluster/shard/records.ts'
import { decode } from '#cluster/wire/codec.ts'
import { type ShardView, viewOf } from '#sim/shard-view.ts'

export interface FoundSpan {
  readonly file: InodeId
  readonly offset: number
  readonly record: SpanRecord
  /** Known to be written whole. */
  readonly isCertified: boolean
}

/** An entry of the index by which the shards know whose a block is. */
export interface IndexedBlock {
  readonly disk: DiskId
  readonly block: number
  readonly file: InodeId
  readonly offset: number
}

/** With all edges by directory, name and time. */
export interface ClusterContents extends ShardView {
  /** Of all inodes that are there: the number of the operation that made it. */
  readonly makers: ReadonlyMap<InodeId, number>
  /** Files and symlinks that nothing owns. */
  readonly transients: readonly InodeId[]
  readonly spans: readonly FoundSpan[]
  readonly index: readonly IndexedBlock[]
}

export function contentsOf(states: readonly StateReader[]): ClusterContents {
  const makers = new Map<InodeId, number>()
  const transients: InodeId[] = []
  const spans: FoundSpan[] = []
  const index: IndexedBlock[] = []
  for (const state of states) {
    /** Where a transient file ends whose last span is not known to be written. */
    const open = new Map<InodeId, number>()
    each(state, 'd', (key, value) => makers.set(idOf(key), decode(directoryRecord, value).uid))
    each(state, 'f', (key, value) => {
      const [file, found] = [idOf(key), decode(fileRecord, value)]
      makers.set(file, found.uid)
      const record = ownSpan(found)
      if (record !== undefined) spans.push({ file, offset: 0, record, isCertified: true })
    })
    each(state, 't', (key, value) => {
      const { size, lastSpan, uid } = decode(transientRecord, value)
      makers.set(idOf(key), uid)
      transients.push(idOf(key))
      if (lastSpan !== 'clean') open.set(idOf(key), size)
    })
    each(state, 's', (key, value) => {
      const [file, offset, record] = [idOf(key), numberOfKey(key, NAME_AT), decode(spanRecord, value)]
      spans.push({ file, offset, record, isCertified: open.get(file) !== offset + record.size })
    })
    each(state, 'b', (key, value) => {
      const [disk, block] = [numberOfKey(key, 2) as DiskId, numberOfKey(key, 2 + NUMBER_BYTES)]
      index.push({ disk, block, file: readNumber(value, 0) as InodeId, offset: readNumber(value, NUMBER_BYTES) })
    })
  }
  const view = viewOf(states)
  const edges = view.edges.toSorted(
    (a, b) => a.directory - b.directory || compareText(a.name, b.name) || a.created - b.created,
  )
  return { ...view, edges, makers, transients, spans, index }
}

function each(state: StateReader, prefix: string, take: (key: Key, value: Buffer) => void): void {
  state.range(prefix, after(prefix), (key, value) => {
    take(key, value)
    return true
  })
}

function idOf(key: Key): InodeId {
  return numberOfKey(key, 1) as InodeId
}

function compareText(a: string, b: string): number {
  if (a === b) return 0
  return a < b ? -1 : 1
}
