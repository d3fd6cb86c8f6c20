/**
 * Metadata: one shard process, all writes durable, asked by this process with 64 requests in flight; beside it, in turns, a Redis that syncs
 * each write, which has a key and a value of the same sizes set by as many connections. Whole files are created: inode, span, name.
 */
import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { join } from 'node:path'
import { inTurns, median, rowOf, type Run, type Scenario } from '#bench/sync/row.ts'
import type { BenchRow } from '#bench/table.ts'
import { ClusterClient } from '#cluster/client/cluster-client.ts'
import { startCoordinator } from '#cluster/daemons/coordinator-daemon.ts'
import { startRegistry } from '#cluster/daemons/registry-daemon.ts'
import { startShard } from '#cluster/daemons/shard-daemon.ts'
import { crc32c } from '#cluster/erasure/crc32c.ts'
import { ROOT_INODE, type InodeId } from '#cluster/inode-id.ts'
import { PAGE_ENTRIES_MAX, shardMessages } from '#cluster/shard/shard-messages.ts'
import { systemSurroundings } from '#cluster/system-surroundings.ts'
import { Caller, type Target } from '#cluster/wire/caller.ts'
import { ANYTHING } from '#cluster/wire/forms.ts'

const IN_FLIGHT = 64
const FILES = 100_000
const ROUNDS = 3
/** Of a small file. */
const BODY = Buffer.alloc(100, 'x')
const BODY_CRC = crc32c(BODY)
const ATTRIBUTES = { mode: 0o644, uid: 0, gid: 0, mtime: undefined, atime: undefined }
const DIRECTORIES = 10_000
/** Entries of the directory that others are compared with, as its size grows. */
const SIZES = [10, 1000, 100_000, 1_000_000, 10_000_000]
const SAMPLE = 20_000

/** What the cluster asks for. */
const STATS_MIN = 80_000
const CREATES_MIN = 20_000
const ENTRIES_MIN = 500_000
const DIRECTORIES_MIN = 2000
const OF_REDIS_MIN = 0.5

class ShardProcess {
  readonly target: Target
  readonly #child: ChildProcessWithoutNullStreams
  readonly #lines: AsyncIterator<string>

  private constructor(child: ChildProcessWithoutNullStreams, lines: AsyncIterator<string>, address: string) {
    this.#child = child
    this.#lines = lines
    this.target = { name: 'the shard', address: () => address }
  }

  static async start(data: string): Promise<ShardProcess> {
    mkdirSync(data, { recursive: true })
    const script = new URL('metadata/shard-process.ts', import.meta.url).pathname
    const child = spawn(process.execPath, [script, data], { stdio: 'pipe' })
    child.stderr.pipe(process.stderr)
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    const { value } = await lines.next()
    const { address } = JSON.parse(String(value)) as { address: string }
    return new ShardProcess(child, lines, address)
  }

  /** Microseconds of CPU time. */
  async cpuUs(): Promise<number> {
    this.#child.stdin.write('.')
    const { value } = await this.#lines.next()
    return (JSON.parse(String(value)) as { cpuUs: number }).cpuUs
  }

  async stop(): Promise<void> {
    const ended = new Promise((resolve) => this.#child.once('exit', resolve))
    this.#child.stdin.end()
    await ended
  }
}

/** Does something so often, with so much in flight; how many a second. */
async function rateOf(count: number, work: (index: number) => Promise<unknown>): Promise<number> {
  let next = 0
  const begun = performance.now()
  const worker = async (): Promise<void> => {
    while (next < count) await work(next++)
  }
  await Promise.all(Array.from({ length: IN_FLIGHT }, worker))
  return (count / (performance.now() - begun)) * 1000
}

/** A place that is not the next one, the same each time. */
function scattered(index: number, count: number): number {
  return (index * 7919) % count
}

class Files {
  readonly #caller: Caller
  readonly #target: Target
  readonly inodes: InodeId[] = []

  constructor(caller: Caller, target: Target) {
    this.#caller = caller
    this.#target = target
  }

  async create(name: string): Promise<void> {
    const request = { directory: ROOT_INODE, name, guard: ANYTHING, type: 'file', attributes: ATTRIBUTES } as const
    const body = { size: BODY.length, crc: BODY_CRC, bytes: BODY, xattrs: [] }
    const { inode } = await this.#caller.call(this.#target, shardMessages.create, { ...request, ...body })
    this.inodes.push(inode)
  }

  stat(index: number): Promise<unknown> {
    const inode = this.inodes[scattered(index, this.inodes.length)] ?? ROOT_INODE
    return this.#caller.call(this.#target, shardMessages.stat, { inode })
  }

  lookup(name: string): Promise<unknown> {
    return this.#caller.call(this.#target, shardMessages.lookup, { directory: ROOT_INODE, name })
  }

  /** Entries a second. */
  async list(): Promise<number> {
    const begun = performance.now()
    let [after, count] = ['', 0]
    for (;;) {
      const request = { directory: ROOT_INODE, after, limit: PAGE_ENTRIES_MAX, withStatus: false }
      const { entries, isLast } = await this.#caller.call(this.#target, shardMessages.list, request)
      count += entries.length
      after = entries.at(-1)?.name ?? after
      if (isLast) return (count / (performance.now() - begun)) * 1000
    }
  }
}

const REDIS_PORT = 26_379

async function startRedis(data: string): Promise<(() => void) | undefined> {
  if (spawnSync('redis-server', ['--version']).status !== 0) return undefined
  mkdirSync(data, { recursive: true })
  const words = ['--port', String(REDIS_PORT), '--bind', '127.0.0.1', '--dir', data, '--save', '']
  const child = spawn('redis-server', [...words, '--appendonly', 'yes', '--appendfsync', 'always'], { stdio: 'ignore' })
  while (spawnSync('redis-cli', ['-p', String(REDIS_PORT), 'ping']).status !== 0) {
    if (child.exitCode !== null) throw new Error(`redis-server ended by ${child.exitCode}`)
  }
  return () => child.kill('SIGTERM')
}

/** SETs a second, of as many keys and values of the same size. */
function redisRate(): number {
  const words = ['-p', String(REDIS_PORT), '-t', 'set', '-c', String(IN_FLIGHT), '-n', String(FILES)]
  const { stdout } = spawnSync('redis-benchmark', [...words, '-r', '1000000000', '-d', String(BODY.length), '--csv'], {
    encoding: 'utf8',
  })
  return Number(/"SET","([\d.]+)"/.exec(stdout)?.[1])
}

async function metadata({ scratch }: Run): Promise<BenchRow[]> {
  const stopRedis = await startRedis(join(scratch, 'redis'))
  const shard = await ShardProcess.start(join(scratch, 'shard'))
  const caller = new Caller(systemSurroundings())
  const files = new Files(caller, shard.target)
  let [round, cpuUs] = [0, 0]
  const figures = await inTurns(ROUNDS, {
    creates: async () => {
      const before = await shard.cpuUs()
      const prefix = `file-${round++}-`
      const rate = await rateOf(FILES, (index) => files.create(prefix + index))
      cpuUs = ((await shard.cpuUs()) - before) / FILES
      return rate
    },
    redis: async () => (stopRedis === undefined ? undefined : redisRate()),
    stats: () => rateOf(FILES, (index) => files.stat(index)),
    lookups: () => rateOf(FILES, (index) => files.lookup(`file-0-${scattered(index, FILES)}`)),
    entries: () => files.list(),
  })
  caller.close()
  await shard.stop()
  stopRedis?.()
  const creates = median(figures.creates) ?? Number.NaN
  const limit = (name: string, eider: number | undefined, other: number): BenchRow =>
    rowOf({ name, unit: 'a second', eider: eider ?? Number.NaN, other, otherName: 'aim', better: 'more', target: 1 })
  return [
    rowOf({
      name: 'creates of a file of 100 bytes, durable',
      unit: 'a second',
      eider: creates,
      other: median(figures.redis),
      otherName: 'SETs of Redis, appendfsync always',
      better: 'more',
      target: OF_REDIS_MIN,
      note: `${cpuUs.toFixed(0)} us of CPU each`,
    }),
    limit('the same', creates, CREATES_MIN),
    limit('stats', median(figures.stats), STATS_MIN),
    limit('lookups', median(figures.lookups), STATS_MIN),
    limit('entries listed', median(figures.entries), ENTRIES_MIN),
  ]
}

/** Directories in different parents, through the coordinator, in one process with the shards. */
async function coordinator({ scratch }: Run): Promise<BenchRow[]> {
  const onFailed = (error: Error): never => {
    throw error
  }
  const registry = await startRegistry({ data: join(scratch, 'registry'), listen: '127.0.0.1:0', onFailed })
  const common = { registry: registry.address, location: 'here', listen: '127.0.0.1:0', onFailed }
  const shards = await startShard({ ...common, data: join(scratch, 'shards'), first: 0, last: 255, reserveBytes: 0 })
  const coordinating = await startCoordinator({ ...common, data: join(scratch, 'coordinator') })
  const client = await ClusterClient.connect({ surroundings: systemSurroundings(), registry: registry.address })
  const attributes = { ...ATTRIBUTES, mode: 0o755 }
  const parents: InodeId[] = []
  await rateOf(IN_FLIGHT, async (index) => {
    parents.push((await client.makeDirectory({ directory: ROOT_INODE, name: `parent-${index}` }, attributes)).inode)
  })
  const figures = await inTurns(ROUNDS, {
    directories: () => {
      const suffix = performance.now()
      return rateOf(DIRECTORIES, (index) => {
        const directory = parents[index % parents.length] ?? ROOT_INODE
        return client.makeDirectory({ directory, name: `${index}-${suffix}` }, attributes)
      })
    },
  })
  client.close()
  for (const daemon of [coordinating, shards, registry]) await daemon.close()
  return [
    rowOf({
      name: `directories made in ${IN_FLIGHT} different ones, all processes in one`,
      unit: 'a second',
      eider: median(figures.directories) ?? Number.NaN,
      other: DIRECTORIES_MIN,
      otherName: 'aim',
      better: 'more',
      target: 1,
    }),
  ]
}

/** The same work by one process and by several, each with its part of the shards: files created in a directory of each. */
async function processes({ scratch }: Run): Promise<BenchRow[]> {
  const caller = new Caller(systemSurroundings())
  const rows: BenchRow[] = []
  for (const count of [1, 2, 4]) {
    const shards = await Promise.all(
      Array.from({ length: count }, (_, index) => ShardProcess.start(join(scratch, `${count}-${index}`))),
    )
    const files = shards.map(({ target }) => new Files(caller, target))
    const rate = await rateOf(FILES, (index) => files[index % count]?.create(`file-${index}`) ?? Promise.resolve())
    await Promise.all(shards.map((shard) => shard.stop()))
    rows.push({ name: `creates by ${count} shard processes, a second`, figures: { eider: rate } })
  }
  caller.close()
  return rows
}

/** How costs grow with the entries of a directory. */
async function growth({ scratch }: Run): Promise<BenchRow[]> {
  const shard = await ShardProcess.start(join(scratch, 'shard'))
  const caller = new Caller(systemSurroundings())
  const files = new Files(caller, shard.target)
  const rows: BenchRow[] = []
  let made = 0
  for (const size of SIZES) {
    await rateOf(size - made, (index) => files.create(`file-${made + index}`))
    made = size
    const creates = await rateOf(SAMPLE, (index) => files.create(`sample-${size}-${scattered(index, SAMPLE)}`))
    const stats = await rateOf(SAMPLE, (index) => files.stat(index))
    const lookups = await rateOf(SAMPLE, (index) => files.lookup(`file-${scattered(index, size)}`))
    const entries = await files.list()
    for (const [name, figure] of Object.entries({ creates, stats, lookups, 'entries listed': entries })) {
      const unit = 'a second'
      rows.push({ name: `${name} in a directory of ${size}, ${unit}`, figures: { eider: figure } })
    }
  }
  caller.close()
  await shard.stop()
  return rows
}

export const METADATA: readonly Scenario[] = [
  { name: 'metadata', run: metadata },
  { name: 'coordinator', run: coordinator },
  { name: 'processes', run: processes },
  { name: 'growth', run: growth },
]
