/**
 * A mount of a store in memory, served by this process, with a cache: for tests that count what the kernel asks for. Programs
 * run on it in processes of their own, with a time limit, since the process that serves a mount must not use it.
 */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { countsBy } from '#base/metrics.ts'
import type { CacheKey, FileCache } from '#cache/file-cache.ts'
import { counting, type CountedStore } from '#mount/kernel-double.ts'
import { mountStore, type Mount, type MountOptions } from '#mount/mount.ts'
import { mountsOf } from '#os/mount-table.ts'
import { unmountFuse } from '#os/fuse-unmount.ts'
import { openMemoryStore } from '#store/memory-store.ts'
import { ANY, type Store } from '#store/store.ts'

import { start, type Outcome } from './memory-mount.ts'

export class CachedMount implements AsyncDisposable {
  readonly store: Store
  readonly scratch: string
  readonly directory: string
  readonly #counted: CountedStore
  readonly #mount: Mount
  #asked: ReadonlyMap<string, number> = new Map()

  private constructor(scratch: string, store: Store, counted: CountedStore, mount: Mount) {
    this.scratch = scratch
    this.directory = mount.directory
    this.store = store
    this.#counted = counted
    this.#mount = mount
  }

  /** Mounts; the cache stays the caller's. */
  static async start(
    cache: FileCache | undefined,
    { store = openMemoryStore(), ...options }: Partial<MountOptions> = {},
  ): Promise<CachedMount> {
    const scratch = mkdtempSync(join(tmpdir(), 'eider-cached-'))
    const directory = join(scratch, 'mnt')
    mkdirSync(directory)
    const counted = counting(store)
    const mount = await mountStore({
      store: counted.store,
      directory,
      readOnly: false,
      allowOther: true,
      stagingDirectory: join(scratch, 'staging'),
      validityMs: 3_600_000,
      ...(cache === undefined ? {} : { cache }),
      ...options,
    })
    const mounted = new CachedMount(scratch, store, counted, mount)
    await mounted.requests()
    return mounted
  }

  /** Puts a file into the store, and gives what it is called in a cache. */
  async put(path: string, bytes: Uint8Array): Promise<CacheKey> {
    const { version } = await this.store.put(path, bytes, { guard: ANY })
    return { path, version, size: bytes.length }
  }

  async content(path: string): Promise<Buffer> {
    return (await this.store.read(path)).bytes()
  }

  /** Starts a Python program with `m`, the mount, at hand. */
  python(code: string): Promise<Outcome> {
    return start(`exec python3 - <<'END'\nimport os, mmap, ctypes, sys, time\nm = '${this.directory}'\n${code}\nEND`)
      .outcome
  }

  /** Runs such a program, and gives what it printed. */
  async run(code: string): Promise<string> {
    const { code: status, stdout, stderr } = await this.python(code)
    assert.equal(status, 0, `${stdout}${stderr}`)
    return stdout.trim()
  }

  async sh(command: string): Promise<string> {
    const { code, stdout, stderr } = await start(`cd ${this.directory} && ${command}`).outcome
    assert.equal(code, 0, `${stdout}${stderr}`)
    return stdout.trim()
  }

  /** What the kernel has asked for since the last call, by operation. */
  async requests(): Promise<Record<string, number>> {
    const now = await countsBy('eider_fuse_requests_total')
    const before = this.#asked
    this.#asked = now
    const since = [...now].map(([name, count]): [string, number] => [name, count - (before.get(name) ?? 0)])
    return Object.fromEntries(since.filter(([, count]) => count > 0))
  }

  /** What the store was asked for since the last call. */
  stored(): Record<string, number> {
    return this.#counted.taken()
  }

  /** Where files lie that could not be stored. */
  get kept(): string[] {
    const directory = join(this.scratch, 'staging', 'conflicts')
    return readdirSync(directory).map((name) => join(directory, name))
  }

  keepAtOnce(): void {
    this.#mount.keepAtOnce()
  }

  /** Ends it under programs that use it. */
  async stop(): Promise<void> {
    await this.#mount.stop({ graceMs: 100, publishMs: 10_000 })
  }

  async unmount(): Promise<void> {
    if (mountsOf(this.directory).length > 0) await unmountFuse(this.directory)
    await this.#mount.ended
  }

  async [Symbol.asyncDispose](): Promise<void> {
    while (mountsOf(this.directory).length > 0) await unmountFuse(this.directory, { lazy: true, force: true })
    await this.#mount.ended
    rmSync(this.scratch, { recursive: true })
  }
}
