/**
 * The bytes of files. A file is written as a transient one, and gets its name when all of it is durable: so it is absent or complete, and what
 * had the name before becomes history in the same step. What is small goes into the record of the file with one request.
 *
 *   bytes --up to the inline limit--> create
 *     '--more--> construct --span after span--> link
 *                                '--failure--> scrap
 */
import { crc32c } from '#cluster/erasure/crc32c.ts'
import { inodeShard, type InodeId, type InodeType } from '#cluster/inode-id.ts'
import { shardMessages } from '#cluster/shard/shard-messages.ts'
import type { ValueOf } from '#cluster/wire/codec.ts'
import { ANYTHING, NO_INODE, type NameGuard, type Policy, type xattr } from '#cluster/wire/forms.ts'

import type { ClusterClient, NewAttributes, Slot } from './cluster-client.ts'
import { chooseSpan, inlineBytesMaxOf, spanBytesOf, type SpanForm } from './redundancy-choice.ts'
import { SpanReader, type SpanSource } from './span-reader.ts'
import { SpanWriter, type LentSpan } from './span-writer.ts'

/** Spans asked for at once. */
const SPANS_PAGE = 64

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
    const source: SpanSource = {
      file,
      spansFrom: (from, abort) =>
        this.#client.ask(file, shardMessages.spans, { file, offset: from, limit: SPANS_PAGE }, { signal: abort }),
    }
    return this.#reader.read(source, offset, Math.min(length, Number.MAX_SAFE_INTEGER - offset), signal)
  }

  /**
   * Writes a file and gives it its name. Chunks may be used again by who gave them, once the next one is asked for.
   * @throws NAME_TAKEN, EDGE_CHANGED by the guard; DISKS_MISSING, DISK_FULL; what the source throws
   */
  async write(file: FileToWrite, source: AsyncIterable<Uint8Array>, signal?: AbortSignal): Promise<WrittenFile> {
    const inlineMax = inlineBytesMaxOf(file.policy)
    const chunks = source[Symbol.asyncIterator]()
    const head = await gather(chunks, inlineMax)
    if (head.isEnd) return this.#create(file, Buffer.concat(head.chunks), signal)
    return this.#writeSpans(file, head.chunks, chunks, signal)
  }

  async #create(file: FileToWrite, bytes: Buffer, signal: AbortSignal | undefined): Promise<WrittenFile> {
    const { directory, name, type = 'file', attributes, guard = ANYTHING, xattrs = [] } = file
    const crc = bytes.length === 0 ? 0 : crc32c(bytes)
    const request = { directory, name, guard, type, attributes, size: bytes.length, crc, bytes, xattrs }
    return { ...(await this.#client.ask(directory, shardMessages.create, request, { signal })), size: bytes.length }
  }

  async #writeSpans(
    file: FileToWrite,
    head: readonly Uint8Array[],
    chunks: AsyncIterator<Uint8Array>,
    signal: AbortSignal | undefined,
  ): Promise<WrittenFile> {
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
      const size = await this.#writeAll(file, constructed, head, chunks, signal)
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
    } finally {
      await chunks.return?.()
    }
  }

  /** Fills one span while the one before is being written. */
  async #writeAll(
    file: FileToWrite,
    { file: inode, cookie }: { readonly file: InodeId; readonly cookie: Buffer },
    head: readonly Uint8Array[],
    chunks: AsyncIterator<Uint8Array>,
    signal: AbortSignal | undefined,
  ): Promise<number> {
    const { policy, sizeHint, onSpan } = file
    const disks = this.#client.map
    const inlineMax = inlineBytesMaxOf(policy)
    const headBytes = head.reduce((bytes, chunk) => bytes + chunk.length, 0)
    const input = new ChunkQueue(head, chunks)
    let offset = 0
    let writing: Promise<void> = Promise.resolve()
    try {
      for (;;) {
        const spanBytes = spanBytesOf(policy, disks.all())
        const expected = sizeHint === undefined ? spanBytes : Math.max(sizeHint - offset, headBytes, inlineMax + 1)
        const lent = await this.#writer.lend(
          Math.min(spanBytes, expected),
          chooseSpan(policy, Math.min(spanBytes, expected), disks.all()),
          signal,
        )
        let count: number
        try {
          count = await input.fill(lent.bytes)
          await writing
        } catch (error) {
          lent.release()
          throw error
        }
        if (count === 0) {
          lent.release()
          // Not what the spans add up to: so the shard finds out where one of them was left out.
          return input.taken
        }
        const bytes = lent.bytes.subarray(0, count)
        const at = offset
        offset += count
        writing =
          count <= inlineMax
            ? this.#addInline(inode, cookie, at, bytes, lent, signal)
            : this.#addSpan({ file: inode, cookie, offset: at, bytes }, policy, lent, onSpan, signal)
        // Waited for above, once the next span is full.
        writing.catch(() => undefined)
      }
    } finally {
      await writing
    }
  }

  async #addInline(
    file: InodeId,
    cookie: Buffer,
    offset: number,
    span: Uint8Array,
    lent: LentSpan,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const bytes = Buffer.from(span)
    lent.release()
    const request = { file, cookie, offset, size: bytes.length, crc: crc32c(bytes), bytes }
    await this.#client.ask(file, shardMessages.addInline, request, { signal })
  }

  async #addSpan(
    span: { readonly file: InodeId; readonly cookie: Buffer; readonly offset: number; readonly bytes: Uint8Array },
    policy: Policy,
    lent: LentSpan,
    onSpan: ((form: SpanForm) => void) | undefined,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    try {
      const disks = this.#client.map
      const { length } = span.bytes
      const choose: Parameters<SpanWriter['write']>[0]['choose'] = (avoided) =>
        chooseSpan(policy, length, disks.all(), avoided)
      const form = await this.#writer.write({ ...span, choose, like: NO_INODE }, signal)
      onSpan?.(form)
    } finally {
      lent.release()
    }
  }
}

/** Takes chunks until there are more bytes than that, or all. */
async function gather(
  source: AsyncIterator<Uint8Array>,
  bytesMax: number,
): Promise<{ readonly chunks: Uint8Array[]; readonly isEnd: boolean }> {
  const chunks: Uint8Array[] = []
  for (let bytes = 0; bytes <= bytesMax;) {
    const next = await source.next()
    if (next.done === true) return { chunks, isEnd: true }
    // Who gave it may use it again.
    chunks.push(Buffer.from(next.value))
    bytes += next.value.length
  }
  return { chunks, isEnd: false }
}

/** Chunks as one stream of bytes. */
class ChunkQueue {
  readonly #head: Uint8Array[]
  readonly #source: AsyncIterator<Uint8Array>
  #left: Uint8Array = new Uint8Array()
  /** Bytes that the source gave. */
  taken = 0

  constructor(head: readonly Uint8Array[], source: AsyncIterator<Uint8Array>) {
    this.#head = [...head]
    this.#source = source
  }

  /** Fills the memory, or as much of it as there are bytes. */
  async fill(into: Uint8Array): Promise<number> {
    let at = 0
    while (at < into.length) {
      if (this.#left.length === 0) {
        const next = this.#head.shift() ?? (await this.#next())
        if (next === undefined) break
        this.taken += next.length
        this.#left = next
      }
      const part = this.#left.subarray(0, into.length - at)
      into.set(part, at)
      at += part.length
      this.#left = this.#left.subarray(part.length)
    }
    return at
  }

  async #next(): Promise<Uint8Array | undefined> {
    const next = await this.#source.next()
    return next.done === true ? undefined : next.value
  }
}
