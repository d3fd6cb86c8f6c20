/**
 * For tests: the machine of a shard over a state in memory, asked without a process or a network around it. Each write is an entry of a journal, so that all can be
 * done again; each refusal is checked to have changed nothing but what remembers it.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'

import { isOperationError, type ErrorCode } from '#base/errors.ts'
import { writeReceipt, eraseReceipt, type DiskId, type DiskKey } from '#cluster/block/permit.ts'
import type { BlockId } from '#cluster/block/block-id.ts'
import { layoutSpan, type SpanLayout } from '#cluster/erasure/layout.ts'
import { blockCrc, spanCrc, xorParityCrc } from '#cluster/erasure/span-crc.ts'
import { crc32c } from '#cluster/erasure/crc32c.ts'
import { makeInodeId, ROOT_INODE, type InodeId } from '#cluster/inode-id.ts'
import { MemoryState } from '#cluster/journal/memory-state.ts'
import { SESSIONS, type Answer } from '#cluster/journal/sessions.ts'
import type { StateReader } from '#cluster/journal/state.ts'
import { WorkingBatch, WorkingState } from '#cluster/journal/working-state.ts'
import { decode, encode, type ValueOf } from '#cluster/wire/codec.ts'
import { encodeRequest, readHeader, type RequestId } from '#cluster/wire/envelope.ts'
import { ANYTHING, NO_INODE, NOTHING, type NameGuard } from '#cluster/wire/forms.ts'
import type { Message } from '#cluster/wire/message.ts'

import { ownMessages } from './own-messages.ts'
import { reads } from './reads.ts'
import { TIME_KEY } from './records.ts'
import { ShardMachine } from './shard-machine.ts'
import { shardMessages } from './shard-messages.ts'

/** 2027-01-15, in microseconds. */
const START_US = 1_800_000_000e6
/** After every key that a state can have. */
export const KEYS_END = '\u00ff'.repeat(8)
export const ATTRIBUTES = { mode: 0o644, uid: 1, gid: 2, mtime: undefined, atime: undefined }
export { ANYTHING, NOTHING }

/** All of a state in one word; with `isWithoutSessions` but for what remembers requests, and the time. */
export function digestOf(state: StateReader, isWithoutSessions = false): string {
  const hash = createHash('sha256')
  state.range('', KEYS_END, (key, value) => {
    if (isWithoutSessions && (key.startsWith(SESSIONS) || key === TIME_KEY)) return true
    hash.update(`${key.length} ${value.length} ${key}`, 'latin1').update(value)
    return true
  })
  return hash.digest('hex')
}

export interface AskOptions {
  readonly shard?: number
  readonly id?: RequestId
  readonly chosen?: readonly number[]
}

type Reads = typeof reads
type Messages = typeof shardMessages

export class TestShard {
  readonly state = new WorkingState(new MemoryState())
  readonly machine = new ShardMachine()
  /** All entries that changed something, as a journal has them. */
  readonly entries: Buffer[] = []
  nowUs = START_US
  /** Whether each refusal is compared with the state before it, which takes time. */
  isStrict = true
  #sequence = 0

  constructor(first = 0, last = 255) {
    this.write(ownMessages.begin, { first, last, secret: Buffer.alloc(32, 7) }, { shard: first })
  }

  /** Does it as the next entry. @throws OperationError */
  write<Q, R>(message: Message<Q, R>, request: Q, options: AskOptions = {}): R {
    const { shard = 0, chosen = [], id = { client: 1, slot: 0, sequence: ++this.#sequence } } = options
    const facts = { ...id, kind: message.kind, shard, isInternal: message.isInternal }
    return decode(message.reply, this.apply(encodeRequest(facts, message.request, request), chosen))
  }

  /** The same for a frame; the frame is overwritten afterwards, as one that the network uses again. */
  apply(frame: Buffer, chosen: readonly number[] = []): Buffer {
    const entry = { timeUs: ++this.nowUs, chosen, header: readHeader(frame), frame }
    const batch = new WorkingBatch(this.state, this.entries.length + 1)
    const before = this.isStrict ? digestOf(this.state, true) : ''
    let answer: Answer
    try {
      answer = this.machine.apply(batch, entry)
    } catch (error) {
      assert.equal(batch.isChanged, false, 'what is not kept changes nothing')
      throw error
    }
    if (batch.isChanged) this.entries.push(Buffer.from(this.machine.encode(entry)))
    frame.fill(0xee)
    if ('body' in answer) return Buffer.from(answer.body)
    if (this.isStrict) assert.equal(digestOf(this.state, true), before, 'a refusal changes nothing')
    throw answer.refusal
  }

  read<K extends keyof Reads & keyof Messages>(
    name: K,
    request: ValueOf<Messages[K]['request']>,
    shard = 0,
  ): ValueOf<Messages[K]['reply']> {
    const message = shardMessages[name] as Message
    const read = reads[name] as (state: StateReader, shard: number, request: unknown) => unknown
    const sent = decode(message.request, encode(message.request, request))
    const found = read(this.state, shard, sent)
    // Through the codec, as on its way: what cannot be told fails here.
    return decode(message.reply, encode(message.reply, found)) as ValueOf<Messages[K]['reply']>
  }

  /** That the write is refused by that code. */
  refuses<Q, R>(code: ErrorCode, message: Message<Q, R>, request: Q, options: AskOptions = {}): void {
    assert.throws(
      () => this.write(message, request, options),
      (error) => isOperationError(error, code),
      `${message.name} is refused by ${code}`,
    )
  }

  /** A state that all entries make anew. */
  replayed(): WorkingState {
    const state = new WorkingState(new MemoryState())
    for (const [index, bytes] of this.entries.entries()) {
      this.machine.apply(new WorkingBatch(state, index + 1), this.machine.decode(Buffer.from(bytes)))
    }
    return state
  }

  create(
    name: string,
    { directory = ROOT_INODE, guard = ANYTHING, content = '', shard = 0 }: CreateOptions = {},
  ): { inode: InodeId; created: number; replaced: InodeId } {
    const bytes = Buffer.from(content)
    const body = { size: bytes.length, crc: crc32c(bytes), bytes, xattrs: [] }
    return this.write(
      shardMessages.create,
      { directory, name, guard, type: 'file', attributes: ATTRIBUTES, ...body },
      { shard },
    )
  }

  construct(shard = 0): { file: InodeId; cookie: Buffer } {
    return this.write(shardMessages.construct, { type: 'file', attributes: ATTRIBUTES, note: '' }, { shard })
  }

  unlink(name: string, directory = ROOT_INODE, shard = 0): { removed: number } {
    const { inode, created } = this.read('lookup', { directory, name }, shard)
    return this.write(shardMessages.unlink, { directory, name, inode, created }, { shard })
  }

  /** As the coordinator makes one. */
  makeDirectory(name: string, counter: number, owner = ROOT_INODE, ownerShard = 0, shard = 0): InodeId {
    const directory = makeInodeId('directory', shard, counter)
    this.write(shardMessages.createDirectory, { directory, owner, attributes: ATTRIBUTES }, { shard })
    this.write(
      shardMessages.createEdge,
      { directory: owner, name, target: directory, guard: NOTHING },
      { shard: ownerShard },
    )
    return directory
  }

  names(directory = ROOT_INODE, shard = 0): string[] {
    const { entries } = this.read('list', { directory, after: '', limit: 10_000, withStatus: false }, shard)
    return entries.map(({ name }) => name)
  }

  /** The edges of a name from the oldest on: their states. */
  edges(name: string, directory = ROOT_INODE): string[] {
    const request = { directory, name, time: 0, isBackwards: false, isSameName: true, limit: 1000 }
    return this.read('history', request).edges.map(({ state }) => state)
  }

  /** Disks 1 to `count`, each in a domain of its own unless `domain` says another. */
  learnDisks(count: number, domain = (disk: number): string => `host${disk}`): void {
    const disks = Array.from({ length: count }, (_, index) => {
      const { disk, key } = keyOfDisk(index + 1)
      return { disk, key: Buffer.from(key), class: 2, domain: domain(index + 1) }
    })
    this.write(ownMessages.learnDisks, { disks })
  }
}

export interface CreateOptions {
  readonly directory?: InodeId
  readonly guard?: NameGuard
  readonly content?: string
  readonly shard?: number
}

export function keyOfDisk(disk: number): DiskKey {
  return { disk: disk as DiskId, key: Buffer.alloc(32, disk) }
}

export interface TestSpan {
  readonly layout: SpanLayout
  readonly crc: number
  readonly cells: number[][]
}

/** Facts of a span that fit each other, of no bytes in particular. */
export function spanOf(bytes: number, data: number, parity: number, stripes = 1, seed = 1): TestSpan {
  const layout = layoutSpan(bytes, { data, parity }, stripes)
  const cells: number[][] = []
  const { cellBytes } = layout
  const byCell = (block: number, stripe: number): number => {
    const start = (stripe * data + block) * cellBytes
    const used = Math.max(0, Math.min(bytes - start, cellBytes))
    const cell = Buffer.alloc(cellBytes)
    cell.fill((seed * 31 + block * 7 + stripe) & 0xff, 0, used)
    return crc32c(cell)
  }
  for (let block = 0; block < data; block++) {
    cells.push(Array.from({ length: stripes }, (_, stripe) => byCell(block, stripe)))
  }
  for (let at = 0; at < parity; at++) {
    const firsts = Array.from({ length: stripes }, (_, stripe) => {
      const column = cells.slice(0, data).map((block) => block[stripe] ?? 0)
      return data === 1 || at === 0 ? xorParityCrc(layout, column) : at * 1000 + stripe
    })
    cells.push(firsts)
  }
  return { layout, crc: spanCrc(layout, cells), cells }
}

/** The request that adds it. */
export function addSpanOf(
  own: { readonly file: InodeId; readonly cookie: Buffer },
  offset: number,
  { layout, crc, cells }: TestSpan,
): ValueOf<Messages['addSpan']['request']> {
  const { bytes: size, data, parity, stripes, cellBytes } = layout
  const shape = { class: 2, data, parity, stripes, cellBytes }
  return { ...own, offset, size, crc, ...shape, cells, avoidDomains: [], like: NO_INODE }
}

type Placed = { readonly disk: DiskId; readonly block: BlockId }

/** What its disks say once they have written its blocks. */
export function receiptsOf({ layout, cells }: TestSpan, blocks: readonly Placed[]): Buffer[] {
  return blocks.map(({ disk, block }, index) => {
    const facts = { id: block, size: layout.blockBytes, crc: blockCrc(layout, cells[index] ?? []) }
    return Buffer.from(writeReceipt(keyOfDisk(disk), facts))
  })
}

/** What its disks say once they have erased its blocks. */
export function erasuresOf(blocks: readonly Placed[]): { block: BlockId; receipt: Buffer }[] {
  return blocks.map(({ disk, block }) => ({ block, receipt: Buffer.from(eraseReceipt(keyOfDisk(disk), block)) }))
}
