/**
 * What was to be forgotten of the history is gone, its file with it; what was taken back has its name again; never both. All other edges are as
 * they were.
 */
import { type InodeId, shownInode } from '#cluster/inode-id.ts'
import type { DirectoryEdge } from '#sim/shard-view.ts'
import { SimulationFailure } from '#sim/timeline.ts'
import type { Fate } from '#sim/workloads/forget.ts'

/**
 * @param edges that there are by now
 * @param files that are linked by now
 */
export function forgottenOrBack(
  fates: Iterable<Fate>,
  edges: readonly DirectoryEdge[],
  files: ReadonlySet<InodeId>,
): void {
  const now = new Map(edges.map((edge) => [placeOf(edge), edge]))
  for (const { edge, isForgotten, back } of fates) {
    const { directory, name, inode, created, state } = edge
    const words = `${JSON.stringify(name)} of ${created} in ${shownInode(directory)}`
    const found = now.get(placeOf(edge))
    if (isForgotten && back !== undefined && state === 'owned') fail(`${words} was forgotten, and its file taken back`)
    if (back !== undefined) {
      const again = now.get(placeOf({ directory, ...back }))
      if (again?.inode !== inode || again.state !== 'current')
        fail(`the file of ${words} was taken back, and is not there`)
    }
    if (state === 'owned' && files.has(inode) === isForgotten) {
      fail(`the file of ${words} is ${isForgotten ? 'there, and was forgotten' : 'gone, and nobody has forgotten it'}`)
    }
    const expected = back === undefined ? state : 'left'
    if (isForgotten ? found !== undefined : found?.state !== expected || found.inode !== inode) {
      fail(`${words} is ${found?.state ?? 'gone'}, and should be ${isForgotten ? 'gone' : expected}`)
    }
  }
}

function placeOf({ directory, name, created }: Pick<DirectoryEdge, 'directory' | 'name' | 'created'>): string {
  return `${directory} ${created} ${name}`
}

function fail(why: string): never {
  throw new SimulationFailure(why)
}
