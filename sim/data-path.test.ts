import assert from 'node:assert/strict'
import { test } from 'node:test'

import { ERRNO } from '#base/errno.ts'
import { isOperationError } from '#base/errors.ts'
import { madeUp } from '#cluster/block/disk-fixture.ts'
import { encodeTrailer } from '#cluster/block/block-trailer.ts'
import { blockMessages } from '#cluster/block/block-messages.ts'
import type { MemoryBlockFiles } from '#cluster/block/memory-block-files.ts'
import { PageSums } from '#cluster/block/page-sums.ts'
import { diskTarget } from '#cluster/client/disk-choice.ts'
import { gathered } from '#cluster/client/span-reader.ts'
import { SpansLostError } from '#cluster/client/spans-lost.ts'
import { crc32c } from '#cluster/erasure/crc32c.ts'
import { shardMessages } from '#cluster/shard/shard-messages.ts'
import { HEADER_BYTES } from '#cluster/wire/envelope.ts'
import type { Span } from '#cluster/wire/forms.ts'

import { DataPath, type Service, type WrittenFile } from './data-path.ts'
import { Random } from './random.ts'

/** For longer than a disk or a block stays suspect. */
const FORGET_MS = 11_000

function patterns(blocks: number, missing: number): number[][] {
  const found: number[][] = []
  for (let bits = 0; bits < 2 ** blocks; bits++) {
    const pattern = Array.from({ length: blocks }, (_, index) => index).filter((index) => ((bits >> index) & 1) === 1)
    if (pattern.length === missing) found.push(pattern)
  }
  return found
}

/** Takes the bytes of these blocks away; gives what puts them back. */
function lose(path: DataPath, span: Span, pattern: readonly number[]): () => void {
  const back = pattern.map((index) => {
    const { service, path: file } = path.holder(span, index)
    const bytes = Buffer.from(service.files().bytesOf(file) ?? '')
    service.files().place(file, Buffer.alloc(0))
    return (): void => service.files().place(file, bytes)
  })
  return () => {
    for (const put of back) put()
  }
}

/** From then on no call of that kind to the disk of the service ends. */
function hang(service: Service, ...calls: string[]): () => void {
  const files = service.files()
  const before: MemoryBlockFiles['before'] = files.before
  files.before = (step) => (calls.includes(step.call) ? new Promise(() => undefined) : before?.(step))
  return () => {
    files.before = before
  }
}

async function lostBy(promise: Promise<unknown>): Promise<SpansLostError> {
  const error: unknown = await promise.then(
    () => undefined,
    (failure: unknown) => failure,
  )
  assert.ok(error instanceof SpansLostError, `it was lost, not ${String(error)}`)
  return error
}

function indexesOf({ blocks }: SpansLostError): number[] {
  return blocks.map(({ index }) => index).toSorted((a, b) => a - b)
}

async function codeOf(promise: Promise<unknown>): Promise<string | undefined> {
  try {
    await promise
    return undefined
  } catch (error) {
    assert.ok(isOperationError(error))
    return error.code
  }
}

test('what was written is read back, whole and in any range', async () => {
  const path = await DataPath.start({ services: 6, reader: { fetchBytes: 16_384 } })
  const random = new Random(5)
  for (const [data, parity] of [
    [4, 2],
    [2, 1],
    [1, 2],
    [1, 0],
  ] as const) {
    for (const size of [1, 4096, 5000, 200_000, 1_000_003]) {
      const bytes = madeUp(size, size)
      const { file, span } = await path.file(bytes, data, parity)
      assert.equal(span.isCertified, true)
      assert.deepEqual(await path.read(file), bytes)
      for (let count = 0; count < 5; count++) {
        const offset = random.below(size)
        const length = 1 + random.below(size - offset + 10)
        assert.deepEqual(await path.read(file, offset, length), bytes.subarray(offset, offset + length))
      }
    }
  }
})

test('a file has spans of every kind: inline bytes, zeros after them, and blocks', async () => {
  const path = await DataPath.start({ services: 3 })
  const at = await path.construct()
  const head = madeUp(4096, 1)
  const inline = { ...at, offset: 0, size: 8192, crc: crc32c(Buffer.concat([head, Buffer.alloc(4096)])), bytes: head }
  await path.until(path.caller.call(path.shardTarget, shardMessages.addInline, inline, { shard: 3 }))
  const body = madeUp(300_000, 2)
  await path.write(at, 8192, body, 2, 1)
  const all = Buffer.concat([head, Buffer.alloc(4096), body])
  assert.deepEqual(await path.read(at.file), all)
  for (const [offset, length] of [
    [0, 10],
    [4000, 200],
    [5000, 10],
    [8000, 500],
    [100_000, 1],
    [308_191, 100],
    [308_192, 5],
  ] as const) {
    assert.deepEqual(await path.read(at.file, offset, length), all.subarray(offset, offset + length))
  }
})

for (const [data, parity] of [
  [2, 1],
  [4, 2],
  [1, 2],
] as const) {
  test(`at ${data}+${parity} any ${parity} lost blocks leave a span readable, and one more loses it`, async () => {
    const path = await DataPath.start({ services: data + parity })
    const bytes = madeUp(500_001, 9)
    const { file, span } = await path.file(bytes, data, parity)
    for (let missing = 1; missing <= parity; missing++) {
      for (const pattern of patterns(data + parity, missing)) {
        const putBack = lose(path, span, pattern)
        assert.deepEqual(await path.read(file), bytes, `without ${pattern.join()}`)
        assert.deepEqual(await path.read(file, 70_001, 130_000), bytes.subarray(70_001, 200_001))
        putBack()
        await path.pass(FORGET_MS)
      }
    }
    for (const pattern of patterns(data + parity, parity + 1)) {
      const putBack = lose(path, span, pattern)
      const error = await lostBy(path.read(file))
      assert.equal(error.errno, ERRNO.EIO)
      assert.equal(error.file, file)
      assert.deepEqual(indexesOf(error), pattern)
      for (const { disk } of error.blocks) assert.match(error.message, new RegExp(`disk ${disk} of rack`))
      putBack()
      await path.pass(FORGET_MS)
    }
    assert.deepEqual(await path.read(file), bytes)
  })
}

test('no bit that flipped in a block is ever read', async () => {
  const path = await DataPath.start({ services: 6 })
  const bytes = madeUp(700_000, 4)
  const { file, span } = await path.file(bytes, 4, 2)
  const random = new Random(11)
  for (let count = 0; count < 30; count++) {
    const flipped = [random.below(6), random.below(6)].map((index) => {
      const { service, path: block } = path.holder(span, index)
      const held = service.files().bytesOf(block)
      assert.ok(held !== undefined)
      const at = random.below(held.length)
      const bit = 1 << random.below(8)
      held[at] = (held[at] ?? 0) ^ bit
      return (): void => void (held[at] = (held[at] ?? 0) ^ bit)
    })
    const offset = random.below(600_000)
    assert.deepEqual(await path.read(file, offset, 100_000), bytes.subarray(offset, offset + 100_000))
    assert.deepEqual(await path.read(file), bytes)
    for (const flip of flipped.toReversed()) flip()
    await path.pass(FORGET_MS)
  }
})

/** The block becomes another one of the same size, with checksums of its own that are right. */
function forge(path: DataPath, span: Span, index: number): void {
  const { service, path: file } = path.holder(span, index)
  const id = span.blocks?.blocks[index]?.block
  const { stripes = 0, cellBytes = 0 } = span.blocks ?? {}
  assert.ok(id !== undefined)
  const bytes = madeUp(stripes * cellBytes, 1234 + index)
  const sums = new PageSums(bytes.length)
  sums.add(bytes)
  const trailer = encodeTrailer({ id, size: bytes.length, crc: crc32c(bytes), sums: sums.sums })
  service.files().place(file, Buffer.concat([bytes, trailer]))
}

test('a disk that gives other bytes, and says that they are right, is not believed', async () => {
  const path = await DataPath.start({ services: 6 })
  const bytes = madeUp(700_000, 4)
  const { file, span } = await path.file(bytes, 4, 2)
  forge(path, span, 1)
  forge(path, span, 4)
  assert.deepEqual(await path.read(file), bytes)
  await path.pass(FORGET_MS)
  forge(path, span, 0)
  const error = await lostBy(path.read(file))
  assert.deepEqual(indexesOf(error), [0, 1, 4])
  assert.ok(error.blocks.every(({ why }) => why.code === 'BLOCK_CORRUPT'))
})

test('a record whose cells are not its span gives nothing', async () => {
  const path = await DataPath.start({ services: 3 })
  const { file, span } = await path.file(madeUp(100_000), 2, 1)
  const wrong = { ...span, crc: span.crc ^ 1 }
  const error = await lostBy(path.until(path.reader.readSpan(file, wrong, 0, wrong.size)))
  assert.deepEqual(error.blocks, [])
})

test('a disk that hangs delays a read by one hedge, and the next reads not at all', async () => {
  const path = await DataPath.start({ services: 6, reader: { hedgeMs: 500 } })
  const bytes = madeUp(700_000, 4)
  const { file, span } = await path.file(bytes, 4, 2)
  for (const index of [0, 3]) hang(path.holder(span, index).service, 'open', 'read')
  let begun = path.nowMs
  assert.deepEqual(await path.read(file), bytes)
  assert.ok(path.nowMs - begun > 500 && path.nowMs - begun < 600, `it took ${path.nowMs - begun} ms`)
  begun = path.nowMs
  assert.deepEqual(await path.read(file), bytes)
  assert.ok(path.nowMs - begun < 100, `it took ${path.nowMs - begun} ms`)
})

test('disks that are said to be stale, not to be read or decommissioned are read last, not never', async () => {
  const path = await DataPath.start({ services: 3 })
  const bytes = madeUp(100_000)
  const { file, span } = await path.file(bytes, 2, 1)
  const [first, second, third] = [0, 1, 2].map((index) => path.holder(span, index).service)
  assert.ok(first !== undefined && second !== undefined && third !== undefined)
  for (const flag of ['stale', 'no-read', 'decommissioned'] as const) {
    path.tell(first, { flags: [flag] })
    const countBefore: number = first.files().counts.get('read') ?? 0
    assert.deepEqual(await path.read(file), bytes)
    assert.equal(first.files().counts.get('read') ?? 0, countBefore, `nothing is read from a disk that is ${flag}`)
    path.tell(first, { flags: [] })
  }
  for (const service of [first, second, third]) path.tell(service, { flags: ['stale'] })
  assert.deepEqual(await path.read(file), bytes)
})

test('the nearest blocks are read first', async () => {
  const path = await DataPath.start({ services: 4 })
  const bytes = madeUp(100_000)
  const { file, span } = await path.file(bytes, 2, 2)
  for (const index of [0, 1]) path.tell(path.holder(span, index).service, { location: 'far away' })
  assert.deepEqual(await path.read(file), bytes)
  for (const index of [0, 1]) assert.equal(path.holder(span, index).service.files().counts.get('read'), undefined)
})

test('a service that is away while it is started again is waited for', async () => {
  const path = await DataPath.start({ services: 2 })
  const bytes = madeUp(100_000)
  const { file } = await path.file(bytes, 1, 1)
  for (const { process } of path.services) process.kill()
  const reading = gathered(path.reader.read(path.source(file), 0, 1 << 20))
  await path.pass(3000)
  const [service] = path.services
  assert.ok(service !== undefined)
  await path.restart(service)
  assert.deepEqual(await path.until(reading), bytes)
})

test('where nobody comes back, the read ends with what is missing', async () => {
  const path = await DataPath.start({ services: 3 })
  const { file, span } = await path.file(madeUp(100_000), 2, 1)
  for (const index of [0, 2]) path.holder(span, index).service.process.kill()
  const begun = path.nowMs
  const error = await lostBy(path.read(file))
  assert.deepEqual(indexesOf(error), [0, 2])
  assert.ok(path.nowMs - begun < 60_000)
})

test('blocks that were moved meanwhile are found by asking for the spans again', async () => {
  const path = await DataPath.start({ services: 4 })
  const bytes = madeUp(100_000)
  const old = await path.file(bytes, 2, 1)
  const moved = await path.file(bytes, 2, 1)
  lose(path, old.span, [0, 1])
  let asked = 0
  const source = {
    file: old.file,
    spansFrom: async () => ({ size: bytes.length, spans: [asked++ === 0 ? old.span : moved.span], isLast: true }),
  }
  assert.deepEqual(await path.until(gathered(path.reader.read(source, 0, 1e9))), bytes)
  assert.equal(asked, 2)
})

test('a reader that goes away leaves nothing under way', async () => {
  const path = await DataPath.start({ services: 6, reader: { fetchBytes: 4096, aheadBytes: 65_536 } })
  const bytes = madeUp(1_000_000)
  const { file, span } = await path.file(bytes, 4, 2)
  const counts = (): number => path.services.reduce((sum, { files }) => sum + (files().counts.get('read') ?? 0), 0)
  const leave = async (): Promise<void> => {
    for await (const buffer of path.reader.read(path.source(file), 0, bytes.length)) {
      assert.ok(buffer.length > 0)
      break
    }
  }
  const countBefore = counts()
  await path.until(leave())
  await path.pass(1000)
  const read = counts() - countBefore
  assert.ok(read > 0 && read < 60, `${read} reads for what one needs a few for`)
  const known = path.known.get(
    span.blocks?.blocks[0]?.disk ?? path.services[0]?.process.running?.disk.id ?? (0 as never),
  )
  assert.equal(path.blocks.bytesUnderWay(known?.address ?? ''), 0)
})

test('a full disk has its blocks written to another domain, and the attempt is moved away', async () => {
  const path = await DataPath.start({ services: 8 })
  const [full] = path.services
  assert.ok(full !== undefined)
  full.process.disk.faults.isFull = true
  const bytes = madeUp(300_000)
  // Some of these meet the full disk.
  for (let count = 0; count < 6; count++) {
    const { file, span } = await path.file(bytes, 4, 2)
    assert.equal(span.isCertified, true)
    assert.ok(!span.blocks?.blocks.some(({ disk }) => disk === full.process.running?.disk.id))
    assert.deepEqual(await path.read(file), bytes)
  }
  const notes = await scratchNotes(path)
  assert.ok(notes.includes('given-up span'))
})

async function scratchNotes(path: DataPath): Promise<string[]> {
  const ask = { what: 'transient', after: 0, limit: 1000 } as const
  const { inodes } = await path.until(path.caller.call(path.shardTarget, shardMessages.visit, ask, { shard: 3 }))
  const notes: string[] = []
  for (const { inode } of inodes) {
    const status = await path.until(path.caller.call(path.shardTarget, shardMessages.stat, { inode }, { shard: 3 }))
    notes.push(status.transient?.note ?? '')
  }
  return notes
}

test('with all disks full a write is refused for want of room, and the file stays as it was', async () => {
  const path = await DataPath.start({ services: 6 })
  const at = await path.construct()
  await path.write(at, 0, madeUp(50_000), 4, 2)
  for (const { process } of path.services) process.disk.faults.isFull = true
  const error: unknown = await path.write(at, 50_000, madeUp(60_000, 2), 4, 2).catch((failure: unknown) => failure)
  assert.ok(isOperationError(error, 'DISKS_MISSING', 'DISK_FULL'), String(error))
  assert.equal(error.errno, ERRNO.ENOSPC)
  assert.equal((await path.spans(at)).length, 1)
  for (const { process } of path.services) process.disk.faults.isFull = false
  await path.write(at, 50_000, madeUp(60_000, 2), 4, 2)
  assert.deepEqual(await path.read(at.file), Buffer.concat([madeUp(50_000), madeUp(60_000, 2)]))
})

test('a disk that hangs is done without: elsewhere where there is room, or with fewer blocks', async () => {
  for (const [services, data, parity] of [
    [7, 4, 2],
    [6, 3, 2],
  ] as const) {
    const path = await DataPath.start({ services })
    const [hung] = path.services
    assert.ok(hung !== undefined)
    const disk = hung.process.running?.disk.id
    hang(hung, 'append')
    const bytes = madeUp(300_000)
    let seen: Span | undefined
    // With a domain to spare, the first attempt may not meet it.
    for (let count = 0; count < 8; count++) {
      const at = await path.construct()
      const begun = path.nowMs
      const form = await path.write(at, 0, bytes, 4, 2)
      assert.deepEqual([form.data, form.parity, form.isDegraded], [data, parity, data < 4])
      assert.ok(path.nowMs - begun < 6000, `it took ${path.nowMs - begun} ms`)
      ;[seen] = await path.spans(at)
      assert.ok(!seen?.blocks?.blocks.some((block) => block.disk === disk))
      assert.deepEqual(await path.read(at.file), bytes)
    }
  }
})

test('services that die in the middle of writes, and lost, doubled and late frames, leave every written span right', async () => {
  for (const seed of [1, 2, 3]) {
    const path = await DataPath.start({ services: 8, seed })
    const { faults } = path.world.network
    Object.assign(faults, { loss: 0.03, answerLoss: 0.03, duplication: 0.05, reordering: 0.05, spike: 0.02 })
    const random = new Random(seed)
    const written: (WrittenFile & { readonly bytes: Buffer })[] = []
    for (let count = 0; count < 15; count++) {
      const victim = path.services[random.below(8)]
      assert.ok(victim !== undefined)
      const bytes = madeUp(1 + random.below(400_000), count)
      path.world.timeline.at(path.world.timeline.nowUs + random.below(20_000), () => victim.process.kill())
      const at = await path.construct()
      await path.write(at, 0, bytes, 4, 2)
      written.push({ ...at, bytes })
      await path.pass(20)
      await path.restart(victim)
    }
    for (const { file, bytes } of written) assert.deepEqual(await path.read(file), bytes)
    Object.assign(faults, { loss: 0, answerLoss: 0, duplication: 0, reordering: 0, spike: 0 })
    for (const { file, bytes } of written) assert.deepEqual(await path.read(file), bytes)
  }
})

test('a shard that knows fewer disks than the client gets fewer blocks, and never the same request for ever', async () => {
  const path = await DataPath.start({ services: 3 })
  const [disk] = path.known.values()
  assert.ok(disk !== undefined)
  const unknown = (disk.disk + 1) as typeof disk.disk
  path.known.set(unknown, { ...disk, disk: unknown, domain: 'a rack that the shard has not heard of' })
  const bytes = madeUp(100_000)
  const at = await path.construct()
  const { data, parity, isDegraded } = await path.write(at, 0, bytes, 2, 2)
  assert.deepEqual([data, parity, isDegraded], [1, 2, true])
  assert.deepEqual(await path.read(at.file), bytes)
  const form = { data: 2, parity: 2, class: 2, stripes: 1, isDegraded: false, isSingleCopy: false }
  const stubborn = path.writer.write({ ...(await path.construct()), offset: 0, bytes, choose: () => form })
  await assert.rejects(path.until(stubborn), /Broken invariant: a span has no more blocks than the shard has disks for/)
})

test('a receipt that is not its block’s is refused, and the span written once more', async () => {
  const path = await DataPath.start({ services: 3 })
  let forged = 0
  path.world.network.fate = (_, to, frame) => {
    const isReceipt = to === 'client' && frame[0] === 2 && frame.readUInt16LE(2) === blockMessages.write.kind
    if (isReceipt && frame.length === HEADER_BYTES + 16 && forged < 1) {
      forged++
      frame[HEADER_BYTES] = (frame[HEADER_BYTES] ?? 0) ^ 1
    }
    return 'arrives'
  }
  const bytes = madeUp(100_000)
  const { file, span } = await path.file(bytes, 2, 1)
  assert.equal(forged, 1)
  assert.equal(span.isCertified, true)
  assert.deepEqual(await path.read(file), bytes)
  assert.ok((await scratchNotes(path)).includes('given-up span'))
})

test('a disk that always gives wrong receipts ends the write after five attempts, with nothing certified', async () => {
  const path = await DataPath.start({ services: 3 })
  path.world.network.fate = (from, to, frame) => {
    if (from === 'block1' && to === 'client' && frame[0] === 2 && frame.length === HEADER_BYTES + 16) {
      frame[HEADER_BYTES] = (frame[HEADER_BYTES] ?? 0) ^ 1
    }
    return 'arrives'
  }
  const at = await path.construct()
  assert.equal(await codeOf(path.write(at, 0, madeUp(100_000), 2, 1)), 'RECEIPT_REFUSED')
  assert.deepEqual(await path.spans(at), [])
  assert.equal((await scratchNotes(path)).filter((note) => note === 'given-up span').length, 5)
})

test('what one service is sent at a time is bounded, and more waits its turn', async () => {
  const path = await DataPath.start({ services: 1, writeBytesMax: 150_000 })
  let most = 0
  const server = path.services[0]?.process.running?.server
  assert.ok(server !== undefined)
  path.world.network.fate = () => {
    most = Math.max(most, server.writeBytes)
    return 'arrives'
  }
  const files: WrittenFile[] = []
  for (let count = 0; count < 6; count++) files.push(await path.construct())
  const bytes = madeUp(100_000)
  const form = { data: 1, parity: 0, class: 2, stripes: 1, isDegraded: false, isSingleCopy: true }
  await path.until(Promise.all(files.map((at) => path.writer.write({ ...at, offset: 0, bytes, choose: () => form }))))
  assert.ok(most > 0 && most <= 150_000, `${most} bytes at once`)
  for (const { file } of files) assert.deepEqual(await path.read(file), bytes)
})

test('a block service answers for its own disks only, and checks and erases blocks', async () => {
  const path = await DataPath.start({ services: 2 })
  const { span } = await path.file(madeUp(10_000), 1, 1)
  const block = span.blocks?.blocks[0]
  assert.ok(block !== undefined)
  const target = diskTarget(path.disks, block.disk)
  const options = { deadlineMs: 10_000 }
  const facts = { disk: block.disk, block: block.block }
  const check = (disk: typeof block.disk): Promise<unknown> =>
    path.until(path.blocks.ask(target, blockMessages.check, { ...facts, disk }, options))
  assert.deepEqual(await check(block.disk), { outcome: 'whole', size: 12_288, crc: block.cells[0], pages: [] })
  assert.equal(await codeOf(check((block.disk + 1) as typeof block.disk)), 'DISK_NOT_FOUND')
  const permit = Buffer.alloc(16)
  const erase = path.until(path.blocks.ask(target, blockMessages.erase, { ...facts, permit }, options))
  assert.equal(await codeOf(erase), 'BLOCK_REFUSED')
  const { disks } = await path.until(path.blocks.ask(target, blockMessages.disks, {}, options))
  assert.deepEqual(
    disks.map(({ disk, status }) => [disk, status]),
    [[block.disk, 'serving']],
  )
  const held = path.holder(span, 0)
  const bytes = held.service.files().bytesOf(held.path)
  assert.ok(bytes !== undefined)
  bytes[5000] = (bytes[5000] ?? 0) ^ 1
  assert.deepEqual(await check(block.disk), { outcome: 'bad', size: 0, crc: 0, pages: [1] })
})
