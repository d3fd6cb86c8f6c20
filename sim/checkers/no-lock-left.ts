/** No lock outlives its transaction: once nothing is under way, no edge is locked. */
import { shownInode } from '#cluster/inode-id.ts'
import type { ShardView } from '#sim/shard-view.ts'
import { SimulationFailure } from '#sim/timeline.ts'

export function noLockLeft({ edges }: ShardView): void {
  for (const { directory, name, state } of edges) {
    if (state !== 'locked') continue
    throw new SimulationFailure(
      `${JSON.stringify(name)} in ${shownInode(directory)} is locked, and nothing is under way`,
    )
  }
}
