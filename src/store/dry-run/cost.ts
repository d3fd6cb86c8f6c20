/**
 * What a change would cost in requests on a store of objects that knows no directories, as S3: a rough count by the kind of
 * change, at the figures that `s3/bucket-store.ts` gives for itself. It asks nobody, so a conflict or a retry is not in it.
 */

/** A change, with what its cost depends on. */
export type Change =
  | { readonly kind: 'put'; readonly bytes: number }
  /** `looks`: the store would look before whether the path is free. */
  | { readonly kind: 'symlink' | 'makeSpecial' | 'makeDirectory'; readonly looks: boolean }
  | { readonly kind: 'setAttributes' | 'copy' | 'removeDirectory' }
  | { readonly kind: 'remove'; readonly guarded: boolean }
  | { readonly kind: 'removeAll'; readonly entries: number }
  /** Entries that move: 1 for a file, all that lie under it for a directory and the directory itself. */
  | { readonly kind: 'rename'; readonly entries: number; readonly directory: boolean }
  | { readonly kind: 'exchange'; readonly entries: number }

const PART_BYTES = 8 << 20
const PARTS_MAX = 10_000
/** Keys in one request to list, or to delete, at most. */
const KEYS_MAX = 1000
/** A move of a directory is written down before, in its middle and after. */
const INTENT: readonly Requests[] = [
  { operation: 'PutObject', count: 2 },
  { operation: 'DeleteObject', count: 1 },
]

/** So many requests of an operation, as S3 calls it. */
export interface Requests {
  readonly operation: string
  readonly count: number
}

/** About the requests that the change would have been. */
export function requestsOf(change: Change): Requests[] {
  switch (change.kind) {
    case 'put':
      return putRequests(change.bytes)
    case 'symlink':
    case 'makeSpecial':
      return requests(change.looks ? { HeadObject: 1, ListObjectsV2: 1, PutObject: 1 } : { PutObject: 1 })
    case 'makeDirectory':
      return requests(change.looks ? { HeadObject: 2, ListObjectsV2: 1, PutObject: 1 } : { PutObject: 1 })
    case 'setAttributes':
    case 'copy':
      return requests({ HeadObject: 1, CopyObject: 1 })
    case 'removeDirectory':
      return requests({ ListObjectsV2: 1, DeleteObject: 1 })
    case 'remove':
      return requests(change.guarded ? { DeleteObject: 1 } : { HeadObject: 1, DeleteObject: 1 })
    case 'removeAll':
      return requests({ DeleteObjects: Math.ceil(change.entries / KEYS_MAX) })
    case 'rename':
      if (!change.directory) return requests({ HeadObject: 2, CopyObject: 1, DeleteObject: 1 })
      return [...INTENT, ...movedRequests(change.entries)]
    case 'exchange':
      // By way of a third place: what is on one side moves twice.
      return [...INTENT, ...movedRequests(change.entries), ...movedRequests(Math.ceil(change.entries / 2))]
  }
}

/** How many they are. */
export function countOf(all: readonly Requests[]): number {
  return all.reduce((sum, { count }) => sum + count, 0)
}

function requests(counts: Readonly<Record<string, number>>): Requests[] {
  return Object.entries(counts).map(([operation, count]) => ({ operation, count }))
}

function putRequests(bytes: number): Requests[] {
  if (bytes <= 2 * PART_BYTES) return requests({ PutObject: 1 })
  const parts = Math.min(PARTS_MAX, Math.ceil(bytes / PART_BYTES))
  return requests({ CreateMultipartUpload: 1, UploadPart: parts, CompleteMultipartUpload: 1 })
}

/** Listed and deleted by the page, looked at and copied one by one. */
function movedRequests(entries: number): Requests[] {
  const pages = Math.ceil(entries / KEYS_MAX)
  return requests({ HeadObject: entries, CopyObject: entries, ListObjectsV2: pages, DeleteObjects: pages })
}
