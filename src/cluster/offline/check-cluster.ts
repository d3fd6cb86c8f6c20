/** Checks a whole cluster by its directories: names, files and blocks, and what the coordinator knows of directories. */
import { isOperationError } from '#base/errors.ts'
import { PARENT } from '#cluster/coordinator/records.ts'
import { type InodeId, ROOT_INODE, shownInode } from '#cluster/inode-id.ts'
import { after, numberOfKey } from '#cluster/journal/keys.ts'
import { RangePull } from '#cluster/journal/pull.ts'
import { findDirectory } from '#cluster/shard/records.ts'
import { NO_INODE } from '#cluster/wire/forms.ts'

import { FileCheck, type FileCheckOptions, type FileCounts } from './check-files.ts'
import { NameCheck, type NameCounts } from './check-names.ts'
import { OpenTransactions } from './open-transactions.ts'

export interface CheckedCluster extends NameCounts, FileCounts {
  readonly transactions: number
}

/** Tells of all problems; gives what there is. */
export async function checkCluster(options: FileCheckOptions): Promise<CheckedCluster> {
  const { cluster, onProblem } = options
  const missing = rangesOf(cluster.missing)
  if (missing !== '') {
    onProblem({ severity: 'lost', where: `shards ${missing}`, detail: 'none of the directories given has them' })
  }
  if (cluster.coordinator === undefined) {
    const detail = 'none of the directories given has it: what it had under way cannot be told from what is wrong'
    onProblem({ severity: 'degraded', where: 'coordinator', detail })
  }
  const open = new OpenTransactions(cluster.coordinator, onProblem)
  const names = new NameCheck(cluster, open, onProblem)
  const files = new FileCheck(options)
  for (const found of names.run()) await files.file(found)
  await files.transients()
  await files.rest()
  checkParents(options, open)
  return { ...names.counts, ...files.counts, transactions: open.count }
}

/** Where directories lie as the coordinator has it, by which it keeps them from lying in themselves. */
function checkParents({ cluster, onProblem }: FileCheckOptions, open: OpenTransactions): void {
  const { coordinator } = cluster
  if (coordinator === undefined) return
  const tell = (inode: InodeId, detail: string): void =>
    onProblem({ severity: 'degraded', where: shownInode(inode), detail })
  const ownerOf = (inode: InodeId): InodeId | undefined => {
    const state = cluster.stateOf(inode)
    try {
      return state === undefined ? undefined : (findDirectory(state, inode)?.owner ?? NO_INODE)
    } catch (error) {
      if (!isOperationError(error)) throw error
      return undefined
    }
  }
  const parentOf = (inode: InodeId): InodeId | undefined => {
    try {
      return PARENT.get(coordinator, inode)?.parent
    } catch (error) {
      if (!isOperationError(error)) throw error
      return NO_INODE
    }
  }
  const known = new RangePull(coordinator, 'd', after('d'))
  for (let pair = known.peek(); pair !== undefined; pair = known.peek()) {
    known.advance()
    const inode = numberOfKey(pair.key, 1) as InodeId
    const owner = ownerOf(inode)
    if (owner === undefined || open.concern(inode)) continue
    const parent = parentOf(inode)
    if (parent !== owner) {
      const says = owner === NO_INODE ? 'its shard has it as removed' : `its shard says ${shownInode(owner)}`
      tell(inode, `the coordinator says that it lies in ${shownInode(parent ?? NO_INODE)}, and ${says}`)
    }
  }
  for (const { state } of cluster.shards) {
    const all = new RangePull(state, 'd', after('d'))
    for (let pair = all.peek(); pair !== undefined; pair = all.peek()) {
      all.advance()
      const inode = numberOfKey(pair.key, 1) as InodeId
      const owner = ownerOf(inode)
      const isLive = owner !== undefined && owner !== NO_INODE && inode !== ROOT_INODE
      if (isLive && !open.concern(inode) && parentOf(inode) === undefined) {
        tell(inode, 'the coordinator does not know this directory, and refuses what concerns it')
      }
    }
  }
}

/** `0-127, 130` */
function rangesOf(numbers: readonly number[]): string {
  const ranges: [number, number][] = []
  for (const number of numbers) {
    const last = ranges.at(-1)
    if (last !== undefined && last[1] === number - 1) last[1] = number
    else ranges.push([number, number])
  }
  return ranges.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(', ')
}
