/** Hashes of bytes as they come, and of a file of a source. */
import { createHash } from 'node:crypto'

import type { CallOptions } from '#store/store.ts'

import type { ContentHash } from './equality.ts'
import type { SyncSource } from './source.ts'
import type { TreeEntry } from './tree.ts'

/** Of all that a stream gives. */
export async function hashStream(algorithm: string, stream: AsyncIterable<Uint8Array>): Promise<ContentHash> {
  const hash = createHash(algorithm)
  for await (const chunk of stream) hash.update(chunk)
  return { algorithm, digest: hash.digest('hex') }
}

/** SHA-256 of a file that is read for it. @throws OperationError `FILE_STALE` where it changes meanwhile */
export async function hashSource(source: SyncSource, entry: TreeEntry, options: CallOptions): Promise<ContentHash> {
  const open = await source.open(entry, options)
  try {
    return await hashStream('sha256', open.bytes.stream())
  } finally {
    open.close()
  }
}
