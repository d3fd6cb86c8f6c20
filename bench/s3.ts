/**
 * What a small S3 request costs the client in CPU, through the store (`stat`, `read`, `put`: signing, checksums, attributes
 * and metrics included) and through `@aws-sdk/client-s3`, in one process one after the other, against a server that answers
 * from memory in a process of its own.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { GetObjectCommand, HeadObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3'

import { openS3Store } from '#store/s3/s3-store.ts'
import { ANY } from '#store/store.ts'
import type { BenchRow, BenchTable } from './table.ts'

const IN_FLIGHT = 16
const WARM_UP = 3000
const REQUESTS = 10_000
const ROUNDS = 3

interface Cost {
  /** Microseconds of user and system time for one call. */
  readonly cpuUs: number
  readonly perSecond: number
}

/** Runs the benchmark. */
export async function run(): Promise<BenchTable> {
  const program = fileURLToPath(import.meta.resolve('#test/servers/canned-s3.ts'))
  const server = spawn(process.execPath, [program], { stdio: ['pipe', 'pipe', 'inherit'] })
  try {
    const [line] = (await once(server.stdout, 'data')) as [Buffer]
    return await compare(`http://127.0.0.1:${line.toString().trim()}`)
  } finally {
    server.kill()
  }
}

async function compare(endpoint: string): Promise<BenchTable> {
  const credentials = { accessKeyId: 'AKIAIOSFODNN7EXAMPLE', secretAccessKey: 'secret' }
  const store = await openS3Store('s3://bucket/prefix', { endpoint, credentials, region: 'us-east-1', probe: false })
  const sdk = new S3Client({ endpoint, credentials, region: 'us-east-1', forcePathStyle: true })
  const body = Buffer.alloc(1024, 'x')
  const attributes = { mode: 0o644, uid: 0, gid: 0, mtime: { seconds: 1_700_000_000, nanoseconds: 5 } }
  const target = { Bucket: 'bucket', Key: 'prefix/directory/file' }
  const path = 'directory/file'
  const pairs: [string, () => Promise<unknown>, () => Promise<unknown>][] = [
    [
      'PUT 1 KiB',
      () => store.put(path, body, { guard: ANY, attributes }),
      () => sdk.send(new PutObjectCommand({ ...target, Body: body, ContentType: 'application/octet-stream' })),
    ],
    [
      'GET 1 KiB',
      async () => (await store.read(path)).bytes(),
      async () => (await sdk.send(new GetObjectCommand(target))).Body?.transformToByteArray(),
    ],
    ['HEAD', () => store.stat(path), () => sdk.send(new HeadObjectCommand(target))],
  ]
  const rows: BenchRow[] = []
  for (const [name, ours, theirs] of pairs) {
    const mine = await cheapest(ours)
    const other = await cheapest(theirs)
    rows.push({
      name,
      figures: {
        'eider CPU µs': mine.cpuUs,
        'SDK CPU µs': other.cpuUs,
        'times less': other.cpuUs / mine.cpuUs,
        'eider /s': mine.perSecond,
        'SDK /s': other.perSecond,
      },
    })
  }
  await store.close()
  sdk.destroy()
  return {
    title: `S3 client: CPU of one small request, ${IN_FLIGHT} in flight`,
    rows,
    notes: [
      `Best of ${ROUNDS} rounds of ${REQUESTS} requests. CPU is user and system time of the client's process, all its threads.`,
      'Target: under 150 µs, several times less than the SDK.',
    ],
  }
}

/** The best of some rounds: what other work on the machine adds is left out. */
async function cheapest(call: () => Promise<unknown>): Promise<Cost> {
  await many(call, WARM_UP)
  let best: Cost | undefined
  for (let round = 0; round < ROUNDS; round++) {
    const startMs = performance.now()
    const before = process.cpuUsage()
    await many(call, REQUESTS)
    const { user, system } = process.cpuUsage(before)
    const cpuUs = (user + system) / REQUESTS
    const perSecond = REQUESTS / ((performance.now() - startMs) / 1000)
    if (best === undefined || cpuUs < best.cpuUs) best = { cpuUs, perSecond }
  }
  return best ?? { cpuUs: 0, perSecond: 0 }
}

async function many(call: () => Promise<unknown>, count: number): Promise<void> {
  let left = count
  const work = async (): Promise<void> => {
    while (left-- > 0) await call()
  }
  await Promise.all(Array.from({ length: IN_FLIGHT }, work))
}
