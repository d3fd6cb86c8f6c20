/**
 * One that repairs what needs no repair: writes the bytes of a span again, to a file that nobody finishes, and has one of the new blocks, or all
 * of them, change places with the old ones. Others do that with the same span at the same time. Now and then it is confused, and
 * would swap blocks of other bytes, or certify a span of which a block was never written: it must be refused.
 */
import { isOperationError, OperationError } from '#base/errors.ts'
import type { ClusterClient } from '#cluster/client/cluster-client.ts'
import type { ClusterFiles } from '#cluster/client/cluster-files.ts'
import { gathered } from '#cluster/client/span-reader.ts'
import { diskTarget } from '#cluster/client/disk-choice.ts'
import type { Avoided, SpanForm } from '#cluster/client/redundancy-choice.ts'
import { Codes, encodeSpan } from '#cluster/client/span-encoding.ts'
import { SpanWriter } from '#cluster/client/span-writer.ts'
import { type InodeId, inodeShard } from '#cluster/inode-id.ts'
import { shardMessages } from '#cluster/shard/shard-messages.ts'
import { type BlocksBody, NO_INODE, type Span } from '#cluster/wire/forms.ts'

import type { Slot, TreeLog } from './tree-log.ts'
import { contentOf } from './tree-worker.ts'

/** So few files, and the newest ones, that several come to the same. */
const FILES_COUNT = 3
const CONFUSED_BYTES = 9000
const BLOCK_MS = 10_000

/** A span that is written whole. */
interface Place {
  readonly file: InodeId
  readonly offset: number
  readonly body: BlocksBody
}

export class Scrubber {
  readonly #client: ClusterClient
  readonly #files: ClusterFiles
  readonly #log: TreeLog
  readonly #writer: SpanWriter
  readonly #codes = new Codes()

  constructor(client: ClusterClient, files: ClusterFiles, log: TreeLog) {
    this.#client = client
    this.#files = files
    this.#log = log
    const { surroundings, caller, blocks, map: disks } = client
    this.#writer = new SpanWriter({ surroundings, caller, blocks, disks, shard: (shard) => disks.shard(shard) })
  }

  /** Whatever stands in the way of it is no matter: all must be as it was. */
  async step(): Promise<void> {
    const place = await this.#anyPlace().catch(ignoreRefusal)
    if (place === undefined) return
    const what = this.#below(10)
    if (what < 7) await this.#repair(place).catch(ignoreRefusal)
    else if (what < 9) await this.#swapOthers(place).catch(ignoreRefusal)
    else await this.#certifyWrongly(place)
  }

  #below(below: number): number {
    return this.#client.surroundings.chance.below(below)
  }

  async #anyPlace(): Promise<Place | undefined> {
    const files = this.#log.operations.flatMap(({ told, operation }) =>
      operation.kind === 'make' && operation.what === 'file' && told.inode !== undefined ? [told.inode] : [],
    )
    const file = files.at(-1 - this.#below(FILES_COUNT))
    if (file === undefined) return undefined
    const { spans } = await this.#client.ask(file, shardMessages.spans, { file, offset: 0, limit: 100 })
    const places = placesOf(file, spans)
    return places[this.#below(Math.max(1, places.length))]
  }

  async #repair({ file, offset, body }: Place): Promise<void> {
    const { spans } = await this.#client.ask(file, shardMessages.spans, { file, offset, limit: 1 })
    const size = spans[0]?.size ?? 0
    const bytes = await gathered(this.#files.read(file, offset, size))
    const scratch = await this.#construct(file, 0)
    const { data, parity, stripes, class: storageClass } = body
    const form = { data, parity, stripes, class: storageClass, isDegraded: false, isSingleCopy: false }
    const choose = ({ blocksMax = Infinity }: Avoided): SpanForm => {
      if (data + parity <= blocksMax) return form
      throw new OperationError('DISKS_MISSING', 'Cannot scrub a span: there are too few disks for one like it')
    }
    await this.#writer.write({ ...scratch, offset: 0, bytes, choose, like: file })
    const written = await this.#client.ask(file, shardMessages.spans, { file: scratch.file, offset: 0, limit: 1 })
    const [fresh] = placesOf(scratch.file, written.spans)
    if (fresh === undefined) return
    if (this.#below(3) === 0) await this.#swapSpans({ file, offset, body }, fresh)
    else {
      // The first block mostly: others come to the same one.
      const index = this.#below(2) === 0 ? 0 : this.#below(body.blocks.length)
      await this.#swap({ file, offset, body }, index, fresh, index)
    }
  }

  /** Two blocks or spans of two files: of other bytes, unless chance has it otherwise. */
  async #swapOthers(place: Place): Promise<void> {
    const other = await this.#anyPlace()
    if (other === undefined) return
    if (this.#below(3) === 0) return this.#swapSpans(place, other)
    const indexes = [place, other].map(({ body }) => this.#below(body.blocks.length))
    await this.#swap(place, indexes[0] ?? 0, other, indexes[1] ?? 0)
  }

  async #swapSpans(...places: readonly [Place, Place]): Promise<void> {
    const [a, b] = places.map(({ file, offset, body }) => {
      return { file, offset, blocks: body.blocks.map(({ block }) => block) }
    })
    if (a !== undefined && b !== undefined) await this.#client.ask(a.file, shardMessages.swapSpans, { a, b })
  }

  async #swap(a: Place, indexOfA: number, b: Place, indexOfB: number): Promise<void> {
    const [one, other] = [a.body.blocks[indexOfA], b.body.blocks[indexOfB]]
    if (one === undefined || other === undefined) return
    await this.#client.ask(a.file, shardMessages.swapBlocks, {
      a: { file: a.file, offset: a.offset, block: one.block },
      b: { file: b.file, offset: b.offset, block: other.block },
    })
  }

  /** All blocks but the first are written, and the receipt of the second is given for it, or none at all. */
  async #certifyWrongly({ file: like, body }: Place): Promise<void> {
    const to = this.#log.operations.flatMap(({ operation }) => (operation.kind === 'make' ? [operation.to] : []))
    const slot = to.findLast(({ directory }) => inodeShard(directory) === inodeShard(like))
    if (slot === undefined || body.blocks.length < 2) return
    const guard = { how: 'any', inode: NO_INODE } as const
    const logged = this.#log.begin({ kind: 'make', what: 'file', to: slot, guard }, CONFUSED_BYTES)
    try {
      this.#log.done(logged, await this.#linkUnwritten(slot, logged.number, body))
    } catch (error) {
      if (!isOperationError(error)) throw error
      if (isOperationError(error, 'RECEIPT_REFUSED', 'SPAN_OUT_OF_ORDER')) this.#log.refused(logged)
    }
  }

  async #linkUnwritten(slot: Slot, number: number, { data, parity, class: storageClass }: BlocksBody) {
    const client = this.#client
    const own = await this.#construct(slot.directory, number)
    const bytes = contentOf(number, CONFUSED_BYTES)
    const encoded = await encodeSpan(bytes, { data, parity }, 1, {
      codes: this.#codes,
      allocate: (count) => Buffer.alloc(count),
      turn: () => Promise.resolve(),
    })
    const { crc, blocks, layout } = encoded
    const cells = blocks.map((block) => block.cells)
    const shape = { class: storageClass, data, parity, stripes: 1, cellBytes: layout.cellBytes, cells }
    const span = { ...own, offset: 0, size: bytes.length, crc, ...shape, avoidDomains: [], like: NO_INODE }
    const permitted = (await client.ask(own.file, shardMessages.addSpan, span)).blocks
    const receipts: Buffer[] = []
    for (const [index, { disk, block, permit }] of permitted.entries()) {
      if (index === 0) continue
      const facts = { disk, block, crc: blocks[index]?.crc ?? 0, permit }
      const options = { deadlineMs: BLOCK_MS, lostMsMax: BLOCK_MS }
      const target = diskTarget(client.map, disk)
      receipts.push(await client.blocks.write(target, facts, blocks[index]?.parts ?? [], options))
    }
    const [first = Buffer.alloc(16)] = receipts
    if (this.#below(2) === 0) {
      await client.ask(own.file, shardMessages.certify, { ...own, offset: 0, receipts: [first, ...receipts] })
    }
    const link = { ...own, ...slot, guard: { how: 'any', inode: NO_INODE } as const, size: bytes.length }
    return { inode: own.file, ...(await client.ask(own.file, shardMessages.link, link)) }
  }

  #construct(near: InodeId, uid: number): Promise<{ readonly file: InodeId; readonly cookie: Buffer }> {
    const attributes = { mode: 0o600, uid, gid: 0, mtime: undefined, atime: undefined }
    return this.#client.ask(near, shardMessages.construct, { type: 'file', attributes, note: 'scrubbed' })
  }
}

function placesOf(file: InodeId, spans: readonly Span[]): Place[] {
  return spans.flatMap(({ offset, blocks, isCertified }) =>
    blocks === undefined || !isCertified ? [] : [{ file, offset, body: blocks }],
  )
}

function ignoreRefusal(error: unknown): undefined {
  if (!isOperationError(error)) throw error
  return undefined
}
