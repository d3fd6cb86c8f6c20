/**
 * For tests: a version of a file whose requests are counted, answered when the test says so, or at once, or by the clock of
 * the test; and a cache of it in memory. Not part of the program.
 */
import { assert } from '#base/assert.ts'
import { OperationError } from '#base/errors.ts'
import type { CachedVersion } from '#cache/file-cache.ts'
import type { Version } from '#store/store.ts'

import type { VersionSource } from './version-reader.ts'

export const KIB = 1024
export const MIB = 1024 * KIB
const BLOCK = 128 * KIB
/** A prime, so that no shift by blocks or pages goes unseen. */
const PERIOD = 65_537
const PATTERN = Buffer.from(Array.from({ length: PERIOD }, (_, index) => (index * 167 + (index >> 8) * 13) & 255))

/** What the file has from `offset`. */
export function content(offset: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length)
  for (let done = 0; done < length;) {
    done += PATTERN.copy(bytes, done, (offset + done) % PERIOD)
  }
  return bytes
}

export interface Asked {
  readonly offset: number
  readonly length: number
  readonly signal: AbortSignal
  readonly answer: () => void
  readonly fail: (error: Error) => void
}

export class SourceDouble implements VersionSource {
  readonly size: number
  readonly cached: CachedVersion | undefined
  /** All requests there were. */
  readonly asked: Asked[] = []
  /** Those that are not answered yet. */
  readonly open = new Set<Asked>()
  openBytes = 0
  openBytesMax = 0
  /** Told of each request; answers at once where absent. */
  onAsked: ((asked: Asked) => void) | undefined

  constructor(size: number, cached?: CachedVersion) {
    this.size = size
    this.cached = cached
  }

  get fetchedBytes(): number {
    return this.asked.reduce((sum, { length }) => sum + length, 0)
  }

  fetch(offset: number, length: number, signal: AbortSignal): Promise<Buffer> {
    assert(
      offset >= 0 && length > 0 && offset + length <= this.size,
      `a range lies within the file: ${offset} ${length}`,
    )
    return new Promise((resolve, reject) => {
      const end = (): boolean => {
        if (!this.open.delete(asked)) return false
        this.openBytes -= length
        return true
      }
      const asked: Asked = {
        offset,
        length,
        signal,
        answer: () => {
          if (end()) resolve(content(offset, length))
        },
        fail: (error) => {
          if (end()) reject(error)
        },
      }
      this.asked.push(asked)
      this.open.add(asked)
      this.openBytes += length
      this.openBytesMax = Math.max(this.openBytesMax, this.openBytes)
      signal.addEventListener('abort', () => asked.fail(new OperationError('ABORTED', 'Cannot read: given up')))
      if (this.onAsked === undefined) asked.answer()
      else this.onAsked(asked)
    })
  }
}

export class CacheDouble implements CachedVersion {
  readonly key: CachedVersion['key']
  readonly blocks = new Set<number>()
  readonly kept: { offset: number; length: number }[] = []
  isFull = false
  missedBytes = 0
  /** Blocks that say they are there, and are found wrong when they are read. */
  readonly corrupt = new Set<number>()
  /** Resolves a `keep`; at once where absent. */
  gate: Promise<void> | undefined
  isAsync = false

  constructor(size: number) {
    this.key = { path: 'file', version: 'v1' as Version, size }
  }

  get isWhole(): boolean {
    return this.blocks.size === Math.ceil(this.key.size / BLOCK) && this.corrupt.size === 0
  }

  read(offset: number, length: number): Buffer | undefined | Promise<Buffer | undefined> {
    for (let block = Math.floor(offset / BLOCK); block * BLOCK < offset + length; block++) {
      if (this.corrupt.delete(block)) this.blocks.delete(block)
      if (!this.blocks.has(block)) return undefined
    }
    return this.isAsync ? Promise.resolve(content(offset, length)) : content(offset, length)
  }

  missing(offset: number, length: number): { offset: number; length: number } | undefined {
    let from = -1
    let block = Math.floor(offset / BLOCK)
    for (; block * BLOCK < offset + length; block++) {
      if (!this.blocks.has(block)) {
        if (from === -1) from = block
      } else if (from !== -1) break
    }
    if (from === -1) return undefined
    return this.align(from * BLOCK, (block - from) * BLOCK)
  }

  align(offset: number, length: number): { offset: number; length: number } {
    const start = Math.floor(offset / BLOCK) * BLOCK
    const end = Math.min(this.key.size, Math.ceil((offset + length) / BLOCK) * BLOCK)
    return { offset: start, length: end - start }
  }

  async keep(offset: number, bytes: Uint8Array): Promise<void> {
    await this.gate
    this.kept.push({ offset, length: bytes.length })
    if (this.isFull) return
    assert(content(offset, bytes.length).equals(bytes), 'what is kept is what was fetched')
    const end = offset + bytes.length
    for (let block = Math.ceil(offset / BLOCK); block * BLOCK < end; block++) {
      if ((block + 1) * BLOCK <= end || end === this.key.size) this.blocks.add(block)
    }
  }

  missed(length: number): void {
    this.missedBytes += length
  }

  backing(): undefined {
    return undefined
  }

  verify(): Promise<boolean> {
    return Promise.resolve(this.corrupt.size === 0)
  }

  take(): undefined {
    return undefined
  }

  release(): void {
    // Nothing is held.
  }
}
