/**
 * The programs that are compared: `eider sync` as the bundle runs it, and Debian's rsync, rclone, s3cmd, awscli and lsyncd, each with its own
 * defaults but for where it is said. None sees the settings of whoever runs the benchmark. With `EIDER_BENCH_PROFILE=DIRECTORY`
 * Eider runs from its sources and leaves CPU profiles there: figures of such a run are not to be compared.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { accessSync, chmodSync, constants, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { type FarBucket, KEYS } from '#bench/mount/far-bucket.ts'

export type Peer = 'rsync' | 'rclone' | 's3cmd' | 'aws' | 'lsyncd'

const BUNDLE = new URL('../../dist/main.js', import.meta.url).pathname
const SOURCES = new URL('../../src/main.ts', import.meta.url).pathname
/** Debian's, also where another one of the same name comes first in the path. */
const FOLDER = '/usr/bin'
/** A program that takes longer hangs, or is no rival. */
const END_MS_MAX = 600_000
const MEMORY_EVERY_MS = 10

const running = new Set<ChildProcess>()

/** Ends what a scenario left behind. */
export function endPrograms(): void {
  for (const { pid } of running) {
    try {
      // With what it has started: lsyncd's rsync would go on writing.
      if (pid !== undefined) process.kill(-pid, 'SIGKILL')
    } catch {
      // All of them are gone.
    }
  }
  running.clear()
}

export interface Ended {
  readonly ms: number
  /** The most memory that its own process had resident, without its children, in bytes. */
  readonly memoryBytes: number
  readonly stdout: string
}

/** Runs a program to its end. @throws Error where it fails */
export async function timed(program: string, args: readonly string[], home: string): Promise<Ended> {
  const begin = performance.now()
  const child = start(program, args, home)
  const late = setTimeout(() => child.kill('SIGKILL'), END_MS_MAX)
  let memoryBytes = 0
  const look = setInterval(() => {
    memoryBytes = Math.max(memoryBytes, peakBytes(child.pid))
  }, MEMORY_EVERY_MS)
  let stdout = ''
  let stderr = ''
  child.stdout?.on('data', (chunk: Buffer) => (stdout += chunk.toString()))
  child.stderr?.on('data', (chunk: Buffer) => (stderr = (stderr + chunk.toString()).slice(-2000)))
  let endedAt = Number.NaN
  child.on('exit', () => (endedAt = performance.now()))
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve))
  clearInterval(look)
  clearTimeout(late)
  running.delete(child)
  if (code !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${code}: ${stderr}${stdout.slice(-1000)}`)
  return { ms: endedAt - begin, memoryBytes, stdout }
}

function start(program: string, args: readonly string[], home: string): ChildProcess {
  mkdirSync(home, { recursive: true })
  const child = spawn(program, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    // A process group of its own, to be ended as a whole.
    detached: true,
    env: {
      PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
      HOME: home,
      LANG: 'C.UTF-8',
      XDG_STATE_HOME: join(home, 'state'),
      AWS_ACCESS_KEY_ID: KEYS.accessKey,
      AWS_SECRET_ACCESS_KEY: KEYS.secretKey,
      AWS_DEFAULT_REGION: 'us-east-1',
      AWS_EC2_METADATA_DISABLED: 'true',
      RCLONE_CONFIG: join(home, 'rclone.conf'),
    },
  })
  child.on('error', () => undefined)
  running.add(child)
  return child
}

/** VmHWM; 0 where the process is gone already. */
function peakBytes(pid: number | undefined): number {
  try {
    return Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) * 1024
  } catch {
    return 0
  }
}

/** The program's path, undefined where it is not installed. */
export function installed(peer: Peer): string | undefined {
  const path = join(FOLDER, peer)
  try {
    accessSync(path, constants.X_OK)
    return path
  } catch {
    return undefined
  }
}

/** A run of a peer; undefined where it is not installed. */
export function peerRun(peer: Peer, args: readonly string[], home: string): (() => Promise<number>) | undefined {
  const program = installed(peer)
  return program === undefined ? undefined : async () => (await timed(program, args, home)).ms
}

/** What a sync has told last. */
export interface Told {
  readonly event: string
  readonly phase?: string
  readonly sent?: number
  readonly removed?: number
  readonly attributesSet?: number
  readonly same?: number
  readonly failed?: number
  readonly watcher?: { readonly kind: string; readonly overflows: number }
}

function words(args: readonly string[], home: string): string[] {
  const profile = process.env['EIDER_BENCH_PROFILE']
  const program = profile === undefined ? [BUNDLE] : ['--cpu-prof', `--cpu-prof-dir=${profile}`, SOURCES]
  return [...program, 'sync', ...args, '--json', `--log=${join(home, 'log')}`]
}

/** `eider sync ARGS --once` to its end; what it told last is told. @throws Error where not all could be made equal */
export async function syncOnce(args: readonly string[], home: string): Promise<Ended & { readonly done: Told }> {
  const ended = await timed(process.execPath, words([...args, '--once'], home), home)
  const done = JSON.parse(ended.stdout.trim().split('\n').at(-1) ?? '{}') as Told
  if (done.event !== 'done' || done.failed !== 0) throw new Error(`eider did not do all: ${JSON.stringify(done)}`)
  return { ...ended, done }
}

/** A program that watches. */
export interface Watching {
  readonly pid: number
  /** Of Eider alone: what it has told last. */
  readonly told: Told | undefined
  stop(): Promise<void>
}

/** `eider sync ARGS`, when it follows its source. */
export async function startSync(args: readonly string[], home: string): Promise<Watching> {
  const child = start(process.execPath, words(args, home), home)
  let told: Told | undefined
  const ready = Promise.withResolvers<void>()
  let stderr = ''
  child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
  const late = setTimeout(
    () => ready.reject(new Error(`eider does not watch: ${JSON.stringify(told)}`)),
    END_MS_MAX / 10,
  )
  child.on('close', () => ready.reject(new Error(`eider ended before it watched: ${stderr}`)))
  if (child.stdout !== null) {
    createInterface({ input: child.stdout }).on('line', (line) => {
      told = JSON.parse(line) as Told
      if (told.phase === 'watching') ready.resolve()
    })
  }
  await ready.promise.finally(() => clearTimeout(late))
  return {
    pid: child.pid ?? 0,
    get told() {
      return told
    },
    stop: () => stopped(child),
  }
}

/** lsyncd, which sends each change by rsync at once; undefined where it is not installed. Ready when its first copy is over. */
export async function startLsyncd(source: string, target: string, home: string): Promise<Watching | undefined> {
  const program = installed('lsyncd')
  if (program === undefined || installed('rsync') === undefined) return undefined
  mkdirSync(home, { recursive: true })
  const config = join(home, 'lsyncd.lua')
  const log = join(home, 'lsyncd.log')
  writeFileSync(
    config,
    `settings { nodaemon = true, logfile = "${log}", maxProcesses = 1 }\n` +
      // Its default is to wait for 15 s; none is what suits it best here.
      `sync { default.rsync, source = "${source}/", target = "${target}/", delay = 0 }\n`,
  )
  const child = start(program, [config], home)
  while (!/Startup of .* finished/.test(readOrNothing(log))) {
    if (child.exitCode !== null) throw new Error(`lsyncd ended: ${readOrNothing(log)}`)
    await delay(20)
  }
  return { pid: child.pid ?? 0, told: undefined, stop: () => stopped(child) }
}

function readOrNothing(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

async function stopped(child: ChildProcess): Promise<void> {
  const end = new Promise((resolve) => child.once('close', resolve))
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGTERM')
  const late = setTimeout(() => child.kill('SIGKILL'), 30_000)
  await end
  clearTimeout(late)
  running.delete(child)
}

/** The bucket's URL for Eider, at that endpoint. */
export function bucketUrl({ name }: FarBucket, endpoint: string, prefix: string): string {
  return `s3://${name}/${prefix}?endpoint=${endpoint}&region=us-east-1&style=path`
}

/** A home with rclone's configuration, by which the bucket is at `far:NAME`. */
export function rcloneHome(scratch: string, endpoint: string): string {
  const home = mkdtempSync(join(scratch, 'rclone-'))
  const lines = [
    ...['[far]', 'type = s3', 'provider = Other', `endpoint = ${endpoint}`, 'region = us-east-1'],
    ...[`access_key_id = ${KEYS.accessKey}`, `secret_access_key = ${KEYS.secretKey}`, 'force_path_style = true', ''],
  ]
  writeFileSync(join(home, 'rclone.conf'), lines.join('\n'))
  return home
}

/** A home with s3cmd's configuration. */
export function s3cmdHome(scratch: string, endpoint: string): string {
  const home = mkdtempSync(join(scratch, 's3cmd-'))
  const { host } = new URL(endpoint)
  const config = join(home, '.s3cfg')
  const lines = [
    ...['[default]', `access_key = ${KEYS.accessKey}`, `secret_key = ${KEYS.secretKey}`, `host_base = ${host}`],
    ...[`host_bucket = ${host}`, 'use_https = False', 'signature_v2 = False', 'bucket_location = us-east-1', ''],
  ]
  writeFileSync(config, lines.join('\n'))
  chmodSync(config, 0o600)
  return home
}
