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
const FAULTS: ReadonlySet<string> = new Set(['EIO', 'ETIMEDOUT', 'EBUSY'])

export class FaultyMount implements AsyncDisposable {
  readonly directory: string
  /** A put makes a file in its directory. */
  readonly keepsDirectoryTimes = false
  readonly keepsSetId = true
  readonly #scratch: string
  readonly #validityMs: number
  /** Faults that happened to the mounts before this one, and to this one so far. */
  #faultsBefore = 0
  #faults = 0
  #child: ChildProcess | undefined
  #said = ''

  private constructor(scratch: string, validityMs: number) {
    this.#scratch = scratch
    this.#validityMs = validityMs
    this.directory = join(scratch, 'mnt')
  }

  /** Mounts an empty directory; the store works until `calm(false)`. */
  static async start(validityMs: number): Promise<FaultyMount> {
    const scratch = mkdtempSync(join(tmpdir(), 'eider-faulty-'))
    for (const name of ['store', 'mnt']) mkdirSync(join(scratch, name))
    const mount = new FaultyMount(scratch, validityMs)
    await mount.#mount()
    return mount
  }

  /** So many calls of the store have failed until the last `calm`. */
  get faultCount(): number {
    return this.#faultsBefore + this.#faults
  }

  isFault(error: string): boolean {
    return FAULTS.has(error)
  }

  /** Lets the store work, or fail again; with a seed, by other faults. */
  async calm(calm: boolean, seed?: number): Promise<void> {
    const child = this.#child
    assert.ok(child !== undefined, 'it is mounted')
    child.send({ calm, seed })
    this.#faults = ((await this.#message(child)) as { faults: number }).faults
  }

  /**
   * Ends the mount, which must have stored all, and mounts anew. Nothing was kept aside: nobody else has written.
   */
  async remount(): Promise<void> {
    const child = this.#child
    assert.ok(child !== undefined, 'it is mounted')
    const exit = once(child, 'exit')
    child.kill('SIGTERM')
    const ended = await exit
    this.#faultsBefore += this.#faults
    this.#faults = 0
    // Also where something is wrong: what comes after takes other steps, or fewer.
    await this.#mount()
    assert.deepEqual(ended, [0, null], this.#said)
    const conflicts = join(this.#scratch, 'staging', 'conflicts')
    const kept = readdirSync(conflicts)
    for (const name of kept) rmSync(join(conflicts, name))
    assert.deepEqual(kept, [], `nothing is kept as if somebody else had written: ${this.#said}`)
  }

  async #mount(): Promise<void> {
    const places = ['store', 'mnt', 'staging'].map((name) => join(this.#scratch, name))
    const child = spawn(process.execPath, [PROGRAM, ...places, String(this.#validityMs)], {
      cwd: '/',
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    })
    this.#child = child
    child.stderr?.on('data', (chunk: Buffer) => (this.#said += chunk.toString()))
    await this.#message(child)
  }

  async #message(child: ChildProcess): Promise<unknown> {
    const over = new AbortController()
    const ended = once(child, 'exit', { signal: over.signal }).then(([code]) =>
      assert.fail(`it ended with ${code}: ${this.#said}`),
    )
    ended.catch(() => undefined)
    const [message] = (await Promise.race([once(child, 'message'), ended])) as [unknown]
    over.abort()
    return message
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
