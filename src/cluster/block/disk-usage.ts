/**
 * What a disk has and what it may still take. How many blocks there are is counted once after the start, directory by
 * directory while the disk serves, and kept from then on; how much room is left is what the file system says, less the
 * reserve and less what writes under way have yet to take.
 */
import { OperationError } from '#base/errors.ts'

import type { BlockFiles } from './block-files.ts'
import { BLOCK_DIRECTORIES, blockOfName } from './block-id.ts'

/** For how long the answer of the file system is believed: others may write to it. */
const ROOM_MS = 1000

export interface Usage {
  /** What the disk can hold in all: what it has and what is free. */
  readonly capacityBytes: number
  /** The lengths of all block files. */
  readonly usedBytes: number
  /** What can still be written. */
  readonly freeBytes: number
  readonly blocks: number
  /** Whether all blocks have been counted; until then `usedBytes` and `blocks` are too low. */
  readonly isCounted: boolean
}

export class DiskUsage {
  readonly #files: BlockFiles
  readonly #reserveBytes: number
  readonly #now: () => number
  #usedBytes = 0
  #blocks = 0
  /** How many directories are counted; of the next one, what has changed since its count began (0: removed). */
  #counted = 0
  #changed = new Map<string, number>()
  #systemFreeBytes = 0
  #askedAt = Number.NEGATIVE_INFINITY
  /** Of writes that have begun since the file system was asked or are under way. */
  #takenBytes = 0
  #underWayBytes = 0

  constructor(files: BlockFiles, reserveBytes: number, now: () => number) {
    this.#files = files
    this.#reserveBytes = reserveBytes
    this.#now = now
  }

  /** Counts what is there, until `isEnded` says otherwise. */
  async count(isEnded: () => boolean): Promise<void> {
    while (this.#counted < BLOCK_DIRECTORIES.length) {
      const directory = BLOCK_DIRECTORIES[this.#counted] ?? ''
      this.#changed = new Map()
      const found = await this.#files.list(directory)
      if (isEnded()) return
      const sizes = new Map<string, number>()
      for (const { name, bytes } of found) if (blockOfName(name) !== undefined) sizes.set(name, bytes)
      for (const [name, bytes] of this.#changed) sizes.set(name, bytes)
      for (const bytes of sizes.values()) this.#add(bytes)
      this.#counted++
    }
  }

  /** A block got its name, at `directory/name`. */
  added(path: string, bytes: number): void {
    this.#change(path, bytes, 1)
  }

  removed(path: string, bytes: number): void {
    this.#change(path, bytes, -1)
  }

  #change(path: string, bytes: number, sign: 1 | -1): void {
    const directory = Number.parseInt(path.slice(0, 2), 16)
    if (directory < this.#counted) this.#add(bytes, sign)
    else if (directory === this.#counted) this.#changed.set(path.slice(3), sign === 1 ? bytes : 0)
  }

  #add(bytes: number, sign = 1): void {
    if (bytes === 0) return
    this.#usedBytes += sign * bytes
    this.#blocks += sign
  }

  /**
   * Takes room for a file; what is given gives it back, once the file is written or gone.
   * @throws DISK_FULL
   */
  async take(action: string, bytes: number): Promise<() => void> {
    if (this.#now() - this.#askedAt > ROOM_MS || this.#free() < bytes) await this.#ask()
    const free = this.#free()
    if (free < bytes) {
      const detail = `it takes ${bytes} bytes, and ${Math.max(0, free)} are left beyond the reserve of ${this.#reserveBytes}`
      throw new OperationError('DISK_FULL', `Cannot ${action}: ${detail}`)
    }
    this.#takenBytes += bytes
    this.#underWayBytes += bytes
    return () => {
      this.#underWayBytes -= bytes
    }
  }

  /** Has the file system asked again at the next look: it had less room than it was thought to have. */
  forget(): void {
    this.#askedAt = Number.NEGATIVE_INFINITY
  }

  async now(): Promise<Usage> {
    if (this.#now() - this.#askedAt > ROOM_MS) await this.#ask()
    const freeBytes = Math.max(0, this.#free())
    return {
      capacityBytes: this.#usedBytes + freeBytes,
      usedBytes: this.#usedBytes,
      freeBytes,
      blocks: this.#blocks,
      isCounted: this.#counted === BLOCK_DIRECTORIES.length,
    }
  }

  async #ask(): Promise<void> {
    const { freeBytes } = await this.#files.room()
    this.#systemFreeBytes = freeBytes
    this.#askedAt = this.#now()
    // What is under way may have taken some of its room already: counted twice rather than not at all.
    this.#takenBytes = this.#underWayBytes
  }

  #free(): number {
    return this.#systemFreeBytes - this.#reserveBytes - this.#takenBytes
  }
}
