/** `find` and `du`: what lies in a tree, and how much room it takes. */
import type { ClusterClient } from '#cluster/client/cluster-client.ts'
import { type InodeId, inodeType } from '#cluster/inode-id.ts'
import { shardMessages } from '#cluster/shard/shard-messages.ts'
import type { Span, Status } from '#cluster/wire/forms.ts'
import { compileGlob } from '#sync/glob.ts'

import { placeOf } from './place.ts'
import { type FsSession, pastTime } from './session.ts'
import { asEntry, entryJson, statusJson, statusOf } from './status.ts'
import { AT_ONCE, mapAhead, walk, type Walked } from './walk.ts'
import { about } from '#cli/status-screen.ts'

const SPANS_PAGE = 1000
const TYPES = { f: 'file', d: 'directory', l: 'symlink' } as const

export interface FindOptions {
  readonly name: string | undefined
  readonly type: keyof typeof TYPES | undefined
  readonly minSize: number | undefined
  /** Milliseconds. */
  readonly olderThan: number | undefined
  readonly asOf: string | undefined
}

/** `find PATH` */
export async function find(session: FsSession, text: string, options: FindOptions): Promise<void> {
  const { client, out, isJson } = session
  const { name, type, minSize, olderThan, asOf } = options
  const glob = name === undefined ? undefined : compileGlob(name)
  const needsStatus = minSize !== undefined || olderThan !== undefined
  const changedBefore = olderThan === undefined ? undefined : (Date.now() - olderThan) * 1000
  const fits = ({ path, entry }: Walked): boolean => {
    const isDirectory = inodeType(entry.inode) === 'directory'
    if (type !== undefined && inodeType(entry.inode) !== TYPES[type]) return false
    return glob === undefined || glob.matches(path.slice(path.lastIndexOf('/') + 1), isDirectory)
  }
  const fitsStatus = (status: Status | undefined): boolean => {
    if (!needsStatus) return true
    if (status === undefined || status.size < (minSize ?? 0)) return false
    return changedBefore === undefined || status.mtime <= changedBefore
  }
  const candidates = async function* (): AsyncGenerator<Walked> {
    for await (const each of treeOf(session, text, asOf, needsStatus)) if (fits(each)) yield each
  }
  const describe = async (each: Walked): Promise<Walked & { status: Status | undefined }> => ({
    ...each,
    status: needsStatus ? await statusOf(client, each.entry) : undefined,
  })
  for await (const { path, entry, status } of mapAhead(candidates(), AT_ONCE, describe)) {
    if (!fitsStatus(status)) continue
    if (isJson) await out.json({ path, ...entryJson(entry), ...(status && statusJson(status)) })
    else await out.line(path)
  }
}

/** What a path names, and all below it. */
async function* treeOf(
  session: FsSession,
  text: string,
  asOf: string | undefined,
  withStatus: boolean,
): AsyncGenerator<Walked> {
  const { client, signal } = session
  const time = pastTime(session, asOf)
  const place = await placeOf(client, text, time)
  yield { path: text, entry: asEntry(place), depth: 0 }
  if (inodeType(place.inode) !== 'directory') return
  yield* walk(client, text, place.inode, { withStatus, asOf: time, signal })
}

interface Sum {
  readonly path: string
  bytes: number
  files: number
  directories: number
}

/** `du PATH` */
export async function usage(
  session: FsSession,
  text: string,
  { summary, physical }: { readonly summary: boolean; readonly physical: boolean },
): Promise<void> {
  const { client, out, isJson } = session
  const show = async ({ path, bytes, files, directories }: Sum): Promise<void> => {
    if (isJson) await out.json({ path, bytes, files, directories, isPhysical: physical })
    else await out.line(`${about(bytes).padEnd(10)} ${path}`)
  }
  const measured = async (each: Walked): Promise<Walked & { bytes: number }> => {
    if (inodeType(each.entry.inode) === 'directory') return { ...each, bytes: 0 }
    if (physical) return { ...each, bytes: await physicalBytes(client, each.entry.inode) }
    return { ...each, bytes: (await statusOf(client, each.entry))?.size ?? 0 }
  }
  // The directories that lie around what is at hand, the outermost first.
  const open: Sum[] = []
  const closeDownTo = async (depth: number): Promise<void> => {
    while (open.length > depth) {
      const sum = open.pop()
      const around = open.at(-1)
      if (sum === undefined) return
      if (around !== undefined) {
        around.bytes += sum.bytes
        around.files += sum.files
        around.directories += sum.directories
      }
      if (!summary || open.length === 0) await show(sum)
    }
  }
  const tree = treeOf(session, text, undefined, !physical)
  for await (const { path, entry, depth, bytes } of mapAhead(tree, AT_ONCE, measured)) {
    const isDirectory = inodeType(entry.inode) === 'directory'
    await closeDownTo(depth)
    if (isDirectory || depth === 0) {
      open.push({ path, bytes, files: isDirectory ? 0 : 1, directories: isDirectory ? 1 : 0 })
      continue
    }
    const around = open.at(-1)
    if (around === undefined) continue
    around.bytes += bytes
    around.files++
  }
  await closeDownTo(0)
}

/** All spans of a file, in order. */
export async function* spansOf(client: ClusterClient, file: InodeId): AsyncGenerator<Span, void, undefined> {
  for (let offset = 0; ;) {
    const { spans, isLast } = await client.ask(file, shardMessages.spans, { file, offset, limit: SPANS_PAGE })
    yield* spans
    const last = spans.at(-1)
    if (isLast || last === undefined) return
    offset = last.offset + last.size
  }
}

/** On all disks together, and inline. */
async function physicalBytes(client: ClusterClient, file: InodeId): Promise<number> {
  let bytes = 0
  for await (const { inline, blocks } of spansOf(client, file)) {
    bytes += inline?.length ?? 0
    if (blocks !== undefined) bytes += blocks.stripes * blocks.cellBytes * blocks.blocks.length
  }
  return bytes
}
