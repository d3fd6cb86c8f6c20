/** Over real sockets and directories; what a worse world does to spans is in sim/data-path.test.ts. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, openSync, readSync, rmSync, truncateSync, writeSync, closeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'

import { BlockServer } from '#cluster/block/block-server.ts'
import { blockPath } from '#cluster/block/block-id.ts'
import { madeUp } from '#cluster/block/disk-fixture.ts'
import { Disk } from '#cluster/block/disk.ts'
import { LinuxBlockFiles } from '#cluster/block/linux-block-files.ts'
import type { DiskId } from '#cluster/block/permit.ts'
import { MemoryJournal } from '#cluster/journal/memory-journal.ts'
import { MemoryState } from '#cluster/journal/memory-state.ts'
import { shardMessages } from '#cluster/shard/shard-messages.ts'
import { ShardServer } from '#cluster/shard/shard-server.ts'
import { systemSurroundings } from '#cluster/system-surroundings.ts'
import { Caller } from '#cluster/wire/caller.ts'
import { EMPTY_POLICY, type Span } from '#cluster/wire/forms.ts'

import { BlockCaller } from './block-caller.ts'
import type { Disks, KnownDisk } from './disk-choice.ts'
import { chooseSpan } from './redundancy-choice.ts'
import { gathered, SpanReader } from './span-reader.ts'
import { SpanWriter } from './span-writer.ts'

const SERVICES = 3
const CLASS = 2

interface Written {
  readonly span: Span
  readonly buffers: () => AsyncGenerator<Buffer>
  readonly read: () => Promise<Buffer>
}

interface Cluster {
  readonly write: (bytes: Buffer) => Promise<Written>
  /** Of a block of a span. */
  readonly pathOf: (span: Span, index: number) => string
  /** Bytes of memory that is lent, in services and in the client. */
  readonly lent: () => number
}

/** Block services of one directory each, a shard and a client, all in this process, each with sockets of its own. */
async function cluster(context: TestContext): Promise<Cluster> {
  const root = mkdtempSync(join(tmpdir(), 'eider-spans-'))
  const surroundings = systemSurroundings()
  const known = new Map<DiskId, KnownDisk>()
  const ends: (() => Promise<void> | void)[] = []
  context.after(async () => {
    for (const end of ends.toReversed()) await end()
    rmSync(root, { recursive: true })
  })
  const keys = new Map<DiskId, Buffer>()
  const servers: BlockServer[] = []
  for (let index = 0; index < SERVICES; index++) {
    const directory = join(root, `disk${index}`)
    mkdirSync(directory)
    const disk = await Disk.open({ files: LinuxBlockFiles.open(directory), reserveBytes: 0 })
    const served = { disk, class: CLASS, domain: directory, path: directory, fileSystem: 0 }
    const server = new BlockServer({ surroundings, disks: [served] })
    servers.push(server)
    ends.push(() => server.close())
    const room = { capacityBytes: 1e12, usedBytes: 0, freeBytes: 1e12, blocks: 0 }
    const place = { address: await server.listen('127.0.0.1:0'), class: CLASS, domain: directory, location: '' }
    known.set(disk.id, { disk: disk.id, ...place, flags: [], failure: '', ...room })
    keys.set(disk.id, Buffer.from(disk.identity.key))
  }
  const onFailed = (error: unknown): never => {
    throw error
  }
  const state = { journal: new MemoryJournal(), stored: new MemoryState() }
  const shard = await ShardServer.open({ surroundings, ...state, first: 0, last: 0, onFailed })
  ends.push(() => shard.close())
  const listener = await surroundings.network.listen('127.0.0.1:0', (link) => shard.accept(link))
  ends.push(() => listener.close())
  const all = [...keys].map(([disk, key]) => ({ disk, key, class: CLASS, domain: known.get(disk)?.domain ?? '' }))
  await shard.learn({ all, writable: [{ shard: 0, class: CLASS, disks: [...keys.keys()] }] })
  const [caller, blocks] = [new Caller(surroundings), new BlockCaller(surroundings)]
  ends.push(() => caller.close())
  ends.push(() => blocks.close())
  const disks: Disks = { find: (disk) => known.get(disk), all: () => known.values(), refresh: async () => undefined }
  const target = { name: 'the shard', address: () => listener.address }
  const writer = new SpanWriter({ surroundings, caller, blocks, disks, shard: () => target })
  return {
    write: async (bytes) => {
      const attributes = { mode: 0o644, uid: 0, gid: 0, mtime: undefined, atime: undefined }
      const request = { type: 'file', attributes, note: '' } as const
      const at = await caller.call(target, shardMessages.construct, request)
      const choose = () => chooseSpan(EMPTY_POLICY, bytes.length, disks.all())
      const lent = await writer.lend(bytes.length, choose())
      lent.bytes.set(bytes)
      await writer.write({ ...at, offset: 0, bytes: lent.bytes, choose })
      lent.release()
      const { file } = at
      const spansFrom = (offset: number) => caller.call(target, shardMessages.spans, { file, offset, limit: 10 })
      const [span] = (await spansFrom(0)).spans
      assert.ok(span !== undefined)
      const buffers = (): AsyncGenerator<Buffer> => {
        const reader = new SpanReader({ surroundings, blocks, disks, location: '' })
        return reader.read({ file, spansFrom }, 0, bytes.length)
      }
      return { span, buffers, read: () => gathered(buffers()) }
    },
    lent: () => servers.reduce((sum, { readBytes }) => sum + readBytes, blocks.memory.bytesLent),
    pathOf: (span, index) => {
      const block = span.blocks?.blocks[index]
      assert.ok(block !== undefined)
      return join(known.get(block.disk)?.domain ?? '', blockPath(block.block))
    },
  }
}

function flipBit(path: string, at: number): void {
  const fd = openSync(path, 'r+')
  const byte = Buffer.alloc(1)
  readSync(fd, byte, 0, 1, at)
  writeSync(fd, Buffer.of((byte[0] ?? 0) ^ 16), 0, 1, at)
  closeSync(fd)
}

test('a file is read rightly while at most P blocks of a span are gone, cut or have flipped bits, and not beyond', async (context) => {
  const { write, pathOf } = await cluster(context)
  const damages = [
    (path: string) => rmSync(path),
    (path: string) => truncateSync(path, 100_000),
    (path: string) => flipBit(path, 1_234_567),
  ]
  for (const [index, damage] of damages.entries()) {
    const bytes = madeUp(5_000_001, index + 1)
    const { span, read } = await write(bytes)
    damage(pathOf(span, index))
    assert.ok((await read()).equals(bytes))
    // One that was read before is open still, and would outlive its name.
    truncateSync(pathOf(span, (index + 1) % 3), 100_000)
    await assert.rejects(read(), { code: 'SPANS_LOST' })
  }
})

test('the memory of what was read is given back, however the reading ends', { timeout: 60_000 }, async (context) => {
  const { write, pathOf, lent } = await cluster(context)
  const bytes = madeUp(20_000_001, 9)
  const { span, buffers, read } = await write(bytes)
  const expectAllBack = async (): Promise<void> => {
    while (lent() > 0) await nextTurn()
  }
  let most = 0
  let at = 0
  for await (const buffer of buffers()) {
    assert.ok(buffer.equals(bytes.subarray(at, at + buffer.length)))
    at += buffer.length
    most = Math.max(most, lent())
  }
  assert.equal(at, bytes.length)
  assert.ok(most > 1 << 20, 'blocks lie in memory that is used again')
  await expectAllBack()
  for await (const buffer of buffers()) {
    assert.ok(buffer.length > 0)
    break
  }
  await expectAllBack()
  flipBit(pathOf(span, 0), 5_000_000)
  for (let count = 0; count < 3; count++) assert.ok((await read()).equals(bytes))
  await expectAllBack()
  flipBit(pathOf(span, 1), 5_000_000)
  await assert.rejects(read(), { code: 'SPANS_LOST' })
  await expectAllBack()
})
