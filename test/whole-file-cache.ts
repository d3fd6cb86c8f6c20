/**
 * A disk cache for tests of what the mount does with one: whole files only, in a directory, with nothing checked and nothing
 * evicted, and a record of what was asked of it.
 */
import {
  closeSync,
  copyFileSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import type { CachedVersion, CacheKey, FileCache, FileCacheStatus } from '#cache/file-cache.ts'

export class WholeFileCache implements FileCache {
  readonly directory: string
  /** Names of the calls that change something, in order, with the path. */
  readonly calls: string[] = []
  readonly #files = new Map<string, string>()
  /** Versions held, and not released. */
  held = 0
  #count = 0

  constructor(disk = tmpdir()) {
    this.directory = mkdtempSync(join(disk, 'eider-cache-'))
  }

  get status(): FileCacheStatus {
    return {
      files: this.#files.size,
      bytes: 0,
      bytesMax: 0,
      hitBytes: 0,
      missBytes: 0,
      evictedBytes: 0,
      corruptBlocks: 0,
    }
  }

  put(key: CacheKey, bytes: Uint8Array): void {
    const path = join(this.directory, String(++this.#count))
    writeFileSync(path, bytes)
    this.#files.set(nameOf(key), path)
  }

  fileOf(key: CacheKey): string | undefined {
    return this.#files.get(nameOf(key))
  }

  hold(key: CacheKey): CachedVersion {
    this.held++
    return new Held(this, key)
  }

  moved(from: CacheKey, to: CacheKey): void {
    this.calls.push(`moved ${from.path} ${to.path}`)
    const path = this.#files.get(nameOf(from))
    if (path === undefined) return
    this.#files.delete(nameOf(from))
    this.#files.set(nameOf(to), path)
  }

  async adopt(key: CacheKey, fd: number): Promise<boolean> {
    this.calls.push(`adopt ${key.path}`)
    const path = join(this.directory, String(++this.#count))
    copyFileSync(`/proc/self/fd/${fd}`, path)
    this.#files.set(nameOf(key), path)
    return true
  }

  /** Forgets a file, and gives the name that it had. */
  drop(key: CacheKey): string | undefined {
    const path = this.#files.get(nameOf(key))
    this.#files.delete(nameOf(key))
    return path
  }

  /** Nothing to write out; `remove` takes it from the disk. */
  async close(): Promise<void> {}

  remove(): void {
    rmSync(this.directory, { recursive: true })
  }

  get names(): string[] {
    return readdirSync(this.directory)
  }
}

class Held implements CachedVersion {
  readonly key: CacheKey
  readonly #cache: WholeFileCache
  #fd: number | undefined

  constructor(cache: WholeFileCache, key: CacheKey) {
    this.#cache = cache
    this.key = key
  }

  get isWhole(): boolean {
    return this.#cache.fileOf(this.key) !== undefined
  }

  read(offset: number, length: number): Buffer | undefined {
    const fd = this.backing()
    if (fd === undefined) return undefined
    const bytes = Buffer.alloc(length)
    return bytes.subarray(0, readSync(fd, bytes, 0, length, offset))
  }

  missing(offset: number, length: number): { offset: number; length: number } | undefined {
    return this.isWhole ? undefined : { offset, length }
  }

  align(offset: number, length: number): { offset: number; length: number } {
    return { offset, length }
  }

  missed(): void {}

  async keep(): Promise<void> {}

  async verify(): Promise<boolean> {
    return this.isWhole
  }

  backing(): number | undefined {
    const path = this.#cache.fileOf(this.key)
    if (path === undefined) return undefined
    this.#fd ??= openSync(path, 'r')
    return this.#fd
  }

  take(name?: string): number | undefined {
    this.#cache.calls.push(`take ${this.key.path}`)
    const path = this.#cache.drop(this.key)
    if (path === undefined) return undefined
    const fd = openSync(path, 'r+')
    if (name === undefined) unlinkSync(path)
    else renameSync(path, name)
    return fd
  }

  release(): void {
    this.#cache.held--
    if (this.#fd !== undefined) closeSync(this.#fd)
    this.#fd = undefined
  }
}

function nameOf({ path, version, size }: CacheKey): string {
  return `${path}\0${version}\0${size}`
}
