/**
 * The disks of a cluster whose processes do not run, each by its directory (docs/formats/blocks.md): blocks are read from their files, as block
 * services read them. Nothing is written; the lock of each directory is held meanwhile.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'

import { isOperationError, OperationError } from '#base/errors.ts'
import { BlockFile, checkBlockFile, VerifyBuffers } from '#cluster/block/block-file.ts'
import type { BlockFiles, StoredName } from '#cluster/block/block-files.ts'
import { errnoOfCall } from '#cluster/block/block-files.ts'
import { type BlockId, blockPath } from '#cluster/block/block-id.ts'
import { blockFileBytes } from '#cluster/block/block-trailer.ts'
import type { FetchReply } from '#cluster/block/block-messages.ts'
import { IDENTITY_FILE, readIdentity } from '#cluster/block/disk-identity.ts'
import { LinuxBlockFiles } from '#cluster/block/linux-block-files.ts'
import { OpenBlocks } from '#cluster/block/open-blocks.ts'
import type { DiskId } from '#cluster/block/permit.ts'

import { DirectoryInUseError } from './machine-directory.ts'

const NOTHING = Buffer.alloc(0)

/** Whether the directory is a disk. */
export function isDiskDirectory(path: string): boolean {
  return existsSync(join(path, IDENTITY_FILE)) && existsSync(join(path, '00'))
}

/** One disk. */
export class OfflineDisk {
  readonly path: string
  readonly id: DiskId
  readonly #files: BlockFiles
  readonly #buffers: VerifyBuffers
  readonly #open: OpenBlocks

  private constructor(path: string, id: DiskId, files: BlockFiles) {
    this.path = path
    this.id = id
    this.#files = files
    this.#buffers = new VerifyBuffers(files)
    this.#open = new OpenBlocks((block) => BlockFile.open(files, block))
  }

  /** @throws JOURNAL_FAILED where a process uses it; DISK_UNUSABLE */
  static async open(path: string): Promise<OfflineDisk> {
    let files: BlockFiles
    try {
      files = LinuxBlockFiles.open(path)
    } catch (error) {
      if (!isOperationError(error, 'DISK_UNUSABLE') || error.cause !== undefined) throw error
      throw new DirectoryInUseError(path, /: (.*) uses it$/.exec(error.message)?.[1] ?? 'another process', error)
    }
    try {
      return new OfflineDisk(path, (await readIdentity(files)).disk, files)
    } catch (error) {
      await files.close()
      if (isOperationError(error)) throw new OperationError(error.code, `${error.message} (${path})`, { cause: error })
      throw ofDisk(path, error)
    }
  }

  async close(): Promise<void> {
    await this.#open.close()
    await this.#files.close()
  }

  /** A range of a block, each page of it checked. @throws BLOCK_NOT_FOUND, BLOCK_CUT, BLOCK_CORRUPT, BLOCK_IO_FAILED, INPUT_INVALID */
  async fetch(block: BlockId, offset: number, length: number): Promise<FetchReply> {
    const read = await this.#call(() => this.#open.use(block, (file) => file.read(offset, length)))
    if (read.outcome === 'bad-pages') return { outcome: 'bad', bytes: NOTHING, pages: [...read.pages] }
    const { buffer, byteOffset } = read.bytes
    return { outcome: 'whole', bytes: Buffer.from(buffer, byteOffset, read.bytes.length), pages: [] }
  }

  /**
   * That a block of so many bytes is there; with its checksum, that all of it can be read and is right.
   * @throws BLOCK_NOT_FOUND, BLOCK_CUT, BLOCK_CORRUPT, BLOCK_IO_FAILED
   */
  async check(block: BlockId, size: number, crc?: number): Promise<void> {
    if (crc === undefined) return this.#checkLength(block, size)
    const found = await this.#call(() => checkBlockFile(this.#files, this.#buffers, block))
    const { outcome } = found
    const action = 'Cannot use the block'
    if (outcome === 'bad-pages') {
      throw new OperationError('BLOCK_CORRUPT', `${action}: ${found.pages.length} of its pages are damaged`)
    }
    if (found.facts.size !== size || found.facts.crc !== crc) {
      throw new OperationError('BLOCK_CORRUPT', `${action}: it has other bytes than the span says`)
    }
  }

  /** What lies in one of the directories of blocks. */
  list(directory: string): Promise<readonly StoredName[]> {
    return this.#call(() => this.#files.list(directory))
  }

  async #checkLength(block: BlockId, size: number): Promise<void> {
    const bytes = await this.#call(async () => {
      const file = await this.#files.open(blockPath(block), 'cached')
      await file?.close()
      return file?.bytes
    })
    if (bytes === undefined) throw new OperationError('BLOCK_NOT_FOUND', 'Cannot use the block: it is not there')
    if (bytes === blockFileBytes(size)) return
    const detail = `its file has ${bytes} bytes rather than ${blockFileBytes(size)}`
    throw new OperationError('BLOCK_CUT', `Cannot use the block: ${detail}`)
  }

  async #call<T>(call: () => Promise<T>): Promise<T> {
    try {
      return await call()
    } catch (error) {
      throw ofDisk(this.path, error)
    }
  }
}

/** What a call of the system failed with, as an error of the block; all else as it is. */
function ofDisk(path: string, error: unknown): unknown {
  if (errnoOfCall(error) === undefined) return error
  return new OperationError('BLOCK_IO_FAILED', `Cannot read from disk "${path}": ${(error as Error).message}`, {
    cause: error,
  })
}
