/**
 * The bytes that a dry run keeps: each body one file in a directory of this process's own, which is locked for as long as
 * the process lives, so that the next dry run in the same place can remove what a killed one left.
 */
import { closeSync, constants, mkdtempSync, openSync, readdirSync, rmSync, statSync } from 'node:fs'
import { rm, unlink } from 'node:fs/promises'
import { join } from 'node:path'

import { isOperationError, OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { tryLock } from '#os/flock.ts'
import { statusOf } from '#os/status.ts'
import { errnoNameOf } from '#store/directory/failure.ts'
import { readFrom } from '#store/directory/reading.ts'
import { writeSource } from '#store/directory/write-source.ts'
import { readAt, segmentError } from '#store/file-segments.ts'
import { conflict, pastEnd } from '#store/refusals.ts'
import {
  isStored,
  type Entry,
  type Reading,
  type ReadOptions,
  type Segment,
  type Source,
  type StoredSegment,
} from '#store/store.ts'

const PREFIX = 'eider-dry-run-'
const CHUNK_BYTES = 1 << 20

const log = logger('store/dry-run')

/** A body on local disk; `users` counts the entries that have it. */
export interface SpoolFile {
  readonly name: string
  readonly size: number
  users: number
}

export class Spool {
  readonly #directory: string
  readonly #lock: number
  #count = 0

  /** Makes a directory in `parent`, and removes those of processes that are gone. */
  constructor(parent: string) {
    try {
      sweep(parent)
      this.#directory = mkdtempSync(join(parent, PREFIX))
      this.#lock = openSync(this.#directory, constants.O_RDONLY | constants.O_DIRECTORY)
      tryLock(this.#lock)
    } catch (error) {
      throw localFailure(error, `keep the files of a dry run in "${parent}"`)
    }
  }

  /** Writes a body of one user; `read` reads what the dry run shows, for stored segments. */
  async write(
    path: string,
    source: Source,
    signal: AbortSignal | undefined,
    read: (path: string, options: ReadOptions) => Promise<Reading>,
  ): Promise<SpoolFile> {
    const name = (this.#count++).toString(36)
    const file = join(this.#directory, name)
    let fd = -1
    try {
      fd = openSync(file, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600)
      const size = await writeSource(fd, path, localSource(path, source, signal, read), signal)
      return { name, size, users: 1 }
    } catch (error) {
      await this.#remove(name)
      throw localFailure(error, `put "${path}"`)
    } finally {
      if (fd !== -1) closeSync(fd)
    }
  }

  read(file: SpoolFile, entry: Entry, options: ReadOptions): Promise<Reading> {
    const fd = openSync(join(this.#directory, file.name), constants.O_RDONLY)
    const offset = Math.min(options.offset ?? 0, file.size)
    const length = Math.min(options.length ?? file.size, file.size - offset)
    return readFrom(fd, statusOf(fd), entry, offset, length, options.signal)
  }

  /** Says that one entry has the body no more; what is being read stays readable. */
  release(file: SpoolFile): void {
    file.users--
    if (file.users === 0) void this.#remove(file.name)
  }

  async close(): Promise<void> {
    await rm(this.#directory, { recursive: true, force: true })
    closeSync(this.#lock)
  }

  async #remove(name: string): Promise<void> {
    try {
      await unlink(join(this.#directory, name))
    } catch (error) {
      // It takes room until the end, when the whole directory goes.
      log.debug({ err: error }, 'a body of the dry run is left until its end')
    }
  }
}

/** The source with its stored pieces read through the dry run, as one stream. */
function localSource(
  path: string,
  source: Source,
  signal: AbortSignal | undefined,
  read: (path: string, options: ReadOptions) => Promise<Reading>,
): Parameters<typeof writeSource>[2] {
  if (source instanceof Uint8Array || source.kind === 'stream') return source
  const local = source.segments.flatMap((segment) => (isStored(segment) ? [] : [segment]))
  if (local.length === source.segments.length) return { ...source, segments: local }
  return { kind: 'stream', stream: bytesOf(path, source.segments, signal, read) }
}

async function* bytesOf(
  path: string,
  segments: readonly Segment[],
  signal: AbortSignal | undefined,
  read: (path: string, options: ReadOptions) => Promise<Reading>,
): AsyncGenerator<Uint8Array> {
  for (const segment of segments) {
    if (isStored(segment)) {
      const reading = await readSegment(path, segment, signal, read)
      yield* reading.body
      continue
    }
    for (let done = 0; done < segment.length;) {
      const buffer = Buffer.allocUnsafeSlow(Math.min(CHUNK_BYTES, segment.length - done))
      const count = await readAt(segment.fd, buffer, segment.offset + done)
      if (count < buffer.length) throw segmentError(path, segment, done + count)
      done += count
      yield buffer
    }
  }
}

async function readSegment(
  path: string,
  { path: from, version, offset, length }: StoredSegment,
  signal: AbortSignal | undefined,
  read: (path: string, options: ReadOptions) => Promise<Reading>,
): Promise<Reading> {
  let reading: Reading
  try {
    reading = await read(from, { version, offset, length, ...(signal === undefined ? {} : { signal }) })
  } catch (error) {
    const gone = isOperationError(
      error,
      'STORE_NOT_FOUND',
      'STORE_NOT_DIRECTORY',
      'STORE_IS_DIRECTORY',
      'INPUT_INVALID',
    )
    throw gone ? conflict('put from', from) : error
  }
  if (reading.length === length && offset + length <= reading.entry.size) return reading
  reading.cancel()
  throw pastEnd(path, from)
}

/** The error of a disk that is not the store's. */
function localFailure(error: unknown, action: string): unknown {
  const name = errnoNameOf(error)
  if (name === undefined || isOperationError(error)) return error
  const code = name === 'ENOSPC' || name === 'EDQUOT' ? 'STAGING_NO_SPACE' : 'LOCAL_FAILED'
  return new OperationError(code, `Cannot ${action}: the local disk answers ${name}`, { cause: error })
}

/** Removes the directories of dry runs that nobody holds the lock of. */
function sweep(parent: string): void {
  for (const name of readdirSync(parent)) {
    if (!name.startsWith(PREFIX)) continue
    const path = join(parent, name)
    let fd = -1
    try {
      // One that was made just now may not be locked yet.
      if (Date.now() - statSync(path).mtimeMs < 1000) continue
      fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY)
      if (tryLock(fd)) rmSync(path, { recursive: true, force: true })
    } catch (error) {
      log.warn({ err: error, path }, 'cannot remove what a dry run before left')
    } finally {
      if (fd !== -1) closeSync(fd)
    }
  }
}
