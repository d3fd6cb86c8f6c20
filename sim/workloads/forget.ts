/**
 * Lets go of history, as a collector does by the policies of directories: edges of the past, the files that they own, and removed directories
 * of which nothing is left. Somebody else takes some of those files back at the same time: each is either forgotten or back.
 */
import { isOperationError } from '#base/errors.ts'
import type { ClusterClient } from '#cluster/client/cluster-client.ts'
import { coordinatorMessages } from '#cluster/coordinator/coordinator-messages.ts'
import { inodeShard, type InodeId } from '#cluster/inode-id.ts'
import { shardMessages } from '#cluster/shard/shard-messages.ts'
import { NOTHING } from '#cluster/wire/forms.ts'
import type { Random } from '#sim/random.ts'
import type { DirectoryEdge } from '#sim/shard-view.ts'

/** So much is asked for at a time. */
const LANES = 4

/** What became of an edge that was there before. */
export interface Fate {
  readonly edge: DirectoryEdge
  isForgotten: boolean
  /** Since when its file has a name again. */
  back: { readonly name: string; readonly created: number } | undefined
}

/** @return the fate of each edge, of all that there are */
export async function forget(
  client: ClusterClient,
  edges: readonly DirectoryEdge[],
  removedDirectories: readonly InodeId[],
  random: Random,
): Promise<readonly Fate[]> {
  const fates = edges.map((edge): Fate => ({ edge, isForgotten: false, back: undefined }))
  const share = random.fraction()
  const work: (() => Promise<void>)[] = []
  for (const [index, fate] of fates.entries()) {
    if (fate.edge.state === 'current') continue
    if (random.happens(share))
      work.push(async () => void (fate.isForgotten = await isDone(forgetEdge(client, fate.edge))))
    if (fate.edge.state === 'owned' && random.happens(0.3)) work.push(() => takeBack(client, fate, `back ${index}`))
  }
  await inLanes(shuffled(work, random))
  const request = (directory: InodeId) => client.askCoordinator(coordinatorMessages.hardUnlinkDirectory, { directory })
  await inLanes(removedDirectories.map((directory) => async () => void (await isDone(request(directory)))))
  return fates
}

async function forgetEdge(client: ClusterClient, edge: DirectoryEdge): Promise<void> {
  const { directory, name, created, inode: file, state } = edge
  if (state !== 'owned') await client.ask(directory, shardMessages.dropEdge, { directory, name, created })
  else if (inodeShard(file) === inodeShard(directory)) {
    await client.ask(directory, shardMessages.hardUnlink, { directory, name, created, file })
  } else await client.askCoordinator(coordinatorMessages.hardUnlinkFile, { directory, name, created, file })
}

async function takeBack(client: ClusterClient, fate: Fate, newName: string): Promise<void> {
  const { directory, name, created } = fate.edge
  await isDone(
    (async () => {
      const request = { directory, name, created, newName, guard: NOTHING }
      const done = await client.ask(directory, shardMessages.undelete, request)
      fate.back = { name: newName, created: done.created }
    })(),
  )
}

async function isDone(asked: Promise<unknown>): Promise<boolean> {
  try {
    await asked
    return true
  } catch (error) {
    if (!isOperationError(error)) throw error
    return false
  }
}

async function inLanes(work: readonly (() => Promise<void>)[]): Promise<void> {
  const left = work.values()
  await Promise.all(
    Array.from({ length: LANES }, async () => {
      for (const each of left) await each()
    }),
  )
}

function shuffled<T>(items: readonly T[], random: Random): T[] {
  const keyed = items.map((item) => ({ item, key: random.fraction() }))
  return keyed.sort((a, b) => a.key - b.key).map(({ item }) => item)
}
