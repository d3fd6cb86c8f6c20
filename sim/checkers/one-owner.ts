/** Every file has exactly one owner: a current edge, or an edge of the history that owns it. What nothing owns is transient. */
import { type InodeId, inodeType, shownInode } from '#cluster/inode-id.ts'
import type { Edge } from '#cluster/wire/forms.ts'
import { SimulationFailure } from '#sim/timeline.ts'

const OWNING: ReadonlySet<Edge['state']> = new Set(['current', 'locked', 'owned'])

/**
 * @param files all linked files and symlinks of all shards
 * @param edges all edges of all directories, current and past
 */
export function oneOwner(files: Iterable<InodeId>, edges: Iterable<Edge>): void {
  const owners = new Map<InodeId, Edge>()
  for (const edge of edges) {
    if (!OWNING.has(edge.state) || inodeType(edge.inode) === 'directory') continue
    const other = owners.get(edge.inode)
    if (other !== undefined) {
      throw new SimulationFailure(`${shownInode(edge.inode)} has two owners: ${inWords(other)} and ${inWords(edge)}`)
    }
    owners.set(edge.inode, edge)
  }
  for (const file of files) {
    if (!owners.delete(file)) throw new SimulationFailure(`${shownInode(file)} is linked, and nothing owns it`)
  }
  for (const [inode, edge] of owners) {
    throw new SimulationFailure(`${inWords(edge)} owns ${shownInode(inode)}, which is not linked`)
  }
}

function inWords({ name, created, state }: Edge): string {
  return `${state} ${JSON.stringify(name)} of ${created}`
}
