/**
 * Block services, a shard and a client in one world, to write and read spans with: the real ones, each block service with disks in
 * memory. What the client knows of the disks is a table that a test can change.
 */
import assert from 'node:assert/strict'

import { setLogLevel } from '#base/log.ts'
import { BlockServer } from '#cluster/block/block-server.ts'
import { blockPath } from '#cluster/block/block-id.ts'
import { Disk, type DiskLimits } from '#cluster/block/disk.ts'
import type { MemoryBlockFiles } from '#cluster/block/memory-block-files.ts'
import type { DiskId } from '#cluster/block/permit.ts'
import { BlockCaller } from '#cluster/client/block-caller.ts'
import type { Disks, KnownDisk } from '#cluster/client/disk-choice.ts'
import { chooseSpan, type SpanForm } from '#cluster/client/redundancy-choice.ts'
import { gathered, SpanReader, type SpanReaderOptions, type SpanSource } from '#cluster/client/span-reader.ts'
import { SpanWriter } from '#cluster/client/span-writer.ts'
import type { InodeId } from '#cluster/inode-id.ts'
import { shardMessages } from '#cluster/shard/shard-messages.ts'
import { ShardServer } from '#cluster/shard/shard-server.ts'
import { Caller, type Target } from '#cluster/wire/caller.ts'
import { EMPTY_POLICY, type Policy, type Span } from '#cluster/wire/forms.ts'

import type { Machine, Process } from './process.ts'
import { World } from './world.ts'

const SHARD = 3
const CLASS = 2
const HOUR_US = 3_600_000_000
const MANY = 1000

export interface Service {
  readonly process: Process<BlockService>
  readonly files: () => MemoryBlockFiles
  readonly domain: string
}

interface BlockService {
  readonly server: BlockServer
  readonly disk: Disk
  readonly address: string
}

export interface WrittenFile {
  readonly file: InodeId
  readonly cookie: Buffer
}

export interface DataPathOptions {
  readonly services: number
  readonly seed?: number
  readonly diskBytes?: number
  readonly limits?: Partial<DiskLimits>
  readonly writeBytesMax?: number
  readonly reader?: Partial<SpanReaderOptions>
}

export class DataPath {
  readonly world: World
  readonly services: readonly Service[]
  readonly known = new Map<DiskId, KnownDisk>()
  readonly caller: Caller
  readonly blocks: BlockCaller
  readonly writer: SpanWriter
  readonly reader: SpanReader
  readonly disks: Disks
  readonly shardTarget: Target = { name: `shard ${SHARD}`, address: () => 'shard:1' }
  readonly #options: DataPathOptions

  private constructor(world: World, services: readonly Service[], client: Machine, options: DataPathOptions) {
    this.world = world
    this.services = services
    this.#options = options
    const { surroundings } = client
    this.caller = new Caller(surroundings)
    this.blocks = new BlockCaller(surroundings)
    this.disks = {
      find: (disk) => this.known.get(disk),
      all: () => this.known.values(),
      refresh: async () => undefined,
    }
    const { caller, blocks, disks } = this
    this.writer = new SpanWriter({ surroundings, caller, blocks, disks, shard: () => this.shardTarget })
    this.reader = new SpanReader({ surroundings, blocks, disks, location: 'here', ...options.reader })
  }

  static async start(options: DataPathOptions): Promise<DataPath> {
    setLogLevel('silent')
    const world = new World(options.seed ?? 1)
    const services = Array.from({ length: options.services }, (_, index): Service => {
      const name = `block${index}`
      const process = world.process(name, (machine) => serve(machine, options))
      return { process, domain: `rack ${index}`, files: () => process.disk.blocks('disk') }
    })
    const shard = world.process('shard', async ({ surroundings, disk, exit }) => {
      const server = await ShardServer.open({
        surroundings,
        journal: disk.journal('journal'),
        stored: disk.state('state'),
        first: 0,
        last: 255,
        onFailed: exit,
      })
      await surroundings.network.listen('shard:1', (link) => server.accept(link))
      return server
    })
    const client = world.process('client', (machine) => machine)
    const all = Promise.all([...services.map(({ process }) => process.start()), shard.start(), client.start()])
    await world.timeline.until('the start', all, HOUR_US)
    assert.ok(client.running !== undefined)
    const path = new DataPath(world, services, client.running, options)
    for (const service of services) path.#learn(service)
    await path.#teachShard(shard)
    return path
  }

  /** Lets time go on until the promise has settled. */
  until<T>(promise: Promise<T>): Promise<T> {
    return this.world.timeline.until('it', promise, HOUR_US)
  }

  pass(ms: number): Promise<void> {
    return this.until(this.world.timeline.delay(ms * 1000))
  }

  get nowMs(): number {
    return this.world.timeline.nowUs / 1000
  }

  async construct(): Promise<WrittenFile> {
    const attributes = { mode: 0o644, uid: 0, gid: 0, mtime: undefined, atime: undefined }
    const request = { type: 'file', attributes, note: 'test' } as const
    return this.until(this.caller.call(this.shardTarget, shardMessages.construct, request, { shard: SHARD }))
  }

  /** Writes a span at the end of a file, by a policy that asks for that redundancy. */
  write(at: WrittenFile, offset: number, bytes: Uint8Array, data: number, parity: number): Promise<SpanForm> {
    const policy: Policy = {
      ...EMPTY_POLICY,
      spans: [{ bytesMax: 1 << 30, data, parity }],
      stripeBytes: 65_536,
      inlineBytesMax: 0,
    }
    const choose = (avoided: Parameters<typeof chooseSpan>[3]): SpanForm =>
      chooseSpan(policy, bytes.length, this.disks.all(), avoided)
    return this.until(this.writer.write({ ...at, offset, bytes, choose }))
  }

  /** A new file with those bytes in one span. */
  async file(bytes: Uint8Array, data: number, parity: number): Promise<WrittenFile & { readonly span: Span }> {
    const at = await this.construct()
    await this.write(at, 0, bytes, data, parity)
    const [span] = await this.spans(at)
    assert.ok(span !== undefined)
    return { ...at, span }
  }

  async spans({ file }: WrittenFile): Promise<readonly Span[]> {
    return (await this.until(this.source(file).spansFrom(0))).spans
  }

  source(file: InodeId): SpanSource {
    return {
      file,
      spansFrom: (offset) =>
        this.caller.call(this.shardTarget, shardMessages.spans, { file, offset, limit: MANY }, { shard: SHARD }),
    }
  }

  read(file: InodeId, offset = 0, length = Number.MAX_SAFE_INTEGER - offset): Promise<Buffer> {
    return this.until(gathered(this.reader.read(this.source(file), offset, length)))
  }

  /** The service that has the `index`th block of a span, and the path of the block there. */
  holder(span: Span, index: number): { readonly service: Service; readonly path: string } {
    const block = span.blocks?.blocks[index]
    const service = this.services.find(({ process }) => process.running?.disk.id === block?.disk)
    assert.ok(block !== undefined && service !== undefined)
    return { service, path: blockPath(block.block) }
  }

  /** Starts a service again that has died. */
  async restart(service: Service): Promise<void> {
    await this.until(service.process.start())
    this.#learn(service)
  }

  /** Another answer to what is known of the disk of a service. */
  tell(service: Service, news: Partial<KnownDisk>): void {
    for (const [id, known] of this.known) if (known.domain === service.domain) this.known.set(id, { ...known, ...news })
  }

  #learn({ process, domain }: Service): void {
    assert.ok(process.running !== undefined)
    const { disk, address } = process.running
    const room = { capacityBytes: 1 << 30, usedBytes: 0, freeBytes: this.#options.diskBytes ?? 1 << 30, blocks: 0 }
    const facts = { disk: disk.id, address, class: CLASS, domain, location: 'here', flags: [], failure: '', ...room }
    this.known.set(disk.id, facts)
  }

  async #teachShard(shard: Process<ShardServer>): Promise<void> {
    const all = this.services.flatMap(({ process, domain }) => {
      const disk = process.running?.disk
      if (disk === undefined) return []
      return [{ disk: disk.id, key: Buffer.from(disk.identity.key), class: CLASS, domain }]
    })
    const writable = [{ shard: SHARD, class: CLASS, disks: all.map(({ disk }) => disk) }]
    assert.ok(shard.running !== undefined)
    await this.until(shard.running.learn({ all, writable }))
  }
}

async function serve({ host, surroundings, disk }: Machine, options: DataPathOptions): Promise<BlockService> {
  const opened = await Disk.open({
    files: disk.blocks('disk', options.diskBytes ?? 1 << 30),
    reserveBytes: 0,
    now: () => surroundings.clock.nowMs(),
    random: (count) => surroundings.chance.bytes(count),
    ...(options.limits === undefined ? {} : { limits: options.limits }),
  })
  const { writeBytesMax } = options
  const server = new BlockServer({
    surroundings,
    disks: [{ disk: opened, class: CLASS, domain: host, path: host, fileSystem: 0 }],
    ...(writeBytesMax === undefined ? {} : { writeBytesMax }),
  })
  return { server, disk: opened, address: await server.listen(`${host}:0`) }
}
