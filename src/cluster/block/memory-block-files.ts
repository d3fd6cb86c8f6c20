/**
 * The files of a disk in memory, with what a disk can do to them: a test double, and the disk of simulated machines.
 *
 * A crash keeps of each file what was there at its last sync, and of each directory the names that it had at its last; each
 * page and each name that changed since is kept or lost by itself, as `choose` says. So a torn write has any of its pages, a
 * rename that was not followed by a sync of the directory can be undone, done, or leave both names or none, and a file may be any
 * length between. What was open then is dead, and the disk can be opened anew.
 *
 * `before` is told of each step in the order in which they happen, and makes it slow (by its promise) or fail (by what
 * it throws).
 */
import { assert } from '#base/assert.ts'
import { ERRNO, type Errno } from '#base/errno.ts'
import { SystemCallError } from '#os/libc.ts'

import type { BlockFiles, NewFile, Room, StoredFile, StoredName } from './block-files.ts'

const PAGE_BYTES = 4096

/** The call of the port that a step is. */
export type StepCall = keyof BlockFiles | 'append' | 'sync' | 'readBack' | 'read'

export interface Step {
  readonly call: StepCall
  readonly path: string
  /** How it was opened or is read, where that matters. */
  readonly how?: 'cached' | 'uncached'
}

/** An error as a call of the system makes it. */
export function systemError(call: string, errno: Errno): Error {
  return new SystemCallError(call, ERRNO[errno])
}

/** An integer from 0 to `below` - 1. */
export type Choose = (below: number) => number

class MemoryFile {
  bytes: Buffer = Buffer.alloc(0)
  /** As of the last sync. */
  synced: Buffer = Buffer.alloc(0)

  sync(): void {
    this.synced = Buffer.from(this.bytes)
  }

  crash(choose: Choose): void {
    const { bytes, synced } = this
    if (bytes.equals(synced)) return
    const [low, high] = [Math.min(bytes.length, synced.length), Math.max(bytes.length, synced.length)]
    const after = Buffer.alloc(low + choose(high - low + 1))
    for (let at = 0; at < after.length; at += PAGE_BYTES) {
      // What a file system gives for a page that it has a place for and that never arrived is zeros.
      const from = choose(2) === 0 ? synced : bytes
      if (at < from.length) after.set(from.subarray(at, Math.min(at + PAGE_BYTES, after.length)), at)
    }
    this.bytes = after
    this.sync()
  }
}

interface Directory {
  names: Map<string, MemoryFile>
  synced: Map<string, MemoryFile>
}

export class MemoryBlockFiles implements BlockFiles {
  /** Of the whole disk. */
  totalBytes: number
  /** Told of each step before it happens; the step fails with what it throws, and waits for what it gives. */
  before: ((step: Step) => Promise<void> | void) | undefined
  /** How often each call was made. */
  readonly counts = new Map<StepCall, number>()
  readonly #directories = new Map<string, Directory>([['', { names: new Map(), synced: new Map() }]])
  /** Directories are made before anything is acknowledged; losing one is losing all that is in it. */
  #syncedDirectories = new Set<string>([''])
  /** One more at each crash: what was opened before is dead. */
  #life = 0
  #openCount = 0
  #usedBytes = 0

  constructor(totalBytes = 1 << 30) {
    this.totalBytes = totalBytes
  }

  /** Files that are open: 0 once all who used the disk are done. */
  get openCount(): number {
    return this.#openCount
  }

  /** The power goes, and comes back. */
  crash(choose: Choose): void {
    this.#life++
    this.#openCount = 0
    for (const [path, directory] of this.#directories) {
      if (!this.#syncedDirectories.has(path) && choose(2) === 0) {
        this.#directories.delete(path)
        continue
      }
      const kept = new Map<string, MemoryFile>()
      for (const name of new Set([...directory.synced.keys(), ...directory.names.keys()])) {
        const [old, young] = [directory.synced.get(name), directory.names.get(name)]
        const file = old === young || choose(2) === 0 ? old : young
        if (file !== undefined) kept.set(name, file)
      }
      directory.names = kept
      directory.synced = new Map(kept)
    }
    this.#syncedDirectories = new Set(this.#directories.keys())
    const files = new Set([...this.#directories.values()].flatMap(({ names }) => [...names.values()]))
    for (const file of files) file.crash(choose)
    this.#countBytes()
  }

  /** The bytes of a file, to be looked at or, in place, to rot; undefined where there is none. */
  bytesOf(path: string): Buffer | undefined {
    return this.#fileAt(path)?.bytes
  }

  /** Puts a file there, or other bytes into it, durably and without a step. */
  place(path: string, bytes: Uint8Array): void {
    const { directory, name } = this.#split(path)
    const file = directory.names.get(name) ?? new MemoryFile()
    file.bytes = Buffer.from(bytes)
    file.sync()
    directory.names.set(name, file)
    directory.synced.set(name, file)
    this.#countBytes()
  }

  /** Every file there is, by its path. */
  paths(): string[] {
    return [...this.#directories].flatMap(([path, { names }]) =>
      [...names.keys()].map((name) => (path === '' ? name : `${path}/${name}`)),
    )
  }

  async makeDirectory(path: string): Promise<void> {
    await this.#step({ call: 'makeDirectory', path })
    if (!this.#directories.has(path)) this.#directories.set(path, { names: new Map(), synced: new Map() })
  }

  async create(path: string): Promise<NewFile> {
    await this.#step({ call: 'create', path })
    const { directory, name } = this.#split(path)
    if (directory.names.has(name)) throw systemError('open', 'EEXIST')
    const file = new MemoryFile()
    directory.names.set(name, file)
    const step = this.#opened(path)
    return {
      append: async (parts) => {
        await step('append')
        for (const part of parts) {
          const room = Math.max(0, this.totalBytes - this.#usedBytes)
          file.bytes = Buffer.concat([file.bytes, part.subarray(0, room)])
          this.#usedBytes += Math.min(room, part.length)
          if (room < part.length) throw systemError('write', 'ENOSPC')
        }
      },
      sync: async () => {
        await step('sync')
        file.sync()
      },
      readBack: async (offset, into) => {
        await step('readBack', 'uncached')
        return readAt(file.bytes, offset, into)
      },
      close: () => step('close'),
    }
  }

  async open(path: string, how: 'cached' | 'uncached'): Promise<StoredFile | undefined> {
    await this.#step({ call: 'open', path, how })
    const file = this.#fileAt(path)
    if (file === undefined) return undefined
    const step = this.#opened(path)
    return {
      bytes: file.bytes.length,
      read: async (offset, into) => {
        assert(how === 'cached' || offset % PAGE_BYTES === 0, 'an uncached read begins at a page')
        await step('read', how)
        return readAt(file.bytes, offset, into)
      },
      close: () => step('close'),
    }
  }

  allocate(bytes: number): Uint8Array {
    return Buffer.alloc(bytes)
  }

  async rename(from: string, to: string): Promise<boolean> {
    await this.#step({ call: 'rename', path: to })
    const [source, target] = [this.#split(from), this.#split(to)]
    const file = source.directory.names.get(source.name)
    if (file === undefined) throw systemError('rename', 'ENOENT')
    if (target.directory.names.has(target.name)) return false
    source.directory.names.delete(source.name)
    target.directory.names.set(target.name, file)
    return true
  }

  async syncDirectory(path: string): Promise<void> {
    await this.#step({ call: 'syncDirectory', path })
    const directory = this.#directoryAt(path)
    directory.synced = new Map(directory.names)
    if (path === '') this.#syncedDirectories = new Set(this.#directories.keys())
  }

  async remove(path: string): Promise<number | undefined> {
    await this.#step({ call: 'remove', path })
    const { directory, name } = this.#split(path)
    const file = directory.names.get(name)
    directory.names.delete(name)
    this.#usedBytes -= file?.bytes.length ?? 0
    return file?.bytes.length
  }

  async list(path: string): Promise<readonly StoredName[]> {
    await this.#step({ call: 'list', path })
    const found = [...this.#directoryAt(path).names].map(([name, { bytes }]) => ({ name, bytes: bytes.length }))
    if (path !== '') return found
    return [...found, ...[...this.#directories.keys()].flatMap((name) => (name === '' ? [] : [{ name, bytes: 0 }]))]
  }

  async room(): Promise<Room> {
    await this.#step({ call: 'room', path: '' })
    return { totalBytes: this.totalBytes, freeBytes: Math.max(0, this.totalBytes - this.#usedBytes) }
  }

  close(): Promise<void> {
    return this.#step({ call: 'close', path: '' })
  }

  /** A file is open; its steps, of which the last is to close it. */
  #opened(path: string): (call: StepCall, how?: 'cached' | 'uncached') => Promise<void> {
    const life = this.#life
    this.#openCount++
    return async (call, how) => {
      await this.#step({ call, path, ...(how === undefined ? {} : { how }) }, life)
      if (call === 'close') this.#openCount--
    }
  }

  async #step(step: Step, life = this.#life): Promise<void> {
    if (life !== this.#life) throw systemError(step.call, 'ENODEV')
    this.counts.set(step.call, (this.counts.get(step.call) ?? 0) + 1)
    await this.before?.(step)
    // A crash while it was slow: what the call would have done, it does not do.
    if (life !== this.#life) throw systemError(step.call, 'ENODEV')
  }

  #countBytes(): void {
    this.#usedBytes = 0
    for (const { names } of this.#directories.values()) {
      for (const { bytes } of names.values()) this.#usedBytes += bytes.length
    }
  }

  #fileAt(path: string): MemoryFile | undefined {
    const { directory, name } = this.#split(path)
    return directory.names.get(name)
  }

  #split(path: string): { directory: Directory; name: string } {
    const slash = path.lastIndexOf('/')
    return { directory: this.#directoryAt(slash < 0 ? '' : path.slice(0, slash)), name: path.slice(slash + 1) }
  }

  #directoryAt(path: string): Directory {
    const directory = this.#directories.get(path)
    if (directory === undefined) throw systemError('open', 'ENOENT')
    return directory
  }
}

/** As pread(2) does: nothing where the file ends before that, since it may have been cut after it was opened. */
function readAt(bytes: Buffer, offset: number, into: Uint8Array): number {
  return offset < bytes.length ? bytes.copy(into, 0, offset) : 0
}
