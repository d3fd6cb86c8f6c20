/**
 * The bytes of files. A file is written as a transient one, and gets its name when all of it is durable: so it is absent or complete, and what
 * had the name before becomes history in the same step. What is small goes into the record of the file with one request.
 *
 *   bytes --up to the inline limit--> create
 *     '--more--> construct --span after span--> link
 *                                '--failure--> scrap
 *
 * Holes are spans that have neither bytes nor blocks.
 */
import { crc32c, crc32cZeros } from '#cluster/erasure/crc32c.ts'
import { inodeShard, type InodeId, type InodeType } from '#cluster/inode-id.ts'
import { shardMessages } from '#cluster/shard/shard-messages.ts'
import type { ValueOf } from '#cluster/wire/codec.ts'
import { ANYTHING, NO_INODE, type NameGuard, type Policy, type xattr } from '#cluster/wire/forms.ts'

import type { ClusterClient, NewAttributes, Slot } from './cluster-client.ts'
import { type Piece, PieceQueue, readPieces } from './pieces.ts'
import { chooseSpan, inlineBytesMaxOf, spanBytesOf, type SpanForm } from './redundancy-choice.ts'
import { SpanReader, type SpanSource } from './span-reader.ts'
import { SpanWriter, type LentSpan } from './span-writer.ts'

/** Spans asked for at once. */
const SPANS_PAGE = 64
const NO_BYTES = Buffer.alloc(0)

export interface FileToWrite extends Slot {
  readonly type?: Exclude<InodeType, 'directory'>
  readonly attributes: NewAttributes
  readonly guard?: NameGuard
  readonly xattrs?: readonly ValueOf<typeof xattr>[]
  /** What holds in the directory. */
  readonly policy: Policy
  /** How many bytes there will be, where that is known; it need not be right. */
  readonly sizeHint?: number | undefined
  /** Told how each span in blocks was written. */
  readonly onSpan?: (form: SpanForm) => void
}

export interface WrittenFile {
  readonly inode: InodeId
  readonly created: number
  readonly replaced: InodeId
  readonly size: number
}

/** A span at the end of a transient file. */
interface NewSpan {
  readonly file: InodeId
  readonly cookie: Buffer
  readonly offset: number
  readonly size: number
}

export class ClusterFiles {
  readonly #client: ClusterClient
  readonly #writer: SpanWriter
  readonly #reader: SpanReader

  constructor(client: ClusterClient, { spansAtOnce }: { readonly spansAtOnce?: number } = {}) {
    const { surroundings, caller, blocks, map: disks, location } = client
    this.#client = client
    const shard = (number: number) => disks.shard(number)
    const bound = spansAtOnce === undefined ? {} : { spansAtOnce }
    this.#writer = new SpanWriter({ surroundings, caller, blocks, disks, shard, ...bound })
    this.#reader = new SpanReader({ surroundings, blocks, disks, location })
  }

  /** Bytes of a file from `offset` on, in order. @throws SPANS_LOST, INODE_NOT_FOUND */
  read(file: InodeId, offset = 0, length = Number.MAX_SAFE_INTEGER, signal?: AbortSignal): AsyncGenerator<Buffer> {
    return this.#reader.read(this.#sourceOf(file), offset, Math.min(length, Number.MAX_SAFE_INTEGER - offset), signal)
  }

  /** All of a file, its holes as such. A buffer is good until the next piece is asked for. @throws SPANS_LOST, INODE_NOT_FOUND */
  pieces(file: InodeId, signal?: AbortSignal): AsyncGenerator<Piece> {
    return readPieces(this.#reader, this.#sourceOf(file), signal)
  }

  #sourceOf(file: InodeId): SpanSource {
    return {
      file,
      spansFrom: (from, abort) =>
        this.#client.ask(file, shardMessages.spans, { file, offset: from, limit: SPANS_PAGE }, { signal: abort }),
    }
  }

  /**
   * Writes a file and gives it its name. Chunks may be used again by who gave them, once the next one is asked for.
   * @throws NAME_TAKEN, EDGE_CHANGED by the guard; DISKS_MISSING, DISK_FULL; what the source throws
   */
  async write(file: FileToWrite, source: AsyncIterable<Piece>, signal?: AbortSignal): Promise<WrittenFile> {
    const pieces = source[Symbol.asyncIterator]()
    const input = new PieceQueue(pieces)
    const whole = await input.whole(inlineBytesMaxOf(file.policy))
    if (whole !== undefined) return this.#create(file, whole, signal)
    try {
      return await this.#writeSpans(file, input, signal)
    } finally {
      await pieces.return?.()
    }
  }

  async #create(file: FileToWrite, bytes: Buffer, signal: AbortSignal | undefined): Promise<WrittenFile> {
    const { directory, name, type = 'file', attributes, guard = ANYTHING, xattrs = [] } = file
    const crc = bytes.length === 0 ? 0 : crc32c(bytes)
    const request = { directory, name, guard, type, attributes, size: bytes.length, crc, bytes, xattrs }
    return { ...(await this.#client.ask(directory, shardMessages.create, request, { signal })), size: bytes.length }
  }

  async #writeSpans(file: FileToWrite, input: PieceQueue, signal: AbortSignal | undefined): Promise<WrittenFile> {
    const client = this.#client
    const { directory, name, attributes, guard = ANYTHING, xattrs = [] } = file
    const shard = inodeShard(directory)
    const constructed = await client.askShard(
      shard,
      shardMessages.construct,
      { type: 'file', attributes, note: name.slice(0, 60) },
      { signal },
    )
    try {
      const size = await this.#writeAll(file, constructed, input, signal)
      for (const each of xattrs) {
        const request = { inode: constructed.file, xattr: each, how: 'any' as const }
        await client.askShard(shard, shardMessages.setXattr, request, { signal })
      }
      const link = { ...constructed, directory, name, guard, size }
      const linked = await client.askShard(shard, shardMessages.link, link, { signal })
      return { inode: constructed.file, ...linked, size }
    } catch (error) {
      // What was written is erased some time after its deadline in any case; this only makes it sooner.
      await client.askShard(shard, shardMessages.scrap, constructed).catch(() => undefined)
      throw error
    }
  }

  /** Fills one span while the one before is being written. */
  async #writeAll(
    file: FileToWrite,
    { file: inode, cookie }: { readonly file: InodeId; readonly cookie: Buffer },
    input: PieceQueue,
    signal: AbortSignal | undefined,
  ): Promise<number> {
    const { policy, onSpan } = file
    const inlineMax = inlineBytesMaxOf(policy)
    let offset = 0
    let writing: Promise<void> = Promise.resolve()
    try {
      for (;;) {
        const next = await input.next()
        if (next === undefined) {
          await writing
          // Not what the spans add up to: so the shard finds out where one of them was left out.
          return input.taken
        }
        const at = offset
        if (next === 'hole') {
          await writing
          const size = input.takeHole()
          offset += size
          writing = this.#addInline({ file: inode, cookie, offset: at, size, bytes: NO_BYTES }, signal)
        } else {
          const lent = await this.#lend(file, offset, input, signal)
          let bytes: Uint8Array
          try {
            bytes = lent.bytes.subarray(0, await input.fill(lent.bytes))
            await writing
          } catch (error) {
            lent.release()
            throw error
          }
          const span = { file: inode, cookie, offset: at, size: bytes.length, bytes }
          offset += bytes.length
          if (bytes.length > inlineMax) writing = this.#addSpan(span, policy, lent, onSpan, signal)
          else {
            writing = this.#addInline({ ...span, bytes: Buffer.from(bytes) }, signal)
            lent.release()
          }
        }
        // Waited for above, once the next span is full.
        writing.catch(() => undefined)
      }
    } finally {
      await writing
    }
  }

  /** Memory for the next span: for as many bytes as are expected. */
  #lend(
    { policy, sizeHint = 0 }: FileToWrite,
    offset: number,
    input: PieceQueue,
    signal: AbortSignal | undefined,
  ): Promise<LentSpan> {
    const disks = this.#client.map
    const spanBytes = spanBytesOf(policy, disks.all())
    // What goes on beyond what was expected may do so for long.
    const expected = sizeHint > offset ? Math.max(sizeHint - offset, input.keptBytes) : spanBytes
    const bytes = Math.min(spanBytes, Math.max(expected, inlineBytesMaxOf(policy) + 1))
    return this.#writer.lend(bytes, chooseSpan(policy, bytes, disks.all()), signal)
  }

  /** Bytes that lie in the record of the span, then zeros. */
  async #addInline(span: NewSpan & { readonly bytes: Buffer }, signal: AbortSignal | undefined): Promise<void> {
    const crc = crc32cZeros(crc32c(span.bytes), span.size - span.bytes.length)
    await this.#client.ask(span.file, shardMessages.addInline, { ...span, crc }, { signal })
  }

  async #addSpan(
    span: NewSpan & { readonly bytes: Uint8Array },
    policy: Policy,
    lent: LentSpan,
    onSpan: ((form: SpanForm) => void) | undefined,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    try {
      const disks = this.#client.map
      const choose: Parameters<SpanWriter['write']>[0]['choose'] = (avoided) =>
        chooseSpan(policy, span.size, disks.all(), avoided)
      const form = await this.#writer.write({ ...span, choose, like: NO_INODE }, signal)
      onSpan?.(form)
    } finally {
      lent.release()
    }
  }
}
