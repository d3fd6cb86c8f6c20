/**
 * The directories are one tree: each that is not history hangs at just one current edge, in the directory that it takes for its owner,
 * and is reached from the root.
 */
import { type InodeId, inodeType, ROOT_INODE, shownInode } from '#cluster/inode-id.ts'
import type { ShardView } from '#sim/shard-view.ts'
import { SimulationFailure } from '#sim/timeline.ts'

export function oneTree({ owners, edges }: ShardView): void {
  const parents = new Map<InodeId, InodeId>()
  for (const { directory, name, inode, state } of edges) {
    if (state !== 'current' && state !== 'locked') continue
    const place = `${JSON.stringify(name)} in ${shownInode(directory)}`
    if (directory !== ROOT_INODE && !isThere(owners, directory)) {
      throw new SimulationFailure(`${place} is current, and that directory is not there`)
    }
    if (inodeType(inode) !== 'directory') continue
    const other = parents.get(inode)
    if (other !== undefined)
      throw new SimulationFailure(`${shownInode(inode)} is ${place}, and in ${shownInode(other)}`)
    if (owners.get(inode) !== directory) {
      throw new SimulationFailure(
        `${shownInode(inode)} is ${place}, and takes ${String(owners.get(inode))} for its owner`,
      )
    }
    parents.set(inode, directory)
  }
  for (const directory of owners.keys()) {
    if (directory === ROOT_INODE || !isThere(owners, directory)) continue
    const seen = new Set<InodeId>()
    for (let at = directory; at !== ROOT_INODE;) {
      const parent = parents.get(at)
      if (parent === undefined)
        throw new SimulationFailure(`${shownInode(at)} is live, and no current edge leads to it`)
      if (seen.has(parent)) throw new SimulationFailure(`${shownInode(directory)} lies in itself`)
      seen.add(parent)
      at = parent
    }
  }
}

function isThere(owners: ReadonlyMap<InodeId, InodeId>, directory: InodeId): boolean {
  return (owners.get(directory) ?? 0) !== 0
}
