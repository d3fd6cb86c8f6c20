/**
 * A bucket as a folder, as its users have it: `eider serve s3` over a directory, and `eider mount` of a bucket of it, each in
 * a process of its own, for programs that others wrote. Commands run outside of the mount and have a time limit, for a
 * process that serves a mount must not use it, and a mount that hangs must not hang the tests.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync } from 'node:fs'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'

import { unmountFuse } from '#os/fuse-unmount.ts'
import { mountsOf } from '#os/mount-table.ts'

const MAIN = fileURLToPath(new URL('../src/main.ts', import.meta.url))
const KEYS = { accessKey: 'EIDERTESTKEY', secretKey: 'eider/test+secret' }
const COMMAND_SECONDS = 120

export interface BucketMountOptions {
  /** More arguments of `eider mount`. */
  readonly mountArguments?: readonly string[]
  /** Where files being written lie; a directory of its own where absent. */
  readonly staging?: string
  /** Given the address of the gateway, the one that the mount uses for it; its own where absent. */
  readonly proxied?: (endpoint: string) => Promise<string>
}

export class BucketMount implements AsyncDisposable {
  /** Local, removed at the end. */
  readonly scratch: string
  /** The mount point. */
  readonly directory: string
  readonly staging: string
  readonly endpoint: string
  readonly #gateway: ChildProcess
  readonly #options: BucketMountOptions
  /** Where the mount finds the gateway. */
  readonly #mountEndpoint: string
  #server: ChildProcess | undefined
  #log = ''

  private constructor(
    scratch: string,
    gateway: ChildProcess,
    { endpoint, mountEndpoint }: { readonly endpoint: string; readonly mountEndpoint: string },
    options: BucketMountOptions,
  ) {
    this.scratch = scratch
    this.directory = join(scratch, 'mnt')
    this.staging = options.staging ?? join(scratch, 'staging')
    this.endpoint = endpoint
    this.#mountEndpoint = mountEndpoint
    this.#gateway = gateway
    this.#options = options
  }

  /** Starts both, with an empty bucket. */
  static async start(options: BucketMountOptions = {}): Promise<BucketMount> {
    const scratch = await mkdtemp(join(tmpdir(), 'eider-programs-'))
    await mkdir(join(scratch, 'data', 'bucket'), { recursive: true })
    await mkdir(join(scratch, 'mnt'))
    await mkdir(join(scratch, 'work'))
    const staging = join(scratch, 'uploads')
    const gateway = eiderChild(
      ['serve', 's3', join(scratch, 'data'), '--listen', '127.0.0.1:0', '--staging', staging],
      scratch,
    )
    const { endpoint } = await ready(gateway)
    assert.ok(endpoint !== undefined, 'the gateway tells its address')
    const mountEndpoint = (await options.proxied?.(endpoint)) ?? endpoint
    const mount = new BucketMount(scratch, gateway, { endpoint, mountEndpoint }, options)
    await mount.mount()
    return mount
  }

  /** What `eider mount` and others say goes here. */
  get log(): string {
    return this.#log
  }

  /** Local files of a test. */
  get work(): string {
    return join(this.scratch, 'work')
  }

  /** What the bucket is on the disk of the gateway. */
  get bucket(): string {
    return join(this.scratch, 'data', 'bucket')
  }

  async mount(): Promise<void> {
    const url = `s3://bucket?endpoint=${this.#mountEndpoint}&region=us-east-1&style=path`
    const given = this.#options.mountArguments ?? []
    // Tests that take the store away want to see what comes of it.
    const timeout = given.some((argument) => argument.startsWith('--io-timeout')) ? [] : ['--io-timeout', '20s']
    const more = ['--staging', this.staging, ...timeout, ...given]
    this.#server = eiderChild(['mount', url, this.directory, '-f', ...more], this.scratch)
    this.#server.stderr?.on('data', (chunk: Buffer) => (this.#log += chunk.toString()))
    await ready(this.#server)
  }

  async unmount(): Promise<void> {
    const server = this.#server
    assert.ok(server !== undefined, 'it is mounted')
    const exit = once(server, 'exit')
    server.kill('SIGTERM')
    assert.deepEqual(await exit, [0, null], this.#log)
    this.#server = undefined
  }

  /** SIGKILL: the mount point stays behind, dead. */
  async kill(): Promise<void> {
    const server = this.#server
    assert.ok(server !== undefined, 'it is mounted')
    const exit = once(server, 'exit')
    server.kill('SIGKILL')
    await exit
    this.#server = undefined
  }

  /** SIGKILL for the server of the bucket: the store is there no more. */
  async killGateway(): Promise<void> {
    const exit = once(this.#gateway, 'exit')
    this.#gateway.kill('SIGKILL')
    await exit
  }

  /** SIGSTOP for it: the store takes requests and answers none. */
  hangGateway(): void {
    this.#gateway.kill('SIGSTOP')
  }

  /** The exit code of the process that serves the mount, after the signal or when it ends by itself. */
  async ends(signal?: NodeJS.Signals): Promise<number | null> {
    const server = this.#server
    assert.ok(server !== undefined, 'it is mounted')
    if (signal !== undefined) server.kill(signal)
    if (server.exitCode === null && server.signalCode === null) await once(server, 'exit')
    return server.exitCode
  }

  async remount(): Promise<void> {
    await this.unmount()
    await this.mount()
  }

  /** Runs a shell script that must succeed; `$M` is the mount, `$W` a local directory, `$B` the bucket on disk. */
  async sh(script: string): Promise<string> {
    const { code, stdout, stderr } = await this.attempt(script)
    assert.equal(code, 0, `${script}\n--- said:\n${stdout}${stderr}\n--- the mount said:\n${this.#log}`)
    return stdout
  }

  async attempt(script: string): Promise<{ readonly code: number; readonly stdout: string; readonly stderr: string }> {
    const child = spawn('timeout', ['-k', '2', String(COMMAND_SECONDS), 'bash', '-euo', 'pipefail', '-c', script], {
      cwd: '/',
      env: {
        ...process.env,
        M: this.directory,
        W: this.work,
        B: this.bucket,
        HOME: this.work,
        LC_ALL: 'C.UTF-8',
        AWS_ACCESS_KEY_ID: KEYS.accessKey,
        AWS_SECRET_ACCESS_KEY: KEYS.secretKey,
        AWS_DEFAULT_REGION: 'us-east-1',
        AWS_EC2_METADATA_DISABLED: 'true',
        ENDPOINT: this.endpoint,
        GIT_CONFIG_NOSYSTEM: '1',
        GIT_AUTHOR_NAME: 'a',
        GIT_AUTHOR_EMAIL: 'a@example.org',
        GIT_COMMITTER_NAME: 'a',
        GIT_COMMITTER_EMAIL: 'a@example.org',
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const exited = once(child, 'exit') as Promise<[number | null]>
    const [[code], stdout, stderr] = await Promise.all([exited, text(child.stdout), text(child.stderr)])
    return { code: code ?? -1, stdout, stderr }
  }

  /** Fails unless the bucket, listed and read by awscli, is just what the mount shows. */
  async compareWithBucket(): Promise<void> {
    await this.sh(`
      rm -rf "$W/aws" && mkdir "$W/aws"
      aws --endpoint-url "$ENDPOINT" s3 sync --only-show-errors --no-follow-symlinks s3://bucket "$W/aws"
      cd "$M" && find . -type f -print0 | sort -z | xargs -0 -r sha256sum > "$W/mount.sums"
      cd "$W/aws"
      sed 's/^[^ ]*  //' "$W/mount.sums" > "$W/names"
      sha256sum -c --quiet "$W/mount.sums"
      # awscli sees symlinks as objects, and leaves directories out.
      cd "$M" && find . -type f -o -type l | sort > "$W/mount.names"
      cd "$W/aws" && find . -type f | sort > "$W/aws.names"
      diff "$W/mount.names" "$W/aws.names"
    `)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#server !== undefined && mountsOf(this.directory).length > 0) {
      await unmountFuse(this.directory, { lazy: true, force: true })
    }
    await ended(this.#server)
    while (mountsOf(this.directory).length > 0) await unmountFuse(this.directory, { lazy: true, force: true })
    await ended(this.#gateway)
    await rm(this.scratch, { recursive: true, force: true })
  }

  /** What lies in the staging directory, but for what was kept. */
  get stagedNames(): string[] {
    return existsSync(this.staging) ? readdirSync(this.staging).filter((name) => name !== 'conflicts') : []
  }

  get keptNames(): string[] {
    return readdirSync(join(this.staging, 'conflicts'))
  }
}

function eiderChild(args: readonly string[], scratch: string): ChildProcess {
  return spawn(process.execPath, [MAIN, ...args], {
    cwd: '/',
    env: {
      ...process.env,
      EIDER_ACCESS_KEY: KEYS.accessKey,
      EIDER_SECRET_KEY: KEYS.secretKey,
      AWS_ACCESS_KEY_ID: KEYS.accessKey,
      AWS_SECRET_ACCESS_KEY: KEYS.secretKey,
      AWS_EC2_METADATA_DISABLED: 'true',
      XDG_STATE_HOME: join(scratch, 'state'),
    },
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  })
}

/** What a child tells when it is ready. */
async function ready(child: ChildProcess): Promise<Readonly<Record<string, string>>> {
  let said = ''
  child.stderr?.on('data', (chunk: Buffer) => (said += chunk.toString()))
  const exited = once(child, 'exit').then(([code]) => assert.fail(`a child ended with ${String(code)}: ${said}`))
  const [message] = (await Promise.race([once(child, 'message'), exited])) as [
    { kind: string; facts: Record<string, string> },
  ]
  exited.catch(() => undefined)
  assert.equal(message.kind, 'ready', JSON.stringify(message))
  return message.facts
}

async function ended(child: ChildProcess | undefined): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
  const exit = once(child, 'exit')
  child.kill('SIGTERM')
  const patience = setTimeout(() => child.kill('SIGKILL'), 15_000)
  await exit
  clearTimeout(patience)
}
