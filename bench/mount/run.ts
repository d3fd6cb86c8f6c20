/** What scenarios work with: the bucket, programs with a time limit, and the rows that they make. */
import { spawn } from 'node:child_process'
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { BenchRow } from '#bench/table.ts'
import { openS3Store } from '#store/s3/s3-store.ts'
import type { Store } from '#store/store.ts'
import { type ContenderName, type Mounted, mountBy, type Wish } from './contenders.ts'
import { type Counts, type FarBucket, KEYS } from './far-bucket.ts'

export interface Run {
  readonly bucket: FarBucket
  readonly scratch: string
}

export interface Scenario {
  readonly name: string
  readonly run: (run: Run) => Promise<BenchRow[]>
}

/** The bucket by the store's client alone, without a mount. */
export function openAlone({ bucket }: Run): Promise<Store> {
  return openS3Store(`s3://${bucket.name}`, {
    endpoint: bucket.endpoint,
    credentials: { accessKeyId: KEYS.accessKey, secretAccessKey: KEYS.secretKey },
    region: 'us-east-1',
    style: 'path',
  })
}

export interface Measured {
  readonly ms: number
  readonly requests: number
  readonly byKind: Counts
}

export const ALL = ['eider', 's3fs', 'rclone'] as const
/** A mount that takes longer for one step hangs, or is no rival. */
const STEP_MS_MAX = 180_000
const WORKER = fileURLToPath(import.meta.resolve('./worker.ts'))

/** Runs a program; milliseconds from its start to its end, or until it was given up. @throws Error where it fails. */
export async function timed(program: string, args: readonly string[]): Promise<number> {
  const begin = performance.now()
  const child = spawn(program, args, {
    stdio: ['ignore', 'ignore', 'pipe'],
    timeout: STEP_MS_MAX,
    killSignal: 'SIGKILL',
  })
  const [told, code] = await Promise.all([
    text(child.stderr),
    new Promise<number | null>((resolve) => child.on('close', resolve)),
  ])
  const ms = performance.now() - begin
  if (code === null && ms >= STEP_MS_MAX) return STEP_MS_MAX
  if (code !== 0) throw new Error(`${program} ${args[0] ?? ''} ended with ${code}: ${told.slice(-300)}`)
  return ms
}

/** Work of `worker.ts`; milliseconds of the work alone. */
export async function work(...args: readonly (string | number)[]): Promise<number> {
  const child = spawn(process.execPath, [WORKER, ...args.map(String)], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: STEP_MS_MAX,
    killSignal: 'SIGKILL',
  })
  const [line, told] = await Promise.all([text(child.stdout), text(child.stderr)])
  const ms = Number.parseFloat(line)
  if (Number.isNaN(ms)) throw new Error(`${args[0]} failed: ${told.slice(-300)}`)
  return ms
}

/** Mounts, runs `use` and counts its requests, unmounts. What fails is told and gives no figure. */
export async function withMount<T>(
  { bucket, scratch }: Run,
  name: ContenderName,
  wish: Wish,
  use: (mounted: Mounted, count: (step: () => Promise<number>) => Promise<Measured>) => Promise<T>,
): Promise<T | undefined> {
  const count = async (step: () => Promise<number>): Promise<Measured> => {
    await bucket.takeCounts()
    const ms = await step()
    const { total, byKind } = await bucket.takeCounts()
    return { ms, requests: total, byKind }
  }
  let mounted: Mounted | undefined
  try {
    mounted = await mountBy(name, bucket, scratch, wish)
    return await use(mounted, count)
  } catch (error) {
    process.stderr.write(`  ${name}: ${error instanceof Error ? error.message : String(error)}\n`)
    return undefined
  } finally {
    await mounted?.unmount()
  }
}

/** Waits until so many files and bytes lie under a directory, outside of any mount: then they are in the store. */
export async function untilStored(directory: string, files: number, bytes: number): Promise<void> {
  const deadline = performance.now() + STEP_MS_MAX
  for (;;) {
    const found = contentOf(directory)
    if (found.files >= files && found.bytes >= bytes) return
    if (performance.now() > deadline) {
      throw new Error(`${found.files} of ${files} files, ${found.bytes} of ${bytes} bytes came into the store`)
    }
    await delay(20)
  }
}

function contentOf(directory: string): { files: number; bytes: number } {
  let files = 0
  let bytes = 0
  let names: string[]
  try {
    names = readdirSync(directory, { recursive: true, encoding: 'utf8' })
  } catch {
    // Not there yet.
    return { files, bytes }
  }
  for (const name of names) {
    const found = statSync(join(directory, name), { throwIfNoEntry: false })
    if (found?.isFile() !== true) continue
    files++
    bytes += found.size
  }
  return { files, bytes }
}

/** `3 list, 40 get`. */
export function countsText(byKind: Counts): string {
  return Object.entries(byKind)
    .toSorted(([, a], [, b]) => b - a)
    .map(([kind, count]) => `${count} ${kind}`)
    .join(', ')
}

export interface Comparison {
  readonly name: string
  readonly unit: string
  readonly eider: number | undefined
  readonly s3fs?: number | undefined
  readonly rclone?: number | undefined
  readonly limit?: number | undefined
  /** What the ratio is of, and whether more is better. */
  readonly against: 'peers' | 'limit'
  readonly better: 'more' | 'less'
  readonly target: number
  readonly requests?: string | undefined
}

/** A row of the table: the ratio is over 1 where Eider is better than the best peer, or than the limit. */
export function rowOf(comparison: Comparison): BenchRow {
  const { name, unit, eider, s3fs, rclone, limit, against, better, target, requests } = comparison
  const peers = [s3fs, rclone].filter((figure) => figure !== undefined)
  const best = against === 'limit' ? limit : better === 'more' ? Math.max(...peers) : Math.min(...peers)
  const known = eider !== undefined && best !== undefined && Number.isFinite(best)
  const ratio = !known ? Number.NaN : better === 'more' ? eider / best : best / eider
  return {
    name: `${name}, ${unit}`,
    figures: {
      eider: eider ?? 'failed',
      ...('s3fs' in comparison ? { s3fs: s3fs ?? 'failed' } : {}),
      ...('rclone' in comparison ? { rclone: rclone ?? 'failed' } : {}),
      ...(limit === undefined ? {} : { limit }),
      ratio,
      target,
      met: ratio >= target ? 'yes' : 'no',
      ...(requests === undefined ? {} : { requests }),
    },
  }
}
