/** Hashes of bytes as they come, and of a file of a source. */
import { createHash } from 'node:crypto'

import type { CallOptions } from '#store/store.ts'

import type { ContentHash } from './equality.ts'
import type { OpenSource, SyncSource } from './source.ts'
import type { TreeEntry } from './tree.ts'

/** Of all that a stream gives. */
export async function hashStream(algorithm: string, stream: AsyncIterable<Uint8Array>): Promise<ContentHash> {
  const hash = createHash(algorithm)
  for await (const chunk of stream) hash.update(chunk)
  return { algorithm, digest: hash.digest('hex') }
}

/** What of a file was hashed: every change of the bytes after `lookedAt` shows in its times. */
export interface HashedSource extends Pick<OpenSource, 'lookedAt' | 'isWritten'> {
  readonly hash: ContentHash
}

/** SHA-256 of a file that is read for it. @throws OperationError `FILE_STALE` where it changes meanwhile */
export async function hashSource(source: SyncSource, entry: TreeEntry, options: CallOptions): Promise<HashedSource> {
  const open = await source.open(entry, options)
  try {
    const { lookedAt, isWritten } = open
    return { hash: await hashStream('sha256', open.bytes.stream()), lookedAt, isWritten }
  } finally {
    open.close()
  }
}
