/** A mount, in a process of its own, of a directory whose store fails by chance: for tests of what programs see of that. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { unmountFuse } from '#os/fuse-unmount.ts'
import { mountsOf } from '#os/mount-table.ts'

const PROGRAM = fileURLToPath(new URL('./faulty-mount-child.ts', import.meta.url))
const END_MS_MAX = 30_000
/** What programs are told of a store that fails. */
const FAULTS: ReadonlySet<string> = new Set(['EIO', 'ETIMEDOUT', 'EAGAIN', 'EBUSY'])

export class FaultyMount implements AsyncDisposable {
  readonly directory: string
  readonly #scratch: string
  readonly #seed: number
  #child: ChildProcess | undefined
  #said = ''

  private constructor(scratch: string, seed: number) {
    this.#scratch = scratch
    this.directory = join(scratch, 'mnt')
    this.#seed = seed
  }

  /** Mounts an empty directory; the store works until `calm(false)`. */
  static async start(seed: number): Promise<FaultyMount> {
    const scratch = mkdtempSync(join(tmpdir(), 'eider-faulty-'))
    for (const name of ['store', 'mnt']) mkdirSync(join(scratch, name))
    const mount = new FaultyMount(scratch, seed)
    await mount.#mount()
    return mount
  }

  isFault(error: string): boolean {
    return FAULTS.has(error)
  }

  /** Lets the store work, or fail again. */
  async calm(isCalm: boolean): Promise<void> {
    const child = this.#child
    assert.ok(child !== undefined, 'it is mounted')
    child.send(isCalm)
    await this.#message(child)
  }

  /** Ends the mount, which must have stored all, and mounts anew. */
  async remount(): Promise<void> {
    const child = this.#child
    assert.ok(child !== undefined, 'it is mounted')
    const exit = once(child, 'exit')
    child.kill('SIGTERM')
    assert.deepEqual(await exit, [0, null], this.#said)
    assert.deepEqual(readdirSync(join(this.#scratch, 'staging', 'conflicts')), [], 'nothing could not be stored')
    await this.#mount()
  }

  async #mount(): Promise<void> {
    const places = ['store', 'mnt', 'staging'].map((name) => join(this.#scratch, name))
    const child = spawn(process.execPath, [PROGRAM, ...places, String(this.#seed)], {
      cwd: '/',
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    })
    this.#child = child
    child.stderr?.on('data', (chunk: Buffer) => (this.#said += chunk.toString()))
    await this.#message(child)
  }

  async #message(child: ChildProcess): Promise<void> {
    const over = new AbortController()
    const ended = once(child, 'exit', { signal: over.signal }).then(([code]) =>
      assert.fail(`it ended with ${code}: ${this.#said}`),
    )
    ended.catch(() => undefined)
    await Promise.race([once(child, 'message'), ended])
    over.abort()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const child = this.#child
    if (mountsOf(this.directory).length > 0) await unmountFuse(this.directory, { lazy: true, force: true })
    if (child !== undefined && child.exitCode === null && child.signalCode === null) {
      const exit = once(child, 'exit')
      child.kill('SIGTERM')
      const patience = setTimeout(() => child.kill('SIGKILL'), END_MS_MAX)
      await exit
      clearTimeout(patience)
    }
    while (mountsOf(this.directory).length > 0) await unmountFuse(this.directory, { lazy: true, force: true })
    rmSync(this.#scratch, { recursive: true, force: true })
  }
}
