/**
 * Blocks that were read lately, open and with their trailers checked: a reader that comes back for the next range of a block
 * costs one read of the file, where the first one costs five calls. Bounded in files and in the bytes of their
 * checksums; who was used longest ago goes first, and is closed when its last reader is done.
 */
import type { BlockFile } from './block-file.ts'
import type { BlockId } from './block-id.ts'

const FILES_MAX = 128
const SUM_BYTES_MAX = 4 << 20

interface Entry {
  readonly opening: Promise<BlockFile>
  /** Of its checksums; 0 until it is open. */
  bytes: number
  users: number
  isDropped: boolean
}

export class OpenBlocks {
  readonly #open: (id: BlockId) => Promise<BlockFile>
  /** In the order of their last uses. */
  readonly #entries = new Map<BlockId, Entry>()
  #sumBytes = 0

  constructor(open: (id: BlockId) => Promise<BlockFile>) {
    this.#open = open
  }

  /** What `work` makes of the open block. */
  async use<T>(id: BlockId, work: (file: BlockFile) => Promise<T>): Promise<T> {
    const entry = this.#entries.get(id) ?? { opening: this.#open(id), bytes: 0, users: 0, isDropped: false }
    this.#entries.delete(id)
    this.#entries.set(id, entry)
    entry.users++
    try {
      const file = await entry.opening
      if (entry.bytes === 0 && !entry.isDropped) {
        entry.bytes = file.trailer.sums.byteLength
        this.#sumBytes += entry.bytes
      }
      return await work(file)
    } catch (error) {
      // It is looked at anew next time: what failed may be the open file, not the block.
      this.#drop(id, entry)
      throw error
    } finally {
      entry.users--
      if (entry.isDropped && entry.users === 0) await closeOf(entry)
      await this.#makeRoom()
    }
  }

  /** Forgets the block: it is removed, or not what it was. */
  async drop(id: BlockId): Promise<void> {
    const entry = this.#entries.get(id)
    if (entry === undefined) return
    this.#drop(id, entry)
    if (entry.users === 0) await closeOf(entry)
  }

  /** Closes all of them; nobody uses one. */
  async close(): Promise<void> {
    for (const id of [...this.#entries.keys()]) await this.drop(id)
  }

  #drop(id: BlockId, entry: Entry): void {
    if (entry.isDropped) return
    entry.isDropped = true
    this.#sumBytes -= entry.bytes
    if (this.#entries.get(id) === entry) this.#entries.delete(id)
  }

  async #makeRoom(): Promise<void> {
    if (this.#entries.size <= FILES_MAX && this.#sumBytes <= SUM_BYTES_MAX) return
    for (const [id, entry] of this.#entries) {
      if (entry.users > 0) continue
      this.#drop(id, entry)
      await closeOf(entry)
      if (this.#entries.size <= FILES_MAX && this.#sumBytes <= SUM_BYTES_MAX) return
    }
  }
}

/** Nothing was written, so that closing has nothing to tell; and what could not be opened is not open. */
async function closeOf(entry: Entry): Promise<void> {
  await entry.opening.then((file) => file.close()).catch(() => undefined)
}
