/** Verbs that look at shards and disks rather than at the tree, and that take transient files apart: visit_*, reverse_block_query, expunge_*. */
import { isOperationError, OperationError } from '#base/errors.ts'
import { blockMessages } from '#cluster/block/block-messages.ts'
import { blockName } from '#cluster/block/block-id.ts'
import type { DiskId } from '#cluster/block/permit.ts'
import type { ClusterClient } from '#cluster/client/cluster-client.ts'
import { diskTarget } from '#cluster/client/disk-choice.ts'
import { type InodeId, inodeShard, parsedInode, SHARDS, shownInode } from '#cluster/inode-id.ts'
import { PAGE_ENTRIES_MAX, shardMessages } from '#cluster/shard/shard-messages.ts'
import type { ValueOf } from '#cluster/wire/codec.ts'
import type { Permitted } from '#cluster/wire/forms.ts'

import type { FsSession } from './session.ts'

const ERASE_MS = 15_000
/** A service that is being started anew. */
const LOST_MS = 3000

type Visited = ValueOf<(typeof shardMessages)['visit']['reply']>['inodes'][number]
type What = 'directories' | 'files' | 'transient'

/** `visit_inodes [START]`: directories and linked files. */
export async function visitInodes({ client, out, isJson }: FsSession, start: string | undefined): Promise<void> {
  for (const { shard, after } of startsOf(start)) {
    for (const what of ['directories', 'files'] as const) {
      for await (const { inode } of visited(client, shard, what, after)) {
        await (isJson ? out.json({ inode: shownInode(inode), shard }) : out.line(shownInode(inode)))
      }
    }
  }
}

/** `visit_eden [START]`: transient files, and until when they may be written. */
export async function visitTransient({ client, out, isJson }: FsSession, start: string | undefined): Promise<void> {
  for (const { shard, after } of startsOf(start)) {
    for await (const { inode, deadline } of visited(client, shard, 'transient', after)) {
      if (isJson) await out.json({ inode: shownInode(inode), shard, deadline })
      else await out.line(`${shownInode(inode)} ${deadline}`)
    }
  }
}

interface Start {
  readonly shard: number
  readonly after: number
}

/** One shard, that of an inode from it on, or all. */
function startsOf(text: string | undefined): Start[] {
  if (text === undefined) return Array.from({ length: SHARDS }, (_, shard) => ({ shard, after: 0 }))
  if (/^\d{1,3}$/.test(text) && Number(text) < SHARDS) return [{ shard: Number(text), after: 0 }]
  if (/^\d{1,15}$/.test(text))
    throw new OperationError('USAGE', `Cannot begin at ${text}: shards are 0 to ${SHARDS - 1}`)
  const inode = parsedInode(text)
  return [{ shard: inodeShard(inode), after: inode - 1 }]
}

async function* visited(client: ClusterClient, shard: number, what: What, start: number): AsyncGenerator<Visited> {
  for (let after = start; ;) {
    const page = { what, after, limit: PAGE_ENTRIES_MAX }
    const { inodes, isLast } = await client.askShard(shard, shardMessages.visit, page)
    yield* inodes
    if (isLast) return
    after = inodes.at(-1)?.inode ?? after
  }
}

/** `reverse_block_query DISK`: every block that the shards have on a disk, and whose it is. */
export async function blocksOfDisk({ client, out, isJson }: FsSession, text: string): Promise<void> {
  const disk = diskOf(text)
  for (let shard = 0; shard < SHARDS; shard++) {
    for (let after = 0; ;) {
      const page = { disk, after, limit: PAGE_ENTRIES_MAX }
      const { blocks, isLast } = await client.askShard(shard, shardMessages.diskBlocks, page)
      for (const { block, file, offset } of blocks) {
        if (isJson) await out.json({ block: blockName(block), file: shownInode(file), offset })
        else await out.line(`${blockName(block)} ${shownInode(file)} ${offset}`)
      }
      if (isLast) break
      after = blocks.at(-1)?.block ?? after
    }
  }
}

function diskOf(text: string): DiskId {
  const disk = Number(text)
  if (/^(?:0x[0-9a-f]{1,14}|\d{1,16})$/i.test(text) && Number.isSafeInteger(disk)) return disk as DiskId
  throw new OperationError('USAGE', `Cannot use "${text}" as a disk: its number is expected`, {
    hint: 'The page of the registry and "eider fs locations" show the numbers of disks.',
  })
}

/** `expunge_span INODE`: removes the last span of a transient file, once its blocks are erased. */
export async function expungeSpan({ client, out, isJson }: FsSession, text: string): Promise<void> {
  const { inode: file, cookie } = await transientOf(client, text)
  const removed = await removeLastSpan(client, file, cookie)
  if (removed === undefined) {
    throw new OperationError('SPAN_NOT_FOUND', `Cannot expunge a span of ${shownInode(file)}: it has none left`)
  }
  if (isJson) await out.json({ inode: shownInode(file), ...removed })
  else await out.line(`offset=${removed.offset} blocks=${removed.blocks}`)
}

/** `expunge_file INODE`: all spans of a transient file, and then itself. */
export async function expungeFile({ client, out, isJson }: FsSession, text: string): Promise<void> {
  const { inode: file, cookie } = await transientOf(client, text)
  await client.ask(file, shardMessages.scrap, { file, cookie })
  let spans = 0
  while ((await removeLastSpan(client, file, cookie)) !== undefined) spans++
  await client.ask(file, shardMessages.removeInode, { inode: file })
  if (isJson) await out.json({ inode: shownInode(file), spans })
  else await out.line(`spans=${spans}`)
}

/** @throws TRANSIENT_EXPECTED where there is no transient file of that id */
async function transientOf(client: ClusterClient, text: string): Promise<Visited> {
  const inode = parsedInode(text)
  const page = { what: 'transient', after: inode - 1, limit: 1 } as const
  const { inodes } = await client.ask(inode, shardMessages.visit, page)
  const [found] = inodes
  if (found?.inode === inode) return found
  throw new OperationError('TRANSIENT_EXPECTED', `Cannot expunge ${shownInode(inode)}: it is no transient file`, {
    hint: '"eider fs visit_eden" lists those that there are.',
  })
}

/** Undefined where there was none. @throws BLOCK_OUT_OF_TIME where blocks are too young to be erased */
async function removeLastSpan(
  client: ClusterClient,
  file: InodeId,
  cookie: Buffer,
): Promise<{ readonly offset: number; readonly blocks: number } | undefined> {
  const { outcome, offset, blocks } = await client.ask(file, shardMessages.removeSpan, { file, cookie })
  if (outcome === 'empty') return undefined
  if (outcome === 'condemned') {
    const receipts = await Promise.all(blocks.map((block) => erased(client, block)))
    await client.ask(file, shardMessages.certifyRemoval, { file, cookie, offset, receipts })
  }
  return { offset, blocks: blocks.length }
}

async function erased(
  client: ClusterClient,
  { disk, block, permit }: Permitted,
): Promise<{ block: Permitted['block']; receipt: Buffer }> {
  const options = { deadlineMs: ERASE_MS, lostMsMax: LOST_MS }
  try {
    const target = diskTarget(client.map, disk)
    const { receipt } = await client.blocks.ask(target, blockMessages.erase, { disk, block, permit }, options)
    return { block, receipt }
  } catch (error) {
    if (!isOperationError(error, 'BLOCK_OUT_OF_TIME')) throw error
    throw new OperationError('BLOCK_OUT_OF_TIME', `Cannot erase block ${blockName(block)}: ${error.message}`, {
      cause: error,
      hint: 'Blocks are erased once they are an hour old, so that nobody can still be writing them: try again then.',
    })
  }
}
