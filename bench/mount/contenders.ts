/**
 * The mounts that are compared: Eider, and Debian's s3fs and rclone, each with the settings that suit the scenario best. Each
 * is mounted afresh for a scenario, so that nothing is known and nothing cached but what the scenario says.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { unmountFuse } from '#os/fuse-unmount.ts'
import { mountsOf } from '#os/mount-table.ts'
import { type FarBucket, KEYS } from './far-bucket.ts'

export type ContenderName = 'eider' | 's3fs' | 'rclone'

/** What a scenario asks of a mount. */
export interface Wish {
  /** Keeps what was read on local disk. */
  readonly cache?: boolean
  /** Writes: for rclone the least cache that lets programs write. */
  readonly writes?: boolean
  /** More arguments of `eider mount`. */
  readonly eider?: readonly string[]
}

export interface Mounted {
  readonly directory: string
  /** Local, removed at the end; the cache is `cache` in it. */
  readonly scratch: string
  readonly pid: number
  unmount(): Promise<void>
}

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url))
const READY_MS_MAX = 20_000
const END_MS_MAX = 120_000

/** Mounts the bucket. */
export async function mountBy(name: ContenderName, bucket: FarBucket, scratch: string, wish: Wish): Promise<Mounted> {
  const own = mkdtempSync(join(scratch, `${name}-`))
  const directory = join(own, 'mnt')
  mkdirSync(directory)
  mkdirSync(join(own, 'cache'))
  const [program, args] = COMMANDS[name](bucket, own, directory, wish)
  const child = spawn(program, args, {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: {
      // Nothing of the settings of whoever runs this.
      PATH: process.env['PATH'],
      HOME: own,
      AWS_ACCESS_KEY_ID: KEYS.accessKey,
      AWS_SECRET_ACCESS_KEY: KEYS.secretKey,
      AWS_EC2_METADATA_DISABLED: 'true',
      XDG_STATE_HOME: join(own, 'state'),
      RCLONE_CONFIG: join(own, 'rclone.conf'),
    },
  })
  let told = ''
  child.stderr.on('data', (chunk: Buffer) => {
    told = (told + chunk.toString()).slice(-2000)
  })
  const deadline = performance.now() + READY_MS_MAX
  while (mountsOf(directory).length === 0) {
    if (child.exitCode !== null || performance.now() > deadline) {
      child.kill('SIGKILL')
      throw new Error(`${name} does not mount: ${told}`)
    }
    await delay(10)
  }
  // s3fs shows in the table before it answers.
  await answers(directory)
  return {
    directory,
    scratch: own,
    pid: child.pid ?? 0,
    unmount: async () => {
      await ended(name, child, directory)
      rmSync(own, { recursive: true, force: true })
    },
  }
}

type Line = readonly [program: string, args: string[]]
type Compose = (bucket: FarBucket, own: string, directory: string, wish: Wish) => Line

const COMMANDS: Readonly<Record<ContenderName, Compose>> = {
  eider: ({ name, endpoint }, own, directory, { cache = false, eider = [] }) => [
    process.execPath,
    [
      ...[MAIN, 'mount', `s3://${name}?endpoint=${endpoint}&region=us-east-1&style=path`, directory, '--foreground'],
      ...[`--staging=${join(own, 'staging')}`, '--log-level=warn'],
      ...(cache ? [`--cache=${join(own, 'cache')}`] : []),
      ...eider,
    ],
  ],
  s3fs: ({ name, endpoint }, own, directory, { cache = false }) => {
    const passwords = join(own, 'passwd')
    writeFileSync(passwords, `${KEYS.accessKey}:${KEYS.secretKey}`)
    chmodSync(passwords, 0o600)
    const options = [
      ...[`url=${endpoint}`, 'use_path_request_style', `passwd_file=${passwords}`, 'endpoint=us-east-1'],
      // Its own default of five parts at a time is of another decade; twenty is what it is usually set to.
      ...['parallel_count=20', 'multireq_max=20', 'enable_noobj_cache', `tmpdir=${own}`],
      ...(cache ? [`use_cache=${join(own, 'cache')}`] : []),
    ]
    return ['s3fs', [name, directory, '-f', '-o', options.join(',')]]
  },
  rclone: ({ name, endpoint }, own, directory, { cache = false, writes = false }) => {
    writeFileSync(
      join(own, 'rclone.conf'),
      [
        ...['[far]', 'type = s3', 'provider = Other', `endpoint = ${endpoint}`, 'region = us-east-1'],
        ...[
          `access_key_id = ${KEYS.accessKey}`,
          `secret_access_key = ${KEYS.secretKey}`,
          'force_path_style = true',
          '',
        ],
      ].join('\n'),
    )
    const mode = cache ? 'full' : writes ? 'writes' : 'off'
    return [
      'rclone',
      [
        ...['mount', `far:${name}`, directory, `--vfs-cache-mode=${mode}`, `--cache-dir=${join(own, 'cache')}`],
        // Uploads begin at close rather than five seconds later, as many at a time as there are writers.
        ...['--vfs-write-back=0s', '--transfers=16', '--s3-upload-concurrency=8', '--buffer-size=32M'],
        ...['--vfs-read-ahead=128M', '--dir-cache-time=5m', '--attr-timeout=1s', '--use-server-modtime'],
      ],
    ]
  },
}

async function answers(directory: string): Promise<void> {
  const child = spawn('stat', ['-c', '%s', directory], { stdio: 'ignore', timeout: READY_MS_MAX })
  await once(child, 'exit')
}

async function ended(name: ContenderName, child: ChildProcess, directory: string): Promise<void> {
  const exit = child.exitCode === null ? once(child, 'exit') : Promise.resolve()
  for (let tries = 0; tries < 20 && mountsOf(directory).length > 0; tries++) {
    await unmountFuse(directory).catch(() => delay(100))
  }
  if (mountsOf(directory).length > 0) await unmountFuse(directory, { lazy: true })
  const late = setTimeout(() => child.kill('SIGKILL'), END_MS_MAX)
  await exit
  clearTimeout(late)
  if (mountsOf(directory).length > 0) throw new Error(`${name} stays mounted on ${directory}`)
}

/** The largest resident size that a process has had, in bytes. */
export function peakMemory(pid: number): number {
  if (!existsSync(`/proc/${pid}/status`)) return Number.NaN
  return Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024
}
