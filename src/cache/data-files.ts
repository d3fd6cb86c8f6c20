/**
 * The data files of the disk cache: `data/xx/ID`, sparse, as long as the version that they hold bytes of. What is in
 * them is said by the index alone. A name is never used twice, so a removal that comes late removes nothing else.
 */
import { randomBytes } from 'node:crypto'
import { closeSync, constants, ftruncateSync, openSync, renameSync, unlinkSync } from 'node:fs'
import { readdir, unlink } from 'node:fs/promises'
import { join } from 'node:path'

import { assert } from '#base/assert.ts'
import { makeDirectories } from '#os/make-directories.ts'
import { linkDescriptor } from '#os/at.ts'

import type { DataId } from './cache-index.ts'

/** Directories are `00` to `ff`: a million files are four thousand in each. */
export const FAN_OUT = 256

/** An open data file, shared by those who use it; closed when its owner and the last user are done with it. */
export class DataFile {
  readonly id: DataId
  readonly fd: number
  readonly isWritable: boolean
  #users = 1

  constructor(id: DataId, fd: number, isWritable: boolean) {
    this.id = id
    this.fd = fd
    this.isWritable = isWritable
  }

  use(): void {
    assert(this.#users > 0, 'a data file is used while it is open')
    this.#users++
  }

  done(): void {
    assert(this.#users > 0, 'a data file is given back once by each user')
    if (--this.#users === 0) closeSync(this.fd)
  }
}

export class DataFiles {
  readonly #directory: string

  constructor(directory: string) {
    this.#directory = directory
    for (let index = 0; index < FAN_OUT; index++) makeDirectories(this.#pathOfFan(index), 0o700)
  }

  path(id: DataId): string {
    return join(this.#directory, id.slice(0, 2), id)
  }

  /** A new, empty file, as long as it is to be: file systems take no room ahead within a file, as they do past its end. */
  create(size: number): DataFile {
    const id = newId()
    const fd = openSync(this.path(id), constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600)
    try {
      ftruncateSync(fd, size)
      return new DataFile(id, fd, true)
    } catch (error) {
      closeSync(fd)
      this.remove(id)
      throw error
    }
  }

  /** Gives the open file a name here, and opens it for reading. */
  link(fd: number): DataFile {
    const id = newId()
    linkDescriptor(fd, this.path(id))
    return this.open(id, false)
  }

  open(id: DataId, writable: boolean): DataFile {
    return new DataFile(id, openSync(this.path(id), writable ? constants.O_RDWR : constants.O_RDONLY), writable)
  }

  /** Removes the file; it may be gone already. */
  remove(id: DataId): void {
    try {
      unlinkSync(this.path(id))
    } catch (error) {
      ignoreMissing(error)
    }
  }

  /** Gives the file another name outside; false where that lies in another file system. */
  moveAway(id: DataId, name: string): boolean {
    try {
      renameSync(this.path(id), name)
      return true
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EXDEV') throw error
      return false
    }
  }

  /** As `remove`, on the thread pool: giving up the room of a large file takes its time. */
  async removeAside(id: DataId): Promise<void> {
    await unlink(this.path(id)).catch(ignoreMissing)
  }

  /** The names in one of the directories, those of others included. */
  names(fan: number): Promise<string[]> {
    return readdir(this.#pathOfFan(fan))
  }

  /** The path of a name in one of the directories. */
  pathOfName(fan: number, name: string): string {
    return join(this.#pathOfFan(fan), name)
  }

  #pathOfFan(index: number): string {
    return join(this.#directory, index.toString(16).padStart(2, '0'))
  }
}

function newId(): DataId {
  return randomBytes(8).toString('hex')
}

function ignoreMissing(error: unknown): void {
  if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
}
