/**
 * How a staged file comes to be, and comes by bytes of the version that it lies over. A file of up to `wholeBytesMax` is
 * fetched whole before its first write, so that a conflict copy is complete and no read needs the store any more; a
 * larger one is laid over its base at once, and fetched in full only before its name goes away.
 *
 * Every fetch is pinned to the version of the node. Where that is gone, and not by a change made here, the handles of the
 * node get ESTALE.
 */
import { assert } from '#base/assert.ts'
import { isOperationError, OperationError } from '#base/errors.ts'
import type { Version } from '#store/store.ts'

import type { MountState } from './mount-state.ts'
import { stateOf } from './node-table.ts'
import { OpenFile, type Node } from './node.ts'
import type { Range } from './ranges.ts'
import type { StagedFile } from './staged-file.ts'

/** Missing ranges nearer to each other are fetched with what lies between: a request costs as much time as so many bytes. */
const GAP_BYTES_MIN = 1 << 20
/** Fetches of one file under way at once; the store splits each into parallel ones. */
const FETCHES_AT_ONCE = 4

export class Stager {
  readonly #state: MountState

  constructor(state: MountState) {
    this.#state = state
  }

  /** See `Publisher.stage`. */
  stage(node: Node, length: number): StagedFile | Promise<StagedFile> {
    if (node.file?.staged !== undefined) return node.file.staged
    const passed = this.#state.passthrough.stage(node, length)
    if (passed instanceof Promise) return passed.then((staged) => staged ?? this.stage(node, length))
    if (passed !== undefined) return passed
    if (node.detached !== undefined) throw this.stale(node)
    if (length === 0) return this.stageEmpty(node)
    node.file ??= new OpenFile()
    const { file } = node
    if (file.staging !== undefined) return file.staging
    if (length > this.#state.staging.wholeBytesMax) {
      const staged = this.#create()
      staged.layOver(length)
      file.staged = staged
      return staged
    }
    file.staging = this.#download(node, file, length).finally(() => {
      file.staging = undefined
    })
    return file.staging
  }

  /** A new staged file that lies over nothing. */
  stageEmpty(node: Node): StagedFile {
    const staged = this.#create()
    node.file ??= new OpenFile()
    node.file.staged = staged
    return staged
  }

  #create(): StagedFile {
    return this.#state.staging.create()
  }

  /** The error of a handle whose file is no more to be had. */
  stale(node: Node, cause?: unknown): OperationError {
    const message = `Cannot use "${this.#state.table.describe(node)}": somebody else has replaced or removed it`
    return new OperationError('FILE_STALE', message, { cause })
  }

  /** As `stale`, where the store has just said so: the next look at the name asks what it has now. */
  replaced(node: Node, cause: unknown): OperationError {
    if (node.detached === undefined && !node.isAhead) this.#state.table.supersede(node)
    return this.stale(node, cause)
  }

  async #download(node: Node, file: OpenFile, length: number): Promise<StagedFile> {
    const expected = Math.min(length, node.size)
    return this.#pinned(node, async (path, version) => {
      const { store, signal } = this.#state
      const staged = this.#create()
      try {
        const reading = await store.read(path, { version, length, signal })
        await staged.fill(reading.body)
        if (staged.size !== expected) {
          throw new OperationError('STORE_CORRUPT', `Cannot fetch "${node.name}": ${staged.size} bytes came`)
        }
      } catch (error) {
        staged.close()
        if (file.staged !== undefined) return file.staged
        throw error
      }
      // A truncation to nothing needs no bytes and did not wait: its file, and what was written to it since, is the newer.
      if (file.staged === undefined) file.staged = staged
      else staged.close()
      return file.staged
    })
  }

  /**
   * Brings here what is missing of a staged file. For who holds the lock of the node.
   * @throws OperationError `FILE_STALE` where the store no more has the base, `STAGING_NO_SPACE`.
   */
  async complete(node: Node, staged: StagedFile): Promise<void> {
    const queue = merged(staged.missing.within(0, Infinity))
    const failed = new AbortController()
    const worker = async (): Promise<void> => {
      for (let range = queue.shift(); range !== undefined && !failed.signal.aborted; range = queue.shift()) {
        await this.#bring(node, staged, range, failed.signal)
      }
    }
    const workers = Array.from({ length: FETCHES_AT_ONCE }, () =>
      worker().catch((error: unknown) => {
        failed.abort(error)
        throw error
      }),
    )
    // Nothing is under way any more when this ends.
    await Promise.allSettled(workers)
    await Promise.all(workers)
  }

  async #bring(node: Node, staged: StagedFile, { start, end }: Range, failed: AbortSignal): Promise<void> {
    const { store, signal } = this.#state
    const either = AbortSignal.any([signal, failed])
    await this.#pinned(node, async (path, version) => {
      const reading = await store.read(path, { version, offset: start, length: end - start, signal: either })
      let at = start
      for await (const chunk of reading.body) {
        staged.bring(at, chunk)
        at += chunk.length
      }
      if (staged.missing.meets(start, end)) {
        throw new OperationError('STORE_CORRUPT', `Cannot fetch "${node.name}": ${end - at} bytes are missing`)
      }
    })
  }

  /** Tries again where the version or the path was another only because of a change made here meanwhile. */
  async #pinned<T>(node: Node, read: (path: string, version: Version) => Promise<T>): Promise<T> {
    const { table, tree } = this.#state
    for (;;) {
      const { version } = node
      if (node.detached !== undefined) throw this.stale(node)
      assert(version !== undefined, 'what is fetched is in the store')
      const path = table.pathOf(node)
      try {
        return await read(path, version)
      } catch (error) {
        if (!isOperationError(error, 'STORE_CONFLICT', 'STORE_NOT_FOUND')) throw error
        await tree.settled(node)
        await this.#state.unanswered.settled(node)
        // Not the lock of the node: its holder may be waiting for this.
        if (node.parent !== undefined) await stateOf(node.parent).changing.get(node.name)?.ended
        if (node.detached !== undefined) throw this.stale(node, error)
        if (node.version === version && table.pathOf(node) === path) throw this.replaced(node, error)
      }
    }
  }

  /** See `Publisher.keepReadable`. */
  async keepReadable(node: Node): Promise<void> {
    if (node.kind !== 'file' || node.file === undefined || node.file.handles === 0) return
    try {
      const staged = await this.stage(node, node.size)
      if (!staged.isComplete) await this.complete(node, staged)
    } catch (error) {
      this.#dropClean(node)
      if (isOperationError(error, 'FILE_STALE')) return
      if (!isOperationError(error, 'STAGING_NO_SPACE')) throw error
      this.#state.log.warn(
        { err: error },
        `Cannot keep "${node.name}" readable for who has it open; its name goes all the same`,
      )
    }
  }

  /** Gives room back that a file took which was not written to, and could not be brought here in full. */
  #dropClean({ file }: Node): void {
    if (file?.staged === undefined || file.dirty || file.staged.isComplete) return
    file.staged.close()
    file.staged = undefined
  }
}

/** The ranges with those that lie near to each other as one. */
function merged(ranges: Iterable<Range>): Range[] {
  const all: { start: number; end: number }[] = []
  for (const { start, end } of ranges) {
    const last = all.at(-1)
    if (last !== undefined && start - last.end < GAP_BYTES_MIN) last.end = end
    else all.push({ start, end })
  }
  return all
}
