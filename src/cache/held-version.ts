/** One holder's view of a cached version; see the port. */
import { assert } from '#base/assert.ts'

import { alignToBlocks, type Range } from './blocks.ts'
import type { CachedFile } from './cached-file.ts'
import type { CachedVersion, CacheKey } from './file-cache.ts'

/** What the cache does for those who hold its versions. */
export interface Holder {
  release(file: CachedFile): void
  countRead(length: number, isHit: boolean): void
  keep(file: CachedFile, offset: number, bytes: Uint8Array): Promise<void>
  take(file: CachedFile, name: string | undefined): number | undefined
}

export class HeldVersion implements CachedVersion {
  readonly key: CacheKey
  readonly #file: CachedFile
  readonly #holder: Holder
  #isHeld = true

  constructor(key: CacheKey, file: CachedFile, holder: Holder) {
    this.key = key
    this.#file = file
    this.#holder = holder
  }

  get isWhole(): boolean {
    return this.#isHeld && this.#file.isWhole
  }

  read(offset: number, length: number, into?: Buffer): Buffer | undefined | Promise<Buffer | undefined> {
    assert(this.#isHeld, 'a cached version is read while it is held')
    const bytes = this.#file.read(offset, length, into)
    if (bytes instanceof Promise) return bytes.then((late) => this.#counted(late))
    return this.#counted(bytes)
  }

  missing(offset: number, length: number): Range | undefined {
    return this.#file.missing(offset, length)
  }

  align(offset: number, length: number): Range {
    return alignToBlocks(offset, length, this.#file.size)
  }

  missed(length: number): void {
    this.#holder.countRead(length, false)
  }

  async keep(offset: number, bytes: Uint8Array): Promise<void> {
    if (this.#isHeld) await this.#holder.keep(this.#file, offset, bytes)
  }

  backing(): number | undefined {
    return this.#isHeld ? this.#file.backing() : undefined
  }

  async verify(fd: number): Promise<boolean> {
    return this.#isHeld && (await this.#file.verify(fd))
  }

  take(name?: string): number | undefined {
    return this.#isHeld ? this.#holder.take(this.#file, name) : undefined
  }

  release(): void {
    assert(this.#isHeld, 'a cached version is released once')
    this.#isHeld = false
    this.#holder.release(this.#file)
  }

  #counted(bytes: Buffer | undefined): Buffer | undefined {
    if (bytes !== undefined) this.#holder.countRead(bytes.length, true)
    return bytes
  }
}
