/**
 * The bucket that every mount of a run works on: `eider serve s3` over a directory of this machine, behind the latency proxy, each in
 * a process of its own. Objects can be laid out and looked for on the disk behind, without a request.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, statfsSync, writeSync } from 'node:fs'
import { get } from 'node:http'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'

export const KEYS = { accessKey: 'EIDERBENCH', secretKey: 'eider-bench-secret' }

const MEMORY = '/dev/shm'
const MEMORY_BYTES_MIN = 8 * 2 ** 30

/** `puts`: only what writes waits, for as long as by default, and no connection is bounded. */
export type Latency = 'default' | 'none' | 'puts'
export type Counts = Readonly<Record<string, number>>

export class FarBucket {
  readonly name: string
  /** What is in the bucket, as files. */
  readonly directory: string
  readonly endpoint: string
  /** The same bucket without the proxy before it. */
  readonly near: string
  readonly #scratch: string
  readonly #processes: readonly ChildProcess[]

  private constructor(
    name: string,
    scratch: string,
    directory: string,
    port: number,
    nearPort: number,
    processes: readonly ChildProcess[],
  ) {
    this.name = name
    this.#scratch = scratch
    this.directory = directory
    this.endpoint = `http://127.0.0.1:${port}`
    this.near = `http://127.0.0.1:${nearPort}`
    this.#processes = processes
  }

  static async start(latency: Latency): Promise<FarBucket> {
    // In memory, where there is room: the disk behind a far store is not this machine's, and the mounts have theirs to themselves.
    const scratch = mkdtempSync(join(roomIn(MEMORY) > MEMORY_BYTES_MIN ? MEMORY : tmpdir(), 'eider-bench-bucket-'))
    const root = join(scratch, 'data')
    const directory = join(root, 'bucket')
    mkdirSync(directory, { recursive: true })
    const gateway = server('#test/servers/gateway-process.ts', [
      ...[root, join(scratch, 'uploads'), KEYS.accessKey, KEYS.secretKey],
    ])
    const nearPort = await portOf(gateway)
    const proxy = server('#test/servers/latency-proxy.ts', [String(nearPort), latency])
    return new FarBucket('bucket', scratch, directory, await portOf(proxy), nearPort, [proxy, gateway])
  }

  /** Requests by kind since the last call, and their number in all. */
  async takeCounts(): Promise<{ readonly byKind: Counts; readonly total: number }> {
    const [response] = (await once(get(`${this.endpoint}/.reset`, { agent: false }), 'response')) as [
      NodeJS.ReadableStream,
    ]
    const byKind = JSON.parse(await text(response)) as Counts
    return { byKind, total: Object.values(byKind).reduce((sum, count) => sum + count, 0) }
  }

  /** Lays an object out, with bytes that no compression or sparse file makes cheaper. */
  lay(path: string, bytes: number): void {
    const file = join(this.directory, path)
    mkdirSync(dirname(file), { recursive: true })
    const fd = openSync(file, 'w')
    const block = noise(Math.min(bytes, 1 << 20))
    for (let at = 0; at < bytes; at += block.length) {
      // No two blocks are the same.
      if (block.length >= 4) block.writeInt32LE(at | 0, 0)
      writeSync(fd, block, 0, Math.min(block.length, bytes - at))
    }
    closeSync(fd)
  }

  stop(): void {
    for (const child of this.#processes) child.kill()
    rmSync(this.#scratch, { recursive: true, force: true })
  }
}

function roomIn(directory: string): number {
  try {
    const { bavail, bsize } = statfsSync(directory)
    return bavail * bsize
  } catch {
    // There is none on this machine.
    return 0
  }
}

/** Bytes that look like nothing in particular, always the same. */
export function noise(length: number): Buffer {
  const bytes = Buffer.alloc(length)
  for (let at = 0; at + 4 <= length; at += 4) bytes.writeInt32LE(Math.imul(at, 0x9e3779b1), at)
  return bytes
}

function server(program: string, args: readonly string[]): ChildProcess {
  return spawn(process.execPath, [fileURLToPath(import.meta.resolve(program)), ...args], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
}

async function portOf(child: ChildProcess): Promise<number> {
  if (child.stdout === null) throw new Error('the server has no output')
  const [line] = (await once(child.stdout, 'data')) as [Buffer]
  return Number(line.toString())
}
