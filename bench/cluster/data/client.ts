/**
 * The measured client of the benchmark of data: writes and reads files at 4+2 over six block services, in this process or in processes
 * of their own, with a shard in this one. Takes commands, one JSON line each, and answers with one.
 */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { spawn } from 'node:child_process'

import { blockPath } from '#cluster/block/block-id.ts'
import type { DiskId } from '#cluster/block/permit.ts'
import { BlockCaller } from '#cluster/client/block-caller.ts'
import type { Disks, KnownDisk } from '#cluster/client/disk-choice.ts'
import { chooseSpan } from '#cluster/client/redundancy-choice.ts'
import { SpanReader } from '#cluster/client/span-reader.ts'
import { SpanWriter } from '#cluster/client/span-writer.ts'
import type { InodeId } from '#cluster/inode-id.ts'
import { MemoryJournal } from '#cluster/journal/memory-journal.ts'
import { MemoryState } from '#cluster/journal/memory-state.ts'
import { shardMessages } from '#cluster/shard/shard-messages.ts'
import { ShardServer } from '#cluster/shard/shard-server.ts'
import { keepFreedBuffers } from '#os/malloc.ts'
import { systemSurroundings } from '#cluster/system-surroundings.ts'
import { Caller, type Target } from '#cluster/wire/caller.ts'
import { EMPTY_POLICY } from '#cluster/wire/forms.ts'

import { serveDirectories, type ToldDisk } from './service.ts'

const SHARD = 0
const CLASS = 2
const PAGE = 1000
/** Of freed buffers. */
const KEPT_BYTES = 128 << 20
const SPAN_BYTES = 32 << 20

export type Command =
  | { readonly what: 'write'; readonly files: number; readonly bytes: number }
  | { readonly what: 'read' }
  /** Where the blocks are: paths by span and index. */
  | { readonly what: 'places' }

interface Written {
  readonly file: InodeId
  readonly bytes: number
}

async function startServices(how: string, directories: readonly string[]): Promise<ToldDisk[]> {
  if (how === 'one') return (await serveDirectories(directories)).told
  const service = new URL('service.ts', import.meta.url).pathname
  const told = await Promise.all(
    directories.map(async (directory) => {
      const child = spawn(process.execPath, [service, directory], { stdio: ['pipe', 'pipe', 'inherit'] })
      const [line] = (await once(child.stdout, 'data')) as [Buffer]
      return JSON.parse(line.toString()) as ToldDisk[]
    }),
  )
  return told.flat()
}

keepFreedBuffers(KEPT_BYTES)
const [how = 'one', ...directories] = process.argv.slice(2)
const told = await startServices(how, directories)
const surroundings = systemSurroundings()
const shard = await ShardServer.open({
  surroundings,
  journal: new MemoryJournal(),
  stored: new MemoryState(),
  first: 0,
  last: 0,
  onFailed: (error) => {
    throw error
  },
})
const listener = await surroundings.network.listen('127.0.0.1:0', (link) => shard.accept(link))
const all = told.map(({ disk, key, directory }) => {
  return { disk: disk as DiskId, key: Buffer.from(key, 'hex'), class: CLASS, domain: directory }
})
await shard.learn({ all, writable: [{ shard: SHARD, class: CLASS, disks: all.map(({ disk }) => disk) }] })
const known = new Map<DiskId, KnownDisk>(
  told.map(({ disk, address, directory }) => {
    const room = { capacityBytes: 2 ** 40, usedBytes: 0, freeBytes: 2 ** 40, blocks: 0 }
    const facts = { address, class: CLASS, domain: directory, location: '', flags: [], failure: '', ...room }
    return [disk as DiskId, { disk: disk as DiskId, ...facts }]
  }),
)
const disks: Disks = { find: (disk) => known.get(disk), all: () => known.values(), refresh: async () => undefined }
const caller = new Caller(surroundings)
const blocks = new BlockCaller(surroundings)
const target: Target = { name: 'the shard', address: () => listener.address }
const writer = new SpanWriter({ surroundings, caller, blocks, disks, shard: () => target })
const policy = { ...EMPTY_POLICY, spans: [{ bytesMax: SPAN_BYTES, data: 4, parity: 2 }] }
const source = randomBytes(SPAN_BYTES)
let written: Written[] = []

async function writeFile(bytes: number): Promise<Written> {
  const attributes = { mode: 0o644, uid: 0, gid: 0, mtime: undefined, atime: undefined }
  const request = { type: 'file', attributes, note: 'bench' } as const
  const at = await caller.call(target, shardMessages.construct, request)
  const choose = () => chooseSpan(policy, SPAN_BYTES, disks.all())
  for (let offset = 0; offset < bytes; offset += SPAN_BYTES) {
    const lent = await writer.lend(SPAN_BYTES, choose())
    // As bytes come from elsewhere.
    lent.bytes.set(source)
    await writer.write({ ...at, offset, bytes: lent.bytes.subarray(0, Math.min(SPAN_BYTES, bytes - offset)), choose })
    lent.release()
  }
  return { file: at.file, bytes }
}

async function readFile({ file, bytes }: Written): Promise<number> {
  const reader = new SpanReader({ surroundings, blocks, disks, location: '' })
  const spans = {
    file,
    spansFrom: (offset: number) => caller.call(target, shardMessages.spans, { file, offset, limit: PAGE }),
  }
  let count = 0
  for await (const buffer of reader.read(spans, 0, bytes)) count += buffer.length
  return count
}

async function placesOf({ file }: Written): Promise<string[][]> {
  const { spans } = await caller.call(target, shardMessages.spans, { file, offset: 0, limit: PAGE })
  const directoryOf = new Map(told.map(({ disk, directory }) => [disk, directory]))
  return spans.map((span) =>
    (span.blocks?.blocks ?? []).map(({ disk, block }) => `${directoryOf.get(disk)}/${blockPath(block)}`),
  )
}

async function answer(command: Command): Promise<unknown> {
  const begun = performance.now()
  const cpu = process.cpuUsage()
  if (command.what === 'places') return Promise.all(written.map(placesOf))
  if (command.what === 'write') {
    const { files, bytes } = command
    written = await Promise.all(Array.from({ length: files }, () => writeFile(bytes / files)))
  } else {
    const counts = await Promise.all(written.map(readFile))
    if (counts.some((count, index) => count !== written[index]?.bytes)) throw new Error('Not all of it was read')
  }
  const { user, system } = process.cpuUsage(cpu)
  return {
    seconds: (performance.now() - begun) / 1000,
    cpuSeconds: (user + system) / 1e6,
    rss: process.memoryUsage.rss(),
  }
}

process.stdout.write('"ready"\n')
for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await answer(JSON.parse(line) as Command))}\n`)
}
process.exit(0)
