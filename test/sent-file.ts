/** Files as a sync hands them to an actor, made of bytes in memory. */
import { OperationError } from '#base/errors.ts'
import { timestamp, type Timestamp } from '#base/time.ts'
import type { FileToSend } from '#sync/actor.ts'
import type { TreeEntry } from '#sync/tree.ts'

export interface SentFileOptions {
  readonly mtime?: Timestamp
  readonly replaced?: TreeEntry | undefined
  /** The stream throws at its end, once so many have gone through whole: as of a file that is changed while it is sent. */
  readonly changesAfterStreams?: number
  /** Bytes of a chunk. */
  readonly chunkBytes?: number
}

export const SENT_MTIME = timestamp(1_763_722_200, 123_456_789)

/** A file of those bytes; its reads are counted. */
export function sentFile(path: string, bytes: Buffer, options: SentFileOptions = {}): FileToSend & { streams: number } {
  const { mtime = SENT_MTIME, replaced, changesAfterStreams = Infinity, chunkBytes = 64 * 1024 } = options
  return {
    path,
    key: path,
    size: bytes.length,
    mtime,
    attributes: { mtime },
    replaced,
    streams: 0,
    async *stream() {
      this.streams++
      for (let at = 0; at < bytes.length; at += chunkBytes) yield bytes.subarray(at, at + chunkBytes)
      if (this.streams > changesAfterStreams) {
        throw new OperationError('FILE_STALE', `Cannot send "${path}": it was changed meanwhile`)
      }
    },
    source() {
      return { kind: 'stream', stream: this.stream(), size: bytes.length }
    },
  }
}
