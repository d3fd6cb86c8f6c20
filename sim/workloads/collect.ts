/** Removes what nobody finishes or owns: the spans of transient files, block by block as their disks say, and then the files. */
import { isOperationError } from '#base/errors.ts'
import { blockMessages } from '#cluster/block/block-messages.ts'
import type { ClusterClient } from '#cluster/client/cluster-client.ts'
import { diskTarget } from '#cluster/client/disk-choice.ts'
import type { InodeId } from '#cluster/inode-id.ts'
import { shardMessages } from '#cluster/shard/shard-messages.ts'
import type { Permitted } from '#cluster/wire/forms.ts'

const ERASE_MS = 60_000

/** @throws what disks and shards refuse it by, such as BLOCK_OUT_OF_TIME of blocks that are not old enough */
export async function collect(client: ClusterClient, shards: Iterable<number>): Promise<void> {
  for (const shard of shards) {
    const { inodes } = await client.askShard(shard, shardMessages.visit, { what: 'transient', after: 0, limit: 10_000 })
    for (const { inode, cookie } of inodes) await collectFile(client, inode, cookie)
  }
}

async function collectFile(client: ClusterClient, file: InodeId, cookie: Buffer): Promise<void> {
  for (;;) {
    const { outcome, offset, blocks } = await client.ask(file, shardMessages.removeSpan, { file, cookie })
    if (outcome === 'empty') break
    if (outcome === 'removed') continue
    if (await isCertifiedTooSoon(client, { file, cookie, offset }, blocks)) continue
    const receipts = []
    for (const { disk, block, permit } of blocks) {
      const target = diskTarget(client.map, disk)
      const options = { deadlineMs: ERASE_MS, lostMsMax: ERASE_MS }
      const { receipt } = await client.blocks.ask(target, blockMessages.erase, { disk, block, permit }, options)
      receipts.push({ block, receipt })
    }
    await client.ask(file, shardMessages.certifyRemoval, { file, cookie, offset, receipts })
  }
  await client.ask(file, shardMessages.scrap, { file, cookie })
  await client.ask(file, shardMessages.removeInode, { inode: file })
}

/** Without having erased anything: it must be refused, or the blocks stay for ever. */
async function isCertifiedTooSoon(
  client: ClusterClient,
  span: { readonly file: InodeId; readonly cookie: Buffer; readonly offset: number },
  blocks: readonly Permitted[],
): Promise<boolean> {
  const receipts = blocks.map(({ block, permit }) => ({ block, receipt: permit }))
  try {
    await client.ask(span.file, shardMessages.certifyRemoval, { ...span, receipts })
    return true
  } catch (error) {
    if (!isOperationError(error, 'RECEIPT_REFUSED')) throw error
    return false
  }
}
