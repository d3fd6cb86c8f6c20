/**
 * Checks what files consist of: their spans follow each other and fit their size, the checksums in their records agree, the index of blocks has just their
 * blocks, and each block is on its disk; where all is to be read, that it is right to the last bit.
 */
import { isOperationError, type OperationError } from '#base/errors.ts'
import {
  BLOCK_DIRECTORIES,
  type BlockId,
  blockName,
  blockOfName,
  blockShard,
  blockTimeMs,
} from '#cluster/block/block-id.ts'
import type { DiskId } from '#cluster/block/permit.ts'
import { crc32c, crc32cZeros } from '#cluster/erasure/crc32c.ts'
import { isRedundancy, layoutSpan, type SpanLayout, STRIPES_MAX } from '#cluster/erasure/layout.ts'
import { blockCrc, findSpanFlaw } from '#cluster/erasure/span-crc.ts'
import { type InodeId, inodeShard, inodeType, shownInode } from '#cluster/inode-id.ts'
import { after, NUMBER_BYTES, numberOfKey, readNumber } from '#cluster/journal/keys.ts'
import { RangePull } from '#cluster/journal/pull.ts'
import type { StateReader } from '#cluster/journal/state.ts'
import {
  blockKey,
  fileKey,
  findDisk,
  findFile,
  findTransient,
  NAME_AT,
  ownSpan,
  spanKey,
  spanRecord,
  spansEnd,
  transientKey,
  type SpanRecord,
} from '#cluster/shard/records.ts'
import { decode } from '#cluster/wire/codec.ts'
import type { BlocksBody } from '#cluster/wire/forms.ts'

import type { FoundFile } from './check-names.ts'
import type { OfflineCluster, ShardDirectory } from './offline-cluster.ts'
import type { OnProblem, Severity } from './problem.ts'

/** Blocks that no span names are in order for so long: whoever writes one may have been given up meanwhile. */
const YOUNG_MS = 24 * 3600e3
/** Spans of which the blocks are looked at at a time. */
const SPANS_AT_ONCE = 16

export interface FileCounts {
  files: number
  symlinks: number
  bytes: number
  historyFiles: number
  historyBytes: number
  transients: number
  spans: number
  blocks: number
  blocksMissing: number
  orphans: number
  orphansYoung: number
  orphanBytes: number
}

export interface FileCheckOptions {
  readonly cluster: OfflineCluster
  readonly onProblem: OnProblem
  /** Reads all blocks, rather than to look whether they are there. */
  readonly readsBlocks: boolean
  readonly nowMs: number
}

interface SpansOf {
  readonly file: InodeId
  readonly where: string
  readonly size: number
  /** The one that lies in the record of the file. */
  readonly own: SpanRecord | undefined
  readonly isLastOpen: boolean
}

interface FoundSpan {
  readonly where: string
  readonly file: InodeId
  readonly offset: number
  readonly record: SpanRecord
}

export class FileCheck {
  readonly counts: FileCounts = {
    files: 0,
    symlinks: 0,
    bytes: 0,
    historyFiles: 0,
    historyBytes: 0,
    transients: 0,
    spans: 0,
    blocks: 0,
    blocksMissing: 0,
    orphans: 0,
    orphansYoung: 0,
    orphanBytes: 0,
  }
  readonly #options: FileCheckOptions
  readonly #underWay = new Set<Promise<void>>()
  /** Of each process: blocks of spans that the index has, too. */
  readonly #indexed = new Map<StateReader, number>()
  /** Disks that are not there: how many blocks are on them. */
  readonly #away = new Map<DiskId, number>()

  constructor(options: FileCheckOptions) {
    this.#options = options
  }

  /** A linked file. Resolves when the next one may come. */
  async file({ inode, path, how }: FoundFile): Promise<void> {
    const state = this.#options.cluster.stateOf(inode)
    if (state === undefined) return
    try {
      const record = findFile(state, inode)
      if (record === undefined) return
      const { size } = record
      this.#count(inode, size, how)
      const where = how === 'history' ? `${path} (history)` : path
      await this.#spans(state, { file: inode, where, size, own: ownSpan(record), isLastOpen: false })
    } catch (error) {
      this.#tellDamage(path, `the record of ${shownInode(inode)}`, error)
    }
  }

  /** What no name leads to yet, or no more. */
  async transients(): Promise<void> {
    for (const { state } of this.#options.cluster.shards) {
      for (const [key] of pairs(state, 't')) {
        const inode = numberOfKey(key, 1) as InodeId
        this.counts.transients++
        try {
          const record = findTransient(state, inode)
          if (record === undefined) continue
          const [where, isLastOpen] = [`${shownInode(inode)} (transient)`, record.lastSpan !== 'clean']
          await this.#spans(state, { file: inode, where, size: record.size, own: undefined, isLastOpen })
        } catch (error) {
          this.#tellDamage(shownInode(inode), 'its record', error)
        }
      }
    }
  }

  /** All that was begun is done; then what belongs to no file, and what disks have too much. */
  async rest(): Promise<void> {
    await Promise.all(this.#underWay)
    for (const directory of this.#options.cluster.shards) {
      this.#leftSpans(directory)
      this.#leftAttributes(directory)
      this.#leftIndex(directory)
    }
    for (const [disk, blocks] of this.#away) {
      const detail = `it is not among the directories given, and ${blocks} blocks are on it`
      this.#tell('degraded', `disk ${disk}${this.#domainOf(disk)}`, detail)
    }
    await this.#orphans()
  }

  #count(inode: InodeId, size: number, how: FoundFile['how']): void {
    if (how === 'history') {
      this.counts.historyFiles++
      this.counts.historyBytes += size
    } else {
      this.counts.files++
      this.counts.bytes += size
    }
    if (inodeType(inode) === 'symlink') this.counts.symlinks++
  }

  async #spans(state: StateReader, { file, where, size, own, isLastOpen }: SpansOf): Promise<void> {
    let end = 0
    if (own !== undefined) {
      this.counts.spans++
      end = own.size
      await this.#span(state, { where, file, offset: 0, record: own }, false)
    }
    const pull = new RangePull(state, spanKey(file, 0), spansEnd(file))
    for (let pair = pull.peek(); pair !== undefined; pair = pull.peek()) {
      pull.advance()
      const offset = numberOfKey(pair.key, NAME_AT)
      this.counts.spans++
      if (offset !== end) this.#tell('lost', where, `no span has the bytes from ${end} to ${offset}`)
      let record: SpanRecord
      try {
        record = decode(spanRecord, pair.value)
      } catch (error) {
        this.#tellDamage(where, `the record of the span at ${offset}`, error)
        return
      }
      end = offset + record.size
      const isOpen = isLastOpen && end === size
      await this.#span(state, { where, file, offset, record }, isOpen)
    }
    if (end === size) return
    const detail =
      end < size ? `no span has the bytes from ${end} to its end at ${size}` : `its spans have ${end} bytes`
    this.#tell('lost', where, end < size ? detail : `${detail}, and it is said to have ${size}`)
  }

  async #span(state: StateReader, span: FoundSpan, isOpen: boolean): Promise<void> {
    const { where, file, offset, record } = span
    const { blocks: body, inline, size, crc } = record
    if (body === undefined) {
      const bytes = inline ?? Buffer.alloc(0)
      if (bytes.length > size || (size > 0 && crc32cZeros(crc32c(bytes), size - bytes.length) !== crc)) {
        this.#tell('lost', where, `the bytes of the span at ${offset} do not fit their checksum`)
      }
      return
    }
    const layout = layoutOf(record, body)
    const flaw = layout === undefined ? 'layout' : findSpanFlaw(layout, crc, cellsOf(body))
    if (layout === undefined || flaw !== undefined) {
      this.#tell('lost', where, `the record of the span at ${offset} contradicts itself (${flaw})`)
      return
    }
    for (const { disk, block } of body.blocks) {
      this.counts.blocks++
      const found = state.get(blockKey(inodeShard(file), disk, block))
      if (found !== undefined && readNumber(found, 0) === file && readNumber(found, NUMBER_BYTES) === offset) {
        this.#indexed.set(state, (this.#indexed.get(state) ?? 0) + 1)
      } else this.#tell('degraded', where, `the index of blocks does not have block ${blockName(block)} as its own`)
    }
    if (isOpen) return
    while (this.#underWay.size >= SPANS_AT_ONCE) await Promise.race(this.#underWay)
    const work: Promise<void> = this.#blocks(span, body, layout).finally(() => this.#underWay.delete(work))
    this.#underWay.add(work)
  }

  async #blocks({ where, offset }: FoundSpan, body: BlocksBody, layout: SpanLayout): Promise<void> {
    const { cluster, readsBlocks } = this.#options
    const bad: string[] = []
    let away = 0
    await Promise.all(
      body.blocks.map(async ({ disk, block, cells }, index) => {
        const found = cluster.disks.get(disk)
        const name = `block ${index} (${blockName(block)})`
        if (found === undefined) {
          this.#away.set(disk, (this.#away.get(disk) ?? 0) + 1)
          away++
          bad.push(`${name}: disk ${disk} is not there`)
          return
        }
        try {
          await found.check(block, layout.blockBytes, readsBlocks ? blockCrc(layout, cells) : undefined)
        } catch (error) {
          if (!isOperationError(error)) throw error
          bad.push(`${name} in ${found.path}: ${reasonOf(error)}`)
        }
      }),
    )
    this.counts.blocksMissing += bad.length
    const isLost = bad.length > layout.parity
    // Of a disk that is not there one line tells, unless it takes something with it.
    if (bad.length === 0 || (!isLost && bad.length === away)) return
    const all = `${bad.length} of the ${layout.data + layout.parity} blocks of the span at ${offset} missing or bad`
    const detail = `${all}, where ${layout.data} are needed: ${bad.toSorted().join('; ')}`
    this.#tell(isLost ? 'lost' : 'degraded', where, detail)
  }

  #leftSpans({ path, state }: ShardDirectory): void {
    let [before, count] = [-1, 0]
    for (const [key] of pairs(state, 's')) {
      const file = numberOfKey(key, 1)
      if (file !== before && !isFile(state, file as InodeId)) count++
      before = file
    }
    if (count > 0) this.#tell('leak', path, `there are spans of ${count} files that are not there`)
  }

  #leftAttributes({ path, state }: ShardDirectory): void {
    let [before, count] = [-1, 0]
    for (const [key] of pairs(state, 'x')) {
      const inode = numberOfKey(key, 1)
      const isKnown = isFile(state, inode as InodeId) || state.get(`d${key.slice(1, NAME_AT)}`) !== undefined
      if (inode !== before && !isKnown) count++
      before = inode
    }
    if (count > 0) this.#tell('leak', path, `there are extended attributes of ${count} inodes that are not there`)
  }

  /** Looks for what is too much in the index only where its length says that something is. */
  #leftIndex({ path, state }: ShardDirectory): void {
    let count = 0
    for (const _ of pairs(state, 'b')) count++
    if (count === (this.#indexed.get(state) ?? 0)) return
    let left = 0
    for (const [key, value] of pairs(state, 'b')) {
      const block = numberOfKey(key, key.length - NUMBER_BYTES)
      const span = state.get(spanKey(readNumber(value, 0) as InodeId, readNumber(value, NUMBER_BYTES)))
      if (span === undefined || !hasBlock(span, block)) left++
    }
    if (left > 0) this.#tell('leak', path, `the index of blocks has ${left} that no span has`)
  }

  /** Blocks on disks that no shard knows of. */
  async #orphans(): Promise<void> {
    const { cluster, nowMs } = this.#options
    for (const disk of cluster.disks.values()) {
      let [old, oldBytes, strange] = [0, 0, 0]
      for (const directory of BLOCK_DIRECTORIES) {
        const names = await disk.list(directory).catch((error: unknown) => {
          if (!isOperationError(error)) throw error
          this.#tell('degraded', disk.path, error.message)
          return []
        })
        for (const { name, bytes } of names) {
          const block = blockOfName(name)
          if (block === undefined) {
            strange++
            continue
          }
          const state = cluster.ofShard(blockShard(block))
          if (state === undefined || state.get(blockKey(blockShard(block), disk.id, block)) !== undefined) continue
          this.counts.orphans++
          this.counts.orphanBytes += bytes
          if (blockTimeMs(block) > nowMs - YOUNG_MS) this.counts.orphansYoung++
          else {
            old++
            oldBytes += bytes
          }
        }
      }
      if (old > 0) this.#tell('leak', disk.path, `no span has ${old} of its blocks, of ${oldBytes} bytes`)
      if (strange > 0) this.#tell('leak', disk.path, `${strange} files among its blocks are none`)
    }
  }

  #domainOf(disk: DiskId): string {
    for (const { state } of this.#options.cluster.shards) {
      try {
        const domain = findDisk(state, disk)?.domain
        if (domain !== undefined) return ` (${domain})`
      } catch (error) {
        this.#tellDamage(`disk ${disk}`, 'its record', error)
      }
    }
    return ''
  }

  #tell(severity: Severity, where: string, detail: string): void {
    this.#options.onProblem({ severity, where, detail })
  }

  #tellDamage(where: string, what: string, error: unknown): void {
    if (!isOperationError(error)) throw error
    this.#tell('lost', where, `${what} is damaged: ${error.message}`)
  }
}

/** Records whose keys begin with the letter, a few at a time. */
function* pairs(state: StateReader, letter: string): Generator<readonly [key: string, value: Buffer]> {
  const pull = new RangePull(state, letter, after(letter))
  for (let pair = pull.peek(); pair !== undefined; pair = pull.peek()) {
    pull.advance()
    yield [pair.key, pair.value]
  }
}

function isFile(state: StateReader, inode: InodeId): boolean {
  return state.get(fileKey(inode)) !== undefined || state.get(transientKey(inode)) !== undefined
}

function hasBlock(span: Buffer, block: number): boolean {
  try {
    return decode(spanRecord, span).blocks?.blocks.some((each) => each.block === (block as BlockId)) ?? false
  } catch (error) {
    if (!isOperationError(error)) throw error
    // Told of where its file is checked; nothing says that the block is not its own.
    return true
  }
}

/** Undefined where the numbers of the record fit no layout. */
function layoutOf({ size }: SpanRecord, body: BlocksBody): SpanLayout | undefined {
  const { data, parity, stripes, cellBytes, blocks } = body
  const isSound = size > 0 && isRedundancy({ data, parity }) && stripes >= 1 && stripes <= STRIPES_MAX
  if (!isSound) return undefined
  const layout = layoutSpan(size, { data, parity }, stripes)
  return layout.cellBytes === cellBytes && blocks.length === data + parity ? layout : undefined
}

function cellsOf({ blocks }: BlocksBody): readonly (readonly number[])[] {
  return blocks.map(({ cells }) => cells)
}

/** Without the action, which is the same for all. */
function reasonOf({ message }: OperationError): string {
  return message.replace(/^Cannot use (?:the block|block \w+): /, '')
}
