/**
 * An lmdb file that nobody may lose, in a directory of its own that one process has at a time: that of a machine's state.
 *
 * lmdb maps its file and trusts it: what is no database at all ends the process with SIGSEGV, what was cut short with SIGBUS. So the
 * head is looked at first, and a short file is made as long as it says that it is, which makes errors of such crashes. Nothing is ever
 * thrown away here: what is damaged is refused, and stays as it was but for zeros at its end.
 *
 * Commits are lmdb's plainest kind: the pages are written and synced, then the page that makes them valid. Its overlapping kind, which
 * syncs later and goes back to an older commit after a crash of the machine, was no faster here. The writing is done on a thread of lmdb's
 * own, so that machines go on meanwhile: by measure 30 us of this thread a commit, against 100 to 400 with transactions that wait.
 */
import { closeSync, fstatSync, fsyncSync, ftruncateSync, openSync, readSync, statfsSync } from 'node:fs'
import { join } from 'node:path'

import type { Database, RootDatabase } from 'lmdb'

import { isOperationError, OperationError } from '#base/errors.ts'
import { withDeadline } from '#os/deadline.ts'

import { lockedDirectory } from './locked-directory.ts'
import type { Key } from './state.ts'

export type LmdbDatabase = Database<Buffer, Key>

const PAGE_BYTES = 4096
/** Of addresses, not of memory. lmdb goes beyond it, too, but each step of that stops reads for a while: 60 ms by measure. */
const MAP_BYTES = 16 * 1024 ** 3
const CLOSE_MS = 10_000
/** Of the two pages that the file begins with (struct MDB_meta of lmdb.h's implementation). */
const META_AT = 24
const META_MAGIC = 0xbeefc0de
const META_LAST_PAGE_AT = META_AT + 120
/** MDB_PAGE_NOTFOUND, MDB_CORRUPTED, MDB_PANIC after such a failure, MDB_INVALID. */
const CODES_OF_DAMAGE = new Set([-30797, -30796, -30793])

/** Keys as they are, without a copy; values that are read are copies of their own, cut from Node's pool. */
const ENCODINGS = {
  encoding: 'binary',
  keyEncoder: {
    writeKey: (key: Key, target: Buffer, at: number): number => at + target.write(key, at, 'latin1'),
    readKey: (source: Buffer, start: number, end: number): Key => source.toString('latin1', start, end),
  },
  encoder: {
    encode: (value: Buffer): Buffer => value,
    // lmdb's own buffer, which is longer than its length says: the next read overwrites it.
    decode: (value: Uint8Array): Buffer => {
      const copy = Buffer.allocUnsafe(value.length)
      copy.set(value.subarray(0, value.length))
      return copy
    },
  },
} as const

export class LmdbEnvironment {
  readonly #root: RootDatabase<Buffer, Key>
  readonly #directory: string
  readonly #lock: number

  private constructor(root: RootDatabase<Buffer, Key>, directory: string, lock: number) {
    this.#root = root
    this.#directory = directory
    this.#lock = lock
  }

  /**
   * The file `data.lmdb` in the directory, both made where they are not there yet, the names durable.
   * @throws JOURNAL_FAILED where it cannot be used, or another process has it; JOURNAL_CORRUPT
   */
  static async open(directory: string): Promise<LmdbEnvironment> {
    const lmdb = await import('lmdb')
    const path = join(directory, 'data.lmdb')
    let lock: number | undefined
    try {
      lock = lockedDirectory(directory, 'state')
      checkHead(path)
      const root = lmdb.open<Buffer, Key>({
        ...{ path, noSubdir: true, ...ENCODINGS, maxDbs: 4, mapSize: MAP_BYTES, pageSize: PAGE_BYTES },
        overlappingSync: false,
        // Batches are made here; lmdb's own, of each turn, have promises that nobody can wait for, and that reject on a full disk.
        eventTurnBatching: false,
      })
      fsyncSync(lock)
      return new LmdbEnvironment(root, directory, lock)
    } catch (error) {
      if (lock !== undefined) closeSync(lock)
      throw failure(`open the state in "${directory}"`, error)
    }
  }

  /** A database of its own within the file. @throws JOURNAL_FAILED, JOURNAL_CORRUPT */
  database(name: string): LmdbDatabase {
    try {
      return this.#root.openDB<Buffer, Key>({ name, ...ENCODINGS })
    } catch (error) {
      throw failure(`open the state in "${this.#directory}"`, error)
    }
  }

  /**
   * Does the puts and removes that `changes` calls in one transaction; resolves when they are durable. How they end is told by the batch:
   * within one, lmdb gives for each put and remove the same promise, which is fulfilled already.
   */
  batch(changes: () => void): Promise<void> {
    return this.committed(this.#root.batch(changes))
  }

  /** Resolves when a write of its own is durable. @throws JOURNAL_FAILED, JOURNAL_CORRUPT */
  async committed(write: Promise<unknown>): Promise<void> {
    try {
      await write
    } catch (error) {
      // lmdb gives the reason by a second promise, which is an unhandled rejection unless somebody waits for it.
      const { commitError } = error as { commitError?: Promise<unknown> }
      const reason: unknown = await commitError?.then(
        () => error,
        (cause: unknown) => cause,
      )
      throw failure('write the state', reason ?? error, `, with ${this.#freeBytes()} bytes free on its disk`)
    }
  }

  /** What `reading` gives. @throws JOURNAL_CORRUPT where lmdb finds damage, JOURNAL_FAILED */
  read<T>(reading: () => T): T {
    try {
      return reading()
    } catch (error) {
      throw failure('read the state', error)
    }
  }

  /** lmdb calls the write an input/output error that a full disk has cut short. */
  #freeBytes(): number | string {
    try {
      const { bavail, bsize } = statfsSync(this.#directory)
      return bavail * bsize
    } catch (error) {
      return (error as Error).message
    }
  }

  /** Lets go of the directory, unless its disk answers no more: then nobody else shall have it while this process lives. */
  async close(): Promise<void> {
    await withDeadline('close the state', this.#root.close(), CLOSE_MS)
    closeSync(this.#lock)
  }
}

function failure(action: string, cause: unknown, more = ''): OperationError {
  if (isOperationError(cause)) return cause
  const { code, message } = cause as { code?: unknown; message?: string }
  const isDamage = typeof code === 'number' && CODES_OF_DAMAGE.has(code)
  return new OperationError(isDamage ? 'JOURNAL_CORRUPT' : 'JOURNAL_FAILED', `Cannot ${action}: ${message}${more}`, {
    cause,
  })
}

/** Lets lmdb near the file where there is none yet, or its head is one of lmdb's. */
function checkHead(path: string): void {
  let fd: number
  try {
    fd = openSync(path, 'r+')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
    throw error
  }
  try {
    const { size } = fstatSync(fd)
    // What a process leaves that was killed while it made the file.
    if (size === 0) return
    const head = Buffer.alloc(2 * PAGE_BYTES)
    if (readSync(fd, head, 0, head.length, 0) < head.length) throw damaged(path)
    let pages = 0
    for (const at of [0, PAGE_BYTES]) {
      if (head.readUInt32LE(at + META_AT) !== META_MAGIC) throw damaged(path)
      pages = Math.max(pages, Number(head.readBigUInt64LE(at + META_LAST_PAGE_AT)) + 1)
    }
    // Pages past the end that were never written are none that lmdb looks at; those that were cut off read as zeros, which
    // are an error rather than SIGBUS. A count that no disk holds is damage.
    if (pages > 2 ** 36) throw damaged(path)
    if (size < pages * PAGE_BYTES) ftruncateSync(fd, pages * PAGE_BYTES)
  } finally {
    closeSync(fd)
  }
}

function damaged(path: string): OperationError {
  return new OperationError('JOURNAL_CORRUPT', `Cannot open the state "${path}": it does not begin as one does`)
}
