/**
 * What was read of a name was there, and nothing that was over: an edge of its history that was not replaced yet by what had been
 * acknowledged before the read began.
 */
import { type InodeId, shownInode } from '#cluster/inode-id.ts'
import { NO_INODE } from '#cluster/wire/forms.ts'
import type { DirectoryEdge } from '#sim/shard-view.ts'
import { SimulationFailure } from '#sim/timeline.ts'
import type { LoggedRead } from '#sim/workloads/tree-log.ts'

/** @param edges all of all directories, by directory, name and time */
export function readsWereTrue(reads: readonly LoggedRead[], edges: readonly DirectoryEdge[]): void {
  const byName = Map.groupBy(edges, ({ directory, name }) => placeOf(directory, name))
  for (const read of reads) {
    const { directory, name, inode, created, floor } = read
    const ofName = byName.get(placeOf(directory, name)) ?? []
    const seen = inode === undefined ? 'nothing' : `${shownInode(inode)} of ${created}`
    const words = `${JSON.stringify(name)} in ${shownInode(directory)} was read as ${seen}`
    if (inode === undefined) {
      const last = ofName.findLast((edge) => edge.created <= floor)
      // What was acknowledged is gone, or was removed after that.
      const wasGone = last === undefined || last.inode === NO_INODE
      if (wasGone || ofName.some((edge) => edge.inode === NO_INODE && edge.created > floor)) continue
      throw new SimulationFailure(`${words}, and what was acknowledged as of ${floor} was there`)
    }
    if (!ofName.some((edge) => edge.created === created && edge.inode === inode)) {
      throw new SimulationFailure(`${words}, which is not in the history`)
    }
    if (created < floor) throw new SimulationFailure(`${words}, and that was over as of ${floor}`)
  }
}

function placeOf(directory: InodeId, name: string): string {
  return `${directory} ${name}`
}
