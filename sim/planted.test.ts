/**
 * Defects that are planted into a cluster, to show that the simulator finds them: each within a number of seeds, all of which hold without
 * it (the tests of the scenarios run them). A failure says what a user would have lost.
 */
import assert from 'node:assert/strict'
import { before, test } from 'node:test'

import { setLogLevel } from '#base/log.ts'
import { writeReceipt } from '#cluster/block/permit.ts'
import { CoordinatorMachine } from '#cluster/coordinator/coordinator-machine.ts'
import type { StepEntry, TransactionRecord } from '#cluster/coordinator/records.ts'
import { layoutSpan } from '#cluster/erasure/layout.ts'
import { blockCrc } from '#cluster/erasure/span-crc.ts'
import { numberValue } from '#cluster/journal/keys.ts'
import type { Journal } from '#cluster/journal/journal.ts'
import { type Answer, findAnswer, keepAnswer } from '#cluster/journal/sessions.ts'
import type { StateBatch } from '#cluster/journal/state.ts'
import { findDisk, findSpan, putBlock, spanKey, spanRecord, type SpanRecord, TIME_KEY } from '#cluster/shard/records.ts'
import type { ShardEntry } from '#cluster/shard/shard-entry.ts'
import { ShardMachine } from '#cluster/shard/shard-machine.ts'
import { shardMessages } from '#cluster/shard/shard-messages.ts'
import { decode, encode } from '#cluster/wire/codec.ts'
import { bodyOf, encodeRequest } from '#cluster/wire/envelope.ts'

import { runSeed } from './run-seed.ts'
import type { Scenario } from './scenario.ts'
import { firstFailure } from './scenario-suite.ts'
import { clusterFiles } from './scenarios/cluster-files.ts'
import { clusterNames } from './scenarios/cluster-names.ts'
import type { Plants } from './scenarios/cluster-world.ts'

/** Says that entries are durable, and writes them after that. */
class EagerJournal implements Journal {
  readonly #inner: Journal
  #last: number
  #written: Promise<void> = Promise.resolve()

  constructor(inner: Journal) {
    this.#inner = inner
    this.#last = inner.last
  }

  get first(): number {
    return this.#inner.first
  }

  get last(): number {
    return this.#last
  }

  append(at: number, entries: readonly Uint8Array[]): Promise<void> {
    this.#last = at + entries.length - 1
    this.#written = this.#written.then(() => this.#inner.append(at, entries))
    // Nobody waits for it, so nobody hears of its failure.
    this.#written.catch(() => undefined)
    return Promise.resolve()
  }

  async read(from: number, each: (number: number, entry: Buffer) => void): Promise<void> {
    await this.#inner.read(from, each)
  }

  async trim(through: number): Promise<void> {
    await this.#written
    await this.#inner.trim(through)
  }

  async close(): Promise<void> {
    await this.#written
    await this.#inner.close()
  }
}

/** Swaps blocks as it is told to, whatever is there by now, and whatever their bytes are. */
class BlindSwaps extends ShardMachine {
  override apply(batch: StateBatch, entry: ShardEntry): Answer {
    const { header, timeUs } = entry
    if (header.kind !== shardMessages.swapBlocks.kind) return super.apply(batch, entry)
    const known = findAnswer(batch, header.shard, header)
    if (known !== undefined) return known
    const { a, b } = decode(shardMessages.swapBlocks.request, bodyOf(entry.frame))
    const [left, right] = [findSpan(batch, a.file, a.offset), findSpan(batch, b.file, b.offset)]
    const isOneSpan = a.file === b.file && a.offset === b.offset
    if (left?.blocks === undefined || right?.blocks === undefined || isOneSpan) return super.apply(batch, entry)
    const [one, other] = [indexOf(left, a.block), indexOf(right, b.block)]
    const put = (record: SpanRecord, place: typeof a, index: number, from: SpanRecord, fromIndex: number): void => {
      const coming = from.blocks?.blocks[fromIndex]
      if (record.blocks === undefined || coming === undefined) return
      const blocks = record.blocks.blocks.with(index, coming)
      batch.put(
        spanKey(place.file, place.offset),
        encode(spanRecord, { ...record, blocks: { ...record.blocks, blocks } }),
      )
      putBlock(batch, header.shard, coming.disk, coming.block, place.file, place.offset)
    }
    put(left, a, one, right, other)
    put(right, b, other, left, one)
    batch.put(TIME_KEY, numberValue(timeUs))
    const given = { body: encode(shardMessages.swapBlocks.reply, {}) }
    keepAnswer(batch, header, timeUs, given)
    return given
  }
}

/** Where the block is, or the first place where it is not there. */
function indexOf({ blocks }: SpanRecord, block: number): number {
  return Math.max(0, blocks?.blocks.findIndex((each) => each.block === block) ?? 0)
}

/**
 * Takes an answer for the one that it waits for where it looks like that. So the answer to a lock that comes twice ends the lock, before
 * what it was for is done.
 */
class HeedsTheLate extends CoordinatorMachine {
  override isOutstanding(record: TransactionRecord, entry: StepEntry): boolean {
    if (super.isOutstanding(record, entry)) return true
    return EMPTILY_ANSWERED.has(record.step) && entry.kind === 'answered' && entry.reply.length === 0
  }
}

/** Steps whose answer says nothing but that they are done, as that to a lock does. */
const EMPTILY_ANSWERED = new Set(['removeOwner', 'setOwner'])

/** Takes a receipt of any block of a span for that of any other. */
class UnboundReceipts extends ShardMachine {
  override apply(batch: StateBatch, entry: ShardEntry): Answer {
    const { header } = entry
    if (header.kind !== shardMessages.certify.kind) return super.apply(batch, entry)
    const request = decode(shardMessages.certify.request, bodyOf(entry.frame))
    const expected = receiptsOf(batch, findSpan(batch, request.file, request.offset))
    const isOne = (receipt: Buffer): boolean => expected.some((each) => each.equals(receipt))
    if (request.receipts.length !== expected.length || !request.receipts.every(isOne)) return super.apply(batch, entry)
    const facts = { ...header, kind: header.kind, isInternal: header.isInternal }
    const frame = encodeRequest(facts, shardMessages.certify.request, { ...request, receipts: expected })
    return super.apply(batch, { ...entry, frame })
  }
}

function receiptsOf(batch: StateBatch, record: SpanRecord | undefined): Buffer[] {
  if (record?.blocks === undefined) return []
  const { blocks, stripes } = record.blocks
  const layout = layoutSpan(record.size, record.blocks, stripes)
  return blocks.map(({ disk, block, cells }) => {
    const key = findDisk(batch, disk)?.key ?? Buffer.alloc(0)
    const facts = { id: block, size: layout.blockBytes, crc: blockCrc(layout, cells) }
    return Buffer.from(writeReceipt({ disk, key }, facts))
  })
}

interface Planted {
  readonly what: string
  readonly plants: Plants
  readonly scenario: (plants?: Plants) => Scenario
  readonly complaint: RegExp
  readonly seedsMax: number
}

const PLANTED: readonly Planted[] = [
  {
    what: 'a shard that replies before it is durable',
    plants: { shardJournal: (journal) => new EagerJournal(journal) },
    scenario: clusterNames,
    complaint:
      /was acknowledged|in nowhere|no current edge leads to it|cannot fail, and was refused|ended by itself: .* it ends at entry/,
    seedsMax: 20,
  },
  {
    what: 'a shard that swaps blocks without comparing',
    plants: { shardMachine: new BlindSwaps() },
    scenario: clusterFiles,
    complaint: /is taken for one of|belongs to another span|is not whole, and no rot|Cannot read the span/,
    seedsMax: 20,
  },
  {
    what: 'a coordinator whose locks are released by a doubled reply',
    plants: { coordinatorMachine: new HeedsTheLate() },
    scenario: clusterNames,
    complaint: /The coordinator has .* in nowhere|no current edge leads to it|cannot fail, and was refused/,
    seedsMax: 40,
  },
  {
    what: 'a shard that takes the receipt of one block for that of another',
    plants: { shardMachine: new UnboundReceipts() },
    scenario: clusterFiles,
    complaint: /is not whole, and no rot has come to it/,
    seedsMax: 20,
  },
  {
    what: 'a shard that writes by a clock that nobody has confirmed',
    plants: { trustsAnyClock: true },
    scenario: clusterFiles,
    complaint: /of a time \d+ seconds ahead/,
    seedsMax: 20,
  },
]

before(() => setLogLevel('silent'))

for (const { what, plants, scenario, complaint, seedsMax } of PLANTED) {
  test(`${what} is found within ${seedsMax} seeds`, async () => {
    const found = await firstFailure(scenario(plants), seedsMax)
    assert.ok(found !== undefined, 'it was not found')
    assert.match(String(found.failure), complaint)
    assert.equal((await runSeed(scenario(), found.seed)).failure, undefined)
  })
}
