/** All that the shards of a world know, taken from their states without asking them: for checkers. */
import type { InodeId } from '#cluster/inode-id.ts'
import type { StateReader } from '#cluster/journal/state.ts'
import { decode } from '#cluster/wire/codec.ts'
import type { Edge } from '#cluster/wire/forms.ts'
import { directoryRecord, nameOfEdge, nameOfPast, readEdge, readPast } from '#cluster/shard/records.ts'
import { numberOfKey } from '#cluster/journal/keys.ts'

export interface DirectoryEdge extends Edge {
  readonly directory: InodeId
}

export interface ShardView {
  /** In which directory each one lies; 0 for the root and for those that are history. */
  readonly owners: ReadonlyMap<InodeId, InodeId>
  /** All linked files and symlinks. */
  readonly files: readonly InodeId[]
  /** Current and past. */
  readonly edges: readonly DirectoryEdge[]
}

export function viewOf(states: readonly StateReader[]): ShardView {
  const owners = new Map<InodeId, InodeId>()
  const files: InodeId[] = []
  const edges: DirectoryEdge[] = []
  const inodeOf = (key: string): InodeId => numberOfKey(key, 1) as InodeId
  for (const state of states) {
    const each = (letter: string, take: (key: string, value: Buffer) => void): void => {
      state.range(letter, String.fromCharCode(letter.charCodeAt(0) + 1), (key, value) => {
        take(key, value)
        return true
      })
    }
    each('d', (key, value) => owners.set(inodeOf(key), decode(directoryRecord, value).owner))
    each('f', (key) => files.push(inodeOf(key)))
    each('e', (key, value) => edges.push({ directory: inodeOf(key), name: nameOfEdge(key), ...readEdge(value) }))
    each('h', (key, value) => edges.push({ directory: inodeOf(key), name: nameOfPast(key), ...readPast(key, value) }))
  }
  return { owners, files, edges }
}
