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
const INTENT_REQUESTS = 3

/** About how many requests the change would have been. */
export function requestsOf(change: Change): number {
  switch (change.kind) {
    case 'put':
      return putRequests(change.bytes)
    case 'symlink':
    case 'makeSpecial':
      return change.looks ? 3 : 1
    case 'makeDirectory':
      return change.looks ? 4 : 1
    case 'setAttributes':
    case 'copy':
    case 'removeDirectory':
      return 2
    case 'remove':
      return change.guarded ? 1 : 2
    case 'removeAll':
      return Math.ceil(change.entries / KEYS_MAX)
    case 'rename':
      return change.directory ? INTENT_REQUESTS + movedRequests(change.entries) : 4
    case 'exchange':
      // By way of a third place: what is on one side moves twice.
      return INTENT_REQUESTS + movedRequests(change.entries) + movedRequests(Math.ceil(change.entries / 2))
  }
}

function putRequests(bytes: number): number {
  if (bytes <= 2 * PART_BYTES) return 1
  return 2 + Math.min(PARTS_MAX, Math.ceil(bytes / PART_BYTES))
}

/** Listed and deleted by the page, looked at and copied one by one. */
function movedRequests(entries: number): number {
  return 2 * entries + 2 * Math.ceil(entries / KEYS_MAX)
}
