/**
 * One disk of the cluster: a directory that holds blocks, each written once, read in checked ranges, and erased when a shard
 * permits it. It trusts permits, not those who bring them.
 *
 * A write: a temporary file in `tmp/`, fsync, read back, rename to its name, fsync of that directory, receipt. So a block is
 * whole or absent after a crash at any point, and one whose receipt was given is there. A name is never taken over: who
 * brings the same block again gets the same receipt, who brings other bytes is refused.
 *
 *   serving --the device fails, or too much of it--> failed --(every call is refused; DISK_FAILED)
 *      '--close--> closed
 *
 * A full disk is no failed one: the write is undone, and the disk goes on to serve reads and erasures. An I/O error at one
 * file is told from one of the device by a probe of other files; one at the fsync of a directory is always the device's, since
 * nobody can tell which names it has lost.
 *
 * The id of a block carries its time. It may be written until it is five minutes old, and erased from one hour on: a shard
 * that erases what it gave up on cannot be overtaken by a slow client that writes it still.
 */
import { randomBytes } from 'node:crypto'

import { assert } from '#base/assert.ts'
import { type ErrorCode, isOperationError, OperationError } from '#base/errors.ts'
import { logger } from '#base/log.ts'
import type { BufferMemory } from '#cluster/erasure/buffer-memory.ts'
import type { ClusterId } from '#cluster/cluster-id.ts'
import { untilAborted } from '#store/abort.ts'

import {
  type BlockCheck,
  BlockFile,
  checkBlockFile,
  type RangeRead,
  VerifyBuffers,
  writeBlockFile,
} from './block-file.ts'
import { type BlockFiles, faultOf } from './block-files.ts'
import { blockDirectory, type BlockId, blockName, blockPath, blockTimeMs, isBlockId } from './block-id.ts'
import { BLOCK_BYTES_MAX, blockFileBytes } from './block-trailer.ts'
import { DirectorySyncs } from './directory-syncs.ts'
import { DiskHealth } from './disk-health.ts'
import { openIdentity, type RandomBytes, readCluster, TEMPORARY_DIRECTORY, writeCluster } from './disk-identity.ts'
import { DiskUsage, type Usage } from './disk-usage.ts'
import { OpenBlocks } from './open-blocks.ts'
import {
  type BlockFacts,
  type DiskId,
  type DiskKey,
  erasePermit,
  eraseReceipt,
  isSame,
  writePermit,
  writeReceipt,
} from './permit.ts'
import { probeDisk } from './probe-disk.ts'
import { WorkSlots } from './work-slots.ts'

const log = logger('cluster/block')

/** A write may begin until the block's id is so old. */
export const WRITE_AGE_MS_MAX = 5 * 60_000
/** No clock is so wrong that nobody notices; what is further ahead was made up. */
export const WRITE_AHEAD_MS_MAX = 22 * 3_600_000
/** A block may be erased once its id is so old. */
export const ERASE_AGE_MS_MIN = 3_600_000

/** How much may be under way on one disk at a time, and how much of each kind may wait for that. */
export interface DiskLimits {
  readonly reads: number
  readonly writes: number
  readonly erasures: number
  readonly checks: number
  readonly waiting: number
}

/**
 * Reads hold what they ask for, up to 4 MiB, and have one call under way each. Writes hold 1 MiB at most, and mostly wait for
 * their bytes. Few checks: they read whole blocks, and nobody waits for them.
 */
const LIMITS: DiskLimits = { reads: 16, writes: 32, erasures: 4, checks: 2, waiting: 256 }

export interface DiskOptions {
  /** The disk's directory; closed with the disk. */
  readonly files: BlockFiles
  /** Bytes of the file system that are kept free. */
  readonly reserveBytes: number
  /** Milliseconds since 1970. */
  readonly now?: () => number
  readonly random?: RandomBytes
  readonly limits?: Partial<DiskLimits>
}

type Work = Exclude<keyof DiskLimits, 'waiting'>

export type DiskStatus = 'serving' | 'failed' | 'closed'

export class Disk {
  /** The id and the key of the disk; the registry and the shards need both, and nobody else may have the key. */
  readonly identity: DiskKey
  #cluster: ClusterId | undefined
  readonly #files: BlockFiles
  readonly #now: () => number
  readonly #usage: DiskUsage
  readonly #health = new DiskHealth()
  readonly #buffers: VerifyBuffers
  readonly #syncs: DirectorySyncs
  readonly #open: OpenBlocks
  readonly #slots: Record<Work, WorkSlots>
  /** Blocks that are being written, and by how many at once. */
  readonly #writing = new Map<BlockId, number>()
  #status: DiskStatus = 'serving'
  #failure: OperationError | undefined
  #probing: Promise<unknown> | undefined
  #temporaryCount = 0
  #closing: Promise<void> | undefined
  /** Resolves when all blocks are counted, or that was given up. */
  readonly counted: Promise<void>

  private constructor(
    { files, reserveBytes, now = Date.now, limits }: DiskOptions,
    identity: DiskKey,
    cluster: ClusterId | undefined,
  ) {
    this.identity = identity
    this.#cluster = cluster
    this.#files = files
    this.#now = now
    this.#usage = new DiskUsage(files, reserveBytes, now)
    this.#buffers = new VerifyBuffers(files)
    this.#syncs = new DirectorySyncs((path) => files.syncDirectory(path))
    this.#open = new OpenBlocks((id) => BlockFile.open(files, id))
    const { waiting, ...most } = { ...LIMITS, ...limits }
    this.#slots = {
      reads: new WorkSlots(most.reads, waiting),
      writes: new WorkSlots(most.writes, waiting),
      erasures: new WorkSlots(most.erasures, waiting),
      checks: new WorkSlots(most.checks, waiting),
    }
    this.counted = this.#slots.checks.run('count the blocks', () => this.#count(), undefined)
  }

  /**
   * The disk in the directory of `files`, made where that is empty. Leftovers of writes that were cut short are removed.
   * Where it fails, `files` are closed.
   * @throws DISK_UNUSABLE, DISK_FULL, DISK_FAILED, LOCAL_FAILED
   */
  static async open(options: DiskOptions): Promise<Disk> {
    const { files, random = randomBytes } = options
    try {
      const identity = await openIdentity(files, random)
      const cluster = await readCluster(files)
      const leftovers = await files.list(TEMPORARY_DIRECTORY)
      for (const { name } of leftovers) await files.remove(`${TEMPORARY_DIRECTORY}/${name}`)
      if (leftovers.length > 0) log.info({ disk: identity.disk, files: leftovers.length }, 'Removed unfinished blocks')
      return new Disk(options, identity, cluster)
    } catch (error) {
      await files.close().catch(() => undefined)
      const code = CODE_OF_FAULT[faultOf(error) ?? 'machine']
      if (faultOf(error) === undefined) throw error
      throw new OperationError(code, `Cannot open the disk: ${messageOf(error)}`, { cause: error })
    }
  }

  get id(): DiskId {
    return this.identity.disk
  }

  /** The cluster that it belongs to; undefined while it is new. */
  get cluster(): ClusterId | undefined {
    return this.#cluster
  }

  /** Belongs to that cluster from here on, for ever. @throws DISK_UNUSABLE where it belongs to another; DISK_FULL, DISK_FAILED, BLOCK_IO_FAILED */
  async join(cluster: ClusterId): Promise<void> {
    assert(this.#cluster === undefined, 'a disk joins one cluster')
    await this.#meant('keep which cluster the disk belongs to', () => writeCluster(this.#files, cluster))
    this.#cluster = cluster
  }

  get status(): DiskStatus {
    return this.#status
  }

  /** Why the disk is given up; undefined while it is not. */
  get failure(): OperationError | undefined {
    return this.#failure
  }

  /**
   * Writes a block and gives the receipt for it, once it is durable. The pieces of `bytes` must stay as they are once given;
   * they are read even where the block is there already.
   * @throws BLOCK_REFUSED, BLOCK_OUT_OF_TIME, BLOCK_CONFLICT, BLOCK_BUSY, BLOCK_CORRUPT where one is there and damaged, BLOCK_IO_FAILED, DISK_FULL, DISK_FAILED,
   *   INPUT_INVALID where the bytes are not those declared, ABORTED
   */
  async write(
    facts: BlockFacts,
    permit: Uint8Array,
    bytes: AsyncIterable<Uint8Array>,
    signal?: AbortSignal,
  ): Promise<Uint8Array> {
    checkFacts(facts)
    const action = `write block ${blockName(facts.id)}`
    this.#checkServing(action)
    if (!isSame(permit, writePermit(this.identity, facts))) throw refused(action)
    const age = this.#now() - blockTimeMs(facts.id)
    if (age > WRITE_AGE_MS_MAX || -age > WRITE_AHEAD_MS_MAX) throw outOfTime(action, age)
    this.#writing.set(facts.id, (this.#writing.get(facts.id) ?? 0) + 1)
    try {
      return await this.#run('writes', action, () => this.#writeNow(action, facts, bytes, signal), signal)
    } finally {
      const others = (this.#writing.get(facts.id) ?? 1) - 1
      if (others === 0) this.#writing.delete(facts.id)
      else this.#writing.set(facts.id, others)
    }
  }

  /**
   * `length` bytes of a block from `offset` on, at most `FETCH_BYTES_MAX`, all of them checked; or the pages that are bad.
   * @param memory where they are to lie
   * @throws BLOCK_NOT_FOUND, BLOCK_CUT, BLOCK_CORRUPT, BLOCK_BUSY, BLOCK_IO_FAILED, DISK_FAILED, INPUT_INVALID, ABORTED
   */
  async fetch(
    id: BlockId,
    offset: number,
    length: number,
    { signal, memory }: { readonly signal?: AbortSignal; readonly memory?: BufferMemory } = {},
  ): Promise<RangeRead> {
    const action = `read block ${blockName(id)}`
    this.#checkServing(action)
    const work = (): Promise<RangeRead> => this.#open.use(id, (file) => file.read(offset, length, memory))
    const reading = this.#run('reads', action, work, signal)
    let read: RangeRead
    try {
      read = await untilAborted(action, reading, signal)
    } catch (error) {
      // Nobody waits for it any more.
      void reading.then(release, () => undefined)
      throw error
    }
    if (read.outcome === 'bad-pages') await this.#open.drop(id)
    return read
  }

  /**
   * Reads a whole block from the device, and compares it with all its checksums.
   * @throws as `fetch`
   */
  async check(id: BlockId, signal?: AbortSignal): Promise<BlockCheck> {
    const action = `check block ${blockName(id)}`
    this.#checkServing(action)
    const work = (): Promise<BlockCheck> => checkBlockFile(this.#files, this.#buffers, id, signal)
    const found = await this.#abortable(action, signal, () => this.#run('checks', action, work, signal))
    if (found.outcome === 'bad-pages') await this.#open.drop(id)
    return found
  }

  /**
   * Erases a block and gives the receipt for that, once it is durable; also where there was none.
   * @throws BLOCK_REFUSED, BLOCK_OUT_OF_TIME, BLOCK_BUSY, BLOCK_IO_FAILED, DISK_FAILED, ABORTED
   */
  async erase(id: BlockId, permit: Uint8Array, signal?: AbortSignal): Promise<Uint8Array> {
    const action = `erase block ${blockName(id)}`
    this.#checkServing(action)
    if (!isSame(permit, erasePermit(this.identity, id))) throw refused(action)
    const age = this.#now() - blockTimeMs(id)
    if (age < ERASE_AGE_MS_MIN) throw outOfTime(action, age)
    if (this.#writing.has(id)) throw new OperationError('BLOCK_BUSY', `Cannot ${action}: it is being written`)
    return this.#abortable(action, signal, () => this.#run('erasures', action, () => this.#eraseNow(id), signal))
  }

  /** What the disk has and may still take. @throws DISK_FAILED */
  async usage(): Promise<Usage> {
    const action = 'tell the room of the disk'
    this.#checkServing(action)
    return this.#meant(action, () => this.#usage.now())
  }

  /** Lets go of the disk, once what is under way is done. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    if (this.#status === 'serving') this.#status = 'closed'
    const slots = Object.values(this.#slots)
    for (const each of slots) each.refuseWaiting(this.#refusal('go on'))
    await Promise.all(slots.map((each) => each.idle()))
    await this.#open.close()
    this.#status = 'closed'
    await this.#files.close()
  }

  async #writeNow(
    action: string,
    facts: BlockFacts,
    bytes: AsyncIterable<Uint8Array>,
    signal: AbortSignal | undefined,
  ): Promise<Uint8Array> {
    const path = blockPath(facts.id)
    const room = blockFileBytes(facts.size)
    const giveBack = await this.#usage.take(action, room)
    // Of their own even for the same block: the first one to be renamed is the block, the other finds it there.
    const temporary = `${TEMPORARY_DIRECTORY}/${blockName(facts.id)}-${this.#temporaryCount++}`
    try {
      let isOurs: boolean
      try {
        await writeBlockFile(this.#files, this.#buffers, temporary, facts, bytes, signal)
        isOurs = await this.#files.rename(temporary, path)
      } catch (error) {
        await this.#discard(temporary)
        throw error
      }
      if (isOurs) {
        this.#usage.added(path, room)
      } else {
        await this.#discard(temporary)
        await this.#compare(action, facts)
      }
      // Where this fails, the block stays, unacknowledged: another who brought it may have been given a receipt.
      await this.#syncDirectory(action, blockDirectory(facts.id))
      return writeReceipt(this.identity, facts)
    } finally {
      giveBack()
    }
  }

  /** Whether the block that is there is the one that was brought. */
  async #compare(action: string, facts: BlockFacts): Promise<void> {
    const found = await checkBlockFile(this.#files, this.#buffers, facts.id)
    if (found.outcome === 'bad-pages') {
      const detail = `it is there, and ${found.pages.length} of its pages are damaged`
      throw new OperationError('BLOCK_CORRUPT', `Cannot ${action}: ${detail}`)
    }
    if (found.facts.size === facts.size && found.facts.crc === facts.crc) return
    throw new OperationError('BLOCK_CONFLICT', `Cannot ${action}: another block has that id`)
  }

  async #eraseNow(id: BlockId): Promise<Uint8Array> {
    const bytes = await this.#files.remove(blockPath(id))
    if (bytes !== undefined) {
      this.#usage.removed(blockPath(id), bytes)
      // After the removal, so that no reader opens it again in between.
      await this.#open.drop(id)
    }
    // Also of one that is not there: the process that removed it may have ended before its sync.
    await this.#syncDirectory(`erase block ${blockName(id)}`, blockDirectory(id))
    return eraseReceipt(this.identity, id)
  }

  /** What is left of a write that failed; what cannot be removed now is removed at the next start. */
  async #discard(temporary: string): Promise<void> {
    try {
      await this.#files.remove(temporary)
    } catch (error) {
      log.warn({ err: error, disk: this.id, file: temporary }, 'Cannot remove an unfinished block')
    }
  }

  /** A sync that failed may have lost any name of the directory, and the next one would not tell: so the disk is lost. */
  async #syncDirectory(action: string, directory: string): Promise<void> {
    try {
      await this.#syncs.sync(directory)
    } catch (error) {
      if (faultOf(error) === 'io') throw this.#fail(action, error)
      throw error
    }
  }

  async #count(): Promise<void> {
    try {
      await this.#meant('count the blocks', () => this.#usage.count(() => this.#status !== 'serving'))
    } catch (error) {
      // A disk that has failed has said so.
      if (this.#status !== 'serving') return
      log.error({ err: error, disk: this.id }, 'Cannot count the blocks of the disk: its usage is too low')
    }
  }

  #run<T>(kind: Work, action: string, work: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    return this.#slots[kind].run(action, () => this.#meant(action, work), signal)
  }

  /** Ends the waiting when the signal fires; the work goes on in its slot. */
  #abortable<T>(action: string, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
    return untilAborted(action, work(), signal)
  }

  /** Does the work, and finds out what its failure means for the disk. */
  async #meant<T>(action: string, work: () => Promise<T>): Promise<T> {
    this.#checkServing(action)
    try {
      const result = await work()
      this.#health.count(this.#now(), false)
      return result
    } catch (error) {
      throw await this.#meaningOf(action, error)
    }
  }

  async #meaningOf(action: string, error: unknown): Promise<unknown> {
    const fault = faultOf(error)
    if (isOperationError(error, 'BLOCK_IO_FAILED')) return this.#failedAt(action, error)
    if (fault === undefined) return error
    if (fault === 'full') this.#usage.forget()
    if (fault === 'device') return this.#fail(action, error)
    if (fault === 'io') return this.#failedAt(action, error)
    return new OperationError(CODE_OF_FAULT[fault], `Cannot ${action}: ${messageOf(error)}`, { cause: error })
  }

  /** An I/O error at one file: whether it is more than that. */
  async #failedAt(action: string, error: unknown): Promise<OperationError> {
    this.#health.count(this.#now(), true)
    this.#probing ??= probeDisk(this.#files, this.id).finally(() => {
      this.#probing = undefined
    })
    const wrong = await this.#probing
    if (wrong !== undefined) return this.#fail(action, wrong)
    if (this.#health.isLost(this.#now())) return this.#fail(action, error)
    if (error instanceof OperationError) return error
    return new OperationError('BLOCK_IO_FAILED', `Cannot ${action}: ${messageOf(error)}`, { cause: error })
  }

  /** The disk withdraws itself. */
  #fail(action: string, error: unknown): OperationError {
    if (this.#status === 'serving') {
      this.#status = 'failed'
      const message = `Cannot use disk ${this.id}: ${messageOf(error)}`
      this.#failure = new OperationError('DISK_FAILED', message, { cause: error })
      log.error({ err: error, disk: this.id }, 'The disk has failed and is withdrawn')
      for (const slots of Object.values(this.#slots)) slots.refuseWaiting(this.#failure)
    }
    return this.#refusal(action)
  }

  #checkServing(action: string): void {
    if (this.#status !== 'serving') throw this.#refusal(action)
  }

  #refusal(action: string): OperationError {
    const why = this.#failure?.message ?? `disk ${this.id} is closed`
    return new OperationError('DISK_FAILED', `Cannot ${action}: ${why}`, { cause: this.#failure })
  }
}

function release(read: RangeRead): void {
  if (read.outcome === 'whole') read.release?.()
}

const CODE_OF_FAULT = {
  full: 'DISK_FULL',
  io: 'DISK_FAILED',
  device: 'DISK_FAILED',
  machine: 'LOCAL_FAILED',
} as const satisfies Record<string, ErrorCode>

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

function checkFacts({ id, size, crc }: BlockFacts): void {
  assert(isBlockId(id), 'the id of a block is a safe integer')
  if (
    Number.isSafeInteger(size) &&
    size >= 1 &&
    size <= BLOCK_BYTES_MAX &&
    Number.isInteger(crc) &&
    crc === crc >>> 0
  ) {
    return
  }
  const detail = `a block has 1 to ${BLOCK_BYTES_MAX} bytes and a crc of 32 bits, not ${size} and ${crc}`
  throw new OperationError('INPUT_INVALID', `Cannot write block ${blockName(id)}: ${detail}`)
}

function refused(action: string): OperationError {
  return new OperationError('BLOCK_REFUSED', `Cannot ${action}: its permit is not of this disk for that`)
}

function outOfTime(action: string, ageMs: number): OperationError {
  const seconds = Math.round(Math.abs(ageMs) / 1000)
  const age = ageMs >= 0 ? `${seconds} seconds old` : `of a time ${seconds} seconds ahead`
  return new OperationError('BLOCK_OUT_OF_TIME', `Cannot ${action}: by this clock its id is ${age}`)
}
