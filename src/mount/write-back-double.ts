/**
 * For tests of write-back: a machine on which one mount after another has the same staging disk and the same endpoint, and
 * dies as a process does. Not part of the program.
 */
import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'

import { OperationError, type ErrorCode } from '#base/errors.ts'
import { openMemoryStore } from '#store/memory-store.ts'
import type { Store } from '#store/store.ts'

import { KernelDouble, replacing, type Gate } from './kernel-double.ts'
import { Journal } from './journal.ts'
import type { StoreFileSystemOptions } from './mount-state.ts'
import { StagingArea } from './staging.ts'
import { StoreFileSystem } from './store-file-system.ts'

/** A store that answers, has gone, or takes puts and loses their answers; and what each mount sees of it. */
class Endpoint {
  readonly inner = openMemoryStore()
  mode: 'up' | 'down' | 'losing' = 'down'
  /** What every put is answered with. */
  refusal: ErrorCode | undefined
  /** What holds up a put before it takes effect. */
  gate: Gate | undefined
  puts = 0
  /** The next rename or removal is done, or not, and from then on nobody answers. */
  cut: 'after' | 'before' | undefined

  async #cutting<T>(work: () => Promise<T>): Promise<T> {
    const { cut } = this
    if (cut === undefined) return work()
    if (cut === 'after') await work()
    this.cut = undefined
    this.mode = 'down'
    throw new OperationError('STORE_TIMEOUT', 'Cannot do it: no answer')
  }

  /** What one process sees, until it dies. */
  seenBy(process: { dead: boolean }): Store {
    const check = (): void => {
      if (process.dead || this.mode === 'down') throw new OperationError('STORE_UNAVAILABLE', 'Cannot reach it')
    }
    return replacing(this.inner, {
      stat: async (path, options) => {
        check()
        return this.inner.stat(path, options)
      },
      read: async (path, options) => {
        check()
        return this.inner.read(path, options)
      },
      rename: async (...args) => {
        check()
        return this.#cutting(() => this.inner.rename(...args))
      },
      remove: async (...args) => {
        check()
        return this.#cutting(() => this.inner.remove(...args))
      },
      put: async (path, source, options) => {
        check()
        if (this.refusal !== undefined) throw new OperationError(this.refusal, 'Cannot put: refused')
        await this.gate?.pass()
        this.puts++
        const entry = await this.inner.put(path, source, options)
        if (this.mode === 'losing') throw new OperationError('STORE_TIMEOUT', 'Cannot put: no answer')
        return entry
      },
    })
  }
}

type Options = Partial<StoreFileSystemOptions> & { readonly wholeBytesMax?: number; readonly starts?: boolean }

/** One process after another over one endpoint and one staging disk. */
export class Machine implements AsyncDisposable {
  readonly endpoint = new Endpoint()
  readonly staging = mkdtempSync(join(tmpdir(), 'eider-journal-'))
  readonly #options: Options
  #process: { dead: boolean; fs: StoreFileSystem; ending: AbortController } | undefined
  kernel!: KernelDouble

  constructor(options: Options = {}) {
    this.#options = options
  }

  get fs(): StoreFileSystem {
    assert.ok(this.#process !== undefined)
    return this.#process.fs
  }

  async boot(options: Options = {}): Promise<this> {
    const { wholeBytesMax, starts = true, ...others } = { ...this.#options, ...options }
    const ending = new AbortController()
    const process = { dead: false }
    const store = this.endpoint.seenBy(process)
    const staging = await StagingArea.open(this.staging, wholeBytesMax)
    const writeBack = others.writeBack ?? true
    const journal = Journal.open(staging, store.url, writeBack)
    const fs = new StoreFileSystem({
      ...{ store, staging, validityMs: 1000, readOnly: false, owner: { uid: 0, gid: 0 }, signal: ending.signal },
      ...others,
      ...(journal === undefined ? {} : { journal, writeBack }),
    })
    fs.replay()
    if (starts) fs.start()
    this.#process = Object.assign(process, { fs, ending })
    this.kernel = new KernelDouble(fs)
    return this
  }

  /** The process dies, and the disk has what it has. */
  async crash(): Promise<this> {
    const process = this.#process
    if (process === undefined || process.dead) return this
    process.dead = true
    process.ending.abort()
    await process.fs.closeJournal()
    return this
  }

  get journal(): string[] {
    const directory = join(this.staging, 'journal')
    return existsSync(directory) ? readdirSync(directory).sort() : []
  }

  get kept(): string[] {
    const directory = join(this.staging, 'conflicts')
    return readdirSync(directory).map((name) => readFileSync(join(directory, name), 'utf8'))
  }

  /** Resolves when nothing is ahead of the store. */
  async stored(): Promise<void> {
    this.endpoint.mode = 'up'
    await this.fs.publishAll()
    await settled(() => this.fs.status.dirtyFiles === 0)
    // A record that is written anew while its file is stored goes when it is synced.
    await settled(() => this.journal.length === 0)
  }

  async write(path: string, data: string): Promise<void> {
    await this.kernel.writeFile(path, data)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.crash()
    rmSync(this.staging, { recursive: true })
  }
}

export async function settled(condition: () => boolean): Promise<void> {
  for (let turns = 0; !condition(); turns++) {
    assert.ok(turns < 100_000, 'it settles')
    await setImmediate()
  }
}
