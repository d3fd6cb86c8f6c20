/**
 * The journal of a mount that acknowledges before the store has answered: a directory in the staging area, where each file
 * that waits has its bytes under `<id>` and what is known of them in `<id>.json`. A record appears by a rename after its
 * bytes and itself are synced, and goes when the store has them; so whoever starts next finds each file that was
 * acknowledged, whole. Bytes without a record are of a close that was not answered.
 *
 * Costs per close: one sync of the bytes, one of the record, side by side, and one of the directory, which closes at the
 * same time share. Removals are synced within a second, in the background: what is found twice after a power failure is
 * known again by its bytes.
 */
import { randomBytes } from 'node:crypto'
import {
  closeSync,
  constants,
  existsSync,
  fdatasync,
  fsync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'

import { OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import { counter } from '#base/metrics.ts'
import { makeDirectories } from '#os/make-directories.ts'
import { lockHolder, tryLock } from '#os/flock.ts'

import { decodeRecord, encodeRecord, type JournalRecord } from './journal-record.ts'
import { stagingError, type StagedFile } from './staged-file.ts'
import type { StagingArea } from './staging.ts'

const log = logger('mount')
const DIRECTORY = 'journal'
const RECORD_SUFFIX = '.json'
const NEW_SUFFIX = '.new'
const REMOVALS_SYNC_MS = 1000

const syncData = promisify(fdatasync)
const syncAll = promisify(fsync)

/** A file that the journal vouches for. */
export interface Journaled {
  readonly id: string
  readonly staged: StagedFile
  /** Nobody else has the bytes any more: they go with the record. */
  ownsBytes: boolean
}

/** What a mount before this one has left. */
export interface LeftRecord {
  readonly id: string
  readonly record: JournalRecord
}

export class Journal {
  /** In the order of their closes. */
  readonly left: readonly LeftRecord[]
  readonly #staging: StagingArea
  readonly #directory: string
  /** Open for its lock, and to be synced. */
  readonly #fd: number
  readonly #storeUrl: string
  #sequence: number
  #sync: Promise<void> = Promise.resolve()
  #syncNext: Promise<void> | undefined
  readonly #syncs = {
    file: counter('eider_mount_journal_syncs_total', 'file'),
    directory: counter('eider_mount_journal_syncs_total', 'directory'),
  }
  #removed: NodeJS.Timeout | undefined

  private constructor(staging: StagingArea, directory: string, fd: number, storeUrl: string) {
    this.#staging = staging
    this.#directory = directory
    this.#fd = fd
    this.#storeUrl = storeUrl
    this.left = this.#read()
    this.#sequence = this.left.at(-1)?.record.sequence ?? 0
  }

  /**
   * The journal in a staging area; undefined where none `isWanted` and there is none, or an empty or another mount's one.
   * @throws OperationError `LOCAL_FAILED` where another process has it, or it holds files for another store.
   */
  static open(staging: StagingArea, storeUrl: string, isWanted: boolean): Journal | undefined {
    const directory = join(staging.directory, DIRECTORY)
    if (!isWanted && !existsSync(directory)) return undefined
    let fd: number | undefined
    try {
      makeDirectories(directory, 0o700)
      fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY)
      if (tryLock(fd)) {
        const journal = new Journal(staging, directory, fd, storeUrl)
        if (isWanted || journal.left.length > 0) return journal
      } else if (isWanted) {
        const pid = lockHolder(fd)
        const message = `Cannot use the journal "${directory}": another mount uses it${pid === undefined ? '' : ` (process ${pid})`}`
        const hint =
          'Give each mount a directory of its own with --staging; one that has just ended may still be storing.'
        throw new OperationError('LOCAL_FAILED', message, { hint })
      }
      closeSync(fd)
      return undefined
    } catch (error) {
      if (fd !== undefined) closeSync(fd)
      if (error instanceof OperationError) throw error
      const detail = error instanceof Error ? error.message : String(error)
      throw new OperationError('LOCAL_FAILED', `Cannot use the journal "${directory}": ${detail}`, { cause: error })
    }
  }

  #read(): LeftRecord[] {
    const names = new Set(readdirSync(this.#directory))
    const found: LeftRecord[] = []
    for (const name of names) {
      if (name.endsWith(NEW_SUFFIX)) rmSync(join(this.#directory, name), { force: true })
      if (!name.endsWith(RECORD_SUFFIX)) continue
      const id = name.slice(0, -RECORD_SUFFIX.length)
      const record = names.has(id) ? this.#decoded(id) : undefined
      if (record === undefined) {
        log.warn({ record: name }, 'dropped a record of the journal that has no bytes or cannot be read')
        rmSync(join(this.#directory, name), { force: true })
      } else found.push({ id, record })
    }
    const replaced = new Set(found.flatMap(({ record }) => record.replaces))
    const left = found.filter(({ id }) => !replaced.has(id)).sort((a, b) => a.record.sequence - b.record.sequence)
    this.#refuseOthers(left)
    for (const { id } of found) if (replaced.has(id)) this.#unlink(id)
    this.#sweep(names, new Set(found.map(({ id }) => id)))
    return left
  }

  /** Undefined where it is damaged: then its bytes are kept. */
  #decoded(id: string): JournalRecord | undefined {
    try {
      return decodeRecord(readFileSync(this.#recordPath(id), 'utf8'))
    } catch (error) {
      const kept = this.#staging.keepNamed(this.dataPath(id))
      log.error({ err: error, kept }, 'a record of the journal is damaged: its bytes are kept, without their name')
      return undefined
    }
  }

  #refuseOthers(left: readonly LeftRecord[]): void {
    const other = left.find(({ record }) => record.store !== this.#storeUrl)
    if (other === undefined) return
    const message =
      `Cannot use the journal "${this.#directory}": it has files that are not yet in "${other.record.store}"; ` +
      'mount that store with this staging directory first, or use another one'
    throw new OperationError('LOCAL_FAILED', message)
  }

  /** Bytes without a record: their close has not been answered. */
  #sweep(names: ReadonlySet<string>, recorded: ReadonlySet<string>): void {
    for (const name of names) {
      if (name.endsWith(RECORD_SUFFIX) || name.endsWith(NEW_SUFFIX) || recorded.has(name)) continue
      log.info({ name }, 'dropped bytes whose close was not answered before the mount died')
      rmSync(join(this.#directory, name), { force: true })
    }
  }

  newId(): string {
    return randomBytes(8).toString('hex')
  }

  /** Where the bytes of a file lie. */
  dataPath(id: string): string {
    return join(this.#directory, id)
  }

  #recordPath(id: string): string {
    return join(this.#directory, id + RECORD_SUFFIX)
  }

  /**
   * Resolves when bytes and record have survived a loss of power. The bytes lie under `dataPath` already.
   * @throws OperationError `STAGING_NO_SPACE`, `LOCAL_FAILED`; then an older record of that id is as it was.
   */
  async write(id: string, staged: StagedFile, facts: Omit<JournalRecord, 'store' | 'sequence'>): Promise<void> {
    const path = this.#recordPath(id)
    const record = { ...facts, store: this.#storeUrl, sequence: ++this.#sequence }
    let fd: number | undefined
    staged.hold()
    try {
      fd = openSync(path + NEW_SUFFIX, 'w', 0o600)
      writeFileSync(fd, encodeRecord(record))
      this.#syncs.file.inc(2)
      await Promise.all([syncData(staged.fd), syncData(fd)])
      renameSync(path + NEW_SUFFIX, path)
      await this.#syncNames()
    } catch (error) {
      rmSync(path + NEW_SUFFIX, { force: true })
      throw stagingError('journal', error)
    } finally {
      if (fd !== undefined) closeSync(fd)
      staged.close()
    }
  }

  /** One sync after another; who comes while one runs waits for the next, as it may have begun before the name was there. */
  #syncNames(): Promise<void> {
    this.#syncNext ??= this.#syncAfter(this.#sync)
    return this.#syncNext
  }

  async #syncAfter(running: Promise<void>): Promise<void> {
    await running.catch(() => undefined)
    this.#syncNext = undefined
    this.#syncs.directory.inc()
    this.#sync = syncAll(this.#fd)
    await this.#sync
  }

  /** Drops a record whose bytes have no name here any more. */
  removeRecord(id: string): void {
    rmSync(this.#recordPath(id), { force: true })
  }

  /** Drops a record; the bytes stay the staged file's as long as somebody has it. */
  remove({ id, staged, ownsBytes }: Journaled): void {
    this.removeRecord(id)
    staged.takeName(this.dataPath(id), this.#staging.newPath())
    if (ownsBytes) staged.close()
    this.#removed ??= setTimeout(() => {
      this.#removed = undefined
      this.#syncNames().catch((error: unknown) => log.warn({ err: error }, 'cannot sync the journal'))
    }, REMOVALS_SYNC_MS).unref()
  }

  /** Drops record and bytes. */
  #unlink(id: string): void {
    rmSync(this.#recordPath(id), { force: true })
    rmSync(this.dataPath(id), { force: true })
  }

  /** To be called when nothing is written any more. */
  async close(): Promise<void> {
    clearTimeout(this.#removed)
    await this.#syncNames().catch((error: unknown) => log.warn({ err: error }, 'cannot sync the journal'))
    closeSync(this.#fd)
  }
}
