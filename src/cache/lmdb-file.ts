/**
 * Opening an lmdb file that holds nothing which could not be found out again: a damaged one is thrown away. lmdb maps
 * its file and trusts it: what is no database at all ends the process with SIGSEGV, what is cut short with SIGBUS. So the
 * head is looked at first, and a short file is made as long as it says that it is, which makes errors of such crashes.
 *
 * Commits are written in order but not waited for: after a crash of the machine the file is as it was at some earlier
 * commit, after one of the process as it was at the last.
 */
import { closeSync, fstatSync, ftruncateSync, openSync, readSync, rmSync } from 'node:fs'

import type { Database, RootDatabase } from 'lmdb'

import { OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { withDeadline } from '#os/deadline.ts'

/** Keys and values are bytes: their encodings are those of docs/formats/cache.md. */
export type BytesDatabase = Database<Buffer, Buffer>
export type LmdbFile = RootDatabase<Buffer, Buffer>

const log = logger('cache')
const BINARY = { encoding: 'binary', keyEncoding: 'binary' } as const
const PAGE_BYTES = 4096
const CLOSE_MS = 10_000
/** Of the two pages that the file begins with (struct MDB_meta of lmdb.h's implementation). */
const META_AT = 24
const META_MAGIC = 0xbeefc0de
const META_LAST_PAGE_AT = META_AT + 120

/** Opens or makes the file at `path`, and gives what `use` makes of it; where either finds damage, with a new file. */
export async function openLmdbFile<T>(path: string, use: (file: LmdbFile) => T): Promise<T> {
  const lmdb = await import('lmdb')
  const open = (): LmdbFile =>
    lmdb.open<Buffer, Buffer>({
      ...{ path, noSubdir: true, ...BINARY, maxDbs: 8, mapSize: 64 << 20, pageSize: PAGE_BYTES },
      // Batches are made here; lmdb's own, of each turn, have promises that nobody can wait for, and that reject on a full disk.
      eventTurnBatching: false,
    })
  let file: LmdbFile | undefined
  let reason: unknown
  try {
    if (hasSoundHead(path)) {
      file = open()
      return use(file)
    }
  } catch (error) {
    reason = error
  }
  log.warn({ err: reason, path }, 'An index is damaged: it is begun anew')
  await file?.close()
  removeLmdbFile(path)
  try {
    return use(open())
  } catch (error) {
    throw new OperationError('LOCAL_FAILED', `Cannot open "${path}": ${(error as Error).message}`, { cause: error })
  }
}

/** A database of its own within the file. */
export function openBytesDatabase(file: LmdbFile, name: string): BytesDatabase {
  return file.openDB<Buffer, Buffer>({ name, ...BINARY })
}

/** Queues the puts and removes that `changes` does by `queued`, to be committed as one; resolves when that is done. */
export function commitBatch(file: LmdbFile, changes: () => void): Promise<void> {
  return committed(file.batch(changes))
}

/** Within a batch, one of its writes. How it ends is told by the batch; its own promise would be an unhandled rejection. */
export function queued(write: Promise<unknown>): void {
  write.catch(() => undefined)
}

/** Resolves when a write of its own is committed. @throws OperationError `LOCAL_FAILED` */
export async function committed(write: Promise<unknown>): Promise<void> {
  try {
    await write
  } catch (error) {
    // lmdb gives the reason by a second promise, which is an unhandled rejection unless somebody waits for it.
    const { commitError } = error as { commitError?: Promise<unknown> }
    const reason: unknown = await commitError?.then(
      () => error,
      (cause: unknown) => cause,
    )
    throw new OperationError('LOCAL_FAILED', `Cannot write an index: ${String(reason ?? error)}`, {
      cause: error,
    })
  }
}

/** Closes the file, after what was committed is on the disk: a busy disk may keep that waiting, and then it is left to it. */
export async function closeLmdbFile(file: LmdbFile): Promise<void> {
  try {
    await withDeadline('close an index', file.close(), CLOSE_MS)
  } catch (error) {
    log.warn({ err: error }, 'Cannot wait until an index is on the disk')
  }
}

/** Removes the file, also while it is open: the next opening begins anew. */
export function removeLmdbFile(path: string): void {
  rmSync(path, { force: true })
  rmSync(`${path}-lock`, { force: true })
}

/** Whether lmdb can be let near the file: there is none, or its head is one of lmdb's. */
function hasSoundHead(path: string): boolean {
  let fd: number
  try {
    fd = openSync(path, 'r+')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return true
    throw error
  }
  try {
    const { size } = fstatSync(fd)
    // What a process leaves that was killed while it made the file.
    if (size === 0) return true
    const head = Buffer.alloc(2 * PAGE_BYTES)
    if (readSync(fd, head, 0, head.length, 0) < head.length) return false
    let pages = 0
    for (const at of [0, PAGE_BYTES]) {
      if (head.readUInt32LE(at + META_AT) !== META_MAGIC) return false
      pages = Math.max(pages, Number(head.readBigUInt64LE(at + META_LAST_PAGE_AT)) + 1)
    }
    // Pages past the end that were never written are none that lmdb looks at; those that were cut off read as zeros, which
    // are an error rather than SIGBUS. A count that no disk holds is damage.
    if (pages > 2 ** 36) return false
    if (size < pages * PAGE_BYTES) ftruncateSync(fd, pages * PAGE_BYTES)
    return true
  } finally {
    closeSync(fd)
  }
}
