/** What a store says of an entry as an entry of a tree. */
import type { Entry } from '#store/store.ts'

import type { TreeEntry } from './tree.ts'

/** `path`: where it stands in the tree. The time is the one that was kept with it; that of its storing tells nothing of the bytes. */
export function treeEntry({ kind, size, version, attributes }: Entry, path: string): TreeEntry {
  return { path, kind, size, version, mtime: attributes?.mtime, attributes }
}
